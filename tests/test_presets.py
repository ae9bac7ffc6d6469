"""The presets against the configurations of the programs they stand for, where those are at hand."""

import json

import pytest

from mrcnn.config import Config, setting_names
from mrcnn.presets import Detectron2, Matterport, Torchvision, TorchvisionV2
from tests import oracles


@pytest.mark.parametrize("preset", [Matterport, Torchvision, TorchvisionV2, Detectron2])
def test_each_preset_is_a_valid_configuration_and_stays_one_through_json(preset):
    config = preset(NAME="x")
    again = Config.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again.to_dict() == json.loads(json.dumps(config.to_dict()))


@pytest.mark.parametrize("preset", [Matterport, Torchvision, TorchvisionV2, Detectron2])
def test_a_preset_says_only_what_differs_from_the_default(preset):
    said = {name for name in vars(preset) if name.isupper()}
    assert said <= set(setting_names())
    assert [name for name in said if getattr(preset, name) == getattr(Config, name)] == []


def test_matterport_agrees_with_the_old_configuration():
    """The settings that the oracle's run did not change from that package's defaults."""
    theirs = json.loads(oracles.path("matterport/config_r50.json").read_text())
    ours = Matterport(NUM_CLASSES=theirs["NUM_CLASSES"])
    same = [
        "BACKBONE_STRIDES",
        "RPN_ANCHOR_RATIOS",
        "RPN_ANCHOR_STRIDE",
        "RPN_NMS_THRESHOLD",
        "RPN_BBOX_STD_DEV",
        "BBOX_STD_DEV",
        "PRE_NMS_LIMIT",
        "ROI_POSITIVE_RATIO",
        "POOL_SIZE",
        "MASK_POOL_SIZE",
        "MEAN_PIXEL",
        "MINI_MASK_SHAPE",
        "DETECTION_NMS_THRESHOLD",
        "IMAGE_RESIZE_MODE",
        "LEARNING_MOMENTUM",
        "LEARNING_RATE",
        "WEIGHT_DECAY",
        "GRADIENT_CLIP_NORM",
        "FPN_CLASSIF_FC_LAYERS_SIZE",
        "TOP_DOWN_PYRAMID_SIZE",
    ]
    assert {name: ours.to_dict()[name] for name in same} == {name: theirs[name] for name in same}
    assert ours.IMAGE_SHAPE == (1024, 1024, 3)


def test_torchvision_agrees_with_its_configuration():
    config = Torchvision()
    assert config.NUM_CLASSES == 91
    assert (config.ROI_ALIGNED, config.RPN_ANCHOR_ROUNDED) == (False, True)
    assert (config.BACKBONE, config.BACKBONE_STRIDE_IN_1X1) == ("resnet50", False)
    assert config.GRADIENT_CLIP_NORM is None


def test_detectron2_agrees_with_its_resolved_configuration():
    """The few lines of the yaml that matter, found as text: there is no yaml among the dependencies."""
    text = oracles.path("detectron2/mask_rcnn_R_50_FPN_3x.resolved.yaml").read_text()
    config = Detectron2()
    assert f"STRIDE_IN_1X1: {str(config.BACKBONE_STRIDE_IN_1X1).lower()}" in text
    assert f"SMOOTH_L1_BETA: {config.BBOX_LOSS_BETA}" in text
    assert f"BATCH_SIZE_PER_IMAGE: {config.TRAIN_ROIS_PER_IMAGE}" in text
    assert f"NUM_CLASSES: {config.NUM_CLASSES - 1}" in text, "without the background there"
    assert all(f"- {value}" in text for value in config.MEAN_PIXEL)
    assert config.CHANNEL_ORDER == "bgr" and "FORMAT: BGR" in text

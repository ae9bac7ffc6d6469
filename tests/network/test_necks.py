"""Networks without a pyramid or a mask head: each trains a step, detects, saves and loads."""

import keras
import numpy as np
import pytest

from mrcnn.config import Config
from mrcnn.model import MaskRCNN
from mrcnn.network.backbone import build_backbone
from mrcnn.network.feature_taps import taps
from mrcnn.network.graph import build_network
from tests.tiny import TinyConfig, TinyDataset, tiny_backbone

pytestmark = pytest.mark.slow

NARROW = {"BACKBONE": "resnet50", "BACKBONE_OPTIONS": {"width": 8}, "RPN_ANCHOR_RATIOS": [0.5, 1]}
KINDS = {
    "no masks": {"MASK_HEAD": None},
    "c4": {
        **NARROW,
        "NECK": "c4",
        "BACKBONE_STRIDES": [16],
        "POOL_SIZE": 14,
        "BOX_HEAD_FC_LAYERS": 0,
        "MASK_HEAD": {"name": "fcn", "filters": 16, "convolutions": 0},
    },
    "c4 without masks": {
        **NARROW,
        "NECK": "c4",
        "BACKBONE_STRIDES": [16],
        "POOL_SIZE": 14,
        "BOX_HEAD_FC_LAYERS": 0,
        "MASK_HEAD": None,
    },
    "c5": {"NECK": "c5", "BACKBONE_STRIDES": [32]},
    "dc5": {**NARROW, "NECK": "dc5", "BACKBONE_STRIDES": [16]},
    "RoIPool": {"ROI_POOLING": "pool"},
    "RoIWarp, the highest sample": {"ROI_POOLING": "warp", "ROI_REDUCTION": "max"},
}
KINDS["c4 of a function"] = {
    name: value for name, value in KINDS["c4"].items() if name not in ("BACKBONE", "BACKBONE_OPTIONS")
}
KINDS["dc5 of a function"] = {"NECK": "dc5", "BACKBONE_STRIDES": [16]}
KINDS["c4 with RoIPool"] = {**KINDS["c4"], "ROI_POOLING": "pool"}
KINDS["c5 with RoIPool"] = {**KINDS["c5"], "ROI_POOLING": "pool"}


@pytest.mark.parametrize("kind", KINDS)
def test_trains_detects_saves_and_loads(kind, tmp_path):
    config = TinyConfig(**KINDS[kind], DETECTION_MIN_CONFIDENCE=0.0)
    model = MaskRCNN("training", config, tmp_path)
    history = model.train(TinyDataset(2), None, epochs=1, verbose=0).history
    masks = config.MASK_HEAD is not None
    assert np.isfinite(history["loss"]).all() and ("mrcnn_mask_loss" in history) == masks
    image = TinyDataset(1).load_image(0)
    found = model.detect([image])[0]
    count = len(found["rois"])
    assert count and found["masks"].shape == (64, 64, count)
    assert masks or not found["masks"].any()
    other = MaskRCNN("inference", config, tmp_path)
    other.load_weights(model.checkpoint_path(1))
    np.testing.assert_array_equal(other.detect([image])[0]["rois"], found["rois"])


def test_stage_5_is_computed_once_for_both_heads():
    network = build_network(TinyConfig(**KINDS["c4"]))
    assert network.trunk.output_shape[-1] == 128 if isinstance(network.trunk.output_shape, tuple) else True
    assert network.roi_stage.output_shape == (None, 7, 7, 256)
    assert network.mask_head.input_shape == (None, 7, 7, 256) and network.mask_size == 14
    assert {"roi_stage/res5a_branch2a", "box_head/mrcnn_class_logits"} <= set(network.layers())
    assert not [name for name in network.layers() if name.startswith("trunk/res5")]


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"NECK": "c4"}, r"BACKBONE_STRIDES must be \[16\], which NECK = 'c4' fixes .* got \[4, 8"),
        ({"NECK": "p7"}, "NECK must be one of .*got 'p7'"),
        ({"NECK": "c4", "BACKBONE_STRIDES": [16]}, "POOL_SIZE must be even .* got 7"),
        ({"NECK": "c4", "BACKBONE_STRIDES": [16], "POOL_SIZE": 14}, "BOX_HEAD_FC_LAYERS must be 0 .* got 2"),
        ({"ROI_POOLING": "crop"}, r"ROI_POOLING must be one of \('align', 'warp', 'pool'\), got 'crop'"),
        ({"ROI_REDUCTION": "sum"}, r"ROI_REDUCTION must be one of \('average', 'max'\), got 'sum'"),
        ({"ROI_GEOMETRY": "crop", "ROI_POOLING": "warp"}, 'ROI_POOLING must be "align" or "pool" .* got \'warp\''),
        ({"BACKBONE_STRIDES": [16]}, r"NECK = 'fpn' fixes \(NECK = \"c4\" or \"dc5\" has those given\), got \[16\]"),
        ({"BACKBONE_STRIDES": 16}, r"BACKBONE_STRIDES must be \[4, 8, 16, 32, 64\].* got 16"),
        ({"MASK_HEAD": False}, 'MASK_HEAD must be a name such as "fcn", .* or None for no masks, got False'),
        ({"MASK_HEAD": "None"}, "MASK_HEAD must be .* or None for no masks, got 'None'"),
        ({"KEYPOINT_HEAD": {"filters": 8}}, 'KEYPOINT_HEAD must be .* a dict of "name" and options'),
        ({"NECK": "c5", "BACKBONE_STRIDES": [32], "RPN_ANCHOR_SCALES": []}, "one or more sizes of NECK = 'c5'"),
        ({"BOX_HEAD_FC_LAYERS": 0}, "BOX_HEAD_FC_LAYERS must be an integer of 1 or more for NECK = 'fpn', got 0"),
    ],
)
def test_contradictions_say_how_to_fix_them(settings, message):
    with pytest.raises(ValueError, match=message):
        Config(**settings)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"MASK_HEAD": "keypoints"}, "head 'keypoints' is a keypoints head; a mask head is needed"),
        ({"KEYPOINT_HEAD": "fcn"}, r"head 'fcn' is a mask head; a keypoints head is needed: \['keypoints'\]"),
        ({"KEYPOINT_HEAD": "keypoint"}, r"unknown keypoints head 'keypoint'; .*\['keypoints'\]; did you mean"),
        ({"KEYPOINT_HEAD": {"name": "keypoints", "convolutions": "8"}}, "convolutions of the keypoints head .*'8'"),
        ({"MASK_HEAD": {"name": "fcn", "convolutions": -1}}, "convolutions of the fcn head must be .* received -1"),
        (
            {"MASK_HEAD": {"name": "fcn", "activation": "softmax", "class_agnostic": True}},
            'class_agnostic=True leaves a softmax nothing to compare; use activation="sigmoid"',
        ),
        ({**KINDS["c4"], "MASK_HEAD": "unet"}, "mask head gets 7 x 7 cells of stage 5, half of POOL_SIZE = 14; set"),
        (
            {**KINDS["c4 of a function"], "MASK_HEAD": {"name": "mask_scoring", "of": "pointrend"}, "POOL_SIZE": 16},
            'trains on predicted boxes, but with NECK = "c4" it shares .* Set NECK = "fpn"',
        ),
        ({"BACKBONE": "resnext101_32x8d", "BACKBONE_OPTIONS": {"width": 4}}, "16 channels in stage 2 .*larger width"),
        ({"BACKBONE": "resnet50", "BACKBONE_OPTIONS": {"width": "8"}}, "width of resnet50 must be an integer .* '8'"),
    ],
)
def test_contradictions_with_heads_and_backbones_say_how_to_fix_them(settings, message):
    with pytest.raises(ValueError, match=message):
        build_network(TinyConfig(**settings))


def test_a_single_level_may_have_any_number_of_scales():
    network = build_network(TinyConfig(**{**KINDS["c4"], "RPN_ANCHOR_SCALES": (16, 32, 64)}))
    assert network.rpn.get_layer("rpn_class_raw").filters == 2 * 3


def test_dc5_of_a_function_that_cannot_be_dilated():
    def growing(image):
        *taps, c4, c5 = tiny_backbone(image)
        c5 = keras.layers.MaxPooling2D(2)(keras.layers.Conv2DTranspose(8, 2, 2, name="larger")(c5))
        return [*taps, c4, c5]

    with pytest.raises(ValueError, match='cannot be dilated, .* its layer .* in stage 5 .* Set NECK = "c5"'):
        build_backbone(growing, neck="dc5")


@pytest.mark.parametrize("name, options", [("MobileNet", {"alpha": 0.25}), ("MobileNetV2", {"alpha": 0.35})])
def test_stage_5_of_an_application_is_its_last_layers(name, options):
    """On C4 of a whole image it gives the model's own C5, with the weights that were loaded into the model."""
    built = build_backbone(name, options=options, neck="c4", roi_size=14)
    image = np.random.default_rng(0).normal(size=(1, 224, 224, 3)).astype("float32")
    c4 = np.asarray(keras.tree.flatten(built.model(image))[-1])
    assert c4.shape[1:3] == (14, 14)
    (c5,) = taps(built.source, (32,))
    expected = keras.Model(built.source.inputs[0], c5)(image)
    np.testing.assert_allclose(built.last_stage(c4), expected, rtol=1e-4, atol=1e-5)
    assert not {id(layer) for layer in built.last_stage.layers if layer.weights} & {
        id(layer) for layer in built.model.layers
    }


def test_a_function_without_a_last_stage_of_its_own_has_no_c4():
    def skipping(image):
        taps = tiny_backbone(image)
        shortcut = keras.layers.Conv2D(taps[3].shape[-1], 1, strides=2, name="shortcut")(taps[1])
        shortcut = keras.layers.MaxPooling2D(2, name="smaller")(shortcut)
        return [*taps[:3], keras.layers.Add(name="sum")([taps[3], shortcut])]

    with pytest.raises(
        ValueError, match='does not compute C5 from C4 alone, as NECK = "c4" requires.* Set NECK = "c5"'
    ):
        build_backbone(skipping, neck="c4")

"""A model from a file alone: of other programs and of our own, and the same numbers after a round trip."""

import json
import pickle

import numpy as np
import pytest

from mrcnn.config import Config
from mrcnn.model import MaskRCNN
from mrcnn.weights.checkpoint import read_metadata
from mrcnn.weights.recognize import read_source
from tests import parity
from tests.tiny import TinyConfig, TinyDataset
from tests.weights import matterport_writer
from tests.weights.importers import test_detectron2, test_torchvision
from tests.weights.metadata import set_metadata
from tests.weights.torch_writer import save_zip

pytestmark = pytest.mark.slow

SMALL = {
    "IMAGE_MIN_DIM": 64,
    "IMAGE_MAX_DIM": 64,
    "PRE_NMS_LIMIT": 50,
    "POST_NMS_ROIS_INFERENCE": 30,
    "DETECTION_MAX_INSTANCES": 10,
    "DETECTION_MIN_CONFIDENCE": 0.0,
}
IMAGE = TinyDataset(1).load_image(0)


def save_torchvision(folder, classes=5):
    path = folder / "torchvision.pth"
    save_zip(path, parity.values_of(test_torchvision.shapes(classes=classes)))
    return path


def save_detectron2(folder):
    path = folder / "detectron2.pkl"
    state = parity.values_of(test_detectron2.shapes())
    state["backbone.bottom_up.stem.conv1.norm.running_var"] *= 4000  # the pixels are not divided by a deviation
    path.write_bytes(pickle.dumps({"model": state, "__author__": "nobody"}))
    return path


def save_pointrend(folder):
    path = folder / "pointrend.pkl"
    state = parity.values_of(test_detectron2.shapes(pointrend=True))
    state["backbone.bottom_up.stem.conv1.norm.running_var"] *= 4000
    path.write_bytes(pickle.dumps({"model": test_detectron2.earlier_names(state), "__author__": "nobody"}))
    return path


def save_matterport(folder):
    path = folder / "matterport.h5"
    layers = matterport_writer.values_of(matterport_writer.shapes())
    layers["bn_conv1"]["moving_variance"] *= 4000
    matterport_writer.save(path, layers)
    return path


def assert_same_detections(found, expected):
    assert len(expected["scores"]) > 0
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize(
    "save, classes, settings",
    [
        (save_torchvision, 5, {"ROI_ALIGNED": False, "RPN_ANCHOR_ROUNDED": True, "BACKBONE_STRIDE_IN_1X1": False}),
        (save_detectron2, 5, {"CHANNEL_ORDER": "bgr", "BACKBONE_STRIDE_IN_1X1": True, "ROI_ALIGNED": True}),
        (save_pointrend, 5, {"CHANNEL_ORDER": "bgr", "BACKBONE_STRIDE_IN_1X1": True}),
        (save_matterport, 4, {"ROI_GEOMETRY": "crop", "RPN_CHANNELS": 20, "DETECTION_BEST_CLASS_ONLY": True}),
    ],
)
def test_import_save_load_detect_is_bit_equal(save, classes, settings, tmp_path, capsys):
    """The checkpoint that an imported model writes needs nothing else, neither file nor settings."""
    imported = MaskRCNN.from_pretrained(save(tmp_path), model_dir=tmp_path, **SMALL)
    assert imported.config.NUM_CLASSES == classes and imported.config.BACKBONE_OPTIONS == {"width": 8}
    assert {name: getattr(imported.config, name) for name in settings} == settings
    assert not capsys.readouterr().out, "all of it is loaded, and nothing changed"
    expected = imported.detect([IMAGE])[0]
    imported.class_names = ["BG", *"abcd"[: classes - 1]]
    imported.save_weights(tmp_path / "ours.h5")
    again = imported
    if save is save_torchvision:  # once, a second network costs seconds
        again = MaskRCNN.from_pretrained(tmp_path / "ours.h5", model_dir=tmp_path)
    else:
        for layer in imported.network.layers().values():
            layer.set_weights([np.zeros(weight.shape) for weight in layer.weights])
        imported.load_weights(tmp_path / "ours.h5")
    assert not capsys.readouterr().out
    stored = read_source(tmp_path / "ours.h5")
    assert json.dumps(stored.settings) == json.dumps(again.config.to_dict()) == json.dumps(imported.config.to_dict())
    assert again.class_names == imported.class_names == stored.class_names
    assert_same_detections(again.detect([IMAGE])[0], expected)


# Our own


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A tiny model, its file, and what it finds."""
    model = MaskRCNN("inference", TinyConfig(SEED=4, DETECTION_MIN_CONFIDENCE=0.0), tmp_path_factory.mktemp("logs"))
    model.class_names = ["BG", "box", "disc"]
    path = model.model_dir / "own.h5"
    model.save_weights(path)
    return model, path, model.detect([IMAGE])[0]


@pytest.mark.parametrize("config", [TinyConfig, TinyConfig()], ids=["class", "object"])
def test_a_backbone_that_is_a_function_comes_from_the_class_of_the_configuration(own, config):
    model, path, expected = own
    again = MaskRCNN.from_pretrained(path, config=config, DETECTION_MIN_CONFIDENCE=0.0)
    assert type(again.config) is TinyConfig and again.class_names == ["BG", "box", "disc"] and again.config.SEED == 4
    if config is TinyConfig:
        assert_same_detections(again.detect([IMAGE])[0], expected)


def test_without_it_the_way_out_is_named(own):
    with pytest.raises(ValueError, match="own.h5 was saved with the function 'tiny_backbone' as BACKBONE.*config="):
        MaskRCNN.from_pretrained(own[1])
    with pytest.raises(ValueError, match="there is no setting 'NUM_CLASES'. Did you mean NUM_CLASSES"):
        MaskRCNN.from_pretrained(own[1], config=TinyConfig, NUM_CLASES=2)


def test_settings_of_another_version_are_left_out_with_a_warning(own, tmp_path):
    _, path, _ = own
    copy = tmp_path / "later.h5"
    copy.write_bytes(path.read_bytes())
    metadata = read_metadata(copy)
    metadata["config"] |= {"MIND_READING": True}
    del metadata["config"]["RPN_MIN_SIZE"]
    set_metadata(copy, metadata)
    with pytest.warns(UserWarning, match=r"does not know; they are ignored: \['MIND_READING'\]"):
        model = MaskRCNN.from_pretrained(copy, config=TinyConfig)
    assert model.config.RPN_MIN_SIZE == Config.RPN_MIN_SIZE


def test_other_classes_and_channels(own, capsys):
    """The user's number of classes and channels; the rest from the file, in the user's settings and mode."""
    _, path, _ = own
    names = ["BG", "disc", "star", "moon"]
    model = MaskRCNN.from_pretrained(
        path,
        "training",
        config=TinyConfig(NAME="mine"),
        keep_classes=True,
        class_names=names,
        NUM_CLASSES=4,
        IMAGE_CHANNEL_COUNT=4,
    )
    printed = capsys.readouterr().out
    assert "trunk/res1/kernel: inflated from 3 to 4 input channels" in printed
    assert "classes kept by name: disc; unchanged: star, moon" in printed
    assert (model.mode, model.config.NAME, model.class_names) == ("training", "mine", names)
    assert model.network.trunk.input_shape[-1] == 4 and model.epoch == 0


# Other backbones, and trunks alone


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """A narrow ResNet-50 of the user's, for two classes."""
    config = Config(
        NAME="mine",
        NUM_CLASSES=3,
        BACKBONE="resnet50",
        BACKBONE_OPTIONS={"width": 8},
        TOP_DOWN_PYRAMID_SIZE=16,
        MASK_HEAD={"name": "fcn", "filters": 16},
        **SMALL,
    )
    return MaskRCNN("inference", config, tmp_path_factory.mktemp("logs"))


def weights_of(model):
    return {
        f"{key}/{weight.name}": np.array(weight)
        for key, layer in model.network.layers().items()
        for weight in layer.weights
    }


def test_another_depth_is_refused_with_the_way_out(narrow, tmp_path):
    before = weights_of(narrow)
    path = tmp_path / "r101.pth"
    state = parity.values_of(test_torchvision.shapes())
    deeper = {name.replace("layer3.5.", f"layer3.{i}."): value for i in range(6, 23) for name, value in state.items()}
    save_zip(path, state | deeper)
    message = (
        r"r101.pth contains a trunk 'resnet101' with {'width': 8}, but the model's BACKBONE is 'resnet50' with "
        r"{'width': 8}; nothing was loaded. Set BACKBONE = 'resnet101' and BACKBONE_OPTIONS = {'width': 8}, or "
        "let MaskRCNN.from_pretrained build the model that the file needs"
    )
    for options in ({}, {"by_name": True}):
        with pytest.raises(ValueError, match=message):
            narrow.load_weights(path, **options)
    with pytest.raises(ValueError, match="r101.pth contains a trunk 'resnet101'"):
        MaskRCNN.from_pretrained(path, BACKBONE="resnet50")
    for name, value in weights_of(narrow).items():
        np.testing.assert_array_equal(value, before[name])


def test_a_published_file_loads_into_a_user_s_model(narrow, tmp_path, capsys):
    """What the weights are bound to is printed; number of classes, thresholds and sizes stay the user's."""
    path = save_torchvision(tmp_path)
    report = narrow.load_weights(path)
    printed = capsys.readouterr().out
    for text in (
        "torchvision.pth (weights of torchvision) sets ",
        "ROI_ALIGNED True -> False",
        "FPN_CLASSIF_FC_LAYERS_SIZE 1024 -> 12",
        "RPN_CHANNELS 256 -> 16",
        "the file has 5 classes and the model 3",
    ):
        assert text in printed
    assert len(report.skipped) == 6 and narrow.config.NUM_CLASSES == 3 and narrow.config.IMAGE_MAX_DIM == 64
    narrow.load_weights(save_matterport(tmp_path))
    assert "ROI_GEOMETRY 'aligned' -> 'crop'" in capsys.readouterr().out
    assert narrow.network.rpn.get_layer("rpn_conv_shared").filters == 20
    narrow.load_weights(path)
    printed = capsys.readouterr().out
    assert "BACKBONE_STEM_PADDING 'same' -> 'torch'" in printed, "what another program needs is taken back"
    assert "MEAN_PIXEL (123.7, 116.8, 103.9) -> None" in printed


def test_a_trunk_alone_brings_the_pixels_and_nothing_else(narrow, tmp_path, capsys):
    path = tmp_path / "R-50.pkl"
    state = test_detectron2.without_statistics(parity.values_of(test_detectron2.shapes(), seed=1))
    path.write_bytes(
        pickle.dumps(
            {
                "model": {
                    name.removeprefix("backbone.bottom_up."): value
                    for name, value in state.items()
                    if "bottom_up" in name
                }
            }
        )
    )
    for layer in narrow.network.layers().values():
        for weight in layer.weights:  # no mean of 0 and no variance of 1, which the file has
            weight.assign(weight + 1)
    before, names = weights_of(narrow), narrow.class_names
    report = narrow.load_weights(path)
    printed = capsys.readouterr().out
    assert "the file contains only the backbone; everything else is unchanged" in printed and "CHANNEL_ORDER" in printed
    assert {tensor.name.split("/")[0] for tensor in report.loaded} == {"trunk"} and not report.missing
    assert narrow.class_names == names and "RPN" not in printed and "ROI" not in printed
    after = weights_of(narrow)
    changed = {name for name, value in after.items() if not np.array_equal(value, before[name])}
    assert changed == {tensor.name for tensor in report.loaded} and len(changed) == 53 * 5
    assert not any("fpn_" in name for name in changed)
    with pytest.raises(
        ValueError, match="no weights for the feature pyramid and the rpn and the box head and the mask head"
    ):
        MaskRCNN.from_pretrained(path)


def test_nan_changes_nothing(narrow, tmp_path):
    state = parity.values_of(test_torchvision.shapes(classes=3))
    state["roi_heads.box_predictor.cls_score.bias"][1] = np.nan
    save_zip(tmp_path / "nan.pth", state)
    before = weights_of(narrow)
    with pytest.raises(ValueError, match="nan.pth holds NaN or infinite weights(.|\n)*mrcnn_class_logits/bias"):
        narrow.load_weights(tmp_path / "nan.pth")
    for name, value in weights_of(narrow).items():
        np.testing.assert_array_equal(value, before[name])

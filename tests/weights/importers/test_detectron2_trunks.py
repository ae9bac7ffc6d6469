"""ImageNet trunks in Detectron2's and Caffe2's names, and the pixels and strides that each of them is for."""

import numpy as np
import pytest

from mrcnn.config import Config
from mrcnn.network.backbone import build_backbone
from mrcnn.weights.assign import assign
from mrcnn.weights.conventions import BACKBONE
from mrcnn.weights.importers.detectron2 import detectron2_source, is_detectron2
from tests import parity
from tests.parity import DETECTRON2, assert_close
from tests.weights.importers.test_detectron2 import Original, caffe2, caffe2_name, without_statistics

MSRA = {
    "BACKBONE_STRIDE_IN_1X1": True,
    "BACKBONE_STEM_PADDING": "torch",
    "MEAN_PIXEL": (123.675, 116.28, 103.53),
    "PIXEL_STD": (1, 1, 1),
    "CHANNEL_ORDER": "bgr",
}
TORCHVISION = MSRA | {"BACKBONE_STRIDE_IN_1X1": False, "PIXEL_STD": (58.395, 57.12, 57.375), "CHANNEL_ORDER": "rgb"}
FAIR = MSRA | {"BACKBONE_STRIDE_IN_1X1": False, "PIXEL_STD": (58.395, 57.12, 57.375)}


def pixels_and_strides(source):
    """What a trunk's weights are bound to."""
    return {name: source.settings.get(name, getattr(Config, name)) for name in BACKBONE}


def bare(trunk):
    """A trunk as `convert-torchvision-to-d2` names it, classifier and counts of batches too."""
    state = {name.removeprefix("backbone.bottom_up."): value for name, value in trunk.items()}
    return state | {"stem.fc.weight": np.zeros((10, 256), np.float32), "stem.fc.bias": np.zeros(10, np.float32)}


@pytest.mark.parametrize("groups, without", [(1, ()), (4, ()), (1, ("running_mean", "running_var"))])
def test_a_trunk_alone_with_statistics_is_torchvisions(groups, without):
    trunk = parity.trunk_shapes(DETECTRON2, groups=groups, inner=16 if groups > 1 else None, tracked=True)
    state = {name: value for name, value in bare(parity.values_of(trunk)).items() if not name.endswith(without)}
    source = detectron2_source(state, "r50.pkl")
    assert source.parts == ("backbone",) and not source.unused
    assert pixels_and_strides(source) == (MSRA if without else TORCHVISION)


@pytest.mark.slow
def test_a_trunk_alone_computes_what_torchvision_computes():
    trunk = parity.values_of(parity.trunk_shapes(DETECTRON2))
    source = detectron2_source(bare(trunk), "r50.pkl")
    settings = source.settings
    backbone = build_backbone(
        settings["BACKBONE"], options=settings["BACKBONE_OPTIONS"], stride_in_1x1=settings["BACKBONE_STRIDE_IN_1X1"]
    )
    assign("r50.pkl", {f"trunk/{layer.name}": layer for layer in backbone.model.layers}, source.tensors)
    image = parity.pixels()
    for ours, theirs in zip(backbone.model(image), Original(trunk).resnet(image, DETECTRON2), strict=True):
        assert_close(ours, theirs)


def test_a_trunk_in_caffe2s_names_is_never_torchvisions():
    for groups, expected in ((1, MSRA), (4, FAIR)):
        trunk = parity.values_of(parity.trunk_shapes(DETECTRON2, groups=groups, inner=16 if groups > 1 else None))
        blobs = caffe2(trunk)
        blobs |= {caffe2_name(name): value for name, value in trunk.items()}  # with statistics
        assert "res2_0_branch2a_bn_riv" in blobs
        assert pixels_and_strides(detectron2_source(blobs, "X-101.pkl")) == expected


def test_one_norm_of_torchvisions_trunk_without_statistics_is_no_msra_s():
    state = bare(parity.values_of(parity.trunk_shapes(DETECTRON2)))
    del state["res3.1.conv2.norm.running_var"]
    with pytest.raises(ValueError, match="backbone.bottom_up.res3.1.conv2.norm.weight has no running_var"):
        detectron2_source(state, "r50.pkl")


@pytest.mark.parametrize("names", ["bare", "caffe2"])
def test_a_trunk_alone(names):
    """As MSRA's are."""
    trunk = without_statistics(parity.values_of(parity.trunk_shapes(DETECTRON2)))
    state = (
        caffe2(trunk)
        if names == "caffe2"
        else {name.removeprefix("backbone.bottom_up."): value for name, value in trunk.items()}
    )
    state |= {"fc1000.weight" if names == "bare" else "fc1000_w": np.zeros((10, 256), np.float32)}
    assert is_detectron2(state)
    source = detectron2_source(state, "R-50.pkl")
    assert source.parts == ("backbone",) and "NUM_CLASSES" not in source.settings
    assert {name.split("/")[0] for name in source.tensors} == {"trunk"} and not source.unused
    assert pixels_and_strides(source) == MSRA
    expected = detectron2_source(trunk, "a.pkl")
    for name, tensor in source.tensors.items():
        np.testing.assert_array_equal(tensor.read(), expected.tensors[name].read(), err_msg=name)


def test_group_norm_in_caffe2s_names():
    blobs = {
        name.replace("_bn_", "_gn_"): value
        for name, value in caffe2(parity.values_of(parity.trunk_shapes(DETECTRON2))).items()
    }
    with pytest.raises(
        ValueError, match="R-50-GN.pkl: res_conv1_gn_s belongs to GroupNorm, which this network does not support"
    ):
        detectron2_source(blobs, "R-50-GN.pkl")

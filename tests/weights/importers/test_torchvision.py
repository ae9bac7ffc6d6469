"""torchvision's weights: small ones under its names against its arithmetic, and the whole program's stored numbers."""

import re

import numpy as np
import pytest

from mrcnn.weights.assign import named_weights
from mrcnn.weights.importers.torchvision import is_torchvision, torchvision_source
from mrcnn.weights.source import Lazy
from tests import parity
from tests.parity import (
    CLASSES,
    HIDDEN,
    PYRAMID,
    RATIOS,
    TORCHVISION,
    assert_close,
    layer_shapes,
    norm_shapes,
    relu,
    sigmoid,
)

pytestmark = pytest.mark.slow

ROI = "roi_heads."


def shapes(version="v1", *, names="new", tracked=False, classes=CLASSES):
    """version: "v1" or "v2". names: "old" are those before torchvision 0.13."""
    deeper = "" if names == "old" else ".0"
    found = parity.trunk_shapes(TORCHVISION, tracked=tracked)
    for i, channels in enumerate((32, 64, 128, 256)):
        for kind, shape in (("inner", (PYRAMID, channels, 1, 1)), ("layer", (PYRAMID, PYRAMID, 3, 3))):
            name = f"backbone.fpn.{kind}_blocks.{i}{deeper}"
            found |= {f"{name}.weight": shape}
            found |= norm_shapes(name[:-1] + "1", PYRAMID, tracked) if version == "v2" else {f"{name}.bias": (PYRAMID,)}
    for i in range(2 if version == "v2" else 1):
        name = "rpn.head.conv" if names == "old" else f"rpn.head.conv.{i}.0"
        found |= layer_shapes(name, PYRAMID, PYRAMID, 3, 3)
    found |= layer_shapes("rpn.head.cls_logits", RATIOS, PYRAMID, 1, 1)
    found |= layer_shapes("rpn.head.bbox_pred", 4 * RATIOS, PYRAMID, 1, 1)
    if version == "v1":
        found |= layer_shapes(f"{ROI}box_head.fc6", HIDDEN, PYRAMID * 49)
        found |= layer_shapes(f"{ROI}box_head.fc7", HIDDEN, HIDDEN)
    else:
        for i in range(4):
            found |= {f"{ROI}box_head.{i}.0.weight": (PYRAMID, PYRAMID, 3, 3)}
            found |= norm_shapes(f"{ROI}box_head.{i}.1", PYRAMID, tracked)
        found |= layer_shapes(f"{ROI}box_head.5", HIDDEN, PYRAMID * 49)
    found |= layer_shapes(f"{ROI}box_predictor.cls_score", classes, HIDDEN)
    found |= layer_shapes(f"{ROI}box_predictor.bbox_pred", 4 * classes, HIDDEN)
    for i in range(4):
        name = f"{ROI}mask_head.mask_fcn{i + 1}" if names == "old" else f"{ROI}mask_head.{i}.0"
        found |= {f"{name}.weight": (PYRAMID, PYRAMID, 3, 3)}
        found |= (
            norm_shapes(f"{ROI}mask_head.{i}.1", PYRAMID, tracked) if version == "v2" else {f"{name}.bias": (PYRAMID,)}
        )
    found |= {
        f"{ROI}mask_predictor.conv5_mask.weight": (PYRAMID, PYRAMID, 2, 2),
        f"{ROI}mask_predictor.conv5_mask.bias": (PYRAMID,),
    }
    return found | layer_shapes(f"{ROI}mask_predictor.mask_fcn_logits", classes, PYRAMID, 1, 1)


class Original(parity.Torch):
    """torchvision's Mask R-CNN without boxes."""

    def after(self, x, name):
        """A convolution, and the norm after it if there is one."""
        x, norm = self.convolution(x, name), name[:-1] + "1"
        return self.norm(x, norm, 1e-5) if f"{norm}.running_var" in self.state else x

    def deeper(self, name):
        return name if f"{name}.weight" in self.state else f"{name}.0"

    def features(self, image):
        levels = self.resnet(image, TORCHVISION)
        lateral, output = (
            lambda x, level, kind=kind: self.after(x, self.deeper(f"backbone.fpn.{kind}_blocks.{level - 2}"))
            for kind in ("inner", "layer")
        )
        return [*levels, *self.pyramid(levels, lateral, output)]

    def rpn(self, x):
        names = [
            name
            for name in ("rpn.head.conv", "rpn.head.conv.0.0", "rpn.head.conv.1.0")
            if f"{name}.weight" in self.state
        ]
        for name in names:
            x = relu(self.convolution(x, name))
        moves = self.convolution(x, "rpn.head.bbox_pred")
        return self.convolution(x, "rpn.head.cls_logits").reshape(1, -1), parity.deltas(moves).reshape(1, -1, 4)

    def box_head(self, x):
        for i in range(4):
            if f"{ROI}box_head.{i}.0.weight" in self.state:
                x = relu(self.after(x, f"{ROI}box_head.{i}.0"))
        x = parity.flattened(x)
        for name in ("fc6", "fc7", "5"):
            if f"{ROI}box_head.{name}.weight" in self.state:
                x = relu(self.dense(x, f"{ROI}box_head.{name}"))
        return (
            self.dense(x, f"{ROI}box_predictor.cls_score"),
            parity.deltas(self.dense(x, f"{ROI}box_predictor.bbox_pred")),
        )

    def masks(self, x):
        for i in range(4):
            old = f"{ROI}mask_head.mask_fcn{i + 1}"
            x = relu(
                self.convolution(x, old) if f"{old}.weight" in self.state else self.after(x, f"{ROI}mask_head.{i}.0")
            )
        x = relu(self.doubled(x, f"{ROI}mask_predictor.conv5_mask"))
        return sigmoid(self.convolution(x, f"{ROI}mask_predictor.mask_fcn_logits"))


@pytest.mark.parametrize(
    "version, options, epsilon",
    [("v1", {}, 0), ("v1", {"names": "old"}, 0), ("v1", {"tracked": True}, 1e-5), ("v2", {"tracked": True}, 1e-5)],
)
def test_every_part_computes_what_torchvision_computes(version, options, epsilon):
    state = parity.values_of(shapes(version, **options))
    if not epsilon:  # so that the epsilon matters
        state["backbone.body.bn1.running_var"][:] = 2e-5
        state["backbone.body.bn1.weight"] *= 0.01
    original = Original(state, epsilon)
    assert is_torchvision(state)
    source = torchvision_source(state, "a.pth")
    model = parity.build(source)
    assert source.settings["NUM_CLASSES"] == CLASSES and source.parts == ("trunk", "rpn", "box_head", "mask_head")
    image = parity.pixels()
    for ours, theirs in zip(parity.features_of(model, image), original.features(image), strict=True):
        assert_close(ours, theirs)
    level = parity.pooled(8, count=1)
    for ours, theirs in zip(model.network.rpn(level), original.rpn(level), strict=True):
        assert_close(ours, theirs)
    features = parity.pooled(7)
    for ours, theirs in zip(model.network.box_head(features), original.box_head(features), strict=True):
        assert_close(ours, theirs)
    features = parity.pooled(14)
    assert_close(model.network.mask_head(features), original.masks(features))


def settings_of(state, **options):
    return torchvision_source(state, "a.pth", **options).settings


def test_settings_that_the_file_shows():
    settings = settings_of(parity.values_of(shapes("v2", tracked=True)))
    assert {
        name: settings[name]
        for name in (
            "BACKBONE",
            "BACKBONE_OPTIONS",
            "NUM_CLASSES",
            "RPN_CHANNELS",
            "RPN_CONVOLUTIONS",
            "TOP_DOWN_PYRAMID_SIZE",
            "BOX_HEAD_CONVOLUTIONS",
            "BOX_HEAD_FC_LAYERS",
            "FPN_CLASSIF_FC_LAYERS_SIZE",
            "MASK_HEAD",
        )
    } == {
        "BACKBONE": "resnet50",
        "BACKBONE_OPTIONS": {"width": 8},
        "NUM_CLASSES": 5,
        "RPN_CHANNELS": 16,
        "RPN_CONVOLUTIONS": 2,
        "TOP_DOWN_PYRAMID_SIZE": 16,
        "BOX_HEAD_CONVOLUTIONS": 4,
        "BOX_HEAD_FC_LAYERS": 1,
        "FPN_CLASSIF_FC_LAYERS_SIZE": 12,
        "MASK_HEAD": {"name": "fcn", "filters": 16, "convolutions": 4},
    }
    settings = settings_of(parity.values_of(shapes("v1")))
    assert [settings[name] for name in ("RPN_CONVOLUTIONS", "BOX_HEAD_CONVOLUTIONS", "BOX_HEAD_FC_LAYERS")] == [1, 0, 2]
    assert settings["ROI_ALIGNED"] is False and settings["RPN_ANCHOR_STEP_FROM_SIZE"] is True


@pytest.mark.parametrize("tracked, given, epsilon", [(False, None, 0), (True, None, 1e-5), (False, 1e-5, 1e-5)])
def test_epsilon_of_the_trunks_norm(tracked, given, epsilon):
    state = parity.values_of(shapes(tracked=tracked))
    state["backbone.body.bn1.running_var"][:] = 1e-4
    source = torchvision_source(state, "a.pth", bn_epsilon=given)
    found = source.tensors["trunk/bn_conv1/moving_variance"].read() + 1e-5
    np.testing.assert_allclose(found, 1e-4 + epsilon, rtol=1e-5)


def test_the_published_epsilon_is_that_of_resnet50_alone():
    """`resnet_fpn_backbone` of another depth has the frozen norm's own."""
    state = parity.values_of(
        parity.trunk_shapes(TORCHVISION, blocks=(3, 4, 23, 3))
        | {name: shape for name, shape in shapes().items() if "fpn" in name}
    )
    state["backbone.body.bn1.running_var"][:] = 1e-4
    source = torchvision_source(state, "a.pth")
    assert source.settings["BACKBONE"] == "resnet101" and source.parts == ("trunk",)
    np.testing.assert_allclose(source.tensors["trunk/bn_conv1/moving_variance"].read(), 1e-4, rtol=1e-5)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_model_of_boxes_gives_all_that_it_has(version):
    state = {name: value for name, value in parity.values_of(shapes(version)).items() if "mask" not in name}
    source = torchvision_source(state, "a.pth")
    assert source.parts == ("trunk", "rpn", "box_head") and not source.unused
    assert {name.split("/")[0] for name in source.tensors} == set(source.parts)
    assert source.settings["NUM_CLASSES"] == CLASSES and source.settings["MASK_HEAD"] is None
    model = parity.build(source)
    assert model.network.mask_head is None and len(named_weights(model.network.layers())) == len(source.tensors)


def test_a_model_of_keypoints_names_what_is_left():
    head = {f"{ROI}keypoint_head.0.weight": (16, 16, 3, 3), f"{ROI}keypoint_predictor.kps_score_lowres.bias": (17,)}
    state = {name: value for name, value in parity.values_of(shapes(classes=2) | head).items() if "mask" not in name}
    source = torchvision_source(state, "a.pth")
    assert source.parts == ("trunk", "rpn", "box_head") and dict(source.unused) == head
    assert source.settings["NUM_CLASSES"] == 2 and "MASK_HEAD" not in source.settings


def test_a_trunk_with_its_pyramid_says_nothing_of_classes():
    state = {name: value for name, value in parity.values_of(shapes()).items() if name.startswith("backbone")}
    source = torchvision_source(state, "a.pth")
    assert source.parts == ("trunk",) and "NUM_CLASSES" not in source.settings


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_every_weight_of_the_whole_model_is_used(version):
    state = parity.values_of(shapes(version, tracked=True))
    assert any(name.endswith("num_batches_tracked") for name in state)
    assert not torchvision_source(state, "a.pth").unused


@pytest.mark.parametrize("norm", ["backbone.fpn.inner_blocks.1.1", f"{ROI}box_head.2.1", f"{ROI}mask_head.3.1"])
def test_group_norm_is_not_left_out(norm):
    state = {
        name: value for name, value in parity.values_of(shapes("v2")).items() if not name.startswith(f"{norm}.running")
    }
    with pytest.raises(ValueError, match=f"a.pth: {norm}.weight has no running_var, like GroupNorm"):
        torchvision_source(state, "a.pth")


@pytest.mark.parametrize(
    "name",
    [
        "backbone.body.layer3.5.bn2.running_mean",
        "backbone.fpn.layer_blocks.2.0.weight",
        "rpn.head.bbox_pred.weight",
        f"{ROI}box_head.fc6.weight",
        f"{ROI}box_head.fc7.weight",
        f"{ROI}mask_predictor.conv5_mask.weight",
    ],
)
def test_a_missing_tensor_is_named(name):
    state = parity.values_of(shapes())
    del state[name]
    with pytest.raises(ValueError, match=re.escape(f"a.pth lacks the tensor '{name}'")):
        source = torchvision_source(state, "a.pth")
        for tensor in source.tensors.values():
            tensor.read()


def test_other_trunks_are_refused():
    state = {name: value for name, value in parity.values_of(shapes()).items() if "layer3.5" not in name}
    with pytest.raises(ValueError, match=r"a.pth has a trunk of \(3, 4, 5, 3\) bottlenecks"):
        torchvision_source(state, "a.pth")
    state = {name: value for name, value in parity.values_of(shapes()).items() if ".conv3." not in name}
    with pytest.raises(ValueError, match=r"\(3, 4, 6, 3\) basic blocks"):
        torchvision_source(state, "a.pth")
    assert not is_torchvision({"backbone.body.conv1.weight": 0}) and not is_torchvision({"conv1.weight": 0})


@pytest.mark.parametrize("layer, outputs", [("box_predictor.bbox_pred", 4), ("mask_predictor.mask_fcn_logits", 1)])
def test_heads_that_do_not_tell_classes_apart_are_refused(layer, outputs):
    state = parity.values_of(shapes())
    for kind in ("weight", "bias"):
        state[f"{ROI}{layer}.{kind}"] = state[f"{ROI}{layer}.{kind}"][:outputs]
    with pytest.raises(ValueError, match=rf"a.pth: roi_heads.{layer} has {outputs} outputs, .* would be (20|5)"):
        torchvision_source(state, "a.pth")


def test_nothing_is_read_before_it_is_wanted():
    def fail():
        raise AssertionError("read")

    state = {name: Lazy(value.shape, fail) for name, value in parity.values_of(shapes()).items()}
    source = torchvision_source(state, "a.pth")
    assert source.tensors["mask_head/deconv/kernel"].shape == (2, 2, PYRAMID, PYRAMID)
    assert source.tensors["box_head/mrcnn_fc1/kernel"].shape == (49 * PYRAMID, HIDDEN)


def test_torchvision_itself():
    """Every stage of `maskrcnn_resnet50_fpn` on an image that is resized and padded."""
    folder = parity.oracle_folder()
    import parity_oracles

    assert parity.failed(parity_oracles.torchvision(folder, ["b"])) == []

"""Detectron2's weights, under its own names, a trunk's alone and Caffe2's: small ones against its arithmetic, and the
whole program's stored numbers."""

import pickle
import re

import numpy as np
import pytest

from mrcnn.weights.importers.detectron2 import RESNEXT_STD, detectron2_source, is_detectron2
from tests import parity
from tests.parity import (
    CLASSES,
    DETECTRON2,
    HIDDEN,
    PYRAMID,
    RATIOS,
    assert_close,
    layer_shapes,
    norm_shapes,
    relu,
    sigmoid,
)

pytestmark = pytest.mark.slow

RPN, ROI = "proposal_generator.rpn_head.", "roi_heads."
CAFFE2_STAGES = {"2": "2_2", "3": "3_3", "4": "4_5", "5": "5_2"}  # Caffe2 names a level by the last block of ResNet-50


def pointrend_shapes(classes):
    coarse, points = f"{ROI}mask_head.coarse_head.", f"{ROI}mask_head.point_head."
    found = layer_shapes(f"{coarse}reduce_spatial_dim_conv", 6, PYRAMID, 2, 2)
    found |= layer_shapes(f"{coarse}fc1", HIDDEN, 6 * 49) | layer_shapes(f"{coarse}fc2", HIDDEN, HIDDEN)
    found |= layer_shapes(f"{coarse}prediction", classes * 49, HIDDEN)
    for i, inputs in ((1, PYRAMID), (2, 10), (3, 10)):
        found |= layer_shapes(f"{points}fc{i}", 10, inputs + classes, 1)
    return found | layer_shapes(f"{points}predictor", classes, 10 + classes, 1)


def shapes(classes=CLASSES, deep=None, pointrend=False, **trunk):
    """classes: with background, which has no boxes and no masks there. deep: a box head of four convolutions and one
    fully connected layer and an RPN of two convolutions, "plain" or with "norm"."""
    found = parity.trunk_shapes(DETECTRON2, **trunk)
    for level, channels in zip((2, 3, 4, 5), (32, 64, 128, 256), strict=True):
        found |= layer_shapes(f"backbone.fpn_lateral{level}", PYRAMID, channels, 1, 1)
        found |= layer_shapes(f"backbone.fpn_output{level}", PYRAMID, PYRAMID, 3, 3)
    for name in ("conv.conv0", "conv.conv1") if deep else ("conv",):
        found |= layer_shapes(f"{RPN}{name}", PYRAMID, PYRAMID, 3, 3)
    found |= layer_shapes(f"{RPN}objectness_logits", RATIOS, PYRAMID, 1, 1)
    found |= layer_shapes(f"{RPN}anchor_deltas", 4 * RATIOS, PYRAMID, 1, 1)
    found |= layer_shapes(f"{ROI}box_head.fc1", HIDDEN, PYRAMID * 49)
    for name in (f"{ROI}box_head.conv{i}" for i in (1, 2, 3, 4) if deep):
        found |= (
            layer_shapes(name, PYRAMID, PYRAMID, 3, 3)
            if deep == "plain"
            else {f"{name}.weight": (PYRAMID, PYRAMID, 3, 3)} | norm_shapes(f"{name}.norm", PYRAMID, tracked=True)
        )
    found |= {} if deep else layer_shapes(f"{ROI}box_head.fc2", HIDDEN, HIDDEN)
    found |= layer_shapes(f"{ROI}box_predictor.cls_score", classes, HIDDEN)
    found |= layer_shapes(f"{ROI}box_predictor.bbox_pred", 4 * (classes - 1), HIDDEN)
    if pointrend:
        return found | pointrend_shapes(classes - 1)
    for i in (1, 2, 3, 4):
        found |= layer_shapes(f"{ROI}mask_head.mask_fcn{i}", PYRAMID, PYRAMID, 3, 3)
    found |= {f"{ROI}mask_head.deconv.weight": (PYRAMID, PYRAMID, 2, 2), f"{ROI}mask_head.deconv.bias": (PYRAMID,)}
    return found | layer_shapes(f"{ROI}mask_head.predictor", classes - 1, PYRAMID, 1, 1)


class Original(parity.Torch):
    """Detectron2's Mask R-CNN without boxes."""

    def features(self, image, **options):
        levels = self.resnet(image, DETECTRON2, **options)
        lateral, output = (
            lambda x, level, kind=kind: self.convolution(x, f"backbone.fpn_{kind}{level}")
            for kind in ("lateral", "output")
        )
        return [*levels, *self.pyramid(levels, lateral, output)]

    def rpn(self, x):
        for name in ("conv", "conv.conv0", "conv.conv1"):
            if f"{RPN}{name}.weight" in self.state:
                x = relu(self.convolution(x, f"{RPN}{name}"))
        moves = parity.deltas(self.convolution(x, f"{RPN}anchor_deltas"))
        return self.convolution(x, f"{RPN}objectness_logits").reshape(1, -1), moves.reshape(1, -1, 4)

    def box_head(self, x):
        for name in (f"{ROI}box_head.conv{i}" for i in (1, 2, 3, 4)):
            if f"{name}.weight" in self.state:
                x = self.convolution(x, name)
                x = relu(self.norm(x, f"{name}.norm") if f"{name}.norm.weight" in self.state else x)
        x = parity.flattened(x)
        for name in (f"{ROI}box_head.fc{i}" for i in (1, 2)):
            if f"{name}.weight" in self.state:
                x = relu(self.dense(x, name))
        return (
            self.dense(x, f"{ROI}box_predictor.cls_score"),
            parity.deltas(self.dense(x, f"{ROI}box_predictor.bbox_pred")),
        )

    def masks(self, x):
        for i in (1, 2, 3, 4):
            x = relu(self.convolution(x, f"{ROI}mask_head.mask_fcn{i}"))
        return sigmoid(self.convolution(relu(self.doubled(x, f"{ROI}mask_head.deconv")), f"{ROI}mask_head.predictor"))


@pytest.mark.parametrize("deep", [None, "plain", "norm"])
def test_every_part_computes_what_detectron2_computes(deep):
    state = parity.values_of(shapes(deep=deep))
    original, source = Original(state), detectron2_source(state, "a.pkl")
    assert is_detectron2(state) and source.parts == ("trunk", "rpn", "box_head", "mask_head") and not source.unused
    assert [source.settings[name] for name in ("BOX_HEAD_CONVOLUTIONS", "BOX_HEAD_FC_LAYERS", "RPN_CONVOLUTIONS")] == (
        [4, 1, 2] if deep else [0, 2, 1]
    )
    model = parity.build(source)
    image = parity.pixels()
    for ours, theirs in zip(
        parity.features_of(model, image), original.features(image, stride_in_1x1=True), strict=True
    ):
        assert_close(ours, theirs)
    level = parity.pooled(8, count=1)
    for ours, theirs in zip(model.network.rpn(level), original.rpn(level), strict=True):
        assert_close(ours, theirs)
    features = parity.pooled(7)
    (logits, deltas), (their_logits, their_deltas) = model.network.box_head(features), original.box_head(features)
    assert_close(logits[:, 1:], their_logits[:, :-1])  # background last there, first here
    assert_close(logits[:, 0], their_logits[:, -1])
    assert_close(deltas[:, 1:], their_deltas)
    features = parity.pooled(14)
    assert_close(model.network.mask_head(features)[..., 1:], original.masks(features))


def test_settings():
    settings = detectron2_source(parity.values_of(shapes()), "a.pkl").settings
    assert {
        name: settings[name]
        for name in (
            "BACKBONE",
            "BACKBONE_OPTIONS",
            "BACKBONE_STRIDE_IN_1X1",
            "NUM_CLASSES",
            "CHANNEL_ORDER",
            "PIXEL_STD",
            "ROI_SAMPLING_RATIO",
            "FPN_CLASSIF_FC_LAYERS_SIZE",
            "MASK_HEAD",
            "RPN_CHANNELS",
        )
    } == {
        "BACKBONE": "resnet50",
        "BACKBONE_OPTIONS": {"width": 8},
        "BACKBONE_STRIDE_IN_1X1": True,
        "NUM_CLASSES": 5,
        "CHANNEL_ORDER": "bgr",
        "PIXEL_STD": (1, 1, 1),
        "ROI_SAMPLING_RATIO": 0,
        "FPN_CLASSIF_FC_LAYERS_SIZE": 12,
        "MASK_HEAD": {"name": "fcn", "filters": 16, "convolutions": 4},
        "RPN_CHANNELS": 16,
    }


def test_resnext_has_groups_torchs_strides_and_its_own_pixels():
    state = parity.values_of(shapes(groups=4, inner=16))
    source = detectron2_source(state, "a.pkl")
    assert source.settings["BACKBONE_OPTIONS"] == {"width": 8, "groups": 4, "group_width": 32}
    assert source.settings["PIXEL_STD"] == RESNEXT_STD and not source.settings["BACKBONE_STRIDE_IN_1X1"]
    image = parity.pixels()
    ours = parity.features_of(parity.build(source), image)
    for one, other in zip(ours, Original(state).features(image, groups=4), strict=True):
        assert_close(one, other)


def caffe2(state):
    """The same weights as Caffe2 keeps them: background first, with values for its boxes and masks that are not used,
    norms without statistics, and momenta beside the weights."""
    blobs = {}
    for name, value in state.items():
        name, value = caffe2_name(name), np.copy(value)
        if "_bn_r" in name:
            continue
        if name.startswith("cls_score"):
            value = np.roll(value, 1, axis=0)
        if name.startswith(("bbox_pred", "mask_fcn_logits")):
            value = np.concatenate([np.full_like(value[: 4 if "bbox" in name else 1], 9), value])
        blobs |= {name: value, f"{name}_momentum": np.full_like(value, 7)}
    return blobs | {"lr": np.float32(0.1), "weight_order": np.zeros(3, np.float32)}


def caffe2_name(name):
    for pattern, own in (
        (r"backbone\.bottom_up\.stem\.conv1\.norm", "res_conv1_bn"),
        (r"backbone\.bottom_up\.stem\.conv1", "conv1"),
        (r"backbone\.bottom_up\.res(\d)\.(\d+)\.shortcut", r"res\1_\2_branch1"),
        (r"backbone\.bottom_up\.res(\d)\.(\d+)\.conv1", r"res\1_\2_branch2a"),
        (r"backbone\.bottom_up\.res(\d)\.(\d+)\.conv2", r"res\1_\2_branch2b"),
        (r"backbone\.bottom_up\.res(\d)\.(\d+)\.conv3", r"res\1_\2_branch2c"),
        (r"backbone\.fpn_lateral5", "fpn_inner_res5_2_sum"),
        (r"backbone\.fpn_lateral(\d)", lambda m: f"fpn_inner_res{CAFFE2_STAGES[m[1]]}_sum_lateral"),
        (r"backbone\.fpn_output(\d)", lambda m: f"fpn_res{CAFFE2_STAGES[m[1]]}_sum"),
        (r"proposal_generator\.rpn_head\.conv", "conv_rpn_fpn2"),
        (r"proposal_generator\.rpn_head\.objectness_logits", "rpn_cls_logits_fpn2"),
        (r"proposal_generator\.rpn_head\.anchor_deltas", "rpn_bbox_pred_fpn2"),
        (r"roi_heads\.box_head\.fc1", "fc6"),
        (r"roi_heads\.box_head\.fc2", "fc7"),
        (r"roi_heads\.box_predictor\.", ""),
        (r"roi_heads\.mask_head\.mask_fcn", "_[mask]_fcn"),
        (r"roi_heads\.mask_head\.deconv", "conv5_mask"),
        (r"roi_heads\.mask_head\.predictor", "mask_fcn_logits"),
        (r"\.norm", "_bn"),
        (r"_bn\.weight", "_bn_s"),
        (r"_bn\.bias", "_bn_b"),
        (r"_bn\.running_mean", "_bn_rm"),
        (r"_bn\.running_var", "_bn_riv"),
        (r"\.weight$", "_w"),
        (r"\.bias$", "_b"),
    ):
        name = re.sub(pattern, own, name)
    return name


def without_statistics(state):
    """Norms that Caffe2 has folded into scale and shift; Detectron2 reads them with mean 0 and variance 1."""
    return {
        name: np.zeros_like(value) if name.endswith("mean") else np.ones_like(value) if name.endswith("var") else value
        for name, value in state.items()
    }


def test_caffe2_names_are_the_same_weights():
    state = without_statistics(parity.values_of(shapes()))
    blobs = caffe2(state)
    assert is_detectron2(blobs) and "fpn_inner_res4_5_sum_lateral_w" in blobs and "res2_0_branch2a_bn_s" in blobs
    source, expected = detectron2_source(blobs, "a.pkl"), detectron2_source(state, "a.pkl")
    assert source.program != expected.program and source.settings == expected.settings
    assert source.parts == expected.parts and source.tensors.keys() == expected.tensors.keys()
    for name, tensor in source.tensors.items():
        ours, theirs = tensor.read(), expected.tensors[name].read()
        if name.startswith(("box_head/mrcnn_bbox_fc", "mask_head/masks")):  # those of the background differ
            skip = 4 if "bbox" in name else 1
            ours, theirs = ours[..., skip:], theirs[..., skip:]
        np.testing.assert_array_equal(ours, theirs, err_msg=name)


@pytest.mark.parametrize(
    "name",
    [
        "backbone.bottom_up.res4.3.conv2.weight",
        "backbone.fpn_output3.weight",
        f"{RPN}anchor_deltas.weight",
        f"{ROI}mask_head.deconv.weight",
    ],
)
def test_a_missing_tensor_is_named(name):
    state = parity.values_of(shapes())
    del state[name]
    with pytest.raises(ValueError, match=re.escape(f"a.pkl lacks the tensor '{name}'")):
        detectron2_source(state, "a.pkl")


@pytest.mark.parametrize(
    "layer",
    ["backbone.bottom_up.res3.1.conv1", "backbone.fpn_lateral3", f"{ROI}box_head.conv2", f"{ROI}mask_head.mask_fcn1"],
)
def test_group_norm_is_not_taken_for_batch_norm(layer):
    state = parity.values_of(shapes(deep="norm"))
    state = {name: value for name, value in state.items() if f"{layer}.norm.running" not in name}
    state |= {f"{layer}.norm.{kind}": np.ones(PYRAMID, np.float32) for kind in ("weight", "bias")}
    with pytest.raises(
        ValueError,
        match=f"a.pkl: {layer}.norm.weight has no running_var, like GroupNorm, "
        "which this network does not support; use weights of a model with BatchNorm",
    ):
        detectron2_source(state, "a.pkl")


def test_what_no_layer_was_made_of_is_listed_by_its_own_name():
    more = {
        f"{ROI}keypoint_head.conv_fcn1.weight": (16, 16, 3, 3),
        "sem_seg_head.predictor.weight": (5, 16, 1, 1),
        "backbone.top_block.p6.bias": (16,),
        "roi_heads.box_predictor.iou.bias": (7,),
    }
    beside = {
        "pixel_mean": (3, 1, 1),
        "pixel_std": (3, 1, 1),
        "anchor_generator.cell_anchors.0": (3, 4),
        "proposal_generator.anchor_generator.cell_anchors.1": (3, 4),
    }
    state = parity.values_of(shapes() | more | beside)
    assert dict(detectron2_source(state, "a.pkl").unused) == more
    blobs = caffe2(parity.values_of(shapes())) | {
        name: np.ones(2, np.float32)
        for name in (
            "kps_score_w",
            "kps_score_w_momentum",
            "conv_fcn1_b",
            "__preserve__/fc1000_w",
            "res2_0_branch2a_v",
            "pred_b",
        )
    }
    unused = ("kps_score_w", "conv_fcn1_b", "res2_0_branch2a_v")
    assert dict(detectron2_source(blobs, "a.pkl").unused) == dict.fromkeys(unused, (2,))


@pytest.mark.parametrize("names", ["own", "caffe2"])
def test_a_faster_rcnn_gives_its_box_head_too(names):
    state = {name: value for name, value in parity.values_of(shapes()).items() if "mask" not in name}
    source = detectron2_source(caffe2(state) if names == "caffe2" else state, "a.pkl")
    assert source.parts == ("trunk", "rpn", "box_head") and not source.unused
    assert {name.split("/")[0] for name in source.tensors} == set(source.parts)
    assert source.settings["NUM_CLASSES"] == CLASSES and source.settings["MASK_HEAD"] is None


def test_four_convolutions_of_caffe2():
    state = without_statistics(parity.values_of(shapes(deep="plain")))
    state = {name.replace("conv.conv0", "conv"): value for name, value in state.items() if "conv.conv1" not in name}
    blobs = {re.sub(r"roi_heads\.box_head\.conv", "head_conv", name): value for name, value in caffe2(state).items()}
    source, expected = detectron2_source(blobs, "a.pkl"), detectron2_source(state, "a.pkl")
    assert "head_conv3_w" in blobs and source.settings == expected.settings and not source.unused
    for i in (1, 2, 3, 4):
        name = f"box_head/mrcnn_conv{i}/kernel"
        np.testing.assert_array_equal(source.tensors[name].read(), expected.tensors[name].read())


def test_other_trunks_are_refused():
    state = {name: value for name, value in parity.values_of(shapes()).items() if "res4.5" not in name}
    with pytest.raises(ValueError, match=r"a.pkl has a trunk of \(3, 4, 5, 3\) blocks; supported are bottlenecks"):
        detectron2_source(state, "a.pkl")
    assert not is_detectron2({"backbone.body.conv1.weight": 0})


@pytest.mark.parametrize("layer, outputs", [("box_predictor.bbox_pred", 4), ("mask_head.predictor", 1)])
def test_heads_that_do_not_tell_classes_apart_are_refused(layer, outputs):
    state = parity.values_of(shapes())
    for kind in ("weight", "bias"):
        state[f"{ROI}{layer}.{kind}"] = state[f"{ROI}{layer}.{kind}"][:outputs]
    with pytest.raises(ValueError, match=rf"a.pkl: roi_heads.{layer} has {outputs} outputs, .* would be (16|4)"):
        detectron2_source(state, "a.pkl")


def test_a_pickle_of_the_zoos_form(tmp_path):
    """{"model": arrays, "__author__": ...} from disk to the network."""
    from mrcnn.weights.recognize import read_source

    state = parity.values_of(shapes())
    path = tmp_path / "model_final.pkl"
    path.write_bytes(pickle.dumps({"model": state, "__author__": "Detectron2 Model Zoo"}))
    source = read_source(path)
    assert source.program == "Detectron2"
    np.testing.assert_array_equal(
        source.tensors["trunk/fpn_p3/kernel"].read(), state["backbone.fpn_output3.weight"].transpose(2, 3, 1, 0)
    )


def test_detectron2_itself():
    """Every stage of `mask_rcnn_R_50_FPN_3x` on an image that is not square."""
    folder = parity.oracle_folder()
    import parity_oracles

    assert parity.failed(parity_oracles.detectron2(folder, ["b"])) == []


@pytest.mark.parametrize("kind", ["C4", "DC5"])
def test_models_without_a_pyramid_as_the_original(kind):
    import parity_oracles

    folder = parity.oracle_folder()
    assert parity.failed(parity_oracles.detectron2_single(folder, ["a"], [kind])) == []


# PointRend


class PointRend:
    """The arithmetic of Detectron2's PointRend head."""

    def __init__(self, state):
        self.state = {name.removeprefix(f"{ROI}mask_head."): value for name, value in state.items()}

    def dense(self, x, name):
        return (
            x @ self.state[f"{name}.weight"].reshape(len(self.state[f"{name}.bias"]), -1).T + self.state[f"{name}.bias"]
        )

    def coarse(self, features):
        """[R, 14, 14, C] -> [R, classes, 7, 7]."""
        kernel = self.state["coarse_head.reduce_spatial_dim_conv.weight"]
        cells = features.reshape(len(features), 7, 2, 7, 2, -1)
        x = relu(
            np.einsum("rydxec,ocde->royx", cells, kernel)
            + self.state["coarse_head.reduce_spatial_dim_conv.bias"][:, None, None]
        )
        x = x.reshape(len(x), -1)
        for name in ("fc1", "fc2"):
            x = relu(self.dense(x, f"coarse_head.{name}"))
        return self.dense(x, "coarse_head.prediction").reshape(len(x), -1, 7, 7)

    def points(self, fine, coarse):
        x = fine
        for name in ("fc1", "fc2", "fc3"):
            x = relu(self.dense(np.concatenate([x, coarse], axis=-1), f"point_head.{name}"))
        return self.dense(np.concatenate([x, coarse], axis=-1), "point_head.predictor")


def earlier_names(state):
    """As the published PointRend files of 2020 call the layers."""
    renamed = {}
    for name, value in state.items():
        name = name.replace("mask_head.coarse_head.fc", "mask_head.coarse_head.coarse_mask_fc")
        renamed[re.sub(r"mask_head\.(coarse|point)_head", r"mask_\1_head", name)] = value
    assert set(renamed) != set(state)
    return renamed


@pytest.mark.parametrize("named", [dict, earlier_names])
def test_pointrend_computes_what_detectron2_computes(named):
    state = parity.values_of(shapes(pointrend=True))
    original, source = PointRend(state), detectron2_source(named(state), "a.pkl")
    assert source.parts == ("trunk", "rpn", "box_head", "mask_head") and not source.unused
    options = {"convolution_filters": 6, "fc_units": HIDDEN, "point_units": 10}
    assert source.settings["MASK_HEAD"] == {"name": "pointrend", **options}
    head = parity.build(source).network.head
    features = parity.pooled(14)
    assert_close(head.coarse(features), original.coarse(features).transpose(0, 2, 3, 1))
    rng = np.random.default_rng(0)
    fine, coarse = (rng.normal(size=(4, 9, count)).astype(np.float32) for count in (PYRAMID, CLASSES - 1))
    assert_close(head.points([fine, coarse]), original.points(fine, coarse))


@pytest.mark.parametrize("name", ["mask_head.coarse_head.fc1.weight", "mask_head.point_head.predictor.weight"])
def test_a_missing_tensor_of_pointrend_is_named(name):
    state = parity.values_of(shapes(pointrend=True))
    del state[ROI + name]
    with pytest.raises(ValueError, match=f"a.pkl lacks the tensor '{re.escape(ROI + name)}'"):
        detectron2_source(state, "a.pkl")


def test_coarse_masks_of_another_size_are_refused():
    state = parity.values_of(shapes(pointrend=True))
    for kind in ("weight", "bias"):
        state[f"{ROI}mask_head.coarse_head.prediction.{kind}"] = state[f"{ROI}mask_head.coarse_head.prediction.{kind}"][
            :-1
        ]
    with pytest.raises(ValueError, match="a.pkl: .*coarse_head.prediction.weight has 195 outputs, not maps of 7x7"):
        detectron2_source(state, "a.pkl")


def test_pointrend_itself():
    """Coarse logits, features and logits of points, masks after subdivision, and the detections of an image."""
    import parity_oracles

    folder = parity.oracle_folder()
    assert parity.failed(parity_oracles.detectron2_pointrend(folder), more_than=9) == []

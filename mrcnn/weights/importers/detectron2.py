"""Weights of Detectron2's Mask R-CNN, and of the ImageNet trunks that its training starts from.

Three naming schemes: Detectron2's own; that of a trunk alone ("stem.conv1.weight"); and Caffe2's ("res2_0_branch2a_w"),
of Detectron and of the ImageNet trunks of MSRA and FAIR.

A trunk alone whose norms have statistics is torchvision's, as written by `convert-torchvision-to-d2`: RGB with mean and
deviation, stride in the 3x3. Without statistics, or with means of 0, it is MSRA's, where Caffe2 has folded them into
scale and shift: BGR minus the mean, stride in the first 1x1. The file of a whole model does not say which trunk its
training started from; MSRA's is assumed (FAIR's if it has groups), as in all of Detectron2's model zoo.

Conventions of Detectron2 0.6: modeling/{backbone,proposal_generator,roi_heads}, checkpoint/c2_model_loading.py,
tools/convert-torchvision-to-d2.py.
"""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from mrcnn.network.resnet import BLOCKS, block_letters
from mrcnn.presets import Detectron2, Detectron2C4, Detectron2DC5, Detectron2Keypoints, settings_of
from mrcnn.weights.importers import normalize
from mrcnn.weights.importers.head_names import named_head
from mrcnn.weights.importers.torch_layers import WAY_OUT, StateDict, without_statistics
from mrcnn.weights.source import Lazy, Source, fcn_head, keypoint_head, left_over

TRUNK, RPN, ROI = "backbone.bottom_up.", "proposal_generator.rpn_head.", "roi_heads."
KEYPOINTS = f"{ROI}keypoint_head."
SINGLE = (
    r"backbone\.(?=stem\.|res\d\.)|roi_heads\.(?=res5\.)"  # of models without a pyramid; C4 has stage 5 in its heads
)
EPSILON = 1e-5
RESNEXT_STD = (58.395, 57.12, 57.375)  # RGB; X101 was trained with this, the others with 1
POOL = 7
OTHER_HEADS = re.compile("mask|keypoint|kps_|point_head")  # in names of weights
KEYPOINT_NAMES = re.compile("keypoint|kps_")
# PointRend's mask head: layer names in the published files of 2020, and in Detectron2 since then.
EARLIER = [
    (r"roi_heads\.mask_(coarse|point)_head\.", r"roi_heads.mask_head.\1_head."),
    (r"(roi_heads\.mask_head\.coarse_head\.)coarse_mask_fc", r"\1fc"),
]
# Conventions of torchvision's ImageNet trunks, and of Detectron2 models that start from one.
TORCHVISION_TRUNK = {
    "BACKBONE_STRIDE_IN_1X1": False,
    "MEAN_PIXEL": (123.675, 116.28, 103.53),
    "PIXEL_STD": RESNEXT_STD,
    "CHANNEL_ORDER": "rgb",
}

# Caffe2's names and Detectron2's: of whole names, then of their endings.
CAFFE2 = [
    (r"(?:res_)?conv1(?=_)", f"{TRUNK}stem.conv1"),
    (r"res(\d)_(\d+)_branch1(?=_)", rf"{TRUNK}res\1.\2.shortcut"),
    (r"res(\d)_(\d+)_branch2a(?=_)", rf"{TRUNK}res\1.\2.conv1"),
    (r"res(\d)_(\d+)_branch2b(?=_)", rf"{TRUNK}res\1.\2.conv2"),
    (r"res(\d)_(\d+)_branch2c(?=_)", rf"{TRUNK}res\1.\2.conv3"),
    (r"fpn_inner_res(\d)_\d+_sum(?:_lateral)?(?=_)", r"backbone.fpn_lateral\1"),
    (r"fpn_res(\d)_\d+_sum(?=_)", r"backbone.fpn_output\1"),
    (r"conv_rpn_fpn2(?=_)", f"{RPN}conv"),
    (r"rpn_cls_logits_fpn2(?=_)", f"{RPN}objectness_logits"),
    (r"rpn_bbox_pred_fpn2(?=_)", f"{RPN}anchor_deltas"),
    (r"head_conv(\d)(?=_)", rf"{ROI}box_head.conv\1"),
    (r"fc6(?=_)", f"{ROI}box_head.fc1"),
    (r"fc7(?=_)", f"{ROI}box_head.fc2"),
    (r"cls_score(?=_)", f"{ROI}box_predictor.cls_score"),
    (r"bbox_pred(?=_)", f"{ROI}box_predictor.bbox_pred"),
    (r"_\[mask\]_fcn(\d)(?=_)", rf"{ROI}mask_head.mask_fcn\1"),
    (r"conv5_mask(?=_)", f"{ROI}mask_head.deconv"),
    (r"mask_fcn_logits(?=_)", f"{ROI}mask_head.predictor"),
    (r"conv_fcn(\d)(?=_)", rf"{KEYPOINTS}conv_fcn\1"),
    (r"kps_score_lowres(?=_)", f"{KEYPOINTS}score_lowres"),
]
CAFFE2_ENDINGS = {
    "_w": ".weight",
    "_b": ".bias",
    "_bn_s": ".norm.weight",
    "_bn_b": ".norm.bias",
    "_bn_rm": ".norm.running_mean",
    "_bn_riv": ".norm.running_var",
}


def is_detectron2(tensors: Mapping[str, Any]) -> bool:
    """Whether a dict of weights uses one of the three naming schemes, for a ResNet."""
    signs = (f"{TRUNK}stem.conv1.weight", "backbone.stem.conv1.weight", "stem.conv1.weight", "res2_0_branch2a_w")
    return any(name in tensors for name in signs)


def detectron2_source(tensors: Mapping[str, Any], path: str, *, bn_epsilon: float | None = None) -> Source:
    """The contents of a dict of weights, for this network.

    Args:
        tensors: name -> array or `Lazy`.
        path: for messages.
        bn_epsilon: of the trunk's BatchNorm; None: Detectron2's 1e-5.

    Raises:
        ValueError: an unsupported trunk, GroupNorm, or a missing tensor.
    """
    caffe2 = "res2_0_branch2a_w" in tensors
    names = {name: own for name in tensors if (own := _of_caffe2(name) if caffe2 else _of_trunk(name))}
    state = StateDict(_renamed(tensors, names, path), path)
    blocks = _blocks(state)
    found, parts = _trunk(state, blocks, EPSILON if bn_epsilon is None else bn_epsilon), ["backbone"]
    preset = Detectron2Keypoints if f"{KEYPOINTS}score_lowres.weight" in state else Detectron2
    if "backbone.stem.conv1.weight" in tensors:
        preset = Detectron2C4 if "roi_heads.res5.0.conv1.weight" in tensors else Detectron2DC5
        parts = ["trunk"]
    if preset is Detectron2C4:
        moved = {name: name.replace("trunk/", "roi_stage/", 1) for name in found if re.match(r"trunk/(res|bn)5", name)}
        found, parts = {moved.get(name, name): tensor for name, tensor in found.items()}, ["trunk", "roi_stage"]
    settings = settings_of(preset) | _trunk_settings(state, blocks)
    del settings["NUM_CLASSES"]  # the preset's, not the file's
    points = preset is Detectron2Keypoints
    others = [name for name in tensors if OTHER_HEADS.search(name) and not (points and KEYPOINT_NAMES.search(name))]
    if f"{ROI}box_predictor.cls_score.weight" in state and not others:
        settings["MASK_HEAD"] = None  # Faster R-CNN, or keypoints alone
    elif points:
        settings.pop("MASK_HEAD")
    if "stem.conv1.weight" in tensors and _has_statistics(state):
        settings |= TORCHVISION_TRUNK
    for part, sign, importer in (
        ("trunk", "backbone.fpn_lateral2", _pyramid),
        ("rpn", f"{RPN}objectness_logits", _rpn),
        ("box_head", f"{ROI}box_predictor.cls_score", partial(_box_head, caffe2=caffe2)),
        ("mask_head", f"{ROI}mask_head.predictor", partial(_mask_head, caffe2=caffe2)),
        ("keypoint_head", f"{KEYPOINTS}score_lowres", _keypoint_head),
    ):
        if f"{sign}.weight" in state:
            layers, needed = importer(state)
            found, settings = found | layers, settings | needed
            parts = ["trunk"] if part == "trunk" else [*parts, part]
    if "mask_head" not in parts and (named := named_head(state, f"{ROI}mask_head.", "detectron2")):
        found, settings, parts = found | named[0], settings | named[1], [*parts, "mask_head"]
    used = {name for name, own in names.items() if own in state.used}
    return Source(
        "Detectron (Caffe2)" if caffe2 else "Detectron2",
        found,
        settings,
        [],
        tuple(parts),
        unused=left_over(tensors, used),
        assumed=() if "stem.conv1.weight" in tensors or caffe2 else tuple(TORCHVISION_TRUNK),
    )


def _renamed(tensors: Mapping[str, Any], names: Mapping[str, str], path: str) -> dict[str, Any]:
    """Renames the weights to Detectron2's names.

    Norms of an ImageNet trunk may lack statistics, which are already folded into scale and shift: they get neutral
    ones. In Detectron2's own naming, norms without statistics are GroupNorm, which raises ValueError.

    Args:
        names: the file's name -> Detectron2's name.
    """
    if of_groups := next((name for name in tensors if name.endswith("_gn_s")), None):  # Caffe2's ending
        raise ValueError(f"{path}: {of_groups} belongs to GroupNorm, {WAY_OUT}")
    named = {own: tensors[name] for name, own in names.items()}
    complete = any(name.startswith("stem.") and name.endswith(".running_var") for name in tensors)
    for name in [name for name in named if name.endswith(".norm.weight")]:
        stem, shape = name.removesuffix(".weight"), tuple(named[name].shape)
        if (name in tensors or complete) and f"{stem}.running_var" not in named:
            raise without_statistics(path, stem)
        named.setdefault(f"{stem}.running_mean", np.zeros(shape, np.float32))
        named.setdefault(f"{stem}.running_var", np.ones(shape, np.float32))
    return named


def _of_trunk(name: str) -> str:
    if name.startswith(f"{ROI}mask_"):
        for pattern, own in EARLIER:
            name = re.sub(f"^{pattern}", own, name)
    return f"{TRUNK}{name}" if re.match(r"(stem|res\d)\.", name) else re.sub(f"^(?:{SINGLE})", TRUNK, name)


def _of_caffe2(name: str) -> str | None:
    for pattern, own in CAFFE2:
        if match := re.match(pattern, name):
            ending = CAFFE2_ENDINGS.get(name[match.end() :])
            return match.expand(own) + ending if ending else None  # None for a momentum, for example
    return None


def _blocks(state: StateDict) -> tuple[int, ...]:
    """Number of blocks per stage. Raises ValueError for a trunk that is not a known bottleneck ResNet."""
    blocks = tuple(state.count(rf"backbone\.bottom_up\.res{stage}\.(\d+)\.") for stage in (2, 3, 4, 5))
    if blocks not in BLOCKS.values() or f"{TRUNK}res2.0.conv3.weight" not in state:
        raise ValueError(f"{state.path} has a trunk of {blocks} blocks; supported are bottlenecks: {BLOCKS}")
    return blocks


def _trunk_settings(state: StateDict, blocks: tuple[int, ...]) -> dict[str, Any]:
    width, channels = state.shape(f"{TRUNK}stem.conv1.weight")[:2]
    inner, each = state.shape(f"{TRUNK}res2.0.conv2.weight")[:2]
    options = {} if width == 64 else {"width": width}
    settings: dict[str, Any] = {
        "BACKBONE": next(name for name, known in BLOCKS.items() if known == blocks),
        "BACKBONE_OPTIONS": options,
        "IMAGE_CHANNEL_COUNT": channels,
    }
    if inner != each:  # ResNeXt, with strides placed as in torch
        options |= {"groups": inner // each, "group_width": each * 64 // width}
        settings |= {"BACKBONE_STRIDE_IN_1X1": False, "PIXEL_STD": RESNEXT_STD}
    return settings


def _has_statistics(state: StateDict) -> bool:
    """Whether the trunk's norms have real statistics, not the neutral ones of MSRA's trunks."""
    return bool(np.any(state.read(f"{TRUNK}stem.conv1.norm.running_mean")))


def _trunk(state: StateDict, blocks: tuple[int, ...], epsilon: float) -> dict[str, Lazy]:
    pairs = [("conv1", "bn_conv1", f"{TRUNK}stem.conv1")]
    for stage, count in enumerate(blocks, start=2):
        for block in range(count):
            there, here = f"{TRUNK}res{stage}.{block}.", f"{stage}{block_letters(block)}_branch"
            pairs += [
                (f"res{here}2{letter}", f"bn{here}2{letter}", f"{there}conv{i}")
                for i, letter in enumerate("abc", start=1)
            ]
            if block == 0:
                pairs.append((f"res{here}1", f"bn{here}1", f"{there}shortcut"))
    found: dict[str, Lazy] = {}
    for convolution, norm, name in pairs:
        found |= state.convolution(f"trunk/{convolution}", name)
        found |= state.batch_norm(f"trunk/{norm}", f"{name}.norm", epsilon)
    return found


def _pyramid(state: StateDict) -> tuple[dict[str, Lazy], dict[str, Any]]:
    found: dict[str, Lazy] = {}
    for level in (2, 3, 4, 5):
        for here, name in (
            (f"fpn_c{level}p{level}", f"backbone.fpn_lateral{level}"),
            (f"fpn_p{level}", f"backbone.fpn_output{level}"),
        ):
            found |= state.convolution(f"trunk/{here}", name, norm=state.norm_of(f"{name}.norm"))
    return found, {"TOP_DOWN_PYRAMID_SIZE": state.shape("backbone.fpn_lateral2.weight")[0]}


def _rpn(state: StateDict) -> tuple[dict[str, Lazy], dict[str, Any]]:
    """The RPN, with one convolution or several that are numbered from 0."""
    count = state.count(r"proposal_generator\.rpn_head\.conv\.conv(\d+)\.")
    found: dict[str, Lazy] = {}
    for i, name in enumerate([f"{RPN}conv.conv{i}" for i in range(count)] or [f"{RPN}conv"], start=1):
        found |= state.convolution(f"rpn/rpn_conv_shared{i if i > 1 else ''}", name)
    found |= state.convolution("rpn/rpn_class_raw", f"{RPN}objectness_logits")
    found |= state.convolution("rpn/rpn_bbox_pred", f"{RPN}anchor_deltas", change=normalize.swap_axes_of_deltas)
    return found, {"RPN_CHANNELS": state.shape(f"{RPN}objectness_logits.weight")[1], "RPN_CONVOLUTIONS": count or 1}


def _box_head(state: StateDict, caffe2: bool) -> tuple[dict[str, Lazy], dict[str, Any]]:
    """Convolutions, if any, then fully connected layers. caffe2: background is the first class, otherwise the last."""
    head, classes = f"{ROI}box_head.", state.shape(f"{ROI}box_predictor.cls_score.weight")[0]
    state.require_outputs(
        f"{ROI}box_predictor.bbox_pred", 4 * (classes if caffe2 else classes - 1), "box deltas for each class"
    )
    convolutions, dense = (state.count(rf"roi_heads\.box_head\.{kind}(\d+)\.") for kind in ("conv", "fc"))
    found: dict[str, Lazy] = {}
    for i in range(1, convolutions + 1):
        name = f"{head}conv{i}"
        found |= state.convolution(f"box_head/mrcnn_conv{i}", name, norm=state.norm_of(f"{name}.norm"))
    inputs = state.shape(f"{head}fc1.weight")[1] if dense else 0
    for i in range(1, dense + 1):
        features = (inputs // POOL**2, POOL, POOL) if i == 1 else None
        found |= state.dense(f"box_head/mrcnn_fc{i}", f"{head}fc{i}", features=features)
    found |= state.dense(
        "box_head/mrcnn_class_logits",
        f"{ROI}box_predictor.cls_score",
        change=None if caffe2 else normalize.background_first,
    )
    found |= state.dense(
        "box_head/mrcnn_bbox_fc",
        f"{ROI}box_predictor.bbox_pred",
        change=normalize.swap_axes_of_deltas if caffe2 else _deltas,
    )
    size = {"FPN_CLASSIF_FC_LAYERS_SIZE": state.shape(f"{head}fc1.weight")[0]} if dense else {}
    return found, {"NUM_CLASSES": classes, "BOX_HEAD_CONVOLUTIONS": convolutions, "BOX_HEAD_FC_LAYERS": dense, **size}


def _deltas(values: np.ndarray) -> np.ndarray:
    return normalize.background_first(normalize.swap_axes_of_deltas(values), 4, missing=True)


def _mask_head(state: StateDict, caffe2: bool) -> tuple[dict[str, Lazy], dict[str, Any]]:
    """caffe2: background is the first class and has masks; otherwise it has none."""
    found: dict[str, Lazy] = {}
    head = f"{ROI}mask_head."
    classes = state.shape(f"{ROI}box_predictor.cls_score.weight")[0]
    state.require_outputs(f"{head}predictor", classes if caffe2 else classes - 1, "a mask for each class")
    convolutions = state.count(r"roi_heads\.mask_head\.mask_fcn(\d+)\.")
    for i in range(1, convolutions + 1):
        name = f"{head}mask_fcn{i}"
        found |= state.convolution(f"mask_head/conv{i}", name, norm=state.norm_of(f"{name}.norm"))
    found |= state.convolution("mask_head/deconv", f"{head}deconv")
    change = None if caffe2 else partial(normalize.background_first, missing=True)
    found |= state.convolution("mask_head/masks", f"{head}predictor", change=change)
    return found, {"MASK_HEAD": fcn_head(state.shape(f"{head}deconv.weight")[1], convolutions)}


def _keypoint_head(state: StateDict) -> tuple[dict[str, Lazy], dict[str, Any]]:
    found: dict[str, Lazy] = {}
    convolutions = state.count(r"roi_heads\.keypoint_head\.conv_fcn(\d+)\.")
    for i in range(1, convolutions + 1):
        found |= state.convolution(f"keypoint_head/conv{i}", f"{KEYPOINTS}conv_fcn{i}")
    found |= state.convolution("keypoint_head/deconv", f"{KEYPOINTS}score_lowres")
    filters, keypoints = state.shape(f"{KEYPOINTS}score_lowres.weight")[:2]
    return found, keypoint_head(filters, convolutions, keypoints)

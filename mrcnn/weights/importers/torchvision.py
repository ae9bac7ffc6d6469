"""Weights of torchvision's Mask R-CNN and Faster R-CNN, v1 and v2, and of its Keypoint R-CNN.

Names and conventions of torchvision 0.28: models/detection/{mask_rcnn,faster_rcnn,rpn,backbone_utils}.py.
"""

import re
from collections.abc import Mapping
from typing import Any

from mrcnn.network.resnet import BLOCKS, block_letters
from mrcnn.presets import Torchvision, TorchvisionKeypoints, TorchvisionV2, settings_of
from mrcnn.weights.importers import normalize
from mrcnn.weights.importers.torch_layers import StateDict
from mrcnn.weights.source import Lazy, Source, fcn_head, keypoint_head, left_over

BODY, FPN, ROI = "backbone.body.", "backbone.fpn.", "roi_heads."
KEYPOINTS = f"{ROI}keypoint_predictor.kps_score_lowres"
STEM = f"{BODY}conv1.weight"
OTHER_HEADS = re.compile(r"roi_heads\.(?!box_)")
EPSILON = 1e-5  # of torch's BatchNorm, and of torchvision's frozen one
PUBLISHED_EPSILON = 0.0  # of the frozen BatchNorm in torchvision's published weights, all of ResNet-50


def is_torchvision(tensors: Mapping[str, Any]) -> bool:
    """Whether a state dict has the names of a torchvision detection model on a ResNet with a feature pyramid."""
    return STEM in tensors and any(name.startswith(FPN) for name in tensors)


def torchvision_source(tensors: Mapping[str, Any], path: str, *, bn_epsilon: float | None = None) -> Source:
    """The contents of a state dict, for this network.

    Args:
        tensors: name -> array or `Lazy`.
        path: for messages.
        bn_epsilon: of the trunk's BatchNorm, which the file does not contain. None: 0 for the frozen BatchNorm of a
            ResNet-50, as in torchvision's published weights; else 1e-5, the default of torch and `resnet_fpn_backbone`.

    Raises:
        ValueError: an unsupported trunk, or a missing tensor.
    """
    learns = any(name.endswith("num_batches_tracked") for name in tensors)
    state = StateDict(tensors, path)
    blocks = _blocks(state)
    published = blocks == BLOCKS["resnet50"] and not learns
    epsilon = (PUBLISHED_EPSILON if published else EPSILON) if bn_epsilon is None else bn_epsilon
    found, parts = _trunk(state, blocks, epsilon), ["trunk"]
    preset = TorchvisionV2 if "rpn.head.conv.1.0.weight" in state else Torchvision
    settings = settings_of(TorchvisionKeypoints if f"{KEYPOINTS}.weight" in state else preset)
    del settings["NUM_CLASSES"]  # the preset's, not the file's
    settings |= _trunk_settings(state, blocks)
    if f"{ROI}box_predictor.cls_score.weight" in state and not any(map(OTHER_HEADS.match, tensors)):
        settings["MASK_HEAD"] = None  # Faster R-CNN
    for part, sign, importer in (
        ("rpn", "rpn.head.cls_logits", _rpn),
        ("box_head", f"{ROI}box_predictor.cls_score", _box_head),
        ("mask_head", f"{ROI}mask_predictor.mask_fcn_logits", _mask_head),
        ("keypoint_head", KEYPOINTS, _keypoint_head),
    ):
        if f"{sign}.weight" in state:
            layers, needed = importer(state)
            found, settings = found | layers, settings | needed
            parts.append(part)
    return Source("torchvision", found, settings, [], tuple(parts), unused=left_over(tensors, state.used))


def _blocks(state: StateDict) -> tuple[int, ...]:
    """Number of blocks per stage of a bottleneck trunk. Raises ValueError for another trunk."""
    blocks = tuple(state.count(rf"backbone\.body\.layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4))
    bottlenecks = f"{BODY}layer1.0.conv3.weight" in state
    if blocks not in BLOCKS.values() or not bottlenecks:
        raise ValueError(
            f"{state.path} has a trunk of {blocks} {'bottlenecks' if bottlenecks else 'basic blocks'}; "
            f"supported are bottlenecks: {BLOCKS}"
        )
    return blocks


def _trunk_settings(state: StateDict, blocks: tuple[int, ...]) -> dict[str, Any]:
    width, channels = state.shape(STEM)[:2]
    return {
        "BACKBONE": next(name for name, known in BLOCKS.items() if known == blocks),
        "BACKBONE_OPTIONS": {} if width == 64 else {"width": width},
        "IMAGE_CHANNEL_COUNT": channels,
        "TOP_DOWN_PYRAMID_SIZE": state.shape(_fpn(state, "inner", 2)[0] + ".weight")[0],
    }


def _trunk(state: StateDict, blocks: tuple[int, ...], epsilon: float) -> dict[str, Lazy]:
    pairs = [("conv1", "bn_conv1", f"{BODY}conv1", f"{BODY}bn1")]
    for stage, count in enumerate(blocks, start=2):
        for block in range(count):
            there, here = f"{BODY}layer{stage - 1}.{block}.", f"{stage}{block_letters(block)}_branch"
            pairs += [
                (f"res{here}2{letter}", f"bn{here}2{letter}", f"{there}conv{i}", f"{there}bn{i}")
                for i, letter in enumerate("abc", start=1)
            ]
            if block == 0:
                pairs.append((f"res{here}1", f"bn{here}1", f"{there}downsample.0", f"{there}downsample.1"))
    found: dict[str, Lazy] = {}
    for convolution, norm, their_convolution, their_norm in pairs:
        found |= state.convolution(f"trunk/{convolution}", their_convolution)
        found |= state.batch_norm(f"trunk/{norm}", their_norm, epsilon)
    for level in (2, 3, 4, 5):
        for kind, here in (("inner", f"fpn_c{level}p{level}"), ("layer", f"fpn_p{level}")):
            name, folded = _fpn(state, kind, level)
            found |= state.convolution(f"trunk/{here}", name, norm=folded)
    return found


def _fpn(state: StateDict, kind: str, level: int) -> tuple[str, str | None]:
    """Names of a pyramid convolution and its norm (v2 only); before torchvision 0.13, one level less deep."""
    name = f"{FPN}{kind}_blocks.{level - 2}"
    if f"{name}.weight" in state:
        return name, None
    return f"{name}.0", state.norm_of(f"{name}.1")


def _rpn_convolutions(state: StateDict) -> list[str]:
    """Names of the convolutions that logits and deltas share; a single name before torchvision 0.13."""
    if "rpn.head.conv.weight" in state:
        return ["rpn.head.conv"]
    return [f"rpn.head.conv.{i}.0" for i in range(state.count(r"rpn\.head\.conv\.(\d+)\."))]


def _rpn(state: StateDict) -> tuple[dict[str, Lazy], dict[str, Any]]:
    found: dict[str, Lazy] = {}
    convolutions = _rpn_convolutions(state)
    for i, name in enumerate(convolutions, start=1):
        found |= state.convolution(f"rpn/rpn_conv_shared{i if i > 1 else ''}", name)
    found |= state.convolution("rpn/rpn_class_raw", "rpn.head.cls_logits")
    found |= state.convolution("rpn/rpn_bbox_pred", "rpn.head.bbox_pred", change=normalize.swap_axes_of_deltas)
    return found, {"RPN_CHANNELS": state.shape("rpn.head.cls_logits.weight")[1], "RPN_CONVOLUTIONS": len(convolutions)}


def _box_layers(state: StateDict) -> tuple[list[str], list[str]]:
    """Names of the convolutions and the fully connected layers; v2 has only numbers."""
    head = f"{ROI}box_head."
    found = (re.fullmatch(r"(roi_heads\.box_head\.(\d+))\.weight", name) for name in state.tensors)
    dense = [match[1] for match in sorted(filter(None, found), key=lambda match: int(match[2]))]
    if not dense:
        return [], [f"{head}fc6", f"{head}fc7"]
    return [f"{head}{i}" for i in range(state.count(r"roi_heads\.box_head\.(\d+)\.0\."))], dense


def _box_head(state: StateDict) -> tuple[dict[str, Lazy], dict[str, Any]]:
    found: dict[str, Lazy] = {}
    (convolutions, dense), pool = _box_layers(state), 7
    classes = state.shape(f"{ROI}box_predictor.cls_score.weight")[0]
    state.require_outputs(f"{ROI}box_predictor.bbox_pred", 4 * classes, "box deltas for each class")
    for i, name in enumerate(convolutions, start=1):
        found |= state.convolution(f"box_head/mrcnn_conv{i}", f"{name}.0", norm=state.norm_of(f"{name}.1"))
    for i, name in enumerate(dense, start=1):
        features = (state.shape(f"{name}.weight")[1] // pool**2, pool, pool) if i == 1 else None
        found |= state.dense(f"box_head/mrcnn_fc{i}", name, features=features)
    found |= state.dense("box_head/mrcnn_class_logits", f"{ROI}box_predictor.cls_score")
    found |= state.dense(
        "box_head/mrcnn_bbox_fc", f"{ROI}box_predictor.bbox_pred", change=normalize.swap_axes_of_deltas
    )
    return found, {
        "NUM_CLASSES": classes,
        "BOX_HEAD_CONVOLUTIONS": len(convolutions),
        "BOX_HEAD_FC_LAYERS": len(dense),
        "FPN_CLASSIF_FC_LAYERS_SIZE": state.shape(f"{dense[0]}.weight")[0],
    }


def _mask_layers(state: StateDict) -> list[str]:
    """Names of the 3x3 convolutions: v1's old names, and today's in both v1 and v2."""
    head = f"{ROI}mask_head."
    if f"{head}mask_fcn1.weight" in state:
        return [f"{head}mask_fcn{i + 1}" for i in range(state.count(r"roi_heads\.mask_head\.mask_fcn(\d+)\."))]
    return [f"{head}{i}.0" for i in range(state.count(r"roi_heads\.mask_head\.(\d+)\.0\."))]


def _mask_head(state: StateDict) -> tuple[dict[str, Lazy], dict[str, Any]]:
    found: dict[str, Lazy] = {}
    convolutions, predictor = _mask_layers(state), f"{ROI}mask_predictor."
    classes = state.shape(f"{ROI}box_predictor.cls_score.weight")[0]
    state.require_outputs(f"{predictor}mask_fcn_logits", classes, "a mask for each class")
    for i, name in enumerate(convolutions, start=1):
        found |= state.convolution(f"mask_head/conv{i}", name, norm=state.norm_of(f"{name.removesuffix('.0')}.1"))
    found |= state.convolution("mask_head/deconv", f"{predictor}conv5_mask")
    found |= state.convolution("mask_head/masks", f"{predictor}mask_fcn_logits")
    return found, {"MASK_HEAD": fcn_head(state.shape(f"{convolutions[0]}.weight")[0], len(convolutions))}


def _keypoint_head(state: StateDict) -> tuple[dict[str, Lazy], dict[str, Any]]:
    """A sequence of convolutions and ReLUs, of which every second has weights."""
    found: dict[str, Lazy] = {}
    convolutions = state.count(r"roi_heads\.keypoint_head\.(\d+)\.")
    for i in range(convolutions):
        found |= state.convolution(f"keypoint_head/conv{i + 1}", f"{ROI}keypoint_head.{2 * i}")
    found |= state.convolution("keypoint_head/deconv", KEYPOINTS)
    filters, keypoints = state.shape(f"{KEYPOINTS}.weight")[:2]
    return found, keypoint_head(filters, convolutions, keypoints)

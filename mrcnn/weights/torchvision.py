"""Weights of torchvision's Mask R-CNN, v1 and v2, and of the trunk of its keypoint model.

Names and conventions of torchvision 0.28: models/detection/{mask_rcnn,faster_rcnn,rpn,backbone_utils}.py.
"""

import re
from collections.abc import Mapping
from typing import Any

from mrcnn.presets import Torchvision, TorchvisionV2, settings_of
from mrcnn.resnet import BLOCKS, block_letters
from mrcnn.weights import normalise
from mrcnn.weights.source import Lazy, Source
from mrcnn.weights.torch_layers import StateDict

BODY, FPN, ROI = "backbone.body.", "backbone.fpn.", "roi_heads."
STEM = f"{BODY}conv1.weight"
EPSILON = 1e-5  # of torch's BatchNorm, and of torchvision's frozen one
PUBLISHED_EPSILON = 0.0  # that torchvision sets for the frozen BatchNorm of the weights it publishes, all of ResNet-50


def is_torchvision(tensors: Mapping[str, Any]) -> bool:
    """Whether a state dict has the names of a torchvision detection model on a ResNet with a feature pyramid."""
    return STEM in tensors and any(name.startswith(FPN) for name in tensors)


def torchvision_source(tensors: Mapping[str, Any], path: str, *, bn_epsilon: float | None = None) -> Source:
    """What a state dict holds, for this network.

    Args:
        tensors: name to array or `Lazy`.
        path: for messages.
        bn_epsilon: of the trunk's BatchNorm, which the file does not tell. None: 0 for the frozen one of a ResNet-50,
            as of the weights that torchvision publishes; else 1e-5, torch's and `resnet_fpn_backbone`'s own.

    Raises:
        ValueError: a trunk that this network has not, or a tensor that is not there.
    """
    learns = any(name.endswith("num_batches_tracked") for name in tensors)
    state = StateDict(tensors, path)
    blocks = _blocks(state)
    published = blocks == BLOCKS["resnet50"] and not learns
    epsilon = (PUBLISHED_EPSILON if published else EPSILON) if bn_epsilon is None else bn_epsilon
    found, parts = _trunk(state, blocks, epsilon), ["trunk"]
    v2 = "rpn.head.conv.1.0.weight" in state
    settings = settings_of(TorchvisionV2 if v2 else Torchvision) | _trunk_settings(state, blocks)
    if "rpn.head.cls_logits.weight" in state:
        found |= _rpn(state)
        settings["RPN_CHANNELS"] = state.shape("rpn.head.cls_logits.weight")[1]
        parts.append("rpn")
    if f"{ROI}mask_predictor.mask_fcn_logits.weight" in state:
        found |= _box_head(state) | _mask_head(state)
        settings["NUM_CLASSES"] = state.shape(f"{ROI}box_predictor.cls_score.weight")[0]
        parts += ["box_head", "mask_head"]
    return Source("torchvision", found, settings, [], tuple(parts))


def _count(state: StateDict, pattern: str) -> int:
    return len({match[1] for name in state.tensors if (match := re.match(pattern, name))})


def _blocks(state: StateDict) -> tuple[int, ...]:
    """Blocks of each stage of a trunk of bottlenecks. Raises ValueError for another trunk."""
    blocks = tuple(_count(state, rf"backbone\.body\.layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4))
    bottlenecks = f"{BODY}layer1.0.conv3.weight" in state
    if blocks not in BLOCKS.values() or not bottlenecks:
        raise ValueError(f"{state.path} has a trunk of {blocks} {'bottlenecks' if bottlenecks else 'basic blocks'}; "
                         f"the network's are of bottlenecks: {BLOCKS}")
    return blocks


def _trunk_settings(state: StateDict, blocks: tuple[int, ...]) -> dict[str, Any]:
    width, channels = state.shape(STEM)[:2]
    return {"BACKBONE": next(name for name, known in BLOCKS.items() if known == blocks),
            "BACKBONE_OPTIONS": {} if width == 64 else {"width": width}, "IMAGE_CHANNEL_COUNT": channels,
            "TOP_DOWN_PYRAMID_SIZE": state.shape(_fpn(state, "inner", 2)[0] + ".weight")[0]}


def _trunk(state: StateDict, blocks: tuple[int, ...], epsilon: float) -> dict[str, Lazy]:
    pairs = [("conv1", "bn_conv1", f"{BODY}conv1", f"{BODY}bn1")]
    for stage, count in enumerate(blocks, start=2):
        for block in range(count):
            there, here = f"{BODY}layer{stage - 1}.{block}.", f"{stage}{block_letters(block)}_branch"
            pairs += [(f"res{here}2{letter}", f"bn{here}2{letter}", f"{there}conv{i}", f"{there}bn{i}")
                      for i, letter in enumerate("abc", start=1)]
            if block == 0:
                pairs.append((f"res{here}1", f"bn{here}1", f"{there}downsample.0", f"{there}downsample.1"))
    found = {}
    for convolution, norm, their_convolution, their_norm in pairs:
        found |= state.convolution(f"trunk/{convolution}", their_convolution)
        found |= state.batch_norm(f"trunk/{norm}", their_norm, epsilon)
    for level in (2, 3, 4, 5):
        for kind, here in (("inner", f"fpn_c{level}p{level}"), ("layer", f"fpn_p{level}")):
            name, norm = _fpn(state, kind, level)
            found |= state.convolution(f"trunk/{here}", name, norm=norm)
    return found


def _fpn(state: StateDict, kind: str, level: int) -> tuple[str, str | None]:
    """Names of a pyramid's convolution and of its norm, which v2 has; before torchvision 0.13 one level less deep."""
    name = f"{FPN}{kind}_blocks.{level - 2}"
    if f"{name}.weight" in state:
        return name, None
    return f"{name}.0", f"{name}.1" if f"{name}.1.running_var" in state else None


def _rpn(state: StateDict) -> dict[str, Lazy]:
    names = ["rpn.head.conv"]
    if "rpn.head.conv.weight" not in state:  # since torchvision 0.13
        names = [f"rpn.head.conv.{i}.0" for i in range(_count(state, r"rpn\.head\.conv\.(\d+)\."))]
    found = {}
    for i, name in enumerate(names, start=1):
        found |= state.convolution(f"rpn/rpn_conv_shared{i if i > 1 else ''}", name)
    return found | state.convolution("rpn/rpn_class_raw", "rpn.head.cls_logits") | state.convolution(
        "rpn/rpn_bbox_pred", "rpn.head.bbox_pred", change=normalise.swap_axes_of_deltas)


def _box_head(state: StateDict) -> dict[str, Lazy]:
    head, found = f"{ROI}box_head.", {}
    dense = [f"{head}fc6", f"{head}fc7"]
    if f"{head}fc6.weight" not in state:  # v2
        for i in range(_count(state, r"roi_heads\.box_head\.(\d+)\.0\.")):
            found |= state.convolution(f"box_head/mrcnn_conv{i + 1}", f"{head}{i}.0", norm=f"{head}{i}.1")
        dense = [name.removesuffix(".weight") for name in state.tensors
                 if re.fullmatch(r"roi_heads\.box_head\.\d+\.weight", name)]
    inputs, pool = state.shape(f"{dense[0]}.weight")[1], 7
    for i, name in enumerate(dense, start=1):
        features = (inputs // pool**2, pool, pool) if i == 1 else None
        found |= state.dense(f"box_head/mrcnn_fc{i}", name, features=features)
    return found | state.dense("box_head/mrcnn_class_logits", f"{ROI}box_predictor.cls_score") | state.dense(
        "box_head/mrcnn_bbox_fc", f"{ROI}box_predictor.bbox_pred", change=normalise.swap_axes_of_deltas)


def _mask_head(state: StateDict) -> dict[str, Lazy]:
    head, found = f"{ROI}mask_head.", {}
    for i in (1, 2, 3, 4):
        plain = f"{head}mask_fcn{i}"
        name, norm = (plain, None) if f"{plain}.weight" in state else (f"{head}{i - 1}.0", f"{head}{i - 1}.1")
        norm = norm if norm and f"{norm}.running_var" in state else None
        found |= state.convolution(f"mask_head/conv{i}", name, norm=norm)
    predictor = f"{ROI}mask_predictor."
    return found | state.convolution("mask_head/deconv", f"{predictor}conv5_mask") | state.convolution(
        "mask_head/masks", f"{predictor}mask_fcn_logits")

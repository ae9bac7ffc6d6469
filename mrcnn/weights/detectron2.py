"""Weights of Detectron2's Mask R-CNN with a feature pyramid, and of the ImageNet trunks that it starts from.

Three families of names: Detectron2's own; those of a trunk alone ("stem.conv1.weight"), as its converted ImageNet files
have them; and Caffe2's ("res2_0_branch2a_w"), of Detectron and of the MSRA trunks. Conventions of Detectron2 0.6:
modeling/{backbone,proposal_generator,roi_heads}, checkpoint/c2_model_loading.py.
"""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from mrcnn.presets import Detectron2, settings_of
from mrcnn.resnet import BLOCKS, block_letters
from mrcnn.weights import normalise
from mrcnn.weights.source import Lazy, Source, fcn_head
from mrcnn.weights.torch_layers import StateDict

TRUNK, RPN, ROI = "backbone.bottom_up.", "proposal_generator.rpn_head.", "roi_heads."
EPSILON = 1e-5
RESNEXT_STD = (58.395, 57.12, 57.375)  # RGB; what X101 was trained with, the others with 1
POOL = 7

# Caffe2's names and ours for them: of a whole name, then of its endings.
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
    (r"fc6(?=_)", f"{ROI}box_head.fc1"),
    (r"fc7(?=_)", f"{ROI}box_head.fc2"),
    (r"cls_score(?=_)", f"{ROI}box_predictor.cls_score"),
    (r"bbox_pred(?=_)", f"{ROI}box_predictor.bbox_pred"),
    (r"_\[mask\]_fcn(\d)(?=_)", rf"{ROI}mask_head.mask_fcn\1"),
    (r"conv5_mask(?=_)", f"{ROI}mask_head.deconv"),
    (r"mask_fcn_logits(?=_)", f"{ROI}mask_head.predictor"),
]
CAFFE2_ENDINGS = {"_w": ".weight", "_b": ".bias", "_bn_s": ".norm.weight", "_bn_b": ".norm.bias",
                  "_bn_rm": ".norm.running_mean", "_bn_riv": ".norm.running_var"}


def is_detectron2(tensors: Mapping[str, Any]) -> bool:
    """Whether a dict of weights has one of the three families of names, for a ResNet."""
    return any(name in tensors for name in (f"{TRUNK}stem.conv1.weight", "stem.conv1.weight", "res2_0_branch2a_w"))


def detectron2_source(tensors: Mapping[str, Any], path: str, *, bn_epsilon: float | None = None) -> Source:
    """What a dict of weights holds, for this network.

    Args:
        tensors: name to array or `Lazy`.
        path: for messages.
        bn_epsilon: of the trunk's BatchNorm; None: 1e-5, Detectron2's.

    Raises:
        ValueError: a trunk that this network has not, or a tensor that is not there.
    """
    caffe2 = "res2_0_branch2a_w" in tensors
    state = StateDict(_renamed(tensors, caffe2, path), path)
    blocks = _blocks(state)
    found, parts = _trunk(state, blocks, EPSILON if bn_epsilon is None else bn_epsilon), ["backbone"]
    settings = settings_of(Detectron2) | _trunk_settings(state, blocks)
    del settings["NUM_CLASSES"]
    if "backbone.fpn_lateral2.weight" in state:
        found |= _pyramid(state)
        settings["TOP_DOWN_PYRAMID_SIZE"] = state.shape("backbone.fpn_lateral2.weight")[0]
        parts = ["trunk"]
    if f"{RPN}objectness_logits.weight" in state:
        found |= _rpn(state)
        settings["RPN_CHANNELS"] = state.shape(f"{RPN}objectness_logits.weight")[1]
        parts.append("rpn")
    if f"{ROI}mask_head.predictor.weight" in state:
        classes = state.shape(f"{ROI}box_predictor.cls_score.weight")[0]
        each = classes if caffe2 else classes - 1
        state.require_outputs(f"{ROI}box_predictor.bbox_pred", 4 * each, "box deltas of each class")
        state.require_outputs(f"{ROI}mask_head.predictor", each, "a mask of each class")
        names = "\n".join(state.tensors)
        dense, masks = (len(set(re.findall(pattern, names))) for pattern in (
            r"roi_heads\.box_head\.fc(\d+)\.", r"roi_heads\.mask_head\.mask_fcn(\d+)\."))
        found |= _box_head(state, dense, background_last=not caffe2)
        found |= _mask_head(state, masks, background_missing=not caffe2)
        settings |= {"NUM_CLASSES": classes, "BOX_HEAD_FC_LAYERS": dense,
                     "FPN_CLASSIF_FC_LAYERS_SIZE": state.shape(f"{ROI}box_head.fc1.weight")[0],
                     "MASK_HEAD": fcn_head(state.shape(f"{ROI}mask_head.mask_fcn1.weight")[0], masks)}
        parts += ["box_head", "mask_head"]
    return Source("Detectron (Caffe2)" if caffe2 else "Detectron2", found, settings, [], tuple(parts))


def _renamed(tensors: Mapping[str, Any], caffe2: bool, path: str) -> dict[str, Any]:
    """The weights under Detectron2's names, a trunk's with its prefix.

    Norms of a trunk from ImageNet may come without statistics, which are in scale and shift already: they get neutral
    ones. Detectron2's own norms without them are of groups. Raises ValueError for those.
    """
    if caffe2:
        named = {own: tensor for name, tensor in tensors.items() if (own := _of_caffe2(name))}
    else:
        named = {f"{TRUNK}{name}" if re.match(r"(stem|res\d)\.", name) else name: t for name, t in tensors.items()}
    for name in [name for name in named if name.endswith(".norm.weight")]:
        stem, shape = name.removesuffix("weight"), tuple(named[name].shape)
        if name in tensors and f"{stem}running_var" not in tensors:
            raise ValueError(f"{path}: {name} has no running_var beside it, as of GroupNorm, which the network has not")
        named.setdefault(f"{stem}running_mean", np.zeros(shape, np.float32))
        named.setdefault(f"{stem}running_var", np.ones(shape, np.float32))
    return named


def _of_caffe2(name: str) -> str | None:
    for pattern, own in CAFFE2:
        if match := re.match(pattern, name):
            ending = CAFFE2_ENDINGS.get(name[match.end():])
            return match.expand(own) + ending if ending else None  # such as a momentum
    return None


def _norm_of(state: StateDict, name: str) -> str | None:
    """The norm after a convolution of the pyramid or the mask head, which few models have."""
    return f"{name}.norm" if f"{name}.norm.running_var" in state else None


def _blocks(state: StateDict) -> tuple[int, ...]:
    """Blocks of each stage. Raises ValueError for a trunk that is no ResNet of bottlenecks that is known here."""
    names = "\n".join(state.tensors)
    blocks = tuple(len(set(re.findall(rf"^backbone\.bottom_up\.res{stage}\.(\d+)\.", names, re.MULTILINE)))
                   for stage in (2, 3, 4, 5))
    if blocks not in BLOCKS.values() or f"{TRUNK}res2.0.conv3.weight" not in state:
        raise ValueError(f"{state.path} has a trunk of {blocks} blocks; the network's are of bottlenecks: {BLOCKS}")
    return blocks


def _trunk_settings(state: StateDict, blocks: tuple[int, ...]) -> dict[str, Any]:
    width, channels = state.shape(f"{TRUNK}stem.conv1.weight")[:2]
    inner, each = state.shape(f"{TRUNK}res2.0.conv2.weight")[:2]
    settings = {"BACKBONE": next(name for name, known in BLOCKS.items() if known == blocks),
                "BACKBONE_OPTIONS": {} if width == 64 else {"width": width}, "IMAGE_CHANNEL_COUNT": channels}
    if inner != each:  # ResNeXt, in torch's arrangement of strides
        settings["BACKBONE_OPTIONS"] |= {"groups": inner // each, "group_width": each * 64 // width}
        settings |= {"BACKBONE_STRIDE_IN_1X1": False, "PIXEL_STD": RESNEXT_STD}
    return settings


def _trunk(state: StateDict, blocks: tuple[int, ...], epsilon: float) -> dict[str, Lazy]:
    pairs = [("conv1", "bn_conv1", f"{TRUNK}stem.conv1")]
    for stage, count in enumerate(blocks, start=2):
        for block in range(count):
            there, here = f"{TRUNK}res{stage}.{block}.", f"{stage}{block_letters(block)}_branch"
            pairs += [(f"res{here}2{letter}", f"bn{here}2{letter}", f"{there}conv{i}")
                      for i, letter in enumerate("abc", start=1)]
            if block == 0:
                pairs.append((f"res{here}1", f"bn{here}1", f"{there}shortcut"))
    found = {}
    for convolution, norm, name in pairs:
        found |= state.convolution(f"trunk/{convolution}", name)
        found |= state.batch_norm(f"trunk/{norm}", f"{name}.norm", epsilon)
    return found


def _pyramid(state: StateDict) -> dict[str, Lazy]:
    found = {}
    for level in (2, 3, 4, 5):
        for here, name in ((f"fpn_c{level}p{level}", f"backbone.fpn_lateral{level}"),
                           (f"fpn_p{level}", f"backbone.fpn_output{level}")):
            found |= state.convolution(f"trunk/{here}", name, norm=_norm_of(state, name))
    return found


def _rpn(state: StateDict) -> dict[str, Lazy]:
    return state.convolution("rpn/rpn_conv_shared", f"{RPN}conv") | state.convolution(
        "rpn/rpn_class_raw", f"{RPN}objectness_logits") | state.convolution(
        "rpn/rpn_bbox_pred", f"{RPN}anchor_deltas", change=normalise.swap_axes_of_deltas)


def _box_head(state: StateDict, dense: int, background_last: bool) -> dict[str, Lazy]:
    inputs = state.shape(f"{ROI}box_head.fc1.weight")[1]
    found = state.dense("box_head/mrcnn_fc1", f"{ROI}box_head.fc1", features=(inputs // POOL**2, POOL, POOL))
    for i in range(2, dense + 1):
        found |= state.dense(f"box_head/mrcnn_fc{i}", f"{ROI}box_head.fc{i}")
    found |= state.dense("box_head/mrcnn_class_logits", f"{ROI}box_predictor.cls_score",
                         change=normalise.background_first if background_last else None)

    def deltas(values: np.ndarray) -> np.ndarray:
        values = normalise.swap_axes_of_deltas(values)
        return normalise.background_first(values, 4, missing=True) if background_last else values

    return found | state.dense("box_head/mrcnn_bbox_fc", f"{ROI}box_predictor.bbox_pred", change=deltas)


def _mask_head(state: StateDict, convolutions: int, background_missing: bool) -> dict[str, Lazy]:
    head, found = f"{ROI}mask_head.", {}
    for i in range(1, convolutions + 1):
        name = f"{head}mask_fcn{i}"
        found |= state.convolution(f"mask_head/conv{i}", name, norm=_norm_of(state, name))
    found |= state.convolution("mask_head/deconv", f"{head}deconv")
    change = partial(normalise.background_first, missing=True) if background_missing else None
    return found | state.convolution("mask_head/masks", f"{head}predictor", change=change)

"""Looking inside a network: the tensors between its steps, for one photograph or one batch of the loader.

Every function takes a `MaskRCNN` and gives numpy arrays. Nothing is wired again: the tensors are those of the inference
or the training graph, cut at its own layers, and the steps between are the functions that the graph uses. Boxes are
(y1, x1, y2, x2) in pixels of the network's input; `network_view` is the picture that they belong on.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from mrcnn.data.images import read_image
from mrcnn.data.molding import unmold_image
from mrcnn.inference.detector import NetworkInput
from mrcnn.ops import boxes as box_ops

FIRST_LEVEL = 2  # P2 is the finest


class RpnPredictions(NamedTuple):
    """What the RPN says of every anchor, levels from fine to coarse; A anchors.

    anchors, refined: [A, (y1, x1, y2, x2)], before and after the deltas, not clipped. scores: [A] 0..1, objectness.
    deltas: [A, (dy, dx, log dh, log dw)]. levels: [A] int, 2 for P2 and so on.
    """

    anchors: np.ndarray
    refined: np.ndarray
    scores: np.ndarray
    deltas: np.ndarray
    levels: np.ndarray


class ProposalSteps(NamedTuple):
    """From the RPN's best anchors to proposals; K candidates of all levels, N proposals, both best first.

    anchors, refined, clipped: [K, 4], the anchors that enter, after their deltas, and cut at the photograph's edge
    (that of the input without RPN_CLIP_TO_PHOTOGRAPH).
    scores: [K] 0..1. levels: [K] int. kept: [K] bool, whether NMS and the limit on proposals left it.
    proposals: [N, 4], and proposal_scores: [N] 0..1, as the graph hands them on.
    """

    anchors: np.ndarray
    refined: np.ndarray
    clipped: np.ndarray
    scores: np.ndarray
    levels: np.ndarray
    kept: np.ndarray
    proposals: np.ndarray
    proposal_scores: np.ndarray


class DetectionSteps(NamedTuple):
    """From proposals to detections; N RoIs, C candidates, each a RoI under one class, best first.

    rois: [N, 4]. probabilities: [N, classes], background first. Of the candidates, those over the least confidence:
    roi: [C] int, which RoI. class_ids: [C] int. scores: [C] 0..1. refined, clipped: [C, 4], after the deltas of that
    class, and cut at the photograph's edge. kept: [C] bool, whether it became a detection: not doubled by a better one
    of its class, and among the best DETECTION_MAX_INSTANCES.
    """

    rois: np.ndarray
    probabilities: np.ndarray
    roi: np.ndarray
    class_ids: np.ndarray
    scores: np.ndarray
    refined: np.ndarray
    clipped: np.ndarray
    kept: np.ndarray


class MaskPredictions(NamedTuple):
    """The mask head at work; D detections, best first.

    boxes: [D, 4]. class_ids: [D] int. scores: [D] 0..1. features: [D, pool, pool, channels], what RoIAlign cuts out.
    masks: [D, size, size, classes] 0..1, of every class; `detect` takes that of `class_ids`.
    """

    boxes: np.ndarray
    class_ids: np.ndarray
    scores: np.ndarray
    features: np.ndarray
    masks: np.ndarray


class Targets(NamedTuple):
    """What a batch of B images teaches; A anchors, S sampled ones, R RoIs, K positive ones in the batch.

    anchors: [A, 4]. anchor_index: [B, S] into them. anchor_labels: [B, S] 1 object, 0 background, -1 not sampled.
    anchor_boxes: [B, S, 4], what a positive anchor should become, 0 for others.
    rois: [B, R, 4], positives first, zero-padded. roi_class_ids: [B, R], 0 background or padding. roi_sampled: [B, R]
    bool, False on padding. roi_boxes: [B, R, 4], what a positive RoI should become, 0 for others.
    mask_image: [K] int, image of each positive RoI. mask_rois: [K, 4]. mask_class_ids: [K]. mask_targets: [K, size,
    size] 0 or 1. mask_predictions: [K, size, size] 0..1, of the right class. A batch without positives has one row
    that counts nothing.
    """

    anchors: np.ndarray
    anchor_index: np.ndarray
    anchor_labels: np.ndarray
    anchor_boxes: np.ndarray
    rois: np.ndarray
    roi_class_ids: np.ndarray
    roi_sampled: np.ndarray
    roi_boxes: np.ndarray
    mask_image: np.ndarray
    mask_rois: np.ndarray
    mask_class_ids: np.ndarray
    mask_targets: np.ndarray
    mask_predictions: np.ndarray


def network_view(model: Any, image: Any) -> np.ndarray:
    """The picture that the network sees of a photograph, [height, width, channels] uint8: resized and padded.

    Padding, which is zero after normalisation, has the mean colour.
    """
    return unmold_image(_mold(model, image).image, *model.scaling)


def layer_values(graph: keras.Model, inputs: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Outputs of layers of a graph, in inference mode: what `run_graph` of the old package was for.

    Args:
        graph: `model.inference_model`, `model.training_model`, or one of the parts, as `model.network.trunk`.
        inputs: what the graph takes.
        names: of layers of the graph itself; those of a part inside it belong to that part.

    Returns:
        By name, an array, or a flat list of them where the layer gives several.

    Raises:
        ValueError: an unknown name; the message lists those that are near.
    """
    return _run(graph, inputs, {name: _layer(graph, name).output for name in names})


def activations(
    model: Any, image: Any, names: Sequence[str] = ("fpn_p2", "fpn_p3", "fpn_p4", "fpn_p5", "fpn_p6")
) -> dict[str, np.ndarray]:
    """Feature maps of trunk layers for one photograph: name to [height, width, channels].

    The layers are those of `model.network.trunk`. Raises ValueError for an unknown name.
    """
    values = layer_values(model.network.trunk, _mold(model, image).image[None], names)
    return {name: value[0] for name, value in values.items()}


def rpn_predictions(model: Any, image: Any) -> RpnPredictions:
    """What the RPN says of every anchor on a photograph."""
    logits, deltas, anchors, _ = _rpn(model, _mold(model, image))
    layer = _layer(model.inference_model, "proposals")
    levels = np.concatenate([np.full(len(level), FIRST_LEVEL + i) for i, level in enumerate(anchors)])
    logits, deltas, anchors = (np.concatenate(parts) for parts in (logits, deltas, anchors))
    return RpnPredictions(anchors, _decoded(layer, deltas, anchors), _sigmoid(logits), deltas, levels)


def proposal_steps(model: Any, image: Any) -> ProposalSteps:
    """How the RPN's predictions on a photograph become proposals: best anchors, deltas, clipping, NMS."""
    molded, graph = _mold(model, image), model.inference_model
    layer = _layer(graph, "proposals")
    logits, deltas, anchors, bounds = _rpn(model, molded)
    values = _run(graph, _inputs(molded), layer.output)
    rois, valid, roi_logits = (value[0] for value in values)
    levels = [np.full(len(level), FIRST_LEVEL + i) for i, level in enumerate(anchors)]
    if not layer.per_level:
        logits, deltas, anchors, levels = ([np.concatenate(parts)] for parts in (logits, deltas, anchors, levels))
    best = [np.argsort(-level, kind="stable")[: layer.pre_nms_limit] for level in logits]
    logits, deltas, anchors, levels = (
        np.concatenate([part[index] for part, index in zip(parts, best, strict=True)])
        for parts in (logits, deltas, anchors, levels)
    )
    order = np.argsort(-logits, kind="stable")
    logits, deltas, anchors, levels = (part[order] for part in (logits, deltas, anchors, levels))
    refined = _decoded(layer, deltas, anchors)
    clipped = _clipped(layer, refined, bounds)
    kept = _found(clipped, logits, np.zeros(len(logits)), rois[valid], roi_logits[valid], np.zeros(valid.sum()))
    return ProposalSteps(
        anchors, refined, clipped, _sigmoid(logits), levels, kept, rois[valid], _sigmoid(roi_logits[valid])
    )


def detection_steps(model: Any, image: Any) -> DetectionSteps:
    """How the box head's answers on a photograph become detections: confidence, deltas, clipping, NMS per class."""
    molded, graph = _mold(model, image), model.inference_model
    layer = _layer(graph, "detections")
    values = _run(graph, _inputs(molded), {"before": layer.input, "after": layer.output})
    rois, valid, logits, deltas = (value[0] for value in values["before"][:4])
    found, found_ids, found_scores, found_valid, _ = (value[0] for value in values["after"])
    rois, deltas = rois[valid], deltas[valid]
    probabilities = ops.convert_to_numpy(ops.softmax(logits[valid], axis=-1))
    confident = probabilities > layer.min_confidence
    if layer.best_class_only:
        confident &= np.arange(layer.num_classes) == probabilities.argmax(axis=-1)[:, None]
    roi, class_ids = np.nonzero(confident[:, 1:])
    order = np.argsort(-probabilities[roi, class_ids + 1], kind="stable")
    roi, class_ids = roi[order], class_ids[order] + 1
    refined = _decoded(layer, deltas[roi, class_ids], rois[roi])
    clipped, scores = _clipped(layer, refined, molded.window), probabilities[roi, class_ids]
    kept = _found(clipped, scores, class_ids, found[found_valid], found_scores[found_valid], found_ids[found_valid])
    return DetectionSteps(rois, probabilities, roi, class_ids, scores, refined, clipped, kept)


def mask_predictions(model: Any, image: Any) -> MaskPredictions:
    """What the mask head sees and says of every detection on a photograph, for all classes."""
    graph = model.inference_model
    names = ("detections", "roi_align_mask")
    values = layer_values(graph, _inputs(_mold(model, image)), names)
    boxes, class_ids, scores, valid, _ = (value[0] for value in values["detections"])
    features = values["roi_align_mask"][: valid.sum()]  # a photograph without detections has one row of padding
    masks = (
        ops.convert_to_numpy(model.network.mask_head(features, training=False))
        if len(features)
        else np.zeros((0, *model.network.mask_head.output_shape[1:]), np.float32)
    )
    return MaskPredictions(boxes[valid], class_ids[valid], scores[valid], features, masks)


def training_targets(model: Any, batch: Mapping[str, np.ndarray]) -> Targets:
    """What a batch teaches RPN, box head and mask head, and the masks predicted at its positive RoIs.

    Args:
        batch: of `mrcnn.data.loader.Loader.load_batch`, or `loader[0][0]`.
    """
    graph = model.training_model
    anchor_layer, roi_layer = _layer(graph, "anchor_targets"), _layer(graph, "roi_targets")
    values = _run(
        graph,
        batch,
        {
            "anchors": anchor_layer.input[0],
            "anchor": anchor_layer.output,
            "roi": roi_layer.output,
            "positive": _layer(graph, "positive_rois").output,
            "mask_targets": _layer(graph, "mask_targets").output,
            "masks": graph.output["masks"],
        },
    )
    anchors, (index, labels, anchor_deltas) = values["anchors"], values["anchor"]
    rois, class_ids, roi_deltas, sampled, _ = values["roi"]
    mask_rois, mask_class_ids, _, mask_image, _ = values["positive"]
    return Targets(
        anchors,
        index,
        labels,
        _targets(anchor_layer, anchor_deltas, anchors[index], labels > 0),
        rois,
        class_ids,
        sampled,
        _targets(roi_layer, roi_deltas, rois, class_ids > 0),
        mask_image,
        mask_rois,
        mask_class_ids,
        values["mask_targets"],
        values["masks"],
    )


def _mold(model: Any, image: Any) -> NetworkInput:
    return model.detector.network_input(read_image(image, model.config.IMAGE_CHANNEL_COUNT))


def _inputs(molded: NetworkInput) -> dict[str, np.ndarray]:
    return {"image": molded.image[None], "window": molded.window[None]}


def _run(graph: keras.Model, inputs: Any, outputs: Any) -> Any:
    """The values of tensors of a graph. Called, not predicted: tracing would take longer than one image does."""
    values = keras.Model(graph.input, outputs)(inputs, training=False)
    return keras.tree.map_structure(ops.convert_to_numpy, values)


def _layer(graph: keras.Model, name: str) -> keras.layers.Layer:
    known = [layer.name for layer in graph.layers]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=4, cutoff=0.3) or known[-4:]
        raise ValueError(
            f"{graph.name!r} has no layer {name!r}; near are {near}. All names: [layer.name for layer in graph.layers]."
        )
    return graph.get_layer(name)


def _rpn(model: Any, molded: NetworkInput) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Per level: logits [A_l], deltas [A_l, 4], anchors [A_l, 4]; and what proposals are clipped to, [4]."""
    tensors = _layer(model.inference_model, "proposals").input  # and for matterport's boxes the extent of the input
    count = (len(tensors) - 1) // 3
    *values, bounds = _run(model.inference_model, _inputs(molded), tensors[: 3 * count + 1])
    return [v[0] for v in values[:count]], [v[0] for v in values[count : 2 * count]], values[2 * count :], bounds[0]


def _decoded(layer: keras.layers.Layer, deltas: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Boxes by the convention of a Proposals or Detections layer, in the usual corners."""
    if getattr(layer, "inclusive", False):
        moved = box_ops.decode(deltas, box_ops.to_inclusive(reference), layer.std_dev)
        return ops.convert_to_numpy(box_ops.to_exclusive(moved))
    return ops.convert_to_numpy(box_ops.decode(deltas, reference, layer.std_dev))


def _clipped(layer: keras.layers.Layer, boxes: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Boxes [n, 4] cut off at `bounds` [4], by the convention of the layer, in the usual corners."""
    if layer.inclusive:
        cut = box_ops.clip(box_ops.to_inclusive(boxes)[None], box_ops.to_inclusive(bounds)[None])
        return ops.convert_to_numpy(box_ops.to_exclusive(cut))[0]
    return ops.convert_to_numpy(box_ops.clip(boxes[None], bounds[None]))[0]


def _targets(layer: keras.layers.Layer, deltas: np.ndarray, reference: np.ndarray, positive: np.ndarray) -> np.ndarray:
    return _decoded(layer, deltas, reference) * positive[..., None]


def _found(
    boxes: np.ndarray,
    scores: np.ndarray,
    classes: np.ndarray,
    chosen: np.ndarray,
    chosen_scores: np.ndarray,
    chosen_classes: np.ndarray,
) -> np.ndarray:
    """Which candidates NMS chose [K] bool: for each chosen box the candidate of its class that is nearest to it.

    NMS gives boxes, not indices; the candidates are computed apart, so that they may differ in the last digit.
    """
    kept = np.zeros(len(boxes), bool)
    for box, score, class_id in zip(chosen, chosen_scores, chosen_classes, strict=True):
        distance = np.abs(boxes - box).sum(axis=1) + np.abs(scores - score)
        distance[(classes != class_id) | kept] = np.inf
        kept[np.argmin(distance)] = True
    return kept


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return ops.convert_to_numpy(ops.sigmoid(logits))

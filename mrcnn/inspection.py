"""Network inspection: the values between the network's steps, for one image or one batch of the loader.

Every function takes a `MaskRCNN` and returns NumPy arrays. No step is implemented twice: the values come from the
layers of the inference or training graph and from the functions these layers call. Boxes are (y1, x1, y2, x2) in
pixels of the network input, which `network_view` returns as an image.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from mrcnn.data.images import read_image
from mrcnn.data.molding import denormalize
from mrcnn.inference.detector import NetworkInput
from mrcnn.network.graph import head_targets
from mrcnn.ops import boxes as box_ops

FIRST_LEVEL = 2  # P2, the finest


class RpnPredictions(NamedTuple):
    """The RPN's predictions for A anchors, from fine to coarse levels.

    anchors, refined: [A, (y1, x1, y2, x2)], before and after the deltas, not clipped. scores: [A] 0..1, objectness.
    deltas: [A, (dy, dx, log dh, log dw)]. levels: [A] int, 2 for P2 and so on.
    """

    anchors: np.ndarray
    refined: np.ndarray
    scores: np.ndarray
    deltas: np.ndarray
    levels: np.ndarray


class ProposalSteps(NamedTuple):
    """From the RPN's best anchors to proposals: K candidates from all levels, N proposals, both best first.

    anchors, refined, clipped: [K, 4], the anchors, after applying deltas, and after clipping to the image (without
    RPN_CLIP_TO_PHOTOGRAPH to the network input).
    scores: [K] 0..1. levels: [K] int. kept: [K] bool, whether the candidate became a proposal.
    proposals: [N, 4]. proposal_scores: [N] 0..1.
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
    """From proposals to detections: N RoIs, C candidates (pairs of RoI and class), best first.

    rois: [N, 4]. probabilities: [N, classes], background first. Candidates have at least the minimum confidence:
    roi: [C] int, index of the RoI. class_ids: [C] int. scores: [C] 0..1. refined, clipped: [C, 4], after applying the
    class's deltas, and after clipping to the image. kept: [C] bool, whether the candidate became a detection: it
    survived NMS and is among the best DETECTION_MAX_INSTANCES.
    """

    rois: np.ndarray
    probabilities: np.ndarray
    roi: np.ndarray
    class_ids: np.ndarray
    scores: np.ndarray
    refined: np.ndarray
    clipped: np.ndarray
    kept: np.ndarray


MASK_OUTPUTS = ("mask_target", "masks")


class MaskPredictions(NamedTuple):
    """Input and output of the mask head for D detections, best first.

    boxes: [D, 4]. class_ids: [D] int. scores: [D] 0..1. features: [D, pool, pool, channels], from RoIAlign.
    masks: [D, size, size, classes] 0..1, for every class; `detect` uses those of `class_ids`.
    """

    boxes: np.ndarray
    class_ids: np.ndarray
    scores: np.ndarray
    features: np.ndarray
    masks: np.ndarray


class Targets(NamedTuple):
    """Training targets of a batch of B images: A anchors, S of them sampled; R RoIs, K of them positive.

    anchors: [A, 4]. anchor_index: [B, S], indices of anchors. anchor_labels: [B, S] 1 object, 0 background, -1 not
    sampled. anchor_boxes: [B, S, 4], the target of a positive anchor, 0 for others.
    rois: [B, R, 4], positives first, zero-padded. roi_class_ids: [B, R], 0 background or padding. roi_sampled: [B, R]
    bool, False for padding rows. roi_boxes: [B, R, 4], the target of a positive RoI, 0 for others.
    mask_image: [K] int, the image index of each positive RoI. mask_rois: [K, 4]. mask_class_ids: [K]. mask_targets:
    [K, size, size] 0 or 1. mask_predictions: [K, size, size] 0..1, for the right class. A batch without positives has
    one row of zeros.
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
    """An image as the network sees it, [height, width, channels] uint8: resized and padded.

    The padding, zero after normalization, has the mean color.
    """
    return denormalize(_network_input(model, image).image, *model.scaling)


def layer_values(graph: keras.Model, inputs: Mapping[str, Any] | np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Outputs of a graph's layers, in inference mode.

    Args:
        graph: `model.inference_model`, `model.training_model`, or a part such as `model.network.trunk`.
        inputs: the inputs of the graph.
        names: names of layers of the graph itself, not of its parts.

    Returns:
        Arrays by name, or lists of them for layers with several outputs.

    Raises:
        ValueError: an unknown name; the message lists similar ones.
    """
    return _run(graph, inputs, {name: _layer(graph, name).output for name in names})


def activations(
    model: Any, image: Any, names: Sequence[str] = ("fpn_p2", "fpn_p3", "fpn_p4", "fpn_p5", "fpn_p6")
) -> dict[str, np.ndarray]:
    """Feature maps of layers of `model.network.trunk` for an image: {name: [height, width, channels]}.

    Raises ValueError for an unknown name.
    """
    values = layer_values(model.network.trunk, _network_input(model, image).image[None], names)
    return {name: value[0] for name, value in values.items()}


def rpn_predictions(model: Any, image: Any) -> RpnPredictions:
    """The RPN's predictions for every anchor of an image."""
    logits, deltas, anchors, _ = _rpn(model, _network_input(model, image))
    layer = _layer(model.inference_model, "proposals")
    levels = np.concatenate([np.full(len(level), FIRST_LEVEL + i) for i, level in enumerate(anchors)])
    all_logits, all_deltas, all_anchors = (
        np.concatenate(parts) for parts in ([v[0] for v in logits], [v[0] for v in deltas], anchors)
    )
    refined = _decoded(layer, all_deltas, all_anchors)
    return RpnPredictions(all_anchors, refined, _sigmoid(all_logits), all_deltas, levels)


def proposal_steps(model: Any, image: Any) -> ProposalSteps:
    """How an image's RPN predictions become proposals: best anchors, deltas, clipping, NMS."""
    logits, deltas, anchors, bounds = _rpn(model, _network_input(model, image))
    layer = _layer(model.inference_model, "proposals")
    found = layer.candidates(logits, deltas, anchors, *bounds)
    rois, roi_logits, valid, places = (ops.convert_to_numpy(value)[0] for value in layer.chosen(found))
    found = type(found)(*(ops.convert_to_numpy(value)[0] for value in found))
    kept = np.zeros(found.scores.size, bool)
    kept[places[valid]] = True
    # If a level has fewer anchors than the limit, the last rows are padding
    sizes = [level.shape[1] for level in logits]
    rows = sizes if layer.per_level else [sum(sizes)]
    real = np.arange(found.index.shape[1]) < np.reshape(rows, (-1, 1))
    first = np.cumsum([0, *rows[:-1]])[:, None] if layer.per_level else 0
    anchor = (found.index + first)[real]  # index over all levels
    scores = np.concatenate([level[0] for level in logits])[anchor]
    order = np.argsort(-scores, kind="stable")
    anchor, scores = anchor[order], scores[order]
    levels = FIRST_LEVEL + np.searchsorted(np.cumsum(sizes), anchor, side="right")
    refined, clipped = (_exclusive(layer, boxes[real][order]) for boxes in (found.refined, found.clipped))
    return ProposalSteps(
        np.concatenate(anchors)[anchor],
        refined,
        clipped,
        _sigmoid(scores),
        levels,
        kept.reshape(real.shape)[real][order],
        rois[valid],
        _sigmoid(roi_logits[valid]),
    )


def detection_steps(model: Any, image: Any) -> DetectionSteps:
    """How an image's box head outputs become detections: confidence, deltas, clipping, NMS per class."""
    layer = _layer(model.inference_model, "detections")
    rois, rois_valid, logits, *rest = _run(
        model.inference_model, _inputs(_network_input(model, image)), list(layer.input)
    )
    found = layer.candidates(rois, rois_valid, logits, *rest)
    found = type(found)(*(ops.convert_to_numpy(value)[0] for value in found))
    kept = np.zeros(found.confident.size, bool)
    kept[found.places[found.valid]] = True  # ordered by class
    roi, column = np.nonzero(found.confident)
    order = np.argsort(-found.probabilities[roi, column], kind="stable")
    roi, column = roi[order], column[order]
    refined, clipped = (_exclusive(layer, boxes[roi, column]) for boxes in (found.refined, found.clipped))
    return DetectionSteps(
        rois[0][rois_valid[0]],
        ops.convert_to_numpy(ops.softmax(logits[0][rois_valid[0]], axis=-1)),
        roi,
        column + 1,
        found.probabilities[roi, column],
        refined,
        clipped,
        kept.reshape(found.confident.shape[::-1])[column, roi],
    )


def mask_predictions(model: Any, image: Any) -> MaskPredictions:
    """Input and output of the mask head for every detection in an image, for all classes.

    If the head takes more than features, or has one mask for all classes, it only returns masks of each detection's
    own class; the others are zero.
    """
    graph, head = model.inference_model, model.network.head
    names = ["detections", *(["roi_align_mask"] if "features" in head.needs(training=False) else [])]
    wanted = {name: _layer(graph, name).output for name in names} | {"masks": graph.output["masks"]}
    values = _run(graph, _inputs(_network_input(model, image)), wanted)
    boxes, class_ids, scores, valid, _ = (value[0] for value in values["detections"])
    count = valid.sum()  # an image without detections has one padding row
    features = values.get("roi_align_mask", np.zeros((len(valid), 0, 0, 0), np.float32))[:count]
    if head.is_plain and count and head.model.output_shape[-1] == model.config.NUM_CLASSES:
        masks = ops.convert_to_numpy(head.model(features, training=False))
    else:
        own = np.arange(model.config.NUM_CLASSES) == class_ids[valid][:, None]
        masks = values["masks"][:count, :, :, None] * own[:, None, None].astype(np.float32)
    return MaskPredictions(boxes[valid], class_ids[valid], scores[valid], features, masks)


def training_targets(model: Any, batch: Mapping[str, np.ndarray]) -> Targets:
    """The targets of the RPN, box head and mask head for a batch, and the predicted masks of its positive RoIs.

    Args:
        batch: from `mrcnn.data.loader.Loader`: `loader[0][0]`.
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
            **{name: graph.output[name] for name in (*MASK_OUTPUTS, "head", "head_truth") if name in graph.output},
        },
    )
    if not model.network.head.is_plain:
        masks, truth = values["head"]["masks"], head_targets(model.network.head, values)
        own = np.asarray(truth.class_ids) if masks.shape[-1] > 1 else 0
        values["masks"] = np.asarray(masks)[np.arange(len(masks)), ..., own]
        values["mask_target"] = ops.convert_to_numpy(truth.at(masks.shape[1]))
    anchors, (index, labels, anchor_deltas) = values["anchors"], values["anchor"]
    rois, class_ids, roi_deltas, sampled, _ = values["roi"]
    mask_rois, mask_class_ids, *_, mask_image, _ = values["positive"]
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
        values["mask_target"],
        values["masks"],
    )


def _network_input(model: Any, image: Any) -> NetworkInput:
    return model.detector.network_input(read_image(image, model.config.IMAGE_CHANNEL_COUNT))


def _inputs(molded: NetworkInput) -> dict[str, np.ndarray]:
    return {"image": molded.image[None], "window": molded.window[None]}


def _run(graph: keras.Model, inputs: Any, outputs: Any) -> Any:
    """Values of a graph's tensors, computed eagerly because tracing would take longer for a single image."""
    values = keras.Model(graph.input, outputs)(inputs, training=False)
    return keras.tree.map_structure(ops.convert_to_numpy, values)


def _layer(graph: keras.Model, name: str) -> keras.layers.Layer:
    known = [layer.name for layer in graph.layers]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=4, cutoff=0.3) or known[-4:]
        raise ValueError(
            f"{graph.name!r} has no layer {name!r}; similar names: {near}. All: [layer.name for layer in graph.layers]."
        )
    return graph.get_layer(name)


def _rpn(
    model: Any, network_input: NetworkInput
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Inputs of the Proposals layer: logits [1, A_l], deltas [1, A_l, 4], anchors [A_l, 4] per level, and bounds."""
    graph = model.inference_model
    values = _run(graph, _inputs(network_input), list(_layer(graph, "proposals").input))
    count = (len(values) - 1) // 3
    return values[:count], values[count : 2 * count], values[2 * count : 3 * count], values[3 * count :]


def _decoded(layer: keras.layers.Layer, deltas: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Boxes from deltas in a layer's convention, with end-exclusive corners."""
    if getattr(layer, "inclusive", False):
        moved = box_ops.decode(deltas, box_ops.to_inclusive(reference), layer.std_dev)
        return ops.convert_to_numpy(box_ops.to_exclusive(moved))
    return ops.convert_to_numpy(box_ops.decode(deltas, reference, layer.std_dev))


def _exclusive(layer: keras.layers.Layer, boxes: np.ndarray) -> np.ndarray:
    """Boxes in a layer's own convention, with end-exclusive corners."""
    return ops.convert_to_numpy(box_ops.to_exclusive(boxes)) if layer.inclusive else boxes


def _targets(layer: keras.layers.Layer, deltas: np.ndarray, reference: np.ndarray, positive: np.ndarray) -> np.ndarray:
    return _decoded(layer, deltas, reference) * positive[..., None]


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return ops.convert_to_numpy(ops.sigmoid(logits))

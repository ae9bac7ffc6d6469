"""Matches the detections of one image with its ground truth, and computes average precision.

These are the quick numbers of the old package's notebooks: one image at a time, masks only, at one IoU, the area under
the complete curve as in PASCAL VOC since 2010. For numbers that compare with other work, use
`mrcnn.evaluation.coco_evaluation.evaluate`.

Matches are those of COCO, crowds included, so for an image with one class `compute_ap` is the area under the curve of
`mrcnn.evaluation.analysis.precision_recall`. COCO's AP of it, a mean over 101 recalls, differs by 0.01 at most.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from mrcnn.evaluation.overlaps import compute_overlaps, compute_overlaps_masks


def trim_zeros(x: ArrayLike) -> np.ndarray:
    """The rows of `x` [rows, columns] that are not all zero, that is, without padding rows."""
    x = np.asarray(x)
    if x.ndim != 2:
        raise ValueError(f"trim_zeros takes [rows, columns], got shape {x.shape}")
    return x[np.any(x != 0, axis=1)]


def compute_matches(
    gt_boxes: ArrayLike,
    gt_class_ids: ArrayLike,
    gt_masks: ArrayLike,
    pred_boxes: ArrayLike,
    pred_class_ids: ArrayLike,
    pred_scores: ArrayLike,
    pred_masks: ArrayLike,
    iou_threshold: float = 0.5,
    score_threshold: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matches each detection, best score first, with the unmatched object of its class that its mask overlaps most.

    Args:
        gt_boxes: [N, (y1, x1, y2, x2)]; like `pred_boxes`, used only to drop padding rows.
        gt_class_ids: [N].
        gt_masks: [height, width, N].
        pred_boxes: [M, (y1, x1, y2, x2)].
        pred_class_ids: [M].
        pred_scores: [M].
        pred_masks: [height, width, M].
        iou_threshold: minimum mask IoU of a match.
        score_threshold: objects with a smaller IoU are ignored (the old package's meaning of the name).

    Returns:
        gt_match: [N] index of the detection that found each object, -1 for none.
        pred_match: [M] index of the object that each detection found, -1 for none.
        overlaps: [M, N] mask IoU.
        Detections are in descending order of score, without padding rows.

    Raises:
        ValueError: arrays whose counts differ.
    """
    gt_class_ids, gt_masks = _unpadded("gt", gt_boxes, gt_class_ids, gt_masks)
    pred_class_ids, pred_scores, pred_masks = _unpadded("pred", pred_boxes, pred_class_ids, pred_scores, pred_masks)
    order = np.argsort(-pred_scores, kind="stable")
    pred_class_ids = pred_class_ids[order]
    overlaps = compute_overlaps_masks(pred_masks[..., order], gt_masks)
    gt_match = np.full(len(gt_class_ids), -1.0)
    pred_match = np.full(len(pred_class_ids), -1.0)
    # In the dtype of the overlaps, so that 7 of 10 pixels equal 0.7
    least = np.float32(max(iou_threshold, score_threshold))
    for i, class_id in enumerate(pred_class_ids):
        candidates = (gt_match < 0) & (gt_class_ids == class_id) & (overlaps[i] >= least)
        if candidates.any():
            # The last among equals, as in COCO
            j = int(np.flatnonzero(candidates & (overlaps[i] == overlaps[i][candidates].max()))[-1])
            gt_match[j], pred_match[i] = i, j
    return gt_match, pred_match, overlaps


def compute_ap(
    gt_boxes: ArrayLike,
    gt_class_ids: ArrayLike,
    gt_masks: ArrayLike,
    pred_boxes: ArrayLike,
    pred_class_ids: ArrayLike,
    pred_scores: ArrayLike,
    pred_masks: ArrayLike,
    iou_threshold: float = 0.5,
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Average precision of one image at one IoU; arguments as in `compute_matches`.

    Objects with a negative class id are crowds: they need not be found, and unmatched detections do not count if they
    are in a crowd of their class (with a fraction of `iou_threshold` of their own pixels).

    An image without objects has no recall, so detections in it give nan, as in the old package; `np.nanmean` ignores
    it. Without detections as well, the value is 0.

    Returns:
        ap: area under the precision-recall curve; nan for detections in an image without objects.

        precisions: [M + 2] non-increasing, of the M counted detections in descending score order, with two end points.

        recalls: [M + 2] non-decreasing.

        overlaps: [M, N] mask IoU.
    """
    gt_match, pred_match, overlaps = compute_matches(
        gt_boxes, gt_class_ids, gt_masks, pred_boxes, pred_class_ids, pred_scores, pred_masks, iou_threshold
    )
    gt_class_ids, gt_masks = _unpadded("gt", gt_boxes, gt_class_ids, gt_masks)
    found = _unpadded("pred", pred_boxes, pred_class_ids, pred_scores, pred_masks)
    counted = (pred_match > -1) | ~_in_crowds(gt_class_ids, gt_masks, *found, least=iou_threshold)
    hits = np.cumsum(pred_match[counted] > -1)
    precisions = np.concatenate([[0], hits / np.arange(1, len(hits) + 1), [0]])
    objects = int((gt_class_ids > 0).sum())
    recalls = np.concatenate([[0], hits / objects if objects else np.full(len(hits), np.nan), [1]])
    # The highest precision at this recall or any higher one
    precisions = np.maximum.accumulate(precisions[::-1])[::-1]
    ap = float(np.sum(np.diff(recalls) * precisions[1:]))
    return ap, precisions, recalls, overlaps


def compute_ap_range(
    gt_box: ArrayLike,
    gt_class_id: ArrayLike,
    gt_mask: ArrayLike,
    pred_box: ArrayLike,
    pred_class_id: ArrayLike,
    pred_score: ArrayLike,
    pred_mask: ArrayLike,
    iou_thresholds: Iterable[float] | None = None,
    verbose: int = 1,
) -> float:
    """Mean of `compute_ap` over IoU thresholds, by default 0.50 to 0.95 in steps of 0.05; `verbose` prints each."""
    thresholds = np.linspace(0.5, 0.95, 10) if iou_thresholds is None else np.asarray(list(iou_thresholds), float)
    if not len(thresholds):
        raise ValueError("iou_thresholds is empty; pass at least one threshold, or None for 0.50 to 0.95")
    arrays = (gt_box, gt_class_id, gt_mask, pred_box, pred_class_id, pred_score, pred_mask)
    aps = [compute_ap(*arrays, iou_threshold=threshold)[0] for threshold in thresholds]
    mean = float(np.mean(aps))
    if verbose:
        for threshold, ap in zip(thresholds, aps, strict=True):
            print(f"AP @{threshold:.2f}:\t {ap:.3f}")
        print(f"AP @{thresholds[0]:.2f}-{thresholds[-1]:.2f}:\t {mean:.3f}")
    return mean


def compute_recall(pred_boxes: ArrayLike, gt_boxes: ArrayLike, iou: float) -> tuple[float, np.ndarray]:
    """Fraction of objects that at least one box, such as a proposal, finds.

    Args:
        pred_boxes: [M, (y1, x1, y2, x2)].
        gt_boxes: [N, (y1, x1, y2, x2)].
        iou: minimum IoU; every box counts only for the object that it overlaps most.

    Returns:
        recall: 0..1; 0 without objects.
        positive_ids: [K] indices of the boxes with at least that IoU.
    """
    overlaps = compute_overlaps(pred_boxes, gt_boxes)
    if not overlaps.size:
        return 0.0, np.zeros(0, np.intp)
    positive_ids = np.flatnonzero(overlaps.max(axis=1) >= iou)
    found = np.unique(overlaps.argmax(axis=1)[positive_ids])
    return len(found) / overlaps.shape[1], positive_ids


def _in_crowds(
    gt_class_ids: np.ndarray,
    gt_masks: np.ndarray,
    pred_class_ids: np.ndarray,
    pred_scores: np.ndarray,
    pred_masks: np.ndarray,
    *,
    least: float,
) -> np.ndarray:
    """Whether enough of each detection is in one crowd of its class, [M], in descending order of score."""
    inside = np.zeros(len(pred_class_ids), bool)
    for rank, i in enumerate(np.argsort(-pred_scores, kind="stable")):
        mask = pred_masks[..., i] > 0.5
        crowds = gt_masks[..., gt_class_ids == -pred_class_ids[i]][mask] > 0.5  # [pixels of the mask, crowds]
        inside[rank] = crowds.size and crowds.mean(axis=0).max() >= least
    return inside


def _unpadded(prefix: str, boxes: ArrayLike, *arrays: ArrayLike) -> tuple[np.ndarray, ...]:
    """The arrays (masks last, counted by their last axis) without the rows whose box is all zero."""
    boxes = np.reshape(boxes, (-1, 4))
    *vectors, masks = (np.asarray(array) for array in arrays)
    counts = {f"{prefix}_boxes": len(boxes), f"{prefix}_class_ids": len(vectors[0])}
    counts |= {f"{prefix}_scores": len(vector) for vector in vectors[1:]} | {f"{prefix}_masks": masks.shape[-1]}
    if len(set(counts.values())) > 1:
        raise ValueError("the counts differ: " + ", ".join(f"{n} {name}" for name, n in counts.items()))
    keep = np.any(boxes != 0, axis=1)
    return (*(vector[keep] for vector in vectors), masks[..., keep])

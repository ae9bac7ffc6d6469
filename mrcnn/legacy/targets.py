"""The old package's training targets in NumPy, for inspection; the training graph computes its own.

All functions sample with NumPy's global generator, so `np.random.seed` makes them repeatable, as in the old package.
`mrcnn.inspection.training_targets` shows what the training graph samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mrcnn.config import Config
from mrcnn.data.masks import crop_masks
from mrcnn.legacy.boxes import box_refinement, exact_overlaps

CROWD_OVERLAP = 0.001  # boxes with at least this IoU with a crowd are not background
POSITIVE_OVERLAP = 0.5  # RoIs with at least this IoU with an object are positive


def build_rpn_targets(
    image_shape: Any, anchors: np.ndarray, gt_class_ids: np.ndarray, gt_boxes: np.ndarray, config: Config
) -> tuple[np.ndarray, np.ndarray]:
    """Labels anchors against the ground truth of an image, and samples RPN_TRAIN_ANCHORS_PER_IMAGE of them.

    Args:
        image_shape: not used, as in the old package.
        anchors: [A, (y1, x1, y2, x2)] in pixels.
        gt_class_ids: [N]; negative for crowds, around which no anchor is background.
        gt_boxes: [N, (y1, x1, y2, x2)] in pixels.
        config: RPN_TRAIN_ANCHORS_PER_IMAGE and RPN_BBOX_STD_DEV.

    Returns:
        rpn_match: [A] int32, 1 object, -1 background, 0 not used.
        rpn_bbox: [RPN_TRAIN_ANCHORS_PER_IMAGE, (dy, dx, log dh, log dw)] over RPN_BBOX_STD_DEV, for the positive
            anchors in order; zero-padded.
    """
    del image_shape
    gt_class_ids, gt_boxes = np.asarray(gt_class_ids), np.asarray(gt_boxes)
    count = config.RPN_TRAIN_ANCHORS_PER_IMAGE
    match, deltas = np.zeros(len(anchors), np.int32), np.zeros((count, 4))
    crowds, objects = gt_boxes[gt_class_ids < 0], gt_boxes[gt_class_ids >= 0]
    free = exact_overlaps(anchors, crowds).max(axis=1, initial=0) < CROWD_OVERLAP
    if not len(objects):
        match[free] = -1
        _drop(match, -1, count)
        return match, deltas
    overlaps = exact_overlaps(anchors, objects)
    nearest, best = overlaps.argmax(axis=1), overlaps.max(axis=1)
    match[(best < 0.3) & free] = -1
    match[np.flatnonzero((overlaps == overlaps.max(axis=0)).any(axis=1))] = 1  # the best anchors of each object
    match[best >= 0.7] = 1
    _drop(match, 1, count // 2)
    positive = np.flatnonzero(match == 1)
    _drop(match, -1, count - len(positive))
    deltas[: len(positive)] = _deltas(anchors[positive], objects[nearest[positive]]) / config.RPN_BBOX_STD_DEV
    return match, deltas


def _drop(match: np.ndarray, label: int, most: int) -> None:
    """Sets all but `most` randomly chosen entries with a label to 0."""
    labeled = np.flatnonzero(match == label)
    if len(labeled) > most:
        match[np.random.choice(labeled, len(labeled) - most, replace=False)] = 0


def _deltas(boxes: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """`box_refinement` in the precision of the boxes."""
    size, target_size = boxes[:, 2:] - boxes[:, :2], targets[:, 2:] - targets[:, :2]
    shift = (targets[:, :2] + 0.5 * target_size) - (boxes[:, :2] + 0.5 * size)
    return np.concatenate([shift / size, np.log(target_size / size)], axis=1)


def build_detection_targets(
    rpn_rois: np.ndarray, gt_class_ids: np.ndarray, gt_boxes: np.ndarray, gt_masks: np.ndarray, config: Config
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Samples RoIs and their head targets without a network.

    Args:
        rpn_rois: [R, (y1, x1, y2, x2)] in pixels; the ground-truth boxes are added.
        gt_class_ids: [N]. gt_boxes: [N, (y1, x1, y2, x2)] in pixels. Both may be zero-padded.
        gt_masks: [H, W, N], or with USE_MINI_MASK the mask inside each box, [*MINI_MASK_SHAPE, N].
        config: TRAIN_ROIS_PER_IMAGE (R below), ROI_POSITIVE_RATIO, BBOX_STD_DEV, NUM_CLASSES, USE_MINI_MASK; the side
            of a mask (m below) is twice MASK_POOL_SIZE.

    Returns:
        rois: [R, (y1, x1, y2, x2)] float32, positives first.
        class_ids: [R] int32, 0 for background.
        bboxes: [R, NUM_CLASSES, (dy, dx, log dh, log dw)] float32 over BBOX_STD_DEV, 0 except for the RoI's class.
        masks: [R, m, m, NUM_CLASSES] float32, 0 or 1, 0 except for the RoI's class.

    Raises ValueError if the ground truth has no object.
    """
    gt_class_ids = np.asarray(gt_class_ids)
    known = gt_class_ids > 0
    gt_class_ids, gt_boxes, gt_masks = gt_class_ids[known], np.asarray(gt_boxes)[known], gt_masks[:, :, known]
    if not len(gt_class_ids):
        raise ValueError("gt_class_ids has no object; build_detection_targets needs at least one.")
    rois = np.concatenate([np.asarray(rpn_rois).reshape(-1, 4), gt_boxes]).astype(np.float32)
    overlaps = exact_overlaps(rois, gt_boxes)
    chosen = _sampled_rois(overlaps.max(axis=1), config.TRAIN_ROIS_PER_IMAGE, config.ROI_POSITIVE_RATIO)
    rois, overlaps = rois[chosen], overlaps[chosen]
    instance, positive = overlaps.argmax(axis=1), overlaps.max(axis=1) >= POSITIVE_OVERLAP
    class_ids = np.where(positive, gt_class_ids[instance], 0).astype(np.int32)
    side = 2 * config.MASK_POOL_SIZE
    bboxes = np.zeros((len(rois), config.NUM_CLASSES, 4), np.float32)
    masks = np.zeros((len(rois), side, side, config.NUM_CLASSES), np.float32)
    for i in np.flatnonzero(positive):
        box, mask, own = gt_boxes[instance[i]], gt_masks[:, :, instance[i]], class_ids[i]
        bboxes[i, own] = box_refinement(rois[i][None], box[None])[0] / config.BBOX_STD_DEV
        masks[i, :, :, own] = _roi_mask(mask, box if config.USE_MINI_MASK else None, rois[i], side)
    return rois, class_ids, bboxes, masks


def _sampled_rois(best: np.ndarray, count: int, positive_ratio: float) -> np.ndarray:
    """[count] indices of RoIs, given each one's best IoU, positives first; RoIs repeat if there are too few."""
    positive, negative = np.flatnonzero(best >= POSITIVE_OVERLAP), np.flatnonzero(best < POSITIVE_OVERLAP)
    positive = np.random.permutation(positive)[: int(count * positive_ratio)]
    chosen = np.concatenate([positive, np.random.permutation(negative)[: count - len(positive)]])
    spare = negative if len(negative) else positive if len(positive) else np.arange(len(best))
    return np.concatenate([chosen, np.random.choice(spare, count - len(chosen))])


def _roi_mask(mask: np.ndarray, box: np.ndarray | None, roi: np.ndarray, side: int) -> np.ndarray:
    """The part of a mask inside a RoI, [side, side] bool.

    Args:
        mask: [H, W] in image pixels, or the mask inside `box`.
        box: (y1, x1, y2, x2) to which the mask is cropped; None for a full mask.
        roi: (y1, x1, y2, x2) in pixels of the image.
    """
    if box is not None:
        roi = (roi - np.tile(box[:2], 2)) * np.tile(np.array(mask.shape) / (box[2:] - box[:2]), 2)
    padded = np.pad(np.asarray(mask, bool), 1)  # `crop_masks` repeats the border, which is empty here
    return crop_masks(padded[:, :, None], (roi + 1)[None], (side, side))[0] >= 128


def generate_random_rois(
    image_shape: Sequence[int], count: int, gt_class_ids: np.ndarray, gt_boxes: np.ndarray
) -> np.ndarray:
    """Random RoIs for training heads without an RPN: 90% around the objects, the others anywhere.

    Args:
        image_shape: (height, width, ...) of the image.
        count: the number of RoIs.
        gt_class_ids: not used, as in the old package.
        gt_boxes: [N, (y1, x1, y2, x2)] in pixels.

    Returns:
        [count, (y1, x1, y2, x2)] int32 in pixels, inside the image, at least one pixel high and wide.
    """
    del gt_class_ids
    height, width = image_shape[:2]
    gt_boxes = np.asarray(gt_boxes, float).reshape(-1, 4)
    around = int(0.9 * count / len(gt_boxes)) if len(gt_boxes) else 0
    size = np.maximum(gt_boxes[:, 2:] - gt_boxes[:, :2], 1)
    low, high = gt_boxes[:, :2] - size, gt_boxes[:, 2:] + size  # up to one object size away
    limits = [np.repeat(np.clip(limit, 0, (height, width)), around, axis=0) for limit in (low, high)]
    anywhere = count - len(limits[0])
    lows = np.concatenate([limits[0], np.zeros((anywhere, 2))])
    highs = np.concatenate([limits[1], np.tile([height, width], (anywhere, 1))])
    corners = np.sort(np.random.uniform(lows, highs, (2, count, 2)), axis=0).astype(np.int32)
    start = np.minimum(corners[0], np.array([height, width]) - 1)
    return np.concatenate([start, np.maximum(corners[1], start + 1)], axis=1).astype(np.int32)

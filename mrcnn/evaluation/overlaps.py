"""Intersection over union of boxes and masks, as numpy arrays, with the old package's names."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

# Masks are counted as float32 in blocks; at once they would need four times their own memory.
BLOCK_ROWS = 64


def compute_iou(
    box: ArrayLike, boxes: ArrayLike, box_area: float | None = None, boxes_area: ArrayLike | None = None
) -> np.ndarray:
    """IoU of one box with many boxes.

    Args:
        box: [(y1, x1, y2, x2)].
        boxes: [N, (y1, x1, y2, x2)], in the same unit.
        box_area, boxes_area: arguments of the old package to save time; not used.

    Returns:
        [N] float32 in 0..1; 0 where either box is empty.
    """
    return compute_overlaps(np.reshape(box, (1, 4)), boxes)[0]


def compute_overlaps(boxes1: ArrayLike, boxes2: ArrayLike) -> np.ndarray:
    """IoU of every pair of boxes.

    Args:
        boxes1: [N, (y1, x1, y2, x2)].
        boxes2: [M, (y1, x1, y2, x2)], in the same unit.

    Returns:
        [N, M] float32 in 0..1; 0 where either box is empty, so padding rows overlap nothing.

    Raises:
        ValueError: an argument whose shape is not [count, 4].
    """
    boxes1, boxes2 = _box_array(boxes1, "boxes1"), _box_array(boxes2, "boxes2")
    if not len(boxes1) or not len(boxes2):
        return np.zeros((len(boxes1), len(boxes2)), np.float32)
    from keras import ops  # not at the top: inspecting data should not have to wait for a backend to start

    from mrcnn.ops import boxes

    return ops.convert_to_numpy(boxes.iou(boxes1, boxes2))


def compute_overlaps_masks(masks1: ArrayLike, masks2: ArrayLike) -> np.ndarray:
    """IoU of every pair of masks.

    Args:
        masks1: [height, width, N]; bool, or numbers of which those above 0.5 are inside.
        masks2: [height, width, M].

    Returns:
        [N, M] float32 in 0..1; 0 where both masks are empty.

    Raises:
        ValueError: masks that are not 3-dimensional or differ in height or width.
    """
    masks1, masks2 = _mask_array(masks1, "masks1"), _mask_array(masks2, "masks2")
    if not masks1.shape[-1] or not masks2.shape[-1]:
        return np.zeros((masks1.shape[-1], masks2.shape[-1]), np.float32)
    if masks1.shape[:2] != masks2.shape[:2]:
        raise ValueError(
            f"the masks have different sizes: masks1 {masks1.shape[:2]}, masks2 {masks2.shape[:2]} "
            "(height, width); expand mini masks first, with expand_mask"
        )
    shared = np.zeros((masks1.shape[-1], masks2.shape[-1]))
    for rows in range(0, len(masks1), BLOCK_ROWS):
        block1, block2 = (
            masks[rows : rows + BLOCK_ROWS].reshape(-1, masks.shape[-1]).astype(np.float32)
            for masks in (masks1, masks2)
        )
        shared += block1.T @ block2
    area1, area2 = (np.count_nonzero(masks, axis=(0, 1)) for masks in (masks1, masks2))
    union = area1[:, None] + area2[None, :] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0).astype(np.float32)


def _box_array(boxes: ArrayLike, name: str) -> np.ndarray:
    boxes = np.asarray(boxes, np.float32)
    if boxes.size == 0:
        return boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{name} must have shape [count, (y1, x1, y2, x2)], got {boxes.shape}")
    return boxes


def _mask_array(masks: ArrayLike, name: str) -> np.ndarray:
    masks = np.asarray(masks)
    if masks.ndim != 3:
        raise ValueError(f"{name} must have shape [height, width, count], got {masks.shape}")
    return masks if masks.dtype == bool else masks > 0.5

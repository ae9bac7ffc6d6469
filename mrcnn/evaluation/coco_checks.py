"""Checks that detections and annotations fit their image and dataset."""

from collections.abc import Sequence

import numpy as np


def check_masks(
    masks: np.ndarray, class_ids: np.ndarray, image_shape: Sequence[int], num_classes: int, what: str
) -> None:
    """Raises ValueError, naming `what`, for masks that are not [H, W, N] of the image, or unknown class ids [N]."""
    if not len(class_ids) and not masks.size:  # without instances, any empty array is valid
        return
    expected = (*image_shape, len(class_ids))
    if masks.shape != expected:
        raise ValueError(
            f"{what}: masks have shape {masks.shape}, but the image and its {len(class_ids)} class ids need {expected}"
        )
    check_class_ids(class_ids, num_classes, what)


def check_class_ids(class_ids: np.ndarray, num_classes: int, what: str) -> None:
    """Raises ValueError for class ids [N] that are not the dataset's; negative ones are crowds."""
    wrong = [int(i) for i in class_ids if not 0 < abs(i) < num_classes]
    if wrong:
        raise ValueError(
            f"{what}: class ids {wrong[:5]} are not among the dataset's 1 to {num_classes - 1}; "
            "model and dataset must have the same classes in the same order"
        )


def check_numbers(boxes: np.ndarray, scores: np.ndarray, count: int, what: str) -> None:
    """Raises ValueError for boxes [N, (y1, x1, y2, x2)] and scores [N] that are not `count` finite, ordered ones."""
    if (len(boxes), len(scores)) != (count, count):
        raise ValueError(f"{what}: {count} class ids, {len(boxes)} rois and {len(scores)} scores; expected one each")
    ordered = (boxes[:, 2:] >= boxes[:, :2]).all(axis=1)
    wrong = np.flatnonzero(~(np.isfinite(boxes).all(axis=1) & np.isfinite(scores) & ordered))
    if len(wrong):
        i = wrong[0]
        raise ValueError(
            f"{what}: detection {i} has the box {boxes[i].tolist()} and the score {scores[i]}; expected finite "
            "numbers, and a box (y1, x1, y2, x2) with y1 <= y2 and x1 <= x2"
        )

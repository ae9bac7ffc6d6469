"""One image with its instances, checked so that no error in a dataset goes unnoticed."""

import math
from typing import Any, NamedTuple

import numpy as np

from mrcnn.data.images import read_image
from mrcnn.data.keypoints import checked_keypoints
from mrcnn.data.masks import extract_bboxes


class Sample(NamedTuple):
    """image [H, W, C] uint8; masks [H, W, N] bool; boxes [N, (y1, x1, y2, x2)] float64 in image pixels; class_ids [N]
    int32, negative for crowds; keypoints [N, K, (y, x, visibility)] float64, or None. Instances without pixels are
    dropped."""

    image: np.ndarray
    masks: np.ndarray
    boxes: np.ndarray
    class_ids: np.ndarray
    keypoints: np.ndarray | None = None

    def chosen(self, which: np.ndarray) -> "Sample":
        """The sample with some of its instances, by their places or as [N] bool."""
        points = None if self.keypoints is None else self.keypoints[which]
        return Sample(self.image, self.masks[:, :, which], self.boxes[which], self.class_ids[which], points)


def read_sample(
    dataset: Any,
    image_id: int,
    num_classes: int,
    channels: int = 3,
    *,
    masks_needed: bool = True,
    keypoints: bool = False,
) -> Sample:
    """Reads an image of a Dataset with its instances; with `keypoints` those of an image that has none are zero.

    Without `masks_needed` boxes are enough, and masks are their insides; see `read_boxed_instances`.

    Raises:
        ValueError, TypeError, FileNotFoundError: an unreadable image, masks of the wrong size, wrong class ids ...
    """
    image = read_image(dataset.load_image(image_id), channels)
    read = read_instances if masks_needed else read_boxed_instances
    masks, class_ids = read(dataset, image_id, image.shape[:2], num_classes)
    tight = extract_bboxes(masks).astype(np.float64)
    boxes = dataset.load_boxes(image_id) if hasattr(dataset, "load_boxes") else None
    boxes = tight if boxes is None else _checked_boxes(boxes, image.shape[:2], len(class_ids))
    alive = (tight[:, 2] > tight[:, 0]) & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    points = read_keypoints(dataset, image_id, len(class_ids)) if keypoints else None
    sample = Sample(image, masks, boxes, class_ids, points)
    return sample if alive.all() else sample.chosen(alive)


def read_keypoints(dataset: Any, image_id: int, count: int) -> np.ndarray:
    """Keypoints [N, K, (y, x, visibility)] float64 of the `count` instances of an image; zeros where it has none.

    Raises ValueError for an array of another shape.
    """
    found, skeleton = dataset.load_keypoints(image_id), dataset.skeleton
    return np.zeros((count, skeleton.count, 3)) if found is None else checked_keypoints(found, count, skeleton)


def read_instances(
    dataset: Any, image_id: int, size: tuple[int, int], num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """masks [H, W, N] bool and class_ids [N] int32 of an image of `size`, checked."""
    loaded = dataset.load_mask(image_id)
    if not isinstance(loaded, (tuple, list)) or len(loaded) != 2:
        raise TypeError(f"load_mask must return (masks, class_ids), got {type(loaded).__name__}")
    masks, class_ids = np.asarray(loaded[0]), np.asarray(loaded[1])
    if class_ids.size == 0 and masks.size == 0:
        return np.zeros([*size, 0], bool), np.zeros([0], np.int32)
    if masks.ndim != 3 or masks.shape[:2] != size:
        raise ValueError(
            f"load_mask returned masks of shape {masks.shape} for an image of {size[0]} x {size[1]}; "
            "expected [H, W, N], with the image's height and width"
        )
    if class_ids.shape != masks.shape[2:]:
        raise ValueError(
            f"load_mask returned {masks.shape[2]} masks and class ids of shape {class_ids.shape}; "
            "expected one class id per mask"
        )
    return _as_bool(masks), _checked_class_ids(class_ids, num_classes)


def read_boxed_instances(
    dataset: Any, image_id: int, size: tuple[int, int], num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Like `read_instances`, but each mask is the inside of its box, so that boxes are cropped and moved like masks.

    Masks are not asked for, unless `load_boxes` gives no boxes.
    """
    boxes = dataset.load_boxes(image_id) if hasattr(dataset, "load_boxes") else None
    if boxes is None:
        return read_instances(dataset, image_id, size, num_classes)
    class_ids = _checked_class_ids(np.asarray(dataset.load_class_ids(image_id)), num_classes)
    boxes = _checked_boxes(boxes, size, len(class_ids))
    masks = np.zeros([len(boxes), *size], bool)
    for mask, (y1, x1, y2, x2) in zip(masks, boxes.tolist(), strict=True):
        mask[math.floor(y1) : math.ceil(y2), math.floor(x1) : math.ceil(x2)] = True
    return np.moveaxis(masks, 0, 2), class_ids


def _as_bool(masks: np.ndarray) -> np.ndarray:
    if masks.dtype == bool:
        return masks
    if masks.dtype.kind == "f" and not np.isfinite(masks).all():
        raise ValueError(f"load_mask returned masks of type {masks.dtype} with NaN or infinite values; return bool")
    return masks != 0


def _checked_class_ids(class_ids: np.ndarray, num_classes: int) -> np.ndarray:
    known = np.abs(class_ids)
    if class_ids.dtype.kind not in "iuf" or (class_ids != np.rint(class_ids)).any():
        raise ValueError(f"class ids must be integers, got {class_ids.tolist()} of type {class_ids.dtype}")
    if ((known < 1) | (known >= num_classes)).any():
        wrong = class_ids[(known < 1) | (known >= num_classes)].tolist()
        raise ValueError(
            f"class ids {wrong} are out of range: NUM_CLASSES = {num_classes} allows 1 to {num_classes - 1} "
            "(0 is the background, negative a crowd); map the ids or raise NUM_CLASSES"
        )
    return class_ids.astype(np.int32)


def _checked_boxes(boxes: Any, size: tuple[int, int], count: int) -> np.ndarray:
    boxes = np.asarray(boxes, np.float64)
    if boxes.shape != (count, 4):
        raise ValueError(
            f"load_boxes returned an array of shape {boxes.shape} for {count} instances; expected [{count}, 4]"
        )
    if not np.isfinite(boxes).all():
        raise ValueError(
            f"load_boxes returned NaN or infinite values: {boxes[~np.isfinite(boxes).all(axis=1)].tolist()}"
        )
    return np.clip(boxes, 0, np.array([*size, *size]))

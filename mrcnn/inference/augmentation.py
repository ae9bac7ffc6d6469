"""Test-time augmentation, as Detectron2's `GeneralizedRCNNWithTTA` does it.

The box head runs on several views of an image, at several sizes and mirrored; NMS over the boxes of all views keeps the
best. The mask head then runs on these boxes in every view, and the soft masks, mirrored back, are averaged.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mrcnn.data.molding import NetworkInput
from mrcnn.inference.detector import Detector, image_boxes
from mrcnn.inference.results import Result, SoftMasks

MasksOf = Callable[[Mapping[str, Any]], Mapping[str, Any]]  # see `mrcnn.inference.compiled.compiled_masks`


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """The views of an image.

    min_dims: pixels of the shorter side in each view. max_dim: maximum pixels of the longer side; None: that of the
    settings, in proportion. flip: also mirror each view left to right. The defaults are Detectron2's.
    """

    min_dims: Sequence[int] = (400, 500, 600, 700, 800, 900, 1000, 1100, 1200)
    max_dim: int | None = 4000
    flip: bool = True

    def __post_init__(self) -> None:
        if not self.min_dims or min(self.min_dims) < 1:
            raise ValueError(f"min_dims must be one or more numbers of pixels, got {self.min_dims!r}")


def augmented(
    detector: Detector, masks_of: MasksOf | None, views: bool | Augmentation, class_names: Sequence[str] = ()
) -> Callable[[np.ndarray], Result]:
    """`detect_augmented` as a function of only the image; `views` is True for the default views.

    Raises NotImplementedError for a model with keypoints.
    """
    if detector.config.KEYPOINT_HEAD is not None:
        raise NotImplementedError("augmentation merges boxes and masks, not keypoints; call detect without augment")
    augmentation = views if isinstance(views, Augmentation) else Augmentation()
    return lambda image: detect_augmented(detector, masks_of, image, augmentation, class_names)


@dataclasses.dataclass(frozen=True)
class View:
    """A view's network input, and whether it is mirrored."""

    source: NetworkInput
    mirrored: bool


def detect_augmented(
    detector: Detector,
    masks_of: MasksOf | None,
    image: np.ndarray,
    augmentation: Augmentation,
    class_names: Sequence[str] = (),
) -> Result:
    """The objects in one image [H, W, C] uint8.

    Args:
        masks_of: `mrcnn.inference.compiled.compiled_masks` of the same network; None without a mask head.

    Holds one view in memory at a time.
    """
    config, size = detector.config, (image.shape[0], image.shape[1])
    whole = config.DETECTION_ROUND_BOXES
    boxes, ids, scores = [np.zeros((0, 4))], [np.zeros(0, np.int32)], [np.zeros(0, np.float32)]
    places = [np.zeros((0, 4), np.int32 if whole else np.float32)]  # of the results, where `boxes` may be rounded
    choices = [
        (side, flip) for side in augmentation.min_dims for flip in ((False, True) if augmentation.flip else (False,))
    ]
    for side, flip in choices:
        view = _view(detector, image, side, augmentation.max_dim, flip)
        (raw,) = detector.run(view.source.image[None], view.source.window[None])
        boxes.append(_to_image(raw["boxes"], view))
        place = image_boxes(raw["boxes"], view.source, whole)
        places.append(_mirrored(place, size[1]) if flip else place)
        ids.append(raw["class_ids"])
        scores.append(raw["scores"])
        scored = "mask_scores" in raw
    limits = np.array(size * 2)
    found, class_ids, best = np.clip(np.concatenate(boxes), 0, limits), np.concatenate(ids), np.concatenate(scores)
    kept = nms_per_class(found, best, class_ids, config.DETECTION_NMS_THRESHOLD)[: config.DETECTION_MAX_INSTANCES]
    found, class_ids, best = found[kept], class_ids[kept], best[kept].astype(np.float32)
    made = {"masks": np.zeros((len(kept), 1, 1), np.float32)}
    if len(kept) and masks_of is not None:
        views = (_view(detector, image, side, augmentation.max_dim, flip) for side, flip in choices)
        made = _mean_masks(masks_of, views, found, class_ids, best, config.DETECTION_MAX_INSTANCES)
    rois = np.concatenate(places)[kept]
    masks = SoftMasks(made["masks"], rois.astype(np.float32))
    result = Result(rois, class_ids, best, masks, size, class_names)
    if "mask_scores" in made or (scored and not len(kept)):
        result["mask_scores"] = made.get("mask_scores", best)
    return result


def _view(detector: Detector, image: np.ndarray, side: int, longest: int | None, mirrored: bool) -> View:
    """The image with a shorter side of `side` pixels, padded and normalized as the detector does."""
    config = detector.config
    if longest is None:
        longest = round(side * (config.IMAGE_MAX_DIM or side) / (config.IMAGE_MIN_DIM or side))
    transform = dataclasses.replace(detector.transform, mode="fit", min_dim=side, max_dim=max(longest, side))
    return View(transform.apply(np.ascontiguousarray(image[:, ::-1]) if mirrored else image), mirrored)


def _to_image(boxes: np.ndarray, view: View) -> np.ndarray:
    """Boxes [N, 4] of a view's network input in pixels of the image."""
    source = view.source
    boxes = (boxes - np.tile(source.window[:2], 2)) / np.tile(source.scale, 2)
    return _mirrored(boxes, source.size[1]) if view.mirrored else boxes


def _to_view(boxes: np.ndarray, view: View) -> np.ndarray:
    """The reverse of `_to_image`."""
    source = view.source
    boxes = _mirrored(boxes, source.size[1]) if view.mirrored else boxes
    return boxes * np.tile(source.scale, 2) + np.tile(source.window[:2], 2)


def _mirrored(boxes: np.ndarray, width: int) -> np.ndarray:
    return np.stack([boxes[:, 0], width - boxes[:, 3], boxes[:, 2], width - boxes[:, 1]], axis=1)


def _mean_masks(
    masks_of: MasksOf, views: Iterable[View], boxes: np.ndarray, class_ids: np.ndarray, scores: np.ndarray, slots: int
) -> dict[str, np.ndarray]:
    """The mean over all views of the masks [N, m, m] of the same boxes and, if there are any, of the mask_scores [N];
    float32."""
    count, number, total = len(boxes), 0, dict[str, Any]()
    valid = np.arange(slots)[None] < count
    for view in views:
        padded = np.zeros((1, slots, 4), np.float32)
        padded[0, :count] = _to_view(boxes, view)
        given = {"image": view.source.image[None], "boxes": padded, "valid": valid}
        given["class_ids"] = np.pad(class_ids.astype(np.int32), (0, slots - count))[None]
        given["scores"] = np.pad(scores.astype(np.float32), (0, slots - count))[None]
        found = {name: np.asarray(value, np.float32)[:count] for name, value in masks_of(given).items()}
        found["masks"] = found["masks"][:, :, ::-1] if view.mirrored else found["masks"]
        total = {name: total.get(name, 0) + value for name, value in found.items()}
        number += 1
    return {name: value / np.float32(number) for name, value in total.items()}


def nms_per_class(boxes: np.ndarray, scores: np.ndarray, class_ids: np.ndarray, threshold: float) -> np.ndarray:
    """Indices of the boxes that remain after NMS within each class, best first.

    Args:
        boxes: [N, (y1, x1, y2, x2)]. threshold: IoU above which the lower-scoring of two boxes is dropped.
    """
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order, kept = np.argsort(-scores, kind="stable"), []
    while len(order):
        first, rest = order[0], order[1:]
        kept.append(first)
        top_left = np.maximum(boxes[first, :2], boxes[rest, :2])
        bottom_right = np.minimum(boxes[first, 2:], boxes[rest, 2:])
        shared = np.prod(np.maximum(bottom_right - top_left, 0), axis=1)
        union = areas[first] + areas[rest] - shared
        order = rest[(class_ids[rest] != class_ids[first]) | (shared <= threshold * union)]
    return np.array(kept, np.int64)

"""Keypoints in COCO's fields: those of a category, and those of an annotation."""

from typing import Any

import numpy as np

from mrcnn.data.annotations.fields import shown
from mrcnn.data.annotations.outlines import FAR
from mrcnn.data.keypoints import MOST, Skeleton

NUMBERS = {int, float}
PIXEL = 0.5  # a keypoint of COCO names a pixel, whose center lies here


def skeleton_of(category: dict[str, Any]) -> Skeleton:
    """The skeleton of a category, whose `skeleton` counts keypoints from 1. Raises ValueError for one that is none."""
    edges = category.get("skeleton", [])
    pairs = isinstance(edges, list) and all(type(edge) is list and len(edge) == 2 for edge in edges)
    if not pairs or not all(type(place) is int and 0 < place <= MOST for edge in edges for place in edge):
        raise ValueError(f"expected a skeleton of pairs of places from 1 on, got {shown(edges)}")
    return Skeleton(category["keypoints"], [(one - 1, other - 1) for one, other in edges])


def read_keypoints(values: Any, count: int) -> np.ndarray | None:
    """[K, (y, x, visibility)] in continuous pixels, from [x, y, visibility] * K; None for anything else."""
    if type(values) is not list or len(values) != 3 * count or not set(map(type, values)) <= NUMBERS:
        return None
    if not all(-FAR <= value <= FAR for value in values):
        return None
    found = np.array(values, np.float64).reshape(-1, 3)[:, [1, 0, 2]]
    return np.where(found[:, 2:] > 0, found + (PIXEL, PIXEL, 0), 0.0)


def coco_keypoints(keypoints: np.ndarray) -> dict[str, Any]:
    """The fields `keypoints` and `num_keypoints` of an instance's keypoints [K, (y, x, visibility)]."""
    labeled = keypoints[:, 2:] > 0
    places = np.where(labeled, keypoints[:, [1, 0, 2]] - (PIXEL, PIXEL, 0), 0.0)
    return {"keypoints": places.ravel().tolist(), "num_keypoints": int(labeled.sum())}


def coco_points(keypoints: np.ndarray) -> np.ndarray:
    """Detected keypoints [N, K, (y, x, score)] as COCO has them, [N, (x, y, score) * K] float64."""
    points = np.asarray(keypoints, np.float64)
    return (points[..., [1, 0, 2]] - (PIXEL, PIXEL, 0)).reshape(len(points), -1)


def continuous_points(values: list[float]) -> list[float]:
    """The reverse of `coco_points` for one instance: (y, x, score) * K, to the thousandth."""
    points = np.array(values, np.float64).reshape(-1, 3)[:, [1, 0, 2]] + (PIXEL, PIXEL, 0)
    return points.round(3).ravel().tolist()


def coco_category(skeleton: Skeleton) -> dict[str, Any]:
    """The fields `keypoints` and `skeleton` of a category; the reverse of `skeleton_of`."""
    edges = [[one + 1, other + 1] for one, other in skeleton.edges]
    return {"keypoints": list(skeleton.names), "skeleton": edges}

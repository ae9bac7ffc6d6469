"""COCO `segmentation` values as outlines: polygons, in the variants that tools write, and RLE."""

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np

from mrcnn.data import rle
from mrcnn.data.annotations.fields import FieldError, is_number, shown
from mrcnn.data.annotations.outlines import Outline, Polygons, Runs


def plain_polygons(segmentations: Sequence[Any]) -> list[Polygons | None]:
    """Outlines of lists of polygons [x, y, x, y, ...], converted together; None for anything else or invalid."""
    flat: list[float] = []
    ends: list[int] = []  # end of each polygon, in points
    last: list[int] = []  # number of polygons up to the end of each segmentation; 0 if it is not plain
    for segmentation in segmentations:
        plain = type(segmentation) is list and bool(segmentation)
        if plain:
            for part in segmentation:
                if type(part) is not list or len(part) < 6 or len(part) % 2:
                    plain = False
                    break
        if plain:
            for part in segmentation:
                flat += part
                ends.append(len(flat) // 2)
        last.append(len(ends) if plain else 0)
    if not ends:
        return [None] * len(last)
    try:
        if not set(map(type, flat)) <= {int, float}:
            raise TypeError
        points = np.frombuffer(array("d", flat)).reshape(-1, 2)
        if not max(points.max(), -points.min()) < np.inf:  # also rejects NaN
            raise TypeError
    except (TypeError, OverflowError):  # one of them is invalid
        return [None] if len(last) == 1 else [plain_polygons([entry])[0] for entry in segmentations]
    starts = np.array([0, *ends[:-1]])
    low, high = np.minimum.reduceat(points, starts, axis=0), np.maximum.reduceat(points, starts, axis=0)
    firsts = np.array([0, *dict.fromkeys(filter(None, last))][:-1])
    low, high = np.minimum.reduceat(low, firsts, axis=0), np.maximum.reduceat(high, firsts, axis=0)
    bounds = iter(np.concatenate([low[:, ::-1], high[:, ::-1]], axis=1).tolist())
    outlines: list[Polygons | None] = []
    first = start = 0
    for until in last:
        if not until:
            outlines.append(None)
            continue
        parts = []
        for end in ends[first:until]:
            parts.append(points[start:end])
            start = end
        first = until
        outlines.append(Polygons(tuple(parts), tuple(next(bounds))))
    return outlines


def read_outline(segmentation: Any, height: int | None, width: int | None) -> Outline:
    """The outline of a `segmentation`; RLE must have the image's size.

    Polygons may be written as [x, y, ...], as [[x, y], ...], or as lists of either.

    Raises FieldError.
    """
    if isinstance(segmentation, dict):
        return _runs(segmentation, height, width)
    parts = segmentation
    if isinstance(parts, list) and parts:
        if all(map(is_number, parts)) or all(map(_is_point, parts)):  # a single polygon, as written by VIA
            parts = [parts]
    if not isinstance(parts, list) or not all(isinstance(part, list) for part in parts):
        raise FieldError("segmentation", f"expected lists of coordinates or RLE, got {shown(segmentation)}")
    return Polygons(tuple(_points(part, segmentation) for part in parts))


def _points(part: list, segmentation: Any) -> np.ndarray:
    """[points, (x, y)] of one polygon. Raises FieldError."""
    if part and all(map(_is_point, part)):
        part = [value for point in part for value in point]
    if not all(map(is_number, part)):
        raise FieldError("segmentation", f"expected lists of coordinates or RLE, got {shown(segmentation)}")
    if len(part) % 2:
        raise FieldError("segmentation", f"expected pairs of x and y, got a polygon of {len(part)} coordinates")
    return np.array(part, np.float64).reshape(-1, 2)


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value))


def _runs(segmentation: dict, height: int | None, width: int | None) -> Runs:
    """The outline of RLE. Raises FieldError."""
    if {"size", "counts"} - segmentation.keys():
        raise FieldError("segmentation", f"RLE needs size and counts, got the keys {shown(list(segmentation))}")
    size = [height, width]
    if height is not None and segmentation["size"] != size:
        raise FieldError("segmentation", f"the RLE has size {shown(segmentation['size'])}, but the image has {size}")
    try:
        rle.area(segmentation)
    except ValueError as error:
        raise FieldError("segmentation", str(error)) from error
    return Runs({"size": segmentation["size"], "counts": segmentation["counts"]})

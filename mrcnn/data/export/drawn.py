"""Detections to be exported, and their outlines along pixel edges."""

from typing import Any, NamedTuple

import numpy as np

from mrcnn.data import rle
from mrcnn.data.keypoints import Skeleton

Point = tuple[int, int]
Loop = list[Point]


class Drawn(NamedTuple):
    """A detection. class_id: from 1. runs: the mask as COCO RLE. keypoints: [K, (y, x, score)], or None without."""

    class_name: str
    class_id: int
    score: float
    runs: dict[str, Any]
    keypoints: np.ndarray | None = None

    def polygons(self) -> list[Loop]:
        """The mask as polygons [(x, y), ...], one per piece; COCO's rasterizer reproduces the mask from them."""
        part, (top, left, _, _) = rle.decode_box(self.runs)
        return [[(x + left, y + top) for x, y in polygon] for polygon in trace(part)]


class DrawnImage(NamedTuple):
    """An image and its detections. skeleton: of their keypoints, or None without."""

    path: str
    height: int
    width: int
    objects: list[Drawn]
    skeleton: Skeleton | None = None


def trace(mask: np.ndarray) -> list[Loop]:
    """Polygons around the pieces of a mask [h, w] bool, along pixel edges; holes are connected by bridges."""
    from skimage.measure import label

    pieces = label(mask, connectivity=1)
    polygons = []
    for number in range(1, int(pieces.max(initial=0)) + 1):
        loops = _loops(pieces == number)
        polygons.append(bridged(loops))
    return polygons


def bridged(loops: list[Loop]) -> Loop:
    """Joins several loops into one polygon by bridges that go there and back and have no area."""
    joined = list(loops[0])
    (x0, y0) = joined[0]
    for loop in loops[1:]:
        x, y = loop[0]
        corner = (x, y0)  # bridges also follow pixel edges
        joined += [(x0, y0), corner, *loop, (x, y), corner]
    return joined + [joined[0]] * (len(loops) > 1)


def _loops(mask: np.ndarray) -> list[Loop]:
    """The outer edge of a piece and the edges of its holes, as lists of corners."""
    padded = np.pad(mask, 1).astype(np.int8)
    across, along = np.diff(padded, axis=0)[:, 1:-1], np.diff(padded, axis=1)[1:-1]
    # Edges have the mask on their right: along the top to the right, then down the right side
    following: dict[Point, list[Point]] = {}
    for forward in (True, False):
        for y, x in np.argwhere(across > 0 if forward else across < 0).tolist():
            start, end = ((x, y), (x + 1, y)) if forward else ((x + 1, y), (x, y))
            following.setdefault(start, []).append(end)
    for forward in (True, False):
        for y, x in np.argwhere(along < 0 if forward else along > 0).tolist():
            start, end = ((x, y), (x, y + 1)) if forward else ((x, y + 1), (x, y))
            following.setdefault(start, []).append(end)
    loops = []
    while following:
        start = min(following, key=lambda point: (point[1], point[0]))  # the outer edge comes first
        loop, point = [start], following[start].pop()
        while point != start:
            loop.append(point)
            point = following[point].pop()
        following = {point: ends for point, ends in following.items() if ends}
        loops.append(_corners(loop))
    return loops


def _corners(loop: Loop) -> Loop:
    """A closed loop without the points inside straight edges."""
    before, after = loop[-1:] + loop[:-1], loop[1:] + loop[:1]
    return [
        (x, y)
        for (x0, y0), (x, y), (x1, y1) in zip(before, loop, after, strict=True)
        if not (x0 == x == x1 or y0 == y == y1)
    ]

"""Geometric checks of outlines, one image at a time, for things to look at before training."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mrcnn.data import rle
from mrcnn.data.annotations.outlines import Polygons
from mrcnn.data.masks import extract_bboxes

SAME_IOU = 0.95  # two masks with at least this IoU count as duplicates
BOX_IOU, BOX_PIXELS = 0.7, 2.0  # a box differs from its mask if the IoU is lower and an edge is further off than this
BEYOND = 1.0  # pixels; tools draw up to one pixel beyond the border
TOUCHING = 1e-9  # relative to the lengths of two edges: a smaller cross product is a rounding error
TOGETHER = 256  # masks compared at once with all earlier ones
PAIRS = 2**20  # edge pairs checked at once, which limits memory


class Region(NamedTuple):
    """The pixels of an instance: its tight box, and the mask inside it (eight pixels per byte) or its RLE."""

    box: tuple[int, int, int, int]
    area: int
    bits: np.ndarray | None
    runs: dict | None = None

    def part(self, y1: int, x1: int, y2: int, x2: int) -> np.ndarray:
        """[y2 - y1, x2 - x1] bool, a part of the box given in pixels of the image."""
        top, left, _, right = self.box
        if self.bits is None:
            return rle.decode_box(self.runs or {})[0][y1 - top : y2 - top, x1 - left : x2 - left]
        rows = np.unpackbits(self.bits[y1 - top : y2 - top], axis=1, count=right - left)
        return rows[:, x1 - left : x2 - left].view(bool)


def polygon_regions(outlines: Sequence[Polygons], height: int, width: int) -> list[Region]:
    """The regions of polygons in an image, from COCO's rasterizer, without a full mask in memory."""
    from pycocotools import mask as coco_mask

    parts = [part.ravel().tolist() for outline in outlines for part in outline.parts]
    filled = iter(coco_mask.frPyObjects(parts, height, width) if parts else ())
    runs = []
    for outline in outlines:
        own = [next(filled) for _ in outline.parts]
        runs.append(own[0] if len(own) == 1 else coco_mask.merge(own))
    boxes = coco_mask.toBbox(runs).astype(int).tolist() if runs else []
    areas = coco_mask.area(runs).tolist() if runs else []
    return [
        Region((y, x, y + tall, x + wide) if area else (0, 0, 0, 0), int(area), None, run)
        for run, (x, y, wide, tall), area in zip(runs, boxes, areas, strict=True)
    ]


def may_cross(parts: Sequence[np.ndarray]) -> np.ndarray:
    """[parts] bool: closed polygons that may cross themselves, because edges that are not neighbors touch.

    Sweeps over the edges of all polygons as in `_near_pairs`: from left to right, each edge meets those that start
    before it ends. `crossings` then decides.
    """
    counts = np.array([len(part) for part in parts])
    found = np.zeros(len(parts), bool)
    if not len(parts):
        return found
    points = np.concatenate(parts)
    first = np.cumsum(counts) - counts
    owner = np.repeat(np.arange(len(parts)), counts)
    number = np.arange(len(points)) - first[owner]  # index of an edge in its polygon
    following = np.where(number + 1 < counts[owner], np.arange(len(points)) + 1, first[owner])
    after = points[following]
    low, high = np.minimum(points, after), np.maximum(points, after)
    found[owner[(points == after).all(axis=1)]] = True  # duplicate points change which edges are neighbors
    order = np.lexsort((low[:, 0], owner))
    start, end, low, high, owner, number = (a[order] for a in (points, after, low, high, owner, number))
    left = np.arange(len(points))
    for step in range(1, int(counts.max())):
        left = left[left + step < len(points)]
        right = left + step
        near = (owner[left] == owner[right]) & (low[right, 0] <= high[left, 0])
        left, right = left[near], right[near]
        if not len(left):
            break
        apart = np.abs(number[left] - number[right])
        pair = (apart > 1) & (apart < counts[owner[left]] - 1) & ~found[owner[left]]
        pair &= (low[left, 1] <= high[right, 1]) & (low[right, 1] <= high[left, 1])
        a, b, c, d = start[left[pair]], end[left[pair]], start[right[pair]], end[right[pair]]
        meet = (_side(a, b, c) * _side(a, b, d) <= 0) & (_side(c, d, a) * _side(c, d, b) <= 0)
        found[owner[left[pair][meet]]] = True
    return found


def region(mask: np.ndarray) -> Region:
    """The region of a mask [H, W] bool; area 0 and a box of zeros if it is empty."""
    y1, x1, y2, x2 = extract_bboxes(mask[:, :, None])[0].tolist()
    inside = mask[y1:y2, x1:x2]
    return Region((y1, x1, y2, x2), int(np.count_nonzero(inside)), np.packbits(inside, axis=1))


def mask_iou(first: Region, second: Region) -> float:
    """Intersection over union of two nonempty masks."""
    (top, left), (bottom, right) = np.maximum(first.box[:2], second.box[:2]), np.minimum(first.box[2:], second.box[2:])
    if bottom <= top or right <= left:
        return 0.0
    shared = np.count_nonzero(first.part(top, left, bottom, right) & second.part(top, left, bottom, right))
    return shared / (first.area + second.area - shared)


def same_masks(regions: Sequence[Region], iou: float = SAME_IOU) -> Iterator[tuple[int, int, float]]:
    """(first, second, IoU) for each region that duplicates an earlier one, with the first such region."""
    boxes = np.array([r.box for r in regions], np.float64).reshape(-1, 4)
    areas = np.array([r.area for r in regions], np.float64)
    done = -1
    for start in range(0, len(regions), TOGETHER):
        for second, first in _candidates(boxes, areas, start, start + TOGETHER, iou):
            if second != done and (found := mask_iou(regions[first], regions[second])) >= iou:
                yield first, second, found
                done = second


def _candidates(boxes: np.ndarray, areas: np.ndarray, start: int, end: int, iou: float) -> list[list[int]]:
    """(second, first), with second from `start` to `end`, that may reach the IoU: both boxes contain the overlap."""
    some, area = boxes[start:end, None], areas[start:end, None]
    sides = np.maximum(np.minimum(boxes[:, 2:], some[..., 2:]) - np.maximum(boxes[:, :2], some[..., :2]), 0)
    shared = np.minimum(sides.prod(axis=2), np.minimum(areas, area))
    before = np.arange(len(boxes)) < np.arange(start, start + len(some))[:, None]
    pairs = np.argwhere((shared > 0) & (shared >= iou * np.maximum(areas, area)) & before)
    return (pairs + (start, 0)).tolist()


def unlike_box(given: Sequence[float], tight: Sequence[float], size: tuple[int, int]) -> float | None:
    """The IoU of a given box, clipped to the image, and the mask's box, if they differ much; else None.

    Boxes are (y1, x1, y2, x2) in pixels, `size` is the image's (height, width).
    """
    first, second = np.clip(np.asarray(given, float), 0, [*size, *size]), np.asarray(tight, float)
    if np.abs(first - second).max() <= BOX_PIXELS:
        return None
    shared = np.prod(np.maximum(np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2]), 0))
    iou = shared / (np.prod(first[2:] - first[:2]) + np.prod(second[2:] - second[:2]) - shared)
    return float(iou) if iou < BOX_IOU else None


def beyond(bounds: Sequence[float], size: tuple[int, int]) -> float:
    """How many pixels bounds (y1, x1, y2, x2) extend beyond an image of `size` (height, width); 0 up to `BEYOND`."""
    y1, x1, y2, x2 = bounds
    far = max(-y1, -x1, y2 - size[0], x2 - size[1])
    return far if far > BEYOND else 0.0


def crossings(points: np.ndarray) -> np.ndarray:
    """Where a closed polygon [points, (x, y)] crosses itself: [crossings, (x, y)], each place once.

    Edges that only touch or overlap do not cross: a hole joined to the outer edge by a bridge is valid.
    """
    points = np.asarray(points, np.float64).reshape(-1, 2)
    before = np.concatenate([points[-1:], points[:-1]])
    points = points[(points != before).any(axis=1)]
    if len(points) < 4:
        return np.zeros((0, 2))
    pairs = [_crossed(points, first, second) for first, second in _near_pairs(points)]
    found = np.concatenate([*pairs, _crossed_corners(points)])
    places = np.unique(np.round(found, 6) @ (1, 1j))  # complex numbers sort faster than rows
    return np.stack([places.real, places.imag], axis=1)


def _near_pairs(points: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of edges that may cross: their boxes touch, and they are not neighbors sharing a point. In blocks.

    Edge i goes from point i to the next. Sweeps along x: in the order of their left ends, each edge meets those whose
    left end comes before its own right end.
    """
    after = np.concatenate([points[1:], points[:1]])
    low, high = np.minimum(points, after), np.maximum(points, after)
    order = np.argsort(low[:, 0], kind="stable")
    low, high, count = low[order], high[order], len(points)
    met = np.searchsorted(low[:, 0], high[:, 0], side="right") - np.arange(count) - 1
    start = 0
    while start < count:
        end = start + max(1, int(np.searchsorted(np.cumsum(met[start:]), PAIRS, side="right")))
        block = met[start:end]
        first = np.repeat(np.arange(start, end), block)
        second = first + 1 + np.arange(len(first)) - np.repeat(np.cumsum(block) - block, block)
        near = (low[first, 1] <= high[second, 1]) & (low[second, 1] <= high[first, 1])
        first, second = order[first[near]], order[second[near]]
        apart = np.abs(first - second)
        near = (apart > 1) & (apart < count - 1)
        yield first[near], second[near]
        start = end


def _crossed(points: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Where edges cross, [crossings, (x, y)]: inside both, or where the first point of one lies inside the other."""
    after = np.concatenate([points[1:], points[:1]])
    a, b, c, d = points[first], after[first], points[second], after[second]
    side_c, side_d, side_a, side_b = _side(a, b, c), _side(a, b, d), _side(c, d, a), _side(c, d, b)
    parts, parted = side_a * side_b < 0, side_c * side_d < 0  # the ends of one edge are on opposite sides of the other
    proper = parts & parted
    places = []
    if proper.any():
        share = _cross(c - a, d - c)[proper] / _cross(b - a, d - c)[proper]
        places.append(a[proper] + share[:, None] * (b - a)[proper])
    through = parts & (side_c == 0)
    if through.any():
        passed = _side(a, b, points[second - 1]) * side_d < 0
        places.append(c[through & passed])
    through = parted & (side_a == 0)
    if through.any():
        passed = _side(c, d, points[first - 1]) * side_b < 0
        places.append(a[through & passed])
    return np.concatenate([np.zeros((0, 2)), *places])


def _crossed_corners(points: np.ndarray) -> np.ndarray:
    """[crossings, (x, y)] points that the polygon visits twice and where it crosses itself."""
    _, place, counts = np.unique(points @ (1, 1j), return_inverse=True, return_counts=True)
    places = []
    for repeated in np.flatnonzero(counts > 1):
        visits = np.flatnonzero(place == repeated).tolist()
        pairs = ((i, j) for i in visits for j in visits if i < j)
        if any(_separates(points, i, j) for i, j in pairs):
            places.append(points[visits[0]])
    return np.reshape(places, (-1, 2))


def _separates(points: np.ndarray, i: int, j: int) -> bool:
    """Whether the path through point i separates the incoming from the outgoing edge at point j, at the same place."""
    ways = [points[k % len(points)] - points[i] for k in (i - 1, i + 1, j - 1, j + 1)]
    into, out, other_in, other_out = (math.atan2(y, x) for x, y in ways)
    turns = [(angle - into) % (2 * math.pi) for angle in (out, other_in, other_out)]
    apart = all(abs(turns[0] - turn) > TOUCHING and TOUCHING < turn < 2 * math.pi - TOUCHING for turn in turns[1:])
    return apart and (turns[1] < turns[0]) != (turns[2] < turns[0])


def _side(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """On which side of the line from a to b each c is: 1, -1, or 0 on the line."""
    along, to = b - a, c - a
    cross = _cross(along, to)
    slack = TOUCHING**2 * (along**2).sum(axis=1) * (to**2).sum(axis=1)
    return np.where(cross**2 <= slack, 0, np.sign(cross))


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]

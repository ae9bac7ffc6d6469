"""Tracks instances through a video by the IoU of their masks.

Based on SORT (Bewley et al. 2016), with masks instead of boxes: tracks continue at their last speed and are assigned to
the detections of the next frame with the highest sum of IoU (the Hungarian method). As in ByteTrack (Zhang et al.
2022), low-score detections can continue a track, but never start one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mrcnn.inference.results import Crop, Result

Point = tuple[float, float]  # x, y in pixels


@dataclass
class Track:
    """One object.

    number: starts at 1, never reused. class_id: of most of its detections, weighted by score. crop: its mask at its
    last detection. seen, lost: frames with a detection, and since the last one. speed: (y, x) pixels per frame.
    trail: centers (x, y) of its last detections.
    """

    number: int
    crop: Crop
    score: float
    votes: dict[int, float] = field(default_factory=dict)
    seen: int = 1
    lost: int = 0
    speed: tuple[float, float] = (0.0, 0.0)
    trail: list[Point] = field(default_factory=list)

    @property
    def class_id(self) -> int:
        return max(self.votes, key=lambda class_id: self.votes[class_id])


class Tracker:
    """Gives instances constant numbers across successive frames.

    Args:
        min_iou: minimum mask IoU for a detection to continue a track.
        begin: minimum score for a detection to start a track.
        patience: number of frames without a detection after which a track ends.
        same_class: continue a track only with detections of its class.
        trail: centers that a track remembers.
    """

    def __init__(
        self, *, min_iou: float = 0.3, begin: float = 0.5, patience: int = 30, same_class: bool = False, trail: int = 30
    ) -> None:
        self.min_iou, self.begin, self.patience = min_iou, begin, patience
        self.same_class, self.trail = same_class, trail
        self.tracks: list[Track] = []
        self._next = 1

    def update(self, result: Result) -> list[int]:
        """The number of each instance of the next frame; 0 for one without a track."""
        crops, scores, class_ids = result.crops, result.scores.tolist(), result.class_ids.tolist()
        numbers = [0] * result.count
        for track, i in self._matches(crops, class_ids):
            self._continue(track, crops[i], scores[i], class_ids[i])
            numbers[i] = track.number
        for track in self.tracks:
            if track.number not in numbers:
                track.lost += 1
        self.tracks = [track for track in self.tracks if track.lost <= self.patience]
        for i, (crop, score) in enumerate(zip(crops, scores, strict=True)):
            if not numbers[i] and score >= self.begin and crop.mask.any():
                numbers[i] = self._begin(crop, score, class_ids[i])
        return numbers

    def _matches(self, crops: Sequence[Crop], class_ids: Sequence[int]) -> list[tuple[Track, int]]:
        from scipy.optimize import linear_sum_assignment

        if not self.tracks or not crops:
            return []
        moved = [_moved(track) for track in self.tracks]
        overlaps = np.array([[mask_iou(old, new) for new in crops] for old in moved])
        if self.same_class:
            overlaps *= np.array([[track.class_id == class_id for class_id in class_ids] for track in self.tracks])
        overlaps[overlaps < self.min_iou] = 0
        rows, columns = linear_sum_assignment(-overlaps)
        pairs = zip(rows.tolist(), columns.tolist(), strict=True)
        return [(self.tracks[row], column) for row, column in pairs if overlaps[row, column] > 0]

    def _continue(self, track: Track, crop: Crop, score: float, class_id: int) -> None:
        (x, y), frames = center(crop), track.lost + 1
        if track.trail:
            before = track.trail[-1]
            track.speed = ((y - before[1]) / frames, (x - before[0]) / frames)
        track.crop, track.score, track.lost = crop, score, 0
        track.seen += 1
        track.votes[class_id] = track.votes.get(class_id, 0.0) + score
        track.trail = [*track.trail, (x, y)][-self.trail :]

    def _begin(self, crop: Crop, score: float, class_id: int) -> int:
        self.tracks.append(Track(self._next, crop, score, {class_id: score}, trail=[center(crop)]))
        self._next += 1
        return self.tracks[-1].number


class LineCounter:
    """Counts the tracks that cross a line, each once per direction.

    Args:
        start, end: (x, y) in pixels. Looking from start to end, a track that reaches the right side counts as `right`,
            and one that reaches the left side as `left`.
    """

    def __init__(self, start: Point, end: Point) -> None:
        if start == end:
            raise ValueError(f"a line needs two different points, got {start} twice")
        self.start, self.end = start, end
        self._sides: dict[int, float] = {}
        self._counted: dict[str, set[int]] = {"left": set(), "right": set()}

    @property
    def counts(self) -> dict[str, int]:
        """How many tracks crossed to each side."""
        return {side: len(numbers) for side, numbers in self._counted.items()}

    def update(self, tracks: Sequence[Track]) -> None:
        """Updates the counts with the tracks after a frame."""
        for track in tracks:
            if track.lost or len(track.trail) < 1:
                continue
            side = self._side(track.trail[-1])
            before = self._sides.get(track.number)
            if before is not None and side and before * side < 0 and self._within(track.trail[-1]):
                self._counted["right" if side > 0 else "left"].add(track.number)
            if side:
                self._sides[track.number] = side

    def _side(self, point: Point) -> float:
        """Positive to the right of the line in an image, whose y axis points down."""
        (x1, y1), (x2, y2) = self.start, self.end
        return float(np.sign((x2 - x1) * (point[1] - y1) - (y2 - y1) * (point[0] - x1)))

    def _within(self, point: Point) -> bool:
        """Whether a point is alongside the line, not beyond its ends."""
        along = np.subtract(self.end, self.start)
        share = np.dot(np.subtract(point, self.start), along) / np.dot(along, along)
        return bool(0 <= share <= 1)


def mask_iou(a: Crop, b: Crop) -> float:
    """IoU of two masks given as crops; 0 for empty ones."""
    top, left = max(a.top, b.top), max(a.left, b.left)
    bottom = min(a.top + a.mask.shape[0], b.top + b.mask.shape[0])
    right = min(a.left + a.mask.shape[1], b.left + b.mask.shape[1])
    if bottom <= top or right <= left:
        return 0.0
    first, second = (c.mask[top - c.top : bottom - c.top, left - c.left : right - c.left] for c in (a, b))
    shared = int(np.count_nonzero(first & second))
    total = int(np.count_nonzero(a.mask)) + int(np.count_nonzero(b.mask)) - shared
    return shared / total if total else 0.0


def center(crop: Crop) -> Point:
    """(x, y) of a mask's center of gravity, in pixels of its image; the middle of an empty crop."""
    area = np.count_nonzero(crop.mask)
    height, width = crop.mask.shape
    if not area:
        return crop.left + width / 2, crop.top + height / 2
    rows, columns = crop.mask.sum(axis=1), crop.mask.sum(axis=0)
    y = float(rows @ (np.arange(height) + 0.5)) / area
    x = float(columns @ (np.arange(width) + 0.5)) / area
    return crop.left + x, crop.top + y


def _moved(track: Track) -> Crop:
    """The mask of a track at its expected position in the next frame."""
    frames = track.lost + 1
    y, x = (round(speed * frames) for speed in track.speed)
    return track.crop._replace(top=track.crop.top + y, left=track.crop.left + x)


def as_json(result: Result, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """The instances of a frame that belong to tracks, in types that json supports."""
    values = zip(numbers, result.names, result.scores.tolist(), result.rois.tolist(), result.rle, strict=True)
    return [
        {"track": number, "class": name, "score": round(score, 4), "box": [round(v, 2) for v in box], "mask": mask}
        for number, name, score, box, mask in values
        if number
    ]

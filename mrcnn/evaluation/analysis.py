"""Analysis of what a model gets right and wrong, from the `records` of an evaluation::

    results = evaluate(model, dataset)
    print(error_breakdown(results.records))

`kind` is always "box", "mask" or "boundary": the shapes whose overlap is measured. Matches are COCO's own.
`mrcnn.visualize` has plots of these results.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from mrcnn.evaluation.coco_metrics import RECALLS, coco_matches, interpolated_precision, pair_overlaps
from mrcnn.evaluation.coco_results import Records
from mrcnn.evaluation.mistakes import (
    ERRORS,
    ErrorBreakdown,
    ImageReport,
    Mistakes,
    error_breakdown,
    find_mistakes,
    worst_images,
)

__all__ = [
    "ERRORS",
    "ConfusionMatrix",
    "Curve",
    "Curves",
    "ErrorBreakdown",
    "ImageReport",
    "Mistakes",
    "confusion_matrix",
    "error_breakdown",
    "find_mistakes",
    "precision_recall",
    "worst_images",
]


@dataclasses.dataclass(frozen=True)
class Curve:
    """The precision-recall curve of one class at one IoU.

    Attributes:
        precision: [101] COCO's interpolated precision at the recalls 0, 0.01 ... 1; its mean is `ap`.
        recalls, precisions: [detections + 2] the complete curve with two end points, as from `compute_ap`; `area` is
            the area under it, which differs from `ap` by at most 0.01.
        scores: [detections] in descending order; `recalls[1:-1]` is the recall after each of them.
        objects: number of ground-truth objects.
    """

    precision: np.ndarray
    recalls: np.ndarray
    precisions: np.ndarray
    scores: np.ndarray
    objects: int

    @property
    def ap(self) -> float:
        return float(self.precision.mean())

    @property
    def area(self) -> float:
        return float(np.sum(np.diff(self.recalls) * self.precisions[1:]))


@dataclasses.dataclass(frozen=True)
class Curves:
    """The curves of all classes with objects, by name.

    `precision` [101] at `recall` [101] is their mean, and `ap` is its mean: COCO's AP at this single IoU.
    """

    kind: str
    iou: float
    classes: dict[str, Curve]
    recall: np.ndarray
    precision: np.ndarray

    @property
    def ap(self) -> float:
        return float(self.precision.mean())


@dataclasses.dataclass(frozen=True)
class ConfusionMatrix:
    """How often objects of each true class (rows) were detected as each class (columns).

    Attributes:
        names: of rows and columns; the first is "background".
        counts: [truth, found] int64. Row 0: detections without an object. Column 0: objects that were not found.
        kind, iou, min_score: the arguments used.
    """

    names: list[str]
    counts: np.ndarray
    kind: str
    iou: float
    min_score: float


def precision_recall(records: Records, kind: str = "mask", iou: float = 0.5) -> Curves:
    """The precision-recall curves of all classes at one IoU, from COCO's matches.

    Raises:
        ValueError: an unknown `kind`, or no objects.
    """
    matches = coco_matches(records, kind, iou)
    order = records.places_by_score()
    order = order[matches.counted[order]]
    classes = np.array([annotation["category_id"] for annotation in records.found], np.int64)[order]
    hits, scores = matches.object[order] >= 0, np.array([a["score"] for a in records.found])[order]
    objects = [annotation["category_id"] for annotation in records.truth if not annotation["iscrowd"]]
    if not objects:
        raise ValueError("the records contain no object, so there is no recall; evaluate images with annotations")
    curves = {
        name: _curve(hits[classes == i], scores[classes == i], objects.count(i))
        for i, name in records.names.items()
        if i in objects
    }
    mean = np.mean([curve.precision for curve in curves.values()], axis=0)
    return Curves(kind, iou, curves, RECALLS.copy(), mean)


def confusion_matrix(records: Records, iou: float = 0.5, min_score: float = 0.5, kind: str = "mask") -> ConfusionMatrix:
    """Counts which classes are confused, among detections with a score of at least `min_score`.

    Detections are first matched with objects of their own class, as COCO does; the remaining detections and objects are
    then paired regardless of class, by descending IoU. Each object and each detection counts once. Crowds, and
    detections in a crowd of their class, do not count.
    """
    records = records.confident(min_score)
    matches = coco_matches(records, kind, iou)
    place = {class_id: i for i, class_id in enumerate(records.names, start=1)}
    counts = np.zeros((len(place) + 1, len(place) + 1), np.int64)
    found_as = np.array([place[a["category_id"]] for a in records.found], np.int64)
    true = np.array([place[a["category_id"]] for a in records.truth], np.int64)
    for found, truth in records.places_by_image():
        truth = [j for j in truth if not records.truth[j]["iscrowd"]]
        pairs = [(i, int(matches.object[i])) for i in found if matches.counted[i] and matches.object[i] >= 0]
        left = [i for i in found if matches.counted[i] and matches.object[i] < 0]
        missed = [j for j in truth if matches.finder[j] < 0]
        pairs += _pairs(records, left, missed, kind, iou)
        taken, reached = {i for i, _ in pairs}, {j for _, j in pairs}
        for i, j in pairs:
            counts[true[j], found_as[i]] += 1
        np.add.at(counts[0], found_as[[i for i in left if i not in taken]], 1)
        np.add.at(counts[:, 0], true[[j for j in missed if j not in reached]], 1)
    return ConfusionMatrix(["background", *records.names.values()], counts, kind, iou, min_score)


def _pairs(records: Records, found: list[int], truth: list[int], kind: str, iou: float) -> list[tuple[int, int]]:
    """Pairs of detections and objects with enough overlap, best first, each used once."""
    overlaps = pair_overlaps([records.found[i] for i in found], [records.truth[j] for j in truth], kind, iou)
    pairs = []
    for flat in np.argsort(-overlaps, axis=None, kind="stable"):
        i, j = np.unravel_index(flat, overlaps.shape)
        if overlaps[i, j] < iou:
            break
        pairs.append((found[i], truth[j]))
        overlaps[i, :] = overlaps[:, j] = 0
    return pairs


def _curve(hits: np.ndarray, scores: np.ndarray, objects: int) -> Curve:
    right = np.cumsum(hits)
    precisions = np.concatenate([[0], right / np.arange(1, len(hits) + 1), [0]])
    precisions = np.maximum.accumulate(precisions[::-1])[::-1]
    recalls = np.concatenate([[0], right / objects, [1]])
    return Curve(interpolated_precision(hits, objects), recalls, precisions, scores, objects)

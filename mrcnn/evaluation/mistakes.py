"""The kind of mistake of each wrong detection, the AP that fixing each kind would gain, and the worst images.

The kinds and their order are those of TIDE (Bolya et al. 2020, arXiv 2008.08115). For an unmatched detection, where t
is the minimum IoU of a match and b (0.1) the minimum IoU of any relation:

- localisation: the best IoU with an object of its class is between b and t;
- class: an object of another class has IoU t or more;
- duplicate: an object of its class has IoU t or more, but a better detection found it;
- background: no object has IoU above b;
- both: the rest, near an object of another class and badly placed.

An object is missed if no detection found it and no class or localisation mistake refers to it.
"""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np

from mrcnn.evaluation.coco_metrics import coco_matches, interpolated_precision, pair_overlaps
from mrcnn.evaluation.coco_results import Annotation, Records

ERRORS = ("class", "localisation", "both", "duplicate", "background", "missed")
CORRECT, IGNORED, FOUND, CROWD = "correct", "ignored", "found", "crowd"


@dataclasses.dataclass(frozen=True)
class Mistakes:
    """The outcome for every detection and object of `Records`.

    Attributes:
        found: [found] "correct", one of `ERRORS`, or "ignored" (in a crowd, or beyond 100 of a class in an image).
        truth: [truth] "found", "missed", "crowd", or "class" / "localisation" if only such a mistake refers to it.
        about: [found] index of the object of a correct detection, or of a class or localisation mistake; else -1.
    """

    found: list[str]
    truth: list[str]
    about: np.ndarray


@dataclasses.dataclass(frozen=True)
class ErrorBreakdown:
    """The number of mistakes of each kind, and the AP gain without them.

    Attributes:
        ap: COCO's AP at this single IoU.
        counts: kind of mistake -> number.
        gains: kind of mistake -> AP gain from fixing only this kind. Of class and localisation mistakes, the best one
            for each unfound object becomes correct and the others are removed; duplicate, background and both are
            removed; missed objects no longer count.
        kind, iou: the arguments used.
    """

    ap: float
    counts: dict[str, int]
    gains: dict[str, float]
    kind: str
    iou: float

    def __str__(self) -> str:
        lines = [f"{self.kind} AP at IoU {self.iou:g}: {self.ap:.3f}", f"{'mistake':<14}{'number':>8}{'AP gain':>9}"]
        return "\n".join(lines + [f"{name:<14}{self.counts[name]:>8}{self.gains[name]:>+9.3f}" for name in ERRORS])


@dataclasses.dataclass(frozen=True)
class ImageReport:
    """What is right and wrong in one image.

    Attributes:
        image_id: the dataset's.
        quality: correct / (correct + wrong + not found), 0..1.
        counts: kind of mistake -> number.
        truth, found: annotations, each with its outcome (see `Mistakes`).
    """

    image_id: int
    quality: float
    counts: dict[str, int]
    truth: list[tuple[Annotation, str]]
    found: list[tuple[Annotation, str]]


def find_mistakes(records: Records, kind: str = "mask", iou: float = 0.5, background_iou: float = 0.1) -> Mistakes:
    """Classifies every detection and object; see the top of this file.

    Raises:
        ValueError: an unknown `kind`, or thresholds that are not 0 < background_iou < iou <= 1.
    """
    if not 0 < background_iou < iou <= 1:
        raise ValueError(f"expected 0 < background_iou < iou <= 1, got background_iou={background_iou}, iou={iou}")
    matches = coco_matches(records, kind, iou)
    found = [CORRECT if match >= 0 else "" for match in matches.object]
    found = [label if counted else IGNORED for label, counted in zip(found, matches.counted, strict=True)]
    truth = [FOUND if match >= 0 else "missed" for match in matches.finder]
    truth = [CROWD if a["iscrowd"] else label for a, label in zip(records.truth, truth, strict=True)]
    about = np.where(matches.counted, matches.object, -1)
    for rows, columns in records.places_by_image():
        rows = [i for i in rows if not found[i]]
        columns = [j for j in columns if truth[j] != CROWD]
        wrong, objects = [records.found[i] for i in rows], [records.truth[j] for j in columns]
        overlaps = pair_overlaps(wrong, objects, kind, background_iou)
        same = np.array([[a["category_id"] == b["category_id"] for b in objects] for a in wrong], bool)
        for i, row, own in zip(rows, overlaps, same.reshape(overlaps.shape), strict=True):
            found[i], j = _mistake(row, own, iou, background_iou)
            if j >= 0:
                about[i] = columns[j]
                if truth[columns[j]] == "missed":
                    truth[columns[j]] = found[i]
    return Mistakes(found, truth, about)


def error_breakdown(
    records: Records, kind: str = "mask", iou: float = 0.5, background_iou: float = 0.1
) -> ErrorBreakdown:
    """Counts the mistakes of each kind and the AP gain from fixing them.

    Like TIDE, with COCO's mean over the classes that have objects. A class without detections, whose objects were all
    missed, counts as perfect when missed objects are fixed.

    Raises:
        ValueError: as `find_mistakes`, or no objects.
    """
    mistakes = find_mistakes(records, kind, iou, background_iou)
    points = _points(records, mistakes)
    objects = Counter(a["category_id"] for a in records.truth if not a["iscrowd"])
    if not objects:
        raise ValueError("the records contain no object, so there is no AP; evaluate images with annotations")
    ap = _mean_ap(points, objects)
    gains = {}
    for error in ERRORS:
        left = Counter(objects)
        if error == "missed":
            left.subtract(
                a["category_id"] for a, label in zip(records.truth, mistakes.truth, strict=True) if label == error
            )
        gains[error] = _mean_ap(_mended(points, records, mistakes, error), left) - ap
    counts = Counter(mistakes.found) + Counter(label for label in mistakes.truth if label == "missed")
    return ErrorBreakdown(ap, {error: counts[error] for error in ERRORS}, gains, kind, iou)


def worst_images(
    records: Records, count: int = 10, kind: str = "mask", iou: float = 0.5, min_score: float = 0.5
) -> list[ImageReport]:
    """The images with the lowest quality, counting detections with a score of at least `min_score`.

    Images without mistakes are excluded; at equal quality, more mistakes are worse.
    """
    if count < 1:
        raise ValueError(f"count={count}; pass at least 1")
    records = records.confident(min_score)
    mistakes = find_mistakes(records, kind, iou, min(0.1, iou / 2))
    reports: list[tuple[float, int, int, ImageReport]] = []
    for image, (found, truth) in zip(records.images, records.places_by_image(), strict=True):
        labels = Counter(mistakes.found[i] for i in found)
        lost = [mistakes.truth[j] for j in truth if mistakes.truth[j] not in (FOUND, CROWD)]
        counts = {e: labels[e] for e in ERRORS} | {"missed": lost.count("missed")}
        wrong = sum(labels[e] for e in ERRORS) + len(lost)
        if wrong:
            report = ImageReport(
                image["id"],
                labels[CORRECT] / (labels[CORRECT] + wrong),
                counts,
                [(records.truth[j], mistakes.truth[j]) for j in truth],
                [(records.found[i], mistakes.found[i]) for i in found],
            )
            reports.append((report.quality, -wrong, len(reports), report))
    return [report for *_, report in sorted(reports)[:count]]


def _mistake(overlaps: np.ndarray, own: np.ndarray, iou: float, background_iou: float) -> tuple[str, int]:
    """The kind of a mistake from its overlaps with all objects, and the object it refers to, -1 for none."""
    if not len(overlaps):
        return "background", -1
    with_own, with_others = np.where(own, overlaps, 0), np.where(own, 0, overlaps)
    if background_iou <= with_own.max() < iou:
        return "localisation", int(with_own.argmax())
    if with_others.max() >= iou:
        return "class", int(with_others.argmax())
    if with_own.max() >= iou:
        return "duplicate", -1
    return ("background" if overlaps.max() <= background_iou else "both"), -1


@dataclasses.dataclass(frozen=True)
class _Points:
    """Counted detections in descending order of score: index in `found`, class, and whether each is right."""

    place: np.ndarray
    classes: np.ndarray
    hits: np.ndarray


def _points(records: Records, mistakes: Mistakes) -> _Points:
    place = np.array([i for i in records.places_by_score() if mistakes.found[i] != IGNORED], np.int64)
    classes = np.array([records.found[i]["category_id"] for i in place], np.int64)
    return _Points(place, classes, np.array([mistakes.found[i] == CORRECT for i in place], bool))


def _mended(points: _Points, records: Records, mistakes: Mistakes, error: str) -> _Points:
    """The detections after fixing the mistakes of one kind."""
    classes, hits = points.classes.copy(), points.hits.copy()
    keep = np.array([mistakes.found[i] != error for i in points.place], bool)
    best: set[int] = set()  # objects that a mistake with a better score already refers to
    for n, i in enumerate(points.place):
        j = int(mistakes.about[i])
        if j < 0 or mistakes.found[i] == CORRECT or mistakes.truth[j] == FOUND or j in best:
            continue
        best.add(j)
        if mistakes.found[i] == error:
            classes[n], hits[n], keep[n] = records.truth[j]["category_id"], True, True
    return _Points(points.place[keep], classes[keep], hits[keep])


def _mean_ap(points: _Points, objects: Counter) -> float:
    aps = []
    for class_id, count in objects.items():
        hits = points.hits[points.classes == class_id]
        aps.append(float(interpolated_precision(hits, count).mean()) if count else float(not len(hits)))
    return float(np.mean(aps))

"""COCO's 12 numbers for boxes, masks and boundaries: pycocotools' own protocol and arithmetic.

AP is averaged over IoU 0.50 to 0.95, crowds are ignored, at most 100 detections of a class in an image count.

The size of a detection, which decides where a wrong one counts among small, medium and large, is the area of its box,
for masks too: so does pycocotools with a results json that holds boxes. Detectron2 and torchvision leave the boxes out
first, which moves APs, APm and APl of masks a little; `evaluate_results` does it too with results without boxes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from mrcnn.evaluation.boundary import boundary_evaluation, boundary_overlaps
from mrcnn.evaluation.coco_results import Annotation, Records

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
ABSENT = -1.0  # what pycocotools reports where the ground truth has nothing to find
RECALLS = np.linspace(0, 1, 101)
KINDS = {"box": "bbox", "mask": "segm", "boundary": "segm"}


def coco_numbers(records: Records, kind: str) -> tuple[dict[str, float], dict[int, tuple[float, float]]]:
    """pycocotools' 12 numbers for `kind` "box", "mask" or "boundary", and (AP, AP50) of every class by its id.

    The numbers are 0..1, or -1 where the ground truth holds nothing of that kind.
    """
    evaluation = coco_evaluation(records, kind)
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # [IoU, recall, class] for every size and 100 detections
    per_class = {name: (_mean(precision[:, :, i]), _mean(precision[0, :, i])) for i, name in enumerate(records.names)}
    return dict(zip(METRICS, map(float, evaluation.stats), strict=True)), per_class


def coco_evaluation(records: Records, kind: str, ious: Sequence[float] | None = None) -> Any:
    """pycocotools' COCOeval after its work, whose ids are places, from 1, in the lists of `records`.

    With `ious` only those thresholds, objects of every size and 100 detections are counted, and nothing is summarised.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}; choose one of {tuple(KINDS)}")
    from pycocotools.cocoeval import COCOeval

    form = boundary_evaluation() if kind == "boundary" else COCOeval
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress and its table
        evaluation = form(_coco(records, records.truth), _coco(records, _ranked(records.found, kind)), KINDS[kind])
        if ious is not None:
            evaluation.params.iouThrs = np.asarray(ious, np.float64)
            evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
            evaluation.params.maxDets = [100]
        evaluation.evaluate()
        evaluation.accumulate()
        if ious is None:
            evaluation.summarize()
    return evaluation


@dataclasses.dataclass(frozen=True)
class Matches:
    """Which detections COCO gives to which objects at one IoU.

    Attributes:
        object: [found] place of the object in the records' `truth`, -1 for none.
        counted: [found] False for those that neither help nor harm: in a crowd, or beyond the best 100 of their class
            in an image.
        finder: [truth] place of the detection in the records' `found`, -1 for none.
    """

    object: np.ndarray
    counted: np.ndarray
    finder: np.ndarray


def coco_matches(records: Records, kind: str = "mask", iou: float = 0.5) -> Matches:
    """COCO's matches, class by class, best score first, at one IoU threshold."""
    evaluation = coco_evaluation(records, kind, [iou])
    matches = Matches(
        np.full(len(records.found), -1), np.zeros(len(records.found), bool), np.full(len(records.truth), -1)
    )
    for image in evaluation.evalImgs:
        if image is not None:
            found, truth = (np.array(image[key], np.int64) - 1 for key in ("dtIds", "gtIds"))
            matches.object[found] = image["dtMatches"][0] - 1
            matches.counted[found] = ~image["dtIgnore"][0]
            matches.finder[truth] = image["gtMatches"][0] - 1
    return matches


def pair_overlaps(found: Sequence[Annotation], truth: Sequence[Annotation], kind: str, least: float) -> np.ndarray:
    """The IoU of all detections with all objects of one image, [found, truth], whatever their classes.

    Those of boundaries are exact from `least` on.
    """
    if not found or not truth:
        return np.zeros((len(found), len(truth)))
    field = "bbox" if kind == "box" else "segmentation"
    ours, theirs, crowd = [a[field] for a in found], [a[field] for a in truth], [0] * len(truth)
    if kind == "boundary":
        return boundary_overlaps(ours, theirs, crowd, least=least)
    from pycocotools import mask as coco_mask

    return np.asarray(coco_mask.iou(ours, theirs, crowd))


def interpolated_precision(hits: np.ndarray, objects: int) -> np.ndarray:
    """COCO's precision at the recalls 0, 0.01 ... 1, [101], whose mean is AP.

    Args:
        hits: [detections] bool, whether each is right, in falling order of score.
        objects: how many there are to find, at least 1.
    """
    right = np.cumsum(hits, dtype=np.float64)
    precision = right / (np.arange(1, len(hits) + 1) + np.spacing(1))
    precision = np.maximum.accumulate(precision[::-1])[::-1]  # the best at this recall or at a higher one
    place = np.searchsorted(right / objects, RECALLS, side="left")
    return np.append(precision, 0.0)[place]


def _ranked(found: list[Annotation], kind: str) -> list[Annotation]:
    """Detections with the score that ranks them in a kind of evaluation."""
    return found if kind == "box" else [{**a, "score": a.get("mask_score", a["score"])} for a in found]


def _coco(records: Records, annotations: list[Annotation]) -> Any:
    """The annotations as pycocotools' COCO."""
    from pycocotools.coco import COCO

    # Places instead of ids: pycocotools sorts by ids, and marks "no match" by the id 0
    images = {image["id"]: i for i, image in enumerate(records.images, start=1)}
    categories = {class_id: i for i, class_id in enumerate(records.names, start=1)}
    coco = COCO()
    coco.dataset = {
        "images": [image | {"id": images[image["id"]]} for image in records.images],
        "categories": [{"id": categories[i], "name": name} for i, name in records.names.items()],
        # New dicts, as pycocotools writes into them
        "annotations": [
            {"area": a["bbox"][2] * a["bbox"][3], "iscrowd": 0}
            | a
            | {"id": i, "image_id": images[a["image_id"]], "category_id": categories[a["category_id"]]}
            for i, a in enumerate(annotations, start=1)
        ],
    }
    coco.createIndex()
    return coco


def _mean(precision: np.ndarray) -> float:
    valid = precision[precision > ABSENT]
    return float(valid.mean()) if valid.size else ABSENT

"""COCO's numbers for boxes, masks, boundaries and keypoints, with pycocotools' own protocol and arithmetic.

AP is averaged over IoU 0.50 to 0.95, crowds are ignored, and at most 100 detections per class and image count.

The size of a detection, which decides whether a wrong one counts as small, medium or large, is the area of its box,
also for masks: pycocotools does the same for a results json with boxes. Detectron2 and torchvision remove the boxes
first, which slightly changes APs, APm and APl of masks; `evaluate_results` also does so for results without boxes.
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
# For keypoints, which are compared by OKS, with the 20 best detections per image
KEYPOINT_METRICS = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")
ABSENT = -1.0  # pycocotools' value if the ground truth has no object
RECALLS = np.linspace(0, 1, 101)
KINDS = {"box": "bbox", "mask": "segm", "boundary": "segm", "keypoints": "keypoints"}


def coco_numbers(records: Records, kind: str) -> tuple[dict[str, float], dict[int, tuple[float, float]]]:
    """pycocotools' numbers for a kind of `KINDS`, and (AP, AP50) of every class by id.

    They are `METRICS`, for keypoints `KEYPOINT_METRICS`: 0..1, or -1 if the ground truth has nothing of that kind.
    """
    evaluation = coco_evaluation(records, kind)
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # [IoU, recall, class] for all sizes and 100 detections
    per_class = {name: (_mean(precision[:, :, i]), _mean(precision[0, :, i])) for i, name in enumerate(records.names)}
    names = KEYPOINT_METRICS if kind == "keypoints" else METRICS
    return dict(zip(names, map(float, evaluation.stats), strict=True)), per_class


def coco_evaluation(records: Records, kind: str, ious: Sequence[float] | None = None) -> Any:
    """pycocotools' finished COCOeval, whose ids are positions, from 1, in the lists of `records`.

    With `ious`, it evaluates only those thresholds, for all sizes and 100 detections, and does not summarize.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}; choose one of {tuple(KINDS)}")
    with_masks = all("segmentation" in a for side in (records.truth, records.found) for a in side)
    if kind in ("mask", "boundary") and not with_masks:
        raise ValueError(f'kind={kind!r} needs masks, and these records have boxes alone; choose "box"')
    from pycocotools.cocoeval import COCOeval

    form = boundary_evaluation() if kind == "boundary" else COCOeval
    if kind == "keypoints":
        records = _with_keypoints(records)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress and its table
        evaluation = form(_coco(records, records.truth), _coco(records, _ranked(records.found, kind)), KINDS[kind])
        if kind == "keypoints":
            evaluation.params.kpt_oks_sigmas = np.asarray(records.sigmas, np.float64)
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
    """Which detections COCO matches with which objects at one IoU.

    Attributes:
        object: [found] index of the object in the records' `truth`, -1 for none.
        counted: [found] False for ignored detections: in a crowd, or beyond the best 100 of their class in an image.
        finder: [truth] index of the detection in the records' `found`, -1 for none.
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
    """The IoU of all detections with all objects of one image, [found, truth], regardless of class.

    Boundary overlaps are exact for values of `least` or more.
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
        hits: [detections] bool, whether each is right, in descending order of score.
        objects: number of ground-truth objects, at least 1.
    """
    right = np.cumsum(hits, dtype=np.float64)
    precision = right / (np.arange(1, len(hits) + 1) + np.spacing(1))
    precision = np.maximum.accumulate(precision[::-1])[::-1]  # the best at this recall or at a higher one
    place = np.searchsorted(right / objects, RECALLS, side="left")
    return np.append(precision, 0.0)[place]


def _ranked(found: list[Annotation], kind: str) -> list[Annotation]:
    """Detections with the score that ranks them for this `kind`."""
    return found if kind == "box" else [{**a, "score": a.get("mask_score", a["score"])} for a in found]


def _with_keypoints(records: Records) -> Records:
    """Records whose annotations all have keypoints: those without any have none that is labeled."""
    if records.sigmas is None:
        raise ValueError('kind="keypoints" needs detections and ground truth with keypoints')
    none = {"keypoints": [0.0] * 3 * len(records.sigmas), "num_keypoints": 0}
    truth, found = ([none | annotation for annotation in side] for side in (records.truth, records.found))
    return dataclasses.replace(records, truth=truth, found=found)


def _coco(records: Records, annotations: list[Annotation]) -> Any:
    """The annotations as pycocotools' COCO."""
    from pycocotools.coco import COCO

    # Positions instead of ids: pycocotools sorts by ids, and uses the id 0 for "no match"
    images = {image["id"]: i for i, image in enumerate(records.images, start=1)}
    categories = {class_id: i for i, class_id in enumerate(records.names, start=1)}
    coco = COCO()
    coco.dataset = {
        "images": [image | {"id": images[image["id"]]} for image in records.images],
        "categories": [{"id": categories[i], "name": name} for i, name in records.names.items()],
        # New dicts, because pycocotools modifies them
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

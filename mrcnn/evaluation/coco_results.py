"""Ground truth and detections as COCO annotations, and detections as the results json that COCO's server accepts.

In memory, `image_id` and `category_id` of an annotation are the dataset's own; in a file, they are the source's.
"""

import dataclasses
import json
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any

import numpy as np

from mrcnn.data import rle
from mrcnn.data.annotations.fields import shown
from mrcnn.data.annotations.keypoint_fields import coco_keypoints, coco_points
from mrcnn.data.sample import read_keypoints
from mrcnn.evaluation.coco_checks import check_class_ids, check_masks, check_numbers
from mrcnn.files import atomic_path
from mrcnn.inference.results import Result

Annotation = dict[str, Any]
KEYS = ("image_id", "category_id", "score")


@dataclasses.dataclass(frozen=True)
class Records:
    """The data that an evaluation compared, with masks as run lengths: about a kilobyte per instance.

    Attributes:
        images: `{"id", "height", "width"}` of each image, in the order of COCO's evaluation.
        names: class id -> name, without the background, in the same order.
        truth: annotations: `image_id`, `category_id`, `bbox` (x, y, width, height), `segmentation`, `area`, `iscrowd`.
        found: detections: the same plus `score`, without `iscrowd`; without `area` if it is the box's area.
        sigmas: of the keypoints; None if detections or ground truth have none. With them, annotations have
            `keypoints` [x, y, visibility] * K, and those of `truth` also `num_keypoints`.
    """

    images: list[dict[str, int]]
    names: dict[int, str]
    truth: list[Annotation]
    found: list[Annotation]
    sigmas: tuple[float, ...] | None = None

    def confident(self, min_score: float) -> "Records":
        """A copy with only the detections that have at least this score."""
        return dataclasses.replace(self, found=[a for a in self.found if a["score"] >= min_score])

    def places_by_score(self) -> np.ndarray:
        """Indices into `found`, [detections], best score first; equal scores by image, as COCO ranks them."""
        rank = {image["id"]: i for i, image in enumerate(self.images)}
        images = np.array([rank[annotation["image_id"]] for annotation in self.found], np.int64)
        return np.lexsort((images, -np.array([annotation["score"] for annotation in self.found], np.float64)))

    def places_by_image(self) -> list[tuple[list[int], list[int]]]:
        """For each image, its indices into `found` and `truth`."""
        places: dict[int, tuple[list[int], list[int]]] = {image["id"]: ([], []) for image in self.images}
        for side, entries in enumerate((self.found, self.truth)):
            for i, annotation in enumerate(entries):
                places[annotation["image_id"]][side].append(i)
        return list(places.values())


def ground_truth_annotations(dataset: Any, image_id: int, image_shape: Sequence[int]) -> list[Annotation]:
    """The COCO annotations of one image of a dataset.

    They come from the dataset's `annotations(image_id)` if it has that method, as datasets from COCO's json do. Else
    boxes come from `load_boxes` or, if it returns None, from the masks, and areas from the masks; an object without a
    pixel and without an annotated box is omitted, as nothing could find it.
    """
    if callable(getattr(dataset, "annotations", None)):
        annotations = dataset.annotations(image_id)
        _check_annotations(annotations, dataset, image_id, image_shape)
        return annotations
    if getattr(dataset, "masks", True) is False:
        return _boxed_annotations(dataset, image_id)
    masks, class_ids = dataset.load_mask(image_id)
    masks, class_ids = np.asarray(masks), np.asarray(class_ids)
    check_masks(masks, class_ids, image_shape, dataset.num_classes, f"the ground truth of image {image_id}")
    load_boxes = getattr(dataset, "load_boxes", None)
    boxes = load_boxes(image_id) if load_boxes is not None else None
    if boxes is not None and np.shape(boxes) != (len(class_ids), 4):
        raise ValueError(
            f"load_boxes returned shape {np.shape(boxes)} for image {image_id}, whose load_mask returns "
            f"{len(class_ids)} instances; expected ({len(class_ids)}, 4), or None to compute the boxes from the masks"
        )
    points = read_keypoints(dataset, image_id, len(class_ids)) if getattr(dataset, "skeleton", None) else None
    annotations = []
    for i, runs in enumerate(_encoded(masks)):
        area, box = float(rle.area(runs)), _xywh(rle.box(runs) if boxes is None else boxes[i])
        if area or box[2] * box[3]:
            annotation = _annotation(image_id, abs(class_ids[i]), box, runs)
            annotation |= {"area": area, "iscrowd": int(class_ids[i] < 0)}
            annotations.append(annotation | ({} if points is None else coco_keypoints(points[i])))
    return annotations


def _boxed_annotations(dataset: Any, image_id: int) -> list[Annotation]:
    """Those of a dataset of boxes alone; an area is that of the box."""
    boxes, class_ids = (
        np.asarray(dataset.load_boxes(image_id), np.float64),
        np.asarray(dataset.load_class_ids(image_id)),
    )
    what = f"the ground truth of image {image_id}"
    check_class_ids(class_ids, dataset.num_classes, what)
    check_numbers(boxes.reshape(-1, 4), np.ones(len(boxes)), len(class_ids), what)
    annotations = [_annotation(image_id, abs(i), _xywh(box), None) for i, box in zip(class_ids, boxes, strict=True)]
    return [
        annotation | {"area": annotation["bbox"][2] * annotation["bbox"][3], "iscrowd": int(class_id < 0)}
        for annotation, class_id in zip(annotations, class_ids, strict=True)
        if annotation["bbox"][2] * annotation["bbox"][3]
    ]


def detection_annotations(
    detection: Mapping[str, Any], dataset: Any, image_id: int, image_shape: Sequence[int], *, masks: bool = True
) -> list[Annotation]:
    """The detections in one image of a dataset as COCO annotations with scores; nothing is rounded.

    Accepts any dict whose `masks` are [H, W, N] or a list of run lengths; for a `Result`, full masks are not computed.
    `mask_scores`, if present, rank masks and boundaries; `scores` rank boxes.
    Detections of classes that the image's source does not annotate are omitted. With masks=False masks are, too.
    """
    class_ids, what = np.asarray(detection["class_ids"]), f"the detections in image {image_id}"
    check_class_ids(class_ids, dataset.num_classes, what)
    encoded: Sequence[rle.Rle | None] = [None] * len(class_ids)
    if masks:
        given = detection.rle if isinstance(detection, Result) else detection["masks"]
        encoded = _runs(given, class_ids, image_shape, dataset.num_classes, what)
    boxes = np.asarray(detection["rois"], np.float64).reshape(-1, 4)
    scores = np.asarray(detection["scores"], np.float64).reshape(-1)
    check_numbers(boxes, scores, len(class_ids), what)
    ranks = [{"score": score} for score in scores.tolist()]
    if "mask_scores" in detection:
        of_masks = np.asarray(detection["mask_scores"], np.float64).reshape(-1)
        check_numbers(boxes, of_masks, len(class_ids), f"{what}, mask_scores")
        ranks = [rank | {"mask_score": score} for rank, score in zip(ranks, of_masks.tolist(), strict=True)]
    if "keypoints" in detection:
        points = _checked_keypoints(detection["keypoints"], len(class_ids), what)
        ranks = [rank | {"keypoints": own.tolist()} for rank, own in zip(ranks, points, strict=True)]
    known = set(map(int, dataset.source_class_ids[dataset.image_info[image_id]["source"]]))
    return [
        _annotation(image_id, class_id, _xywh(box), runs) | rank
        for runs, class_id, box, rank in zip(encoded, class_ids.tolist(), boxes.tolist(), ranks, strict=True)
        if class_id in known
    ]


@contextmanager
def results_file(path: str | os.PathLike[str] | None, dataset: Any) -> Iterator[Callable[[list[Annotation]], None]]:
    """Yields a function that writes detections to a results json, image by image; with None, it does nothing.

    The complete file appears when the block ends without an error. COCO's server requires COCO's image ids, which
    datasets read from COCO's json have.
    """
    if path is None:
        yield lambda found: None
        return
    with atomic_path(os.fspath(path)) as temporary, open(temporary, "w", encoding="utf-8") as file:
        writer = _Writer(file, dataset)
        yield writer.write
        writer.finish()


class _Writer:
    """Writes a json list of records incrementally, one per line."""

    def __init__(self, file: IO[str], dataset: Any) -> None:
        self.file, self.dataset, self.separator = file, dataset, "[\n"

    def write(self, found: list[Annotation]) -> None:
        for record in source_records(found, self.dataset):
            self.file.write(self.separator + json.dumps(record, allow_nan=False))
            self.separator = ",\n"

    def finish(self) -> None:
        self.file.write("[]\n" if self.separator == "[\n" else "\n]\n")


def source_records(found: Iterable[Annotation], dataset: Any) -> list[dict[str, Any]]:
    """Detections with the ids of their source, as in a COCO results json."""
    records = []
    for annotation in found:
        info = dataset.image_info[annotation["image_id"]]
        category = dataset.get_source_class_id(annotation["category_id"], info["source"])
        ids = {"image_id": _plain(info["id"]), "category_id": _plain(category)}
        keys = ("bbox", "segmentation", "keypoints", "score", "mask_score")
        records.append(ids | {key: annotation[key] for key in keys if key in annotation})
    return records


def read_results(results: str | os.PathLike | Sequence[Mapping[str, Any]], dataset: Any) -> list[Annotation]:
    """Detections from a results json, or from its parsed content, with the ids of the dataset.

    As in pycocotools, records without boxes get the boxes of their masks, and then the mask decides their size.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: not a list of results, or a record (which is named) that does not belong to the dataset.
    """
    name, content = _content(results)
    images, classes = _image_numbers(dataset), _class_numbers(dataset)
    found = []
    boxed = masked = None
    for i, record in enumerate(content):
        what = f"{name}, result {i}"
        missing = [key for key in KEYS if not isinstance(record, Mapping) or key not in record]
        if missing:
            raise ValueError(f"{what}: field {missing[0]!r} is missing; results have {KEYS}, 'segmentation' and 'bbox'")
        has_box, has_mask = _has_box(record), "segmentation" in record
        masked = has_mask if masked is None else masked
        if has_mask != masked or not (has_mask or has_box):
            others = "" if has_mask == masked else f"; results before it have {'one' if masked else 'none'}"
            raise ValueError(f"{what}: field 'segmentation' is {'there' if has_mask else 'missing'}{others}")
        boxed = has_box if boxed is None else boxed
        if has_box != boxed:
            raise ValueError(f"{what}: field 'bbox': earlier results have {'one' if boxed else 'none'}, but not this")
        found.append(_read(record, dataset, images, classes, what))
    return found


def _read(
    record: Mapping[str, Any], dataset: Any, images: dict[Any, int], classes: Mapping[str, dict[Any, int]], what: str
) -> Annotation:
    """A checked record with the dataset's ids."""
    image_id = _known(images, record["image_id"])
    if image_id is None:
        raise ValueError(
            f"{what}: field 'image_id': {shown(record['image_id'])} is not among the dataset's {len(images)}"
        )
    source = dataset.image_info[image_id]["source"]
    category_id = _known(classes[source], record["category_id"])
    if category_id is None:
        raise ValueError(f"{what}: field 'category_id': {shown(record['category_id'])} is not a class of {source!r}")
    try:
        runs = rle.compress(record["segmentation"]) if "segmentation" in record else None
    except ValueError as error:
        raise ValueError(f"{what}: field 'segmentation': {error}") from error
    box, area = record.get("bbox"), {}
    if runs is not None and not _has_box(record):
        box, area = _xywh(rle.box(runs)), {"area": float(rle.area(runs))}
    if not isinstance(box, list | tuple) or len(box) != 4 or not all(map(_is_number, box)) or min(box[2:]) < 0:
        raise ValueError(f"{what}: field 'bbox': expected [x, y, width, height], finite numbers, got {shown(box)}")
    points = _result_keypoints(record, dataset, what)
    scores = {key: record[key] for key in ("score", "mask_score") if key in record}
    for key, value in scores.items():
        if not _is_number(value):
            raise ValueError(f"{what}: field {key!r}: expected a finite number, got {shown(value)}")
    return _annotation(image_id, category_id, list(box), runs) | area | scores | points


def _result_keypoints(record: Mapping[str, Any], dataset: Any, what: str) -> dict[str, list[float]]:
    """The field `keypoints` of a record, where it has one and the dataset has keypoints; checked."""
    skeleton = getattr(dataset, "skeleton", None)
    if skeleton is None or "keypoints" not in record:
        return {}
    values = record["keypoints"]
    if not isinstance(values, list | tuple) or len(values) != 3 * skeleton.count or not all(map(_is_number, values)):
        raise ValueError(
            f"{what}: field 'keypoints': expected {3 * skeleton.count} numbers, x, y and a score of each of the "
            f"dataset's {skeleton.count} keypoints, got {shown(values)}"
        )
    return {"keypoints": list(values)}


def _checked_keypoints(keypoints: Any, count: int, what: str) -> np.ndarray:
    """[N, 3 * K] of (x, y, score) as COCO has them, of keypoints [N, K, (y, x, score)]."""
    points = np.array(keypoints, np.float64)
    if points.ndim != 3 or points.shape[0] != count or points.shape[2] != 3 or not np.isfinite(points).all():
        raise ValueError(
            f"{what}: keypoints of shape {points.shape} for {count} class ids; expected [{count}, K, (y, x, score)], "
            "finite numbers"
        )
    return coco_points(points)


def _has_box(record: Mapping[str, Any]) -> bool:
    """Whether a record has its own box; pycocotools treats an empty list as none."""
    box = record.get("bbox")
    return box is not None and not (isinstance(box, list | tuple) and not box)


def _known(numbers: Mapping[Any, int], source_id: Any) -> int | None:
    """The dataset's number for a source id; None for an unknown or invalid id."""
    if isinstance(source_id, bool | np.bool_):  # True would be 1
        return None
    try:
        return numbers.get(source_id)
    except TypeError:  # a list or a dict
        return None


def _is_number(value: Any) -> bool:
    """Whether a value is a finite number that fits a float; not True or False."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _content(results: Any) -> tuple[str, Sequence]:
    """A name for messages, and the list of records."""
    if isinstance(results, str | os.PathLike):
        name = os.fspath(results)
        try:
            with open(name, encoding="utf-8") as file:
                results = json.load(file)
        except FileNotFoundError:
            raise FileNotFoundError(f"no results json at {name!r}; check the path") from None
        except ValueError as error:
            raise ValueError(f"{name} is not valid json ({error}): damaged or truncated; detect again") from error
    else:
        name = "the results"
    if not isinstance(results, list | tuple):
        raise ValueError(f"{name}: expected a list of results, got {type(results).__name__}; is it a results json?")
    return name, results


def _image_numbers(dataset: Any) -> dict[Any, int]:
    """The source's image id -> the dataset's."""
    numbers = {dataset.image_info[i]["id"]: int(i) for i in dataset.image_ids}
    if len(numbers) < len(dataset.image_ids):
        raise ValueError(
            "images of the dataset share source ids, so results cannot be assigned to them; evaluate each source"
        )
    return numbers


def _class_numbers(dataset: Any) -> Mapping[str, dict[Any, int]]:
    """For each source, its category id -> the dataset's."""
    numbers: dict[str, dict[Any, int]] = defaultdict(dict)
    for i, info in enumerate(dataset.class_info[1:], 1):
        numbers[info["source"]][info["id"]] = i
    return numbers


def _check_annotations(
    annotations: Iterable[Annotation], dataset: Any, image_id: int, image_shape: Sequence[int]
) -> None:
    for annotation in annotations:
        size = list(annotation["segmentation"]["size"]) if "segmentation" in annotation else list(image_shape)
        class_id = annotation["category_id"]
        if size != list(image_shape) or not 0 < class_id < dataset.num_classes:
            raise ValueError(
                f"the ground truth of image {image_id}: an annotation has size {size} and class id {class_id}, but the "
                f"image has {list(image_shape)} and the dataset the class ids 1 to {dataset.num_classes - 1}"
            )


def _runs(masks: Any, class_ids: np.ndarray, image_shape: Sequence[int], num_classes: int, what: str) -> list[rle.Rle]:
    """The run lengths of masks [H, W, N], or `masks` itself if it is a list of run lengths; checked."""
    if not isinstance(masks, list):
        masks = np.asarray(masks)
        check_masks(masks, class_ids, image_shape, num_classes, what)
        return _encoded(masks)
    if [tuple(runs["size"]) for runs in masks] != [tuple(image_shape)] * len(class_ids):
        raise ValueError(
            f"{what}: {len(masks)} run lengths of sizes {sorted({tuple(runs['size']) for runs in masks})} "
            f"for {len(class_ids)} class ids and an image of {tuple(image_shape)}"
        )
    check_class_ids(class_ids, num_classes, what)
    return masks


def _encoded(masks: np.ndarray) -> list[rle.Rle]:
    return rle.encode_all(masks) if masks.ndim == 3 else []  # without instances, any empty array is valid


def _annotation(image_id: int, class_id: int, box: list[float], runs: rle.Rle | None) -> Annotation:
    mask = {} if runs is None else {"segmentation": runs}
    return {"image_id": image_id, "category_id": int(class_id), "bbox": box, **mask}


def _xywh(box: Sequence[float]) -> list[float]:
    y1, x1, y2, x2 = (float(value) for value in box)
    return [x1, y1, x2 - x1, y2 - y1]


def _plain(value: Any) -> Any:
    """Converts numpy numbers to Python numbers, which json supports."""
    return value.item() if isinstance(value, np.generic) else value

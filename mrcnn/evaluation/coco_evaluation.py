"""COCO's official metrics for a model on a dataset, or for a results json.

The protocol is pycocotools' own, see `mrcnn.evaluation.coco_metrics`; this file runs the model and creates tables.
`mrcnn.evaluation.analysis` shows what went wrong, and where, from the `records` of the results.
"""

import dataclasses
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mrcnn.evaluation.coco_metrics import ABSENT, METRICS, coco_numbers
from mrcnn.evaluation.coco_results import (
    Records,
    detection_annotations,
    ground_truth_annotations,
    read_results,
    results_file,
)
from mrcnn.inference.class_names import WithClassesOf

__all__ = ["METRICS", "Records", "Results", "evaluate", "evaluate_results"]


@dataclasses.dataclass(frozen=True)
class Results:
    """The numbers of one evaluation.

    Attributes:
        box, mask: the 12 COCO numbers by name (`METRICS`), 0..1; -1 if the ground truth has nothing of that kind.
            `mask` is None if the model or the dataset has no masks.
        per_class: class name -> `box_ap`, `box_ap50`, `mask_ap`, `mask_ap50` and, if requested, `boundary_ap`; with
            keypoints also `keypoint_ap` and `keypoint_ap50`.
        images, instances: number of evaluated images and of annotated objects other than crowds.
        ms_per_image: median milliseconds per call of `detect`, without the first, which traces the graph; None if no
            model was run.
        boundary: the 12 numbers of Boundary AP; None if not requested.
        keypoints: the 10 OKS numbers (`mrcnn.evaluation.coco_metrics.KEYPOINT_METRICS`); None if the model or the
            dataset has no keypoints.
        records: the compared data, for `mrcnn.evaluation.analysis`; not part of `as_dict`.
    """

    box: dict[str, float]
    mask: dict[str, float] | None
    per_class: dict[str, dict[str, float]]
    images: int
    instances: int
    ms_per_image: float | None
    boundary: dict[str, float] | None = None
    keypoints: dict[str, float] | None = None
    records: Records | None = dataclasses.field(default=None, repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """All numbers in plain types, ready for json."""
        return dataclasses.asdict(dataclasses.replace(self, records=None), dict_factory=_without_records)

    def __str__(self) -> str:
        time = "" if self.ms_per_image is None else f", {self.ms_per_image:.0f} ms per image"
        kinds = {"box": self.box, "mask": self.mask, "boundary": self.boundary}
        lines = [f"{self.images} images, {self.instances} instances{time}"]
        lines += _table({kind: numbers for kind, numbers in kinds.items() if numbers is not None})
        lines += ["", *_table({"keypoints": self.keypoints})] if self.keypoints else []
        if len(self.per_class) > 1:
            lines += ["", *_table(self.per_class)]
        return "\n".join(lines)


def evaluate(
    model: Any,
    dataset: Any,
    image_ids: Iterable[int] | None = None,
    limit: int | None = None,
    progress: bool = True,
    *,
    boundary: bool = False,
    results: str | os.PathLike | None = None,
) -> Results:
    """Runs `model.detect` on every image of a dataset and compares with its annotations by COCO's protocol.

    Boxes and masks are compared at the image's original size. Masks are kept as run lengths: memory grows by about a
    kilobyte per instance, regardless of image size. Annotations come from the dataset's `annotations(image_id)` if it
    has that method; else boxes come from `dataset.load_boxes` or, if it returns None, from the masks, and areas from
    the masks. Detections of classes that an image's source does not annotate are ignored, as they cannot be judged.
    Keypoints, if the model and the dataset have them, are compared by OKS with the sigmas of `dataset.skeleton`.

    Args:
        model: any object whose `detect([image])` returns `[{"rois", "class_ids", "scores", "masks"}]`, like `MaskRCNN`.
        dataset: a prepared `Dataset`. Negative class ids of `load_mask` are crowds.
        image_ids: the images to evaluate; None for all.
        limit: evaluate only the first `limit` images.
        progress: show a progress bar with the remaining time.
        boundary: also compute Boundary AP (`mrcnn.evaluation.boundary`).
        results: path for the detections as a COCO results json, with the ids of their source. They are written during
            the evaluation; the file appears when all images are done.

    Raises:
        ValueError: no images, an unknown or repeated image id, no instance in any image, masks that do not have their
            image's shape, or invalid boxes, scores or class ids.
        OSError: `results` cannot be written.
    """
    image_ids = _chosen_images(dataset, image_ids, limit)
    records = Records(*_order(dataset, image_ids), [], [])
    sizes = {image["id"]: image for image in records.images}
    seconds: list[float] = []
    masks = _has_masks(model, dataset)
    _check_boundary(boundary, masks)
    with results_file(results, dataset) as write:
        for image_id in _progress_bar(image_ids, progress):
            image = dataset.load_image(image_id)
            shape = image.shape[:2]
            sizes[image_id] |= {"height": shape[0], "width": shape[1]}
            records.truth.extend(ground_truth_annotations(dataset, image_id, shape))
            start = time.perf_counter()
            (detection,) = model.detect([image])
            seconds.append(time.perf_counter() - start)
            found = detection_annotations(detection, dataset, image_id, shape, masks=masks)
            write(found)
            records.found.extend(found)
            records = dataclasses.replace(records, sigmas=_sigmas(dataset, "keypoints" in detection, records.sigmas))
    return _results(records, masks, boundary, 1000 * float(np.median(seconds[1:] or seconds)))


def evaluate_results(
    results: str | os.PathLike | Sequence[Mapping[str, Any]],
    dataset: Any,
    image_ids: Iterable[int] | None = None,
    limit: int | None = None,
    progress: bool = True,
    *,
    boundary: bool = False,
) -> Results:
    """The results of `evaluate` for existing detections, without a model.

    Args:
        results: path of a COCO results json, or its parsed content; each record has `image_id` and `category_id` of the
            source, `segmentation` (run lengths), `score` and optionally `bbox` [x, y, width, height].
        dataset, image_ids, limit, progress, boundary: as in `evaluate`; results of other images are ignored.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: an invalid record, or one that does not belong to the dataset; also the errors of `evaluate`.
    """
    image_ids = _chosen_images(dataset, image_ids, limit)
    found = read_results(results, dataset)
    records = Records(*_order(dataset, image_ids), [], [])
    sizes = {image["id"]: image for image in records.images}
    for image_id in _progress_bar(image_ids, progress):
        shape = _image_shape(dataset, image_id)
        sizes[image_id] |= {"height": shape[0], "width": shape[1]}
        records.truth.extend(ground_truth_annotations(dataset, image_id, shape))
    masks = _has_masks(None, dataset) and all("segmentation" in annotation for annotation in found)
    _check_boundary(boundary, masks)
    for i, annotation in enumerate(found if masks else ()):
        image, size = sizes.get(annotation["image_id"]), annotation["segmentation"]["size"]
        if image is not None and size != [image["height"], image["width"]]:
            raise ValueError(
                f"result {i}: its mask has the size {size}, but image {annotation['image_id']} has "
                f"{[image['height'], image['width']]} (height, width); the results are of other images"
            )
    records.found.extend(annotation for annotation in found if annotation["image_id"] in sizes)
    records = dataclasses.replace(records, sigmas=_sigmas(dataset, any("keypoints" in a for a in found)))
    return _results(records, masks, boundary, None)


def _has_masks(model: Any, dataset: Any) -> bool:
    """Whether there are masks to compare: not of a model without a mask head, nor of a dataset of boxes alone."""
    model = model.model if isinstance(model, WithClassesOf) else model
    head = getattr(getattr(model, "config", None), "MASK_HEAD", "unknown")
    return head is not None and getattr(dataset, "masks", True) is not False


def _check_boundary(boundary: bool, masks: bool) -> None:
    if boundary and not masks:
        raise ValueError("boundary=True needs masks, and the model or the dataset has none; leave it out")


def _results(records: Records, masks: bool, boundary: bool, milliseconds: float | None) -> Results:
    """The results for the compared data."""
    instances = sum(not annotation["iscrowd"] for annotation in records.truth)
    if not instances:
        raise ValueError(
            f"the {len(records.images)} evaluated images contain no instance, so there is nothing to measure; "
            "choose images with annotations"
        )
    box, box_classes = coco_numbers(records, "box")
    mask, mask_classes = coco_numbers(records, "mask") if masks else (None, {})
    edge, edge_classes = coco_numbers(records, "boundary") if boundary else (None, {})
    points, point_classes = coco_numbers(records, "keypoints") if records.sigmas else (None, {})
    per_class = {}
    for i in sorted(records.names):
        aps = {"box_ap": box_classes[i][0], "box_ap50": box_classes[i][1]}
        aps |= {"mask_ap": mask_classes[i][0], "mask_ap50": mask_classes[i][1]} if masks else {}
        aps |= {"boundary_ap": edge_classes[i][0]} if boundary else {}
        aps |= dict(zip(("keypoint_ap", "keypoint_ap50"), point_classes[i], strict=True)) if point_classes else {}
        per_class[records.names[i]] = aps
    return Results(box, mask, per_class, len(records.images), instances, milliseconds, edge, points, records)


def _sigmas(dataset: Any, found: bool, known: tuple[float, ...] | None = None) -> tuple[float, ...] | None:
    """Those of the dataset's keypoints, where any detection has keypoints too."""
    skeleton = getattr(dataset, "skeleton", None)
    return tuple(skeleton.sigmas) if found and skeleton is not None else known


def _chosen_images(dataset: Any, image_ids: Iterable[int] | None, limit: int | None) -> list[int]:
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit}; pass at least 1, or None for all images")
    known = [int(i) for i in dataset.image_ids]
    chosen = known if image_ids is None else [int(i) for i in image_ids]
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        raise ValueError(f"image ids {unknown[:5]} are not in the dataset, which has {len(known)} images")
    repeated = [i for i, count in Counter(chosen).items() if count > 1]
    if repeated:
        raise ValueError(f"image ids {repeated[:5]} are repeated; pass every image once")
    if not chosen:
        raise ValueError(
            f"no images to evaluate: the dataset has {len(known)} and {len(chosen)} were chosen; "
            "add images and call prepare()"
        )
    return chosen[:limit]


def _order(dataset: Any, image_ids: list[int]) -> tuple[list[dict[str, int]], dict[int, str]]:
    """Images, without their sizes, and class names, sorted by the ids of their source if these can be sorted.

    pycocotools uses this order, which decides the rank of detections with equal scores and the rounding of sums over
    classes, so the numbers agree to the last digit.
    """
    names = _category_names(dataset)
    image_ids = _by_source_id(image_ids, [dataset.image_info[i]["id"] for i in image_ids])
    class_ids = _by_source_id(list(names), [dataset.class_info[i]["id"] for i in names])
    return [{"id": i} for i in image_ids], {i: names[i] for i in class_ids}


def _by_source_id(ids: list[int], source_ids: list[Any]) -> list[int]:
    sortable = any(all(isinstance(i, kind) for i in source_ids) for kind in (int | np.integer, str))
    if not sortable or len(set(source_ids)) < len(ids):
        return sorted(ids)
    return [i for _, i in sorted(zip(source_ids, ids, strict=True))]


def _image_shape(dataset: Any, image_id: int) -> tuple[int, int]:
    """(height, width), from the image's record if it has them."""
    info = dataset.image_info[image_id]
    if info.get("height") and info.get("width"):
        return info["height"], info["width"]
    return dataset.load_image(image_id).shape[:2]


def _category_names(dataset: Any) -> dict[int, str]:
    """Class id -> name, without the background; the id is appended to names that several sources share."""
    count = Counter(dataset.class_names)
    return {i: name if count[name] == 1 else f"{name} ({i})" for i, name in enumerate(dataset.class_names) if i > 0}


def _progress_bar(image_ids: list[int], progress: bool) -> Iterable[int]:
    from tqdm import tqdm

    return tqdm(image_ids, desc="evaluating", unit="image", disable=not progress)


def _without_records(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value for key, value in items if key != "records"}


def _table(rows: dict[str, dict[str, float]]) -> list[str]:
    """Aligned lines: a header with the metric names, then one row per key."""
    names = ("", *next(iter(rows.values())))
    cells = [names, *((name, *map(_number, numbers.values())) for name, numbers in rows.items())]
    first, *widths = (max(map(len, column)) for column in zip(*cells, strict=True))
    return [
        "  ".join([row[0].ljust(first), *(cell.rjust(width) for cell, width in zip(row[1:], widths, strict=True))])
        for row in cells
    ]


def _number(value: float) -> str:
    return "-" if value == ABSENT else f"{value:.3f}"

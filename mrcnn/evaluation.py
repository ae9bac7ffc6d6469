"""COCO's official numbers for a model on a dataset.

The protocol is pycocotools' own: AP averaged over IoU 0.50 to 0.95, crowds ignored, at most 100 detections an image.
This file only brings a dataset's ground truth and a model's detections into its form, and its numbers into a table.
"""

import contextlib
import dataclasses
import io
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
ABSENT = -1.0  # what pycocotools reports where the ground truth has nothing to find


@dataclasses.dataclass(frozen=True)
class Results:
    """The numbers of one evaluation.

    Attributes:
        box, mask: the 12 COCO numbers by name (`METRICS`), 0..1; -1 where the ground truth holds nothing of that kind.
        per_class: class name to `box_ap`, `box_ap50`, `mask_ap`, `mask_ap50`.
        images, instances: how many images, and how many annotated objects that are no crowds, were evaluated.
        ms_per_image: median milliseconds of a call of `detect`, without the first, which traces the graph.
    """

    box: dict[str, float]
    mask: dict[str, float]
    per_class: dict[str, dict[str, float]]
    images: int
    instances: int
    ms_per_image: float

    def as_dict(self) -> dict[str, Any]:
        """Everything in plain types, ready for json."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        summary = f"{self.images} images, {self.instances} instances, {self.ms_per_image:.0f} ms an image"
        lines = [summary, *_table({"box": self.box, "mask": self.mask})]
        if len(self.per_class) > 1:
            lines += ["", *_table(self.per_class)]
        return "\n".join(lines)


def evaluate(
    model: Any, dataset: Any, image_ids: Iterable[int] | None = None, limit: int | None = None, progress: bool = True
) -> Results:
    """Runs `model.detect` over a dataset, image by image, and compares with its annotations by COCO's protocol.

    Boxes and masks are compared at the photograph's own size. Masks are kept as run lengths, so memory hardly grows
    with the number of images. Ground-truth boxes come from `dataset.load_boxes` where it gives them, else from the
    masks; areas always from the masks.
    Detections of classes that an image's source does not annotate are left out, as nothing says whether they are right.

    Args:
        model: anything whose `detect([image])` gives `[{"rois", "class_ids", "scores", "masks"}]`, as `MaskRCNN` does.
        dataset: a prepared `Dataset`. Negative class ids of `load_mask` are crowds.
        image_ids: the images to take; None for all.
        limit: take only the first so many.
        progress: show a bar with the time left.

    Raises:
        ValueError: no images, an unknown or repeated image id, no instance in any image, masks that do not have their
            image's shape, boxes or class ids that do not fit.
    """
    image_ids = _chosen_images(dataset, image_ids, limit)
    truth: list[dict] = []
    found: list[dict] = []
    images: list[dict] = []
    seconds: list[float] = []
    for image_id in _progress_bar(image_ids, progress):
        image = dataset.load_image(image_id)
        images.append({"id": image_id, "height": image.shape[0], "width": image.shape[1]})
        truth += ground_truth_annotations(dataset, image_id, image.shape[:2])
        start = time.perf_counter()
        (detection,) = model.detect([image])
        seconds.append(time.perf_counter() - start)
        found += detection_annotations(detection, dataset, image_id, image.shape[:2])
    instances = sum(not annotation["iscrowd"] for annotation in truth)
    if not instances:
        raise ValueError(
            f"the {len(images)} evaluated images hold no instance, so there is nothing to measure; "
            "choose images with annotations"
        )
    names = _category_names(dataset)
    box, box_classes = coco_numbers(images, names, truth, found, "bbox")
    mask, mask_classes = coco_numbers(images, names, truth, found, "segm")
    per_class = {
        names[i]: {"box_ap": box_ap, "box_ap50": box_ap50, "mask_ap": mask_ap, "mask_ap50": mask_ap50}
        for i, (box_ap, box_ap50), (mask_ap, mask_ap50) in zip(names, box_classes, mask_classes, strict=True)
    }
    milliseconds = 1000 * float(np.median(seconds[1:] or seconds))
    return Results(box, mask, per_class, len(images), instances, milliseconds)


def ground_truth_annotations(dataset: Any, image_id: int, image_shape: Sequence[int]) -> list[dict]:
    """The COCO annotations of one image of a dataset, without their ids.

    An object without a pixel and without an annotated box is left out: nothing could find it.
    """
    masks, class_ids = dataset.load_mask(image_id)
    masks, class_ids = np.asarray(masks), np.asarray(class_ids)
    _check(masks, class_ids, image_shape, dataset.num_classes, f"the ground truth of image {image_id}")
    load_boxes = getattr(dataset, "load_boxes", None)
    boxes = load_boxes(image_id) if load_boxes is not None else None
    if boxes is not None and np.shape(boxes) != (len(class_ids), 4):
        raise ValueError(
            f"load_boxes gave shape {np.shape(boxes)} for image {image_id}, whose load_mask gives {len(class_ids)} "
            f"instances; expected ({len(class_ids)}, 4), or None to take the boxes from the masks"
        )
    annotations = []
    for i, (rle, area, mask_box) in enumerate(_encoded(masks)):
        box = mask_box if boxes is None else _xywh(boxes[i])
        if area or box[2] * box[3]:
            crowd = int(class_ids[i] < 0)
            annotations.append(_annotation(image_id, abs(class_ids[i]), box, rle, area) | {"iscrowd": crowd})
    return annotations


def detection_annotations(detection: dict, dataset: Any, image_id: int, image_shape: Sequence[int]) -> list[dict]:
    """The COCO annotations, with scores, of what `detect` found in one image of a dataset."""
    masks, class_ids = np.asarray(detection["masks"]), np.asarray(detection["class_ids"])
    _check(masks, class_ids, image_shape, dataset.num_classes, f"the detections in image {image_id}")
    known = set(map(int, dataset.source_class_ids[dataset.image_info[image_id]["source"]]))
    annotations = []
    for i, (rle, area, _) in enumerate(_encoded(masks)):
        if int(class_ids[i]) in known:
            annotation = _annotation(image_id, class_ids[i], _xywh(detection["rois"][i]), rle, area)
            annotations.append(annotation | {"score": float(detection["scores"][i]), "iscrowd": 0})
    return annotations


def coco_numbers(
    images: list[dict], names: dict[int, str], truth: list[dict], found: list[dict], kind: str
) -> tuple[dict[str, float], list[tuple[float, float]]]:
    """pycocotools' 12 numbers for `kind` "bbox" or "segm", and (AP, AP50) of every class in the order of `names`."""
    from pycocotools.cocoeval import COCOeval

    # The official evaluation judges the size of a detection by its box for boxes and by its mask for masks.
    if kind == "bbox":
        found = [annotation | {"area": annotation["bbox"][2] * annotation["bbox"][3]} for annotation in found]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress and its table
        evaluation = COCOeval(_coco(images, names, truth), _coco(images, names, found), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # [IoU, recall, class] for every size and 100 detections
    per_class = [(_mean(precision[:, :, i]), _mean(precision[0, :, i])) for i in range(len(names))]
    return dict(zip(METRICS, map(float, evaluation.stats), strict=True)), per_class


def _chosen_images(dataset: Any, image_ids: Iterable[int] | None, limit: int | None) -> list[int]:
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit}; give at least 1, or None for all images")
    known = [int(i) for i in dataset.image_ids]
    chosen = known if image_ids is None else [int(i) for i in image_ids]
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        raise ValueError(f"image ids {unknown[:5]} are not in the dataset, which has {len(known)} images")
    repeated = [i for i, count in Counter(chosen).items() if count > 1]
    if repeated:
        raise ValueError(f"image ids {repeated[:5]} are given more than once; every image counts once")
    if not chosen:
        raise ValueError(
            f"no images to evaluate: the dataset has {len(known)} and {len(chosen)} were chosen; "
            "add images and call prepare()"
        )
    return chosen[:limit]


def _check(masks: np.ndarray, class_ids: np.ndarray, image_shape: Sequence[int], num_classes: int, what: str) -> None:
    if not len(class_ids) and not masks.size:  # without instances any empty array will do
        return
    expected = (*image_shape, len(class_ids))
    if masks.shape != expected:
        raise ValueError(
            f"{what}: masks have shape {masks.shape}, the image and its {len(class_ids)} class ids ask for {expected}"
        )
    wrong = [int(i) for i in class_ids if not 0 < abs(i) < num_classes]
    if wrong:
        raise ValueError(
            f"{what}: class ids {wrong[:5]} are not among the dataset's 1 to {num_classes - 1}; "
            "model and dataset must have the same classes in the same order"
        )


def _encoded(masks: np.ndarray) -> Iterable[tuple[dict, float, list[float]]]:
    """Run lengths, area and box (x, y, width, height) of every mask of [H, W, N], one at a time to save memory."""
    from pycocotools import mask as coco_mask

    for i in range(masks.shape[-1] if masks.ndim == 3 else 0):
        rle = coco_mask.encode(np.asfortranarray(masks[:, :, i] != 0, dtype=np.uint8))
        yield rle, float(coco_mask.area(rle)), coco_mask.toBbox(rle).tolist()


def _xywh(box: Sequence[float]) -> list[float]:
    y1, x1, y2, x2 = (float(value) for value in box)
    return [x1, y1, x2 - x1, y2 - y1]


def _annotation(image_id: int, class_id: int, box: list[float], rle: dict, area: float) -> dict:
    return {"image_id": image_id, "category_id": int(class_id), "bbox": box, "segmentation": rle, "area": area}


def _coco(images: list[dict], names: dict[int, str], annotations: list[dict]) -> Any:
    from pycocotools.coco import COCO

    coco = COCO()
    # Ids start at 1: pycocotools marks "no match" by the id 0. The copies are needed as it writes into the annotations.
    numbered = [annotation | {"id": i} for i, annotation in enumerate(annotations, start=1)]
    categories = [{"id": i, "name": name} for i, name in names.items()]
    coco.dataset = {"images": images, "categories": categories, "annotations": numbered}
    coco.createIndex()
    return coco


def _category_names(dataset: Any) -> dict[int, str]:
    """Class id to name, without the background; the id is added to names that several sources share."""
    count = Counter(dataset.class_names)
    return {i: name if count[name] == 1 else f"{name} ({i})" for i, name in enumerate(dataset.class_names) if i > 0}


def _progress_bar(image_ids: list[int], progress: bool) -> Iterable[int]:
    from tqdm import tqdm

    return tqdm(image_ids, desc="evaluating", unit="image", disable=not progress)


def _mean(precision: np.ndarray) -> float:
    valid = precision[precision > ABSENT]
    return float(valid.mean()) if valid.size else ABSENT


def _number(value: float) -> str:
    return "-" if value == ABSENT else f"{value:.3f}"


def _table(rows: dict[str, dict[str, float]]) -> list[str]:
    """Aligned lines: the names of the numbers, then one row for every key."""
    names = ("", *next(iter(rows.values())))
    cells = [names, *((name, *map(_number, numbers.values())) for name, numbers in rows.items())]
    first, *widths = (max(map(len, column)) for column in zip(*cells, strict=True))
    return [
        "  ".join([row[0].ljust(first), *(cell.rjust(width) for cell, width in zip(row[1:], widths, strict=True))])
        for row in cells
    ]

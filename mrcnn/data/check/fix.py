"""A cleaned copy of a dataset in COCO format, with only what training would use."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mrcnn.data import rle
from mrcnn.data.annotations.annotated import AnnotatedDataset
from mrcnn.data.annotations.keypoint_fields import coco_category, coco_keypoints
from mrcnn.data.annotations.outlines import Polygons
from mrcnn.data.check.findings import Region, beyond, may_cross, same_masks
from mrcnn.data.dataset import Dataset
from mrcnn.data.images import ImageFile
from mrcnn.data.sample import read_instances, read_keypoints
from mrcnn.files import write_atomically

ANNOTATIONS, IMAGES = "annotations.json", "images"


def check_empty(folder: str | os.PathLike) -> None:
    """Raises ValueError if the folder for a copy exists and is not empty, or is a file."""
    path = Path(folder)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"{os.fspath(folder)!r} is not an empty folder; choose a new one for the cleaned copy")


def write_fixed(folder: str | os.PathLike, dataset: Dataset, *, progress: bool = False) -> dict[str, int]:
    """Writes a cleaned copy to a new folder: images/ and annotations.json, which `load_dataset(folder)` reads.

    Unreadable images, masks without pixels, and duplicate masks of one class are left out. Polygons that leave the
    image or cross themselves become RLE of the pixels used in training; boxes and areas are those of the masks. Images
    are hard-linked if the file system allows it, else copied. The annotations are written last.

    Returns:
        The number of "images" and "instances" written.

    Raises ValueError if the folder is not empty, OSError if it cannot be written.
    """
    check_empty(folder)
    root = Path(folder)
    (root / IMAGES).mkdir(parents=True, exist_ok=True)
    content: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": [], "categories": []}
    more = {} if dataset.skeleton is None else coco_category(dataset.skeleton)
    content["categories"] = [{"id": i, "name": name} | more for i, name in enumerate(dataset.class_names) if i]
    for image_id in tqdm(dataset.image_ids.tolist(), "writing", unit="image", disable=not progress, leave=False):
        copied = _copy_image(dataset, image_id, root)
        if copied is None:
            continue
        name, (height, width) = copied
        number = len(content["images"]) + 1
        content["images"].append({"id": number, "file_name": name, "height": height, "width": width})
        for annotation in _annotations(dataset, image_id, (height, width)):
            content["annotations"].append({"id": len(content["annotations"]) + 1, "image_id": number, **annotation})
    write_atomically(root / ANNOTATIONS, json.dumps(content))
    return {"images": len(content["images"]), "instances": len(content["annotations"])}


def _copy_image(dataset: Dataset, image_id: int, root: Path) -> tuple[str, tuple[int, int]] | None:
    """The name of an image in the copy, and its (height, width); None if it cannot be read."""
    path = dataset.image_info[image_id]["path"]
    try:
        image = dataset.load_image(image_id)
        if path is None or type(dataset).load_image not in (Dataset.load_image, AnnotatedDataset.load_image):
            return _write_png(image, image_id, root)
        stem, suffix = os.path.splitext(os.path.basename(os.fspath(path)))
        name = f"{stem}{suffix}" if not (root / IMAGES / f"{stem}{suffix}").exists() else f"{stem}_{image_id}{suffix}"
        ImageFile(path, dataset.max_pixels)
    except Exception:  # load_image may be user code; the report has the error
        return None
    target = root / IMAGES / name
    try:
        os.link(os.path.realpath(path), target)
    except OSError:  # a different file system
        shutil.copyfile(path, target)
    return name, (image.shape[0], image.shape[1])


def _write_png(image: np.ndarray, image_id: int, root: Path) -> tuple[str, tuple[int, int]]:
    import cv2

    name = f"image_{image_id}.png"
    pixels = image[..., ::-1] if image.ndim == 3 and image.shape[2] == 3 else image
    if not cv2.imwrite(str(root / IMAGES / name), np.ascontiguousarray(pixels)):
        raise OSError(f"{name} could not be written")
    return name, (image.shape[0], image.shape[1])


def _annotations(dataset: Dataset, image_id: int, size: tuple[int, int]) -> Iterator[dict[str, Any]]:
    """The annotations of an image in the copy."""
    try:
        masks, class_ids = read_instances(dataset, image_id, size, dataset.num_classes)
        points = read_keypoints(dataset, image_id, len(class_ids)) if dataset.skeleton is not None else None
    except Exception:  # load_mask may be user code; the report has the error
        return
    runs = rle.encode_all(masks)
    areas = [rle.area(run) for run in runs]
    boxes = [rle.box(run) for run in runs]
    regions = [
        Region((int(box[0]), int(box[1]), int(box[2]), int(box[3])), int(area), None, run)
        for box, area, run in zip(boxes, areas, runs, strict=True)
    ]
    things = [i for i in range(len(runs)) if areas[i] and class_ids[i] > 0]
    pairs = same_masks([regions[i] for i in things])
    double = {things[b] for a, b, _ in pairs if class_ids[things[a]] == class_ids[things[b]]}
    outlines = [instance.outline for instance in dataset.image_info[image_id].get("instances", ())]
    outlines = outlines if len(outlines) == len(runs) and isinstance(dataset, AnnotatedDataset) else [None] * len(runs)
    for i, (run, outline) in enumerate(zip(runs, outlines, strict=True)):
        if not areas[i] or i in double:
            continue
        y1, x1, y2, x2 = (int(value) for value in boxes[i])
        yield {
            "category_id": int(abs(class_ids[i])),
            "segmentation": _segmentation(outline, run, size),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": int(areas[i]),
            "iscrowd": int(class_ids[i] < 0),
            **({} if points is None else coco_keypoints(points[i])),
        }


def _segmentation(outline: Any, run: dict, size: tuple[int, int]) -> Any:
    """The polygons of a valid outline, else the RLE of its pixels."""
    if isinstance(outline, Polygons) and not beyond(outline.bounds(), size) and not may_cross(outline.parts).any():
        return [part.ravel().tolist() for part in outline.parts]
    counts = run["counts"]
    return {"size": list(size), "counts": counts.decode() if isinstance(counts, bytes) else counts}

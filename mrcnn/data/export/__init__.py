"""Exports detections in formats that labeling tools import, so that a person can correct the model's output."""

import importlib
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mrcnn.data import rle
from mrcnn.data.export.drawn import Drawn, DrawnImage
from mrcnn.data.keypoints import Skeleton, names_of_keypoints

# Formats and what they write; each is a module of this package with `write(images, class_names, folder)`
FORMATS: dict[str, str] = {
    "coco": "annotations.json, for CVAT, Label Studio and FiftyOne",
    "labelme": "one JSON file per image, for labelme and X-AnyLabeling",
    "yolo": "images/, labels/ and data.yaml",
    "label_studio": "tasks.json with predictions as brush masks",
    "via": "via_region_data.json, for the VGG Image Annotator",
}


def export_detections(
    format: str,
    folder: str | os.PathLike,
    paths: Sequence[str | os.PathLike],
    results: Sequence[Mapping[str, Any]],
    class_names: Sequence[str],
    *,
    min_score: float = 0.5,
) -> list[str]:
    """Writes the output of `detect` for image files in the format of a labeling tool::

        export_detections("labelme", "to_correct", paths, model.detect(paths), dataset.class_names)

    `load_dataset` on the folder returns the same masks. Keypoints are written in "coco" alone; the other formats are
    written without them, with a warning.

    Args:
        format: one of `FORMATS`.
        folder: created if it does not exist. Files of an earlier export are replaced.
        paths: the images, read upright like by `detect`.
        results: the output of `detect`, one per image: class_ids, scores and masks [H, W, N].
        class_names: background first.
        min_score: minimum score of the detections to write.

    Returns:
        The paths of the written files.

    Raises:
        ValueError: an unknown format, different numbers of paths and results, class ids without a name, or detections
            of a model without masks.
    """
    if format not in FORMATS:
        raise ValueError(f"unknown format {format!r}; expected one of {', '.join(FORMATS)}")
    if len(paths) != len(results):
        raise ValueError(f"got {len(paths)} paths and {len(results)} results; pass one result per image")
    images = [
        _drawn(os.fspath(path), result, class_names, min_score) for path, result in zip(paths, results, strict=True)
    ]
    found = sum(int(np.count_nonzero(np.asarray(result["scores"]) >= min_score)) for result in results)
    if found and not any(image.objects for image in images):
        raise ValueError(
            f"none of the {found} detections with a score of {min_score} or more has a mask, and labeling tools get "
            "masks. Use a model with a MASK_HEAD; `mrcnn detect` writes boxes and keypoints without masks"
        )
    if format != "coco" and any(drawn.keypoints is not None for image in images for drawn in image.objects):
        warnings.warn(f'the keypoints are not written in format {format!r}; "coco" has them', stacklevel=2)
    os.makedirs(folder, exist_ok=True)
    writer = importlib.import_module(f"mrcnn.data.export.{format}")
    return writer.write(images, list(class_names[1:]), os.fspath(folder))


def _drawn(path: str, result: Mapping[str, Any], class_names: Sequence[str], min_score: float) -> DrawnImage:
    """The detections of an image that are to be written."""
    class_ids, scores = np.asarray(result["class_ids"]), np.asarray(result["scores"], np.float64)
    masks = np.asarray(result["masks"])
    if masks.ndim != 3 or not len(class_ids) == len(scores) == masks.shape[2]:
        raise ValueError(
            f"{path!r}: expected masks [H, W, N] with N class_ids and scores, got shapes {masks.shape}, "
            f"{class_ids.shape} and {scores.shape}"
        )
    if len(class_ids) and not (0 < class_ids.min() and class_ids.max() < len(class_names)):
        raise ValueError(f"{path!r}: class ids {sorted(set(class_ids.tolist()))} need names, got only {class_names}")
    points = result.get("keypoints")
    skeleton = None
    if points is not None:
        skeleton = getattr(result, "skeleton", None) or Skeleton(names_of_keypoints(None, np.shape(points)[1]))
    kept = np.flatnonzero((scores >= min_score) & masks.any(axis=(0, 1)))
    runs = rle.encode_all(masks[:, :, kept])
    objects = [
        Drawn(
            class_names[class_ids[i]], int(class_ids[i]), float(scores[i]), run, None if points is None else points[i]
        )
        for i, run in zip(kept.tolist(), runs, strict=True)
    ]
    return DrawnImage(path, masks.shape[0], masks.shape[1], objects, skeleton)

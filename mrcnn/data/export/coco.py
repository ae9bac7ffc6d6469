"""Detections as COCO JSON with polygons, for CVAT, Label Studio and FiftyOne."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.data import rle
from mrcnn.data.annotations.keypoint_fields import coco_category, coco_keypoints
from mrcnn.data.export.drawn import DrawnImage
from mrcnn.data.keypoints import MIN_KEYPOINT
from mrcnn.files import write_atomically


def write(images: Sequence[DrawnImage], class_names: Sequence[str], folder: str) -> list[str]:
    """Writes annotations.json; file names are relative to it.

    A keypoint is visible (2) where its score is high enough to be drawn, else hidden (1).
    """
    path = os.path.join(folder, "annotations.json")
    annotations: list[dict[str, Any]] = []
    for image_id, image in enumerate(images, 1):
        for drawn in image.objects:
            y1, x1, y2, x2 = rle.box(drawn.runs)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": drawn.class_id,
                    "segmentation": [[v for point in part for v in point] for part in drawn.polygons()],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": rle.area(drawn.runs),
                    "iscrowd": 0,
                    "score": round(drawn.score, 6),
                    **({} if drawn.keypoints is None else coco_keypoints(_visible(drawn.keypoints))),
                }
            )
    skeleton = next((image.skeleton for image in images if image.skeleton is not None), None)
    more = {} if skeleton is None else coco_category(skeleton)
    content = {
        "images": [
            {
                "id": image_id,
                "file_name": os.path.relpath(image.path, folder).replace(os.sep, "/"),
                "height": image.height,
                "width": image.width,
            }
            for image_id, image in enumerate(images, 1)
        ],
        "categories": [{"id": number, "name": name, **more} for number, name in enumerate(class_names, 1)],
        "annotations": annotations,
    }
    write_atomically(Path(path), json.dumps(content))
    return [path]


def _visible(keypoints: np.ndarray) -> np.ndarray:
    """Detected keypoints [K, (y, x, score)] as labeled ones [K, (y, x, visibility)]."""
    points = np.asarray(keypoints, np.float64)
    return np.concatenate([points[:, :2].round(3), np.where(points[:, 2:] < MIN_KEYPOINT, 1, 2)], axis=1)

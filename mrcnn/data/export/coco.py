"""Detections as COCO JSON with polygons, for CVAT, Label Studio and FiftyOne."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mrcnn.data import rle
from mrcnn.data.export.drawn import DrawnImage
from mrcnn.files import write_atomically


def write(images: Sequence[DrawnImage], class_names: Sequence[str], folder: str) -> list[str]:
    """Writes annotations.json; file names are relative to it."""
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
                }
            )
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
        "categories": [{"id": number, "name": name} for number, name in enumerate(class_names, 1)],
        "annotations": annotations,
    }
    write_atomically(Path(path), json.dumps(content))
    return [path]

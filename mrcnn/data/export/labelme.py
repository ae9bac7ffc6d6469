"""Detections as labelme JSON, one file per image; the pieces of a detection form a group."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mrcnn.data.export.drawn import Drawn, DrawnImage
from mrcnn.files import write_atomically


def write(images: Sequence[DrawnImage], class_names: Sequence[str], folder: str) -> list[str]:
    """Writes <name>.json for each image, with the image's path relative to the folder."""
    del class_names
    paths = []
    for image in images:
        shapes = [shape for number, drawn in enumerate(image.objects) for shape in _shapes(number, drawn)]
        content: dict[str, Any] = {
            "version": "5.4.1",
            "flags": {},
            "shapes": shapes,
            "imagePath": os.path.relpath(image.path, folder),
            "imageData": None,
            "imageHeight": image.height,
            "imageWidth": image.width,
        }
        paths.append(os.path.join(folder, os.path.splitext(os.path.basename(image.path))[0] + ".json"))
        if len(set(paths)) < len(paths):
            raise ValueError(
                f"several images are named {os.path.basename(image.path)!r}; export them to different folders"
            )
        write_atomically(Path(paths[-1]), json.dumps(content, indent=1))
    return paths


def _shapes(number: int, drawn: Drawn) -> list[dict[str, Any]]:
    polygons = drawn.polygons()
    return [
        {
            "label": drawn.class_name,
            "points": [list(point) for point in polygon],
            "group_id": number if len(polygons) > 1 else None,
            "description": f"{drawn.score:.3f}",
            "shape_type": "polygon",
            "flags": {},
        }
        for polygon in polygons
    ]

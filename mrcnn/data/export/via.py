"""Detections as a VGG Image Annotator file, with class and score as attributes of each region."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from mrcnn.data.export.drawn import DrawnImage, bridged
from mrcnn.files import write_atomically

ATTRIBUTE = "class"  # read_via(folder, attribute="class") reads the classes back


def write(images: Sequence[DrawnImage], class_names: Sequence[str], folder: str) -> list[str]:
    """Writes via_region_data.json; image names are relative to it."""
    del class_names
    entries = {}
    for image in images:
        regions = []
        for drawn in image.objects:
            xs, ys = zip(*bridged(drawn.polygons()), strict=True)
            shape = {"name": "polygon", "all_points_x": list(xs), "all_points_y": list(ys)}
            attributes = {ATTRIBUTE: drawn.class_name, "score": f"{drawn.score:.3f}"}
            regions.append({"shape_attributes": shape, "region_attributes": attributes})
        name, size = os.path.relpath(image.path, folder).replace(os.sep, "/"), os.path.getsize(image.path)
        entries[f"{name}{size}"] = {"filename": name, "size": size, "regions": regions, "file_attributes": {}}
    path = os.path.join(folder, "via_region_data.json")
    write_atomically(Path(path), json.dumps(entries))
    return [path]

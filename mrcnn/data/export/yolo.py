"""Detections as YOLO segmentation labels, with copies of the images, because YOLO needs them next to each other."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from mrcnn.data.export.drawn import Drawn, DrawnImage, bridged
from mrcnn.files import atomic_path, write_atomically


def write(images: Sequence[DrawnImage], class_names: Sequence[str], folder: str) -> list[str]:
    """Writes images/train/, labels/train/ and data.yaml."""
    paths = []
    names = [os.path.basename(image.path) for image in images]
    if len(set(map(_stem, names))) < len(names):
        raise ValueError(f"several images have the same name: {sorted(names)[:5]}; export them to different folders")
    for image, name in zip(images, names, strict=True):
        lines = [_line(drawn, image.height, image.width) for drawn in image.objects]
        paths += [
            os.path.join(folder, "images", "train", name),
            os.path.join(folder, "labels", "train", _stem(name) + ".txt"),
        ]
        with atomic_path(Path(paths[-2])) as temporary:
            shutil.copyfile(image.path, temporary)
        write_atomically(Path(paths[-1]), "".join(f"{line}\n" for line in lines))
    paths.append(os.path.join(folder, "data.yaml"))
    named = "".join(f"  {number}: {json.dumps(name)}\n" for number, name in enumerate(class_names))
    write_atomically(Path(paths[-1]), f"path: .\ntrain: images/train\nval: images/train\nnames:\n{named}")
    return paths


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


def _line(drawn: Drawn, height: int, width: int) -> str:
    points = bridged(drawn.polygons())
    values = [f"{x / width:.9f} {y / height:.9f}" for x, y in points]
    return " ".join([str(drawn.class_id - 1), *values])

"""Detections as predictions for Label Studio: tasks with brush masks.

A brush mask is an image with four channels, packed into bits (github.com/thi-ng/umbrella, rle-pack): the number of
values (32 bits), the bits per value - 1 (5), four sizes of counts - 1 (4 each), and then for each run a 1, the index of
its count's size (2), the count - 1 and the value. A 0 instead of the 1 starts a sequence of single values.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.data import rle
from mrcnn.data.export.drawn import DrawnImage
from mrcnn.files import write_atomically

CHANNELS, OPAQUE = 4, 255
WORD, COUNTS = 8, (4, 8, 12, 16)  # bits
FROM, TO = "tag", "image"  # names of the controls in the labeling interface


def write(images: Sequence[DrawnImage], class_names: Sequence[str], folder: str) -> list[str]:
    """Writes tasks.json. Images get the names under which Label Studio serves files below the folder's parent."""
    del class_names
    tasks = []
    for image in images:
        result = [
            {
                "id": f"{number}",
                "type": "brushlabels",
                "from_name": FROM,
                "to_name": TO,
                "original_width": image.width,
                "original_height": image.height,
                "image_rotation": 0,
                "score": round(drawn.score, 6),
                "value": {"format": "rle", "rle": encode_brush(drawn.runs), "brushlabels": [drawn.class_name]},
            }
            for number, drawn in enumerate(image.objects)
        ]
        name = os.path.relpath(image.path, folder).replace(os.sep, "/")
        score = float(np.mean([drawn.score for drawn in image.objects])) if image.objects else 0.0
        prediction = {"model_version": "mask-rcnn", "score": round(score, 6), "result": result}
        tasks.append({"data": {"image": f"/data/local-files/?d={name}"}, "predictions": [prediction]})
    path = os.path.join(folder, "tasks.json")
    write_atomically(Path(path), json.dumps(tasks))
    return [path]


def encode_brush(runs: dict[str, Any]) -> list[int]:
    """The bytes of a brush mask, from COCO RLE."""
    mask = rle.decode(runs)
    flat = mask.ravel()
    turns = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths = np.diff(turns, prepend=0, append=flat.size) * CHANNELS
    bits = [f"{flat.size * CHANNELS:032b}", f"{WORD - 1:05b}", *(f"{count - 1:04b}" for count in COUNTS)]
    value = OPAQUE * int(flat[0]) if flat.size else 0
    for length in lengths.tolist():
        while length:
            count = min(length, 1 << COUNTS[-1])
            which = next(i for i, size in enumerate(COUNTS) if count <= 1 << size)
            bits.append(f"1{which:02b}{count - 1:0{COUNTS[which]}b}{value:0{WORD}b}")
            length -= count
        value = OPAQUE - value
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big")) if text else []

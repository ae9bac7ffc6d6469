"""Exported files beside `detect` on real images: what differs, and how long each takes, in turn in one run.

    python benchmarks/exports.py --images DIR --oracles ORACLES --formats onnx openvino int8
    python benchmarks/exports.py --images DIR --weights maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth

Without `--weights`, ResNet-50-FPN has seeded weights with the spread of trained ones (torchvision's shapes). A
detection over 0.05 has a partner if one of its class has a mask that overlaps it by 0.5 or more, each used once. "from
0.5": how far `detect`'s value is from the threshold, at most, in a pixel that belongs to only one of the two masks.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import processor
from scipy.ndimage import map_coordinates

from mrcnn.data.images import read_image
from mrcnn.inference.predictor import Predictor
from mrcnn.inference.results import Result
from mrcnn.model import MaskRCNN

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "bfloat16": ".xml", "int8": ".xml", "litert": ".tflite"}


def main() -> None:
    """Exports, runs, prints two tables."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--images", type=Path, required=True, help="a folder of images")
    flags.add_argument("--count", type=int, default=20, help="images to compare")
    flags.add_argument("--weights", help="a file of weights; without it seeded ones, which need --oracles")
    flags.add_argument("--oracles", type=Path, help="the folder of the stored oracles")
    flags.add_argument("--formats", nargs="+", default=["onnx", "openvino"], choices=SUFFIXES)
    flags.add_argument("--threads", type=int, default=2)
    flags.add_argument("--runs", type=int, default=3, help="timed rounds over two of the images; 0: none")
    arguments = flags.parse_args()
    model = MaskRCNN.from_pretrained(arguments.weights) if arguments.weights else seeded_model(arguments.oracles)
    paths = sorted(arguments.images.glob("*.jpg"))[: arguments.count]
    images = [read_image(path) for path in paths]
    ways: dict[str, Any] = {"detect": model}
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.formats:
            path = Path(folder) / f"{name}{SUFFIXES[name]}"
            model.export(path, precision="int8" if name == "int8" else "float32", calibration=images)
            ways[name] = Predictor(path, threads=arguments.threads, precision="bf16" if name == "bfloat16" else "f32")
        print(f"{len(images)} images of {arguments.images.name}, {processor()}")
        differences(ways, images)
        if arguments.runs:
            times(ways, images[:2], arguments.runs)


def seeded_model(oracles: Path) -> MaskRCNN:
    """ResNet-50-FPN with torchvision's shapes, in torchvision's conventions."""
    from parity_oracles import state_dict
    from parity_stages import build

    from mrcnn.weights.importers.torchvision import torchvision_source

    tensors = state_dict(oracles, "torchvision/state_dict_shapes.json", "torchvision")
    return build(torchvision_source(tensors, "seeded weights"))


def differences(ways: dict[str, Any], images: list[np.ndarray]) -> None:
    """Of each way beside `detect`."""
    expected = ways["detect"].detect(images)
    columns = ("", "detections", "partners", "boxes px", "scores", "least IoU", "mean IoU", "most pixels", "from 0.5")
    print(" ".join(f"{column:>11}" for column in columns))
    for name, way in ways.items():
        if name == "detect":
            continue
        pairs = [compare(*both) for both in zip(way.detect(images), expected, strict=True)]
        every = np.concatenate(pairs) if pairs else np.zeros((0, 5))
        total = sum(int((one.scores > 0.05).sum()) for one in expected)
        most, (least, mean) = every.max(axis=0, initial=0), (every[:, 2].min(initial=1), every[:, 2].mean())
        figures = (
            f"{most[0]:.2g}",
            f"{most[1]:.2g}",
            f"{least:.4f}",
            f"{mean:.5f}",
            f"{most[3]:.0f}",
            f"{most[4]:.1g}",
        )
        print(" ".join(f"{value:>11}" for value in (name, total, len(every), *figures)), flush=True)


def compare(found: Result, expected: Result) -> np.ndarray:
    """Of each pair: largest difference of a corner in pixels, of scores, IoU of the masks, pixels in which the masks
    differ, the largest distance of `expected`'s values there from the threshold of 0.5. [pairs, 5]."""
    rows, used = [], set()
    full, theirs, soft = found.masks, expected.masks, expected.soft
    for i, (class_id, score) in enumerate(zip(expected.class_ids, expected.scores, strict=True)):
        if score <= 0.05:
            continue
        near = [j for j in np.flatnonzero(found.class_ids == class_id) if j not in used]
        if not near:
            continue
        j = min(near, key=lambda j: np.abs(found.rois[j] - expected.rois[i]).max())
        one, other = full[:, :, j], theirs[:, :, i]
        union = np.count_nonzero(one | other)
        overlap = np.count_nonzero(one & other) / union if union else 1.0
        if overlap >= 0.5:
            used.add(j)
            apart = np.argwhere(one != other)
            margin = np.abs(values_at(soft.probabilities[i], soft.boxes[i], apart) - 0.5).max(initial=0)
            box = np.abs(found.rois[j] - expected.rois[i]).max()
            rows.append((box, abs(found.scores[j] - score), overlap, len(apart), margin))
    return np.array(rows, float).reshape(-1, 5)


def values_at(probabilities: np.ndarray, box: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """What pasting compares with the threshold at `pixels` [n, (y, x)]: bilinear values of a mask [m, m], [n]."""
    start, side = box[:2].astype(float), (box[2:] - box[:2]).astype(float)
    places = (pixels + 0.5 - start) / side * len(probabilities) - 0.5
    return map_coordinates(np.pad(probabilities, 1), places.T + 1, order=1)


def times(ways: dict[str, Any], images: list[np.ndarray], runs: int) -> None:
    """Median seconds of an image, with run-length masks, all ways in turn."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(runs + 1):
        for name, way in ways.items():
            for image in images:
                start = time.perf_counter()
                way.detect([image], prepare="rle")
                taken[name].append(time.perf_counter() - start)
    medians = {name: float(np.median(seconds[len(images) :])) for name, seconds in taken.items()}
    print(f"\n{'':>10} {'s an image':>10} {'ratio':>6}")
    for name, seconds in medians.items():
        print(f"{name:>10} {seconds:10.3f} {seconds / medians['detect']:6.2f}")


if __name__ == "__main__":
    main()

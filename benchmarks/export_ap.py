"""AP of exported files of a trained model beside that of `detect`, and how long each takes, in turn in one run.

    python samples/demo.py --heads fcn
    python benchmarks/export_ap.py --weights demo_output/fcn.h5 --formats onnx openvino bfloat16 int8 litert

The model is one of samples/shapes; the images are shapes on photographs that it was not trained on.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import processor

from mrcnn.evaluation.coco_evaluation import evaluate
from mrcnn.inference.predictor import Predictor
from mrcnn.model import MaskRCNN
from samples.shapes.shapes import TRAINING_PHOTOGRAPHS, VALIDATION_PHOTOGRAPHS, ShapesConfig, ShapesDataset

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "bfloat16": ".xml", "int8": ".xml", "litert": ".tflite"}


def main() -> None:
    """Exports, evaluates, times, prints a table."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--weights", required=True, help="a checkpoint of samples/shapes with the fcn head")
    flags.add_argument("--formats", nargs="+", default=list(SUFFIXES), choices=SUFFIXES)
    flags.add_argument("--images", type=int, default=300, help="images to evaluate on")
    flags.add_argument("--timed", type=int, default=30, help="images to time, one by one, all ways in turn")
    flags.add_argument("--threads", type=int, default=2)
    arguments = flags.parse_args()
    model = MaskRCNN("inference", ShapesConfig())
    model.load_weights(arguments.weights)
    model.class_names = ["BG", "square", "circle", "triangle"]
    calibration = shapes(100, 7, TRAINING_PHOTOGRAPHS)
    dataset = shapes(arguments.images, 8, VALIDATION_PHOTOGRAPHS)
    ways: dict[str, Any] = {"detect": model}
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.formats:
            path = Path(folder) / f"{name}{SUFFIXES[name]}"
            images = [calibration.load_image(i) for i in calibration.image_ids]
            model.export(path, precision="int8" if name == "int8" else "float32", calibration=images)
            ways[name] = Predictor(path, threads=arguments.threads, precision="bf16" if name == "bfloat16" else "f32")
        results = {name: evaluate(way, dataset, progress=False) for name, way in ways.items()}
        seconds = times(ways, [dataset.load_image(i) for i in range(arguments.timed)])
    print(f"{arguments.images} images, {processor()}, {arguments.threads} threads")
    print(f"{'':>10} {'box AP':>7} {'mask AP':>8} {'ms an image':>12} {'ratio':>6}")
    for name, found in results.items():
        figures = f"{100 * found.box['AP']:7.2f} {100 * found.mask['AP']:8.2f} {1000 * seconds[name]:12.1f}"
        print(f"{name:>10} {figures} {seconds[name] / seconds['detect']:6.2f}")


def shapes(count: int, seed: int, photographs: tuple[str, ...]) -> ShapesDataset:
    """Images of shapes."""
    dataset = ShapesDataset()
    dataset.load_shapes(count, 128, 128, seed=seed, photographs=photographs)
    dataset.prepare()
    return dataset


def times(ways: dict[str, Any], images: list[np.ndarray]) -> dict[str, float]:
    """Median seconds of an image, with run-length masks; each way's first three images are not counted."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for image in images[:3] + images:
        for name, way in ways.items():
            start = time.perf_counter()
            way.detect([image], prepare="rle")
            taken[name].append(time.perf_counter() - start)
    return {name: float(np.median(seconds[3:])) for name, seconds in taken.items()}


if __name__ == "__main__":
    main()

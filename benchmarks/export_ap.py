"""AP of exported files of a trained model beside that of `detect`, and how long each takes, in turn in one run.

    python benchmarks/export_ap.py --folder exported --epochs 6
    python benchmarks/export_ap.py --folder exported --images 0    # times alone, of the files of an earlier call

The model is that of samples/shapes with the fcn head, trained from its start.h5 where the folder holds none; the images
are shapes on images that it was not trained on.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import processor

from mrcnn.evaluation.coco_evaluation import evaluate
from mrcnn.inference.predictor import Predictor
from mrcnn.model import MaskRCNN
from samples.shapes.pretrain import load_start
from samples.shapes.shapes import TRAINING_BACKGROUNDS, VALIDATION_BACKGROUNDS, ShapesConfig, ShapesDataset

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "bfloat16": ".xml", "int8": ".xml", "litert": ".tflite"}


def main() -> None:
    """Exports, evaluates, times, prints a table."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--folder", type=Path, required=True, help="for the checkpoint and the exported files")
    flags.add_argument("--epochs", type=int, default=6, help="of 100 steps, where the folder has no shapes.h5")
    flags.add_argument("--formats", nargs="+", default=list(SUFFIXES), choices=SUFFIXES)
    flags.add_argument("--images", type=int, default=300, help="images to evaluate on; 0: times alone")
    flags.add_argument("--timed", type=int, default=30, help="images to time, one by one, all ways in turn")
    flags.add_argument("--threads", type=int, default=2)
    arguments = flags.parse_args()
    model = trained(arguments.folder / "shapes.h5", arguments.epochs)
    ways: dict[str, Any] = {"detect": model}
    for name in arguments.formats:
        path = exported(model, arguments.folder / f"{name}{SUFFIXES[name]}")
        ways[name] = Predictor(path, threads=arguments.threads, precision="bf16" if name == "bfloat16" else "f32")
    dataset = shapes(max(arguments.images, arguments.timed), 8, VALIDATION_BACKGROUNDS)
    precisions = {}
    if arguments.images:
        precisions = {name: evaluate(way, dataset, progress=False) for name, way in ways.items()}
    seconds = times(ways, [dataset.load_image(i) for i in range(arguments.timed)])
    print(f"{arguments.images} images, {processor()}, {arguments.threads} threads")
    print(f"{'':>10} {'box AP':>7} {'mask AP':>8} {'ms an image':>12} {'images a second':>16} {'ratio':>6}")
    for name, taken in seconds.items():
        found = precisions.get(name)
        figures = f"{100 * found.box['AP']:7.2f} {100 * found.mask['AP']:8.2f}" if found else " " * 16
        print(f"{name:>10} {figures} {1000 * taken:12.1f} {1 / taken:16.1f} {taken / seconds['detect']:6.2f}")


def trained(path: Path, epochs: int) -> MaskRCNN:
    """The model of a checkpoint, which is trained first where there is none."""
    if not path.exists():
        training = MaskRCNN("training", ShapesConfig(), path.parent / "logs")
        load_start(training.network)
        training.train(shapes(1600, 1, TRAINING_BACKGROUNDS), None, epochs=epochs, verbose=2)
        training.save_weights(path)
    model = MaskRCNN("inference", ShapesConfig())
    model.load_weights(path)
    model.class_names = ["BG", "square", "circle", "triangle"]
    return model


def exported(model: MaskRCNN, path: Path) -> Path:
    """The file, which is written where there is none."""
    if not path.exists():
        calibration = shapes(100, 7, TRAINING_BACKGROUNDS)
        images = [calibration.load_image(i) for i in calibration.image_ids]
        model.export(path, precision="int8" if path.stem == "int8" else "float32", calibration=images)
    return path


def shapes(count: int, seed: int, photographs: tuple[str, ...]) -> ShapesDataset:
    """Images of shapes."""
    dataset = ShapesDataset()
    dataset.load_shapes(count, 128, 128, seed=seed, backgrounds=photographs)
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

"""Mask heads compared on three small datasets: balloons, nuclei and clothes, from MobileNet's ImageNet weights.

    python -m benchmarks.mask_heads --data DIR --weights W --datasets nuclei --output benchmarks/comparison/nuclei
    python -m benchmarks.mask_heads --data DIR --weights W --datasets balloon --heads fcn unet --output FOLDER
    python -m benchmarks.mask_heads --datasets shapes --weights samples/shapes/start.h5 --output FOLDER

DIR contains `balloon`, `nuclei_dsb2018` and `fashion_ccp`. W is the weight file of
`keras.applications.MobileNet(alpha=0.75, include_top=False)`. Runs found in `comparison.json` of the output folder are
not repeated, so a comparison can be continued on another machine. Several processes can share the work. The table has
the datasets and heads of one call, so each dataset has a folder of its own in benchmarks/comparison. The shapes start
from weights of their own.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mrcnn import experiments
from mrcnn.config import Config
from mrcnn.data.dataset import Dataset
from mrcnn.experiments import plan
from samples.balloon.balloon import BalloonConfig, load_balloons
from samples.imaterialist.imaterialist import FashionConfig, load_fashion
from samples.nucleus.nucleus import NucleusConfig, load_nuclei
from samples.shapes.shapes import VALIDATION_BACKGROUNDS, ShapesConfig, ShapesDataset

HEADS: dict[str, dict[str, Any]] = {
    "fcn": {"name": "fcn"},
    "unet": {"name": "unet"},
    "mask_scoring": {"name": "mask_scoring", "of": "fcn"},
    "boundary": {"name": "boundary"},
    "pointrend": {"name": "pointrend"},
}
KINDS = ("square", "circle", "triangle", "star")
COMMON: dict[str, Any] = {"DETERMINISTIC": True, "LOADER_WORKERS": 1, "KEEP_CHECKPOINTS": 1}
NARROW: dict[str, Any] = {
    "TOP_DOWN_PYRAMID_SIZE": 128,
    "RPN_CHANNELS": 128,
    "TRAIN_ROIS_PER_IMAGE": 64,
}  # three times faster


def balloon(folder: Path) -> experiments.Task:
    """12 epochs at 512 pixels: the sample's own settings."""
    return task(lambda part: load_balloons(folder / "balloon", part), BalloonConfig(**COMMON), epochs=12)


def nuclei(folder: Path) -> experiments.Task:
    """6 epochs on whole images in squares of 384 pixels, most of them enlarged by half, with a narrow pyramid."""
    settings = {"IMAGE_RESIZE_MODE": "square", "IMAGE_MIN_DIM": 384, "IMAGE_MAX_DIM": 384, "IMAGE_MIN_SCALE": 0}
    config = NucleusConfig(**COMMON, **NARROW, **settings, DETECTION_MAX_INSTANCES=100)
    return task(lambda part: load_nuclei(folder / "nuclei_dsb2018", part), config, epochs=6)


def fashion(folder: Path) -> experiments.Task:
    """8 epochs, the longer side 384 pixels, with a narrow pyramid."""
    config = FashionConfig(**COMMON, **NARROW, IMAGE_MIN_DIM=384, IMAGE_MAX_DIM=384)
    return task(lambda part: load_fashion(folder / "fashion_ccp", part), config, epochs=8)


def shapes(folder: Path) -> experiments.Task:
    """6 epochs of 40 steps, batch 4, on generated shapes of 4 kinds in images of 192 pixels; they need no files."""
    parts = {"train": (800, 0, {}), "val": (100, 1, {"backgrounds": VALIDATION_BACKGROUNDS})}

    def load(part: str) -> Dataset:
        count, seed, options = parts[part]
        dataset = ShapesDataset()
        dataset.load_shapes(count, 192, 192, seed, kinds=KINDS, radii=(0.15, 0.4), max_shapes=3, **options)
        dataset.prepare()
        return dataset

    sizes = {"IMAGE_MIN_DIM": 192, "IMAGE_MAX_DIM": 192, "IMAGES_PER_GPU": 4, "STEPS_PER_EPOCH": 40}
    return task(load, ShapesConfig(**COMMON, **sizes, MINI_MASK_SHAPE=(112, 112)), epochs=6)


def task(load: Callable[[str], Dataset], config: Config, epochs: int) -> experiments.Task:
    """The task of training on "train" and evaluating on "val", all layers from the first step."""
    training, validation = load("train"), load("val")
    config.NUM_CLASSES = training.num_classes
    return experiments.Task(training, validation, config, plan.reference(epochs, "all", config.LEARNING_RATE))


TASKS: dict[str, Callable[[Path], experiments.Task]] = {
    "balloon": balloon,
    "nuclei": nuclei,
    "fashion": fashion,
    "shapes": shapes,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("."))
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--datasets", nargs="+", choices=list(TASKS), default=["balloon", "nuclei", "fashion"])
    parser.add_argument("--heads", nargs="+", choices=list(HEADS), default=list(HEADS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--logs", type=Path, default=Path("logs"))
    parser.add_argument("--output", type=Path, default=None, help="folder of the table")
    arguments = parser.parse_args()
    experiments.compare(
        {name: TASKS[name](arguments.data) for name in arguments.datasets},
        [HEADS[name] for name in arguments.heads],
        seeds=arguments.seeds,
        weights=arguments.weights,
        logs=arguments.logs,
        output=arguments.output,
        verbose=2,
    )


if __name__ == "__main__":
    main()

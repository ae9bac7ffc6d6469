"""The demo: trains both mask heads on the same shapes from the same start, and compares them on unseen images.

    make demo
    python samples/demo.py [--heads fcn unet] [--epochs N] [--output DIR]

Writes results.json and one figure per head to demo_output/. The network and recipe are `DemoConfig`; the data are set
by the constants above it. Both heads start from the trunk, RPN and box head in samples/shapes/start.h5, which
samples/shapes/pretrain.py trained without a mask head.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import heads
from mrcnn import visualize
from mrcnn.evaluation.coco_evaluation import Results, evaluate
from mrcnn.files import write_atomically
from mrcnn.model import MaskRCNN
from samples.files import atomic_media
from samples.shapes.pretrain import load_start
from samples.shapes.shapes import VALIDATION_BACKGROUNDS, ShapesConfig, ShapesDataset

EPOCHS = 4  # of DemoConfig.STEPS_PER_EPOCH steps
SIDE = 128  # image size in pixels
TRAINING_IMAGES = 4000  # drawn on demand; so many that few are seen twice
TEST_IMAGES = 100  # with a different seed, on backgrounds that training never sees
PICTURED = 6  # number of test images to draw
HEADS: dict[str, dict[str, Any]] = {"fcn": {"name": "fcn", "filters": 64}, "unet": {"name": "unet", "filters": 64}}


class DemoConfig(ShapesConfig):
    """The recipe: trains all layers, the mask head from scratch, in one or two minutes per head on two CPU cores."""

    STEPS_PER_EPOCH = 100
    LEARNING_RATE = 0.01


def main(arguments: list[str] | None = None) -> None:
    """Train, evaluate and draw each head; print and write the comparison."""
    arguments = _parse(arguments)
    began = time.perf_counter()
    output = arguments.output
    training, test = shapes(TRAINING_IMAGES, seed=0), shapes(TEST_IMAGES, seed=1, backgrounds=VALIDATION_BACKGROUNDS)
    rows = {}
    for head in arguments.heads:
        config = DemoConfig(MASK_HEAD=HEADS.get(head, head))
        print(
            f"\n== {head}: {arguments.epochs} epochs of {config.STEPS_PER_EPOCH} steps, "
            f"{config.BATCH_SIZE} images per step",
            flush=True,
        )
        model, results, seconds = train_and_evaluate(config, training, test, arguments.epochs)
        rows[head] = row(model, results, seconds)
        picture = draw(model, test, output / f"{head}.png")
        print(f"{results}\n{head}: drawn to {picture}", flush=True)
    minutes = (time.perf_counter() - began) / 60
    report = {
        "heads": rows,
        "minutes": round(minutes, 2),
        "test_images": TEST_IMAGES,
        "seed": config.SEED,
        "steps": arguments.epochs * config.STEPS_PER_EPOCH,
        "batch": config.BATCH_SIZE,
    }
    write_atomically(output / "results.json", json.dumps(report, indent=2) + "\n")
    print(f"\n{table(rows)}\n\n{minutes:.1f} minutes; numbers in {output / 'results.json'}")


def shapes(count: int, seed: int, **options: Any) -> ShapesDataset:
    """A prepared dataset of `count` images."""
    dataset = ShapesDataset()
    dataset.load_shapes(count, SIDE, SIDE, seed=seed, **options)
    dataset.prepare()
    return dataset


def train_and_evaluate(
    config: DemoConfig, training: ShapesDataset, test: ShapesDataset, epochs: int
) -> tuple[MaskRCNN, Results, float]:
    """A trained model, its results on the test set, and the seconds of training."""
    with tempfile.TemporaryDirectory() as logs:
        model = MaskRCNN("training", config, logs)
        load_start(model.network)
        began = time.perf_counter()
        model.train(training, None, epochs=epochs)
        seconds = time.perf_counter() - began
    print(f"== {seconds:.0f} s of training; detecting on {TEST_IMAGES} unseen images", flush=True)
    return model, evaluate(model, test), seconds


def row(model: MaskRCNN, results: Results, seconds: float) -> dict[str, float]:
    """One head's results; parameters are those of the whole network."""
    parts = model.network.parts()
    return {
        "box_ap": round(results.box["AP"], 4),
        "mask_ap": round(results.mask["AP"], 4),
        "mask_ap50": round(results.mask["AP50"], 4),
        "parameters": sum(part.count_params() for part in parts.values()),
        "head_parameters": parts["mask_head"].count_params(),
        "ms_per_image": round(results.ms_per_image, 1),
        "training_seconds": round(seconds, 1),
    }


def draw(model: MaskRCNN, dataset: ShapesDataset, path: Path) -> Path:
    """A figure of detections next to ground truth for the first images of a dataset."""
    ids = list(dataset.image_ids[:PICTURED])
    images = [dataset.load_image(i) for i in ids]
    truths, found = [dataset.load_mask(i) for i in ids], model.detect(images)
    with atomic_media(path) as temporary:
        visualize.save_comparison(images, truths, found, dataset.class_names, temporary, pairs_per_row=2, width=3.0)
    return path


def table(rows: dict[str, dict[str, float]]) -> str:
    """The comparison as aligned text, one line per head."""
    lines = [f"{'head':<8}{'box AP':>8}{'mask AP':>9}{'mask AP50':>11}{'parameters':>12}{'ms/image':>10}"]
    lines += [
        f"{head:<8}{r['box_ap']:>8.3f}{r['mask_ap']:>9.3f}{r['mask_ap50']:>11.3f}{r['parameters']:>12,}"
        f"{r['ms_per_image']:>10.0f}"
        for head, r in rows.items()
    ]
    return "\n".join(lines)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--heads",
        nargs="+",
        choices=heads.names("mask"),
        default=list(HEADS),
        help="registered heads; heads not listed in this file use their defaults",
    )
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--output", type=Path, default=Path("demo_output"))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()

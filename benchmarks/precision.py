"""What bfloat16 costs in AP: the demonstration's training under both precisions, with several seeds.

    python benchmarks/precision.py --seeds 0 1 2

Every training is `samples/demo.py`'s: 400 steps on generated shapes, head fcn. Each float32 model is also evaluated
with bfloat16, the same weights, so that inference alone is told apart. AP in points (0 to 100), of boxes and masks, on
unseen shapes. One json line a model, then the means and the standard deviations over the seeds.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from mrcnn.evaluation.coco_evaluation import evaluate
from mrcnn.model import MaskRCNN
from samples.demo import EPOCHS, HEADS, TRAINING_IMAGES, DemoConfig, shapes, train_and_evaluate
from samples.shapes.shapes import VALIDATION_BACKGROUNDS


def main() -> None:
    """Trains, evaluates, prints."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    flags.add_argument("--epochs", type=int, default=EPOCHS)
    flags.add_argument("--test-images", type=int, default=300)
    arguments = flags.parse_args()
    test = shapes(arguments.test_images, seed=1, backgrounds=VALIDATION_BACKGROUNDS)
    rows: dict[str, list[tuple[float, float]]] = {}
    for seed in arguments.seeds:
        for precision in ("float32", "bfloat16"):
            config = DemoConfig(MASK_HEAD=HEADS["fcn"], SEED=seed, PRECISION=precision)
            model, results, _ = train_and_evaluate(config, shapes(TRAINING_IMAGES, seed=0), test, arguments.epochs)
            note(rows, f"trained in {precision}", seed, results)
            if precision == "float32":
                note(rows, "trained in float32, run in bfloat16", seed, evaluate(as_bfloat16(model), test))
    for what, found in rows.items():
        box, mask = zip(*found, strict=True)
        print(f"{what}: box AP {spread(box)}, mask AP {spread(mask)}, {len(found)} seeds")


def as_bfloat16(model: MaskRCNN) -> MaskRCNN:
    """The same weights in a network that computes in bfloat16."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_weights(Path(folder) / "weights.h5")
        return MaskRCNN.from_pretrained(Path(folder) / "weights.h5", config=model.config, PRECISION="bfloat16")


def note(rows: dict, what: str, seed: int, results) -> None:
    """Keeps a model's numbers, and prints them."""
    found = round(100 * results.box["AP"], 2), round(100 * results.mask["AP"], 2)
    rows.setdefault(what, []).append(found)
    print(json.dumps({"model": what, "seed": seed, "box_ap": found[0], "mask_ap": found[1]}), flush=True)


def spread(values: tuple[float, ...]) -> str:
    """Mean and standard deviation."""
    return f"{statistics.mean(values):.2f} ({statistics.stdev(values) if len(values) > 1 else 0:.2f})"


if __name__ == "__main__":
    main()

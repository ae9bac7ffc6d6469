"""torchvision's Mask R-CNN trained on balloons by the schedule of samples/balloon, for the table in its README.

    python benchmarks/balloon_torchvision.py --dataset DIR --weights W --seed 2 --torchvision-python DIR/bin/python

torchvision runs in a Python of its own. It starts from the same MobileNet (alpha 0.75, ImageNet weights in the Keras
file W) and is trained with its own settings on the same images. Its detections are evaluated by this package, as ours
are. Prints COCO's numbers, and writes them to --output if that is given.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import common  # noqa: F401  makes the checkout importable
import keras
import numpy as np

from mrcnn.data.dataset import Dataset
from mrcnn.evaluation.coco_evaluation import Results, evaluate_results
from mrcnn.files import write_atomically
from samples.balloon.balloon import load_balloons

PROGRAM = Path(__file__).with_name("peers") / "torchvision_balloon.py"


def write_images(dataset: Dataset, folder: Path) -> None:
    """<image id>.npz of every image: image [H, W, 3] uint8, masks [N, H, W] bool."""
    folder.mkdir()
    for image_id in dataset.image_ids:
        masks, _ = dataset.load_mask(image_id)
        np.savez(folder / f"{image_id:04d}.npz", image=dataset.load_image(image_id), masks=np.moveaxis(masks, -1, 0))


def write_weights(weights: Path, path: Path) -> None:
    """MobileNet's arrays as <layer>/<number of the array>, from its Keras file."""
    model = keras.applications.MobileNet(alpha=0.75, include_top=False, weights=None, input_shape=(224, 224, 3))
    model.load_weights(weights)
    np.savez(
        path, **{f"{layer.name}/{i}": array for layer in model.layers for i, array in enumerate(layer.get_weights())}
    )


def trained_elsewhere(arguments: argparse.Namespace, validation: Dataset) -> Results:
    """The results of one training run of torchvision."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_images(load_balloons(arguments.dataset, "train"), folder / "train")
        write_images(validation, folder / "val")
        write_weights(arguments.weights, folder / "weights.npz")
        flags = ["--folder", folder, "--seed", arguments.seed, "--epochs", arguments.epochs]
        subprocess.run([arguments.torchvision_python, str(PROGRAM), *map(str, flags)], check=True)
        found = json.loads((folder / "results.json").read_text())
    for record in found:
        record["image_id"] = validation.image_info[record["image_id"]]["id"]
    return evaluate_results(found, validation, progress=False)


def main() -> None:
    """Trains, evaluates and prints."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--dataset", type=Path, required=True)
    flags.add_argument("--weights", type=Path, required=True)
    flags.add_argument("--torchvision-python", required=True)
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--epochs", type=int, default=12)
    flags.add_argument("--output", type=Path, help="json file for the numbers")
    arguments = flags.parse_args()
    results = trained_elsewhere(arguments, load_balloons(arguments.dataset, "val"))
    print(results)
    if arguments.output:
        write_atomically(arguments.output, json.dumps({"seed": arguments.seed, **results.as_dict()}, indent=2))


if __name__ == "__main__":
    main()

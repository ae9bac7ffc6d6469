"""Makes start.h5: the trunk, RPN and box head from which both heads of the demo start.

    python samples/shapes/pretrain.py

Trains the network on shapes from scratch, without a mask loss, so that the result favors no mask head. Neither the
backgrounds nor the shapes are those of the demo's test set.
"""

import argparse
import tempfile
from pathlib import Path

from mrcnn.config import LOSS_NAMES
from mrcnn.model import MaskRCNN
from mrcnn.network.graph import Network
from mrcnn.weights.checkpoint import load_checkpoint, save_checkpoint
from samples.shapes.shapes import ShapesConfig, ShapesDataset

START = Path(__file__).with_name("start.h5")
SEED = 2  # of the shapes; the demo trains on seed 0 and tests on seed 1
STEPS = 4000


class PretrainConfig(ShapesConfig):
    """The shapes without their masks."""

    MASK_HEAD = {"name": "fcn", "filters": 8, "convolutions": 1}  # a head is required; its loss has weight 0
    LOSS_WEIGHTS = {name: float(name != "mrcnn_mask_loss") for name in LOSS_NAMES}
    STEPS_PER_EPOCH = 500


def shared_layers(network: Network) -> dict:
    """The layers outside the mask head, by key."""
    return {key: layer for key, layer in network.layers().items() if not key.startswith("mask_head/")}


def load_start(network: Network, path: Path = START) -> None:
    """Loads the start into everything except the mask head."""
    load_checkpoint(path, shared_layers(network))


def main(arguments: list[str] | None = None) -> None:
    """Trains and writes the file."""
    arguments = _parse(arguments)
    config = PretrainConfig(STEPS_PER_EPOCH=min(arguments.steps, PretrainConfig.STEPS_PER_EPOCH))
    dataset = ShapesDataset()
    dataset.load_shapes(config.BATCH_SIZE * arguments.steps, config.IMAGE_MAX_DIM, config.IMAGE_MAX_DIM, seed=SEED)
    dataset.prepare()
    with tempfile.TemporaryDirectory() as logs:
        model = MaskRCNN("training", config, logs)
        model.train(dataset, None, epochs=arguments.steps // config.STEPS_PER_EPOCH, verbose=2)
    save_checkpoint(arguments.output, shared_layers(model.network), {"steps": arguments.steps, "seed": SEED})
    print(f"{arguments.output}: {arguments.output.stat().st_size / 1e6:.1f} MB")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    epoch = PretrainConfig.STEPS_PER_EPOCH
    parser.add_argument("--steps", type=int, default=STEPS, help=f"up to {epoch}, or a multiple of it")
    parser.add_argument("--output", type=Path, default=START)
    parsed = parser.parse_args(arguments)
    if parsed.steps < 1 or (parsed.steps > epoch and parsed.steps % epoch):
        parser.error(
            f"--steps must be 1 to {epoch} or a multiple of {epoch}, the steps per epoch, got "
            f"{parsed.steps}; try {max(round(parsed.steps / epoch), 1) * epoch}"
        )
    return parsed


if __name__ == "__main__":
    main()

"""Trains mask heads from the same start on the same batches, and writes a table.
Finished runs are not repeated, interrupted ones are continued.

examples:
  mrcnn compare data/ --subset train --val-subset val --heads fcn,unet
  mrcnn compare a.json --val b.json --weights imagenet --seeds 0,1,2
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrcnn.cli import options
from mrcnn.cli.console import Interrupted
from mrcnn.training.interruption import TrainingInterrupted

if TYPE_CHECKING:
    from mrcnn.config import Config

USAGE = "mrcnn compare DATA --val DATA | --val-subset NAME [options]"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_data(parser)
    options.add_weights(parser, 'file, "imagenet", or "none" (none)', default="none")
    options.add_network(parser)
    add = parser.add_argument
    add("--heads", type=_heads, metavar="HEADS", help="such as fcn,unet (all mask heads)")
    add("--seeds", type=_seeds, metavar="SEEDS", help="such as 0,1,2: train each head with each seed")
    add("--epochs", type=options.positive, default=12, metavar="N", help="epochs per run (12)")
    add("--output", metavar="DIR", help="folder for the table (comparison/ in --logs)")
    options.add_settings(parser)


def run(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    import heads
    from mrcnn.config import Config
    from mrcnn.experiments import compare

    training, validation = options.read_data(arguments)
    if validation is None:
        raise ValueError("compare needs validation data; give --val or --val-subset")
    base = options.base_config(arguments)
    name = Path(arguments.data).resolve().stem or "run"
    settings = {"NAME": name, "STEPS_PER_EPOCH": None, "VALIDATION_STEPS": None, "NUM_CLASSES": training.num_classes}
    settings |= options.network_settings(arguments) | dict(arguments.set)
    config = (type(base) if base else Config)(**((base.to_dict() if base else {}) | settings))
    try:
        return compare(
            {name: (training, validation)},
            arguments.heads or heads.names("mask"),
            config,
            seeds=arguments.seeds,
            epochs=arguments.epochs,
            weights=_start(arguments.weights, config),
            logs=arguments.logs,
            output=arguments.output,
        )
    except KeyboardInterrupt as error:
        state = error.state if isinstance(error, TrainingInterrupted) else "finished runs are saved."
        raise Interrupted(f"{state} Run the same command to continue") from None


def _start(weights: str, config: "Config") -> str | None:
    """The file that --weights refers to; None for random weights."""
    if weights == "imagenet":
        from mrcnn.weights.importers import imagenet

        return str(imagenet.download(config.BACKBONE, config.BACKBONE_OPTIONS))
    return None if weights == "none" else weights


def _heads(text: str) -> list[dict[str, Any]]:
    """Heads without options, separated by commas, or a single head with options."""
    found = [options.mask_head(part) for part in ([text] if ":" in text else options.parts(text))]
    if not found:
        raise argparse.ArgumentTypeError(f"expected mask heads such as fcn,unet, got {text!r}")
    return found


def _seeds(text: str) -> list[int]:
    try:
        found = [int(part) for part in options.parts(text)]
    except ValueError:
        found = []
    if not found:
        raise argparse.ArgumentTypeError(f"expected integers such as 0,1,2, got {text!r}")
    return found

"""Trains on annotated images, and writes a checkpoint per epoch to --logs.
With validation data, COCO AP determines the best checkpoint.

examples:
  mrcnn train data/ --subset train --val-subset val --weights imagenet
  mrcnn train a.json --val b.json --weights mask_rcnn_coco.h5 --head unet
  mrcnn train data/ --subset train --weights last --epochs 24
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrcnn.cli import options
from mrcnn.cli.console import Interrupted, note
from mrcnn.training.interruption import TrainingInterrupted

if TYPE_CHECKING:
    from mrcnn.data.dataset import Dataset

USAGE = "mrcnn train DATA --weights W [options]"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_data(parser)
    options.add_weights(parser, 'file, name, "imagenet", "none", or "last" to continue')
    options.add_network(parser)
    add = parser.add_argument
    add("--head", type=options.mask_head, metavar="HEAD", help="mask head, such as unet:filters=64")
    add("--name", metavar="NAME", help="name of the run (the name of DATA)")
    add("--epochs", type=options.positive, default=12, metavar="N", help="last epoch (12)")
    add("--layers", default="all", metavar="L", help="heads, 3+, 4+, 5+, all, or a regex (all)")
    add("--every", type=options.positive, default=1, metavar="N", help="compute AP every N epochs (1)")
    add("--patience", type=options.positive, metavar="N", help="stop after N APs without improvement")
    options.add_settings(parser)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    training, validation = options.read_data(arguments)
    model = _model(arguments, training)
    callbacks = []
    if validation is None:
        note("no validation data (--val, --val-subset): AP is not computed")
    else:
        from mrcnn.evaluation.callback import AveragePrecision

        callbacks.append(AveragePrecision(model, validation, arguments.every, patience=arguments.patience))
    try:
        history = model.train(
            training, validation, epochs=arguments.epochs, layers=arguments.layers, custom_callbacks=callbacks
        )
    except TrainingInterrupted as error:
        advice = "Continue with --weights last" if error.saved else "Run the same command to start over"
        raise Interrupted(f"{error.state} {advice}") from None
    last = {name: float(values[-1]) for name, values in history.history.items()}
    note(f"epoch {model.epoch} is done; checkpoints and logs are in {model.log_dir}")
    return {"epoch": model.epoch, "folder": str(model.log_dir), "last": last}


def _model(arguments: argparse.Namespace, training: "Dataset") -> Any:
    """A model for the classes of the training data, with the requested weights."""
    settings = options.network_settings(arguments) | {"NUM_CLASSES": training.num_classes}
    if arguments.head:
        settings["MASK_HEAD"] = arguments.head
    if arguments.weights == "last":
        return options.load_model(arguments, "training", **settings)
    name = arguments.name or Path(arguments.data).resolve().stem or "run"
    settings = {"NAME": name, "STEPS_PER_EPOCH": None, "VALIDATION_STEPS": None, **settings}
    if arguments.weights not in ("none", "imagenet"):
        names = list(training.class_names)
        return options.load_model(arguments, "training", class_names=names, keep_classes=True, **settings)
    from mrcnn.config import Config
    from mrcnn.model import MaskRCNN

    base = options.base_config(arguments)
    values = (base.to_dict() if base else {}) | settings | dict(arguments.set)
    model = MaskRCNN("training", (type(base) if base else Config)(**values), arguments.logs)
    if arguments.weights == "imagenet":
        model.load_weights(model.get_imagenet_weights())
    return model

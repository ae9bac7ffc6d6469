"""Shared by the competition samples: flags, images held out for validation, and the model."""

import argparse
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mrcnn.config import Config
from mrcnn.data.dataset import Dataset
from mrcnn.model import MaskRCNN
from samples.settings import add_settings, configure
from samples.weights import configure_as_trained, load_weights

ROOT = Path(__file__).resolve().parents[1]


def parser(description: str, *, epochs: int) -> argparse.ArgumentParser:
    """The flags of train, evaluate and submit."""
    flags = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("command", choices=["train", "evaluate", "submit"])
    flags.add_argument("--dataset", required=True, metavar="DIR", help="folder of the competition's data")
    flags.add_argument(
        "--subset",
        metavar="NAME",
        help='part of DIR to train on (default "train"), or to create a submission for (default "test")',
    )
    flags.add_argument(
        "--validation",
        type=name_or_share,
        default="val",
        metavar="NAME|SHARE",
        help='part of DIR to validate on (default "val"), or a fraction of the training images, such as '
        "0.1, held out by id: the same images in train and evaluate",
    )
    flags.add_argument("--no-validation", action="store_true", help="train: skip the val_ losses")
    flags.add_argument(
        "--weights",
        required=True,
        help='a checkpoint, "last", "coco", "imagenet", a file of backbone weights, or "none"; evaluate '
        "and submit read the settings from the config.json next to a checkpoint",
    )
    flags.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="LAYER",
        help="layers of the checkpoint to skip, by name or regular expression; repeatable",
    )
    flags.add_argument("--logs", default=str(ROOT / "logs"), help="folder of training runs")
    flags.add_argument("--epochs", type=int, default=epochs)
    flags.add_argument("--layers", default="all", help='"heads", "3+", "4+", "5+", "all" or a regular expression')
    flags.add_argument("--limit", type=int, help="evaluate: use only this many images")
    flags.add_argument("--pictures", metavar="FOLDER", help="evaluate: draw every image into FOLDER")
    flags.add_argument("--output", default="submission.csv", metavar="FILE", help="submit: CSV file to write")
    flags.add_argument("--min-score", type=score, default=0.5, help="submit: minimum score of detections")
    flags.add_argument("--verbose", type=int, default=1, help="0 silent, 1 progress bar, 2 one line per epoch")
    add_settings(flags)
    return flags


def name_or_share(text: str) -> str | float:
    """A fraction between 0 and 1 as a number; any text that is not a number unchanged."""
    try:
        share = float(text)
    except ValueError:
        return text
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"expected the name of a part or a fraction between 0 and 1, got {text}")
    return share


def score(text: str) -> float:
    """A number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a score from 0 to 1, got {text}")
    return value


def datasets(load: Callable[[str], Dataset], arguments: argparse.Namespace) -> tuple[Dataset, Dataset | None]:
    """The images to train on and those to validate on. `load` returns the prepared dataset of a part of DIR."""
    subset = arguments.subset or "train"
    if isinstance(arguments.validation, float):
        share = arguments.validation
        training = keep(load(subset), lambda image_id: not held_out(image_id, share), f"left by a fraction of {share}")
    else:
        training = load(subset)
    return training, None if arguments.no_validation else validation_dataset(load, arguments)


def validation_dataset(load: Callable[[str], Dataset], arguments: argparse.Namespace) -> Dataset:
    """The images to validate on."""
    share = arguments.validation
    if not isinstance(share, float):
        return load(share)
    return keep(
        load(arguments.subset or "train"), lambda image_id: held_out(image_id, share), f"in a fraction of {share}"
    )


def held_out(image_id: Any, share: float) -> bool:
    """Whether an image is held out. This depends only on its id, so adding images does not move others."""
    return zlib.crc32(str(image_id).encode()) < share * 2**32


def keep(dataset: Dataset, wanted: Callable[[Any], bool], what: str) -> Dataset:
    """The dataset with only the images whose ids are wanted. Raises ValueError if there are none."""
    count = len(dataset.image_info)
    dataset.image_info = [info for info in dataset.image_info if wanted(info["id"])]
    if not dataset.image_info:
        raise ValueError(
            f"none of the {count} images is {what}; set --validation to a different fraction, or the name of a part"
        )
    dataset.prepare()
    return dataset


def configuration(sample: type[Config], arguments: argparse.Namespace) -> Config:
    """The settings for the command: the sample's in training, else those of the run that made the weights."""
    if arguments.command == "train":
        return configure(sample, arguments)
    return configure_as_trained(sample, arguments, arguments.weights, arguments.logs)


def build(config: Config, arguments: argparse.Namespace) -> MaskRCNN:
    """The model, with the weights from the command line."""
    config.validate()
    model = MaskRCNN("training" if arguments.command == "train" else "inference", config, arguments.logs)
    load_weights(model, arguments.weights, arguments.exclude)
    return model

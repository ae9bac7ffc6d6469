"""What programs for a competition's data share: the flags of a run, images held out for validation, and the model."""

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
    """Flags of train, evaluate and submit."""
    flags = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("command", choices=["train", "evaluate", "submit"])
    flags.add_argument("--dataset", required=True, metavar="DIR", help="folder of the competition's data")
    flags.add_argument(
        "--subset",
        metavar="NAME",
        help='part of DIR to train on ("train" unless given), or to make a submission for ("test")',
    )
    flags.add_argument(
        "--validation",
        type=name_or_share,
        default="val",
        metavar="NAME|SHARE",
        help='part of DIR to validate on ("val" unless given), or a share of the training images, as '
        "0.1, that is held out by their ids: the same images in train and evaluate",
    )
    flags.add_argument("--no-validation", action="store_true", help="train: skip the val_ losses")
    flags.add_argument(
        "--weights",
        required=True,
        help='a checkpoint, "last", "coco", "imagenet", a file of backbone weights, or "none"; evaluate '
        "and submit take the settings from the config.json beside a checkpoint",
    )
    flags.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="LAYER",
        help="layers of the checkpoint to leave out, a name or a regular expression; repeatable",
    )
    flags.add_argument("--logs", default=str(ROOT / "logs"), help="where runs are kept")
    flags.add_argument("--epochs", type=int, default=epochs)
    flags.add_argument("--layers", default="all", help='"heads", "3+", "4+", "5+", "all" or a regular expression')
    flags.add_argument("--limit", type=int, help="evaluate: only the first so many images")
    flags.add_argument("--pictures", metavar="FOLDER", help="evaluate: draw every image into FOLDER")
    flags.add_argument("--output", default="submission.csv", metavar="FILE", help="submit: the csv to write")
    flags.add_argument("--min-score", type=score, default=0.5, help="submit: leave out detections under it")
    flags.add_argument("--verbose", type=int, default=1, help="0 silent, 1 progress bar, 2 a line an epoch")
    add_settings(flags)
    return flags


def name_or_share(text: str) -> str | float:
    """A share between 0 and 1 as a number; anything that is no number as it is."""
    try:
        share = float(text)
    except ValueError:
        return text
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"expected the name of a part or a share between 0 and 1, got {text}")
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
    """The images to train on and those to validate on. `load` gives the prepared dataset of a part of DIR."""
    subset = arguments.subset or "train"
    if isinstance(arguments.validation, float):
        share = arguments.validation
        training = keep(load(subset), lambda image_id: not held_out(image_id, share), f"left by a share of {share}")
    else:
        training = load(subset)
    return training, None if arguments.no_validation else validation_dataset(load, arguments)


def validation_dataset(load: Callable[[str], Dataset], arguments: argparse.Namespace) -> Dataset:
    """The images to validate on."""
    share = arguments.validation
    if not isinstance(share, float):
        return load(share)
    return keep(load(arguments.subset or "train"), lambda image_id: held_out(image_id, share), f"in a share of {share}")


def held_out(image_id: Any, share: float) -> bool:
    """Whether an image is held out. It depends on its id alone, so images that join the data move no other."""
    return zlib.crc32(str(image_id).encode()) < share * 2**32


def keep(dataset: Dataset, wanted: Callable[[Any], bool], what: str) -> Dataset:
    """The dataset with those of its images whose ids are wanted. Raises ValueError when none is."""
    count = len(dataset.image_info)
    dataset.image_info = [info for info in dataset.image_info if wanted(info["id"])]
    if not dataset.image_info:
        raise ValueError(
            f"none of the {count} images is {what}; give --validation another share, or the name of a part"
        )
    dataset.prepare()
    return dataset


def configuration(sample: type[Config], arguments: argparse.Namespace) -> Config:
    """The settings of the command: the sample's in training, else those of the run that the weights come from."""
    if arguments.command == "train":
        return configure(sample, arguments)
    return configure_as_trained(sample, arguments, arguments.weights, arguments.logs)


def build(config: Config, arguments: argparse.Namespace) -> MaskRCNN:
    """The model, with the weights that the command line names."""
    config.validate()
    model = MaskRCNN("training" if arguments.command == "train" else "inference", config, arguments.logs)
    load_weights(model, arguments.weights, arguments.exclude)
    return model

"""Options shared by several commands, and the model they describe."""

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mrcnn.config import key_value

PRESETS = {"reference": "Config", "matterport": "Matterport", "torchvision": "Torchvision", "detectron2": "Detectron2"}


def mask_head(text: str, kind: str | None = "mask") -> dict[str, Any]:
    """A head and its options, "unet" or "unet:filters=64,name=value", as `Config.MASK_HEAD` takes it.

    kind: of heads that are meant; None for any.

    Raises ArgumentTypeError for a name that is not registered or an option without "=".
    """
    import heads

    name, _, options = text.partition(":")
    if name not in heads.names(kind):
        raise argparse.ArgumentTypeError(f"invalid choice: {name!r} (choose from {', '.join(heads.names(kind))})")
    # A comma separates two options only before a name and "=", so that a value may be a tuple
    return {"name": name} | dict(map(key_value, re.split(r",(?=\s*\w+=)", options) if options else []))


def positive(text: str) -> int:
    """An integer of at least 1. Raises ArgumentTypeError for anything else."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer >= 1, got {text!r}")
    return int(text)


def tile_side(text: str) -> int:
    """Pixels of a tile's side. Raises ArgumentTypeError for anything but an integer of at least `SMALLEST_TILE`."""
    from mrcnn.inference.tiling import SMALLEST_TILE

    if not text.isdigit() or int(text) < SMALLEST_TILE:
        raise argparse.ArgumentTypeError(f"expected pixels of a tile's side, {SMALLEST_TILE} or more, got {text!r}")
    return int(text)


def share(text: str) -> float:
    """A number from 0 to 1. Raises ArgumentTypeError for anything else."""
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")
    return value


def parts(text: str) -> tuple[str, ...]:
    """The parts of "a,b,c", which may be none."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def names(text: str) -> tuple[str, ...]:
    """Names of classes, "cat,dog". Raises ArgumentTypeError if there are none."""
    found = parts(text)
    if not found:
        raise argparse.ArgumentTypeError(f"expected names, such as cat,dog, got {text!r}")
    return found


def one_of(*choices: str) -> Any:
    """A type for "a,b,c" with these choices."""

    def chosen(text: str) -> tuple[str, ...]:
        given = parts(text)
        if not given or not set(given) <= set(choices):
            raise argparse.ArgumentTypeError(f"expected some of {','.join(choices)}, got {text!r}")
        return given

    return chosen


def add_data(parser: argparse.ArgumentParser) -> None:
    """DATA, --subset, --val, --val-subset and --format, for `read_data`."""
    parser.add_argument("data", metavar="DATA", help="annotations: a file or a folder")
    parser.add_argument("--subset", metavar="NAME", help="part of DATA to train on, such as train")
    parser.add_argument("--val", metavar="DATA", help="validation data, if separate")
    parser.add_argument("--val-subset", metavar="S", help="part to validate on, such as val")
    parser.add_argument("--format", metavar="NAME", help="annotation format, if not detected")


def read_data(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """Training and validation data with the same classes; None without --val and --val-subset.

    Reads only boxes if MASK_HEAD is None through --set, --config or --preset.

    Raises ValueError if both are the same data.
    """
    from mrcnn.data.formats import load_dataset

    base = base_config(arguments)
    head = dict(arguments.set).get("MASK_HEAD", "" if base is None else base.MASK_HEAD)
    masks = head is not None or getattr(arguments, "head", None) is not None
    training = load_dataset(arguments.data, arguments.subset, format=arguments.format, masks=masks)
    if arguments.val is None and arguments.val_subset is None:
        return training, None
    place, subset = arguments.val or arguments.data, arguments.val_subset
    if (place, subset) == (arguments.data, arguments.subset):
        raise ValueError(
            f"{place} would be both training and validation data; choose parts with --subset and --val-subset"
        )
    names = training.class_names[1:]
    return training, load_dataset(place, subset, format=arguments.format, class_names=names, masks=masks)


def add_weights(
    parser: argparse.ArgumentParser,
    text: str = 'file, name, exported .onnx, .xml, .tflite; "last" of --logs',
    default: str | None = None,
) -> None:
    """--weights, required if it has no default; and --logs."""
    parser.add_argument("--weights", required=default is None, default=default, metavar="W", help=text)
    parser.add_argument("--logs", default="logs", metavar="DIR", help="folder of training runs (logs)")


def add_network(parser: argparse.ArgumentParser) -> None:
    """The most common training settings; --set reaches them too."""
    add = parser.add_argument
    add("--backbone", metavar="NAME", help="resnet50, resnet101 or a keras.applications name")
    add("--image-size", type=positive, metavar="PX", help="longest side in pixels")
    add("--batch", type=positive, metavar="N", help="images per step; scales the learning rate")
    add("--learning-rate", type=float, metavar="R", help="overrides the scaled learning rate")


def network_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings made by `add_network`'s options."""
    from mrcnn.config import Config

    settings: dict[str, Any] = {}
    if arguments.backbone:
        settings |= {"BACKBONE": arguments.backbone, "BACKBONE_OPTIONS": {}}
    if arguments.image_size:
        settings |= {"IMAGE_MIN_DIM": arguments.image_size, "IMAGE_MAX_DIM": arguments.image_size}
    if arguments.batch:
        settings |= {
            "IMAGES_PER_GPU": arguments.batch,
            "LEARNING_RATE": Config.LEARNING_RATE * arguments.batch / Config.IMAGES_PER_GPU,
        }
    if arguments.learning_rate:
        settings["LEARNING_RATE"] = arguments.learning_rate
    return settings


def add_settings(parser: argparse.ArgumentParser) -> None:
    """--preset, --config and --set."""
    group = parser.add_argument_group("settings")
    group.add_argument("--preset", choices=PRESETS, metavar="P", help=f"one of {', '.join(PRESETS)}")
    group.add_argument("--config", metavar="FILE", help="the config.json of an earlier run")
    group.add_argument(
        "--set", type=key_value, action="append", default=[], metavar="NAME=V", help="any setting; repeatable"
    )


def base_config(arguments: argparse.Namespace) -> Any:
    """The configuration given by --config or --preset; None without them."""
    from mrcnn import presets
    from mrcnn.config import Config

    if arguments.config and arguments.preset:
        raise ValueError("pass --config or --preset, not both; change single settings with --set")
    if arguments.config:
        return Config.load(arguments.config)
    name = PRESETS.get(arguments.preset or "")
    return getattr(presets, name, Config)() if name else None


def load_model(arguments: argparse.Namespace, mode: str = "inference", **settings: Any) -> Any:
    """The model of --weights, with its own conventions; --set overrides `settings`, which override --config.

    Returns:
        A `MaskRCNN`, or a `Predictor` for an exported file, which takes no settings.
    """
    path = weights_path(arguments)
    if is_exported(arguments):
        from mrcnn.inference.predictor import Predictor

        if arguments.set or arguments.config or arguments.preset:
            raise ValueError(f"{path} is an exported model, whose settings are fixed; remove --set and similar options")
        return Predictor(path)
    from mrcnn.model import MaskRCNN

    return MaskRCNN.from_pretrained(
        path, mode, arguments.logs, base_config(arguments), **(settings | dict(arguments.set))
    )


def is_exported(arguments: argparse.Namespace) -> bool:
    """Whether --weights is a file written by `MaskRCNN.export`."""
    return Path(arguments.weights).suffix in (".onnx", ".xml", ".tflite")


def weights_path(arguments: argparse.Namespace) -> str:
    """The file or name that --weights refers to."""
    if arguments.weights != "last":
        return arguments.weights
    from mrcnn.training.run_folder import find_last

    logs = Path(arguments.logs)
    name = dict(arguments.set).get("NAME")
    if name is None:
        runs = [
            (match[2], match[1])
            for folder in (logs.iterdir() if logs.is_dir() else ())
            if (match := re.fullmatch(r"(.+?)(\d{8}T\d{4,6})", folder.name))
            and any(re.fullmatch(r"mask_rcnn_.*\.h5", file.name) for file in folder.iterdir())
        ]
        if not runs:
            raise FileNotFoundError(f"no checkpoint in {logs.resolve()}; train first, or pass --logs or a file")
        name = max(runs)[1]
    return str(find_last(logs, name))


def fingerprint(path: str) -> str:
    """Identifies weights: `content_hash` of a file, or the name itself if it is not a file."""
    from mrcnn.inference.predictor import content_hash

    return content_hash(path) if Path(path).is_file() else path


def described(values: Any) -> str:
    """Values in a fixed text form, to compare with those of another run."""
    return json.dumps(values, sort_keys=True, default=str)


def class_filter(names: Sequence[str], wanted: Sequence[str] | None) -> list[int] | None:
    """Ids of the classes with these names; None for all. Raises ValueError for a name the model does not have."""
    if not wanted:
        return None
    unknown = [name for name in wanted if name not in names[1:]]
    if unknown:
        raise ValueError(f"the model has no class {', '.join(unknown)}; it has {', '.join(names[1:])}")
    return [names.index(name) for name in wanted]

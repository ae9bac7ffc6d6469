"""Options that several commands share, and the model that they describe."""

import argparse
import ast
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PRESETS = {"reference": "Config", "matterport": "Matterport", "torchvision": "Torchvision", "detectron2": "Detectron2"}


def key_value(text: str) -> tuple[str, Any]:
    """ "NAME=VALUE" as a pair; the value is a Python literal, else plain text. Raises ArgumentTypeError without "="."""
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def mask_head(text: str) -> dict[str, Any]:
    """A head and its options, "unet" or "unet:filters=64,name=value", as `Config.MASK_HEAD` takes it.

    Raises ArgumentTypeError for a name that is not registered or an option without "=".
    """
    import heads

    name, _, options = text.partition(":")
    if name not in heads.names():
        raise argparse.ArgumentTypeError(f"invalid choice: {name!r} (choose from {', '.join(heads.names())})")
    # A comma separates two options only before a name and "=", so that a value may be a tuple
    return {"name": name} | dict(map(key_value, re.split(r",(?=\s*\w+=)", options) if options else []))


def positive(text: str) -> int:
    """A whole number from 1 on. Raises ArgumentTypeError for another text."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, got {text!r}")
    return int(text)


def share(text: str) -> float:
    """A number from 0 to 1. Raises ArgumentTypeError for another text."""
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")
    return value


def names(text: str) -> tuple[str, ...]:
    """The parts of "a,b,c"."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def one_of(*choices: str) -> Any:
    """A type for "a,b,c" with these choices."""

    def chosen(text: str) -> tuple[str, ...]:
        given = names(text)
        if not given or not set(given) <= set(choices):
            raise argparse.ArgumentTypeError(f"expected some of {','.join(choices)}, got {text!r}")
        return given

    return chosen


def add_weights(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """--weights, and --logs for "last"."""
    parser.add_argument(
        "--weights",
        required=required,
        metavar="W",
        help='file, published name, exported .onnx or .xml, or "last" (in --logs)',
    )
    parser.add_argument("--logs", default="logs", metavar="DIR", help="folder of training runs (logs)")


def add_settings(parser: argparse.ArgumentParser) -> None:
    """--preset, --config and --set."""
    group = parser.add_argument_group("settings")
    group.add_argument("--preset", choices=PRESETS, metavar="P", help=f"whose conventions: {', '.join(PRESETS)}")
    group.add_argument("--config", metavar="FILE", help="the config.json of an earlier run")
    group.add_argument(
        "--set", type=key_value, action="append", default=[], metavar="NAME=V", help="any setting; repeatable"
    )


def base_config(arguments: argparse.Namespace) -> Any:
    """The configuration that --config or --preset names; None without them."""
    from mrcnn import presets
    from mrcnn.config import Config

    if arguments.config and arguments.preset:
        raise ValueError("give --config or --preset, not both; single settings are changed by --set")
    if arguments.config:
        return Config.load(arguments.config)
    name = PRESETS.get(arguments.preset or "")
    return getattr(presets, name, Config)() if name else None


def load_model(arguments: argparse.Namespace, mode: str = "inference", **settings: Any) -> Any:
    """The model of --weights, with its own conventions; --set goes before `settings`, these before --config.

    Returns:
        A `MaskRCNN`, or a `Predictor` for an exported file, which takes no settings.
    """
    path = weights_path(arguments)
    if Path(path).suffix in (".onnx", ".xml"):
        from mrcnn.inference.predictor import Predictor

        if arguments.set or arguments.config or arguments.preset:
            raise ValueError(f"{path} is an exported model, whose settings are fixed; leave out --set and the like")
        return Predictor(path)
    from mrcnn.model import MaskRCNN

    return MaskRCNN.from_pretrained(
        path, mode, arguments.logs, base_config(arguments), **(settings | dict(arguments.set))
    )


def weights_path(arguments: argparse.Namespace) -> str:
    """The file or name that --weights means."""
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
            raise FileNotFoundError(f"no checkpoint in {logs.resolve()}; train first, or give --logs or a file")
        name = max(runs)[1]
    return str(find_last(logs, name))


def fingerprint(path: str) -> str:
    """What tells two files of weights apart: a hash of the content; the name itself where it is no file."""
    if not Path(path).is_file():
        return path
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def described(values: Any) -> str:
    """Values as text in one fixed form, to compare them with those of another run."""
    return json.dumps(values, sort_keys=True, default=str)


def class_filter(names: Sequence[str], wanted: Sequence[str] | None) -> list[int] | None:
    """Ids of the classes with these names; None for all. Raises ValueError for a name that the model does not know."""
    if not wanted:
        return None
    unknown = [name for name in wanted if name not in names[1:]]
    if unknown:
        raise ValueError(f"the model has no class {', '.join(unknown)}; it has {', '.join(names[1:])}")
    return [names.index(name) for name in wanted]

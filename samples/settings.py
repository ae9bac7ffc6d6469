"""Command-line flags that the samples share, and what they mean for a configuration."""

import argparse
import ast
from typing import Any

import heads
from mrcnn.config import Config


def key_value(text: str) -> tuple[str, Any]:
    """"NAME=VALUE" as a pair; the value is a Python literal, else plain text. Raises ArgumentTypeError without "="."""
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Flags for the model and its training; one that is not given leaves the sample's own setting."""
    parser.add_argument("--head", choices=heads.names(), help="mask head")
    parser.add_argument("--head-option", type=key_value, action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--backbone", help="resnet50, resnet101 or any keras.applications name")
    parser.add_argument("--backbone-option", type=key_value, action="append", default=[], metavar="NAME=VALUE",
                        help="for example alpha=0.75")
    parser.add_argument("--image-size", type=int, help="longest side in pixels")
    parser.add_argument("--batch", type=int, help="images a step")
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--precision", choices=["float32", "bfloat16"])
    parser.add_argument("--seed", type=int)
    parser.add_argument("--config", metavar="FILE.json", help="settings of an earlier run, from its log directory")
    parser.add_argument("--set", type=key_value, action="append", default=[], metavar="NAME=VALUE",
                        help="any setting of mrcnn/config.py")


def configure(sample: type[Config], arguments: argparse.Namespace) -> Config:
    """The sample's configuration with what the command line says. Raises ValueError for an unknown setting."""
    stored = Config.load(arguments.config).to_dict() if arguments.config else {}
    return sample(**{**stored, **_given(arguments)})


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    values = {
        "MASK_HEAD": arguments.head and {"name": arguments.head, **dict(arguments.head_option)},
        "BACKBONE": arguments.backbone,
        "BACKBONE_OPTIONS": dict(arguments.backbone_option) or None,
        "IMAGE_MIN_DIM": arguments.image_size, "IMAGE_MAX_DIM": arguments.image_size,
        "IMAGES_PER_GPU": arguments.batch, "LEARNING_RATE": arguments.learning_rate,
        "PRECISION": arguments.precision, "SEED": arguments.seed,
    }
    return {name: value for name, value in values.items() if value is not None} | dict(arguments.set)

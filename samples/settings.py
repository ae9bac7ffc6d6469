"""Command-line flags shared by the samples, and the settings they change."""

import argparse
from typing import Any

import heads
from mrcnn.cli.options import mask_head
from mrcnn.config import Config, key_value


def add_settings(parser: argparse.ArgumentParser, several_heads: bool = False) -> None:
    """Flags for the model and its training; a flag that is not given keeps the sample's setting."""
    parser.add_argument(
        "--head",
        type=mask_head,
        action="append" if several_heads else "store",
        metavar="NAME",
        help=f"mask head, {' or '.join(heads.names('mask'))}, with options, such as unet:filters=64"
        + ("; repeatable" if several_heads else ""),
    )
    parser.add_argument(
        "--head-option",
        type=key_value,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="for example filters=64; "
        + ("for every head" if several_heads else "without --head, an option of the sample's or run's head"),
    )
    parser.add_argument("--backbone", help="resnet50, resnet101 or any keras.applications name")
    parser.add_argument(
        "--backbone-option",
        type=key_value,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="for example alpha=0.75; options of a different backbone are dropped",
    )
    parser.add_argument("--image-size", type=int, help="longest side in pixels")
    parser.add_argument("--batch", type=int, help="images per step")
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--precision", choices=["float32", "bfloat16", "auto"])
    parser.add_argument("--seed", type=int)
    parser.add_argument("--config", metavar="FILE.json", help="settings of an earlier run, overridden by flags")
    parser.add_argument(
        "--set",
        type=key_value,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any setting of mrcnn/config.py",
    )


def configure(sample: type[Config], arguments: argparse.Namespace, stored: dict[str, Any] | None = None) -> Config:
    """The sample's configuration with the settings from the command line.

    Args:
        stored: settings of an earlier run; --config and the other flags override them.

    Raises ValueError for an unknown setting.
    """
    stored = Config.load(arguments.config).to_dict() if arguments.config else stored or {}
    base = {name: stored.get(name, getattr(sample, name)) for name in ("MASK_HEAD", "BACKBONE_OPTIONS")}
    return sample(**{**stored, **_given(arguments, **base)})


def _given(
    arguments: argparse.Namespace, MASK_HEAD: str | dict[str, Any], BACKBONE_OPTIONS: dict[str, Any]
) -> dict[str, Any]:
    """The settings changed by the command line; options without a name apply to the current head or backbone."""
    head = arguments.head or MASK_HEAD
    named = {"name": head} if isinstance(head, str) else head
    values = {
        "MASK_HEAD": named | dict(arguments.head_option) if arguments.head or arguments.head_option else None,
        "BACKBONE": arguments.backbone,
        "BACKBONE_OPTIONS": ({} if arguments.backbone else BACKBONE_OPTIONS) | dict(arguments.backbone_option),
        "IMAGE_MIN_DIM": arguments.image_size,
        "IMAGE_MAX_DIM": arguments.image_size,
        "IMAGES_PER_GPU": arguments.batch,
        "LEARNING_RATE": arguments.learning_rate,
        "PRECISION": arguments.precision,
        "SEED": arguments.seed,
    }
    return {name: value for name, value in values.items() if value is not None} | dict(arguments.set)

"""Limits of network input sizes, from the settings."""

from typing import NamedTuple

from mrcnn.config import Config
from mrcnn.data.molding import round_up


class InputLimits(NamedTuple):
    """Known limits of network inputs, so that nothing is compiled for others.

    short, long: upper limits of the shorter and the longer side, in pixels; None: no limit.
    batch: maximum images per batch; None: any number.
    one_size: all network inputs have the same size.
    """

    short: int | None = None
    long: int | None = None
    batch: int | None = None
    one_size: bool = False


def input_limits(config: Config) -> InputLimits:
    """The limits of network input sizes, from the settings."""
    mode, batch = config.IMAGE_RESIZE_MODE, config.DETECTION_BATCH_SIZE
    if mode in ("none", "pad64"):
        return InputLimits(batch=batch)
    long = round_up(largest_side(config) or 0, config.SIZE_DIVISOR)
    if mode == "fit":
        return InputLimits(round_up(config.IMAGE_MIN_DIM, config.SIZE_DIVISOR), long, batch)
    return InputLimits(long, long, batch, one_size=True)


def largest_side(config: Config) -> int | None:
    """The longest side of a resized image in pixels; None: no limit."""
    crops = config.IMAGE_RESIZE_MODE == "crop"
    return config.IMAGE_MIN_DIM if crops and not config.IMAGE_MAX_DIM else config.IMAGE_MAX_DIM

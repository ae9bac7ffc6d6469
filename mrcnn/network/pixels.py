"""The pixel scaling that a backbone expects, from the settings and from the backbone itself."""

from typing import NamedTuple

from mrcnn.config import Config


class PixelScaling(NamedTuple):
    """What the network's first weights expect: (pixel - mean) / std, channel by channel.

    `mean` and `std` are in the order of the image's channels (RGB); `bgr` then reverses the channels.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    bgr: bool = False


def scaling_of(config: Config, own: PixelScaling) -> PixelScaling:
    """The pixel scaling that the trunk expects: the backbone's (`own`), unless the settings override it."""
    return PixelScaling(
        tuple(own.mean if config.MEAN_PIXEL is None else config.MEAN_PIXEL),
        tuple(own.std if config.PIXEL_STD is None else config.PIXEL_STD),
        own.bgr if config.CHANNEL_ORDER is None else config.CHANNEL_ORDER == "bgr",
    )

"""The pixels that a trunk expects, by the settings and by its backbone."""

import numpy as np

from mrcnn.backbone import backbone_scaling
from mrcnn.config import Config
from mrcnn.data import molding
from mrcnn.data.molding import PixelScaling


def mold_image(image: np.ndarray, config: Config) -> np.ndarray:
    """The pixels [H, W, C] of an image as the trunk expects them, float32 and of the same size, as in the old package.

    `detect` needs no such thing; `MaskRCNN.detector.mold` resizes and pads as well.
    """
    own = backbone_scaling(config.BACKBONE, config.IMAGE_CHANNEL_COUNT)
    return molding.mold_image(np.asarray(image), *scaling_of(config, own))


def scaling_of(config: Config, own: PixelScaling) -> PixelScaling:
    """The pixels that the trunk expects: those of the backbone (`own`), where the settings do not say otherwise."""
    return PixelScaling(
        tuple(own.mean if config.MEAN_PIXEL is None else config.MEAN_PIXEL),
        tuple(own.std if config.PIXEL_STD is None else config.PIXEL_STD),
        own.bgr if config.CHANNEL_ORDER is None else config.CHANNEL_ORDER == "bgr")

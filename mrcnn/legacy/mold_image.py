"""`mold_image` as the old package's notebooks call it."""

import numpy as np

from mrcnn.config import Config
from mrcnn.data import molding
from mrcnn.network.backbone import backbone_scaling
from mrcnn.network.pixels import scaling_of


def mold_image(image: np.ndarray, config: Config) -> np.ndarray:
    """The pixels [H, W, C] of an image as the trunk expects them, float32 and of the same size, as in the old package.

    `detect` needs no such thing; `MaskRCNN.detector.network_input` resizes and pads as well.
    """
    own = backbone_scaling(config.BACKBONE, config.IMAGE_CHANNEL_COUNT)
    return molding.mold_image(np.asarray(image), *scaling_of(config, own))

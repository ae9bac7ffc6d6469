"""Feature pyramid (Lin et al. 2017) over four feature maps."""

import keras
from keras import layers


def feature_pyramid(taps: list, filters: int = 256) -> list:
    """Builds the pyramid on [C2, C3, C4, C5].

    The lateral 1x1 and output 3x3 convolutions have a bias and no activation. The coarser level is upsampled by
    nearest neighbor and added. P6 is every second row and column of P5. Initialized as torchvision's
    FeaturePyramidNetwork: kaiming_uniform with a = 1, whose variance is 1 / fan_in.

    Args:
        taps: four KerasTensors [B, H / s, W / s, c] at strides s = 4, 8, 16, 32; H and W are multiples of 32.
        filters: channels of every level.

    Returns:
        [P2, P3, P4, P5, P6], KerasTensors [B, H / s, W / s, filters] at strides 4, 8, 16, 32, 64; P6's size rounds up.

    Raises:
        ValueError: if there are not four taps.
    """
    if len(taps) != 4:
        raise ValueError(f"the feature pyramid needs four feature maps [C2, C3, C4, C5], received {len(taps)}")
    c2, c3, c4, c5 = taps
    merged = {5: _convolution(filters, 1, "fpn_c5p5")(c5)}
    for level, tap in ((4, c4), (3, c3), (2, c2)):
        lateral = _convolution(filters, 1, f"fpn_c{level}p{level}")(tap)
        coarser = layers.UpSampling2D(2, name=f"fpn_p{level + 1}upsampled")(merged[level + 1])
        merged[level] = layers.Add(name=f"fpn_p{level}add")([coarser, lateral])
    levels = [_convolution(filters, 3, f"fpn_p{level}")(merged[level]) for level in (2, 3, 4, 5)]
    return [*levels, layers.MaxPooling2D(1, strides=2, padding="same", name="fpn_p6")(levels[-1])]


def _convolution(filters: int, size: int, name: str) -> layers.Layer:
    uniform = keras.initializers.VarianceScaling(scale=1.0, mode="fan_in", distribution="uniform")
    return layers.Conv2D(filters, size, padding="same", kernel_initializer=uniform, name=name)

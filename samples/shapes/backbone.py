"""A residual backbone small enough to train from scratch in minutes on a CPU."""

from typing import Any

from keras import layers


def compact(image: Any, *, width: int = 32, blocks: int = 1) -> list:
    """Feature maps [C2, C3, C4, C5] at strides 4, 8, 16 and 32, with `width` to 4 * `width` channels.

    Args:
        image: the network input [batch, height, width, channels], sides multiples of 32.
        width: channels of C2; C3 has twice, C4 and C5 four times as many.
        blocks: residual blocks per stage.
    """
    x = _convolution(image, width // 2, "conv1", stride=2)
    x = _convolution(x, width, "conv2", stride=2)
    taps = []
    for stage, filters in enumerate((width, 2 * width, 4 * width, 4 * width), start=2):
        for block in range(blocks):
            x = _residual(x, filters, f"res{stage}{'abcdefgh'[block]}", stride=2 if stage > 2 and block == 0 else 1)
        taps.append(x)
    return taps


def _residual(x: Any, filters: int, name: str, stride: int) -> Any:
    y = _convolution(x, filters, f"{name}_branch2a", stride=stride)
    y = _convolution(y, filters, f"{name}_branch2b", activation=False)
    if stride > 1 or x.shape[-1] != filters:
        x = _convolution(x, filters, f"{name}_branch1", size=1, stride=stride, activation=False)
    return layers.ReLU(name=f"{name}_out")(layers.Add(name=f"{name}_add")([x, y]))


def _convolution(x: Any, filters: int, name: str, *, size: int = 3, stride: int = 1, activation: bool = True) -> Any:
    x = layers.Conv2D(
        filters, size, strides=stride, padding="same", use_bias=False, kernel_initializer="he_normal", name=name
    )(x)
    x = layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x) if activation else x

"""Convolutions and poolings without their stride, or with dilation, and the same weights."""

from typing import Any, Self

import keras
from keras import layers, ops

CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D)
POOLS = (layers.MaxPooling2D, layers.AveragePooling2D)
Sides = tuple[tuple[int, int], tuple[int, int]]  # rows or columns (before, after), vertically and horizontally


@keras.saving.register_keras_serializable("mrcnn")
class LowestPadding(layers.ZeroPadding2D):
    """Padding that is never a maximum. call: [B, H, W, C] -> [B, top + H + bottom, left + W + right, C]."""

    def call(self, inputs: Any) -> Any:
        return ops.pad(inputs, [(0, 0), *self.padding, (0, 0)], constant_values=float("-inf"))


@keras.saving.register_keras_serializable("mrcnn")
class DilatedPooling(layers.Layer):
    """A pooling layer with dilation 2, which Keras has for convolutions alone. call: [B, H, W, C], even H and W.

    The cells of even and of odd rows and columns are four maps, which are pooled alone.

    Args:
        pooling: of stride 1.
    """

    def __init__(self, pooling: layers.Layer, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pooling = pooling

    def call(self, inputs: Any) -> Any:
        batch, height, width, channels = ops.shape(inputs)
        x = ops.reshape(inputs, (batch, height // 2, 2, width // 2, 2, channels))
        x = ops.reshape(ops.transpose(x, (2, 4, 0, 1, 3, 5)), (-1, height // 2, width // 2, channels))
        x = self.pooling(x)
        height, width = ops.shape(x)[1:3]
        x = ops.transpose(ops.reshape(x, (2, 2, batch, height, width, channels)), (2, 3, 0, 4, 1, 5))
        return ops.reshape(x, (batch, 2 * height, 2 * width, channels))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "pooling": keras.saving.serialize_keras_object(self.pooling)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**{**config, "pooling": keras.saving.deserialize_keras_object(config["pooling"])})


def copy_of(layer: keras.layers.Layer, **changes: Any) -> Any:
    """A new layer with the settings, except for changes, and the weights of a built layer."""
    new = type(layer).from_config({**layer.get_config(), **changes})
    new.build_from_config(layer.get_build_config() or {})
    new.set_weights(layer.get_weights())
    return new


def without_stride(layer: Any, missing: int) -> list[keras.layers.Layer] | None:
    """A layer of stride 2 with stride 1: twice as many cells, of which every second one is the layer's own.

    Args:
        missing: twice the number of its output's cells minus the number of its input's.

    Returns:
        Layers to call one after the other; None for a mean over fewer cells at the border, which has no equivalent.
    """
    windows = [dilation * (size - 1) + 1 for size, dilation in zip(_window(layer), _dilation(layer), strict=True)]
    same, sides = layer.padding == "same", []
    for window in windows:
        total = window - 1 + missing
        before = max(total - 1, 0) // 2 if same else 0
        sides.append((before, total - before))
    if isinstance(layer, layers.AveragePooling2D) and same and _padding_of(windows) != tuple(sides):
        return None
    return _padded(layer, tuple(sides), windows, strides=1)


def with_holes(layer: Any) -> list[keras.layers.Layer]:
    """A convolution or pooling of stride 1 with twice the dilation: layers to call one after the other."""
    if isinstance(layer, POOLS):
        return [DilatedPooling(layer, name=f"{layer.name}_dilated")]
    dilation = [2 * rate for rate in _dilation(layer)]
    windows = [rate * (size - 1) + 1 for size, rate in zip(_window(layer), dilation, strict=True)]
    if set(windows) == {1}:
        return [layer]
    sides = [(0, 0), (0, 0)]
    if layer.padding == "same":
        before = [2 * side for side, _ in _padding_of([(window + 1) // 2 for window in windows])]
        sides = [(first, window - 1 - first) for first, window in zip(before, windows, strict=True)]
    return _padded(layer, tuple(sides), windows, dilation_rate=dilation)


def _padded(layer: Any, sides: Any, windows: list[int], **changes: Any) -> list[keras.layers.Layer]:
    """A copy of a layer of stride 1 after so much padding, which is the layer's own where Keras would pad as much."""
    if sides == _padding_of(windows):
        return [copy_of(layer, padding="same", **changes)]
    kind = LowestPadding if isinstance(layer, layers.MaxPooling2D) else layers.ZeroPadding2D
    padding = [kind(sides, name=f"{layer.name}_same")] if any(map(any, sides)) else []
    return [*padding, copy_of(layer, padding="valid", **changes)]


def _padding_of(windows: list[int]) -> Sides:
    """The padding of Keras's "same" at stride 1."""
    (top, bottom), (left, right) = ((total // 2, total - total // 2) for total in (window - 1 for window in windows))
    return (top, bottom), (left, right)


def _window(layer: Any) -> tuple[int, int]:
    return layer.pool_size if isinstance(layer, POOLS) else layer.kernel_size


def _dilation(layer: Any) -> tuple[int, int]:
    return (1, 1) if isinstance(layer, POOLS) else layer.dilation_rate

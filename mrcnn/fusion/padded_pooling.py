"""Max-pooling of a zero-padded feature map that keeps no padded copy for the backward pass."""

import functools
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from mrcnn.fusion.convolution import Border, bordered, in_graph, maps, without_border
from mrcnn.layers.static_output import StaticOutputLayer
from mrcnn.ops.own_gradient import own_gradient


@keras.saving.register_keras_serializable("mrcnn")
class PaddedMaxPooling(StaticOutputLayer):
    """`ZeroPadding2D` and `MaxPooling2D` (padding "valid", channels last) as one layer.

    The copy of a ResNet's largest feature map would stay in memory for the whole step. Here the backward pass pads and
    pools again, in a fraction of a convolution's time.

    Args:
        pool_size, strides: of the pooling layer.
        border: of the padding layer, see `mrcnn.fusion.convolution.Kind`.
    """

    def __init__(self, pool_size: Any, strides: Any, border: Border, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pool_size, self.strides, self.border = tuple(pool_size), tuple(strides), as_border(border)

    def call(self, inputs: Any) -> Any:
        if keras.backend.backend() == "tensorflow":
            return _pooled(inputs, self.pool_size, self.strides, self.border)
        padded = ops.pad(inputs, [(0, 0), *self.border, (0, 0)])
        return ops.max_pool(padded, self.pool_size, self.strides, data_format="channels_last")

    def static_outputs(self, inputs: Any) -> Any:
        pooling = keras.layers.MaxPooling2D(self.pool_size, self.strides, data_format="channels_last")
        shape = pooling.compute_output_shape(bordered_spec(inputs, self.border).shape)
        return keras.KerasTensor(shape, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        own = {"pool_size": self.pool_size, "strides": self.strides, "border": self.border}
        return {**super().get_config(), **own}


def as_border(padding: Any) -> Border:
    """((above, below), (left, right)), also of lists from a file."""
    (above, below), (left, right) = padding
    return (int(above), int(below)), (int(left), int(right))


def bordered_spec(inputs: Any, border: Border) -> keras.KerasTensor:
    """What `inputs` [B, H, W, c] are with the border."""
    batch, *sides, channels = inputs.shape
    sides = [None if side is None else side + sum(around) for side, around in zip(sides, border, strict=True)]
    return keras.KerasTensor((batch, *sides, channels), inputs.dtype)


def _pooled(inputs: Any, pool_size: tuple, strides: tuple, border: Border) -> Any:
    import tensorflow as tf

    outputs = tf.nn.max_pool2d(bordered(inputs, border), pool_size, strides, "VALID")
    attached = _gradient(pool_size, strides, border, inputs.shape[-1], inputs.dtype)(outputs, inputs)
    attached.set_shape(outputs.shape)  # a function in the graph loses the static shape
    return attached


@functools.cache
def _gradient(pool_size: tuple, strides: tuple, border: Border, channels: int, dtype: Any) -> Callable[..., Any]:
    """(outputs, inputs) -> outputs, with the gradient of the pooling."""
    import tensorflow as tf

    def again(inputs: Any, upstream: Any) -> Any:
        padded = bordered(inputs, border)
        with tf.GradientTape() as tape:
            tape.watch(padded)
            outputs = tf.nn.max_pool2d(padded, pool_size, strides, "VALID")
        return without_border(tape.gradient(outputs, padded, upstream), border)

    images = [maps(channels, dtype)] * 2
    backward = in_graph(again, *images)
    return own_gradient(lambda upstream, outputs, inputs: (backward(inputs, upstream),), images)

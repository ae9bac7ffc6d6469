"""TensorFlow's convolution with scaled filters, and its gradient.

`kernel * scale` depends on no data, so TensorFlow would compute it for every layer up front and keep the results for
the backward pass, which takes as much memory as the weights. Here the backward pass is a function in the graph that
computes the product when it is called, and likewise pads the inputs again.
"""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from mrcnn.ops.own_gradient import own_gradient

Border = tuple[tuple[int, int], tuple[int, int]]
NO_BORDER: Border = ((0, 0), (0, 0))


class Kind(NamedTuple):
    """The properties that convolutions with the same backward function share.

    kernel: its shape [h, w, c, filters]; dtype: of the computation; padding: "SAME" or "VALID"; border: rows (above,
    below) and columns (left, right) of zeros added to the inputs first.
    """

    kernel: tuple[int, int, int, int]
    dtype: Any
    strides: tuple[int, int] = (1, 1)
    padding: str = "SAME"
    dilations: tuple[int, int] = (1, 1)
    border: Border = NO_BORDER


def convolve(inputs: Any, kernel: Any, scale: Any, bias: Any, kind: Kind) -> Any:
    """Convolution with `kernel * scale` and bias; only on TensorFlow.

    Args:
        inputs: [B, H, W, c] of `kind.dtype`; B, H and W are 1 or more, because oneDNN returns a wrong shape for an
            empty input.
        kernel: [h, w, c, filters]; scale, bias: [filters]; their product is computed in float32.

    Returns:
        [B, H', W', filters] of `kind.dtype`.
    """
    import tensorflow as tf

    weights = [tf.cast(values, tf.float32) for values in (kernel, scale, bias)]
    scaled, padded = tf.cast(weights[0] * weights[1], kind.dtype), bordered(inputs, kind.border)
    outputs = tf.nn.conv2d(padded, scaled, kind.strides, kind.padding, dilations=kind.dilations)
    outputs = tf.nn.bias_add(outputs, tf.cast(bias, kind.dtype))
    attached = _gradient(kind)(outputs, inputs, *weights)
    attached.set_shape(outputs.shape)  # a function in the graph loses the static shape
    return attached


@functools.cache
def _gradient(kind: Kind) -> Callable[..., Any]:
    """(outputs, inputs, kernel, scale, bias) -> outputs, with the gradient of the convolution."""
    import tensorflow as tf

    of_kernel = partial(_kernel_gradient, kind) if kind.border == NO_BORDER else _kernel_backward(kind)

    def gradient(upstream: Any, outputs: Any, inputs: Any, kernel: Any, scale: Any, bias: Any) -> tuple[Any, ...]:
        by_inputs = _backward(kind)(upstream, kernel, scale, tf.shape(inputs))
        by_inputs.set_shape(inputs.shape)
        by_scaled = tf.cast(of_kernel(inputs, upstream), tf.float32)
        by_bias = tf.cast(tf.raw_ops.BiasAddGrad(out_backprop=upstream), tf.float32)
        return by_inputs, by_scaled * scale, tf.reduce_sum(by_scaled * kernel, axis=(0, 1, 2)), by_bias

    channels, filters = kind.kernel[2:]
    images = [maps(count, kind.dtype) for count in (filters, channels)]
    return own_gradient(gradient, [*images, tf.TensorSpec(kind.kernel), *[tf.TensorSpec([filters])] * 2])


@functools.cache
def _backward(kind: Kind) -> Callable[..., Any]:
    """(upstream, kernel, scale, shape of the inputs [4]) -> gradient of the inputs."""
    import tensorflow as tf

    (above, below), (left, right) = kind.border

    def call(upstream: Any, kernel: Any, scale: Any, shape: Any) -> Any:
        kernel = tf.cast(kernel * scale, kind.dtype)
        shape = shape + [0, above + below, left + right, 0]
        found = tf.nn.conv2d_transpose(upstream, kernel, shape, kind.strides, kind.padding, dilations=kind.dilations)
        return without_border(found, kind.border)

    weights = [tf.TensorSpec(kind.kernel), tf.TensorSpec(kind.kernel[-1:])]
    return in_graph(call, maps(kind.kernel[3], kind.dtype), *weights, tf.TensorSpec([4], tf.int32))


@functools.cache
def _kernel_backward(kind: Kind) -> Callable[..., Any]:
    """(inputs, upstream) -> gradient of the scaled kernel."""
    return in_graph(partial(_kernel_gradient, kind), *(maps(count, kind.dtype) for count in kind.kernel[2:]))


def _kernel_gradient(kind: Kind, inputs: Any, upstream: Any) -> Any:
    import tensorflow as tf

    return tf.raw_ops.Conv2DBackpropFilter(
        input=bordered(inputs, kind.border),
        filter_sizes=kind.kernel,
        out_backprop=upstream,
        strides=[1, *kind.strides, 1],
        padding=kind.padding,
        dilations=[1, *kind.dilations, 1],
    )


def in_graph(call: Callable[..., Any], *signature: Any) -> Callable[..., Any]:
    """A function that stays one in the graph: none of its parts is computed before the call, or kept after it."""
    import tensorflow as tf

    return tf.function(call, input_signature=signature, autograph=False, experimental_attributes={"_noinline": True})


def maps(channels: int, dtype: Any = "float32") -> Any:
    """The signature of feature maps of any number and size."""
    import tensorflow as tf

    return tf.TensorSpec([None, None, None, channels], dtype)


def bordered(inputs: Any, border: Border) -> Any:
    """[B, H, W, c] with rows and columns of zeros around."""
    import tensorflow as tf

    return inputs if border == NO_BORDER else tf.pad(inputs, [(0, 0), *border, (0, 0)])


def without_border(inputs: Any, border: Border) -> Any:
    """[B, H, W, c] without its border."""
    (above, below), (left, right) = border
    return inputs if border == NO_BORDER else inputs[:, above : -below or None, left : -right or None]

"""TensorFlow's convolution with scaled filters, and its gradient.

`kernel * scale` depends on no data, so TensorFlow would compute it for every layer up front and keep the results for
the backward pass, which takes as much memory as the weights. Here the backward pass is a function in the graph that
computes the product when it is called.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from mrcnn.ops.own_gradient import own_gradient


class Kind(NamedTuple):
    """The properties that convolutions with the same backward function share.

    kernel: its shape [h, w, c, filters]; dtype: of the computation; padding: "SAME" or "VALID".
    """

    kernel: tuple[int, int, int, int]
    dtype: Any
    strides: tuple[int, int] = (1, 1)
    padding: str = "SAME"
    dilations: tuple[int, int] = (1, 1)


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
    scaled = tf.cast(weights[0] * weights[1], kind.dtype)
    outputs = tf.nn.conv2d(inputs, scaled, kind.strides, kind.padding, dilations=kind.dilations)
    outputs = tf.nn.bias_add(outputs, tf.cast(bias, kind.dtype))
    attached = _gradient(kind)(outputs, inputs, *weights)
    attached.set_shape(outputs.shape)  # a function in the graph loses the static shape
    return attached


@functools.cache
def _gradient(kind: Kind) -> Callable[..., Any]:
    """(outputs, inputs, kernel, scale, bias) -> outputs, with the gradient of the convolution."""
    import tensorflow as tf

    def gradient(upstream: Any, outputs: Any, inputs: Any, kernel: Any, scale: Any, bias: Any) -> tuple[Any, ...]:
        by_inputs = _backward(kind)(upstream, kernel, scale, tf.shape(inputs))
        by_inputs.set_shape(inputs.shape)
        by_scaled = tf.raw_ops.Conv2DBackpropFilter(
            input=inputs,
            filter_sizes=kind.kernel,
            out_backprop=upstream,
            strides=[1, *kind.strides, 1],
            padding=kind.padding,
            dilations=[1, *kind.dilations, 1],
        )
        by_scaled = tf.cast(by_scaled, tf.float32)
        by_bias = tf.cast(tf.raw_ops.BiasAddGrad(out_backprop=upstream), tf.float32)
        return by_inputs, by_scaled * scale, tf.reduce_sum(by_scaled * kernel, axis=(0, 1, 2)), by_bias

    channels, filters = kind.kernel[2:]
    images = [tf.TensorSpec([None, None, None, count], kind.dtype) for count in (filters, channels)]
    return own_gradient(gradient, [*images, tf.TensorSpec(kind.kernel), *[tf.TensorSpec([filters])] * 2])


@functools.cache
def _backward(kind: Kind) -> Callable[..., Any]:
    """(upstream, kernel, scale, shape of the inputs [4]) -> gradient of the inputs."""
    import tensorflow as tf

    def call(upstream: Any, kernel: Any, scale: Any, shape: Any) -> Any:
        kernel = tf.cast(kernel * scale, kind.dtype)
        return tf.nn.conv2d_transpose(upstream, kernel, shape, kind.strides, kind.padding, dilations=kind.dilations)

    given = tf.TensorSpec([None, None, None, kind.kernel[3]], kind.dtype)
    return tf.function(
        call,
        input_signature=[
            given,
            tf.TensorSpec(kind.kernel),
            tf.TensorSpec(kind.kernel[-1:]),
            tf.TensorSpec([4], tf.int32),
        ],
        autograph=False,
        experimental_attributes={"_noinline": True},
    )

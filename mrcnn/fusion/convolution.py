"""TensorFlow's convolution with scaled filters, and a gradient of its own.

Kernel times scale waits for nothing. So TensorFlow computes it before anything else, those of all layers of a network,
and keeps them for the backward pass: as much memory as the weights take. Here the backward pass, and
`mrcnn.fusion.winograd` both ways, are functions in the graph, so what they need is computed when they are called.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from mrcnn.fusion.winograd import by_winograd, is_large


class Kind(NamedTuple):
    """What convolutions have in common that are one function in the graph.

    kernel: its shape [h, w, c, filters]; dtype: what is computed in; padding: "SAME" or "VALID"; winograd: by
    `mrcnn.fusion.winograd`, where the kernel is 3x3, strides and dilations 1 and the padding "SAME".
    """

    kernel: tuple[int, int, int, int]
    dtype: Any
    strides: tuple[int, int] = (1, 1)
    padding: str = "SAME"
    dilations: tuple[int, int] = (1, 1)
    relu: bool = False
    winograd: bool = False


def convolve(inputs: Any, kernel: Any, scale: Any, bias: Any, kind: Kind) -> Any:
    """Convolution with kernel * scale, bias and, if `kind.relu`, ReLU; only on TensorFlow.

    Args:
        inputs: [B, H, W, c] of `kind.dtype`; B, H and W are 1 or more, as oneDNN's convolution of nothing has a wrong
            shape.
        kernel: [h, w, c, filters]; scale, bias: [filters]; their product is one of float32.

    Returns:
        [B, H', W', filters] of `kind.dtype`.
    """
    import tensorflow as tf

    @tf.custom_gradient
    def convolved(inputs: Any, kernel: Any, scale: Any, bias: Any) -> tuple[Any, Any]:
        # An eager tape would go on recording in the function. The other way is laid out where it is called, as
        # TensorFlow fuses the operations of a convolution only there
        outputs = (
            _forward(kind)(*map(tf.stop_gradient, (inputs, kernel, scale, bias)))
            if kind.winograd
            else _direct(kind, inputs, kernel, scale, bias)
        )

        def gradient(upstream: Any) -> tuple[Any, Any, Any, Any]:
            if kind.relu:
                upstream = tf.raw_ops.ReluGrad(gradients=upstream, features=outputs)
            by_inputs = _backward(kind)(upstream, kernel, scale, tf.shape(inputs))
            by_inputs.set_shape(inputs.shape)
            by_scaled = tf.cast(_by_kernel(kind, inputs, upstream), tf.float32)
            by_bias = tf.cast(tf.raw_ops.BiasAddGrad(out_backprop=upstream), tf.float32)
            return by_inputs, by_scaled * scale, tf.reduce_sum(by_scaled * kernel, axis=(0, 1, 2)), by_bias

        return outputs, gradient

    outputs = convolved(inputs, *(tf.cast(weights, tf.float32) for weights in (kernel, scale, bias)))
    if kind.winograd:  # a function in the graph does not say what sizes it keeps
        outputs.set_shape([*inputs.shape[:3], kind.kernel[-1]])
    return outputs


def _direct(kind: Kind, inputs: Any, kernel: Any, scale: Any, bias: Any) -> Any:
    import tensorflow as tf

    outputs = tf.nn.conv2d(
        inputs, tf.cast(kernel * scale, kind.dtype), kind.strides, kind.padding, dilations=kind.dilations
    )
    outputs = tf.nn.bias_add(outputs, tf.cast(bias, kind.dtype))
    return tf.nn.relu(outputs) if kind.relu else outputs


def _by_kernel(kind: Kind, inputs: Any, upstream: Any) -> Any:
    import tensorflow as tf

    return tf.raw_ops.Conv2DBackpropFilter(
        input=inputs,
        filter_sizes=kind.kernel,
        out_backprop=upstream,
        strides=[1, *kind.strides, 1],
        padding=kind.padding,
        dilations=[1, *kind.dilations, 1],
    )


@functools.cache
def _forward(kind: Kind) -> Callable[..., Any]:
    """(inputs, kernel, scale, bias) -> outputs by Winograd, where there are tiles enough."""
    import tensorflow as tf

    def call(inputs: Any, kernel: Any, scale: Any, bias: Any) -> Any:
        return tf.cond(
            is_large(inputs),
            lambda: by_winograd(inputs, kernel * scale, bias, relu=kind.relu),
            lambda: _direct(kind, inputs, kernel, scale, bias),
        )

    return _function(call, [None, None, None, kind.kernel[2]], kind)


@functools.cache
def _backward(kind: Kind) -> Callable[..., Any]:
    """(upstream, kernel, scale, shape of the inputs [4]) -> gradient of the inputs."""
    import tensorflow as tf

    def call(upstream: Any, kernel: Any, scale: Any, sizes: Any) -> Any:
        kernel = tf.cast(kernel * scale, kind.dtype)

        def direct() -> Any:
            return tf.nn.conv2d_transpose(upstream, kernel, sizes, kind.strides, kind.padding, dilations=kind.dilations)

        def turned() -> Any:
            return by_winograd(upstream, tf.transpose(kernel[::-1, ::-1], (0, 1, 3, 2)), tf.zeros(kind.kernel[2]))

        return tf.cond(is_large(upstream), turned, direct) if kind.winograd else direct()

    return _function(call, [None, None, None, kind.kernel[3]], kind, tf.TensorSpec([4], tf.int32))


def _function(call: Callable[..., Any], inputs: list[int | None], kind: Kind, last: Any = None) -> Callable[..., Any]:
    """`call` as a function in the graph: computed when its inputs are there, not laid out where it is called."""
    import tensorflow as tf

    filters = tf.TensorSpec(kind.kernel[-1:])
    return tf.function(
        call,
        input_signature=[tf.TensorSpec(inputs, kind.dtype), tf.TensorSpec(kind.kernel), filters, last or filters],
        autograph=False,
        experimental_attributes={"_noinline": True},
    )

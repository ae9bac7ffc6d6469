"""One photograph, convolved as a batch of two: its upper and its lower half.

TensorFlow's 3x3 convolutions of many channels on a CPU (oneDNN, float32) take a fifth less time for two images than for
one that is as large as both; their gradients do not. The halves meet at a seam of two rows, which are computed once
more together with the rows beside them. The result is the same.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from mrcnn.sharing import Sharing, build_unbuilt

FEWEST_CHANNELS = 256  # in and out; with 128 there is nothing to gain
FEWEST_ROWS = 32  # with fewer the seam, four rows more, costs what the halves gain


@keras.saving.register_keras_serializable("mrcnn")
class HalvedConvolution(Sharing):
    """A `Conv2D` that `gains_by_halves`, computed so; with the weights of that layer. Elsewhere it is that layer.

    call: [B, H, W, c] -> [B, H, W, filters] in the layer's compute dtype.
    """

    shared = ("convolution",)

    def build(self, input_shape: Any) -> None:
        build_unbuilt(self.convolution, input_shape)

    def call(self, inputs: Any) -> Any:
        inputs = ops.cast(inputs, self.convolution.compute_dtype)
        if not gains_by_halves(self.convolution):
            return self.convolution(inputs)
        kernel, bias = self.convolution.kernel, self.convolution.bias
        return convolve_in_halves(inputs, kernel, ops.zeros(kernel.shape[-1:]) if bias is None else bias,
                                  relu=self.convolution.activation is keras.activations.relu)


def convolve_in_halves(inputs: Any, kernel: Any, bias: Any, *, relu: bool = False) -> Any:
    """Convolution with padding "same", bias and ReLU, forwards `in_halves`, backwards at once.

    Args:
        inputs: [B, H, W, c], TensorFlow's; B and H are 1 or more.
        kernel: [3, 3, c, filters]; bias: [filters].
    """
    import tensorflow as tf

    @tf.custom_gradient
    def convolved(inputs: Any, kernel: Any, bias: Any) -> tuple[Any, Any]:
        def convolve(x: Any) -> Any:
            outputs = tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "SAME"), bias)
            return tf.nn.relu(outputs) if relu else outputs

        outputs, options = in_halves(convolve, inputs), {"strides": [1] * 4, "padding": "SAME"}

        def gradient(upstream: Any) -> tuple[Any, Any, Any]:
            if relu:
                upstream = tf.raw_ops.ReluGrad(gradients=upstream, features=outputs)
            by_inputs = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(inputs), filter=kernel, out_backprop=upstream, **options)
            by_kernel = tf.raw_ops.Conv2DBackpropFilter(
                input=inputs, filter_sizes=tf.shape(kernel), out_backprop=upstream, **options)
            return by_inputs, by_kernel, tf.reduce_sum(upstream, axis=(0, 1, 2))

        return outputs, gradient

    return convolved(inputs, tf.convert_to_tensor(kernel), tf.convert_to_tensor(bias))


def in_halves(convolve: Callable[[Any], Any], inputs: Any) -> Any:
    """`convolve(inputs)` of one photograph in halves; of several, or with few or an odd number of rows, at once.

    Args:
        convolve: [b, h, W, c] -> [b, h, W, filters] for any b and h, a row of outputs from its row of inputs, the one
            above and the one below, zeros beyond.
        inputs: [B, H, W, c], TensorFlow's; B and H are 1 or more.
    """
    import tensorflow as tf

    batch, height, width = ops.shape(inputs)[:3]
    # A tensor, so that one graph serves all
    halved = tf.logical_and(tf.equal(batch, 1), tf.logical_and(tf.equal(height % 2, 0), height >= FEWEST_ROWS))
    seams = tf.cast(halved, tf.int32)
    half = height // (1 + seams)
    outputs = convolve(tf.reshape(inputs, [batch * (1 + seams), half, width, inputs.shape[-1]]))
    # Where there are no halves it is dropped only afterwards: oneDNN's convolution of nothing has a wrong shape
    first = tf.maximum(height // 2 - 2, 0)
    seam = convolve(inputs[:1, first:first + 4])[:seams, 1:3]
    # In place, as nothing else holds the outputs
    rows = tf.tensor_scatter_nd_update(tf.reshape(outputs, [batch * height, width, outputs.shape[-1]]),
                                       (half - 1 + tf.range(2 * seams))[:, None],
                                       tf.reshape(seam, [2 * seams, width, outputs.shape[-1]]))
    return tf.reshape(rows, [batch, height, width, outputs.shape[-1]])


def gains_by_halves(convolution: keras.layers.Layer) -> bool:
    """Whether a built `Conv2D` is one that TensorFlow computes faster in halves, on this machine."""
    if keras.backend.backend() != "tensorflow" or type(convolution) is not keras.layers.Conv2D:
        return False
    import tensorflow as tf

    return (convolution.kernel_size == (3, 3) and convolution.padding == "same" and convolution.groups == 1
            and convolution.strides == convolution.dilation_rate == (1, 1)
            and convolution.data_format == "channels_last" and convolution.compute_dtype == "float32"
            and convolution.activation in (keras.activations.linear, keras.activations.relu)
            and convolution.activity_regularizer is None
            and min(convolution.kernel.shape[2:]) >= FEWEST_CHANNELS
            and not tf.config.list_physical_devices("GPU"))

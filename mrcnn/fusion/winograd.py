"""3x3 convolutions of many channels with a quarter of the multiplications: Winograd's F(4x4, 3x3), with its gradient.

Each 4x4 output tile depends on a 6x6 input tile. In the basis of a polynomial's values at six points, a tile takes 36
matrix products [tiles, channels] x [channels, filters]; direct convolution takes 4 * 4 * 9 = 144 (Lavin & Gray 2016,
"Fast algorithms for convolutional neural networks", sections 4.1 to 4.3). The points are chosen for a small float32
error, as in Barabasz et al. 2018: with 256 channels the error is 1.2e-6 of the outputs' standard deviation, compared
with 0.6e-6 for oneDNN's direct convolution (`benchmarks/convolutions.py`).

Only `mrcnn.fusion.folding.fold(..., by_winograd=True)` uses this file, for graphs that run on this machine. Layers do
not save the flag, so a saved model uses the ordinary convolution, and graphs for export are folded without it.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from numpy.polynomial import polynomial

from mrcnn.fusion.convolution import in_graph, maps
from mrcnn.ops.own_gradient import own_gradient

OUT, IN, KERNEL = 4, 6, 3  # sides of an output tile, of its input tile and of the kernel
POINTS = (0.0, 2 / 3, -2 / 3, 3 / 2, -3 / 2)  # and infinity
TILES = 300  # computed at once, approximately, so that their data stays in a core's cache
FEWEST_TILES = 32  # with fewer, transforming the kernel costs more than the products save
FEWEST_CHANNELS = 256  # in and out; with 128 the transforms cost as much as the products save


def gains(convolution: keras.layers.Layer) -> bool:
    """Whether `convolve` is faster than TensorFlow's own convolution for a built `Conv2D` on this machine."""
    if keras.backend.backend() != "tensorflow" or type(convolution) is not keras.layers.Conv2D:
        return False
    import tensorflow as tf

    return (
        convolution.kernel_size == (KERNEL, KERNEL)
        and convolution.padding == "same"
        and convolution.groups == 1
        and convolution.strides == convolution.dilation_rate == (1, 1)
        and convolution.data_format == "channels_last"
        and convolution.compute_dtype == "float32"
        and convolution.activation in (keras.activations.linear, keras.activations.relu)
        and convolution.activity_regularizer is None
        and min(convolution.kernel.shape[2:]) >= FEWEST_CHANNELS
        and not tf.config.list_physical_devices("GPU")
    )


def convolve(inputs: Any, kernel: Any, scale: Any, bias: Any, *, relu: bool = False) -> Any:
    """Convolution with `kernel * scale`, padding "same", bias and ReLU, and its gradient; only on TensorFlow.

    Inputs with fewer than `FEWEST_TILES` tiles are convolved directly. Both passes are functions in the graph and are
    not inlined: otherwise TensorFlow would compute `kernel * scale`, which depends on no data, for every layer up
    front and keep it.

    Args:
        inputs: [B, H, W, c] float32; B, H and W are 1 or more.
        kernel: [3, 3, c, filters]; scale, bias: [filters]; float32.

    Returns:
        [B, H, W, filters] float32.
    """
    import tensorflow as tf

    kernel, scale, bias = map(tf.convert_to_tensor, (kernel, scale, bias))
    channels = tuple(kernel.shape[2:])
    # Without stop_gradient, a tape would also record inside the function
    outputs = _forward(channels, relu)(*map(tf.stop_gradient, (inputs, kernel, scale, bias)))
    attached = _gradient(channels, relu)(outputs, inputs, kernel, scale, bias)
    attached.set_shape([*inputs.shape[:3], channels[1]])  # a function in the graph loses the static shape
    return attached


@functools.cache
def _gradient(channels: tuple[int, int], relu: bool) -> Callable[..., Any]:
    """(outputs, inputs, kernel, scale, bias) -> outputs, with the gradient of the convolution."""
    import tensorflow as tf

    def gradient(upstream: Any, outputs: Any, inputs: Any, kernel: Any, scale: Any, bias: Any) -> tuple[Any, ...]:
        if relu:
            upstream = tf.raw_ops.ReluGrad(gradients=upstream, features=outputs)
        by_inputs = _backward(channels)(upstream, kernel, scale, tf.shape(inputs))
        by_inputs.set_shape(inputs.shape)
        by_scaled = _kernel_backward(channels)(inputs, upstream)
        by_bias = tf.raw_ops.BiasAddGrad(out_backprop=upstream)
        return by_inputs, by_scaled * scale, tf.reduce_sum(by_scaled * kernel, axis=(0, 1, 2)), by_bias

    images = [maps(count) for count in channels[::-1]]
    return own_gradient(gradient, [*images, *_weights(channels), tf.TensorSpec(channels[1:])])


@functools.cache
def _forward(channels: tuple[int, int], relu: bool) -> Callable[..., Any]:
    """(inputs, kernel, scale, bias) -> outputs."""
    import tensorflow as tf

    def call(inputs: Any, kernel: Any, scale: Any, bias: Any) -> Any:
        def direct() -> Any:
            outputs = tf.nn.bias_add(tf.nn.conv2d(inputs, kernel * scale, 1, "SAME"), bias)
            return tf.nn.relu(outputs) if relu else outputs

        return tf.cond(is_large(inputs), lambda: by_winograd(inputs, kernel * scale, bias, relu=relu), direct)

    return in_graph(call, maps(channels[0]), *_weights(channels), tf.TensorSpec(channels[1:]))


@functools.cache
def _backward(channels: tuple[int, int]) -> Callable[..., Any]:
    """(upstream, kernel, scale, shape of the inputs [4]) -> gradient of the inputs, also a convolution."""
    import tensorflow as tf

    def call(upstream: Any, kernel: Any, scale: Any, shape: Any) -> Any:
        kernel = kernel * scale

        def turned() -> Any:
            return by_winograd(upstream, tf.transpose(kernel[::-1, ::-1], (0, 1, 3, 2)), tf.zeros(channels[0]))

        return tf.cond(is_large(upstream), turned, lambda: tf.nn.conv2d_transpose(upstream, kernel, shape, 1, "SAME"))

    return in_graph(call, maps(channels[1]), *_weights(channels), tf.TensorSpec([4], tf.int32))


@functools.cache
def _kernel_backward(channels: tuple[int, int]) -> Callable[..., Any]:
    """(inputs, upstream) -> gradient of the kernel."""
    import tensorflow as tf

    def call(inputs: Any, upstream: Any) -> Any:
        def direct() -> Any:
            return tf.raw_ops.Conv2DBackpropFilter(
                input=inputs,
                filter_sizes=[KERNEL, KERNEL, *channels],
                out_backprop=upstream,
                strides=[1] * 4,
                padding="SAME",
            )

        return tf.cond(is_large(inputs), lambda: kernel_gradient(inputs, upstream), direct)

    return in_graph(call, maps(channels[0]), maps(channels[1]))


def _weights(channels: tuple[int, int]) -> tuple[Any, Any]:
    """Kernel and scale."""
    import tensorflow as tf

    return tf.TensorSpec([KERNEL, KERNEL, *channels]), tf.TensorSpec(channels[1:])


class Transforms(NamedTuple):
    """Matrices for both axes together, float32.

    inputs: [36, 36], of an input tile; kernel: [36, 9]; outputs: [16, 36], of the 36 products.
    """

    inputs: np.ndarray
    kernel: np.ndarray
    outputs: np.ndarray


@functools.cache
def transforms() -> Transforms:
    """The Toom-Cook matrices: outputs = A [(G kernel) * (B inputs)] on one axis (Lavin & Gray 2016, section 4)."""
    a = np.array([[point**i for point in POINTS] + [float(i == OUT - 1)] for i in range(OUT)])
    b, g = np.zeros((IN, IN)), np.zeros((IN, KERNEL))
    b[-1], g[-1, -1] = polynomial.polyfromroots(POINTS), 1
    for i, point in enumerate(POINTS):
        others = np.array([other for other in POINTS if other != point])
        b[i, :-1] = polynomial.polyfromroots(others)
        g[i] = point ** np.arange(KERNEL) / np.prod(point - others)
    return Transforms(*(np.kron(matrix, matrix).astype(np.float32) for matrix in (b, g, a)))


def is_large(images: Any) -> Any:
    """Whether [B, H, W, c] has enough tiles for `by_winograd` to be faster; a scalar."""
    batch, height, width = ops.shape(images)[:3]
    return batch * _tiles(height) * _tiles(width) >= FEWEST_TILES


def by_winograd(images: Any, kernel: Any, bias: Any, *, relu: bool = False) -> Any:
    """Convolution with padding "same", bias and ReLU.

    Computes several whole images at a time, or strips of one image if it has more than `TILES` tiles.

    Args:
        images: [B, H, W, c] float32; B, H and W are 1 or more.
        kernel: [3, 3, c, filters]; bias: [filters].

    Returns:
        [B, H, W, filters].
    """
    import tensorflow as tf

    batch, height, width = ops.shape(images)[:3]
    many, rows, columns = _at_once(batch, _tiles(height), _tiles(width))
    strips = -(-_tiles(height) // rows)
    kernel = _transform(transforms().kernel, tf.reshape(kernel, [KERNEL**2, *kernel.shape[2:]]))
    patches = _patches(many, rows, columns)

    def step(index: Any, done: Any) -> tuple[Any, Any]:
        first, top = index // strips * many, index % strips * rows * OUT
        bordered = _bordered(images, first, top, (many, rows, columns))
        products = tf.matmul(_transform(transforms().inputs, tf.gather(bordered, patches)), kernel)
        tiles = tf.reshape(_transform(transforms().outputs, products), [OUT, OUT, many, rows, columns, bias.shape[0]])
        outputs = tf.reshape(tf.transpose(tiles, [2, 3, 0, 4, 1, 5]), [many, rows * OUT, columns * OUT, bias.shape[0]])
        outputs = tf.nn.bias_add(outputs[: batch - first, : height - top, :width], bias)
        lines = tf.reshape(tf.nn.relu(outputs) if relu else outputs, [-1, width, bias.shape[0]])
        return index + 1, done.write(index, lines)

    count = -(-batch // many) * strips
    done = tf.TensorArray(tf.float32, count, element_shape=[None, None, bias.shape[0]], infer_shape=False)
    _, done = tf.while_loop(lambda index, _: index < count, step, (0, done), parallel_iterations=1)
    return tf.reshape(done.concat(), [batch, height, width, bias.shape[0]])


def kernel_gradient(images: Any, upstream: Any) -> Any:
    """Gradient of the kernel of `by_winograd`, by the transposed transforms: each of the 36 products is summed over all
    tiles, and needs a quarter of the direct gradient's multiplications.

    Args:
        images: [B, H, W, c] float32; B, H and W are 1 or more.
        upstream: [B, H, W, filters], gradient of the outputs.

    Returns:
        [3, 3, c, filters].
    """
    import tensorflow as tf

    batch, height, width = ops.shape(images)[:3]
    at_once = many, rows, columns = _at_once(batch, _tiles(height), _tiles(width))
    strips = -(-_tiles(height) // rows)
    patches = _patches(many, rows, columns)

    def step(index: Any, total: Any) -> tuple[Any, Any]:
        first, top = index // strips * many, index % strips * rows * OUT
        cells = _bordered(images, first, top, at_once)
        given = _transform(transforms().inputs, tf.gather(cells, patches))
        products = _transform(transforms().outputs.T, _output_tiles(upstream, first, top, at_once))
        return index + 1, total + tf.matmul(given, products, transpose_a=True)

    count = -(-batch // many) * strips
    # Not `tf.zeros`: TensorFlow would keep a constant of this size
    start = tf.raw_ops.Empty(shape=[IN**2, images.shape[-1], upstream.shape[-1]], dtype=tf.float32, init=True)
    _, total = tf.while_loop(lambda index, _: index < count, step, (0, start), parallel_iterations=1)
    return tf.reshape(_transform(transforms().kernel.T, total), [KERNEL, KERNEL, *start.shape[1:]])


def _tiles(side: Any) -> Any:
    return -(-side // OUT)


def _at_once(batch: Any, rows: Any, columns: Any) -> tuple[Any, Any, Any]:
    """How many images, tile rows and tile columns are computed at a time."""
    import tensorflow as tf

    strips = -(-rows * columns // TILES)
    return tf.clip_by_value(TILES // (rows * columns), 1, batch), -(-rows // strips), columns


def _bordered(images: Any, first: Any, top: Any, at_once: tuple[Any, Any, Any]) -> Any:
    """Cells [n, c], row by row, of the images starting at `first` and their rows starting at `top`, zero-bordered."""
    import tensorflow as tf

    many, height, width = at_once[0], *(count * OUT + 2 for count in at_once[1:])
    part = images[first : first + many, tf.maximum(top - 1, 0) : top - 1 + height]
    above, found = tf.cast(tf.equal(top, 0), tf.int32), ops.shape(part)
    padding = [[0, many - found[0]], [above, height - above - found[1]], [1, width - 1 - found[2]], [0, 0]]
    return tf.reshape(tf.pad(part, padding), [-1, images.shape[-1]])


def _output_tiles(upstream: Any, first: Any, top: Any, at_once: tuple[Any, Any, Any]) -> Any:
    """Tiles [16, tiles, c] of the images starting at `first` and their rows starting at `top`, zero-bordered."""
    import tensorflow as tf

    many, rows, columns = at_once
    part = upstream[first : first + many, top : top + rows * OUT]
    sides = tf.stack([many, rows * OUT, columns * OUT]) - tf.shape(part)[:3]
    part = tf.pad(part, tf.stack([tf.zeros(4, tf.int32), tf.concat([sides, [0]], 0)], axis=1))
    tiles = tf.reshape(part, [many, rows, OUT, columns, OUT, upstream.shape[-1]])
    return tf.reshape(tf.transpose(tiles, [2, 4, 0, 1, 3, 5]), [OUT**2, -1, upstream.shape[-1]])


def _patches(many: Any, rows: Any, columns: Any) -> Any:
    """For each input tile, indices into the cells of `_bordered`: [36, tiles] int32."""
    import tensorflow as tf

    height, width = rows * OUT + 2, columns * OUT + 2
    image, row, column = tf.range(many)[:, None, None], tf.range(rows)[:, None], tf.range(columns)
    corners = (image * height + row * OUT) * width + column * OUT
    return tf.reshape(tf.range(IN)[:, None] * width + tf.range(IN), [-1, 1]) + tf.reshape(corners, [-1])


def _transform(matrix: np.ndarray, values: Any) -> Any:
    """matrix [m, k], values [k, ..., c] -> [m, n, c], as one matrix product."""
    import tensorflow as tf

    return tf.reshape(
        tf.matmul(matrix, tf.reshape(values, [matrix.shape[1], -1])), [matrix.shape[0], -1, values.shape[-1]]
    )

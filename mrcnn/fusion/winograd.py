"""3x3 convolutions of many channels in a quarter of their multiplications: Winograd's F(4x4, 3x3).

A tile of 4x4 outputs hangs on 6x6 inputs. In another basis of them, that of polynomials' values at six points, it is 36
products of matrices [tiles, channels] x [channels, filters], where the convolution itself takes 4 * 4 * 9 = 144 (Lavin
& Gray 2016, "Fast algorithms for convolutional neural networks", sections 4.1 to 4.3). The points are some with which
float32 loses little (as Barabasz et al. 2018 look for): of 256 channels sums differ from exact ones by 1.2e-6 of the
outputs' standard deviation, those of oneDNN's own convolution by 0.6e-6 (`benchmarks/convolutions.py`).
"""

import functools
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from numpy.polynomial import polynomial

OUT, IN, KERNEL = 4, 6, 3  # sides of a tile's outputs, of its inputs and of the kernel
POINTS = (0.0, 2 / 3, -2 / 3, 3 / 2, -3 / 2)  # and infinity
TILES = 300  # at once, or about: what they take stays in the cache of a core
FEWEST_TILES = 32  # with fewer, transforming the kernel costs more than is gained
FEWEST_CHANNELS = 256  # in and out; with 128 the transforms cost what the products gain


class Transforms(NamedTuple):
    """Matrices of the values of both axes together, float32.

    inputs: [36, 36], of a tile's inputs; kernel: [36, 9]; outputs: [16, 36], of the 36 products.
    """

    inputs: np.ndarray
    kernel: np.ndarray
    outputs: np.ndarray


@functools.cache
def transforms() -> Transforms:
    """Those of one axis are Toom's and Cook's: outputs = A [(G kernel) * (B inputs)], Lavin & Gray 2016, section 4."""
    a = np.array([[point**i for point in POINTS] + [float(i == OUT - 1)] for i in range(OUT)])
    b, g = np.zeros((IN, IN)), np.zeros((IN, KERNEL))
    b[-1], g[-1, -1] = polynomial.polyfromroots(POINTS), 1
    for i, point in enumerate(POINTS):
        others = np.array([other for other in POINTS if other != point])
        b[i, :-1] = polynomial.polyfromroots(others)
        g[i] = point ** np.arange(KERNEL) / np.prod(point - others)
    return Transforms(*(np.kron(matrix, matrix).astype(np.float32) for matrix in (b, g, a)))


def gains_by_winograd(convolution: keras.layers.Layer) -> bool:
    """Whether a built `Conv2D` is one that TensorFlow computes faster by `by_winograd`, on this machine."""
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


def is_large(images: Any) -> Any:
    """Whether [B, H, W, c] has tiles enough for `by_winograd` to gain, a scalar."""
    batch, height, width = ops.shape(images)[:3]
    return batch * _tiles(height) * _tiles(width) >= FEWEST_TILES


def by_winograd(images: Any, kernel: Any, bias: Any, *, relu: bool = False) -> Any:
    """Convolution with padding "same", bias and ReLU; only on TensorFlow.

    Some whole images are computed at a time, or a strip of one where an image has more than `TILES` tiles.

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


def _tiles(side: Any) -> Any:
    return -(-side // OUT)


def _at_once(batch: Any, rows: Any, columns: Any) -> tuple[Any, Any, Any]:
    """How many images, rows and columns of tiles are computed at a time, of how many there are."""
    import tensorflow as tf

    strips = -(-rows * columns // TILES)
    return tf.clip_by_value(TILES // (rows * columns), 1, batch), -(-rows // strips), columns


def _bordered(images: Any, first: Any, top: Any, at_once: tuple[Any, Any, Any]) -> Any:
    """The cells [n, c] of the images from `first` and of their rows from `top`, row by row, zeros around them."""
    import tensorflow as tf

    many, height, width = at_once[0], *(count * OUT + 2 for count in at_once[1:])
    part = images[first : first + many, tf.maximum(top - 1, 0) : top - 1 + height]
    above, found = tf.cast(tf.equal(top, 0), tf.int32), ops.shape(part)
    padding = [[0, many - found[0]], [above, height - above - found[1]], [1, width - 1 - found[2]], [0, 0]]
    return tf.reshape(tf.pad(part, padding), [-1, images.shape[-1]])


def _patches(many: Any, rows: Any, columns: Any) -> Any:
    """Which of the cells of `_bordered` each tile's inputs are: [36, tiles] int32."""
    import tensorflow as tf

    height, width = rows * OUT + 2, columns * OUT + 2
    image, row, column = tf.range(many)[:, None, None], tf.range(rows)[:, None], tf.range(columns)
    corners = (image * height + row * OUT) * width + column * OUT
    return tf.reshape(tf.range(IN)[:, None] * width + tf.range(IN), [-1, 1]) + tf.reshape(corners, [-1])


def _transform(matrix: np.ndarray, values: Any) -> Any:
    """matrix [m, k], values [k, ..., c] -> [m, n, c]: one product of matrices."""
    import tensorflow as tf

    return tf.reshape(
        tf.matmul(matrix, tf.reshape(values, [matrix.shape[1], -1])), [matrix.shape[0], -1, values.shape[-1]]
    )

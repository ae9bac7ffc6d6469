"""The backward pass of the last layers of a mask head, a few RoIs at a time; only on TensorFlow.

Nearly every head ends in a transposed convolution with ReLU and a 1x1 convolution, of which one channel is needed. The
gradient between the two takes 0.8 MB per RoI with 256 filters, at the peak of a training step's memory. Here it exists
only for `AT_ONCE` RoIs, and in a core's cache.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from mrcnn.ops.own_gradient import own_gradient

AT_ONCE = 8


def attached(logits: Any, x: Any, features: Any, kernel: Any, bias: Any, own: Any) -> Any:
    """`logits`, with the gradient of how they were computed: x = relu(features kernel + bias), logits = x own.

    Args:
        logits: [R, pixels] float32, one channel of every pixel of x, cell by cell.
        x: [R, h, w, many * filters] float32, `many` pixels in each cell.
        features: [R, h, w, C] float32.
        kernel: [C, many * filters]; bias: [many * filters].
        own: [R, filters], the kernel of the channel of each RoI.
    """
    channels, width = kernel.shape
    return _gradient(channels, width, own.shape[-1])(logits, x, features, kernel, bias, own)


@functools.cache
def _gradient(channels: int, width: int, filters: int) -> Callable[..., Any]:
    import tensorflow as tf

    def gradient(upstream: Any, logits: Any, x: Any, features: Any, kernel: Any, bias: Any, own: Any) -> tuple:
        count, cells = tf.shape(own)[0], tf.shape(x)[1] * tf.shape(x)[2]

        def step(first: Any, by_kernel: Any, by_bias: Any, by_features: Any, by_own: Any) -> tuple[Any, ...]:
            taken = slice(first, first + AT_ONCE)
            pixels = tf.reshape(x[taken], [-1, cells * (width // filters), filters])
            given = upstream[taken, :, None]
            # The gradient of x: zero where ReLU is
            inner = tf.where(pixels > 0, given * own[taken, None], tf.zeros([]))
            inner = tf.reshape(inner, [-1, width])
            rows = tf.reshape(features[taken], [-1, channels])
            return (
                first + AT_ONCE,
                by_kernel + tf.matmul(rows, inner, transpose_a=True),
                by_bias + tf.reduce_sum(inner, axis=0),
                by_features.write(first // AT_ONCE, tf.matmul(inner, kernel, transpose_b=True)),
                by_own.write(first // AT_ONCE, tf.matmul(pixels, given, transpose_a=True)[..., 0]),
            )

        parts = -(-count // AT_ONCE)
        done = [
            tf.TensorArray(tf.float32, parts, element_shape=[None, size], infer_shape=False)
            for size in (channels, filters)
        ]
        start = (0, tf.zeros([channels, width]), tf.zeros([width]), *done)
        _, by_kernel, by_bias, *found = tf.while_loop(
            lambda first, *_: first < count, step, start, parallel_iterations=1
        )
        by_features, by_own = (one.concat() for one in found)
        return None, tf.reshape(by_features, tf.shape(features)), by_kernel, by_bias, by_own

    maps = [tf.TensorSpec([None, None, None, size]) for size in (width, channels)]
    weights = [tf.TensorSpec([channels, width]), tf.TensorSpec([width]), tf.TensorSpec([None, filters])]
    return own_gradient(gradient, [tf.TensorSpec([None, None]), *maps, *weights])

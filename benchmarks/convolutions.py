"""3x3 convolutions of a network's own shapes, by Winograd and by TensorFlow's operator: time and rounding.

    chrt -r 5 python benchmarks/convolutions.py

The least of calls in turn, bias included; errors are root mean squares beside float64, in parts of the outputs'
standard deviation, on 16 rows of up to 8 images. Inputs are those behind a ReLU.
"""

import argparse
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from common import in_turn

from mrcnn.fusion import winograd

SHAPES = {  # of a photograph of 1024x1024: images, rows and columns, channels in and out
    "C3": (1, 128, 128),
    "C4": (1, 64, 256),
    "C5": (1, 32, 512),
    "P2": (1, 256, 256),
    "P3": (1, 128, 256),
    "P4": (1, 64, 256),
    "P5": (1, 32, 256),
    "100 RoIs": (100, 14, 256),
    "1000 RoIs": (1000, 7, 256),
}


def main() -> None:
    """Prints a line a shape."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--runs", type=int, default=11)
    flags.add_argument("--threads", type=int, default=2)
    arguments = flags.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    tf.config.threading.set_inter_op_parallelism_threads(arguments.threads)
    print(f"{'shape':>10} {'directly, ms':>12} {'Winograd, ms':>12} {'of it':>6}   errors")
    for name, (images, side, channels) in SHAPES.items():
        x = np.maximum(np.random.default_rng(0).normal(size=(images, side, side, channels)), 0).astype(np.float32)
        kernel = (np.random.default_rng(1).normal(size=(3, 3, channels, channels)) / channels**0.5).astype(np.float32)
        ways = {way: function(kernel, way == "winograd") for way in ("direct", "winograd")}
        taken = in_turn({way: functools.partial(call, tf.constant(x)) for way, call in ways.items()}, arguments.runs)
        direct, indirect = 1000 * taken["direct"], 1000 * taken["winograd"]
        errors = [error(call, x[:8, :16], kernel) for call in ways.values()]
        print(
            f"{name:>10} {direct:12.1f} {indirect:12.1f} {indirect / direct:6.2f}   "
            + " ".join(f"{value:.1e}" for value in errors)
        )


def function(values: np.ndarray, by_winograd: bool) -> Callable[[Any], tf.Tensor]:
    """The convolution of [B, H, W, c] as it stands in a graph."""
    kernel, filters = tf.Variable(values), values.shape[-1]

    def direct(x: tf.Tensor) -> tf.Tensor:
        return tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "SAME"), tf.zeros(filters))

    def indirect(x: tf.Tensor) -> tf.Tensor:
        return winograd.convolve(x, kernel, tf.ones(filters), tf.zeros(filters))

    return tf.function(
        indirect if by_winograd else direct,
        autograph=False,
        input_signature=[tf.TensorSpec([None, None, None, kernel.shape[2]])],
    )


def error(call: Callable, x: np.ndarray, kernel: np.ndarray) -> float:
    """Beside the same sums in float64."""
    padded = np.pad(np.float64(x), ((0, 0), (1, 1), (1, 1), (0, 0)))
    exact = sum(
        padded[:, y : y + x.shape[1], z : z + x.shape[2]] @ np.float64(kernel[y, z]) for y in range(3) for z in range(3)
    )
    return float(np.sqrt(np.mean((call(x) - exact) ** 2)) / exact.std())


if __name__ == "__main__":
    main()

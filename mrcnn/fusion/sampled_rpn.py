"""The RPN's predictions for the sampled anchors alone, through which the gradient flows in training."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from mrcnn.fusion.convolution import maps
from mrcnn.fusion.shared_weights import SharedWeightsLayer, build_unbuilt
from mrcnn.layers.static_output import StaticOutputLayer, spec

KERNEL = 3


@keras.saving.register_keras_serializable("mrcnn")
class SampledRPN(SharedWeightsLayer, StaticOutputLayer):
    """The RPN, with its weights, for some anchors; equal to its predictions for all anchors, gathered.

    The losses depend on a few hundred anchors of hundreds of thousands, so the gradient of a dense RPN consists almost
    entirely of zeros, but takes two thirds of its time. This layer reads only the 3x3 cells around each anchor.

    Args:
        convolution: the RPN's only 3x3 convolution, with stride 1 and padding "same".
        logits, deltas: its 1x1 convolutions.

    call: (levels: list of [B, H_l, W_l, C], indices: [B, S] int32 of anchors, level by level and in the order (y, x,
        ratio)) -> logits [B, S] and deltas [B, S, (dy, dx, log dh, log dw)], float32; levels, unchanged. If all else
        uses these levels, the gradient of the anchors is added to theirs in place, instead of to maps of zeros.
    """

    shared = ("convolution", "logits", "deltas")

    def build(self, levels_shape: Any, indices_shape: Any = None) -> None:
        build_unbuilt(self.convolution, levels_shape[0])
        for layer in (self.logits, self.deltas):
            build_unbuilt(layer, (*levels_shape[0][:-1], self.convolution.filters))

    def call(self, levels: list[Any], indices: Any) -> tuple[Any, Any, list[Any]]:
        anchors = self.logits.filters
        cell, ratio = indices // anchors, ops.reshape(indices % anchors, (-1,))
        around, levels = (_tapped if keras.backend.backend() == "tensorflow" else _gathered)(levels, cell)
        x = _product(ops.reshape(around, (-1, KERNEL**2 * levels[0].shape[-1])), self.convolution)
        row = ops.arange(ops.shape(ratio)[0], dtype=ratio.dtype) * anchors + ratio
        logits = ops.take(ops.reshape(_product(x, self.logits), (-1,)), row)
        deltas = ops.take(ops.reshape(_product(x, self.deltas), (-1, 4)), row, axis=0)
        shape = ops.shape(indices)
        logits, deltas = ops.cast(logits, "float32"), ops.cast(deltas, "float32")
        return ops.reshape(logits, shape), ops.reshape(deltas, (*shape, 4)), levels

    def static_outputs(self, levels: list[Any], indices: Any) -> tuple[Any, Any, list[Any]]:
        same = [spec(*level.shape, dtype=level.dtype) for level in levels]
        return spec(*indices.shape), spec(*indices.shape, 4), same


def _gathered(levels: list[Any], cell: Any) -> tuple[Any, list[Any]]:
    """The 3x3 cells around each cell [B, S] of the levels, [B, S, 9, C], zero outside the maps; and the levels."""
    around: Any = 0.0
    for level, (index, inside) in zip(levels, _places(levels, cell), strict=True):
        found = ops.take(ops.reshape(level, (-1, level.shape[-1])), index, axis=0)
        around = around + ops.where(inside[..., None], found, ops.zeros((), found.dtype))
    return around, levels


def _tapped(levels: list[Any], cell: Any) -> tuple[Any, list[Any]]:
    """`_gathered`, whose gradient is added to that of the levels."""
    around, *same = _tapping(len(levels), levels[0].shape[-1], levels[0].dtype)(cell, *levels)
    for found, level in zip(same, levels, strict=True):
        found.set_shape(level.shape)  # a function in the graph loses the static shape
    return around, same


@functools.cache
def _tapping(count: int, channels: int, dtype: Any) -> Callable[..., Any]:
    """The function (cell, *levels) -> (around, *levels) for `_tapped`; traced once, see `mrcnn.ops.own_gradient`."""
    import tensorflow as tf

    @tf.custom_gradient
    def tapped(cell: Any, *levels: Any) -> tuple[Any, Callable[..., Any]]:
        around, _ = _gathered(list(levels), cell)

        def gradient(upstream: Any, *by_levels: Any) -> tuple[Any, ...]:
            totals = []
            for by_level, (index, inside) in zip(by_levels, _places(by_levels, cell), strict=True):
                rows = tf.reshape(by_level, [-1, channels])
                own = tf.where(inside[..., None], upstream, tf.zeros([], upstream.dtype))
                totals.append(tf.reshape(tf.tensor_scatter_nd_add(rows, index[..., None], own), tf.shape(by_level)))
            return None, *totals

        return (around, *levels), gradient

    signature = [tf.TensorSpec([None, None], tf.int32), *[maps(channels, dtype)] * count]
    return tf.function(tapped, input_signature=signature, autograph=False)


def _places(levels: Sequence[Any], cell: Any) -> list[tuple[Any, Any]]:
    """For each level [B, H, W, C], the 3x3 cells around each cell [B, S], counted row by row and level by level: index
    [B, S, 9] in the level's cells of all images, 0 for those outside it; inside [B, S, 9]."""
    offset, places = ops.arange(KERNEL**2, dtype=cell.dtype), []
    for level in levels:
        batch, height, width = ops.shape(level)[:3]
        y = (cell // width)[..., None] + offset // KERNEL - KERNEL // 2
        x = (cell % width)[..., None] + offset % KERNEL - KERNEL // 2
        inside = ops.logical_and(cell >= 0, cell < height * width)[..., None]
        for at, side in ((y, height), (x, width)):
            inside = ops.logical_and(inside, ops.logical_and(at >= 0, at < side))
        image = ops.arange(batch, dtype=cell.dtype)[:, None, None]
        places.append((ops.where(inside, (image * height + y) * width + x, 0), inside))
        cell = cell - height * width
    return places


def _product(x: Any, layer: keras.layers.Conv2D) -> Any:
    """The convolution [rows, filters] of one position, from the cells that it sees [rows, h * w * c]."""
    kernel = ops.cast(ops.reshape(layer.kernel, (-1, layer.filters)), layer.compute_dtype)
    outputs = ops.matmul(ops.cast(x, layer.compute_dtype), kernel)
    if layer.bias is not None:
        outputs = outputs + ops.cast(layer.bias, layer.compute_dtype)
    return layer.activation(outputs)

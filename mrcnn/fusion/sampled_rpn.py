"""The RPN's predictions for the sampled anchors alone, through which the gradient flows in training."""

from typing import Any

import keras
from keras import ops

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
        ratio)) -> logits [B, S], deltas [B, S, (dy, dx, log dh, log dw)], float32.
    """

    shared = ("convolution", "logits", "deltas")

    def build(self, levels_shape: Any, indices_shape: Any = None) -> None:
        build_unbuilt(self.convolution, levels_shape[0])
        for layer in (self.logits, self.deltas):
            build_unbuilt(layer, (*levels_shape[0][:-1], self.convolution.filters))

    def call(self, levels: list[Any], indices: Any) -> tuple[Any, Any]:
        anchors = self.logits.filters
        cell, ratio = indices // anchors, indices % anchors
        around: Any = 0.0
        for level in levels:
            around = around + _neighborhoods(level, cell)
            height, width = ops.shape(level)[1:3]
            cell = cell - height * width
        x = _product(ops.reshape(around, (-1, KERNEL**2 * levels[0].shape[-1])), self.convolution)
        ratio = ops.reshape(ratio, (-1,))
        row = ops.arange(ops.shape(ratio)[0], dtype=ratio.dtype) * anchors + ratio
        logits = ops.take(ops.reshape(_product(x, self.logits), (-1,)), row)
        deltas = ops.take(ops.reshape(_product(x, self.deltas), (-1, 4)), row, axis=0)
        shape = ops.shape(indices)
        return (ops.reshape(ops.cast(logits, "float32"), shape), ops.reshape(ops.cast(deltas, "float32"), (*shape, 4)))

    def static_outputs(self, levels: list[Any], indices: Any) -> tuple[Any, Any]:
        return spec(*indices.shape), spec(*indices.shape, 4)


def _neighborhoods(level: Any, cell: Any) -> Any:
    """The 3x3 cells around each cell [B, S] of a map [B, H, W, C], counted row by row: [B, S, 9, C], zero outside the
    map; all zero if the cell is not on the map."""
    batch, height, width, channels = ops.shape(level)
    offset = ops.arange(KERNEL**2, dtype=cell.dtype)
    y = (cell // width)[..., None] + offset // KERNEL - KERNEL // 2
    x = (cell % width)[..., None] + offset % KERNEL - KERNEL // 2
    inside = ops.logical_and(cell >= 0, cell < height * width)[..., None]
    for at, side in ((y, height), (x, width)):
        inside = ops.logical_and(inside, ops.logical_and(at >= 0, at < side))
    image = ops.arange(batch, dtype=cell.dtype)[:, None, None]
    index = ops.where(inside, (image * height + y) * width + x, 0)
    found = ops.take(ops.reshape(level, (-1, channels)), index, axis=0)
    return ops.where(inside[..., None], found, ops.zeros((), found.dtype))


def _product(x: Any, layer: keras.layers.Conv2D) -> Any:
    """The convolution [rows, filters] of one position, from the cells that it sees [rows, h * w * c]."""
    kernel = ops.cast(ops.reshape(layer.kernel, (-1, layer.filters)), layer.compute_dtype)
    outputs = ops.matmul(ops.cast(x, layer.compute_dtype), kernel)
    if layer.bias is not None:
        outputs = outputs + ops.cast(layer.bias, layer.compute_dtype)
    return layer.activation(outputs)

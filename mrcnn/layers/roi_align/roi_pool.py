"""RoIPool (Fast R-CNN, section 2.1) over a feature pyramid: the maximum over bins of whole cells.

Table 2c of Mask R-CNN compares it with RoIAlign. Both roundings are those of `torchvision.ops.roi_pool`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from mrcnn.layers.roi_align import gather as roi_gather
from mrcnn.layers.roi_align.levels import LEVEL_ROUNDINGS, indexed_boxes, levels_of
from mrcnn.layers.roi_align.samples import to_whole
from mrcnn.layers.static_output import StaticOutputLayer, spec

FARTHEST = 1e6  # cells; positions are clipped to this, so that they fit integers


class Bins(NamedTuple):
    """Bins of M boxes, in the `roi_align.gather.table` of all levels.

    first: [M, pool, pool] int32, a bin's top left cell. counts: [M, pool, pool] int32, number of cells of a bin; 0 if
    it is outside the map. widths: [M, 1, pool] int32, cells per row of a bin, at least 1. strides: [M, 1, 1] int32,
    cells between rows of the map.
    """

    first: Any
    counts: Any
    widths: Any
    strides: Any


@keras.saving.register_keras_serializable("mrcnn")
class RoIPool(StaticOutputLayer):
    """RoIPool on the pyramid level that suits each RoI's size. No weights.

    A box's corners are rounded to cells, both inclusive, and so are the borders of its bins, which may overlap by a
    cell. A bin's value is its maximum cell, or zero without cells. The gradient flows to the first maximum.

    Args:
        pool_size: bins per side of the output.
        strides, level_rounding: see `mrcnn.layers.roi_align.levels.levels_of`.

    Call arguments:
        features: list of [B, H_l, W_l, C], finest first.
        boxes: [M, (y1, x1, y2, x2)] float32, pixels of the network input; no gradient flows to them. M may be 0.
        image_index: [M] int, the image of each box. Without it, `boxes` are [B, N, (y1, x1, y2, x2)], N per image, and
            M is B * N.

    Returns:
        [M, pool_size, pool_size, C] in the compute dtype, in the order of `boxes`. A box that is not finite gets zeros.

    Raises:
        ValueError: for an unknown setting, or different numbers of feature maps and strides.
    """

    def __init__(
        self, pool_size: int, *, strides: Sequence[int] = (4, 8, 16, 32), level_rounding: str = "floor", **kwargs: Any
    ) -> None:
        # Automatic casting would round the boxes to bfloat16 with mixed precision.
        super().__init__(autocast=False, **kwargs)
        if level_rounding not in LEVEL_ROUNDINGS:
            raise ValueError(f"level_rounding is {level_rounding!r}; use one of {LEVEL_ROUNDINGS}")
        if pool_size < 1:
            raise ValueError(f"pool_size is {pool_size}; it must be 1 or more")
        self.supports_jit = keras.backend.backend() != "tensorflow"
        self.pool_size, self.strides, self.level_rounding = int(pool_size), tuple(strides), level_rounding

    def call(self, features: list[Any], boxes: Any, image_index: Any = None) -> Any:
        if len(features) != len(self.strides):
            raise ValueError(f"{len(features)} feature maps for {len(self.strides)} strides {self.strides}: one each")
        boxes, image_index = indexed_boxes(boxes, image_index)
        levels = levels_of(boxes, self.strides, self.level_rounding)
        pooled = roi_pool(features, boxes, image_index, levels, strides=self.strides, pool_size=self.pool_size)
        return ops.cast(pooled, self.compute_dtype)

    def static_outputs(self, features: list[Any], boxes: Any, image_index: Any = None) -> Any:
        *counts, _ = boxes.shape
        count = None if None in counts else math.prod(counts)
        return spec(count, self.pool_size, self.pool_size, features[0].shape[-1], dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "pool_size": self.pool_size,
            "strides": self.strides,
            "level_rounding": self.level_rounding,
        }


def roi_pool(
    features: Sequence[Any], boxes: Any, image_index: Any, levels: Any, *, strides: Sequence[float], pool_size: int
) -> Any:
    """The maximum cell of each bin, as `torchvision.ops.roi_pool`.

    Args:
        features: [B, H_l, W_l, C], one per level.
        boxes: [M, (y1, x1, y2, x2)] float32, pixels of the network input. M may be 0.
        image_index, levels: [M] int32, the image and the level of each box.
        strides: input pixels between cells, one per level.
        pool_size: bins per side.

    Returns:
        [M, pool_size, pool_size, C] in the dtype of `features`.
    """
    cells = roi_gather.table(features)
    bins = bins_of(roi_gather.sizes(features), boxes, image_index, levels, strides=strides, pool_size=pool_size)
    at = _highest_cells(ops.stop_gradient(cells), bins)
    channels = cells.shape[-1]
    index = ops.maximum(at, 0) * channels + ops.arange(channels, dtype="int32")
    return ops.where(at >= 0, ops.take(ops.reshape(cells, (-1,)), index), ops.zeros((), cells.dtype))


def bins_of(sizes: Any, boxes: Any, image_index: Any, levels: Any, *, strides: Sequence[float], pool_size: int) -> Bins:
    """The bins of boxes; sizes: [levels, (batch, height, width)] int32, else see `roi_pool`."""
    cells = sizes[:, 0] * sizes[:, 1] * sizes[:, 2]
    offset = ops.take(ops.cumsum(cells) - cells, levels)
    height, width = ops.take(sizes[:, 1], levels), ops.take(sizes[:, 2], levels)
    stride = ops.take(ops.convert_to_tensor(strides, dtype="float32"), levels)
    corners = to_whole(ops.clip(boxes / stride[:, None], -FARTHEST, FARTHEST))
    (y, heights), (x, widths) = (
        _borders(corners[:, axis], corners[:, axis + 2], limit, pool_size) for axis, limit in enumerate((height, width))
    )
    first = offset + image_index * height * width
    return Bins(
        first[:, None, None] + y[:, :, None] * width[:, None, None] + x[:, None, :],
        heights[:, :, None] * widths[:, None, :],
        ops.maximum(widths, 1)[:, None, :],
        width[:, None, None],
    )


def _borders(start: Any, end: Any, limit: Any, pool_size: int) -> tuple[Any, Any]:
    """First cell and number of cells of each bin on one axis, [M, pool_size] int32 each, clipped to the map.

    Args:
        start, end: [M] float32, the first and the last cell of a box.
        limit: [M] int32, cells of the map.
    """
    side = ops.maximum(end - start + 1.0, 1.0)
    # Not by a constant, which a graph would turn into a product that rounds differently from torchvision's quotient
    size = side / ops.where(side > 0, float(pool_size), 1.0)
    bins = ops.arange(pool_size, dtype="float32")
    low = ops.cast(ops.floor(bins * size[:, None]) + start[:, None], "int32")
    high = ops.cast(ops.ceil((bins + 1.0) * size[:, None]) + start[:, None], "int32")
    low, high = (ops.clip(border, 0, limit[:, None]) for border in (low, high))
    return low, ops.maximum(high - low, 0)


def _highest_cells(cells: Any, bins: Bins) -> Any:
    """The first maximum cell of each bin and channel, [M, pool, pool, C] int32; -1 if there is none.

    All bins are searched in parallel, one cell per step.
    """

    def step(k: Any, best: Any, at: Any) -> tuple[Any, Any, Any]:
        inside = k < bins.counts
        cell = ops.where(inside, bins.first + k // bins.widths * bins.strides + k % bins.widths, 0)
        value = ops.take(cells, cell, axis=0)
        better = ops.logical_and(inside[..., None], value > best)
        return k + 1, ops.where(better, value, best), ops.where(better, cell[..., None], at)

    shape = (*ops.shape(bins.counts), cells.shape[-1])
    lowest = ops.full(shape, float("-inf"), dtype=cells.dtype)
    most = ops.max(ops.concatenate([ops.reshape(bins.counts, (-1,)), ops.zeros((1,), "int32")]))
    start = (ops.zeros((), "int32"), lowest, ops.full(shape, -1, dtype="int32"))
    return ops.while_loop(lambda k, *_: k < most, step, start)[2]

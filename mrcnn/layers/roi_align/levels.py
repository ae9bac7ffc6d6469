"""The boxes to pool, and the pyramid level of each (FPN, Eqn. 1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from keras import ops

LEVEL_ROUNDINGS = ("floor", "round")


def indexed_boxes(boxes: Any, image_index: Any = None) -> tuple[Any, Any]:
    """Boxes as [M, 4] float32 without gradient, and the image of each, [M] int32.

    Args:
        boxes: [M, (y1, x1, y2, x2)], or [B, N, 4] without `image_index`. Boxes that are not finite are moved far
            outside every map, where all features are zero; NaN would raise an error inside the op.
        image_index: [M] int.

    Raises ValueError for boxes of another shape without `image_index`.
    """
    boxes = ops.stop_gradient(ops.cast(boxes, "float32"))
    boxes = ops.where(ops.all(ops.isfinite(boxes), axis=-1, keepdims=True), boxes, -1e6)
    if image_index is not None:
        return boxes, ops.cast(image_index, "int32")
    if len(boxes.shape) != 3:
        raise ValueError(f"boxes have shape {tuple(boxes.shape)}; pass [B, N, 4], or [M, 4] with image_index [M]")
    batch, count = ops.shape(boxes)[:2]
    return ops.reshape(boxes, (-1, 4)), ops.repeat(ops.arange(batch, dtype="int32"), count)


def levels_of(
    boxes: Any, strides: Sequence[int], rounding: str, canonical_size: float = 224, canonical_level: int = 4
) -> Any:
    """Index into the pyramid's levels for each of `boxes` [M, (y1, x1, y2, x2)] -> [M] int32.

    Args:
        strides: input pixels between cells, one per level, each twice the one before.
        rounding: "floor" (FPN, torchvision, Detectron2) or "round" (matterport).
        canonical_size, canonical_level: a square box with this side in pixels belongs to this level (P4).
    """
    sides = ops.maximum(boxes[:, 2:] - boxes[:, :2], 0.0)
    size = ops.sqrt(sides[:, 0] * sides[:, 1]) / canonical_size
    level = canonical_level + ops.log(ops.maximum(size, 1e-9)) / math.log(2.0)
    # Rounding may put the logarithm of a canonical-size box just below the integer; the addend keeps its level.
    level = ops.floor(level + 1e-6) if rounding == "floor" else ops.round(level)
    first = round(math.log2(strides[0]))
    last = len(strides) - 1
    # Clip again in integers, as sides that overflow give NaN
    return ops.clip(ops.cast(ops.clip(level - first, 0, last), "int32"), 0, last)

"""RoIAlign's sample positions for boxes on a feature map, in cells."""

from __future__ import annotations

from typing import Any

from keras import ops


def size(feature_map: Any) -> tuple[Any, Any]:
    """Height and width of [B, H, W, C] as float32 scalars, static or dynamic."""
    height, width = ops.shape(feature_map)[1:3]
    return ops.cast(height, "float32"), ops.cast(width, "float32")


def start_and_side(boxes: Any, spatial_scale: Any, aligned: bool, rounded: bool = False) -> tuple[Any, Any]:
    """Top left corners and sides of boxes [M, 4] in cells of the map, [M, (y, x)] each.

    `spatial_scale` is a number, or [M, 1] for boxes on maps with different strides. `rounded` moves the corners to
    whole cells. The operations are in the order of torchvision's kernel, so that a sample at the limit (-1 or the map's
    size) rounds to the same side.
    """
    boxes = ops.stop_gradient(ops.cast(boxes, "float32")) * spatial_scale
    if rounded:
        boxes = to_whole(boxes)
    if aligned:
        boxes = boxes - 0.5
    start, end = boxes[:, :2], boxes[:, 2:]
    return start, end - start if aligned and not rounded else ops.maximum(end - start, 1.0)


def to_whole(values: Any) -> Any:
    """The nearest integers; halves are rounded away from zero, like C's `round`."""
    size = ops.abs(values)
    whole = ops.floor(size)
    return ops.sign(values) * (whole + ops.cast(size - whole >= 0.5, "float32"))


def positions(start: Any, side: Any, pool_size: int, ratio: Any) -> Any:
    """Sample positions of boxes on one axis, [M, pool_size * ratio]; evenly spaced, because bins touch."""
    points = ops.arange(pool_size * ratio, dtype="int32")
    bins, offsets, ratio = (ops.cast(values, "float32") for values in (points // ratio, points % ratio, ratio))
    start, side = start[:, None], side[:, None] / pool_size
    return start + bins * side + (offsets + 0.5) * side / ratio


def corner_fractions(boxes: Any, height: Any, width: Any) -> Any:
    """matterport's normalized corners of boxes [M, 4]: 0 is the first pixel of the image and 1 the last.

    `height` and `width` in pixels: scalars or [M].
    """
    last = ops.stack([height - 1.0, width - 1.0] * 2, axis=-1)
    return (boxes - ops.convert_to_tensor([0.0, 0.0, 1.0, 1.0])) / last


def corner_positions(low: Any, high: Any, cells: Any, pool_size: int) -> Any:
    """Sample positions of `tf.image.crop_and_resize` on one axis, [M, pool_size]: from corner to corner.

    low, high: [M], corners as fractions of the distance from the first cell to the last; cells: [M], number of cells.
    """
    if pool_size == 1:
        return (0.5 * (low + high) * (cells - 1.0))[:, None]
    step = (high - low) * (cells - 1.0) / (pool_size - 1)
    return (low * (cells - 1.0))[:, None] + ops.arange(pool_size, dtype="float32") * step[:, None]

"""Box arithmetic, the only implementation in the package.

Boxes are `(y1, x1, y2, x2)`, float32, continuous: a box covers `[x1, x2)`, so its width is `x2 - x1`. Every function
takes backend tensors or numpy arrays and returns tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from keras import ops

# Largest log-scale in `decode`: a reference of 16 pixels can grow to at most 1000, so that an untrained head cannot
# overflow exp (Detectron2 and torchvision use the same bound).
MAX_LOG_SCALE = math.log(1000.0 / 16.0)

# Smallest side that `encode` divides by, so that zero-padded rows give large or zero deltas, never NaN or infinity.
MIN_SIDE = 1e-6


def area(boxes: Any) -> Any:
    """Area of `boxes` [..., (y1, x1, y2, x2)] -> [...]. Boxes whose corners are swapped or equal have area 0."""
    boxes = _float(boxes)
    y1, x1, y2, x2 = ops.unstack(boxes, 4, axis=-1)
    return ops.maximum(y2 - y1, 0.0) * ops.maximum(x2 - x1, 0.0)


def intersection(boxes1: Any, boxes2: Any) -> Any:
    """Area shared by every pair of `boxes1` [..., N, 4] and `boxes2` [..., M, 4] -> [..., N, M]."""
    y1, x1, y2, x2 = ops.unstack(ops.expand_dims(_float(boxes1), -2), 4, axis=-1)
    v1, u1, v2, u2 = ops.unstack(ops.expand_dims(_float(boxes2), -3), 4, axis=-1)
    height = ops.maximum(ops.minimum(y2, v2) - ops.maximum(y1, v1), 0.0)
    width = ops.maximum(ops.minimum(x2, u2) - ops.maximum(x1, u1), 0.0)
    return height * width


def iou(boxes1: Any, boxes2: Any) -> Any:
    """Intersection over union of every pair.

    Args:
        boxes1: [..., N, (y1, x1, y2, x2)].
        boxes2: [..., M, (y1, x1, y2, x2)]; leading axes broadcast with those of `boxes1`.

    Returns:
        [..., N, M] float32 in 0..1; 0 for pairs with an empty (zero-padded) box.
    """
    shared = intersection(boxes1, boxes2)
    union = ops.expand_dims(area(boxes1), -1) + ops.expand_dims(area(boxes2), -2) - shared
    return ops.divide_no_nan(shared, union)


def encode(boxes: Any, reference: Any, std_dev: Sequence[float]) -> Any:
    """Deltas that turn `reference` into `boxes` (Faster R-CNN, section 3.1.2, Eqn. 2).

    Args:
        boxes: [..., (y1, x1, y2, x2)].
        reference: [..., (y1, x1, y2, x2)], anchors or RoIs, broadcast against `boxes`.
        std_dev: four numbers that divide the deltas (dy, dx, log dh, log dw).

    Returns:
        [..., (dy, dx, log dh, log dw)] float32. Finite even for rows without area in either argument.
    """
    y, x, height, width = _center_and_size(boxes)
    ref_y, ref_x, ref_height, ref_width = _center_and_size(reference)
    height, width = ops.maximum(height, MIN_SIDE), ops.maximum(width, MIN_SIDE)
    ref_height, ref_width = ops.maximum(ref_height, MIN_SIDE), ops.maximum(ref_width, MIN_SIDE)
    deltas = [
        (y - ref_y) / ref_height,
        (x - ref_x) / ref_width,
        ops.log(height / ref_height),
        ops.log(width / ref_width),
    ]
    return ops.stack(deltas, axis=-1) / ops.convert_to_tensor(std_dev, dtype="float32")


def decode(deltas: Any, reference: Any, std_dev: Sequence[float]) -> Any:
    """Applies `deltas` to `reference`; the inverse of `encode`.

    Args:
        deltas: [..., (dy, dx, log dh, log dw)], divided by `std_dev`. The log-scales are clamped at `MAX_LOG_SCALE`.
        reference: [..., (y1, x1, y2, x2)], anchors or RoIs, broadcast against `deltas`.
        std_dev: the four numbers given to `encode`.

    Returns:
        [..., (y1, x1, y2, x2)] float32, not clipped to the image.
    """
    deltas = _float(deltas) * ops.convert_to_tensor(std_dev, dtype="float32")
    dy, dx, log_dh, log_dw = ops.unstack(deltas, 4, axis=-1)
    y, x, height, width = _center_and_size(reference)
    y, x = y + dy * height, x + dx * width
    half_height = 0.5 * height * ops.exp(ops.minimum(log_dh, MAX_LOG_SCALE))
    half_width = 0.5 * width * ops.exp(ops.minimum(log_dw, MAX_LOG_SCALE))
    return ops.stack([y - half_height, x - half_width, y + half_height, x + half_width], axis=-1)


def decode_normalized(deltas: Any, reference: Any, std_dev: Sequence[float], extent: Any) -> Any:
    """`decode` in matterport's arithmetic, for boxes whose corners name the last pixel (`to_inclusive`).

    matterport computes boxes as fractions of the distance between the image's first and last pixel. These fractions
    have coarse floating-point steps, so rounding in `crop_and_resize` never exceeds the last cell of a feature map. If
    boxes were decoded in pixels, 5 to 10% of those at the image's edge would exceed it and sample zeros there.

    Args:
        deltas, reference, std_dev: see `decode`.
        extent: [B, (0, 0, height - 1, width - 1)] of the network input, broadcast like `windows` in `clip`.
    """
    extent = _float(extent)
    for _ in range(len(deltas.shape) - len(extent.shape)):
        extent = ops.expand_dims(extent, -2)
    scale = ops.concatenate([extent[..., 2:]] * 2, axis=-1)
    deltas = _float(deltas) * ops.convert_to_tensor(std_dev, dtype="float32")
    dy, dx, log_dh, log_dw = ops.unstack(deltas, 4, axis=-1)
    y, x, height, width = _center_and_size(_float(reference) / scale)
    y, x = y + dy * height, x + dx * width
    height, width = (
        side * ops.exp(ops.minimum(log, MAX_LOG_SCALE)) for side, log in ((height, log_dh), (width, log_dw))
    )
    y1, x1 = y - 0.5 * height, x - 0.5 * width
    return ops.stack([y1, x1, y1 + height, x1 + width], axis=-1) * scale


def clip(boxes: Any, windows: Any) -> Any:
    """Clips `boxes` to their windows.

    Args:
        boxes: [B, ..., (y1, x1, y2, x2)], usually [B, N, 4].
        windows: [B, (y1, x1, y2, x2)], the part of each network input that is image, not padding.

    Returns:
        The clipped boxes, in the shape of `boxes`. A box outside its window becomes empty, on the window's edge.
    """
    boxes, windows = _float(boxes), _float(windows)
    for _ in range(len(boxes.shape) - len(windows.shape)):
        windows = ops.expand_dims(windows, -2)
    y1, x1, y2, x2 = ops.unstack(boxes, 4, axis=-1)
    top, left, bottom, right = ops.unstack(windows, 4, axis=-1)
    edges = [ops.clip(y1, top, bottom), ops.clip(x1, left, right), ops.clip(y2, top, bottom), ops.clip(x2, left, right)]
    return ops.stack(edges, axis=-1)


def to_inclusive(boxes: Any) -> Any:
    """`boxes` [..., 4] with y2, x2 moved from the edge of the last pixel to the pixel itself.

    matterport's Mask_RCNN computes deltas, overlaps and crops with such corners (divided by the image's size minus
    one), so its weights need them.
    """
    return _float(boxes) - ops.convert_to_tensor([0.0, 0.0, 1.0, 1.0])


def to_exclusive(boxes: Any) -> Any:
    """The inverse of `to_inclusive`."""
    return _float(boxes) + ops.convert_to_tensor([0.0, 0.0, 1.0, 1.0])


def _float(boxes: Any) -> Any:
    return ops.cast(ops.convert_to_tensor(boxes), "float32")


def _center_and_size(boxes: Any) -> tuple[Any, Any, Any, Any]:
    y1, x1, y2, x2 = ops.unstack(_float(boxes), 4, axis=-1)
    height, width = y2 - y1, x2 - x1
    return y1 + 0.5 * height, x1 + 0.5 * width, height, width


def centered_in(boxes: Any, windows: Any) -> Any:
    """[batch, boxes] bool: whether the center of each box [boxes, (y1, x1, y2, x2)] is in each window [batch, 4]."""
    centers = ops.expand_dims((boxes[:, :2] + boxes[:, 2:]) / 2, 0)
    windows = ops.expand_dims(windows, 1)
    return ops.all(ops.logical_and(centers >= windows[..., :2], centers < windows[..., 2:]), axis=-1)

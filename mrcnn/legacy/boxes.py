"""Box arithmetic of the old package, in NumPy and in Keras tensors.

Boxes are (y1, x1, y2, x2). Pixel boxes are end-exclusive; normalized boxes divide coordinates by the image size minus
one and include the last pixel. The networks use `mrcnn.ops.boxes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

LAST_PIXEL = (0, 0, 1, 1)


def non_max_suppression(boxes: ArrayLike, scores: ArrayLike, threshold: float) -> np.ndarray:
    """Greedy non-maximum suppression over all boxes together.

    Args:
        boxes: [N, (y1, x1, y2, x2)].
        scores: [N].
        threshold: IoU with a kept box above which a box is dropped.

    Returns:
        [kept] int32, indices of the kept boxes, best score first.
    """
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    rest, kept = np.argsort(np.asarray(scores))[::-1], []
    while rest.size:
        best, rest = rest[0], rest[1:]
        kept.append(best)
        top_left = np.maximum(boxes[best, :2], boxes[rest, :2])
        bottom_right = np.minimum(boxes[best, 2:], boxes[rest, 2:])
        shared = np.prod(np.maximum(bottom_right - top_left, 0), axis=1)
        union = area[best] + area[rest] - shared
        overlaps = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
        rest = rest[overlaps <= threshold]
    return np.array(kept, np.int32)


def exact_overlaps(boxes1: ArrayLike, boxes2: ArrayLike) -> np.ndarray:
    """IoU [N, M] in float64, rounded as in the old package, where rounding decides ties between an object's anchors."""
    boxes1, boxes2 = (np.asarray(boxes, np.float64).reshape(-1, 4) for boxes in (boxes1, boxes2))
    area1, area2 = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (boxes1, boxes2))
    top_left = np.maximum(boxes1[:, None, :2], boxes2[:, :2])
    bottom_right = np.minimum(boxes1[:, None, 2:], boxes2[:, 2:])
    shared = np.prod(np.maximum(bottom_right - top_left, 0), axis=-1)
    union = area2 + area1[:, None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def apply_box_deltas(boxes: ArrayLike, deltas: ArrayLike) -> np.ndarray:
    """Boxes [N, (y1, x1, y2, x2)] float32 moved by deltas [N, (dy, dx, log dh, log dw)] without scaling."""
    boxes, deltas = np.asarray(boxes, np.float32), np.asarray(deltas)
    size = boxes[:, 2:] - boxes[:, :2]
    center = boxes[:, :2] + 0.5 * size + deltas[:, :2] * size
    size = size * np.exp(deltas[:, 2:])
    top_left = center - 0.5 * size
    return np.concatenate([top_left, top_left + size], axis=1)


def box_refinement(box: ArrayLike, gt_box: ArrayLike) -> np.ndarray:
    """Deltas [N, (dy, dx, log dh, log dw)] float32 that turn boxes [N, (y1, x1, y2, x2)] into `gt_box` [N, 4]."""
    box, gt_box = np.asarray(box, np.float32), np.asarray(gt_box, np.float32)
    size, gt_size = box[:, 2:] - box[:, :2], gt_box[:, 2:] - gt_box[:, :2]
    shift = (gt_box[:, :2] + 0.5 * gt_size) - (box[:, :2] + 0.5 * size)
    return np.concatenate([shift / size, np.log(gt_size / size)], axis=1)


def norm_boxes(boxes: ArrayLike, shape: Sequence[int]) -> np.ndarray:
    """Pixel boxes [N, (y1, x1, y2, x2)] converted to normalized ones, float32.

    Args:
        shape: (height, width) of the image.
    """
    return ((np.asarray(boxes) - LAST_PIXEL) / _last(shape)).astype(np.float32)


def denorm_boxes(boxes: ArrayLike, shape: Sequence[int]) -> np.ndarray:
    """Normalized boxes [N, (y1, x1, y2, x2)] converted to pixel boxes, int32; the inverse of `norm_boxes`."""
    return np.around(np.asarray(boxes) * _last(shape) + LAST_PIXEL).astype(np.int32)


def _last(shape: Sequence[int]) -> np.ndarray:
    """Row and column of the last pixel, twice."""
    height, width = shape
    return np.array([height - 1, width - 1, height - 1, width - 1])


# The same functions for Keras tensors of any backend


def apply_box_deltas_graph(boxes: Any, deltas: Any) -> Any:
    """`apply_box_deltas` for tensors [N, 4]; a box grows to at most 1000 / 16 times its size."""
    from mrcnn.ops import boxes as box_ops

    return box_ops.decode(deltas, boxes, (1.0, 1.0, 1.0, 1.0))


def box_refinement_graph(box: Any, gt_box: Any) -> Any:
    """`box_refinement` for tensors [N, 4]."""
    from mrcnn.ops import boxes as box_ops

    return box_ops.encode(gt_box, box, (1.0, 1.0, 1.0, 1.0))


def clip_boxes_graph(boxes: Any, window: Any) -> Any:
    """Boxes [N, (y1, x1, y2, x2)] clipped to a window [(y1, x1, y2, x2)]."""
    from keras import ops

    from mrcnn.ops import boxes as box_ops

    return box_ops.clip(ops.expand_dims(boxes, 0), ops.expand_dims(window, 0))[0]


def overlaps_graph(boxes1: Any, boxes2: Any) -> Any:
    """IoU [N, M] of boxes [N, (y1, x1, y2, x2)] with boxes [M, (y1, x1, y2, x2)]."""
    from mrcnn.ops import boxes as box_ops

    return box_ops.iou(boxes1, boxes2)


def norm_boxes_graph(boxes: Any, shape: Any) -> Any:
    """`norm_boxes` for tensors; `shape` is a tensor (height, width) or a tuple."""
    from keras import ops

    boxes, last = _float_and_last(boxes, shape)
    return (boxes - ops.convert_to_tensor(LAST_PIXEL, "float32")) / last


def denorm_boxes_graph(boxes: Any, shape: Any) -> Any:
    """`denorm_boxes` for tensors; int32."""
    from keras import ops

    boxes, last = _float_and_last(boxes, shape)
    return ops.cast(ops.round(boxes * last + ops.convert_to_tensor(LAST_PIXEL, "float32")), "int32")


def _float_and_last(boxes: Any, shape: Any) -> tuple[Any, Any]:
    from keras import ops

    last = ops.cast(ops.convert_to_tensor(shape), "float32") - 1.0
    return ops.cast(ops.convert_to_tensor(boxes), "float32"), ops.concatenate([last, last])


def trim_zeros_graph(boxes: Any, name: str = "trim_zeros") -> tuple[Any, Any]:
    """The rows of `boxes` [N, 4] that are not all zero, and a mask of them, [N] bool. TensorFlow only."""
    import tensorflow as tf
    from keras import ops

    kept = ops.any(ops.not_equal(boxes, 0), axis=1)
    return tf.boolean_mask(boxes, kept, name=name), kept


def batch_pack_graph(x: Any, counts: Any, num_rows: int) -> Any:
    """The first `counts[i]` rows of each of the `num_rows` entries of x [batch, rows, ...], concatenated."""
    from keras import ops

    return ops.concatenate([x[i, : counts[i]] for i in range(num_rows)], axis=0)


def log2_graph(x: Any) -> Any:
    """The base-2 logarithm."""
    from keras import ops

    return ops.log2(x)


def smooth_l1_loss(y_true: Any, y_pred: Any) -> Any:
    """Elementwise smooth L1 of the difference d: 0.5 d^2 below 1, d - 0.5 above."""
    from keras import ops

    difference = ops.abs(ops.convert_to_tensor(y_true) - y_pred)
    return ops.where(difference < 1.0, 0.5 * difference**2, difference - 0.5)


def batch_slice(inputs: Any, graph_fn: Any, batch_size: int, names: Sequence[str] | None = None) -> Any:
    """Calls a function on each entry of a batch and stacks the results.

    Args:
        inputs: one tensor [batch, ...] or several.
        graph_fn: takes one entry of each input and returns one tensor or several.
        batch_size: the number of entries.
        names: not used; Keras 3 tensors have no names.

    Returns:
        One tensor [batch, ...], or a list of them if `graph_fn` returns several.
    """
    from keras import ops

    del names
    inputs = inputs if isinstance(inputs, (list, tuple)) else [inputs]
    results = [graph_fn(*(values[i] for values in inputs)) for i in range(batch_size)]
    if not isinstance(results[0], (list, tuple)):
        return ops.stack(results)
    return [ops.stack(column) for column in zip(*results, strict=True)]

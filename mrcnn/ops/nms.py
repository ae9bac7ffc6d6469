"""Greedy non-maximum suppression within groups: pyramid levels of proposals, classes of detections."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from mrcnn.ops import boxes as box_ops

# Score of an entry that must not be chosen.
LOWEST = float(np.finfo(np.float32).min)


def nms_per_group(
    boxes: Any, scores: Any, *, max_per_group: int, max_total: int, iou_threshold: float, keep_empty: bool = False
) -> tuple[Any, Any, Any, Any, Any]:
    """Keeps the boxes that overlap no better box of their own group, best first.

    A box is dropped where its IoU with a kept box of the group is above (not at) `iou_threshold`. Groups never
    suppress each other. Among equal scores the one that stands first goes first.

    Args:
        boxes: [B, N, K, (y1, x1, y2, x2)] float32 for N groups, or [B, 1, K, 4] where all groups share their boxes.
        scores: [B, N, K] float32, any sign. Entries at `LOWEST` or -inf or NaN are never chosen: padding carries
            one of these.
        max_per_group: most boxes kept of one group.
        max_total: most boxes kept of one image.
        iou_threshold: 0..1.
        keep_empty: boxes without area, which overlap nothing, may be chosen (matterport).

    Returns:
        boxes [B, max_total, (y1, x1, y2, x2)], scores [B, max_total], groups [B, max_total] int32, valid [B, max_total]
        bool, places [B, max_total] int32 in the scores of an image [N * K]; sorted by falling score, zero-padded where
        `valid` is False.

    Raises:
        NotImplementedError: on a backend without a body in this file.
    """
    body = _BODIES.get(keras.backend.backend())
    if body is None:
        raise NotImplementedError(
            f"nms_per_group has no body for the Keras backend {keras.backend.backend()!r}; "
            f"add one to mrcnn/ops/nms.py or set KERAS_BACKEND to one of: {', '.join(_BODIES)}"
        )
    boxes, scores = ops.cast(boxes, "float32"), ops.cast(scores, "float32")
    choosable = scores > LOWEST  # NaN compares as False
    if not keep_empty:
        choosable = ops.logical_and(choosable, box_ops.area(boxes) > 0)
    scores = ops.where(choosable, scores, LOWEST)
    return body(boxes, scores, int(max_per_group), int(max_total), float(iou_threshold))


def _tensorflow(
    boxes: Any, scores: Any, max_per_group: int, max_total: int, iou_threshold: float
) -> tuple[Any, Any, Any, Any, Any]:
    import tensorflow as tf

    # The op ranks a group's unused places, at score 0, above its negative scores, and sorts equal scores in no order.
    # Ranks are positive and differ, so they go in, and the scores are looked up with the ranks that come out.
    falling, order, ranks = _ranks(tf.reshape(scores, [tf.shape(scores)[0], -1]))
    ranks = tf.where(scores > LOWEST, tf.reshape(ranks, tf.shape(scores)), 0.0)
    kept = tf.image.combined_non_max_suppression(
        tf.transpose(boxes, [0, 2, 1, 3]),
        tf.transpose(ranks, [0, 2, 1]),
        max_output_size_per_class=max_per_group,
        max_total_size=max_total,
        iou_threshold=iou_threshold,
        score_threshold=0.5,
        clip_boxes=False,  # it would clip to 0..1
    )
    valid = tf.range(max_total)[None, :] < kept.valid_detections[:, None]
    rank = tf.shape(falling)[1] - tf.cast(tf.maximum(kept.nmsed_scores, 1.0), tf.int32)
    kept_scores = tf.where(valid, tf.gather(falling, rank, batch_dims=1), 0.0)
    places = tf.where(valid, tf.gather(order, rank, batch_dims=1), 0)
    return kept.nmsed_boxes, kept_scores, tf.cast(kept.nmsed_classes, tf.int32), valid, places


def _ranks(scores: Any) -> tuple[Any, Any, Any]:
    """`scores` [B, A] in falling order, the place that each had, and the rank of each as float32: A for the best."""
    import tensorflow as tf

    batch, count = tf.shape(scores)[0], tf.shape(scores)[1]
    falling, order = tf.math.top_k(scores, count)
    flat = tf.reshape(order + count * tf.range(batch)[:, None], [-1, 1])
    ranks = tf.tile(tf.range(count, 0, -1), [batch])  # exact in float32 up to 16 million
    ranks = tf.scatter_nd(flat, tf.cast(ranks, tf.float32), [batch * count])
    return falling, order, tf.reshape(ranks, [batch, count])


def _static(
    boxes: Any, scores: Any, max_per_group: int, max_total: int, iou_threshold: float
) -> tuple[Any, Any, Any, Any, Any]:
    """With shapes that do not depend on the data, in keras.ops, for XLA.

    A box stays where no better box that stays overlaps it too much. From all boxes on, that is applied until nothing
    changes: each round settles at least the best box that was not settled, so the result is the greedy one; but one
    round settles all whose rivals are settled, and a handful of rounds does for a thousand boxes.
    """
    batch, groups, count = scores.shape
    boxes = ops.broadcast_to(boxes, (batch, groups, count, 4))
    falling, order = ops.top_k(scores, count)
    sorted_boxes = ops.take_along_axis(boxes, order[..., None], axis=2)
    candidates = falling > LOWEST
    better = ops.arange(count)[:, None] < ops.arange(count)[None, :]
    rivals = ops.logical_and(box_ops.iou(sorted_boxes, sorted_boxes) > iou_threshold, better)

    def survivors(kept: Any) -> Any:
        beaten = ops.any(ops.logical_and(kept[..., None], rivals), axis=-2)
        return ops.logical_and(candidates, ops.logical_not(beaten))

    _, kept = ops.while_loop(
        lambda before, kept: ops.any(before != kept),
        lambda _, kept: (kept, survivors(kept)),
        (ops.zeros_like(candidates), candidates),
    )
    kept = ops.logical_and(kept, ops.cumsum(ops.cast(kept, "int32"), axis=-1) <= max_per_group)
    # Back to the places before sorting: of equal scores of different groups the first stands first
    kept = ops.take_along_axis(kept, ops.argsort(order, axis=-1), axis=2)
    return _best_of_all(boxes, ops.where(kept, scores, LOWEST), max_total)


def _best_of_all(boxes: Any, scores: Any, max_total: int) -> tuple[Any, Any, Any, Any, Any]:
    """The results of `nms_per_group` from boxes [B, N, K, 4] and scores [B, N, K], those not kept at `LOWEST`."""
    batch, groups, count = scores.shape
    flat = ops.reshape(scores, (batch, groups * count))
    best, place = ops.top_k(flat, min(max_total, groups * count))
    valid = best > LOWEST
    rows = ops.take_along_axis(ops.reshape(boxes, (batch, groups * count, 4)), place[..., None], axis=1)
    results = (
        ops.where(valid[..., None], rows, 0.0),
        ops.where(valid, best, 0.0),
        ops.where(valid, ops.cast(place // count, "int32"), 0),
        valid,
        ops.where(valid, ops.cast(place, "int32"), 0),
    )
    missing = max_total - best.shape[1]
    return tuple(ops.pad(array, [(0, 0), (0, missing)] + [(0, 0)] * (len(array.shape) - 2)) for array in results)


_BODIES = {"tensorflow": _tensorflow, "jax": _static}

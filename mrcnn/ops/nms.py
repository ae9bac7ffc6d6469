"""Greedy non-maximum suppression within groups: pyramid levels of proposals, classes of detections."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from mrcnn.ops import boxes as box_ops

# Score of an entry that must not be selected.
LOWEST = float(np.finfo(np.float32).min)


def nms_per_group(
    boxes: Any,
    scores: Any,
    *,
    max_per_group: int,
    max_total: int,
    iou_threshold: float,
    keep_empty: bool = False,
    portable: bool = False,
) -> tuple[Any, Any, Any, Any, Any]:
    """Greedy NMS within each group; returns the kept boxes best first.

    A box is dropped if its IoU with a kept box of its group is above (not at) `iou_threshold`. Groups never suppress
    each other. Among equal scores, the earlier box comes first.

    Args:
        boxes: [B, N, K, (y1, x1, y2, x2)] float32 for N groups, or [B, 1, K, 4] if all groups share their boxes.
        scores: [B, N, K] float32, any sign. Entries of `LOWEST`, -inf or NaN are never selected; padding rows have
            one of these.
        max_per_group: maximum number of boxes kept per group.
        max_total: maximum number of boxes kept per image.
        iou_threshold: 0..1.
        keep_empty: allow boxes without area, which overlap nothing (matterport).
        portable: on TensorFlow, use operations that LiteRT has, for one image and known N and K.

    Returns:
        boxes [B, max_total, (y1, x1, y2, x2)], scores [B, max_total], groups [B, max_total] int32, valid [B, max_total]
        bool, places [B, max_total] int32, indices into an image's scores [N * K]; sorted by descending score,
        zero-padded where `valid` is False.

    Raises:
        NotImplementedError: on a backend without an implementation in this file.
    """
    backend = keras.backend.backend()
    body = _one_by_one if portable and backend == "tensorflow" else _BODIES.get(backend)
    if body is None:
        raise NotImplementedError(
            f"nms_per_group is not implemented for the Keras backend {backend!r}; "
            f"add it to mrcnn/ops/nms.py or set KERAS_BACKEND to one of: {', '.join(_BODIES)}"
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

    # The op ranks a group's unused slots, at score 0, above negative scores, and orders equal scores arbitrarily.
    # Ranks are positive and distinct, so they replace the scores, which are looked up from the ranks afterwards.
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


def _one_by_one(
    boxes: Any, scores: Any, max_per_group: int, max_total: int, iou_threshold: float
) -> tuple[Any, Any, Any, Any, Any]:
    """An NMS for each group, of one image."""
    import tensorflow as tf

    groups, count = scores.shape[1:]
    most = min(max_per_group, count)
    kept = []
    for group in range(groups):
        falling, order = tf.math.top_k(scores[0, group], count)
        own = tf.gather(boxes[0, min(group, boxes.shape[1] - 1)], order)
        ranks = tf.where(falling > LOWEST, tf.range(count, 0, -1, dtype=tf.float32), 0.0)
        chosen, number = tf.raw_ops.NonMaxSuppressionV4(
            boxes=own,
            scores=ranks,
            max_output_size=most,
            iou_threshold=iou_threshold,
            score_threshold=0.5,
            pad_to_max_output_size=True,
        )
        flags = tf.cast(tf.range(most) < number, tf.float32)
        kept.append(tf.scatter_nd(tf.gather(order, chosen)[:, None], flags, [count]))
    boxes = tf.broadcast_to(boxes, [1, groups, count, 4])
    return _best_of_all(boxes, tf.where(tf.stack(kept)[None] > 0.5, scores, LOWEST), max_total)


def _ranks(scores: Any) -> tuple[Any, Any, Any]:
    """`scores` [B, A] in descending order, the index that each had, and the rank of each as float32: A for the best."""
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
    """With data-independent shapes, in keras.ops, for XLA.

    A box survives if no better surviving box overlaps it too much. Starting from all boxes, this rule is applied until
    nothing changes. Each round settles at least the best unsettled box, so the result is that of greedy NMS. A round
    also settles every box whose rivals are settled, so a thousand boxes need only a few rounds.
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
    # Undo the sorting: among equal scores of different groups, the first group comes first
    kept = ops.take_along_axis(kept, ops.argsort(order, axis=-1), axis=2)
    return _best_of_all(boxes, ops.where(kept, scores, LOWEST), max_total)


def _best_of_all(boxes: Any, scores: Any, max_total: int) -> tuple[Any, Any, Any, Any, Any]:
    """The results of `nms_per_group` from boxes [B, N, K, 4] and scores [B, N, K], `LOWEST` for those not kept."""
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

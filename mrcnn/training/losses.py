"""The five losses: functions from targets and predictions to one float32 number, without state.

Every average divides by at least one, so an image without objects gives 0, never 0/0. If several replicas share a
batch, averages divide by the total count of all replicas, so that the replicas' losses add up to the batch's loss.
"""

from typing import Any

from keras import ops

from mrcnn.distribution.replicas import total


def smooth_l1(target: Any, predicted: Any, beta: float) -> Any:
    """Element-wise smooth L1 (Girshick 2015, equation 3, becoming linear at `beta`); plain L1 for beta 0."""
    distance = ops.abs(ops.cast(target, "float32") - ops.cast(predicted, "float32"))
    if beta == 0:
        return distance
    return ops.where(distance < beta, 0.5 * distance * distance / beta, distance - 0.5 * beta)


def rpn_class_loss(labels: Any, logits: Any) -> Any:
    """Binary cross-entropy over the sampled anchors.

    Args:
        labels: [batch, anchors] int, 1 object, 0 background, -1 not sampled.
        logits: [batch, anchors] float32.
    """
    target = ops.cast(labels == 1, "float32")
    logits = ops.cast(logits, "float32")
    # max(x, 0) - x t + log(1 + exp(-|x|)): sigmoid cross-entropy without overflow or loss of precision
    loss = ops.maximum(logits, 0.0) - logits * target + ops.log1p(ops.exp(-ops.abs(logits)))
    return _mean(loss, ops.cast(labels >= 0, "float32"))


def rpn_bbox_loss(labels: Any, target: Any, predicted: Any, *, beta: float, average: str) -> Any:
    """Smooth L1 on positive anchors.

    Args:
        labels: [batch, anchors] int, 1 object, 0 background, -1 not sampled.
        target, predicted: [batch, anchors, (dy, dx, log dh, log dw)].
        beta, average: as in `box_loss`.
    """
    return box_loss(labels == 1, labels >= 0, target, predicted, beta=beta, average=average)


def box_loss(positive: Any, sampled: Any, target: Any, predicted: Any, *, beta: float, average: str) -> Any:
    """Smooth L1 on positive boxes.

    Args:
        positive, sampled: [batch, boxes] bool.
        target, predicted: [batch, boxes, (dy, dx, log dh, log dw)].
        average: "sampled" sums and divides by the number of sampled boxes (torchvision, Detectron2);
            "positives" is the mean over the coordinates of positive boxes (matterport).
    """
    weight = ops.cast(positive, "float32")
    # where instead of a product: predictions on padding rows can be infinite, and 0 * inf is NaN
    loss = ops.where(ops.expand_dims(positive, -1), smooth_l1(target, predicted, beta), 0.0)
    count = ops.sum(ops.cast(sampled, "float32")) if average == "sampled" else 4.0 * ops.sum(weight)
    return ops.sum(loss) / ops.maximum(total(count), 1.0)


def mrcnn_class_loss(class_ids: Any, logits: Any, sampled: Any, active_classes: Any) -> Any:
    """Cross-entropy of the RoIs' classes; the softmax excludes classes that the image's source does not annotate.

    Args:
        class_ids: [batch, rois] int, 0 background.
        logits: [batch, rois, classes].
        sampled: [batch, rois] bool; False for padding rows, which do not count.
        active_classes: [batch, classes], 1 for a class that the image's source annotates.
    """
    logits = ops.cast(logits, "float32")
    logits = ops.where(ops.expand_dims(active_classes > 0, 1), logits, -1e9)
    log_probability = ops.log_softmax(logits, axis=-1)
    one_hot = ops.one_hot(class_ids, logits.shape[-1], dtype="float32")
    loss = -ops.sum(ops.where(one_hot > 0, log_probability, 0.0), axis=-1)
    return _mean(loss, ops.cast(sampled, "float32"))


def mrcnn_mask_loss(target: Any, probability: Any, weight: Any) -> Any:
    """Binary cross-entropy of the positive RoIs' masks (He et al. 2017, section 3).

    Args:
        target: [rois, height, width] 0 or 1.
        probability: [rois, height, width] of the RoI's own class, after the sigmoid.
        weight: [rois], 1 for a real RoI, 0 for a padding row.
    """
    target = ops.cast(target, "float32")
    probability = ops.clip(ops.cast(probability, "float32"), 1e-7, 1.0 - 1e-7)
    loss = -(target * ops.log(probability) + (1.0 - target) * ops.log(1.0 - probability))
    return _mean(ops.mean(loss, axis=(1, 2)), ops.cast(weight, "float32"))


def _mean(values: Any, weight: Any) -> Any:
    return ops.sum(ops.where(weight > 0, values * weight, 0.0)) / ops.maximum(total(ops.sum(weight)), 1.0)

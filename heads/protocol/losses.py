"""Losses of heads: a number per RoI, in float32; `Targets.total` makes a head's loss of them."""

from typing import Any

from keras import ops

LEAST = 1e-7  # probabilities are kept this far from 0 and 1


def cross_entropy(target: Any, probability: Any) -> Any:
    """Mean binary cross-entropy of each RoI.

    Args:
        target: [R, ...] in 0..1. probability: the same shape, after the sigmoid.
    """
    probability = ops.clip(ops.cast(probability, "float32"), LEAST, 1.0 - LEAST)
    target = ops.cast(target, "float32")
    return _mean(-(target * ops.log(probability) + (1.0 - target) * ops.log(1.0 - probability)))


def cross_entropy_of_logits(target: Any, logits: Any) -> Any:
    """Mean binary cross-entropy of each RoI.

    Args:
        target: [R, ...] in 0..1. logits: the same shape, before the sigmoid.
    """
    logits, target = ops.cast(logits, "float32"), ops.cast(target, "float32")
    # max(x, 0) - x t + log(1 + exp(-|x|)) neither overflows nor loses digits
    return _mean(ops.maximum(logits, 0.0) - logits * target + ops.log1p(ops.exp(-ops.abs(logits))))


def softmax_cross_entropy(target: Any, probability: Any, class_ids: Any) -> Any:
    """Mean cross-entropy of each RoI over classes, of which the background is the first.

    Args:
        target: [R, m, m] 0 or 1. probability: [R, m, m, classes], after the softmax. class_ids: [R], of the object.
    """
    probability = ops.clip(ops.cast(probability, "float32"), LEAST, 1.0)
    own = ops.one_hot(class_ids, probability.shape[-1], dtype="float32")[:, None, None, :]
    of_object, of_background = ops.sum(probability * own, axis=-1), probability[..., 0]
    return _mean(-ops.log(ops.where(target > 0.5, of_object, of_background)))


def dice(target: Any, probability: Any) -> Any:
    """The Dice loss of each RoI, one minus the overlap (Milletari et al. 2016, with squares in the denominator).

    Args:
        target: [R, ...] in 0..1. probability: the same shape, after the sigmoid.
    """
    target, probability = (ops.reshape(ops.cast(x, "float32"), (-1, _size(x))) for x in (target, probability))
    both = ops.sum(target * probability, axis=-1)
    sizes = ops.sum(ops.square(target), axis=-1) + ops.sum(ops.square(probability), axis=-1)
    return 1.0 - (2.0 * both + 1.0) / (sizes + 1.0)


def _mean(values: Any) -> Any:
    """[R, ...] -> [R]."""
    return ops.mean(ops.reshape(values, (-1, _size(values))), axis=-1)


def _size(values: Any) -> int:
    """Numbers per RoI."""
    size = 1
    for side in values.shape[1:]:
        size *= side
    return size

"""Seeded, stateless sampling of positives and negatives: a pure function of the batch's seeds.

No random state is kept between steps, so samples do not depend on resuming, the number of loader threads or the
backend.
"""

from typing import Any

from keras import ops

_WEYL = 2654435761  # 2**32 / golden ratio: spreads consecutive seeds over the 32 bits


def uniform(seed: Any, count: Any, salt: int = 0) -> Any:
    """Uniform numbers in [0, 1) for each seed.

    Args:
        seed: [batch] int32.
        count: numbers per seed.
        salt: a different salt gives an unrelated draw from the same seeds.

    Returns:
        [batch, count] float32.

    Source: the two-round integer hash `lowbias32` of hash-prospector (Wellons 2018), over a Weyl sequence.
    """
    return uniform_of(seed, ops.cast(ops.arange(count), "uint32"), salt)


def uniform_of(seed: Any, keys: Any, salt: int = 0) -> Any:
    """Like `uniform`, [batch, keys] float32: one number per seed and key, for `keys` [keys] uint32."""
    start = (ops.cast(seed, "uint32") + ops.cast(salt * 7919, "uint32")) * ops.cast(_WEYL, "uint32")
    bits = ops.expand_dims(_mix(start), -1) + keys
    return ops.cast(ops.right_shift(_mix(bits), ops.cast(8, "uint32")), "float32") / 2**24


def box_keys(boxes: Any) -> Any:
    """A key for each box [boxes, 4], from its corners rounded to a quarter of a pixel: [boxes] uint32.

    A draw with these keys does not depend on which other boxes exist, such as anchors in the padding.
    """
    corners = ops.cast(ops.cast(ops.round(boxes * 4), "int32"), "uint32")
    keys = ops.zeros_like(corners[:, 0])
    for corner in ops.unstack(corners, 4, axis=-1):
        keys = _mix(keys * ops.cast(_WEYL, "uint32") + corner)
    return keys


def _mix(bits: Any) -> Any:
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        bits = ops.bitwise_xor(bits, ops.right_shift(bits, ops.cast(shift, "uint32")))
        bits = bits * ops.cast(factor, "uint32")
    return ops.bitwise_xor(bits, ops.right_shift(bits, ops.cast(16, "uint32")))


def sample_balanced(
    positive: Any, negative: Any, priority: Any, *, count: int, positive_limit: int
) -> tuple[Any, Any, Any]:
    """Draws `count` candidates per image: at most `positive_limit` positives, and negatives for the rest.

    Args:
        positive, negative: [batch, candidates] bool, no candidate in both.
        priority: [batch, candidates] float32 in [0, 1); the highest are taken.

    Returns:
        indices: [batch, count] int32 into the candidates, positives first; 0 where not drawn.
        is_positive: [batch, count] bool.
        is_drawn: [batch, count] bool; False where an image has too few candidates.
    """
    few = ops.full_like(priority[:, :1], -1.0)
    padding = ops.repeat(few, max(count, positive_limit), axis=1)  # so that top_k never asks for more than there are
    drawn_positive = ops.where(positive, priority, -1.0)
    cut = ops.top_k(ops.concatenate([drawn_positive, padding], 1), max(positive_limit, 1))[0][:, -1:]
    positive = ops.logical_and(positive, priority >= cut) if positive_limit else ops.zeros_like(positive)
    rank = ops.where(positive, 1.0 + priority, ops.where(negative, priority, -1.0))
    values, indices = ops.top_k(ops.concatenate([rank, padding], 1), count)
    is_drawn = values >= 0.0
    return ops.where(is_drawn, ops.cast(indices, "int32"), 0), values >= 1.0, is_drawn

"""The RPN at sampled anchors, beside the RPN at all of them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from mrcnn.fusion.sampled_rpn import SampledRPN
from mrcnn.network.precision import precision
from mrcnn.network.rpn import build_rpn

RNG = np.random.default_rng(0)
SIDES = [(6, 8), (3, 4), (1, 2)]
ANCHORS, CELLS = 3, [48, 12, 2]
NAMES = ("rpn_conv_shared", "rpn_class_raw", "rpn_bbox_pred")


def maps(batch=2, channels=5):
    return [tf.constant(RNG.normal(size=(batch, *side, channels)).astype(np.float32)) for side in SIDES]


def network(channels=5, policy="float32"):
    with precision(policy):
        rpn = build_rpn(channels, 7, ANCHORS)
    for weight in rpn.weights:
        weight.assign(RNG.normal(size=weight.shape))
    return rpn, SampledRPN(*(rpn.get_layer(name) for name in NAMES))


def densely(rpn, levels, indices):
    logits, deltas = (ops.concatenate(parts, axis=1) for parts in zip(*map(rpn, levels), strict=True))
    return ops.take_along_axis(logits, indices, axis=1), ops.take_along_axis(deltas, indices[..., None], axis=1)


def every_anchor():
    """All anchors of all levels, borders and corners included, in another order for each image."""
    count = ANCHORS * sum(CELLS)
    return tf.constant(np.stack([RNG.permutation(count) for _ in range(2)]).astype(np.int32))


def test_equal_to_the_rpn_s_predictions_for_every_anchor():
    (rpn, sampled), levels, indices = network(), maps(), every_anchor()
    for found, expected in zip(sampled(levels, indices)[:2], densely(rpn, levels, indices), strict=True):
        assert (found.shape, found.dtype) == (expected.shape, tf.float32)
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_gradients_of_maps_and_weights_are_the_rpn_s():
    (rpn, sampled), levels, indices = network(), maps(), every_anchor()[:, :40]
    indices = tf.concat([indices, indices[:, :5]], axis=1)  # padding rows repeat anchors
    shapes = [(2, 45), (2, 45, 4), *(level.shape for level in levels[:2])]  # the heads use no more than two levels
    upstream = [RNG.normal(size=shape).astype(np.float32) for shape in shapes]

    def gradients(function):
        with tf.GradientTape() as tape:
            tape.watch(levels)
            logits, deltas, heads = function()
            total = sum(ops.sum(part * own) for part, own in zip((logits, deltas, *heads[:2]), upstream, strict=True))
        return tape.gradient(total, [*levels, *(weight.value for weight in rpn.trainable_weights)])

    pairs = zip(
        gradients(lambda: sampled(levels, indices)),
        gradients(lambda: (*densely(rpn, levels, indices), levels)),
        strict=True,
    )
    for found, expected in pairs:
        np.testing.assert_allclose(tf.convert_to_tensor(found), expected, atol=1e-4)


def test_a_cell_in_a_corner_by_hand():
    """A kernel of ones adds the cells of the map that it covers; the rest is zero."""
    rpn, sampled = network(channels=1)
    convolution, logits, deltas = (rpn.get_layer(name) for name in NAMES)
    for layer in (convolution, logits, deltas):
        layer.kernel.assign(ops.ones_like(layer.kernel))
        layer.bias.assign(ops.zeros_like(layer.bias))
    level = tf.reshape(tf.range(6.0), [1, 2, 3, 1])  # rows 0 1 2 and 3 4 5
    found, *_ = sampled([level], tf.constant([[0, 3 * ANCHORS + 2]]))
    np.testing.assert_allclose(found, [[7.0 * (0 + 1 + 3 + 4), 7.0 * (0 + 1 + 3 + 4)]])
    found, *_ = sampled([level, 10 + level], tf.constant([[(6 + 2) * ANCHORS]]))  # the right upper cell of the second
    np.testing.assert_allclose(found, [[7.0 * (11 + 12 + 14 + 15)]])


@pytest.mark.filterwarnings("ignore:bfloat16 is slower")
def test_mixed_precision_computes_as_the_rpn_does():
    rpn, sampled = network(policy="bfloat16")
    levels, indices = [tf.cast(level, "bfloat16") for level in maps()], every_anchor()
    for found, expected in zip(sampled(levels, indices)[:2], densely(rpn, levels, indices), strict=True):
        assert found.dtype == tf.float32
        np.testing.assert_allclose(found, expected, atol=0.6)  # logits of a size of 30, with three digits


def test_it_is_rebuilt_from_its_settings():
    rpn, sampled = network()
    again = SampledRPN.from_config(sampled.get_config())
    again(maps(), every_anchor())
    assert [weight.shape for weight in again.weights] == [weight.shape for weight in sampled.weights]
    assert {id(weight) for weight in sampled.weights} == {id(weight) for weight in rpn.weights}


def test_unknown_sizes_and_batches():
    rpn, sampled = network()
    inputs = [keras.Input((None, None, 5)) for _ in SIDES]
    indices = keras.Input((4,), dtype="int32")
    logits, deltas, same = sampled(inputs, indices)
    assert (logits.shape, deltas.shape) == ((None, 4), (None, 4, 4))
    assert [level.shape for level in same] == [level.shape for level in inputs]
    model, levels, chosen = keras.Model([*inputs, indices], [logits, deltas]), maps(), every_anchor()[:, :4]
    for found, expected in zip(model([*levels, chosen]), densely(rpn, levels, chosen), strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-5)

"""Convolutions with scaled filters: values and gradients beside those that TensorFlow derives itself."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn.fusion.convolution import Kind, convolve

RNG = np.random.default_rng(0)
KINDS = {
    "pointwise": Kind((1, 1, 3, 4), "float32"),
    "pointwise, strides": Kind((1, 1, 3, 4), "float32", strides=(2, 2)),
    "same, strides": Kind((3, 3, 3, 4), "float32", strides=(2, 2)),
    "strides": Kind((3, 3, 3, 4), "float32", strides=(2, 2), padding="VALID"),
    "dilations": Kind((3, 3, 3, 4), "float32", dilations=(2, 2)),
    "border": Kind((3, 3, 3, 4), "float32", strides=(2, 2), padding="VALID", border=((1, 1), (1, 1))),
    "uneven border": Kind((3, 3, 3, 4), "float32", strides=(2, 2), padding="VALID", border=((0, 1), (2, 0))),
}


def normal(*shape):
    return tf.constant(RNG.normal(size=shape), tf.float32)


def plainly(inputs, kernel, scale, bias, kind):
    inputs = tf.pad(inputs, [(0, 0), *kind.border, (0, 0)])
    return tf.nn.conv2d(inputs, kernel * scale, kind.strides, kind.padding, dilations=kind.dilations) + bias


@tf.function
def value_and_gradients(function, given, upstream, kind):
    with tf.GradientTape() as tape:
        tape.watch(given)
        outputs = function(*given, kind)
        total = tf.reduce_sum(outputs * upstream[:, : tf.shape(outputs)[1], : tf.shape(outputs)[2]])
    return outputs, *tape.gradient(total, given)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(1, 21, 26), (2, 20, 28), (1, 9, 10)])
@pytest.mark.parametrize("name", KINDS)
def test_values_and_gradients(name, size):
    given = [normal(*size, 3), normal(*KINDS[name].kernel), normal(4), normal(4)]
    upstream = normal(*size, 4)
    found = value_and_gradients(convolve, given, upstream, KINDS[name])
    for ours, expected in zip(found, value_and_gradients(plainly, given, upstream, KINDS[name]), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=2e-4)


def test_by_hand():
    """Ones, a kernel of ones over 3 channels, scaled by 2, bias 1: 2 * 3 + 1."""
    kind = KINDS["pointwise"]
    outputs = convolve(tf.ones((1, 4, 4, 3)), tf.ones(kind.kernel), tf.fill([4], 2.0), tf.ones(4), kind)
    np.testing.assert_allclose(outputs, np.full((1, 4, 4, 4), 7.0), rtol=1e-5)


def test_in_bfloat16_weights_are_scaled_in_float32():
    """257 and 1 / 257: rounded to bfloat16 before they are multiplied, they make 0.996."""
    kind = Kind((1, 1, 1, 1), tf.bfloat16)
    given = [tf.ones((1, 2, 2, 1), tf.bfloat16), tf.fill(kind.kernel, 257.0), tf.fill([1], 1 / 257), tf.zeros(1)]
    outputs, by_inputs, *by_weights = value_and_gradients(convolve, given, tf.ones((1, 2, 2, 1), tf.bfloat16), kind)
    for found in (outputs, by_inputs):
        assert found.dtype == tf.bfloat16
        np.testing.assert_array_equal(tf.cast(found, tf.float32), np.ones((1, 2, 2, 1)))
    assert all(found.dtype == tf.float32 for found in by_weights)
    for found, expected in zip(by_weights, (4 / 257, 4 * 257, 4), strict=True):
        np.testing.assert_allclose(np.ravel(found), [expected], rtol=1e-6)


def test_weights_of_another_type_are_taken_and_given_back():
    kind = Kind((1, 1, 3, 4), tf.bfloat16)
    given = [tf.cast(values, tf.bfloat16) for values in (normal(1, 4, 4, 3), normal(1, 1, 3, 4), normal(4), normal(4))]
    found = value_and_gradients(convolve, given, tf.ones((1, 4, 4, 4), tf.bfloat16), kind)
    assert {values.dtype for values in found} == {tf.bfloat16}

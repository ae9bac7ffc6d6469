"""Convolutions with scaled filters: values and gradients beside those that TensorFlow derives itself."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn.fusion import convolution
from mrcnn.fusion.convolution import Kind, convolve

RNG = np.random.default_rng(0)
KINDS = {
    "pointwise": Kind((1, 1, 3, 4), "float32"),
    "pointwise, strides": Kind((1, 1, 3, 4), "float32", strides=(2, 2)),
    "relu": Kind((3, 3, 3, 4), "float32", relu=True),
    "same, strides": Kind((3, 3, 3, 4), "float32", strides=(2, 2)),
    "strides": Kind((3, 3, 3, 4), "float32", strides=(2, 2), padding="VALID"),
    "dilations": Kind((3, 3, 3, 4), "float32", dilations=(2, 2)),
    "winograd": Kind((3, 3, 3, 4), "float32", winograd=True),
    "winograd, relu": Kind((3, 3, 3, 4), "float32", relu=True, winograd=True),
}


def forget_traces():
    convolution._forward.cache_clear()
    convolution._backward.cache_clear()


def normal(*shape):
    return tf.constant(RNG.normal(size=shape), tf.float32)


def plainly(inputs, kernel, scale, bias, kind):
    outputs = tf.nn.conv2d(inputs, kernel * scale, kind.strides, kind.padding, dilations=kind.dilations) + bias
    return tf.nn.relu(outputs) if kind.relu else outputs


@tf.function
def value_and_gradients(function, given, upstream, kind):
    with tf.GradientTape() as tape:
        tape.watch(given)
        outputs = function(*given, kind)
        total = tf.reduce_sum(outputs * upstream[:, : tf.shape(outputs)[1], : tf.shape(outputs)[2]])
    return outputs, *tape.gradient(total, given)


# 21 x 26 is 42 tiles, 20 x 28 is 35, 9 x 10 too few for Winograd's
@pytest.mark.parametrize("size", [(1, 21, 26), (2, 20, 28), (1, 9, 10)])
@pytest.mark.parametrize("name", KINDS)
def test_values_and_gradients(name, size):
    given = [normal(*size, 3), normal(*KINDS[name].kernel), normal(4), normal(4)]
    upstream = normal(*size, 4)
    found = value_and_gradients(convolve, given, upstream, KINDS[name])
    for ours, expected in zip(found, value_and_gradients(plainly, given, upstream, KINDS[name]), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("name", ["pointwise", "winograd"])
def test_by_hand(name):
    """Ones, a kernel of ones over 3 channels, scaled by 2, bias 1: 2 * 3 * the cells that it sees + 1."""
    cells = {"pointwise": (1, 1, 1), "winograd": (4, 6, 9)}[name]
    kind = KINDS[name]
    outputs = convolve(tf.ones((1, 24, 24, 3)), tf.ones(kind.kernel), tf.fill([4], 2.0), tf.ones(4), kind).numpy()
    for (y, x), seen in zip(((0, 0), (0, 5), (5, 5)), cells, strict=True):
        np.testing.assert_allclose(outputs[0, y, x], np.full(4, 6.0 * seen + 1), rtol=1e-5)


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


def test_sizes_known_before_stay_known():
    """A head is built on features whose sides it knows."""
    shapes = []

    @tf.function(input_signature=[tf.TensorSpec([None, 14, 14, 3])])
    def trace(x):
        outputs = convolve(x, normal(3, 3, 3, 4), tf.ones(4), tf.ones(4), KINDS["winograd"])
        shapes.append(outputs.shape.as_list())
        return outputs

    assert trace(normal(2, 14, 14, 3)).shape == (2, 14, 14, 4)
    assert shapes == [[None, 14, 14, 4]]


def test_large_images_go_by_winograd_both_ways_and_small_ones_do_not(monkeypatch):
    def marked(images, kernel, bias, relu=False):
        return tf.fill(tf.concat([tf.shape(images)[:3], bias.shape], 0), 7.0)

    monkeypatch.setattr(convolution, "by_winograd", marked)
    forget_traces()
    traced_anew = tf.function(value_and_gradients.python_function)
    try:
        for size, by_winograd in (((1, 21, 26), True), ((1, 9, 10), False)):
            given = [normal(*size, 3), normal(3, 3, 3, 4), normal(4), normal(4)]
            outputs, by_inputs, *_ = traced_anew(convolve, given, normal(*size, 4), KINDS["winograd"])
            assert [bool(np.all(found == 7.0)) for found in (outputs, by_inputs)] == [by_winograd] * 2
    finally:
        forget_traces()


def test_an_eager_tape_sees_the_gradient_and_not_the_way_there():
    kind = KINDS["winograd"]
    given = [normal(1, 21, 26, 3), normal(*kind.kernel), normal(4), normal(4)]
    found = []
    for function in (convolve, plainly):
        with tf.GradientTape() as tape:
            tape.watch(given)
            total = tf.reduce_sum(tf.square(function(*given, kind)))
        found.append(tape.gradient(total, given))
    for ours, expected in zip(*found, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-3)


def test_weights_of_another_type_are_taken_and_given_back():
    kind = Kind((1, 1, 3, 4), tf.bfloat16)
    given = [tf.cast(values, tf.bfloat16) for values in (normal(1, 4, 4, 3), normal(1, 1, 3, 4), normal(4), normal(4))]
    found = value_and_gradients(convolve, given, tf.ones((1, 4, 4, 4), tf.bfloat16), kind)
    assert {values.dtype for values in found} == {tf.bfloat16}

"""Winograd's convolutions, beside the same summed up directly."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from mrcnn.fusion import winograd
from mrcnn.fusion.winograd import by_winograd, convolve, gains, is_large, kernel_gradient, transforms
from mrcnn.network.precision import precision

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def directly(images, kernel, bias):
    """The sums themselves, in float64."""
    padded = np.pad(np.float64(images), ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = images.shape[1:3]
    return bias + sum(
        padded[:, y : y + height, x : x + width] @ np.float64(kernel[y, x]) for y in range(3) for x in range(3)
    )


def test_one_tile_by_hand():
    """Of a tile of ones the kernel's sum; of a single one in a corner the kernel turned around."""
    kernel = np.arange(1.0, 10.0)
    ones, corner = np.ones(36), np.eye(36)[0]
    of_inputs, of_kernel, of_outputs = transforms()
    assert (of_inputs.shape, of_kernel.shape, of_outputs.shape) == ((36, 36), (36, 9), (16, 36))
    np.testing.assert_allclose(of_outputs @ ((of_kernel @ kernel) * (of_inputs @ ones)), np.full(16, 45.0), rtol=1e-5)
    expected = np.zeros((4, 4))
    expected[0, 0] = 1
    np.testing.assert_allclose(of_outputs @ ((of_kernel @ kernel) * (of_inputs @ corner)), expected.ravel(), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(
    "batch, height, width", [(1, 1, 1), (1, 4, 4), (1, 5, 3), (1, 8, 40), (1, 41, 7), (2, 9, 9), (7, 6, 5), (3, 17, 18)]
)
@pytest.mark.parametrize("tiles", [1, 6, 300])
def test_equal_to_the_sums_for_every_size_in_parts_and_at_once(batch, height, width, tiles, relu, monkeypatch):
    monkeypatch.setattr(winograd, "TILES", tiles)
    images, kernel, bias = normal(batch, height, width, 3), normal(3, 3, 3, 2), normal(2)
    function = tf.function(
        lambda x: by_winograd(x, kernel, bias, relu=relu),
        autograph=False,
        input_signature=[tf.TensorSpec([None, None, None, 3])],
    )
    expected = directly(images, kernel, bias)
    found = function(images)
    np.testing.assert_allclose(found, np.maximum(expected, 0) if relu else expected, atol=5e-5)
    assert not relu or (np.asarray(found) >= 0).all()


@given(st.integers(1, 4), st.integers(1, 30), st.integers(1, 30), st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_any_size_in_parts_of_any_number_of_tiles(batch, height, width, tiles):
    images, kernel, bias = normal(batch, height, width, 2), normal(3, 3, 2, 1), normal(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "TILES", tiles)
        np.testing.assert_allclose(by_winograd(images, kernel, bias), directly(images, kernel, bias), atol=5e-5)


@given(st.integers(1, 4), st.integers(1, 30), st.integers(1, 30), st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_kernel_gradient_of_any_size_in_parts_of_any_number_of_tiles(batch, height, width, tiles):
    images, upstream = normal(batch, height, width, 3), normal(batch, height, width, 2)
    padded = np.pad(np.float64(images), ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = [
        [np.einsum("bhwc,bhwf->cf", padded[:, y : y + height, x : x + width], upstream) for x in range(3)]
        for y in range(3)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "TILES", tiles)
        np.testing.assert_allclose(kernel_gradient(images, upstream), expected, rtol=1e-4, atol=1e-3)


def test_kernel_gradient_of_one_cell_by_hand():
    """Each weight sees its neighbor of the only cell with a gradient."""
    images, upstream = np.arange(25, dtype=np.float32).reshape(1, 5, 5, 1), np.zeros((1, 5, 5, 1), np.float32)
    upstream[0, 3, 1, 0] = 2.0
    found = np.asarray(kernel_gradient(images, upstream))[:, :, 0, 0]
    np.testing.assert_allclose(found, 2.0 * images[0, 2:5, 0:3, 0], rtol=1e-4, atol=1e-3)


def test_sums_of_many_channels_are_as_near_as_the_docs_say():
    images, kernel = np.maximum(normal(1, 16, 16, 256), 0), 0.03 * normal(3, 3, 256, 8)
    expected = directly(images, kernel, np.zeros(8))
    error = np.asarray(by_winograd(images, kernel, np.zeros(8, np.float32))) - expected
    assert np.sqrt(np.mean(error**2)) < 2e-6 * expected.std()


def forget_traces():
    winograd._forward.cache_clear()
    winograd._backward.cache_clear()
    winograd._kernel_backward.cache_clear()
    winograd._gradient.cache_clear()


def plainly(inputs, kernel, scale, bias, relu=False):
    outputs = tf.nn.conv2d(inputs, kernel * scale, 1, "SAME") + bias
    return tf.nn.relu(outputs) if relu else outputs


@tf.function
def value_and_gradients(function, given, upstream, relu):
    with tf.GradientTape() as tape:
        tape.watch(given)
        outputs = function(*given, relu=relu)
        total = tf.reduce_sum(outputs * upstream)
    return outputs, *tape.gradient(total, given)


def inputs_and_weights(*size):
    return [tf.constant(values) for values in (normal(*size, 3), normal(3, 3, 3, 4), normal(4), normal(4))]


# 21 x 26 is 42 tiles, 20 x 28 is 35, 9 x 10 too few for Winograd's
@pytest.mark.slow
@pytest.mark.parametrize("size", [(1, 21, 26), (2, 20, 28), (1, 9, 10)])
@pytest.mark.parametrize("relu", [False, True])
def test_values_and_gradients(relu, size):
    given, upstream = inputs_and_weights(*size), tf.constant(normal(*size, 4))
    found = value_and_gradients(convolve, given, upstream, relu)
    for ours, expected in zip(found, value_and_gradients(plainly, given, upstream, relu), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=2e-4)


def test_by_hand():
    """Ones, a kernel of ones over 3 channels, scaled by 2, bias 1: 2 * 3 * the cells that it sees + 1."""
    outputs = convolve(tf.ones((1, 24, 24, 3)), tf.ones((3, 3, 3, 4)), tf.fill([4], 2.0), tf.ones(4)).numpy()
    for (y, x), seen in zip(((0, 0), (0, 5), (5, 5)), (4, 6, 9), strict=True):
        np.testing.assert_allclose(outputs[0, y, x], np.full(4, 6.0 * seen + 1), rtol=1e-5)


def test_sizes_known_before_stay_known():
    """A head is built on features whose sides it knows."""
    shapes = []

    @tf.function(input_signature=[tf.TensorSpec([None, 14, 14, 3])])
    def trace(x):
        outputs = convolve(x, tf.constant(normal(3, 3, 3, 4)), tf.ones(4), tf.ones(4))
        shapes.append(outputs.shape.as_list())
        return outputs

    assert trace(normal(2, 14, 14, 3)).shape == (2, 14, 14, 4)
    assert shapes == [[None, 14, 14, 4]]


def test_large_images_go_by_winograd_both_ways_and_small_ones_do_not(monkeypatch):
    def marked(images, kernel, bias, relu=False):
        return tf.fill(tf.concat([tf.shape(images)[:3], bias.shape], 0), 7.0)

    monkeypatch.setattr(winograd, "by_winograd", marked)
    monkeypatch.setattr(winograd, "kernel_gradient", lambda *_: tf.fill([3, 3, 3, 4], 7.0))
    forget_traces()
    traced_anew = tf.function(value_and_gradients.python_function)
    try:
        for size, is_by_winograd in (((1, 21, 26), True), ((1, 9, 10), False)):
            given = inputs_and_weights(*size)
            given[2] = tf.ones(4)  # the kernel's gradient is not scaled
            found = traced_anew(convolve, given, normal(*size, 4), False)[:3]
            assert [bool(np.all(tensor == 7.0)) for tensor in found] == [is_by_winograd] * 3
    finally:
        forget_traces()


def test_an_eager_tape_sees_the_gradient_and_not_the_way_there():
    given, found = inputs_and_weights(1, 21, 26), []
    for function in (convolve, plainly):
        with tf.GradientTape() as tape:
            tape.watch(given)
            total = tf.reduce_sum(tf.square(function(*given)))
        found.append(tape.gradient(total, given))
    for ours, expected in zip(*found, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-3)


def test_which_images_are_large():
    assert [
        bool(is_large(tf.zeros(shape)))
        for shape in ((1, 16, 28, 1), (1, 16, 29, 1), (32, 4, 4, 1), (31, 4, 4, 1), (0, 64, 64, 1))
    ] == [False, True, True, False, False]


def convolution(filters=256, channels=256, **options):
    layer = layers.Conv2D(filters, **{"kernel_size": 3, "padding": "same", **options})
    layer.build((None, None, None, channels))
    return layer


def test_which_convolutions_gain(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [])
    for options in ({}, {"filters": 512}, {"activation": "relu"}, {"use_bias": False}):
        assert gains(convolution(**options)), options
    with precision("bfloat16"):
        assert not gains(convolution()), "its products are faster than all else around them"
    for options in (
        {"channels": 128},
        {"filters": 128},
        {"strides": 2},
        {"kernel_size": 1},
        {"padding": "valid"},
        {"dilation_rate": 2},
        {"groups": 2},
        {"activation": "softmax"},
        {"activity_regularizer": "l2"},
    ):
        assert not gains(convolution(**options)), options
    depthwise = layers.DepthwiseConv2D(3, padding="same")
    depthwise.build((None, None, None, 256))
    assert not gains(depthwise)
    layer = convolution()
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    assert not gains(layer)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert not gains(layer)

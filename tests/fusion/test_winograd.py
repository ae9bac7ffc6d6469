"""Winograd's convolutions, beside the same summed up directly."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from mrcnn.fusion import winograd
from mrcnn.fusion.winograd import by_winograd, gains_by_winograd, is_large, transforms
from mrcnn.network.graph import precision

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


def test_sums_of_many_channels_are_as_near_as_the_docs_say():
    images, kernel = np.maximum(normal(1, 16, 16, 256), 0), 0.03 * normal(3, 3, 256, 8)
    expected = directly(images, kernel, np.zeros(8))
    error = np.asarray(by_winograd(images, kernel, np.zeros(8, np.float32))) - expected
    assert np.sqrt(np.mean(error**2)) < 2e-6 * expected.std()


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
        assert gains_by_winograd(convolution(**options)), options
    with precision("bfloat16"):
        assert not gains_by_winograd(convolution()), "its products are faster than all else around them"
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
        assert not gains_by_winograd(convolution(**options)), options
    depthwise = layers.DepthwiseConv2D(3, padding="same")
    depthwise.build((None, None, None, 256))
    assert not gains_by_winograd(depthwise)
    layer = convolution()
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    assert not gains_by_winograd(layer)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert not gains_by_winograd(layer)

"""Max-pooling with a border, beside Keras's two layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from mrcnn.fusion.padded_pooling import PaddedMaxPooling

RNG = np.random.default_rng(0)


def normal(*shape):
    return tf.constant(RNG.normal(size=shape), tf.float32)


@pytest.mark.parametrize("border", [((1, 1), (1, 1)), ((0, 2), (1, 0)), ((0, 0), (0, 0))])
@pytest.mark.parametrize("in_graph", [False, True])
def test_values_and_gradients_are_those_of_the_two_layers(border, in_graph):
    padding, pooling = layers.ZeroPadding2D(border), layers.MaxPooling2D(3, strides=2)
    one = PaddedMaxPooling((3, 3), (2, 2), border)
    image = normal(2, 9, 12, 3)
    upstream = normal(*pooling(padding(image)).shape)

    def value_and_gradient(function, given):
        with tf.GradientTape() as tape:
            tape.watch(given)
            outputs = function(given)
        return outputs, tape.gradient(outputs, given, upstream)

    way = tf.function(value_and_gradient) if in_graph else value_and_gradient
    for found, expected in zip(way(one, image), way(lambda x: pooling(padding(x)), image), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_by_hand():
    """Rows 1 2 and 3 4, negated: the border of zeros is the maximum, but for the window inside."""
    image = -tf.constant([[1.0, 2.0], [3.0, 4.0]])[None, :, :, None]
    found = PaddedMaxPooling((2, 2), (1, 1), ((1, 0), (0, 0)))(image)
    np.testing.assert_array_equal(found[0, :, :, 0], [[0.0], [-1.0]])


def test_sizes_and_settings():
    layer = PaddedMaxPooling((3, 3), (2, 2), ((1, 1), (1, 1)))
    assert layer(keras.Input((None, None, 4))).shape == (None, None, None, 4)
    assert layer(keras.Input((8, 9, 4))).shape == (None, 4, 5, 4)
    again = PaddedMaxPooling.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()

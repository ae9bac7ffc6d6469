"""Convolutions in halves, beside the same at once."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from mrcnn.folding import FoldedConvolution, fold
from mrcnn.graph import precision
from mrcnn.halves import HalvedConvolution, gains_by_halves, in_halves

RNG = np.random.default_rng(0)


def convolution(filters=256, channels=256, **options):
    with tf.init_scope():
        layer = layers.Conv2D(filters, **{"kernel_size": 3, "padding": "same", **options})
        layer.build((None, None, None, channels))
        layer.set_weights([RNG.normal(size=w.shape) for w in layer.weights])
    return layer


def test_each_half_goes_through_alone_and_the_seam_once_more():
    given = []

    def sums(x):
        """Each row and its neighbours above and below."""
        given.append(x[:, :, 0, 0].numpy().tolist())
        padded = tf.pad(x, [[0, 0], [1, 1], [0, 0], [0, 0]])
        return padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]

    found = in_halves(sums, tf.reshape(tf.constant([1.0, 2, 4, 8, 16, 32]), (1, 6, 1, 1)))
    assert given == [[[1, 2, 4], [8, 16, 32]], [[2, 4, 8, 16]]]
    assert found.numpy().ravel().tolist() == [3, 7, 14, 28, 56, 48]


@pytest.mark.parametrize("batch, height", [(1, 8), (1, 4), (1, 2), (1, 7), (1, 1), (2, 8), (3, 5)])
def test_equal_to_the_convolution_at_once_for_every_size(batch, height):
    image = tf.keras.Input((None, None, 3))
    layer = convolution(4, 3, activation="relu")
    model = keras.Model(image, HalvedConvolution(layer)(image))
    function = tf.function(model, input_signature=[tf.TensorSpec([None, None, None, 3])], autograph=False)
    x = RNG.normal(size=(batch, height, 5, 3)).astype(np.float32)
    found, expected = function(x), layer(x)
    assert found.shape == (batch, height, 5, 4)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found == 0, expected == 0)


@pytest.mark.parametrize("batch, height, options", [
    (1, 6, {"activation": "relu"}), (1, 7, {}), (2, 6, {"activation": "relu"}), (1, 6, {"use_bias": False})])
def test_gradients_are_those_of_the_convolution(batch, height, options):
    layer = convolution(4, 3, **options)
    x, upstream = (tf.constant(RNG.normal(size=(batch, height, 5, c)), tf.float32) for c in (3, 4))

    @tf.function
    def gradients(layer):
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(layer(x) * upstream)
        return tape.gradient(total, [x, *layer.trainable_weights])

    halved = HalvedConvolution(layer)
    halved.build(x.shape)
    for found, expected in zip(gradients(halved), gradients(layer), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_which_convolutions_gain(monkeypatch):
    assert gains_by_halves(convolution())
    with precision("bfloat16"):
        assert not gains_by_halves(convolution()), "measured: nothing to gain"
    for options in ({"channels": 128}, {"filters": 128}, {"strides": 2}, {"kernel_size": 1}, {"padding": "valid"},
                    {"dilation_rate": 2}, {"groups": 2}, {"activation": "softmax"}):
        assert not gains_by_halves(convolution(**options)), options
    depthwise = layers.DepthwiseConv2D(3, padding="same")
    depthwise.build((None, None, None, 256))
    assert not gains_by_halves(depthwise)
    layer = convolution()
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    assert not gains_by_halves(layer)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert not gains_by_halves(layer)


@pytest.mark.parametrize("training", [False, True])
def test_a_folded_model_computes_them_in_halves(training, monkeypatch):
    from mrcnn import halves
    from mrcnn.batch_norm import freeze_batch_norm

    x = image = keras.Input((None, None, 256))
    for _ in range(2):
        x = layers.Conv2D(256, 3, padding="same")(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    model = keras.Model(image, layers.Conv2D(2, 1)(x))
    freeze_batch_norm(model)
    folded = fold(model, training=training)
    assert [type(layer) for layer in folded.layers[1:3]] == [HalvedConvolution, FoldedConvolution]
    x, halved = RNG.normal(size=(1, 4, 3, 256)).astype(np.float32), []
    monkeypatch.setattr(halves, "in_halves", lambda convolve, x: halved.append(1) or in_halves(convolve, x))
    np.testing.assert_allclose(folded(x), model(x), rtol=1e-4, atol=1e-5)
    assert len(halved) == 2
    assert {id(weight) for weight in folded.weights} == {id(weight) for weight in model.weights}


def test_it_returns_from_its_config():
    layer = HalvedConvolution(convolution(4, 3), name="halved")
    again = HalvedConvolution.from_config(layer.get_config())
    assert again.name == "halved" and again.convolution.get_config() == layer.convolution.get_config()
    again.build((None, None, None, 3))
    again.set_weights([RNG.normal(size=w.shape) for w in again.weights])
    assert again.convolution.kernel.shape == (3, 3, 3, 4)

"""Convolutions in halves, beside the same at once."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from mrcnn import halves
from mrcnn.folding import FoldedConvolution, fold
from mrcnn.graph import precision
from mrcnn.halves import HalvedConvolution, gains_by_halves, in_halves
from mrcnn.model import MaskRCNN
from tests.tiny import TinyConfig, TinyDataset

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def a_cpu_and_small_maps(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [])
    monkeypatch.setattr(halves, "FEWEST_ROWS", 4)


@pytest.fixture
def few_channels(monkeypatch):
    monkeypatch.setattr(halves, "FEWEST_CHANNELS", 1)


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
def test_equal_to_the_convolution_at_once_for_every_size(batch, height, few_channels):
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
def test_gradients_are_those_of_the_convolution(batch, height, options, few_channels):
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


def test_few_rows_are_not_halved(monkeypatch):
    """The seam is four rows more."""
    monkeypatch.setattr(halves, "FEWEST_ROWS", 32)
    for rows, expected in ((30, [[1, 30], [1, 4]]), (32, [[2, 16], [1, 4]])):
        given = []
        in_halves(lambda x, given=given: given.append(x.shape[:2].as_list()) or x, tf.zeros((1, rows, 1, 1)))
        assert given == expected


def test_a_layer_of_float32_among_others_of_bfloat16(few_channels):
    layer = convolution(4, 3)
    x = tf.cast(RNG.normal(size=(1, 8, 5, 3)), tf.bfloat16)
    with precision("bfloat16"):
        halved = HalvedConvolution(layer)
    assert halved(x).dtype == tf.float32
    np.testing.assert_allclose(halved(x), layer(x), rtol=1e-5, atol=1e-5)


def test_loaded_where_nothing_is_gained_it_is_the_layer(monkeypatch):
    layer, x = convolution(4, 3, activation="relu"), tf.constant(RNG.normal(size=(1, 8, 5, 3)), tf.float32)
    monkeypatch.setattr(halves, "convolve_in_halves", None)
    np.testing.assert_array_equal(HalvedConvolution(layer)(x), layer(x))


def test_which_convolutions_gain(monkeypatch):
    assert gains_by_halves(convolution())
    with precision("bfloat16"):
        assert not gains_by_halves(convolution()), "measured: nothing to gain"
    for options in ({"channels": 128}, {"filters": 128}, {"strides": 2}, {"kernel_size": 1}, {"padding": "valid"},
                    {"dilation_rate": 2}, {"groups": 2}, {"activation": "softmax"},
                    {"activity_regularizer": "l2"}):
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


def test_a_network_detects_and_learns_as_without(monkeypatch, tmp_path):
    """A whole one, exported and saved too: its inference, and one step of training on one photograph."""
    config = TinyConfig(DETECTION_MIN_CONFIDENCE=0.0, IMAGES_PER_GPU=1)
    given = {"image": RNG.normal(size=(1, 64, 64, 3)).astype(np.float32), "window": np.float32([[0, 0, 64, 64]])}
    found = {}
    for fewest in (10**9, 1):
        monkeypatch.setattr(halves, "FEWEST_CHANNELS", fewest)
        model = MaskRCNN("training", config, model_dir=tmp_path)
        inner = [layer for layer in model.inference_model._flatten_layers() if isinstance(layer, HalvedConvolution)]
        assert bool(inner) == (fewest == 1)
        outputs = [model.inference_model(given)]
        if inner:
            model.inference_model.export(tmp_path / "exported", verbose=False)
            model.inference_model.save(tmp_path / "saved.keras")
            served = tf.saved_model.load(tmp_path / "exported")
            outputs += [served.serve({name: tf.constant(value) for name, value in given.items()}),
                        keras.models.load_model(tmp_path / "saved.keras")(given)]
        dataset = TinyDataset(1)
        history = model.train(dataset, None, learning_rate=0.1, verbose=0)
        found[fewest] = outputs, history.history["loss"], model.network.trunk.get_weights()
    (expected,), loss, weights = found[10**9]
    assert np.asarray(expected["valid"]).any()
    for outputs in found[1][0]:
        for name, value in expected.items():
            np.testing.assert_allclose(outputs[name], value, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(found[1][1], loss, rtol=1e-4)
    for new, old in zip(found[1][2], weights, strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-3, atol=1e-4)

"""The same functions in fewer operations, with the same weights."""

import gc

import keras
import numpy as np
import pytest
from keras import layers

from mrcnn.fusion import folding, winograd
from mrcnn.fusion.folding import DepthToSpace, FoldedConvolution, TransposeAsPointwise, WinogradConvolution
from mrcnn.fusion.winograd import by_winograd
from mrcnn.model import MaskRCNN
from mrcnn.network.frozen_batch_norm import fixed_norms, freeze_batch_norm
from mrcnn.network.graph import inference_graph
from mrcnn.network.precision import precision
from mrcnn.network.resnet import resnet
from tests.fusion.test_winograd import forget_traces
from tests.tiny import TinyConfig, TinyDataset

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)


def fold(model, *, training, by_winograd=True):
    return folding.fold(model, fixed_norms(training=training), by_winograd=by_winograd)


def randomized(model):
    """The model with other numbers in every weight: new layers hold ones and zeros, which hide much."""
    for layer in model._flatten_layers(include_self=False):
        if not isinstance(layer, keras.Model) and layer.weights:
            layer.set_weights(
                [
                    RNG.uniform(0.5, 1.5, w.shape) * RNG.choice([-1, 1], w.shape)
                    if "kernel" in w.path
                    else RNG.uniform(0.5, 1.5, w.shape)
                    for w in layer.weights
                ]
            )
    return model


def model_of(*chain, side=8, channels=3):
    image = x = keras.Input((side, side, channels))
    for layer in chain:
        x = layer(x)
    return randomized(keras.Model(image, x))


def pixels(side=8, channels=3):
    return RNG.normal(size=(2, side, side, channels)).astype(np.float32)


def kinds(model):
    return [type(layer).__name__ for layer in model.layers]


def test_values_by_hand():
    """A kernel of 3, variance 4, mean 1, gamma 6, beta 5: 3 x - 1 is scaled by 6 / 2 and moved by 5: 9 x + 2."""
    model = model_of(layers.Conv2D(1, 1, use_bias=False), layers.BatchNormalization(epsilon=0), channels=1)
    model.layers[1].set_weights([np.full((1, 1, 1, 1), 3.0)])
    model.layers[2].set_weights([np.array([v], np.float32) for v in (6, 5, 1, 4)])
    folded = fold(model, training=False)
    assert kinds(folded) == ["InputLayer", "FoldedConvolution"]
    np.testing.assert_allclose(folded(np.full((1, 8, 8, 1), 2.0)), np.full((1, 8, 8, 1), 20.0), rtol=1e-6)


@pytest.mark.parametrize(
    "convolution",
    [
        {"kernel_size": 3, "padding": "same"},
        {"kernel_size": 3, "strides": 2},
        {"kernel_size": 1, "strides": 2},
        {"kernel_size": 1, "use_bias": False},
        {"kernel_size": 3, "dilation_rate": 2},
        {"kernel_size": 3, "groups": 2},
    ],
)
@pytest.mark.parametrize("norm", [{}, {"scale": False}, {"center": False}])
def test_equal_to_the_two_layers(convolution, norm):
    model = model_of(layers.Conv2D(4, **convolution), layers.BatchNormalization(**norm), channels=4, side=9)
    image = pixels(9, 4)
    folded = fold(model, training=False)
    assert "FoldedConvolution" in kinds(folded)
    np.testing.assert_allclose(folded(image), model(image), rtol=1e-4, atol=1e-4)


def test_depthwise_with_two_outputs_a_channel():
    model = model_of(layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False), layers.BatchNormalization())
    image = pixels()
    folded = fold(model, training=False)
    assert "FoldedConvolution" in kinds(folded)
    np.testing.assert_allclose(folded(image), model(image), rtol=1e-4, atol=1e-4)


def test_a_resnet():
    model = randomized(resnet("resnet50", width=4))
    for layer in model.layers:  # so that 50 layers neither vanish nor explode
        if isinstance(layer, layers.BatchNormalization):
            layer.moving_variance.assign(RNG.uniform(20, 40, layer.moving_variance.shape))
    folded = fold(model, training=False)
    assert not any(isinstance(layer, layers.BatchNormalization) for layer in folded.layers)
    image = pixels(64)
    for found, expected in zip(folded(image), model(image), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.std(expected))


def test_what_is_not_a_plain_pair_stays():
    relu = model_of(layers.Conv2D(4, 3, activation="relu"), layers.BatchNormalization())
    assert "BatchNormalization" in kinds(fold(relu, training=False))
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3)(image)
    twice = keras.Model(image, layers.Add()([x, layers.BatchNormalization()(x)]))
    assert "BatchNormalization" in kinds(fold(twice, training=False)), "the convolution's own output is needed too"
    given_out = keras.Model(image, [x, layers.BatchNormalization()(x)])
    assert "BatchNormalization" in kinds(fold(given_out, training=False))
    shared = layers.Conv2D(3, 3, padding="same")
    again = keras.Model(image, layers.BatchNormalization()(shared(shared(image))))
    assert "BatchNormalization" in kinds(fold(again, training=False)), "a layer called twice"


class OwnNorm(layers.BatchNormalization):
    """Twice what the usual one gives."""

    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training, mask=mask)


def test_norms_of_a_user_stay():
    model = model_of(layers.Conv2D(4, 3), OwnNorm())
    assert "OwnNorm" in kinds(fold(model, training=False))


def test_a_sequential_model():
    model = randomized(
        keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.BatchNormalization()], name="chain")
    )
    folded = fold(model, training=False)
    assert kinds(folded) == ["InputLayer", "FoldedConvolution"] and folded.name == "chain"
    image = pixels()
    np.testing.assert_allclose(folded(image), model(image), rtol=1e-4, atol=1e-4)


def test_saved_and_cloned(tmp_path):
    model = fold(
        model_of(
            layers.Conv2D(4, 3), layers.BatchNormalization(), layers.Conv2DTranspose(3, 2, strides=2, activation="relu")
        ),
        training=False,
    )
    model.save(tmp_path / "folded.keras")
    loaded, clone = keras.models.load_model(tmp_path / "folded.keras"), keras.models.clone_model(model)
    image = pixels()
    clone.set_weights(model.get_weights())
    for other in (loaded, clone):
        assert kinds(other) == ["InputLayer", "FoldedConvolution", "TransposeAsPointwise", "DepthToSpace"]
        assert not {id(w) for w in other.weights} & {id(w) for w in model.weights}
        np.testing.assert_array_equal(other(image), model(image))


def test_in_training_only_frozen_norms_are_folded():
    model = model_of(layers.Conv2D(4, 3), layers.BatchNormalization())
    assert "BatchNormalization" in kinds(fold(model, training=True))
    model = freeze_batch_norm(model)
    assert "FoldedConvolution" in kinds(fold(model, training=True))
    assert "FoldedConvolution" in kinds(fold(model, training=False)), "a model may be folded again"


def test_weights_are_shared_and_read_at_each_call():
    model = model_of(layers.Conv2D(4, 3), layers.BatchNormalization())
    folded = fold(model, training=False)
    assert {id(w) for w in folded.weights} == {id(w) for w in model.weights}
    randomized(model)
    image = pixels()
    np.testing.assert_allclose(folded(image), model(image), rtol=1e-4, atol=1e-4)


def test_gradients_reach_the_convolution_and_not_the_frozen_norm():
    import tensorflow as tf

    model = model_of(layers.Conv2D(4, 3), layers.BatchNormalization())
    model = freeze_batch_norm(model)
    folded = fold(model, training=True)
    assert len(folded.trainable_weights) == 2
    image = pixels()
    gradients = []
    for either in (model, folded):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(either(image, training=True)))
        gradients.append(tape.gradient(loss, [w.value for w in model.trainable_weights]))
    for found, expected in zip(*gradients, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_products_are_rounded_once_under_bfloat16():
    """257 and 1 / 257: rounded to bfloat16 before they are multiplied, they make 0.996."""
    with precision("bfloat16"):  # of the new layers too
        model = model_of(layers.Conv2D(1, 1, use_bias=False), layers.BatchNormalization(epsilon=0), channels=1)
        model.layers[1].set_weights([np.full((1, 1, 1, 1), 257.0)])
        model.layers[2].set_weights([np.array([v], np.float32) for v in (1 / 257, 0, 0, 1)])
        found = fold(model, training=False)(np.ones((1, 8, 8, 1), np.float32))
    assert keras.backend.standardize_dtype(found.dtype) == "bfloat16"
    np.testing.assert_array_equal(np.asarray(found, np.float32), np.ones((1, 8, 8, 1)))


@pytest.mark.parametrize(("size", "options"), [(2, {"activation": "relu"}), (2, {"use_bias": False}), (3, {})])
def test_transposed_convolutions_without_overlap(size, options):
    transpose = layers.Conv2DTranspose(5, size, strides=size, **options)
    model = model_of(transpose)
    folded = fold(model, training=True)
    assert kinds(folded) == ["InputLayer", "TransposeAsPointwise", "DepthToSpace"]
    image = pixels()
    assert folded.output_shape == model.output_shape == (None, 8 * size, 8 * size, 5)
    np.testing.assert_allclose(folded(image), model(image), rtol=1e-4, atol=1e-5)


def test_channels_as_pixels_by_hand():
    """One cell of 2 x 3 pixels of one channel, and two cells side by side of 1 x 2 pixels of two channels."""
    np.testing.assert_array_equal(
        DepthToSpace(2, 3)(np.arange(6.0).reshape(1, 1, 1, 6)), [[[[0], [1], [2]], [[3], [4], [5]]]]
    )
    np.testing.assert_array_equal(
        DepthToSpace(1, 2)(np.arange(8.0).reshape(1, 1, 2, 4)), [[[[0, 1], [2, 3], [4, 5], [6, 7]]]]
    )


def test_a_transposed_convolution_that_is_called_twice():
    image, transpose = keras.Input((8, 8, 3)), layers.Conv2DTranspose(3, 2, strides=2)
    model = randomized(keras.Model(image, transpose(transpose(image))))
    image = pixels()
    np.testing.assert_allclose(fold(model, training=False)(image), model(image), rtol=1e-4, atol=1e-5)


def test_pixels_of_bfloat16_stay_so():
    with precision("bfloat16"):
        model = model_of(layers.Conv2DTranspose(4, 2, strides=2), layers.Conv2D(2, 3))
    folded = fold(model, training=False)
    assert [layer.output.dtype for layer in folded.layers if isinstance(layer, DepthToSpace)] == ["bfloat16"]


def test_other_transposed_convolutions_stay():
    overlapping = layers.Conv2DTranspose(5, 3, strides=2)
    softmax = layers.Conv2DTranspose(5, 2, strides=2, activation="softmax")  # over channels, which are not yet pixels
    for layer in (overlapping, softmax):
        assert "Conv2DTranspose" in kinds(fold(model_of(layer), training=False))


def test_both_are_described_by_their_layers():
    model = model_of(
        layers.Conv2D(4, 3, name="res2a"),
        layers.BatchNormalization(),
        layers.Conv2DTranspose(5, 2, strides=2, name="deconv"),
    )
    found = {type(layer): layer.name for layer in fold(model, training=False).layers}
    assert found[FoldedConvolution] == "res2a_folded" and found[TransposeAsPointwise] == "deconv_pointwise"


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_building_keeps_no_graph_of_tensorflow(mode, tmp_path):
    """Each would keep the weights of a model that is gone."""
    import tensorflow as tf

    def graphs():
        gc.collect()
        return sum(isinstance(thing, tf.Graph) for thing in gc.get_objects())

    before = graphs()
    model = MaskRCNN(mode, TinyConfig(), model_dir=tmp_path)
    built = model.inference_model if mode == "inference" else model.training_model
    assert any(isinstance(layer, FoldedConvolution) for layer in built._flatten_layers())
    assert graphs() == before


@pytest.fixture
def few_channels(monkeypatch):
    """So that small convolutions go by Winograd too; how many tiles are few is read when a function is traced."""
    import tensorflow as tf

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [])
    monkeypatch.setattr(winograd, "FEWEST_CHANNELS", 1)
    monkeypatch.setattr(winograd, "FEWEST_TILES", 4)
    forget_traces()
    yield
    forget_traces()


@pytest.mark.parametrize("training", [False, True])
def test_convolutions_by_winograd(training, few_channels, monkeypatch):
    model = model_of(
        layers.Conv2D(4, 3, padding="same", activation="relu"),
        layers.Conv2D(4, 3, padding="same"),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Conv2D(2, 1),
    )
    model = freeze_batch_norm(model)
    folded = fold(model, training=training)
    assert [type(layer) for layer in folded.layers[1:3]] == [WinogradConvolution, FoldedConvolution]
    assert {id(weight) for weight in folded.weights} == {id(weight) for weight in model.weights}
    image = pixels()
    np.testing.assert_allclose(folded(image), model(image), rtol=1e-4, atol=1e-4)
    traced = []
    monkeypatch.setattr(
        "mrcnn.fusion.winograd.by_winograd", lambda *args, relu: traced.append(relu) or by_winograd(*args, relu=relu)
    )
    forget_traces()
    folded(image)
    assert traced == [True, False]


@pytest.mark.parametrize("policy", ["float32", "bfloat16"])
def test_padding_is_done_inside_the_layers_that_need_it(policy):
    """And only there: not for a convolution without BatchNorm, for two consumers, nor in a graph to export."""
    image = x = keras.Input((None, None, 3))
    with precision(policy):
        for layer in (
            layers.ZeroPadding2D(((3, 2), (1, 0))),
            layers.Conv2D(4, 3, strides=2),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.ZeroPadding2D(1),
            layers.MaxPooling2D(3, strides=2),
            layers.ZeroPadding2D(1),
            layers.Conv2D(4, 3),
        ):
            x = layer(x)
        x = shared = layers.ZeroPadding2D(1)(x)
        x = layers.Add()([layers.MaxPooling2D(3, strides=1)(x), layers.AveragePooling2D(3, strides=1)(shared)])
    model = freeze_batch_norm(randomized(keras.Model(image, x)))
    folded, kept = fold(model, training=True), fold(model, training=True, by_winograd=False)
    assert [kinds(each).count("ZeroPadding2D") for each in (model, kept, folded)] == [4, 4, 2]
    assert kinds(folded)[1:4] == ["FoldedConvolution", "ReLU", "PaddedMaxPooling"]
    given = pixels(15)
    assert folded(given).dtype == model(given).dtype
    limit = 1e-4 if policy == "float32" else 0.1
    np.testing.assert_allclose(np.float32(folded(given)), np.float32(model(given)), rtol=limit, atol=10 * limit)
    again = keras.models.clone_model(folded)
    again.set_weights(folded.get_weights())
    np.testing.assert_array_equal(np.float32(again(given)), np.float32(folded(given)))


@pytest.mark.parametrize("options", [{"activation": "relu"}, {"use_bias": False}])
def test_a_convolution_by_winograd_alone(options, few_channels, monkeypatch):
    model = model_of(layers.Conv2D(4, 3, padding="same", **options))
    alone = fold(model, training=True).layers[1]
    image = pixels()
    np.testing.assert_allclose(alone(image), model(image), rtol=1e-4, atol=1e-5)
    again = WinogradConvolution.from_config(alone.get_config())
    again.build((None, None, None, 3))
    again.set_weights(alone.get_weights())
    np.testing.assert_array_equal(again(image), model(image), "a loaded one computes directly")
    monkeypatch.setattr(winograd, "FEWEST_CHANNELS", 5)
    np.testing.assert_array_equal(alone(image), model(image), "where nothing is gained it is the layer")


def test_a_layer_of_float32_among_others_of_bfloat16(few_channels):
    import tensorflow as tf

    layer = model_of(layers.Conv2D(4, 3, padding="same")).layers[1]
    image = tf.cast(pixels(), tf.bfloat16)
    with precision("bfloat16"):
        alone = WinogradConvolution(layer, by_winograd=True)
    assert alone(image).dtype == tf.float32
    np.testing.assert_allclose(alone(image), layer(image), rtol=1e-5, atol=1e-5)


def test_a_network_detects_and_learns_as_without(few_channels, monkeypatch, tmp_path):
    """A whole one, exported and saved too: its inference, and one step of training on one image."""
    import tensorflow as tf

    config = TinyConfig(DETECTION_MIN_CONFIDENCE=0.0, IMAGES_PER_GPU=1)
    given = {"image": pixels(64)[:1], "window": np.float32([[0, 0, 64, 64]])}
    found = {}
    for fewest in (10**9, 1):
        monkeypatch.setattr(winograd, "FEWEST_CHANNELS", fewest)
        model = MaskRCNN("training", config, model_dir=tmp_path)
        fast = inference_graph(model.network, config, fast=True)
        for graph, uses in ((fast, fewest == 1), (model.training_model, fewest == 1), (model.inference_model, False)):
            inner = [layer for layer in graph._flatten_layers() if isinstance(layer, folding._ConvolutionLayer)]
            assert any(layer.gains_by_winograd() for layer in inner) == uses
        outputs = [fast(given)]
        if fewest == 1:
            outputs.append(model.inference_model(given))
            model.inference_model.export(tmp_path / "exported", verbose=False)
            model.inference_model.save(tmp_path / "saved.keras")
            served = tf.saved_model.load(tmp_path / "exported")
            outputs += [
                served.serve({name: tf.constant(value) for name, value in given.items()}),
                keras.models.load_model(tmp_path / "saved.keras")(given),
            ]
        history = model.train(TinyDataset(1), None, learning_rate=0.1, verbose=0)
        found[fewest] = outputs, history.history["loss"], model.network.trunk.get_weights()
    (expected,), loss, weights = found[10**9]
    assert np.asarray(expected["valid"]).any()
    for outputs in found[1][0]:
        for name, value in expected.items():
            np.testing.assert_allclose(outputs[name], value, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(found[1][1], loss, rtol=1e-4)
    for new, old in zip(found[1][2], weights, strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-3, atol=1e-4)

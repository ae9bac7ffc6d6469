"""BatchNorm that stays as it is, whatever is done to the model around it."""

import keras
import numpy as np
import pytest

from mrcnn.network.frozen_batch_norm import BatchNormalization, freeze_batch_norm

X = np.random.default_rng(0).normal(3, 2, (4, 6, 6, 3)).astype("float32")


class Block(keras.layers.Layer):
    """A user's layer with layers of its own."""

    def __init__(self):
        super().__init__()
        self.inner = keras.Sequential([keras.layers.Conv2D(3, 1), keras.layers.BatchNormalization()])

    def call(self, x):
        return self.inner(x)


def network():
    """One BatchNorm in the graph, one in a nested model, one in a layer of a layer."""
    image = keras.Input((None, None, 3))
    x = keras.layers.BatchNormalization()(image)
    nested = keras.Sequential([keras.layers.Conv2D(3, 1), keras.layers.BatchNormalization()])
    return keras.Model(image, Block()(nested(x)))


def values(model):
    return [
        keras.ops.convert_to_numpy(weight)
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
        for weight in layer.weights
    ]


def test_finds_every_one():
    norms = [layer for layer in freeze_batch_norm(network())._flatten_layers() if hasattr(layer, "gamma")]
    assert [type(layer) for layer in norms] == [BatchNormalization] * 3


def test_freezing_keeps_the_other_layers_and_all_weights_and_names():
    model = network()
    before, block = model(X), model.layers[-1]
    frozen = freeze_batch_norm(model)
    assert frozen.layers[-1] is block
    assert [layer.name for layer in frozen.layers[1:]] == [layer.name for layer in model.layers[1:]]
    np.testing.assert_array_equal(frozen(X), before)


class Lists(keras.layers.Layer):
    """Layers in containers, one of them twice."""

    def __init__(self):
        super().__init__()
        norm = keras.layers.BatchNormalization()
        self.several = [norm, (norm, keras.layers.Dense(3))]
        self.named = {"last": keras.layers.BatchNormalization()}

    def call(self, x):
        return self.named["last"](self.several[1][1](self.several[1][0](self.several[0](x))))


def test_layers_in_lists_tuples_and_dicts():
    image = keras.Input((None, None, 3))
    layer = Lists()
    model = freeze_batch_norm(keras.Model(image, layer(image)))
    model.trainable = True
    assert len(model.trainable_variables) == 2
    assert layer.several[0] is layer.several[1][0]
    assert {type(norm) for norm in (layer.several[0], layer.named["last"])} == {BatchNormalization}


def thaw_each_layer(model):
    for layer in model._flatten_layers():
        layer.trainable = True


@pytest.mark.slow
@pytest.mark.parametrize("thaw", [lambda model: None, lambda model: setattr(model, "trainable", True), thaw_each_layer])
def test_training_does_not_touch_it(thaw):
    model = freeze_batch_norm(network())
    thaw(model)
    assert len(model.trainable_variables) == 4  # two kernels and their biases
    before = values(model)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.fit(X, np.zeros_like(X), epochs=2, verbose=0)
    for weight, old in zip(values(model), before, strict=True):
        np.testing.assert_array_equal(weight, old)


def test_the_ordinary_layer_does_learn_in_the_same_model():
    model = network()
    before = values(model)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.fit(X, np.zeros_like(X), epochs=1, verbose=0)
    assert all(np.abs(weight - old).max() > 0 for weight, old in zip(values(model), before, strict=True))


def test_uses_its_statistics_when_called_for_training():
    layer = BatchNormalization(epsilon=0.0)
    layer.build(X.shape)
    layer.set_weights([np.full(3, 2.0), np.full(3, 1.0), np.full(3, 3.0), np.full(3, 4.0)])
    np.testing.assert_allclose(layer(X, training=True), (X - 3) / 2 * 2 + 1, rtol=1e-5, atol=1e-5)


def test_is_saved_and_read_again(tmp_path):
    model = keras.Sequential([keras.Input((6, 6, 3)), freeze_batch_norm(network()).layers[1]])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    loaded.trainable = True
    assert loaded.trainable_variables == []
    np.testing.assert_array_equal(loaded(X), model(X))


def test_reads_weight_files_of_the_ordinary_layer(tmp_path):
    def model():
        return keras.Sequential([keras.Input((6, 6, 3)), keras.layers.Conv2D(3, 1), keras.layers.BatchNormalization()])

    ordinary, frozen = model(), model()
    ordinary.set_weights([np.random.default_rng(1).uniform(1, 2, weight.shape) for weight in ordinary.get_weights()])
    ordinary.save_weights(tmp_path / "x.weights.h5")
    frozen = freeze_batch_norm(frozen)
    frozen.load_weights(tmp_path / "x.weights.h5")
    np.testing.assert_array_equal(frozen(X), ordinary(X))

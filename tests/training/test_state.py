"""What a training needs besides its weights: by name, to an array and back."""

import keras
import numpy as np
import pytest

import heads
from mrcnn.network.graph import build_network
from mrcnn.training.model import TrainingModel, compile_model, set_trainable
from mrcnn.training.state import metric_variables, restore, state_variables, values_of
from tests.tiny import TinyConfig


@pytest.fixture(scope="module")
def training():
    config = TinyConfig()
    network = build_network(config)
    return config, network, TrainingModel(network, config)


def compiled(training, layers):
    config, network, model = training
    set_trainable(network, layers, train_bn=False)
    compile_model(model, config, learning_rate=0.1, total_steps=10, first_step=3)
    return state_variables(model, network)


def test_the_momentum_of_every_weight_that_is_trained_has_its_layer_s_name(training):
    state = compiled(training, "all")
    assert {"iterations", "learning_rate", "momentum/trunk/res1/0", "momentum/mask_head/masks/1"} <= set(state)
    assert not any("/bn" in name for name in state), "frozen"
    heads = compiled(training, "heads")
    assert set(heads) == {name for name in state if not name.startswith("momentum/trunk/res")}


def test_momentum_outlives_a_change_of_the_layers(training):
    before = compiled(training, "heads")
    before["momentum/rpn/rpn_class_raw/1"].assign([0.5])
    after = compiled(training, "all")
    restore(after, before)
    assert float(np.asarray(after["momentum/rpn/rpn_class_raw/1"])[0]) == 0.5
    assert not np.asarray(after["momentum/trunk/res1/0"]).any()


def test_values_are_arrays_that_do_not_change_with_the_variables(training):
    state = compiled(training, "all")
    values = values_of(state)
    state["iterations"].assign(9)
    assert int(values["iterations"]) == 3
    restore(state, values)
    assert int(np.asarray(state["iterations"])) == 3


def test_a_value_of_another_shape_is_refused(training):
    state = compiled(training, "all")
    with pytest.raises(ValueError, match=r"momentum/rpn/rpn_class_raw/1 with shape \(7,\), but the model has \(1,\)"):
        restore(state, {"momentum/rpn/rpn_class_raw/1": np.zeros(7)})


def test_metrics_are_named_as_they_are_logged(training):
    compiled(training, "all")
    names = {name.split("/")[1] for name in metric_variables(training[2])}
    assert {"loss", "mrcnn_mask_loss"} <= names


def test_random_layers_are_part_of_the_state(monkeypatch):
    """A head of the user's own, with a Dropout layer."""

    def dropping(input_shape, num_classes):
        features = keras.Input(input_shape)
        x = keras.layers.Dropout(0.5, seed=1)(keras.layers.UpSampling2D(2)(features))
        masks = keras.layers.Conv2D(num_classes, 1, activation="sigmoid", dtype="float32")(x)
        return keras.Model(features, masks, name="mask_head")

    monkeypatch.setattr(heads.registry, "_heads", dict(heads.registry._heads))
    heads.register("dropping")(dropping)
    config = TinyConfig(MASK_HEAD="dropping")
    network = build_network(config)
    model = TrainingModel(network, config)
    set_trainable(network, "all", train_bn=False)
    compile_model(model, config, learning_rate=0.1, total_steps=10)
    state = state_variables(model, network)
    assert [name for name in state if name.startswith("seed/")] == ["seed/mask_head/0"]

"""The paper's mask head: sizes by hand, its options, its first weights."""

import keras
import numpy as np
import pytest

import heads


def test_parameters_of_the_paper():
    conv = 3 * 3 * 256 * 256 + 256
    deconv = 2 * 2 * 256 * 256 + 256
    assert heads.build("fcn", (14, 14, 256), 81).count_params() == 4 * conv + deconv + 256 * 81 + 81 == 2_643_537


def test_layers_are_named_in_order():
    weighted = [layer.name for layer in heads.build("fcn", (14, 14, 8), 3).layers if layer.weights]
    assert weighted == ["conv1", "conv2", "conv3", "conv4", "deconv", "masks"]


def test_any_size_of_features():
    assert heads.build("fcn", (7, 7, 8), 3, filters=4).output_shape == (None, 14, 14, 3)


def test_filters_and_convolutions_are_options():
    model = heads.build("fcn", (14, 14, 8), 3, filters=16, convolutions=2)
    assert model.count_params() == (72 * 16 + 16) + (144 * 16 + 16) + (64 * 16 + 16) + (16 * 3 + 3)


@pytest.mark.parametrize(
    ("normalization", "layer", "weights"),
    [("batch", keras.layers.BatchNormalization, 4), ("group", keras.layers.GroupNormalization, 2)],
)
def test_normalization_replaces_the_bias(normalization, layer, weights):
    model = heads.build("fcn", (14, 14, 8), 3, normalization=normalization)
    for i in range(1, 5):
        assert isinstance(model.get_layer(f"norm{i}"), layer)
        assert len(model.get_layer(f"norm{i}").weights) == weights
        assert not model.get_layer(f"conv{i}").use_bias


def test_groups_divide_the_channels():
    assert heads.build("fcn", (14, 14, 8), 3, normalization="group").get_layer("norm1").groups == 32
    assert heads.build("fcn", (14, 14, 8), 3, normalization="group", filters=24).get_layer("norm1").groups == 8


def test_another_normalization_is_refused():
    with pytest.raises(ValueError, match=r"\(None, 'batch', 'group'\), received 'layer'"):
        heads.build("fcn", (14, 14, 8), 3, normalization="layer")


def test_first_weights():
    model = heads.build("fcn", (14, 14, 256), 81)
    deviations = {"conv1": np.sqrt(2 / (9 * 256)), "deconv": np.sqrt(2 / (4 * 256)), "masks": np.sqrt(2 / (256 + 81))}
    for name, deviation in deviations.items():
        kernel, bias = map(keras.ops.convert_to_numpy, model.get_layer(name).weights)
        assert kernel.std() == pytest.approx(deviation, rel=0.03)
        assert not bias.any()


def test_the_transposed_convolution_fills_two_by_two_cells():
    """One lit feature lights one 2x2 block of the mask, where a 3x3 identity stands before."""
    model = heads.build("fcn", (4, 4, 1), 1, filters=1, convolutions=1)
    identity = np.zeros((3, 3, 1, 1), "float32")
    identity[1, 1] = 1
    model.get_layer("conv1").set_weights([identity, np.zeros(1)])
    model.get_layer("deconv").set_weights([np.ones((2, 2, 1, 1), "float32"), np.zeros(1)])
    model.get_layer("masks").set_weights([np.full((1, 1, 1, 1), 100, "float32"), np.full(1, -50)])
    x = np.zeros((1, 4, 4, 1), "float32")
    x[0, 1, 2] = 1
    expected = np.zeros((8, 8))
    expected[2:4, 4:6] = 1
    np.testing.assert_allclose(model(x)[0, :, :, 0], expected, atol=1e-6)


@pytest.mark.parametrize("name", ["fcn", "unet"])
def test_one_mask_for_all_classes(name):
    model = heads.build(name, (14, 14, 8), 5, filters=8, class_agnostic=True)
    assert model.output_shape == (None, 28, 28, 1)
    head = heads.make(name, (14, 14, 8), 5, {"filters": 8, "class_agnostic": True})
    assert head.is_plain and head.model.get_layer("masks").filters == 1


@pytest.mark.parametrize("name", ["fcn", "unet"])
def test_a_softmax_over_the_classes(name):
    head = heads.build(name, (14, 14, 8), 5, filters=8, activation="softmax")
    assert head.activation == "softmax" and not head.is_plain
    x = np.random.default_rng(0).normal(size=(2, 14, 14, 8)).astype(np.float32)
    masks = np.asarray(head.model({"features": x}, training=False)["masks"])
    assert masks.shape == (2, 28, 28, 5)
    np.testing.assert_allclose(masks.sum(axis=-1), 1, atol=1e-5)
    plain = heads.build(name, (14, 14, 8), 5, filters=8)
    assert [weight.path for weight in head.model.weights] == [weight.path for weight in plain.weights]


def test_other_activations_are_refused():
    with pytest.raises(ValueError, match=r"one of \('sigmoid', 'softmax'\), received 'tanh'"):
        heads.build("fcn", (14, 14, 8), 3, activation="tanh")
    with pytest.raises(ValueError, match="leaves a softmax nothing to compare"):
        heads.build("fcn", (14, 14, 8), 3, activation="softmax", class_agnostic=True)

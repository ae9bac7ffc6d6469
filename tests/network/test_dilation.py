"""Dilation of tiny networks by hand, and of keras.applications: each second cell is what the model itself computes."""

import keras
import numpy as np
import pytest
from keras import layers

from mrcnn.layers.dilated import DilatedPooling
from mrcnn.network.backbone import build_backbone
from mrcnn.network.feature_taps import dilate_last_stage, taps
from mrcnn.weights.importers import imagenet
from tests.network.test_backbone import WEIGHTS


def network(*parts):
    """Layers at the end of a network that starts with stride 16, without weights of its own there."""
    image = keras.Input((None, None, 1), name="image")
    x = layers.AveragePooling2D(16, name="to_16")(image)
    for part in parts:
        x = part(x)
    return keras.Model(image, x, name="tiny")


def ones(size, stride=1, padding="same", name=None):
    return layers.Conv2D(1, size, strides=stride, padding=padding, use_bias=False, kernel_initializer="ones", name=name)


def twice(layer):
    return lambda x: layer(layer(x))


def at_stride_16(model, cells):
    """The output for an image whose cells at stride 16 are given."""
    image = np.repeat(np.repeat(np.asarray(cells, "float32"), 16, axis=0), 16, axis=1)
    return np.asarray(model(image[None, ..., None]))[0, ..., 0]


def test_a_convolution_after_the_stride_skips_a_cell():
    """One cell in the middle of zeros is seen two cells away in each direction, and nowhere between."""
    dilated = dilate_last_stage(network(ones(1, 2), ones(3)))
    cells = np.zeros((8, 8))
    cells[3, 4] = 1
    expected = np.zeros((8, 8))
    expected[1:6:2, 2:7:2] = 1
    np.testing.assert_array_equal(at_stride_16(dilated, cells), expected)


def test_the_layer_with_the_stride_keeps_its_window():
    """Keras pads "same" of stride 2 below and to the right: the window of a cell begins at the cell."""
    dilated = dilate_last_stage(network(ones(3, 2)))
    cells = np.zeros((4, 4))
    cells[2, 2] = 1
    expected = np.zeros((4, 4))
    expected[:3, :3] = 1
    np.testing.assert_array_equal(at_stride_16(dilated, cells), expected)


CHAINS = {
    "same": [ones(3, 2), ones(3)],
    "an even window": [ones(2, 2), ones(2), ones(4)],
    "valid": [
        layers.ZeroPadding2D(1),
        ones(3, 2, "valid"),
        layers.ZeroPadding2D(((1, 0), (2, 1))),
        ones(3, 1, "valid"),
    ],
    "padded as MobileNet": [layers.ZeroPadding2D(((0, 1), (0, 1))), ones(3, 2, "valid"), ones(5)],
    "cut off": [ones(3, 2, "valid"), ones(3, 1, "valid"), layers.Cropping2D(1)],
    "maximum": [layers.MaxPooling2D(3, 2, "same"), layers.MaxPooling2D(3, 1, "same"), layers.MaxPooling2D(2, 1)],
    "average": [layers.AveragePooling2D(2, 2), layers.AveragePooling2D(3, 1, "same")],
    "depthwise": [layers.DepthwiseConv2D(3, 2, "same"), layers.SeparableConv2D(2, 3, padding="same")],
    "dilated before": [ones(1, 2), layers.Conv2D(1, 3, padding="same", dilation_rate=3)],
    "models": [
        keras.Sequential([keras.Input((None, None, 1)), layers.Rescaling(2.0, 1.0), layers.Conv2D(3, 2, 2)]),
        keras.Sequential([keras.Input((None, None, 3)), ones(3)]),
    ],
    "a branch": [lambda x: layers.Add()([layers.MaxPooling2D(1, 2)(x), ones(3, 2)(x)]), lambda x: x * 2.0],
}


@pytest.mark.parametrize("kind", CHAINS)
def test_each_second_cell_is_the_model_s_own(kind):
    model = network(*CHAINS[kind])
    dilated = dilate_last_stage(model)
    for rows, columns in ((12, 16), (20, 14)):
        cells = np.random.default_rng(0).normal(size=(rows, columns))
        own, found = at_stride_16(model, cells), at_stride_16(dilated, cells)
        assert found.shape == (2 * own.shape[0], 2 * own.shape[1])
        np.testing.assert_allclose(found[::2, ::2], own, rtol=1e-5, atol=1e-5)
        assert not np.allclose(found[1::2, 1::2], own, atol=1e-2)
    assert [w.shape for w in dilated.weights] == [w.shape for w in model.weights]
    for mine, theirs in zip(dilated.weights, model.weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_layers_before_stage_5_are_shared_and_names_stay():
    model = network(ones(3, name="before"), ones(3, 2, name="halves"), ones(3, name="after"))
    dilated = dilate_last_stage(model)
    assert dilated.get_layer("before") is model.get_layer("before")
    halves, after = dilated.get_layer("halves"), dilated.get_layer("after")
    assert (halves.strides, halves.dilation_rate) == ((1, 1), (1, 1))
    assert (after.strides, after.dilation_rate) == ((1, 1), (2, 2))
    assert model.get_layer("after").dilation_rate == (1, 1)


@pytest.mark.parametrize(
    "part, why",
    [
        (layers.Conv2DTranspose(1, 3, padding="same", name="up"), "its layer 'up' in stage 5 is a Conv2DTranspose"),
        (layers.AveragePooling2D(3, 2, "same", name="mean"), "'mean' in stage 5 averages without its padding"),
        (ones(3, 2, name="more"), "'more' in stage 5 has stride 64 after stride 32"),
        (twice(ones(3, name="again")), "'again' in stage 5 is called more than once"),
    ],
)
def test_what_cannot_be_dilated_is_named(part, why):
    parts = [part] if why.startswith("'mean'") else [ones(1, 2), part]
    with pytest.raises(ValueError, match=f'\'tiny\' cannot be dilated, as NECK = "dc5" requires: .*{why}.* "c5"'):
        dilate_last_stage(network(*parts))


def test_dilated_pooling_is_saved_with_its_settings():
    layer = DilatedPooling(layers.MaxPooling2D(3, 1, "same"), name="pool")
    again = DilatedPooling.from_config(layer.get_config())
    image = np.random.default_rng(0).normal(size=(2, 6, 8, 3)).astype("float32")
    np.testing.assert_array_equal(again(image), layer(image))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, options",
    [
        ("MobileNet", {"alpha": 0.25}),
        ("MobileNetV2", {"alpha": 0.35}),
        ("MobileNetV3Small", {}),
        ("ResNet50V2", {}),
        ("DenseNet121", {}),
        ("EfficientNetB0", {}),
        ("ConvNeXtTiny", {}),
        ("InceptionV3", {}),
        ("Xception", {}),
    ],
)
def test_an_application_s_stage_5(name, options):
    """At stride 16 with the names, weights and stages of the undilated one, whose cells are every second one.

    Networks with squeeze and excitation average over other cells, and are compared by shape alone.
    """
    plain, dilated = (build_backbone(name, options=options, neck=neck) for neck in ("c5", "dc5"))
    shapes = [[tuple(w.shape) for w in built.source.weights] for built in (plain, dilated)]
    assert shapes[0] == shapes[1]
    inside = {layer.name for layer in dilated.source.layers if layer.weights}
    assert {name: dilated.stages[name] for name in inside} == {name: plain.stages[name] for name in inside}
    dilated.source.set_weights(plain.source.get_weights())
    image = np.random.default_rng(0).normal(size=(1, 96, 128, 3)).astype("float32")
    (own,), (found,) = (keras.tree.flatten(built.model(image)) for built in (plain, dilated))
    assert found.shape[1:3] == (6, 8) and own.shape[1:3] == (3, 4)
    if name not in ("MobileNetV3Small", "EfficientNetB0"):
        np.testing.assert_allclose(found[:, ::2, ::2], own, atol=1e-4 * float(np.std(own)))


def test_imagenet_weights_load_into_a_dilated_backbone():
    if not WEIGHTS.is_file():
        pytest.skip("needs the ImageNet weights of mobilenet beside the checkout")
    plain, dilated = (build_backbone("mobilenet", options={"alpha": 0.75}, neck=neck) for neck in ("c5", "dc5"))
    for built in (plain, dilated):
        imagenet.load(WEIGHTS, built)
    image = np.random.default_rng(0).normal(size=(1, 64, 96, 3)).astype("float32")
    (c5,) = taps(plain.source, (32,))
    own = np.asarray(keras.Model(plain.source.inputs[0], c5)(image))
    found = np.asarray(keras.tree.flatten(dilated.model(image))[-1])
    np.testing.assert_allclose(found[:, ::2, ::2], own, atol=1e-4 * own.std())

"""The modified shallow U-Net: sizes by hand, its layers, its skip."""

import keras
import numpy as np
import pytest

import heads


def test_parameters_at_coco_size():
    assert heads.build("unet", (14, 14, 256), 81).count_params() == 6_521_041


def test_layers_and_their_shapes():
    model = heads.build("unet", (14, 14, 256), 81)
    shapes = {layer.name: layer.output.shape[1:] for layer in model.layers}
    assert shapes == {
        "features": (14, 14, 256),
        "encoder_1_conv": (14, 14, 256),
        "encoder_1_norm": (14, 14, 256),
        "encoder_2_conv": (14, 14, 256),
        "encoder_2_norm": (14, 14, 256),
        "pool": (7, 7, 256),
        "bottom_1_conv": (7, 7, 256),
        "bottom_1_norm": (7, 7, 256),
        "bottom_2_conv": (7, 7, 512),
        "bottom_2_norm": (7, 7, 512),
        "bottom_3_conv": (7, 7, 256),
        "bottom_3_norm": (7, 7, 256),
        "up_1": (14, 14, 256),
        "skip": (14, 14, 512),
        "decoder_1_conv": (14, 14, 256),
        "decoder_1_norm": (14, 14, 256),
        "decoder_2_conv": (14, 14, 128),
        "decoder_2_norm": (14, 14, 128),
        "up_2": (28, 28, 128),
        "decoder_3_conv": (28, 28, 256),
        "decoder_3_norm": (28, 28, 256),
        "decoder_4_conv": (28, 28, 256),
        "decoder_4_norm": (28, 28, 256),
        "masks": (28, 28, 81),
    }


def test_convolution_then_relu_then_norm_and_no_transposed_convolution():
    layers = heads.build("unet", (14, 14, 8), 3, filters=8).layers
    convolutions = [layer for layer in layers if layer.name.endswith("_conv")]
    assert len(convolutions) == 9
    assert all(layer.activation is keras.activations.relu and layer.kernel_size == (3, 3) for layer in convolutions)
    assert not any(isinstance(layer, keras.layers.Conv2DTranspose) for layer in layers)


def test_batch_norm_learns():
    model = heads.build("unet", (14, 14, 8), 3, filters=8)
    statistics = model.get_layer("encoder_1_norm").moving_mean
    model(np.ones((2, 14, 14, 8), "float32"), training=True)
    assert np.abs(keras.ops.convert_to_numpy(statistics)).max() > 0


def test_the_skip_carries_detail_around_the_bottom():
    model = heads.build("unet", (14, 14, 8), 3, filters=8)
    bottom = model.get_layer("bottom_3_norm")
    bottom.set_weights([np.zeros_like(weight) for weight in bottom.get_weights()])
    rng = np.random.default_rng(0)
    first, second = (model(rng.standard_normal((1, 14, 14, 8)).astype("float32")) for _ in range(2))
    assert np.abs(first - second).max() > 0


def test_filters_scale_every_width():
    model = heads.build("unet", (14, 14, 8), 3, filters=16)
    widths = {layer.name: layer.filters for layer in model.layers if isinstance(layer, keras.layers.Conv2D)}
    assert (widths["encoder_1_conv"], widths["bottom_2_conv"], widths["decoder_2_conv"]) == (16, 32, 8)


@pytest.mark.parametrize("side", [7, 15])
def test_odd_features_are_refused(side):
    with pytest.raises(
        ValueError, match=rf"halves its features 1 times .* sides must be even, received \({side}, {side}, 8\)"
    ):
        heads.build("unet", (side, side, 8), 3)


def test_a_second_level_for_features_of_28_cells():
    model = heads.build("unet", (28, 28, 8), 3, filters=8, levels=2)
    shapes = {layer.name: layer.output.shape[1:] for layer in model.layers if layer.weights}
    assert [name for name, shape in shapes.items() if name.endswith("_conv") and shape[0] == 7] == [
        "bottom_1_conv",
        "bottom_2_conv",
        "bottom_3_conv",
    ]
    assert shapes["encoder_2_level_2_conv"] == (14, 14, 8) and shapes["decoder_2_level_2_conv"] == (14, 14, 4)
    assert shapes["masks"] == (56, 56, 3)
    with pytest.raises(ValueError, match=r"2 times .*, received \(14, 14, 8\)"):
        heads.build("unet", (14, 14, 8), 3, levels=2)


def test_one_level_is_the_head_as_it_was():
    """The same layers in the same order, and so the same first weights from the same seed."""
    models = []
    for options in ({}, {"levels": 1, "activation": "sigmoid", "class_agnostic": False}):
        keras.utils.set_random_seed(3)
        models.append(heads.build("unet", (14, 14, 8), 3, filters=8, **options))
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(one, other)

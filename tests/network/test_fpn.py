"""The feature pyramid: sizes, names, values by hand."""

import keras
import numpy as np
import pytest

from mrcnn.network.fpn import feature_pyramid


def pyramid(channels=(1, 1, 1, 1), filters=1, size=(None, None)):
    """Model from four feature maps to [P2..P6]."""
    sides = [(None, None) if size[0] is None else (size[0] // s, size[1] // s) for s in (4, 8, 16, 32)]
    taps = [keras.Input((*side, c)) for side, c in zip(sides, channels, strict=True)]
    return keras.Model(taps, feature_pyramid(taps, filters))


def test_shapes_and_names():
    model = pyramid((8, 16, 32, 64), 24, size=(64, 96))
    assert [tuple(x.shape) for x in model.outputs] == [
        (None, 16, 24, 24),
        (None, 8, 12, 24),
        (None, 4, 6, 24),
        (None, 2, 3, 24),
        (None, 1, 2, 24),
    ]
    assert {layer.name for layer in model.layers if layer.weights} == {
        "fpn_c2p2",
        "fpn_c3p3",
        "fpn_c4p4",
        "fpn_c5p5",
        "fpn_p2",
        "fpn_p3",
        "fpn_p4",
        "fpn_p5",
    }
    assert [x._keras_history.operation.name for x in model.outputs] == [f"fpn_p{level}" for level in (2, 3, 4, 5, 6)]


def test_parameters_over_a_resnet():
    assert pyramid((256, 512, 1024, 2048), 256).count_params() == (3840 + 4) * 256 + 4 * (9 * 256 * 256 + 256)


def test_values_by_hand():
    """Identity convolutions and random maps: each level is its own map and all coarser ones, repeated."""
    model = pyramid()
    for layer in model.layers:
        if layer.weights:
            kernel = np.zeros(layer.kernel.shape)
            kernel[kernel.shape[0] // 2, kernel.shape[1] // 2] = 1
            layer.set_weights([kernel, np.zeros(1)])
    rng = np.random.default_rng(0)
    c2, c3, c4, c5 = taps = [rng.standard_normal((1, 8 * s, 12 * s, 1)).astype("float32") for s in (8, 4, 2, 1)]

    def doubled(x):
        return x.repeat(2, axis=1).repeat(2, axis=2)

    p4 = c4 + doubled(c5)
    p3 = c3 + doubled(p4)
    for ours, expected in zip(model(taps), [c2 + doubled(p3), p3, p4, c5, c5[:, ::2, ::2]], strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_p6_of_an_odd_p5_is_rounded_up():
    maps = [np.zeros((1, 5 * s, 3 * s, 1), "float32") for s in (8, 4, 2, 1)]
    assert pyramid()(maps)[-1].shape == (1, 3, 2, 1)


def test_output_convolutions_look_one_cell_around_and_see_zeros_outside():
    model = pyramid()
    model.get_layer("fpn_c5p5").set_weights([np.ones((1, 1, 1, 1)), np.zeros(1)])
    model.get_layer("fpn_p5").set_weights([np.ones((3, 3, 1, 1)), np.zeros(1)])
    maps = [np.ones((1, 2 * s, 3 * s, 1), "float32") for s in (8, 4, 2, 1)]
    np.testing.assert_allclose(model(maps)[3][0, :, :, 0], [[4, 6, 4], [4, 6, 4]])


def test_first_weights_have_variance_one_over_fan_in():
    model = pyramid((512, 4, 4, 4), 64)
    for name, fan_in in {"fpn_c2p2": 512, "fpn_p2": 9 * 64}.items():
        kernel, bias = map(keras.ops.convert_to_numpy, model.get_layer(name).weights)
        assert kernel.std() == pytest.approx(fan_in**-0.5, rel=0.03)
        assert np.abs(kernel).max() <= (3 / fan_in) ** 0.5  # uniform
        assert not bias.any()


def test_four_taps_are_needed():
    with pytest.raises(ValueError, match=r"four feature maps \[C2, C3, C4, C5\], received 3"):
        feature_pyramid([keras.Input((8, 8, 4))] * 3)

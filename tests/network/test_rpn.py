"""The region proposal network: order of its outputs, initial weights, shapes, types."""

import itertools

import keras
import numpy as np
import pytest

from mrcnn.network.precision import precision
from mrcnn.network.rpn import build_rpn


@pytest.fixture(scope="module")
def rpn():
    return build_rpn(4, 8, 3)


def test_shapes_on_levels_of_any_size(rpn):
    for height, width in ((5, 7), (1, 1)):
        logits, deltas = rpn(np.zeros((2, height, width, 4), np.float32))
        assert logits.shape == (2, height * width * 3)
        assert deltas.shape == (2, height * width * 3, 4)


def test_more_convolutions_are_rectified_one_after_the_other_and_only_the_first_has_the_stride():
    model = build_rpn(2, 8, 1, anchor_stride=2, convolutions=2)
    assert [layer.name for layer in model.layers if layer.name.startswith("rpn_conv")] == [
        "rpn_conv_shared",
        "rpn_conv_shared2",
    ]
    first, second = (model.get_layer(name) for name in ("rpn_conv_shared", "rpn_conv_shared2"))
    assert first.strides == (2, 2) and second.strides == (1, 1)
    assert np.abs(np.asarray(first.kernel)[..., :2, :] - np.asarray(second.kernel)[..., :2, :]).min() > 0
    image = np.random.default_rng(0).normal(size=(1, 6, 6, 2)).astype(np.float32)
    shared = second(first(image))
    assert np.asarray(first(image)).min() == np.asarray(shared).min() == 0
    expected = np.asarray(model.get_layer("rpn_class_raw")(shared)).reshape(1, -1)
    np.testing.assert_allclose(model(image)[0], expected, atol=1e-6)


def test_every_other_cell_with_an_anchor_stride_of_2():
    logits, deltas = build_rpn(4, 8, 3, anchor_stride=2)(np.zeros((1, 5, 8, 4), np.float32))
    assert logits.shape == (1, 3 * 4 * 3), "rounded up, as the anchors are"
    assert deltas.shape == (1, 3 * 4 * 3, 4)


def test_outputs_stand_in_the_order_of_y_x_ratio_and_dy_dx_dh_dw():
    """One channel passes through; each output bias says who it is."""
    rpn = build_rpn(1, 1, 3)
    kernel = np.zeros((3, 3, 1, 1), np.float32)
    kernel[1, 1] = 1
    rpn.get_layer("rpn_conv_shared").set_weights([kernel, np.zeros(1)])
    rpn.get_layer("rpn_class_raw").set_weights([np.ones((1, 1, 1, 3)), np.array([100, 200, 300])])
    rpn.get_layer("rpn_bbox_pred").set_weights([np.ones((1, 1, 1, 12)), 100 * np.arange(12)])
    cells = np.arange(6, dtype=np.float32).reshape(1, 2, 3, 1)  # cell (y, x) holds 3 y + x
    logits, deltas = rpn(cells)
    np.testing.assert_array_equal(logits[0], [cell + 100 * ratio for cell in range(6) for ratio in (1, 2, 3)])
    np.testing.assert_array_equal(deltas[0, 3 * 5 + 1], np.array([400, 500, 600, 700]) + 5)


def test_initial_weights_are_normal_with_deviation_of_a_hundredth_and_not_repeated():
    keras.utils.set_random_seed(0)
    rpn = build_rpn(64, 64, 3)
    kernels = {layer.name: np.asarray(layer.kernel) for layer in rpn.layers if layer.weights}
    assert set(kernels) == {"rpn_conv_shared", "rpn_class_raw", "rpn_bbox_pred"}
    for kernel in kernels.values():
        assert kernel.std() == pytest.approx(0.01, rel=0.12)
    for first, second in itertools.combinations(kernels.values(), 2):
        assert np.isin(first, second).mean() < 0.01, "no layer repeats the numbers of another"
    assert all(not np.asarray(layer.bias).any() for layer in rpn.layers if layer.weights)


def test_features_are_rectified(rpn):
    assert rpn.get_layer("rpn_conv_shared").activation is keras.activations.relu
    assert rpn.get_layer("rpn_class_raw").activation is keras.activations.linear


def test_outputs_are_float32_under_bfloat16():
    with precision("bfloat16"):
        rpn = build_rpn(4, 8, 3)
    assert rpn.get_layer("rpn_conv_shared").compute_dtype == "bfloat16"
    logits, deltas = rpn(np.ones((1, 2, 2, 4), np.float32))
    assert (logits.dtype.name, deltas.dtype.name) == ("float32", "float32")

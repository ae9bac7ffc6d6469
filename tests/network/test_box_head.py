"""The box head: shapes, order of its outputs, initial weights, types."""

import keras
import numpy as np
import pytest

from mrcnn.network.box_head import build_box_head
from mrcnn.network.precision import precision


@pytest.fixture(scope="module")
def head():
    keras.utils.set_random_seed(0)
    return build_box_head(7, 8, 256, 5)


@pytest.mark.parametrize("rois", [1, 3])
def test_shapes(head, rois):
    logits, deltas = head(np.zeros((rois, 7, 7, 8), np.float32))
    assert logits.shape == (rois, 5)
    assert deltas.shape == (rois, 5, 4)


def test_convolutions_come_before_a_chosen_number_of_dense_layers():
    model = build_box_head(4, 6, 16, 3, convolutions=2, fc_layers=1)
    assert {layer.name for layer in model.layers if layer.weights} == {
        "mrcnn_conv1",
        "mrcnn_conv2",
        "mrcnn_fc1",
        "mrcnn_class_logits",
        "mrcnn_bbox_fc",
    }
    features = np.random.default_rng(0).normal(size=(2, 4, 4, 6)).astype(np.float32)
    x = model.get_layer("mrcnn_conv2")(model.get_layer("mrcnn_conv1")(features))
    assert x.shape == (2, 4, 4, 6) and np.asarray(x).min() == 0
    x = model.get_layer("mrcnn_fc1")(np.asarray(x).reshape(2, -1))
    np.testing.assert_allclose(model(features)[0], model.get_layer("mrcnn_class_logits")(x), atol=1e-6)


def test_deltas_stand_class_by_class(head):
    clone = build_box_head(7, 8, 256, 5)
    clone.set_weights(head.get_weights())
    layer = clone.get_layer("mrcnn_bbox_fc")
    layer.set_weights([np.zeros((256, 20)), np.arange(20)])
    np.testing.assert_array_equal(clone(np.ones((1, 7, 7, 8)))[1][0, 3], [12, 13, 14, 15])


def test_two_rectified_layers_worked_out_with_numpy(head):
    features = np.random.default_rng(0).normal(size=(2, 7, 7, 8)).astype(np.float32)
    weights = {layer.name: [np.asarray(w) for w in layer.weights] for layer in head.layers if layer.weights}
    x = features.reshape(2, -1)
    for name in ("mrcnn_fc1", "mrcnn_fc2"):
        kernel, bias = weights[name]
        x = np.maximum(x @ kernel + bias, 0)
    logits, deltas = head(features)
    kernel, bias = weights["mrcnn_class_logits"]
    np.testing.assert_allclose(logits, x @ kernel + bias, atol=1e-5)
    kernel, bias = weights["mrcnn_bbox_fc"]
    np.testing.assert_allclose(np.reshape(deltas, (2, 20)), x @ kernel + bias, atol=1e-5)


def test_initial_weights_are_those_of_detectron2(head):
    """Xavier in its caffe meaning (uniform, variance 1 / fan_in); normal 0.01 for classes and 0.001 for boxes."""
    first = np.asarray(head.get_layer("mrcnn_fc1").kernel)
    assert np.abs(first).max() == pytest.approx(np.sqrt(3 / (7 * 7 * 8)), rel=0.01)
    assert first.std() == pytest.approx(np.sqrt(1 / (7 * 7 * 8)), rel=0.02)
    assert np.asarray(head.get_layer("mrcnn_class_logits").kernel).std() == pytest.approx(0.01, rel=0.1)
    assert np.asarray(head.get_layer("mrcnn_bbox_fc").kernel).std() == pytest.approx(0.001, rel=0.1)
    second = np.asarray(head.get_layer("mrcnn_fc2").kernel)
    assert not np.isin(second[:20].ravel(), first[:20].ravel()).all()


def test_parameters_of_the_paper_s_head():
    head = build_box_head(7, 256, 1024, 81)
    assert head.count_params() == (7 * 7 * 256 + 1) * 1024 + 1025 * 1024 + 1025 * 81 + 1025 * 324


def test_outputs_are_float32_under_bfloat16():
    with precision("bfloat16"):
        head = build_box_head(3, 2, 4, 2)
    assert head.get_layer("mrcnn_fc1").compute_dtype == "bfloat16"
    logits, deltas = head(np.ones((1, 3, 3, 2)))
    assert (logits.dtype.name, deltas.dtype.name) == ("float32", "float32")

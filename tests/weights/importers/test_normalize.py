import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrcnn.network.resnet import EPSILON
from mrcnn.weights.importers import normalize


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def norm_of(channels, seed=0):
    rng = np.random.default_rng(seed)
    return (
        rng.uniform(0.5, 1.5, channels).astype(np.float32),
        random(channels, seed=1),
        random(channels, seed=2),
        rng.uniform(0.5, 1.5, channels).astype(np.float32),
    )


def normed(x, norm, epsilon):
    gamma, beta, mean, variance = (np.asarray(v, np.float64) for v in norm)
    return (x - mean) / np.sqrt(variance + epsilon) * gamma + beta


def test_torch_kernels():
    weight = random(5, 3, 2, 4)  # out, in, h, w
    kernel = normalize.torch_kernel(weight)
    assert kernel.shape == (2, 4, 3, 5) and kernel[1, 3, 2, 4] == weight[4, 2, 1, 3]
    # torch's transposed convolution is (in, out, h, w), keras's (h, w, out, in)
    assert normalize.torch_kernel(weight)[1, 3].shape == (3, 5)


def test_torch_dense_of_flattened_features():
    weight, features = random(6, 3 * 2 * 4), random(3, 2, 4, seed=1)  # channels, h, w
    expected = weight @ features.ravel()
    found = features.transpose(1, 2, 0).ravel() @ normalize.torch_dense(weight, (3, 2, 4))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_array_equal(normalize.torch_dense(weight), weight.T)


@pytest.mark.parametrize("epsilon", [0, 1e-5, 1e-3])
def test_batch_norm_under_this_networks_epsilon(epsilon):
    x, bias = np.linspace(-2, 2, 8).astype(np.float32), random(8, seed=3)
    norm = norm_of(8)
    expected = normed(x + bias.astype(np.float64), norm, epsilon)
    np.testing.assert_allclose(normed(x, normalize.batch_norm(norm, epsilon, bias), EPSILON), expected, atol=1e-6)
    np.testing.assert_allclose(
        normed(x, normalize.batch_norm(norm, epsilon), EPSILON), normed(x, norm, epsilon), atol=1e-6
    )


@settings(max_examples=50, deadline=None)
@given(st.floats(-12, 3), st.sampled_from([0.0, 1e-5]))
def test_channels_with_hardly_any_variance(exponent, epsilon):
    norm = tuple(np.array([value], np.float32) for value in (0.7, 0.3, 0.2, 10.0**exponent))
    found = normalize.batch_norm(norm, epsilon)
    assert found[3] >= 0
    np.testing.assert_allclose(normed(0.25, found, EPSILON), normed(0.25, norm, epsilon), rtol=1e-5)


def test_folding_a_norm_into_the_layer_before_it():
    kernel, bias, norm = random(3, 3, 4, 8), random(8, seed=4), norm_of(8)
    x = random(2, 5, 5, 4, seed=5)
    plain = np.asarray(keras.ops.conv(x, kernel)) + bias
    folded, folded_bias = normalize.fold(kernel, norm, 1e-3, bias)
    assert folded.dtype == folded_bias.dtype == np.float32
    np.testing.assert_allclose(
        np.asarray(keras.ops.conv(x, folded)) + folded_bias, normed(plain, norm, 1e-3), atol=2e-5
    )
    _, without = normalize.fold(kernel, norm, 1e-3)
    np.testing.assert_allclose(without, normed(np.zeros(8), norm, 1e-3), atol=1e-6)


def test_orders():
    deltas = np.array([[1, 2, 3, 4, 5, 6, 7, 8]])  # dx dy dw dh of two boxes
    assert normalize.swap_axes_of_deltas(deltas).tolist() == [[2, 1, 4, 3, 6, 5, 8, 7]]
    assert normalize.background_first(np.array([[1, 2, 0]])).tolist() == [[0, 1, 2]]
    assert normalize.background_first(np.array([1, 1, 2, 2, 0, 0]), 2).tolist() == [0, 0, 1, 1, 2, 2]
    assert normalize.background_first(np.array([[1, 1, 2, 2]]), 2, missing=True).tolist() == [[0, 0, 1, 1, 2, 2]]
    assert normalize.permuted(np.array([10, 11, 20, 21, 30, 31]), (2, 1, 0), 2).tolist() == [30, 31, 20, 21, 10, 11]


def test_two_way_softmax_as_a_sigmoid():
    logits = random(7, 6)
    expected = np.exp(logits.reshape(7, 3, 2)) / np.exp(logits.reshape(7, 3, 2)).sum(-1, keepdims=True)
    found = 1 / (1 + np.exp(-normalize.sigmoid_of_softmax(logits)))
    np.testing.assert_allclose(found, expected[..., 1], rtol=1e-5)

"""Layers of a state dict: which tensors they become, and what a file that lacks something is told."""

import tracemalloc

import numpy as np
import pytest

from mrcnn.weights.importers.torch_layers import StateDict
from mrcnn.weights.source import Lazy


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def state(**more):
    tensors = {
        "conv.weight": random(4, 3, 5, 5),
        "conv.bias": random(4),
        "plain.weight": random(4, 3, 1, 1),
        "fc.weight": random(6, 8),
        "fc.bias": random(6),
    }
    norm = {
        f"norm.{kind}": np.abs(random(4, seed=i)) + 0.5
        for i, kind in enumerate(("weight", "bias", "running_mean", "running_var"))
    }
    return StateDict({**tensors, **norm, **more}, "a.pth")


def test_a_convolution_with_and_without_bias():
    layer = state().convolution("rpn/x", "conv")
    assert {name: tensor.shape for name, tensor in layer.items()} == {"rpn/x/kernel": (5, 5, 3, 4), "rpn/x/bias": (4,)}
    assert layer["rpn/x/kernel"].read()[1, 2, 0, 3] == random(4, 3, 5, 5)[3, 0, 1, 2]
    assert list(state().convolution("x", "plain")) == ["x/kernel"]


@pytest.mark.parametrize("name", ["conv", "plain"])
def test_a_norm_is_folded_in(name):
    layer = state().convolution("x", name, norm="norm")
    tensors = state().tensors
    scale = tensors["norm.weight"] / np.sqrt(tensors["norm.running_var"] + 1e-5)
    bias = random(4) if name == "conv" else 0
    np.testing.assert_allclose(
        layer["x/kernel"].read()[0, 0, 0], tensors[f"{name}.weight"][:, 0, 0, 0] * scale, rtol=1e-5
    )
    np.testing.assert_allclose(
        layer["x/bias"].read(), (bias - tensors["norm.running_mean"]) * scale + tensors["norm.bias"], atol=1e-5
    )


def test_changes_reach_kernel_bias_and_announced_shapes():
    def with_background(values):
        return np.concatenate([values[..., :1] * 0, values], axis=-1)

    layer = state().dense("x", "fc", change=with_background)
    assert layer["x/kernel"].shape == (8, 7) and layer["x/bias"].shape == (7,)
    assert layer["x/bias"].read()[0] == 0 and not layer["x/kernel"].read()[:, 0].any()
    np.testing.assert_array_equal(layer["x/kernel"].read()[:, 1:], random(6, 8).T)


def test_shapes_are_told_without_memory():
    def unread():
        raise AssertionError("read")

    big = {"big.weight": Lazy((1024, 512, 32, 32), unread), "wide.weight": Lazy((1024, 2**18), unread)}
    tracemalloc.start()
    try:
        kernel = state(**big).convolution("x", "big", change=lambda values: values[..., ::2])["x/kernel"]
        dense = state(**big).dense("x", "wide", features=(2**16, 2, 2))["x/kernel"]
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    assert kernel.shape == (32, 32, 512, 512) and dense.shape == (2**18, 1024)


def test_layers_without_numbers_or_with_other_features():
    with pytest.raises(ValueError, match=r"a.pth: huge.weight has shape \(1000000000000, 0\), without any numbers"):
        state(**{"huge.weight": Lazy((10**12, 0), lambda: None)}).dense("x", "huge")
    with pytest.raises(
        ValueError,
        match=r"a.pth: fc.weight has shape \(6, 8\); features of \(channels, y, x\) "
        r"\(2, 2, 1\) would be 4 inputs",
    ):
        state().dense("x", "fc", features=(2, 2, 1))


def test_features_of_a_dense_layer_are_turned():
    layer = state().dense("x", "fc", features=(2, 2, 2))
    features = random(2, 2, 2, seed=9)  # channels, y, x
    np.testing.assert_allclose(
        features.transpose(1, 2, 0).ravel() @ layer["x/kernel"].read(), random(6, 8) @ features.ravel(), rtol=1e-5
    )


def test_half_precision_and_lazy_tensors_become_float32():
    halves = Lazy((4, 3, 1, 1), lambda: random(4, 3, 1, 1).astype(np.float16))
    layer = state(**{"plain.weight": halves, "plain.bias": random(4).astype(np.float64)}).convolution("x", "plain")
    assert {tensor.read().dtype for tensor in layer.values()} == {np.dtype(np.float32)}


def test_what_is_missing_or_of_other_axes_is_named():
    with pytest.raises(ValueError, match="a.pth lacks the tensor 'other.weight'; is it truncated"):
        state().convolution("x", "other")
    with pytest.raises(ValueError, match=r"a.pth: fc.weight has shape \(6, 8\); 4 axes were expected"):
        state().convolution("x", "fc")
    with pytest.raises(ValueError, match=r"a.pth: conv.weight has shape \(4, 3, 5, 5\); 2 axes were expected"):
        state().dense("x", "conv")
    with pytest.raises(ValueError, match="lacks the tensor 'plain.running_mean'"):
        for tensor in state(**{"plain.bias": random(4)}).batch_norm("x", "plain", 0).values():
            tensor.read()


def test_the_number_of_outputs_is_checked():
    state().require_outputs("fc", 6, "nothing")
    with pytest.raises(
        ValueError, match="a.pth: fc has 6 outputs, but a mask for each class would be 5; class-agnostic heads"
    ):
        state().require_outputs("fc", 5, "a mask for each class")


def test_what_layers_were_made_of_is_kept():
    found = state(**{"alien.weight": random(2)})
    assert found.used == set()
    found.convolution("x", "conv", norm="norm")
    found.dense("x", "fc")
    assert found.used & set(found.tensors) == set(found.tensors) - {"alien.weight", "plain.weight"}
    assert state().used == set()
    other = state()
    other.batch_norm("x", "norm", 1e-5)
    assert other.used == {f"norm.{kind}" for kind in ("weight", "bias", "running_mean", "running_var")}


def test_numbers_in_names_are_counted():
    found = state(**{"head.0.weight": 0, "head.0.bias": 0, "head.12.weight": 0, "other.head.3.weight": 0})
    assert found.count(r"head\.(\d+)\.") == 2 and found.count(r"tail\.(\d+)\.") == 0


def test_a_norm_is_there_or_not_or_of_groups():
    assert state().norm_of("norm") == "norm" and state().norm_of("other") is None
    with pytest.raises(ValueError, match="a.pth: conv.weight has no running_var, like GroupNorm"):
        state().norm_of("conv")

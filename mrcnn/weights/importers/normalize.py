"""Removes the linear differences between programs from their weights, in numpy, so that the graph need not know them.

Every function is exact up to rounding to float32; sums and quotients are computed in float64.
"""

from collections.abc import Sequence

import numpy as np

from mrcnn.network.resnet import EPSILON

Norm = tuple[np.ndarray, ...]  # gamma, beta, mean, variance


def torch_kernel(weight: np.ndarray) -> np.ndarray:
    """Kernel (h, w, in, out) from a torch convolution (out, in, h, w), or (h, w, out, in) from a transposed one."""
    return np.ascontiguousarray(np.transpose(weight, (2, 3, 1, 0)), np.float32)


def torch_dense(weight: np.ndarray, features: tuple[int, int, int] | None = None) -> np.ndarray:
    """Kernel (in, out) from a torch linear layer (out, in).

    features: (channels, h, w) of the flattened input; here it is flattened as (h, w, channels).
    """
    if features is None:
        return np.ascontiguousarray(weight.T, np.float32)
    # One copy: these are a fifth of all weights
    kernel = np.ascontiguousarray(weight.reshape(-1, *features).transpose(2, 3, 1, 0), np.float32)
    return kernel.reshape(-1, len(weight))


def batch_norm(norm: Norm, epsilon: float, bias: np.ndarray | None = None) -> Norm:
    """The norm for this network's epsilon, after a convolution whose `bias` is removed.

    The variance absorbs the difference of the epsilons. If it would become negative (dead channels of weights made with
    epsilon 0), gamma absorbs the rest.
    """
    gamma, beta, mean, variance = (np.asarray(value, np.float64) for value in norm)
    shifted = np.maximum(variance + epsilon - EPSILON, 0)
    scale = np.sqrt((shifted + EPSILON) / np.maximum(variance + epsilon, np.finfo(np.float32).tiny))
    mean = mean if bias is None else mean - np.asarray(bias, np.float64)
    return tuple(value.astype(np.float32) for value in (gamma * scale, beta, mean, shifted))


def fold(
    kernel: np.ndarray, norm: Norm, epsilon: float, bias: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias of a convolution or dense layer combined with the norm after it, output channels last."""
    gamma, beta, mean, variance = (np.asarray(value, np.float64) for value in norm)
    scale = gamma / np.sqrt(variance + epsilon)
    before = 0 if bias is None else np.asarray(bias, np.float64)
    return (kernel * scale).astype(np.float32), (beta + (before - mean) * scale).astype(np.float32)


def swap_axes_of_deltas(values: np.ndarray) -> np.ndarray:
    """Reorders (dx, dy, dw, dh) of every box, on the last axis, to (dy, dx, dh, dw)."""
    boxes = values.reshape(*values.shape[:-1], -1, 4)[..., [1, 0, 3, 2]]
    return np.ascontiguousarray(boxes.reshape(values.shape))


def background_first(values: np.ndarray, per_class: int = 1, missing: bool = False) -> np.ndarray:
    """Moves the background from the last class, on the last axis, to the first.

    missing: the background has no values and gets zeros (its boxes and masks are never used).
    """
    if missing:
        zeros = np.zeros((*values.shape[:-1], per_class), values.dtype)
        return np.concatenate([zeros, values], axis=-1)
    return np.concatenate([values[..., -per_class:], values[..., :-per_class]], axis=-1)


def sigmoid_of_softmax(values: np.ndarray) -> np.ndarray:
    """Converts two-way softmax logits (background, object) of every anchor, on the last axis, to a sigmoid's logit.

    softmax(b, o) = sigmoid(o - b), so the weights of a linear layer can be subtracted beforehand.
    """
    pairs = values.reshape(*values.shape[:-1], -1, 2).astype(np.float64)
    return (pairs[..., 1] - pairs[..., 0]).astype(np.float32)


def permuted(values: np.ndarray, order: Sequence[int], each: int = 1) -> np.ndarray:
    """Reorders groups of `each` values on the last axis, for example the anchors at a location."""
    groups = values.reshape(*values.shape[:-1], len(order), each)
    return np.ascontiguousarray(groups[..., list(order), :].reshape(values.shape))

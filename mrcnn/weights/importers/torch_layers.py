"""Layers of a torch state dict as tensors of this network, read lazily.

torchvision and Detectron2 differ in their names; the conversion of a layer's arrays is the same and is here.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mrcnn.weights.importers import normalize
from mrcnn.weights.source import Lazy

Tensors = Mapping[str, Any]  # arrays or `Lazy`, by their names in the file
Change = Callable[[np.ndarray], np.ndarray]  # of the last axis, the outputs
NORM = ("weight", "bias", "running_mean", "running_var")
WAY_OUT = "which this network does not support; use weights of a model with BatchNorm, frozen or not"


def without_statistics(path: str, name: str) -> ValueError:
    """The error for a norm other than BatchNorm: `name` without ".weight"."""
    return ValueError(f"{path}: {name}.weight has no running_var, like GroupNorm, {WAY_OUT}")


class StateDict:
    """The tensors of a file, and the layers made from them.

    Args:
        tensors: by name.
        path: for messages.
        norm_epsilon: of the BatchNorm that is folded into the layer before it.

    Attributes:
        used: names of the tensors that layers were made from.
    """

    def __init__(self, tensors: Tensors, path: str, norm_epsilon: float = 1e-5) -> None:
        self.tensors, self.path, self.norm_epsilon = tensors, path, norm_epsilon
        self.used: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor. Raises ValueError if the file lacks it."""
        if name not in self.tensors:
            raise ValueError(f"{self.path} lacks the tensor {name!r}; is it truncated, or of another model?")
        return tuple(self.tensors[name].shape)

    def read(self, name: str) -> np.ndarray:
        """A tensor's numbers."""
        self.shape(name)
        tensor = self.tensors[name]
        return tensor.read() if isinstance(tensor, Lazy) else np.asarray(tensor)

    def count(self, pattern: str) -> int:
        """Number of distinct values of a regular expression's first group in the names that begin with it."""
        return len({match[1] for name in self.tensors if (match := re.match(pattern, name))})

    def norm_of(self, name: str) -> str | None:
        """The name of a norm to fold in, or None if there is none. Raises ValueError for GroupNorm."""
        if f"{name}.weight" not in self.tensors:
            return None
        if f"{name}.running_var" not in self.tensors:
            raise without_statistics(self.path, name)
        return name

    def require_outputs(self, name: str, count: int, what: str) -> None:
        """Raises ValueError if a layer has another number of outputs, as class-agnostic heads have."""
        outputs = self.shape(f"{name}.weight")[0]
        if outputs != count:
            raise ValueError(
                f"{self.path}: {name} has {outputs} outputs, but {what} would be {count}; class-agnostic heads "
                "are not supported"
            )

    def convolution(
        self, key: str, name: str, *, norm: str | None = None, change: Change | None = None
    ) -> dict[str, Lazy]:
        """The kernel and, if the layer has a bias or `norm`, the bias; the norm is folded in.

        Args:
            key: "part/layer" in this network.
            name: in the file, without ".weight".
            norm: name of the norm after the layer.
            change: applied to the outputs of kernel and bias.
        """
        return self._layer(key, name, normalize.torch_kernel, 4, norm, change)

    def dense(
        self, key: str, name: str, *, features: tuple[int, int, int] | None = None, change: Change | None = None
    ) -> dict[str, Lazy]:
        """Kernel and bias of a dense layer, or of an equivalent 1x1 convolution over points.

        features: (channels, h, w) of the flattened input.
        """
        shape = self.shape(f"{name}.weight")
        if len(shape) == 3 and shape[2] == 1:
            return self._layer(key, name, lambda weight: normalize.torch_dense(weight[..., 0]), 3, None, change)
        if features is not None and len(shape) == 2 and shape[1] != math.prod(features):
            raise ValueError(
                f"{self.path}: {name}.weight has shape {shape}; features of (channels, y, x) {features} "
                f"would be {math.prod(features)} inputs"
            )
        return self._layer(key, name, lambda weight: normalize.torch_dense(weight, features), 2, None, change)

    def batch_norm(self, key: str, name: str, epsilon: float) -> dict[str, Lazy]:
        """The four weights of a norm that is not folded."""
        shape = self.shape(f"{name}.weight")
        self.used |= {f"{name}.{part}" for part in NORM}

        def part(i: int) -> Callable[[], np.ndarray]:
            return lambda: normalize.batch_norm(self._norm(name), epsilon)[i]

        ours = ("gamma", "beta", "moving_mean", "moving_variance")
        return {f"{key}/{weight}": Lazy(shape, part(i)) for i, weight in enumerate(ours)}

    def _norm(self, name: str) -> normalize.Norm:
        return tuple(self.read(f"{name}.{part}") for part in NORM)

    def _layer(
        self, key: str, name: str, layout: Callable, rank: int, norm: str | None, change: Change | None
    ) -> dict[str, Lazy]:
        change = change or (lambda values: values)
        shape = self.shape(f"{name}.weight")
        if len(shape) != rank:
            raise ValueError(f"{self.path}: {name}.weight has shape {shape}; {rank} axes were expected")
        if 0 in shape:  # a file can declare any shape for missing numbers
            raise ValueError(f"{self.path}: {name}.weight has shape {shape}, without any numbers")
        self.used |= {f"{name}.weight", f"{name}.bias"} | {f"{norm}.{part}" for part in NORM if norm}
        kernel_shape = _changed((*(shape[2:] if rank == 4 else ()), *shape[1::-1]), change)
        has_bias = f"{name}.bias" in self.tensors

        def folded() -> tuple[np.ndarray, np.ndarray]:
            kernel = layout(self.read(f"{name}.weight"))
            bias = self.read(f"{name}.bias").astype(np.float32) if has_bias else np.zeros(shape[0], np.float32)
            return normalize.fold(kernel, self._norm(norm), self.norm_epsilon, bias) if norm else (kernel, bias)

        tensors = {f"{key}/kernel": Lazy(kernel_shape, lambda: change(folded()[0]))}
        if has_bias or norm:
            length = self.shape(f"{norm}.bias" if norm else f"{name}.bias")[0]
            tensors[f"{key}/bias"] = Lazy(_changed((length,), change), lambda: change(folded()[1]))
        return tensors


def _changed(shape: tuple[int, ...], change: Change) -> tuple[int, ...]:
    """A shape after `change`, which affects only the last axis: one row is enough, and needs no more than a bias."""
    return *shape[:-1], change(np.zeros(shape[-1], np.float32)).shape[-1]

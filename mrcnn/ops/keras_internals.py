"""All uses of Keras's private names, so that a new version of Keras means checking one file.

`tests/ops/test_keras_internals.py` covers each of them; `make test-oldest` runs it on the oldest Keras version that
pyproject.toml allows.
"""

from collections.abc import Callable
from typing import Any

import keras


def nodes_of(model: keras.Model) -> list[Any]:
    """The layer calls of a functional model, inputs first. Calls of its layers outside the model are not included.

    A node has `operation` (the layer), `input_tensors`, `outputs`, `arguments` and `is_input`.
    """
    return [node for depth in sorted(model._nodes_by_depth, reverse=True) for node in model._nodes_by_depth[depth]]


def node_of(tensor: keras.KerasTensor) -> Any:
    """The layer call that produced a symbolic tensor."""
    operation, index, _ = tensor._keras_history
    return operation._inbound_nodes[index]


def all_layers(layer: keras.layers.Layer, include_self: bool = True) -> list[keras.layers.Layer]:
    """A layer or model and everything inside it, at any depth."""
    return list(layer._flatten_layers(include_self=include_self))


def replace_layers(holder: keras.layers.Layer, replace: Callable[[keras.layers.Layer], keras.layers.Layer]) -> None:
    """Replaces the layers in a layer's attributes, and in lists, tuples and dicts there.

    Not for functional models, whose graph also refers to the layers.
    """
    new = {id(old): replace(old) for old in holder._layers}

    def changed(value: Any) -> Any:
        if isinstance(value, list):
            for i, item in enumerate(value):
                list.__setitem__(value, i, changed(item))  # Keras's tracked list rejects changes to a built layer
        elif isinstance(value, dict):
            for key, item in value.items():
                dict.__setitem__(value, key, changed(item))
        elif type(value) is tuple:
            return tuple(changed(item) for item in value)
        return new.get(id(value), value)

    for name, value in vars(holder).items():
        if name != "_tracker":
            vars(holder)[name] = changed(value)


class OwnReduction:
    """Mixin for an optimizer that combines the replicas' gradients itself, before clipping."""

    def combined(self, gradients: list[Any]) -> list[Any]:
        """The combined gradients of all replicas, from those of this replica."""
        return gradients

    def _clip_gradients(self, grads: list[Any]) -> list[Any]:
        parent: Any = super()
        return parent._clip_gradients(self.combined(grads))

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> list[Any]:
        return list(grads_and_vars)  # already combined

    _get_variable_index: Callable[[Any], int]

    def index_of(self, variable: Any) -> int:
        """The index of a variable in the optimizer's lists, such as `momentums`."""
        return self._get_variable_index(variable)


class Built:
    """Mixin for a model that is already built: Keras's symbolic build would average the replicas' images."""

    def _maybe_symbolic_build(self, *args: Any, **kwargs: Any) -> None:
        pass

    @property
    def strategy(self) -> Any:
        """The `tf.distribute` strategy in whose scope the model was created, or None."""
        return getattr(self, "_distribute_strategy", None)

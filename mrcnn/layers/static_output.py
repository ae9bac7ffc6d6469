"""Layers that say what they return, so that no tracing need find it out."""

from typing import Any

import keras


class Declared(keras.layers.Layer):
    """A layer whose `declared_outputs` stand for its outputs in a graph of unknown sizes.

    Keras would find the outputs of a layer by tracing its `call`. On JAX it does so with one symbol for all unknown
    sizes, which neither sorting nor comparing of sizes can do; so there `call` only ever sees known sizes. TensorFlow
    keeps every graph that has a gradient of its own for good, and with it the weights of a model that is gone.
    """

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        return self.declared_outputs(*args, **kwargs)

    def declared_outputs(self, *args: Any, **kwargs: Any) -> Any:
        """`keras.KerasTensor`s in the structure of `call`'s outputs, from its arguments."""
        raise NotImplementedError(f"{type(self).__name__} does not declare its outputs; give it declared_outputs")


def spec(*shape: int | None, dtype: str = "float32") -> keras.KerasTensor:
    """An output of this shape, None where it is unknown."""
    return keras.KerasTensor(shape, dtype)

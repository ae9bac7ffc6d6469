"""Layers that say what they return, for backends that cannot find it out where sizes are unknown."""

from typing import Any

import keras


class Declared(keras.layers.Layer):
    """A layer whose `declared_outputs` stand for its outputs in a graph of unknown sizes.

    Keras finds the outputs of a layer by tracing its `call`. TensorFlow does so with unknown sizes; JAX with one
    symbol for all of them, which neither sorting nor comparing of sizes can do. On JAX, what is declared is taken
    instead, and `call` only ever sees known sizes.
    """

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        if keras.backend.backend() == "tensorflow":
            return super().compute_output_spec(*args, **kwargs)
        return self.declared_outputs(*args, **kwargs)

    def declared_outputs(self, *args: Any, **kwargs: Any) -> Any:
        """`keras.KerasTensor`s in the structure of `call`'s outputs, from its arguments."""
        raise NotImplementedError(f"{type(self).__name__} does not declare its outputs; give it declared_outputs")


def spec(*shape: int | None, dtype: str = "float32") -> keras.KerasTensor:
    """An output of this shape, None where it is unknown."""
    return keras.KerasTensor(shape, dtype)

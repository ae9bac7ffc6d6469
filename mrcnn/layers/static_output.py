"""Layers that state the shapes and types of their outputs, so that Keras does not trace them to find out."""

from typing import Any

import keras


class StaticOutputLayer(keras.layers.Layer):
    """A layer whose symbolic outputs are `static_outputs`, instead of a trace of its `call`.

    On JAX, Keras traces with one symbol for all unknown sizes, which sorting and comparisons of sizes do not support.
    On TensorFlow, a traced graph with a custom gradient is never freed, nor are the weights of its model.
    """

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        return self.static_outputs(*args, **kwargs)

    def static_outputs(self, *args: Any, **kwargs: Any) -> Any:
        """`keras.KerasTensor`s in the structure of `call`'s outputs, from its arguments."""
        raise NotImplementedError(f"{type(self).__name__} needs a method static_outputs, which states its outputs")


def spec(*shape: int | None, dtype: str = "float32") -> keras.KerasTensor:
    """An output of this shape; None is an unknown size."""
    return keras.KerasTensor(shape, dtype)

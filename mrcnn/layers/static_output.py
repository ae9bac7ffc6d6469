"""Layers that state the shapes and types of their outputs, so that Keras need not trace them."""

from typing import Any

import keras


class StaticOutputLayer(keras.layers.Layer):
    """A layer whose symbolic outputs come from `static_outputs` instead of tracing `call`.

    On JAX, Keras traces with one symbol for all unknown sizes, which sorting and size comparisons do not support.
    On TensorFlow, a traced graph with a custom gradient is never freed, and neither are the weights of its model.
    """

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        return self.static_outputs(*args, **kwargs)

    def static_outputs(self, *args: Any, **kwargs: Any) -> Any:
        """`keras.KerasTensor`s with the structure of `call`'s outputs, for the same arguments."""
        raise NotImplementedError(f"{type(self).__name__} must define static_outputs")


def spec(*shape: int | None, dtype: str = "float32") -> keras.KerasTensor:
    """A symbolic output of this shape; None is an unknown size."""
    return keras.KerasTensor(shape, dtype)

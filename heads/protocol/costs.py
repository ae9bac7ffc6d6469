"""What a head costs: parameters, and multiply-adds per RoI."""

import math
from typing import Any

import keras


def multiply_adds(model: keras.Model, inputs: Any = None) -> int:
    """Multiply-adds of a functional model for each row of its batch, from the kernels of its layers.

    A kernel of a convolution or a dense layer is used once at each output, or at each input of a transposed
    convolution. Layers whose work does not follow from kernels count nothing, unless they have a method
    `multiply_adds(*inputs)`.

    Args:
        inputs: symbolic tensors that give sizes which the model leaves open.
    """
    counted = 0

    def call(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        nonlocal counted
        outputs = layer(*args, **kwargs)
        if hasattr(layer, "multiply_adds"):
            counted += layer.multiply_adds(*args)
        elif isinstance(layer, keras.Model):
            counted += multiply_adds(layer, args[0])
        else:
            tensor = args[0] if isinstance(layer, keras.layers.Conv2DTranspose) else keras.tree.flatten(outputs)[0]
            kernels = [weight for weight in getattr(layer, "weights", ()) if len(weight.shape) > 1]
            counted += sum(math.prod(weight.shape) * _positions(tensor) for weight in kernels)
        return outputs

    fresh = None if inputs is None else keras.tree.map_structure(_input_like, inputs)
    keras.models.clone_model(model, fresh, clone_function=lambda layer: layer, call_function=call)
    return counted


def _input_like(tensor: Any) -> Any:
    return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype)


def _positions(tensor: Any) -> int:
    """Places of a tensor [rows, ..., channels] per row; 0 where it is of unknown size."""
    return math.prod(side or 0 for side in tensor.shape[1:-1])

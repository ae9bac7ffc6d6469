"""Gradients of our own, on TensorFlow, that let go of the graphs in which they are used."""

from collections.abc import Callable, Sequence
from typing import Any


def own_gradient(backward: Callable[..., tuple[Any, ...]], specs: Sequence[Any]) -> Callable[..., Any]:
    """The function (outputs, *inputs) -> outputs, with a gradient to the inputs in place of the operations' own.

    `tf.custom_gradient` in a model's graph would register a function, forever, that refers to this graph and, through
    it, to the weights: no such model could be freed. Here it is traced once, in a small graph of its own. For the same
    reason callers must keep and reuse what this function returns, one per kind of gradient.

    Args:
        backward: (upstream, outputs, *inputs) -> gradient of each input, or None. Uses nothing else that is a tensor.
        specs: `tf.TensorSpec`s of outputs and inputs.
    """
    import tensorflow as tf

    @tf.custom_gradient
    def attached(outputs: Any, *inputs: Any) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
        return tf.identity(outputs), lambda upstream: (None, *backward(upstream, outputs, *inputs))

    return tf.function(attached, input_signature=specs, autograph=False)

"""Functions for a step that several replicas compute together, each with its part of a batch and a copy of all weights.

Every loss is a sum over boxes or masks, divided by their count. The counts are summed over the replicas (`total`), so
that the replicas' losses add up to the loss of the whole batch, and their gradients to its gradient. Outside such a
step, and on backends that compute on the whole batch anyway, these functions return their input.

Source: https://www.tensorflow.org/tutorials/distribute/custom_training, "Define the loss function".
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from mrcnn.ops.keras_internals import Built, all_layers


def _context() -> Any:
    """TensorFlow's replica context in a step of several replicas, else None."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return context if context is not None and context.num_replicas_in_sync > 1 else None


def total(value: Any) -> Any:
    """The sum over all replicas of a tensor, or of each tensor in a list."""
    context = _context()
    return value if context is None else context.all_reduce("SUM", value)


def replica_share(value: Any) -> Any:
    """A replica's share of a value that every replica computes in full, such as a weight's L2 norm; shares add up."""
    context = _context()
    return value if context is None else value / context.num_replicas_in_sync


def whole_batch(loss: Any, parts: dict[str, Any], image_ids: Any) -> tuple[Any, dict[str, Any], Any, Any]:
    """The losses and image ids of the whole batch, from those of this replica's part.

    Args:
        loss: scalar, this replica's share; the shares add up to the batch's loss.
        parts: scalars by name, also shares.
        image_ids: [images of this replica] int32; exact up to 2**24.

    Returns:
        `loss` with this replica's gradient and a value for which Keras displays the batch's loss; the batch's loss;
        its parts; its image_ids [images of the batch].
    """
    context = _context()
    if context is None:
        return loss, loss, parts, image_ids
    replicas, count = context.num_replicas_in_sync, 1 + len(parts)
    place = ops.one_hot(context.replica_id_in_sync_group, replicas, dtype="float32")
    placed_ids = ops.reshape(place[:, None] * ops.cast(image_ids, "float32"), (-1,))
    # One exchange for everything: loss, parts, ids of the first replica, ids of the second, ...
    values = ops.concatenate([ops.stack([loss, *parts.values()]), placed_ids])
    values = context.all_reduce("SUM", ops.stop_gradient(values))
    shown = loss + ops.stop_gradient(values[0] / replicas - loss)  # Keras displays a replica's loss times their number
    parts = {name: values[i] for i, name in enumerate(parts, 1)}
    return shown, values[0], parts, ops.cast(values[count:], "int32")


class ReplicatedModel(Built, keras.Model):
    """A built model whose `fit` runs on all replicas if it was created in the scope of a `tf.distribute` strategy.

    Keras 3's own step functions average the replicas' logs, and fail with a MultiWorkerMirroredStrategy
    (tensorflow#72388). Here the step itself makes the logs equal on all replicas.
    """

    def make_train_function(self, force: bool = False) -> Any:
        return self._make("train_function", self.train_step, super().make_train_function, force)

    def make_test_function(self, force: bool = False) -> Any:
        return self._make("test_function", self.test_step, super().make_test_function, force)

    def _make(self, name: str, step: Callable, make: Callable, force: bool) -> Any:
        if self.strategy is None:
            return make(force)
        if getattr(self, name) is None or force:
            setattr(self, name, _on_replicas(self.strategy, step))
        return getattr(self, name)

    def synchronize_batch_norm(self) -> None:
        """Makes trainable BatchNorm use statistics over all replicas.

        In a mask head, each replica whose images have no positive RoI (only images without objects) adds one padding
        row to them; on one device this happens only for a whole batch without any.
        """
        if self.strategy is not None:
            for layer in all_layers(self):
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.synchronized = True


def _on_replicas(strategy: Any, step: Callable) -> Callable:
    """The function that takes a step with an iterator's next batch and returns the first replica's logs."""
    import tensorflow as tf

    @tf.function(reduce_retracing=True, autograph=False)
    def run(iterator: Any) -> dict[str, Any]:
        logs = strategy.run(step, args=(iterator.get_next(),))
        return {name: strategy.experimental_local_results(value)[0] for name, value in logs.items()}

    return run

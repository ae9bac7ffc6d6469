"""Replicas of a `tf.distribute` strategy, in one process or in several."""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from mrcnn.distribution.strategy import Distribution, Together

GONE = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError)


def local_devices() -> list[str]:
    """The GPUs of this machine; without one, its (virtual) CPUs."""
    return [device.name for device in tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")]


def mirrored(devices: list[str]) -> "Replicas":
    """A replica on each device."""
    return Replicas(tf.distribute.MirroredStrategy(devices))


def workers(addresses: list[str], place: int) -> "Workers":
    """A replica on each GPU of every worker, or on its CPU; the strategy reads TF_CONFIG itself.

    Raises RuntimeError if TensorFlow has been used before.
    """
    return Workers(tf.distribute.MultiWorkerMirroredStrategy(), place, len(addresses))


class Replicas(Distribution):
    """Replicas in this process alone."""

    def __init__(self, strategy: tf.distribute.Strategy, worker: int = 0, workers: int = 1) -> None:
        super().__init__(worker, workers, strategy.num_replicas_in_sync)
        self.strategy = strategy

    def scope(self) -> AbstractContextManager:
        return self.strategy.scope()

    def data(self, train: Any, validation: Any, epochs: int) -> dict[str, Any]:
        return arguments_of_fit(self._dataset, train, validation, epochs)

    def _dataset(self, loader: Any, epochs: int) -> tf.distribute.DistributedDataset:
        """This worker's share of the loader's batches, one part per replica in turn."""
        rows = loader.batch_size // self.replicas
        return self.strategy.distribute_datasets_from_function(lambda _: endless_dataset(loader, epochs, rows))


class Workers(Together, Replicas):
    """Replicas in several processes."""

    @contextmanager
    def scope(self) -> Iterator[None]:
        try:
            with self.strategy.scope():
                yield
        except tf.errors.OpError as error:
            if not isinstance(error, GONE) and "ollective" not in str(error):
                raise
            raise self.lost(re.split("aborted by: ", str(error))[-1].split("The error could be")[0]) from error

    def total(self, values: np.ndarray) -> np.ndarray:
        def step() -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            speaks = tf.equal(context.replica_id_in_sync_group % (self.replicas // self.workers), 0)
            return context.all_reduce("SUM", tf.where(speaks, tf.constant(values, tf.float32), 0.0))

        with self.scope():
            result = tf.function(lambda: self.strategy.run(step))()
            return self.strategy.experimental_local_results(result)[0].numpy().astype(np.uint8)


def arguments_of_fit(dataset: Callable[[Any, int], Any], train: Any, validation: Any, epochs: int) -> dict[str, Any]:
    """Arguments of `fit` for the loaders, each converted by `dataset(loader, epochs)`; `validation` may be None."""
    arguments = {"x": dataset(train, epochs), "steps_per_epoch": len(train)}
    if validation is not None:
        arguments |= {"validation_data": dataset(validation, validation.epoch + 1), "validation_steps": len(validation)}
    return arguments


def endless_dataset(loader: Any, epochs: int, rows: int) -> tf.data.Dataset:
    """The loader's batches from the current position to the end of epoch `epochs`, in parts of `rows` images.

    Keras would infer the shapes of a loader from its first two batches and fail at the first different size.
    """
    signature = {name: tf.TensorSpec((rows, *shape[1:]), dtype) for name, (shape, dtype) in loader.signature().items()}

    def parts() -> Iterator[tuple[dict[str, np.ndarray]]]:
        batch = None
        for batch in loader.batches(epochs):
            yield from _split(batch, rows)
        while (
            batch is not None
        ):  # an endless dataset saves the workers from checking before each step whether all have data
            yield from _split(batch, rows)

    endless = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
    return tf.data.Dataset.from_generator(parts, output_signature=(signature,)).apply(endless).prefetch(1)


def _split(batch: dict[str, np.ndarray], rows: int) -> Iterator[tuple[dict[str, np.ndarray]]]:
    for start in range(0, len(batch["image"]), rows):
        yield ({name: value[start : start + rows] for name, value in batch.items()},)

"""Data parallelism by one setting, `Config.DISTRIBUTION`: several devices, or several machines, train on one batch.

Every replica (a device with a copy of all weights) takes IMAGES_PER_GPU images of a batch of GPU_COUNT times as many.
The losses are those of one device that takes the whole batch, to rounding: see `mrcnn.replicas`.
"""

import json
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from typing import Any

import keras
import numpy as np

from mrcnn.rendezvous import read_cluster, wait_for_all

KINDS = ("mirrored", "multi_worker")
START_TIMEOUT = 600  # seconds that workers wait for each other at the start
TEXT_BYTES = 2**16  # the most that the chief tells the others at once


class WorkerLost(RuntimeError):
    """Another worker has ended, so this one cannot go on; the training can, from its last checkpoint."""


class Distribution:
    """A training on one device; the base of those on several.

    `worker` is this process's number among the `workers` that train together, `replicas` the number of devices of all.
    """

    def __init__(self, worker: int = 0, workers: int = 1, replicas: int = 1) -> None:
        self.worker, self.workers, self.replicas = worker, workers, replicas

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the files, and prints."""
        return self.worker == 0

    def scope(self) -> AbstractContextManager:
        """Network, training model and optimizer must be made inside it."""
        return nullcontext()

    def watched(self) -> AbstractContextManager:
        """Raises WorkerLost where TensorFlow, inside it, ends with another worker."""
        return nullcontext()

    def data(self, train: Any, validation: Any, epochs: int) -> dict[str, Any]:
        """Arguments of `fit` for the loaders (the second may be None) of a training to epoch `epochs`."""
        return {"x": train, "validation_data": validation}

    def meet(self, facts: dict[str, Any], layers: Mapping[str, keras.layers.Layer], text: str) -> str:
        """The chief's `text`, on every worker. All call it, with the same `facts` (for json) and weights of `layers`.

        Raises ValueError on every worker where one has others than the chief, naming which.
        """
        return text

    def callbacks(self, callbacks: list[keras.callbacks.Callback]) -> list[keras.callbacks.Callback]:
        """Those that this worker runs: the chief runs all, others what has an attribute `every_worker = True`."""
        return callbacks


class Replicas(Distribution):
    """Replicas of a `tf.distribute` strategy, in this process alone."""

    def __init__(self, strategy: Any, worker: int = 0, workers: int = 1) -> None:
        super().__init__(worker, workers, strategy.num_replicas_in_sync)
        self.strategy = strategy

    def scope(self) -> AbstractContextManager:
        return self.strategy.scope()

    def data(self, train: Any, validation: Any, epochs: int) -> dict[str, Any]:
        arguments = {"x": self._dataset(train, epochs), "steps_per_epoch": len(train)}
        if validation is not None:
            arguments |= {"validation_data": self._dataset(validation, validation.epoch + 1),
                          "validation_steps": len(validation)}
        return arguments

    def _dataset(self, loader: Any, epochs: int) -> Any:
        """This worker's share of the loader's batches, a part for each of its replicas in turn."""
        import tensorflow as tf

        first = loader[0][0]
        rows = len(first["image"]) * self.workers // self.replicas
        signature = {name: tf.TensorSpec((rows, *value.shape[1:]), value.dtype) for name, value in first.items()}

        def parts() -> Iterator[tuple[dict[str, np.ndarray]]]:
            batch = first
            for batch in loader.batches(epochs):
                yield from _split(batch, rows)
            while True:  # without an end, workers need not ask each other before each step whether there is one
                yield from _split(batch, rows)

        def dataset(_: Any) -> Any:
            endless = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
            return tf.data.Dataset.from_generator(parts, output_signature=(signature,)).apply(endless)

        return self.strategy.distribute_datasets_from_function(dataset)


class Workers(Replicas):
    """Replicas in several processes, each of which runs the same program."""

    @contextmanager
    def scope(self) -> Iterator[None]:
        with self.watched(), self.strategy.scope():  # the workers tell each other the initial weights
            yield

    @contextmanager
    def watched(self) -> Iterator[None]:
        import tensorflow as tf

        gone = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError,
                tf.errors.DeadlineExceededError)
        try:
            yield
        except tf.errors.OpError as error:
            if not isinstance(error, gone) and "ollective" not in str(error):
                raise
            why = re.split(r"aborted by: ", str(error))[-1].split("The error could be")[0]
            raise WorkerLost(
                f"worker {self.worker} of {self.workers} cannot go on without another ({' '.join(why.split())[:400]}). "
                'Start all workers again; with load_weights("last") before train they go on from the newest '
                "checkpoint.") from error

    def meet(self, facts: dict[str, Any], layers: Mapping[str, keras.layers.Layer], text: str) -> str:
        mine = json.loads(json.dumps({**facts, "checksum of the weights": _checksum(layers)}))
        told = json.loads(self._from_chief(json.dumps([mine, text])))
        other = [f"{name} is {mine.get(name)!r} here and {told[0].get(name)!r} there"
                 for name in sorted({*mine, *told[0]}) if mine.get(name) != told[0].get(name)]
        differ = self._sum(np.eye(self.workers)[self.worker] * bool(other))
        if differ.any():
            raise ValueError(f"workers {np.flatnonzero(differ).tolist()} do not hold what worker 0 holds: every worker "
                             "runs the same program, on the same data, from the same file of weights. Worker "
                             f"{self.worker}: {'; '.join(other) or 'nothing differs'}.")
        return told[1]

    def callbacks(self, callbacks: list[keras.callbacks.Callback]) -> list[keras.callbacks.Callback]:
        mine = [c for c in callbacks if self.is_chief or getattr(c, "every_worker", False)]
        return [*mine, StopTogether(self)]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on one of the workers, all of which call it."""
        return bool(self._sum(np.array([flag]))[0])

    def _from_chief(self, text: str) -> str:
        data = text.encode() if self.is_chief else b""
        if len(data) > TEXT_BYTES:
            raise ValueError(f"{len(data)} bytes are too many to tell the other workers: {text[:200]!r} ...")
        return self._sum(np.frombuffer(data.ljust(TEXT_BYTES, b"\0"), np.uint8)).tobytes().rstrip(b"\0").decode()

    def _sum(self, values: np.ndarray) -> np.ndarray:
        """The sum over the workers of small whole numbers, as uint8."""
        import tensorflow as tf

        def one() -> Any:
            context = tf.distribute.get_replica_context()
            speaks = tf.equal(context.replica_id_in_sync_group % (self.replicas // self.workers), 0)
            return context.all_reduce("SUM", tf.where(speaks, tf.constant(values, tf.float32), 0.0))

        with self.watched():
            result = tf.function(lambda: self.strategy.run(one))()
            return self.strategy.experimental_local_results(result)[0].numpy().astype(np.uint8)


class StopTogether(keras.callbacks.Callback):
    """Ends `fit` on all workers after the same epoch, once a callback of one of them has set `stop_training`."""

    every_worker = True

    def __init__(self, workers: Workers) -> None:
        super().__init__()
        self.workers, self.asked = workers, False

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        # The others would wait without end for the rest of the epoch
        self.asked, self.model.stop_training = self.asked or self.model.stop_training, False

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.model.stop_training = self.workers.any(self.asked or self.model.stop_training)


def _checksum(layers: Mapping[str, keras.layers.Layer]) -> int:
    checksum = 0
    for layer in layers.values():
        for weight in layer.weights:
            checksum = zlib.crc32(np.ascontiguousarray(keras.ops.convert_to_numpy(weight)), checksum)
    return checksum


def _split(batch: dict[str, np.ndarray], rows: int) -> Iterator[tuple[dict[str, np.ndarray]]]:
    for start in range(0, len(batch["image"]), rows):
        yield ({name: value[start:start + rows] for name, value in batch.items()},)


@lru_cache
def start(kind: str | None, replicas: int) -> Distribution:
    """The distribution of a DISTRIBUTION and GPU_COUNT, the same object for the same two in one process.

    Raises ValueError when there are other than `replicas` devices to be had, TimeoutError when a worker is missing,
    RuntimeError when TensorFlow has begun to work before the workers met.
    """
    if kind is None:
        return Distribution()
    if keras.backend.backend() != "tensorflow":
        raise NotImplementedError(f"DISTRIBUTION = {kind!r} runs on the TensorFlow backend; this is "
                                  f"{keras.backend.backend()}. Set it to None.")
    if replicas < 2:
        raise ValueError(f"GPU_COUNT = {replicas} with DISTRIBUTION = {kind!r}: set it to the number of devices of "
                         "all workers, or DISTRIBUTION to None.")
    return _start_workers(replicas) if kind == "multi_worker" else _start_mirrored(replicas)


def _start_mirrored(replicas: int) -> Replicas:
    import tensorflow as tf

    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) < replicas:
        raise ValueError(f"GPU_COUNT = {replicas}, and TensorFlow sees {len(devices)}: "
                         f"{', '.join(device.name for device in devices)}. Lower it.")
    return Replicas(tf.distribute.MirroredStrategy([device.name for device in devices[:replicas]]))


def _start_workers(replicas: int) -> Workers:
    import tensorflow as tf

    addresses, index = read_cluster()
    wait_for_all(addresses, index, START_TIMEOUT)
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise RuntimeError('with DISTRIBUTION = "multi_worker", make MaskRCNN before anything else in the program runs '
                           f"on TensorFlow: {error}") from error
    if strategy.num_replicas_in_sync != replicas:
        raise ValueError(f"GPU_COUNT = {replicas}, but the {len(addresses)} workers have "
                         f"{strategy.num_replicas_in_sync} devices. Set it to that.")
    return Workers(strategy, index, len(addresses))

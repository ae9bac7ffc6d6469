"""The interface of training on several devices or processes, and its single-device implementation."""

import json
import zlib
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
import numpy as np

TEXT_BYTES = 2**16  # maximum size of a message from the chief to the other workers


class WorkerLost(RuntimeError):
    """Another worker has ended, so this one cannot continue; training can continue from the last checkpoint."""


class Distribution:
    """Training on one device, and the base class of distributed training.

    `worker` is this process's index among the `workers` that train together; `replicas` is the total number of devices.
    """

    def __init__(self, worker: int = 0, workers: int = 1, replicas: int = 1) -> None:
        self.worker, self.workers, self.replicas = worker, workers, replicas

    @property
    def is_chief(self) -> bool:
        """Whether this process writes files and prints."""
        return self.worker == 0

    def scope(self) -> AbstractContextManager:
        """The context in which to create network, training model and optimizer, and to run `fit`.

        Raises WorkerLost if code inside it fails because another worker ended.
        """
        return nullcontext()

    def data(self, train: Any, validation: Any, epochs: int) -> dict[str, Any]:
        """Arguments of `fit` for training to epoch `epochs` with the loaders; `validation` may be None."""
        if keras.backend.backend() != "tensorflow":
            return {"x": train, "validation_data": validation}
        from mrcnn.distribution.tensorflow import arguments_of_fit, endless_dataset

        return arguments_of_fit(
            lambda loader, last: endless_dataset(loader, last, loader.batch_size), train, validation, epochs
        )

    def meet(self, facts: dict[str, Any], layers: Mapping[str, keras.layers.Layer], text: str) -> str:
        """The chief's `text`, on every worker. All call it, with equal `facts` (for json) and weights of `layers`.

        Raises ValueError on every worker if facts or weights differ from the chief's, naming the differences.
        """
        return text

    def callbacks(self, callbacks: list[keras.callbacks.Callback]) -> list[keras.callbacks.Callback]:
        """The callbacks that this worker runs: all on the chief, those with `every_worker = True` on other workers."""
        return callbacks


class Together(Distribution):
    """One of several processes that train together, each running the same program."""

    @abstractmethod
    def total(self, values: np.ndarray) -> np.ndarray:
        """The sum over the workers of integers from 0 to 255, as uint8. All workers must call it."""

    def meet(self, facts: dict[str, Any], layers: Mapping[str, keras.layers.Layer], text: str) -> str:
        mine = json.loads(json.dumps({**facts, "checksum of the weights": _checksum(layers)}))
        theirs, text = json.loads(self._from_chief(json.dumps([mine, text])))
        other = [
            f"{name} is {mine.get(name)!r} here and {theirs.get(name)!r} there"
            for name in sorted({*mine, *theirs})
            if mine.get(name) != theirs.get(name)
        ]
        differ = self.total(np.arange(self.workers) == (self.worker if other else -1))
        if differ.any():
            raise ValueError(
                f"workers {np.flatnonzero(differ).tolist()} differ from worker 0: every worker must "
                "run the same program, on the same data, from the same weight file. Worker "
                f"{self.worker}: {'; '.join(other) or 'nothing differs'}."
            )
        return text

    def callbacks(self, callbacks: list[keras.callbacks.Callback]) -> list[keras.callbacks.Callback]:
        mine = [c for c in callbacks if self.is_chief or getattr(c, "every_worker", False)]
        return [*mine, StopTogether(self)]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any worker. All workers must call it."""
        return bool(self.total(np.array([flag]))[0])

    def lost(self, why: str) -> WorkerLost:
        """The error to raise when another worker is lost."""
        return WorkerLost(
            f"worker {self.worker} of {self.workers} lost another worker ({' '.join(why.split())[:400]}). Start all "
            'workers again; with load_weights("last") before train they continue from the newest checkpoint.'
        )

    def _from_chief(self, text: str) -> str:
        data = text.encode() if self.is_chief else b""
        if len(data) > TEXT_BYTES:
            raise ValueError(f"{len(data)} bytes are too many to send to the other workers: {text[:200]!r} ...")
        return self.total(np.frombuffer(data.ljust(TEXT_BYTES, b"\0"), np.uint8)).tobytes().rstrip(b"\0").decode()


class StopTogether(keras.callbacks.Callback):
    """Ends `fit` on all workers after the same epoch, once a callback on any of them has set `stop_training`."""

    every_worker = True

    def __init__(self, workers: Together) -> None:
        super().__init__()
        self.workers, self.asked = workers, False

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        # Otherwise the other workers would wait forever for the rest of the epoch
        self.asked, self.model.stop_training = self.asked or self.model.stop_training, False

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.model.stop_training = self.workers.any(self.asked or self.model.stop_training)


def _checksum(layers: Mapping[str, keras.layers.Layer]) -> int:
    checksum = 0
    for layer in layers.values():
        for weight in layer.weights:
            checksum = zlib.crc32(np.asarray(keras.ops.convert_to_numpy(weight)).tobytes(), checksum)
    return checksum

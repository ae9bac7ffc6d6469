"""What a training that is spread over several devices or processes offers, and its form for a single device."""

import json
import zlib
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
import numpy as np

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
        """Network, training model and optimizer must be made inside it, and `fit` run.

        Raises WorkerLost where something inside it ends with another worker.
        """
        return nullcontext()

    def data(self, train: Any, validation: Any, epochs: int) -> dict[str, Any]:
        """Arguments of `fit` for the loaders (the second may be None) of a training to epoch `epochs`."""
        if keras.backend.backend() != "tensorflow":
            return {"x": train, "validation_data": validation}
        from mrcnn.distribution.tensorflow import arguments_of_fit, endless_dataset

        return arguments_of_fit(
            lambda loader, last: endless_dataset(loader, last, loader.batch_size), train, validation, epochs
        )

    def meet(self, facts: dict[str, Any], layers: Mapping[str, keras.layers.Layer], text: str) -> str:
        """The chief's `text`, on every worker. All call it, with the same `facts` (for json) and weights of `layers`.

        Raises ValueError on every worker where one has others than the chief, naming which.
        """
        return text

    def callbacks(self, callbacks: list[keras.callbacks.Callback]) -> list[keras.callbacks.Callback]:
        """Those that this worker runs: the chief runs all, others what has an attribute `every_worker = True`."""
        return callbacks


class Together(Distribution):
    """One of several processes that train together, each of which runs the same program."""

    @abstractmethod
    def total(self, values: np.ndarray) -> np.ndarray:
        """The sum over the workers, all of which call it, of whole numbers from 0 to 255, as uint8."""

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
                f"workers {np.flatnonzero(differ).tolist()} do not hold what worker 0 holds: every worker "
                "runs the same program, on the same data, from the same file of weights. Worker "
                f"{self.worker}: {'; '.join(other) or 'nothing differs'}."
            )
        return text

    def callbacks(self, callbacks: list[keras.callbacks.Callback]) -> list[keras.callbacks.Callback]:
        mine = [c for c in callbacks if self.is_chief or getattr(c, "every_worker", False)]
        return [*mine, StopTogether(self)]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on one of the workers, all of which call it."""
        return bool(self.total(np.array([flag]))[0])

    def lost(self, why: str) -> WorkerLost:
        """The error of a worker that has lost another."""
        return WorkerLost(
            f"worker {self.worker} of {self.workers} cannot go on without another ({' '.join(why.split())[:400]}). "
            'Start all workers again; with load_weights("last") before train they go on from the newest checkpoint.'
        )

    def _from_chief(self, text: str) -> str:
        data = text.encode() if self.is_chief else b""
        if len(data) > TEXT_BYTES:
            raise ValueError(f"{len(data)} bytes are too many to tell the other workers: {text[:200]!r} ...")
        return self.total(np.frombuffer(data.ljust(TEXT_BYTES, b"\0"), np.uint8)).tobytes().rstrip(b"\0").decode()


class StopTogether(keras.callbacks.Callback):
    """Ends `fit` on all workers after the same epoch, once a callback of one of them has set `stop_training`."""

    every_worker = True

    def __init__(self, workers: Together) -> None:
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
            checksum = zlib.crc32(np.asarray(keras.ops.convert_to_numpy(weight)).tobytes(), checksum)
    return checksum

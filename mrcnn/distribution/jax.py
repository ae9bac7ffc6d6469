"""Distribution over a `keras.distribution.DataParallel` mesh, in one process or several."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import jax
import keras
import numpy as np

from mrcnn.distribution.strategy import Distribution, Together

HEARTBEAT = 20  # seconds without a heartbeat after which a worker counts as lost


def local_devices() -> list[str]:
    """The accelerators of this machine; without one, its (virtual) CPUs."""
    return keras.distribution.list_devices()


def mirrored(devices: list[str]) -> "Shards":
    """A part of the batch on each device."""
    return Shards(devices)


def workers(addresses: list[str], place: int) -> "ShardWorkers":
    """A part of the batch on each device of every worker.

    Raises RuntimeError if JAX has been used before.
    """
    # Like keras.distribution.initialize, which however lets a process wait for 100 seconds after it lost another
    jax.distributed.initialize(addresses[0], len(addresses), place, heartbeat_timeout_seconds=HEARTBEAT)
    return ShardWorkers(keras.distribution.list_devices(), place, len(addresses))


class Shards(Distribution):
    """Devices of this process alone."""

    def __init__(self, devices: list[str], worker: int = 0, workers: int = 1) -> None:
        super().__init__(worker, workers, len(devices))
        # Each worker's loader builds only its own share
        self.mesh = keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False)

    def scope(self) -> AbstractContextManager:
        return self.mesh.scope()


class ShardWorkers(Together, Shards):
    """Devices of several processes."""

    @contextmanager
    def scope(self) -> Iterator[None]:
        try:
            with self.mesh.scope():
                yield
        except jax.errors.JaxRuntimeError as error:
            raise self.lost(str(error)) from error

    def total(self, values: np.ndarray) -> np.ndarray:
        from jax.experimental import multihost_utils

        with self.scope():
            return np.asarray(multihost_utils.process_allgather(np.asarray(values, np.int32))).sum(0).astype(np.uint8)

"""Data-parallel training, selected by `Config.DISTRIBUTION`: several devices or machines train on one batch.

Every replica (a device with a copy of all weights) takes IMAGES_PER_GPU images of a batch of GPU_COUNT times as many.
The losses equal those of one device that takes the whole batch, to rounding. TensorFlow uses `tf.distribute`, with the
counts and gradients of the whole batch (`mrcnn.distribution.replicas`). JAX uses `keras.distribution`, where a step is
one program over the whole batch, which XLA divides among the devices.
"""

from functools import lru_cache
from importlib import import_module

import keras

from mrcnn.distribution.rendezvous import read_cluster, wait_for_all
from mrcnn.distribution.strategy import Distribution

START_TIMEOUT = 600  # seconds that workers wait for each other at the start


@lru_cache
def start(kind: str | None, replicas: int) -> Distribution:
    """The distribution of a DISTRIBUTION and GPU_COUNT, the same object for the same two in one process.

    Raises ValueError when there are other than `replicas` devices to be had, TimeoutError when a worker is missing,
    RuntimeError when the backend has begun to work before the workers met, NotImplementedError on other backends.
    """
    if kind is None:
        return Distribution()
    backend = keras.backend.backend()
    if backend not in ("tensorflow", "jax"):
        raise NotImplementedError(f"DISTRIBUTION = {kind!r} runs on TensorFlow and JAX; the backend is {backend}.")
    engine = import_module(f"mrcnn.distribution.{backend}")
    if replicas < 2:
        raise ValueError(
            f"GPU_COUNT = {replicas} with DISTRIBUTION = {kind!r}: set it to the number of devices of "
            "all workers, or DISTRIBUTION to None."
        )
    if kind == "mirrored":
        devices = engine.local_devices()
        if len(devices) < replicas:
            raise ValueError(f"GPU_COUNT = {replicas}, and {backend} sees {len(devices)}: {', '.join(devices)}.")
        return engine.mirrored(devices[:replicas])
    addresses, place = read_cluster()
    wait_for_all(addresses, place, START_TIMEOUT)
    try:
        workers = engine.workers(addresses, place)
    except RuntimeError as error:
        raise RuntimeError(
            'with DISTRIBUTION = "multi_worker", make MaskRCNN before anything else in the program uses '
            f"{backend}: {error}"
        ) from error
    if workers.replicas != replicas:
        raise ValueError(
            f"GPU_COUNT = {replicas}, but the {len(addresses)} workers have {workers.replicas} devices. Set it to that."
        )
    return workers

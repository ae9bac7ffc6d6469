"""Data-parallel training, selected by `Config.DISTRIBUTION`: several devices or machines train on one batch.

Every replica (a device with a copy of all weights) processes IMAGES_PER_GPU of the batch's GPU_COUNT * IMAGES_PER_GPU
images. The losses equal those of one device with the whole batch, up to rounding. TensorFlow uses `tf.distribute`, with
the counts and gradients of the whole batch (`mrcnn.distribution.replicas`). JAX uses `keras.distribution`: a step is
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
    """The distribution for DISTRIBUTION and GPU_COUNT; equal arguments in one process return the same object.

    Raises ValueError if the number of devices is not `replicas`, TimeoutError if a worker is missing, RuntimeError if
    the backend was used before the workers connected, NotImplementedError on other backends.
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
            raise ValueError(f"GPU_COUNT = {replicas}, but {backend} sees {len(devices)}: {', '.join(devices)}.")
        return engine.mirrored(devices[:replicas])
    addresses, place = read_cluster()
    wait_for_all(addresses, place, START_TIMEOUT)
    try:
        workers = engine.workers(addresses, place)
    except RuntimeError as error:
        raise RuntimeError(
            'with DISTRIBUTION = "multi_worker", create MaskRCNN before anything else in the program uses '
            f"{backend}: {error}"
        ) from error
    if workers.replicas != replicas:
        raise ValueError(
            f"GPU_COUNT = {replicas}, but the {len(addresses)} workers have {workers.replicas} devices: set it to that."
        )
    return workers

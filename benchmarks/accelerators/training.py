"""Training steps on the device."""

import time
from typing import Any

import jax

from accelerators.detection import median_ms
from accelerators.networks import seeded, settings, training_batch
from mrcnn.training.model import TrainingModel, compile_model, set_trainable


def time_training(network: str, precision: str, batch: int, size: tuple[int, int], runs: int, **more: Any) -> dict:
    """The figures of one configuration, as a row of the table: steps on one batch that is ready."""
    config = settings(network, precision=precision, batch=batch, WARMUP_STEPS=1, **more)
    parts = seeded(config)
    set_trainable(parts, "all", train_bn=False)
    model = TrainingModel(parts, config)
    compile_model(model, config, learning_rate=1e-6, total_steps=1000)
    given = training_batch(config, *size)
    start = time.perf_counter()
    loss = float(model.train_on_batch(given)[0])
    first = time.perf_counter() - start
    ms = median_ms(lambda: float(model.train_on_batch(given)[0]), runs)
    return {
        "ms": ms / batch,
        "images/s": 1000 * batch / ms,
        "compile, s": first - ms / 1000,
        "MB": peak_megabytes(),
        "loss": loss,
    }


def peak_megabytes() -> float | None:
    """The most memory that this process has had on the device; None where it does not tell."""
    stats = jax.local_devices()[0].memory_stats()
    return stats["peak_bytes_in_use"] / 1e6 if stats and "peak_bytes_in_use" in stats else None

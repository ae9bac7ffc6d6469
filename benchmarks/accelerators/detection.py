"""Detection on the device: compiled ahead, timed, its memory, and where the time goes."""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from accelerators import profiles
from accelerators.networks import find_much, inputs, seeded, settings
from mrcnn.network.graph import inference_graph


def compiled(network: str, precision: str, given: dict[str, np.ndarray], *, much: bool, **more: Any) -> tuple:
    """(call, seconds of compiling, MB): the inference graph as a program for inputs of these shapes.

    `call` takes arrays on the device or of NumPy. MB are its arguments, outputs and intermediate values together; None
    where the device does not tell.
    """
    config = settings(network, precision=precision, batch=len(given["image"]), **more)
    parts = seeded(config)
    if much:
        find_much(parts)
    graph = inference_graph(parts, config, fast=True)
    weights = [v.value for v in graph.trainable_variables], [v.value for v in graph.non_trainable_variables]

    def run(trainable: Any, fixed: Any, values: dict[str, Any]) -> Any:
        return graph.stateless_call(trainable, fixed, values, training=False)[0]

    start = time.perf_counter()
    program = jax.jit(run).lower(*weights, given).compile()
    seconds = time.perf_counter() - start
    return (lambda values: program(*weights, values)), seconds, _megabytes(program)


def _megabytes(program: Any) -> float | None:
    found = program.memory_analysis()
    names = ("argument_size_in_bytes", "output_size_in_bytes", "temp_size_in_bytes")
    return sum(getattr(found, name) for name in names) / 1e6 if found is not None else None


def time_detection(network: str, precision: str, batch: int, size: tuple[int, int], runs: int, **more: Any) -> dict:
    """The figures of one configuration, as a row of the table; 100 objects an image."""
    given = inputs(batch, *size)
    call, seconds, memory = compiled(network, precision, given, much=True, **more)
    there = jax.device_put(given)
    alone = median_ms(lambda: jax.block_until_ready(call(there)), runs)
    whole = median_ms(lambda: jax.tree.map(np.asarray, call(given)), runs)
    found = int(np.asarray(call(there)["valid"]).sum())
    return {
        "ms": alone / batch,
        "with transfers, ms": whole / batch,
        "compile, s": seconds,
        "MB": memory,
        "objects": found / batch,
    }


def median_ms(call: Callable[[], Any], runs: int) -> float:
    """Median milliseconds of a call, after one that is not counted."""
    call()
    taken = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        taken.append(1000 * (time.perf_counter() - start))
    return statistics.median(taken)


def profile(network: str, precision: str, size: tuple[int, int], calls: int = 3, **more: Any) -> dict[str, dict]:
    """What `profiles.summed` says of calls with one image."""
    given = jax.device_put(inputs(1, *size))
    call, _, _ = compiled(network, precision, given, much=True, **more)
    jax.block_until_ready(call(given))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(calls):
                jax.block_until_ready(call(given))
        (file,) = Path(folder).rglob("*.xplane.pb")
        return profiles.summed(jax.profiler.ProfileData.from_file(str(file)), calls)

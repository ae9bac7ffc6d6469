"""What benchmarks share: flags, generated photographs, times, peak memory, and the one json line."""

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from machine import processor
from peers.systems import SYSTEMS

from mrcnn.config import key_value


def parser(description: str) -> argparse.ArgumentParser:
    """Flags of both benchmarks."""
    flags = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--backbone", default="resnet101")
    flags.add_argument("--backbone-option", type=key_value, action="append", default=[], metavar="NAME=VALUE")
    flags.add_argument("--head", default="fcn")
    flags.add_argument("--system", choices=list(SYSTEMS), default="fpn", help="one of the paper's; only fpn has --head")
    flags.add_argument("--size", type=int, default=1024, help="side of the square photograph in pixels")
    flags.add_argument("--classes", type=int, default=81)
    flags.add_argument("--batch", type=int, default=1)
    flags.add_argument("--precision", default="float32", choices=["float32", "bfloat16", "auto"])
    flags.add_argument("--runs", type=int, default=5, help="timed runs, after one that is not counted")
    return flags


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The configuration's settings that the flags name."""
    return {
        "NAME": "benchmark",
        "BACKBONE": arguments.backbone,
        "BACKBONE_OPTIONS": dict(arguments.backbone_option),
        "MASK_HEAD": arguments.head,
        "NUM_CLASSES": arguments.classes,
        "PRECISION": arguments.precision,
        "IMAGE_MIN_DIM": arguments.size,
        "IMAGE_MAX_DIM": arguments.size,
        "IMAGES_PER_GPU": arguments.batch,
        "DETECTION_BATCH_SIZE": arguments.batch,
        **SYSTEMS[arguments.system],
    }


def photographs(count: int, height: int, width: int | None = None) -> list[np.ndarray]:
    """Noise over waves: their values do not matter, as speed does not depend on them; without a width square."""
    rng, width = np.random.default_rng(0), width or height
    waves = 127 + 80 * np.sin(np.arange(height)[:, None, None] / 17 + np.arange(width)[None, :, None] / 23)
    return [np.clip(waves + rng.normal(0, 30, (height, width, 3)), 0, 255).astype(np.uint8) for _ in range(count)]


def median_ms(call: Callable[[], Any], runs: int) -> float:
    """Median milliseconds of a call over `runs`, after one that is not counted."""
    call()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return round(1000 * statistics.median(seconds), 1)


def in_turn(calls: dict[str, Callable], runs: int) -> dict[str, float]:
    """Least seconds of each call, all in turn, after two that are not counted: what others do only adds to them."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(runs + 2):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - start)
    return {name: min(seconds[2:]) for name, seconds in taken.items()}


def peak_memory_mb() -> int:
    """Largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1024 * 1024 if sys.platform == "darwin" else 1024))


def report(arguments: argparse.Namespace, **figures: Any) -> None:
    """One json line: what was measured, then the figures."""
    what = {name: getattr(arguments, name) for name in ("backbone", "system", "head", "size", "batch", "precision")}
    print(json.dumps({**what, "processor": processor(), **figures}))

"""Outputs of the original programs, where they are at hand: a folder beside the checkout."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "oracles"


def path(name: str) -> Path:
    """A file of the oracles; skips the test where it is not there."""
    if not (FOLDER / name).is_file():
        pytest.skip(f"needs the oracle file {name}")
    return FOLDER / name


def load(name: str) -> dict[str, np.ndarray]:
    """The arrays of an npz file of the oracles, read-only; skips the test where it is not there."""
    return _load(path(name))


@lru_cache(maxsize=4)
def _load(file: Path) -> dict[str, np.ndarray]:
    with np.load(file) as arrays:
        values = {key: arrays[key] for key in arrays.files}
    for value in values.values():
        value.flags.writeable = False
    return values

"""Fingerprints of datasets: the same hash on every machine with the same images and annotations."""

import dataclasses
import hashlib
import os
from collections.abc import Mapping, Set
from typing import Any

import numpy as np

from mrcnn.data.dataset import Dataset

DEEPEST = 20  # maximum nesting level that is read in an image's record


def fingerprint(dataset: Dataset) -> str:
    """A hash of the class names, every image's record, and the dataset's plain attributes, such as a seed.

    Folders are ignored: only the file's name and size count. Annotations count if the dataset keeps them in
    `image_info`, as those of `mrcnn.data.formats` do.
    """
    digest = hashlib.sha256()
    plain = {name: value for name, value in vars(dataset).items() if isinstance(value, str | int | float)}
    _feed(digest, [type(dataset).__qualname__, dataset.class_names, dataset.image_info, plain], 0)
    return digest.hexdigest()


def _feed(digest: Any, value: Any, depth: int) -> None:
    """Adds a value to the hash, container by container."""
    if isinstance(value, os.PathLike) or (isinstance(value, str) and os.path.isabs(value)):
        path = os.fspath(value)
        value = (os.path.basename(path), os.path.getsize(path) if os.path.isfile(path) else 0)
    digest.update(type(value).__name__.encode())
    if depth > DEEPEST:
        return
    if isinstance(value, np.ndarray) and value.dtype != object:
        digest.update(f"{value.dtype.str}{value.shape}".encode() + value.tobytes())
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            _feed(digest, key, depth + 1)
            _feed(digest, value[key], depth + 1)
    elif _is_flat(value):
        digest.update(repr(value).encode())
    elif isinstance(value, list | tuple | np.ndarray | Set):
        digest.update(str(len(value)).encode())
        for item in sorted(value, key=str) if isinstance(value, Set) else value:
            _feed(digest, item, depth + 1)
    elif dataclasses.is_dataclass(value):  # it may have slots
        _feed(digest, {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}, depth + 1)
    elif hasattr(value, "__dict__"):
        _feed(digest, vars(value), depth + 1)
    else:
        digest.update(_plain(value).encode())


def _is_flat(value: Any) -> bool:
    """Whether a value is a list of plain numbers, such as a polygon, which one `repr` covers."""
    return isinstance(value, list | tuple) and all(type(item) in (int, float) for item in value)


def _plain(value: Any) -> str:
    """The text of a number, string or similar; for other objects, whose text may contain an address, the type name."""
    plain = isinstance(value, str | bytes | int | float | complex | np.generic) or value is None
    return repr(value) if plain else type(value).__qualname__

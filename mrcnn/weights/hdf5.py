"""Untrusted HDF5 files: read only if they contain every number that they declare.

HDF5 can store the data of a dataset in any other file of the machine (external storage, virtual datasets, external
links), and reads missing data as zeros. No program saves weights like that, so both are rejected with an error.
"""

import math
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import h5py
import numpy as np

from mrcnn.weights.source import Lazy

NUMBERS = "biuf"  # kinds of numpy dtypes
FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}
CHECKSUM = "crc32"  # attribute of our own scalars, for which HDF5 keeps no checksum
MAX_OBJECTS, MAX_DEPTH, MAX_NAME = 100_000, 32, 300
EXPANDED = 8  # maximum size of all datasets, in multiples of the file size,
FREE_BYTES = 2**24  # plus this many bytes
OTHER_LINKS = {h5py.h5l.TYPE_SOFT: "a soft link", h5py.h5l.TYPE_EXTERNAL: "an external link to another file"}


class Dataset(NamedTuple):
    """A dataset of numbers; `dtype` is None if it contains anything else."""

    shape: tuple[int, ...]
    dtype: np.dtype | None


def require_checkpoint(path: str) -> None:
    """Raises FileNotFoundError if there is no file at the path."""
    if not os.path.isfile(path):
        found = " (it is a folder)" if os.path.isdir(path) else ""
        raise FileNotFoundError(f"no checkpoint file at {path}{found}; `mrcnn weights` lists those known by name")


@contextmanager
def open_hdf5(path: str | os.PathLike[str], advice: str = "fetch it again") -> Iterator[h5py.File]:
    """Opens the file for reading; any error of h5py, on opening or later, becomes a ValueError.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is not an HDF5 file, or truncated or damaged.
    """
    path = os.fspath(path)
    require_checkpoint(path)
    if not h5py.is_hdf5(path):
        size = os.path.getsize(path)
        raise ValueError(f"{path} is not an HDF5 file ({size} bytes): not a weight file, or truncated.")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except Exception as error:  # h5py raises a dozen kinds, KeyError and SystemError among them
        if isinstance(error, ValueError) and path in str(error):
            raise
        raise ValueError(f"{path} is truncated or damaged; {advice}. {_shortened(error)}") from error


def _shortened(error: Exception) -> str:
    text = f"{type(error).__name__}: {error}"
    return text if len(text) <= 200 else f"{text[:200]}..."


def list_datasets(file: h5py.File) -> dict[str, Dataset]:
    """Every dataset below the root by its path, without a leading slash; each has its data in this file.

    Raises ValueError, naming the object, for links other than hard links, for data that is stored elsewhere or missing,
    and for a file that declares far more numbers than it has bytes.
    """
    return _Listing(file).datasets


class _Listing:
    """Walks through a file without leaving it or following cycles."""

    def __init__(self, file: h5py.File) -> None:
        self.path = file.filename
        self.datasets: dict[str, Dataset] = {}
        self._seen: set[tuple[int, int]] = set()
        self._objects, self._bytes_left = 0, EXPANDED * os.path.getsize(self.path) + FREE_BYTES
        self._walk(file, "", 0)

    def _walk(self, group: h5py.Group, prefix: str, depth: int) -> None:
        address = h5py.h5g.get_objinfo(group.id).objno  # h5o.get_info sums up B-trees, forever in damaged files
        if address in self._seen:
            return
        self._seen.add(address)
        if depth > MAX_DEPTH:
            raise self._refused(prefix, f"is nested more than {MAX_DEPTH} groups deep")
        for name in _hard_links(self.path, group, prefix):
            self._objects += 1
            full = f"{prefix}{name}"
            if self._objects > MAX_OBJECTS or len(full) > MAX_NAME:
                raise self._refused(full, "is one object too many, or has too long a name, for a weight file")
            item = group[name]
            if isinstance(item, h5py.Group):
                self._walk(item, f"{full}/", depth + 1)
            elif isinstance(item, h5py.Dataset):
                self._add(full, item)

    def _add(self, name: str, dataset: h5py.Dataset) -> None:
        if dataset.shape is None:
            raise self._refused(name, "is empty (its dataspace is null)")
        require_own_data(self.path, name, dataset)
        is_numbers = dataset.dtype.kind in NUMBERS
        self._bytes_left -= _bytes_to_read(dataset) if is_numbers else 0
        if self._bytes_left < 0:
            raise self._refused(name, f"and those before it declare over {EXPANDED} times the size of the file")
        self.datasets[name] = Dataset(dataset.shape, dataset.dtype if is_numbers else None)

    def _refused(self, name: str, why: str) -> ValueError:
        return _refused(self.path, name, why)


def _bytes_to_read(dataset: h5py.Dataset) -> int:
    """Memory for the numbers of a dataset; HDF5 unpacks whole chunks, however few of their numbers it declares."""
    whole = math.prod(dataset.chunks) * _chunk_count(dataset) if dataset.chunks else dataset.size
    return max(whole, dataset.size) * dataset.dtype.itemsize


def _chunk_count(dataset: h5py.Dataset) -> int:
    return math.prod(-(-n // chunk) for n, chunk in zip(dataset.shape, dataset.chunks, strict=True))


def _refused(path: str, name: str, why: str) -> ValueError:
    shown = name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}..."
    return ValueError(f"{path}: {shown!r} {why}; the file is not read.")


def _hard_links(path: str, group: h5py.Group, prefix: str) -> list[str]:
    links: list[tuple[str, int]] = []

    def take(name: bytes, info: Any) -> bool | None:
        links.append((name.decode("utf-8", "surrogateescape"), info.type))
        return True if len(links) > MAX_OBJECTS else None  # stops; an error raised here would be lost

    group.id.links.iterate(take, info=True)
    for name, kind in links:
        if kind != h5py.h5l.TYPE_HARD:
            what = OTHER_LINKS.get(kind, "a user-defined link")
            raise _refused(path, f"{prefix}{name}", f"is {what}, which weight files never contain")
    return [name for name, _ in links]


def require_own_data(path: str, name: str, dataset: h5py.Dataset) -> None:
    """Raises ValueError, naming the dataset, unless all of its data is in this file."""
    created = dataset.id.get_create_plist()
    if created.get_external_count():
        other = _shown(created.get_external(0)[0])
        raise _refused(path, name, f"has its data in another file, {other}")
    if created.get_layout() == h5py.h5d.VIRTUAL:
        sources = sorted({_shown(created.get_virtual_filename(i)) for i in range(min(created.get_virtual_count(), 3))})
        raise _refused(path, name, f"is a virtual dataset, with its data in {', '.join(sources) or 'no file'}")
    for i in range(created.get_nfilters()):
        if (code := created.get_filter(i)[0]) not in FILTERS:
            raise _refused(path, name, f"is compressed by filter {code}; supported are {', '.join(FILTERS.values())}")
    if not _is_stored(dataset, created):
        raise _refused(path, name, "has no data for some of its numbers, which would read as zeros")


def _shown(file: bytes | str) -> str:
    text = file.decode("utf-8", "replace") if isinstance(file, bytes) else file
    return repr(text[:MAX_NAME])


def _is_stored(dataset: h5py.Dataset, created: Any) -> bool:
    """Whether data is stored for every number; for compressed data, for every chunk."""
    size = math.prod(dataset.shape)
    if not size:
        return True
    if created.get_layout() != h5py.h5d.CHUNKED:
        return dataset.id.get_storage_size() >= size * dataset.id.get_type().get_size()
    return dataset.id.get_num_chunks() >= _chunk_count(dataset)


def lazy(path: str | os.PathLike[str], name: str, dataset: Dataset, advice: str = "fetch it again") -> Lazy:
    """A dataset of `list_datasets`, read lazily."""
    return Lazy(dataset.shape, partial(read_dataset, os.fspath(path), name, advice))


def read_dataset(path: str, name: str, advice: str = "fetch it again") -> np.ndarray:
    """The numbers of one dataset. Raises ValueError, with path and name, if they cannot be read."""
    with open_hdf5(path, advice) as file:
        dataset = file[name]
        require_own_data(path, name, dataset)
        if dataset.dtype.kind not in NUMBERS:
            raise ValueError(f"{path}: {name} holds {dataset.dtype}, not numbers; the file is damaged.")
        try:
            value = np.asarray(dataset[()])
            damaged = value.ndim == 0 and CHECKSUM in dataset.attrs and dataset.attrs[CHECKSUM] != _crc32(value)
        except Exception as error:
            raise ValueError(f"{path} is truncated or damaged in {name!r}; {advice}. {_shortened(error)}") from error
        if damaged:
            raise ValueError(f"{path} is damaged in {name!r}, whose checksum differs; {advice}.")
        return value


def _crc32(value: np.ndarray) -> int:
    return zlib.crc32(value.tobytes())


def text_attribute(item: h5py.Group | h5py.Dataset, name: str) -> str | None:
    """An attribute that is a single string; None if it is absent or anything else."""
    if name not in item.attrs:
        return None
    attribute = h5py.h5a.open(item.id, name.encode())
    if attribute.shape != () or attribute.get_type().get_class() != h5py.h5t.STRING:
        return None
    value = item.attrs[name]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

"""Files of `torch.save`, read without torch: today's zip format and the one before torch 1.6.

Sources: torch/serialization.py and torch/_utils.py of torch 2.13 for the layout. Tensors are `Lazy`, so that a file is
read piece by piece.
"""

import io
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from mrcnn.weights.importers.pickle_machine import PickleMachine
from mrcnn.weights.importers.pickles import PLAIN
from mrcnn.weights.source import Lazy

LEGACY_MAGIC, LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
STORAGES = {
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "DoubleStorage": "<f8",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}
MAX_AXES = 16
SHARED = 8  # maximum size of all tensors, in multiples of the file size; only few tensors share a storage,
FREE_BYTES = 2**24  # plus this many bytes


@dataclass(frozen=True)
class _Storage:
    """A block of numbers in the file: `read(start, stop)` returns some of its bytes."""

    kind: str
    count: int
    read: Callable[[int, int], bytes]

    @property
    def itemsize(self) -> int:
        return _itemsize(self.kind)


@dataclass(frozen=True)
class _Pid:
    """A pickle's reference to a storage."""

    kind: str
    key: str
    count: int
    is_view: bool


def is_torch_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file has either format of torch.save."""
    if zipfile.is_zipfile(path):
        return any(name.endswith("/data.pkl") for name in _zip_entries(os.fspath(path)))
    with open(path, "rb") as file:
        # the first pickle of the older format is one number: protocol 2, LONG1 of ten bytes
        return file.read(14)[2:] == b"\x8a\x0a" + LEGACY_MAGIC.to_bytes(10, "little")


def load_torch(path: str | os.PathLike[str]) -> Any:
    """Reads a file of `torch.save`: containers, strings and numbers as saved, tensors as `Lazy`.

    Raises:
        FileNotFoundError: the file does not exist.
        ForbiddenPickle: it needs more than tensors and plain containers; no code was run.
        ValueError: it is truncated or damaged, or needs more steps or memory than weights do.
    """
    path = os.fspath(path)
    return _load_zip(path) if zipfile.is_zipfile(path) else _load_legacy(path)


# The zip


def _load_zip(path: str) -> Any:
    entries = _zip_entries(path)
    pickles = [name for name in entries if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError(f"{path} is a zip file without torch.save's data.pkl, or with several")
    _require_stored(path, entries)
    folder = pickles[0].removesuffix("data.pkl")
    order = entries.get(f"{folder}byteorder")
    if order and (order.file_size > len("little") or _zip_entry(path, order) != b"little"):
        raise ValueError(f"{path} was written on a big-endian machine; save it again on a little-endian one")

    def storage(pid: _Pid) -> _Storage:
        entry = entries.get(f"{folder}data/{pid.key}")
        if entry is None:
            raise ValueError("the data of a storage is not in the file")
        size = pid.count * _itemsize(pid.kind)
        if size != entry.file_size:
            raise ValueError(f"a storage of {pid.count} numbers has {entry.file_size} bytes, not {size}")
        return _Storage(pid.kind, pid.count, _ZipData(path, entry).read)

    file = io.BytesIO(_zip_entry(path, entries[pickles[0]]))
    return _machine(file, path, storage, os.path.getsize(path)).run()


class _ZipData:
    """The bytes of an entry. Its checksum is verified once, before any part of it is read."""

    def __init__(self, path: str, entry: zipfile.ZipInfo) -> None:
        self._path, self._entry, self._is_checked = path, entry, False

    def read(self, start: int, stop: int) -> bytes:
        if (start, stop) == (0, self._entry.file_size):
            return _zip_entry(self._path, self._entry)
        if not self._is_checked:
            _zip_entry(self._path, self._entry)
            self._is_checked = True
        with open(self._path, "rb") as file:
            _seek_data(file, self._entry)
            file.seek(start, os.SEEK_CUR)
            return file.read(stop - start)


def _zip_entries(path: str) -> dict[str, zipfile.ZipInfo]:
    """The directory of a zip. Raises ValueError if it is damaged or of a newer format."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {entry.filename: entry for entry in archive.infolist()}
    except (zipfile.BadZipFile, RuntimeError, ValueError, EOFError, OverflowError, struct.error) as error:
        raise ValueError(f"{path} is truncated or damaged: {error}; fetch it again") from error


def _require_stored(path: str, entries: dict[str, zipfile.ZipInfo]) -> None:
    """Raises ValueError unless every entry is stored uncompressed and separately, so that reading needs no more memory
    or time than the file size."""
    size = os.path.getsize(path)
    for name, entry in entries.items():
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{path}: the data {name[-60:]!r} is compressed, which torch.save never does")
        if entry.flag_bits & 1:
            raise ValueError(f"{path}: the data {name[-60:]!r} is encrypted, which torch.save never does")
        if (
            entry.compress_size != entry.file_size
            or entry.header_offset < 0
            or entry.header_offset + entry.file_size > size
        ):
            raise ValueError(
                f"{path} is truncated or damaged: it has {size} bytes, but {name[-60:]!r} would have "
                f"{entry.file_size} (stored: {entry.compress_size}) starting at {entry.header_offset}"
            )
    if sum(entry.file_size for entry in entries.values()) > size:
        raise ValueError(f"{path} is damaged: its parts are longer than the file, so some overlap")


def _seek_data(file: BinaryIO, entry: zipfile.ZipInfo) -> None:
    file.seek(entry.header_offset + 26)  # the last 4 of the local header's 30 bytes: lengths of the name and extra data
    lengths = np.frombuffer(file.read(4).ljust(4, b"\0"), "<u2")
    file.seek(int(lengths.sum()), os.SEEK_CUR)


def _zip_entry(path: str, entry: zipfile.ZipInfo) -> bytes:
    """The bytes of a stored entry. zipfile would read the whole directory again for each of a thousand entries."""
    with open(path, "rb") as file:
        _seek_data(file, entry)
        data = file.read(entry.file_size)
    if len(data) != entry.file_size or zlib.crc32(data) != entry.CRC:
        raise ValueError(f"{path} is truncated or damaged in {entry.filename[-60:]!r}: Bad CRC-32; fetch it again")
    return data


# The format before torch 1.6


def _load_legacy(path: str) -> Any:
    """Five pickles, then each storage as its count and its bytes."""
    places: dict[str, int] = {}  # key -> offset of its bytes, known after reading the pickles
    wanted: dict[str, tuple[str, int]] = {}

    def storage(pid: _Pid) -> _Storage:
        if pid.is_view:
            raise ValueError("a storage is a view of another, which only torch before 0.4 wrote")
        if wanted.setdefault(pid.key, (pid.kind, pid.count)) != (pid.kind, pid.count):
            raise ValueError("a storage has two types")
        return _Storage(pid.kind, pid.count, lambda start, stop: _piece(path, places[pid.key] + start, stop - start))

    size = os.path.getsize(path)
    with open(path, "rb") as file:
        magic, protocol, _, content, keys = (_machine(file, path, storage, size).run() for _ in range(5))
        if magic != LEGACY_MAGIC or protocol != LEGACY_PROTOCOL or not isinstance(keys, list):
            raise ValueError(f"{path} is not a file of torch.save")
        for key in keys:
            kind, count = wanted.get(key, ("", -1)) if isinstance(key, str) else ("", -1)
            start, length = file.tell() + 8, count * _itemsize(kind) if count >= 0 else -1
            if int.from_bytes(file.read(8), "little") != count or length < 0 or start + length > size:
                raise ValueError(f"{path} is truncated or damaged in storage {len(places)}; fetch it again")
            places[key] = start
            file.seek(start + length)
    if missing := set(wanted) - set(places):
        raise ValueError(f"{path} is damaged: it lacks {len(missing)} of its {len(wanted)} storages")
    return content


def _piece(path: str, start: int, length: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(length)


# Common to both formats


def _machine(file: BinaryIO, path: str, storage: Callable[[_Pid], _Storage], size: int) -> PickleMachine:
    def persistent(pid: Any) -> _Storage:
        return storage(_checked_pid(pid))

    known = TORCH | {("torch._utils", name): _Tensors(size).rebuild for name in REBUILD}
    return PickleMachine(file, path, known, persistent)


def _checked_pid(pid: Any) -> _Pid:
    """("storage", type, key, device, number of elements), and in the older format a view or None."""
    if not isinstance(pid, tuple) or len(pid) not in (5, 6):
        raise ValueError("something outside the pickle is no storage of numbers")
    name, kind, key, _, count, *view = pid
    if not (isinstance(name, str) and name == "storage" and isinstance(kind, str) and kind in STORAGES):
        raise ValueError("something outside the pickle is no storage of numbers")
    if not isinstance(key, str) or type(count) is not int or count < 0:
        raise ValueError("a storage has no key, or no number of elements")
    return _Pid(kind, key, count, bool(view) and view[0] is not None)


def _itemsize(kind: str) -> int:
    return 2 if kind == "BFloat16Storage" else np.dtype(STORAGES[kind]).itemsize


class _Tensors:
    """Creates the tensors of a file, and counts the bytes that they cover.

    Many tensors can share one storage, so a short file could declare any number of large ones.
    """

    def __init__(self, size: int) -> None:
        self.bytes_left = SHARED * size + FREE_BYTES

    def rebuild(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Lazy:
        """A tensor over a part of a storage; raises ValueError if it exceeds the storage."""
        size, stride = _whole_numbers(size), _whole_numbers(stride)
        if not isinstance(storage, _Storage) or type(offset) is not int or offset < 0 or len(size) != len(stride):
            raise ValueError("a tensor with an invalid size, stride or offset")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        count = math.prod(size)
        if count and (last >= storage.count or count > storage.count):
            raise ValueError(f"a tensor of size {size} and stride {stride} does not fit its {storage.count} numbers")
        stop = last + 1 if count else offset
        self.bytes_left -= (stop - offset) * storage.itemsize
        if self.bytes_left < 0:
            raise ValueError("its tensors share their numbers repeatedly, to many times the file size")
        return Lazy(size, lambda: _strided(storage, offset, stop, size, stride))


def _whole_numbers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple) or len(values) > MAX_AXES or not all(type(n) is int and n >= 0 for n in values):
        raise ValueError("a tensor whose size or stride is not an integer")
    return values


def _strided(storage: _Storage, offset: int, stop: int, size: tuple[int, ...], stride: tuple[int, ...]) -> np.ndarray:
    """Elements `offset` up to `stop` of a storage, as an array."""
    if stop == offset:
        return np.zeros(size, "<f4" if storage.kind == "BFloat16Storage" else STORAGES[storage.kind])
    values = _numbers(storage, offset, stop)
    view = np.lib.stride_tricks.as_strided(
        values, size, tuple(step * values.itemsize for step in stride), writeable=False
    )
    return view if view.flags.c_contiguous else np.ascontiguousarray(view)


def _numbers(storage: _Storage, offset: int, stop: int) -> np.ndarray:
    data = storage.read(offset * storage.itemsize, stop * storage.itemsize)
    if len(data) != (stop - offset) * storage.itemsize:
        raise ValueError(f"{stop - offset} numbers have {len(data)} bytes; the file is truncated")
    if storage.kind != "BFloat16Storage":
        return np.frombuffer(data, STORAGES[storage.kind])
    return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data


REBUILD = ("_rebuild_tensor_v2", "_rebuild_tensor")
TORCH = {
    **PLAIN,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch", "Size"): _whole_numbers,
    **{("torch", name): name for name in STORAGES},
}

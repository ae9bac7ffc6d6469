"""Files of `torch.save`, read without torch: the zip of today and the format before torch 1.6.

Sources: torch/serialization.py and torch/_utils.py of torch 2.13 for the layout. Tensors come as `Lazy`, so that a file
is read piece by piece.
"""

import io
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from mrcnn.weights.importers.pickles import PLAIN, RestrictedUnpickler, read_pickle
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


class _Storage(NamedTuple):
    """A run of numbers in the file: `read` gives its bytes."""

    kind: str
    count: int
    read: Callable[[], bytes]


def is_torch_file(path: str | os.PathLike) -> bool:
    """Whether a file has the form of torch.save, of either age."""
    if zipfile.is_zipfile(path):
        return any(name.endswith("/data.pkl") for name in _zip_entries(os.fspath(path)))
    with open(path, "rb") as file:
        # the first pickle of the older format is one number: protocol 2, LONG1 of ten bytes
        return file.read(14)[2:] == b"\x8a\x0a" + LEGACY_MAGIC.to_bytes(10, "little")


def load_torch(path: str | os.PathLike) -> Any:
    """What `torch.save` wrote: containers, texts and numbers as they were, tensors as `Lazy`.

    Raises:
        FileNotFoundError: no such file.
        ForbiddenPickle: it asks for more than tensors and plain containers; nothing has run.
        ValueError: it is truncated or damaged.
    """
    path = os.fspath(path)
    return _load_zip(path) if zipfile.is_zipfile(path) else _load_legacy(path)


def _load_zip(path: str) -> Any:
    entries = _zip_entries(path)
    pickles = [name for name in entries if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError(f"{path} is a zip without the data.pkl of torch.save; it holds {list(entries)[:3]}")
    _require_stored(path, entries)
    folder = pickles[0].removesuffix("data.pkl")
    order = entries.get(f"{folder}byteorder")
    if order and (order.file_size > len("little") or _zip_entry(path, order) != b"little"):
        raise ValueError(f"{path} was written on a big-endian machine; save it again on another")

    def storage(pid: Any) -> _Storage:
        _, kind, key, _, count = pid
        name = f"{folder}data/{key}"
        if name not in entries:
            raise ValueError(f"there are no data {name!r}")
        return _Storage(kind, _checked(kind, count, entries[name].file_size), lambda: _zip_entry(path, entries[name]))

    file = io.BytesIO(_zip_entry(path, entries[pickles[0]]))
    return read_pickle(_unpickler(file, path, storage), path)


def _zip_entries(path: str) -> dict[str, zipfile.ZipInfo]:
    """The directory of a zip. Raises ValueError for one that is damaged, or of a newer form."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {entry.filename: entry for entry in archive.infolist()}
    except (zipfile.BadZipFile, RuntimeError, ValueError, EOFError, OverflowError, struct.error) as error:
        raise ValueError(f"{path} is truncated or damaged: {error}; fetch it again") from error


def _require_stored(path: str, entries: dict[str, zipfile.ZipInfo]) -> None:
    """Raises ValueError unless every entry lies in the file as it is, so that none takes more memory than the file."""
    size = os.path.getsize(path)
    for name, entry in entries.items():
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{path}: the data {name!r} are compressed, which torch.save never does")
        if entry.flag_bits & 1:
            raise ValueError(f"{path}: the data {name!r} are encrypted, which torch.save never does")
        if (
            entry.compress_size != entry.file_size
            or entry.header_offset < 0
            or entry.header_offset + entry.file_size > size
        ):
            raise ValueError(
                f"{path} is truncated or damaged: it has {size} bytes, {name!r} would have "
                f"{entry.file_size} (stored: {entry.compress_size}) from {entry.header_offset} on"
            )


def _zip_entry(path: str, entry: zipfile.ZipInfo) -> bytes:
    """The bytes of a stored entry. zipfile would read the directory of the whole file again for each of a thousand."""
    with open(path, "rb") as file:
        file.seek(entry.header_offset + 26)  # of the local header's 30 bytes, the last four: lengths of what follows it
        lengths = np.frombuffer(file.read(4).ljust(4, b"\0"), "<u2")
        file.seek(int(lengths.sum()), os.SEEK_CUR)
        data = file.read(entry.file_size)
    if len(data) != entry.file_size or zlib.crc32(data) != entry.CRC:
        raise ValueError(f"{path} is truncated or damaged in {entry.filename!r}: Bad CRC-32; fetch it again")
    return data


def _load_legacy(path: str) -> Any:
    """The format before torch 1.6: five pickles, then each storage as its count and its bytes."""
    places: dict[str, tuple[int, int]] = {}  # key: start and bytes in the file, known once the pickles are read
    wanted: dict[str, tuple[str, int]] = {}

    def storage(pid: Any) -> _Storage:
        _, kind, key, _, count, *view = pid
        if view and view[0] is not None:
            raise ValueError(f"the storage {key!r} is a view of another, as only torch before 0.4 wrote them")
        if wanted.setdefault(key, (kind, count)) != (kind, count):
            raise ValueError(f"the storage {key!r} is of two kinds")
        return _Storage(kind, count, lambda: _piece(path, *places[key]))

    with open(path, "rb") as file:
        read = [read_pickle(_unpickler(file, path, storage), path) for _ in range(5)]
        magic, protocol, _, content, keys = read
        if (magic, protocol) != (LEGACY_MAGIC, LEGACY_PROTOCOL) or not isinstance(keys, list):
            raise ValueError(f"{path} is not a file of torch.save")
        size = os.path.getsize(path)
        for key in keys:
            kind, count = wanted.get(key, ("", -1)) if isinstance(key, str) else ("", -1)
            start, length = file.tell() + 8, count * _itemsize(kind) if count >= 0 else -1
            if int.from_bytes(file.read(8), "little") != count or length < 0 or start + length > size:
                raise ValueError(f"{path} is truncated or damaged in the storage {key!r}; fetch it again")
            places[key] = start, length
            file.seek(start + length)
    if set(wanted) != set(places):
        raise ValueError(f"{path} is damaged: it lacks the storages {sorted(set(wanted) - set(places))[:5]}")
    return content


def _piece(path: str, start: int, length: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(length)


def _unpickler(file: BinaryIO, path: str, storage: Callable[[Any], _Storage]) -> RestrictedUnpickler:
    def persistent(pid: Any) -> _Storage:
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage" or pid[1] not in STORAGES:
            raise ValueError(f"{pid!r} is no storage of numbers")
        if not isinstance(pid[4], int) or pid[4] < 0:
            raise ValueError(f"a storage of {pid[4]!r} numbers")
        return storage(pid)

    return RestrictedUnpickler(file, path, TORCH, persistent)


def _itemsize(kind: str) -> int:
    return 2 if kind == "BFloat16Storage" else np.dtype(STORAGES[kind]).itemsize


def _checked(kind: str, count: int, size: int) -> int:
    if count * _itemsize(kind) != size:
        raise ValueError(f"a storage of {count} numbers of {_itemsize(kind)} bytes has {size} bytes")
    return count


def _rebuild_tensor(storage: _Storage, offset: int, size: tuple, stride: tuple, *_: Any) -> Lazy:
    """A tensor over a part of a storage; raises ValueError where it leaves the storage."""
    size, stride = tuple(size), tuple(stride)
    numbers = (offset, *size, *stride)
    if not isinstance(storage, _Storage) or not all(isinstance(n, int) and n >= 0 for n in numbers):
        raise ValueError(f"a tensor of size {size}, stride {stride} and offset {offset!r}")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) and (last >= storage.count or math.prod(size) > storage.count):
        raise ValueError(f"a tensor of size {size} and stride {stride} does not fit its {storage.count} numbers")

    def read() -> np.ndarray:
        values = _values(storage)
        view = np.lib.stride_tricks.as_strided(
            values[offset:], size, tuple(step * values.itemsize for step in stride), writeable=False
        )
        return view if view.flags.c_contiguous else np.ascontiguousarray(view)

    return Lazy(size, read)


def _values(storage: _Storage) -> np.ndarray:
    data = storage.read()
    if len(data) != storage.count * _itemsize(storage.kind):
        raise ValueError(f"a storage of {storage.count} numbers has {len(data)} bytes; the file is truncated")
    if storage.kind != "BFloat16Storage":
        return np.frombuffer(data, STORAGES[storage.kind])
    return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")


def _rebuild_parameter(data: Lazy, *_: Any) -> Lazy:
    return data


TORCH = (
    PLAIN
    | {
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
        ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
        ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
        ("torch", "Size"): tuple,
    }
    | {("torch", name): name for name in STORAGES}
)

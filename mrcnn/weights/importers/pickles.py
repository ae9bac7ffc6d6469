"""Pickles of strangers, read without running anything of theirs.

A pickle is a program: it names functions and has them called. Here every name is looked up in a short table of our own
functions, which build arrays and plain containers. A file that names anything else is refused, before anything of it
was called.
"""

import os
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np

KINDS = "biuf"  # bool, signed and unsigned integers, floats: what a weight may be


class ForbiddenPickle(ValueError):
    """A pickle that asks for more than arrays and plain containers."""


class _Rest:
    """The rest of a file. A pickle that announces more than that is refused before memory is taken for it."""

    def __init__(self, file: BinaryIO) -> None:
        start = file.tell()
        self._file, self._left = file, file.seek(0, os.SEEK_END) - start
        file.seek(start)

    def read(self, count: int) -> bytes:
        if count > self._left:
            raise ValueError(f"{count} bytes are announced where {self._left} are left")
        self._left -= count
        return self._file.read(count)

    def readline(self) -> bytes:
        line = self._file.readline()
        self._left -= len(line)
        return line


class RestrictedUnpickler(pickle._Unpickler):
    """Unpickler that knows only the names in `known`: (module, name) -> what stands for it.

    It is the one in Python: the one in C keeps what LONG_BINPUT numbers in an array as long as the number says, and a
    pickle of nine bytes takes 34 GB. A file of weights has some ten thousand instructions; little time goes there.

    Args:
        file: opened in binary, and seekable; it is read up to the end of the pickle and no further.
        path: for messages.
        known: what may be named.
        persistent: builds what a persistent id stands for; without it such ids are refused.
    """

    def __init__(
        self,
        file: BinaryIO,
        path: str | os.PathLike,
        known: Mapping[tuple[str, str], Any],
        persistent: Callable[[Any], Any] | None = None,
    ) -> None:
        # latin1: Python 2 wrote the bytes of arrays as text
        super().__init__(_Rest(file), fix_imports=False, encoding="latin1")
        self._path, self._known, self._persistent = os.fspath(path), known, persistent

    def find_class(self, module: str, name: str) -> Any:
        try:
            known = self._known[module, name]
            return _Call(known) if callable(known) else known
        except KeyError:
            raise ForbiddenPickle(
                f"{self._path} asks for {module}.{name}. A pickle can run any code, so that only arrays and plain "
                "containers are read from one; nothing of it has run. Save the bare dict of weights and load that"
            ) from None

    def persistent_load(self, pid: Any) -> Any:
        if self._persistent is None:
            raise ForbiddenPickle(f"{self._path} refers to the object {pid!r} outside the pickle, which is not read")
        return self._persistent(pid)

    def _load_bytearray8(self) -> None:
        """As bytes; pickle's own takes the memory before it reads."""
        self.append(self.read(int.from_bytes(self.read(8), "little")))

    dispatch = pickle._Unpickler.dispatch | {pickle.BYTEARRAY8[0]: _load_bytearray8}


class _Call:
    """One of our functions, wrapped anew for each time it is named: a pickle may set attributes of what it names."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)


def read_pickle(unpickler: RestrictedUnpickler, path: str | os.PathLike) -> Any:
    """What the unpickler makes; every kind of damage as ValueError."""
    try:
        return unpickler.load()
    except ForbiddenPickle:
        raise
    except MemoryError as error:
        raise ValueError(f"{os.fspath(path)} announces more data than there is memory; it is damaged") from error
    except Exception as error:  # a damaged pickle fails in any way, inside the functions that it calls too
        raise ValueError(f"{os.fspath(path)} is no pickle, or truncated or damaged: {error}") from error


def load_pickle(path: str | os.PathLike) -> Any:
    """A pickle of containers and numpy arrays, such as Detectron2's `.pkl`.

    Returns:
        dicts, lists, tuples, texts and numbers as they were; arrays as read-only numpy arrays.

    Raises:
        FileNotFoundError: no such file.
        ForbiddenPickle: it asks for more; nothing has run.
        ValueError: it is damaged, or holds arrays of anything but numbers.
    """
    with open(path, "rb") as file:
        content = read_pickle(RestrictedUnpickler(file, path, NUMPY), path)
    try:
        return _finished(content, {})
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{os.fspath(path)} cannot be read: {error}") from error


class _Type:
    """Stands for a numpy.dtype while unpickling: numpy's own would take any state that a file makes up."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]

    def dtype(self) -> np.dtype:
        """The type. Raises ValueError for one that is no number."""
        dtype = np.dtype(str(self.code)) if str(self.code)[:1] in KINDS + "<>|=" else None
        if dtype is None or dtype.kind not in KINDS or self.order not in ("<", ">", "=", "|"):
            raise ValueError(f"an array of type {self.code!r} holds no numbers")
        return dtype.newbyteorder(self.order)


class _Array:
    """Stands for a numpy.ndarray while unpickling."""

    array: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, fortran, data = state
        data = data.encode("latin1") if isinstance(data, str) else data
        if not isinstance(data, bytes) or not isinstance(kind, _Type):
            raise ValueError("an array does not consist of bytes")
        self.array = np.frombuffer(data, kind.dtype()).reshape(shape, order="F" if fortran else "C")


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    del kind, shape, code  # what they say comes again, with the data
    return _Array()


def _from_buffer(data: bytes, kind: _Type, shape: tuple, order: str, axes: tuple | None = None) -> _Array:
    """An array of protocol 5. order "K": `shape` is that of the data, whose axes are turned to `axes` then."""
    if not isinstance(data, bytes) or not isinstance(kind, _Type):
        raise ValueError("an array does not consist of bytes")
    values, result = np.frombuffer(data, kind.dtype()), _Array()
    if order == "K" and axes is not None:
        result.array = values.reshape(shape).transpose(axes)
    else:
        result.array = values.reshape(shape, order=order)
    return result


def _scalar(kind: _Type, data: bytes | str) -> Any:
    data = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(data, kind.dtype(), count=1)[0]


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding != "latin1":
        raise ValueError(f"bytes written as {encoding!r} text")
    return text.encode("latin1")


def _finished(value: Any, done: dict[int, Any]) -> Any:
    """The same containers, with arrays in the place of what stood for them.

    `done`, from id to result, keeps shared parts shared: they could multiply without end otherwise.
    """
    if id(value) in done:
        if done[id(value)] is None:
            raise ValueError("a container holds itself, as no dict of weights does")
        return done[id(value)]
    if isinstance(value, _Array):
        if value.array is None:
            raise ValueError("an array has no data; the file is damaged")
        return value.array
    if not isinstance(value, (dict, list, tuple)) or not value:
        return value
    done[id(value)] = None
    if isinstance(value, dict):
        result = type(value)((key, _finished(item, done)) for key, item in value.items())
    else:
        result = type(value)(_finished(item, done) for item in value)
    done[id(value)] = result
    return result


def _counter(counts: Mapping = MappingProxyType({})) -> dict:
    """A Counter, such as the milestones of torch's MultiStepLR, as a plain dict."""
    return dict(counts)


def _no_bytes() -> bytes:
    return b""  # how the older protocols write it


PLAIN = {
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "Counter"): _counter,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
}
NUMPY = (
    PLAIN
    | {("numpy", "ndarray"): "ndarray", ("numpy", "dtype"): _Type}
    | {
        (f"numpy.{core}.{module}", name): function
        for core in ("core", "_core")
        for module, name, function in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _from_buffer),
        )
    }
)

"""Untrusted pickles of numpy arrays, read without executing any of their code.

`mrcnn.weights.importers.pickle_machine` interprets the pickle; this file has the functions that it may call, which
build arrays and plain containers.
"""

import os
import re
from collections import OrderedDict
from typing import Any

import numpy as np

from mrcnn.weights.importers.pickle_machine import MAX_DEPTH, ForbiddenPickle, Known, PickleMachine, set_items

__all__ = ["NUMPY", "PLAIN", "ForbiddenPickle", "load_pickle"]

DTYPE = re.compile(r"[<>=|]?[biuf]\d{1,2}")  # bool, integers and floats: the allowed dtypes of weights
MAX_AXES = 16


def load_pickle(path: str | os.PathLike[str]) -> Any:
    """Reads a pickle of containers and numpy arrays, such as Detectron2's `.pkl`.

    Returns:
        dicts, lists, tuples, strings and numbers as saved; arrays as read-only numpy arrays.

    Raises:
        FileNotFoundError: the file does not exist.
        ForbiddenPickle: it needs more than that; no code was run.
        ValueError: it is damaged, has arrays of anything but numbers, or needs more steps or memory than weights do.
    """
    with open(path, "rb") as file:
        content = PickleMachine(file, path, NUMPY).run()
    try:
        return _finished(content, {}, MAX_DEPTH)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)} cannot be read: {error}") from error


class _Type:
    """A placeholder for a numpy.dtype while unpickling: numpy's own would accept any state from a file."""

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or not DTYPE.fullmatch(code):
            raise ValueError("an array has a dtype that is not numeric")
        self.dtype = np.dtype(code)

    def take_state(self, state: Any) -> None:
        """The second item of the state is the byte order."""
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "=", "|"):
            raise ValueError("a dtype has no byte order")
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """A placeholder for a numpy.ndarray while unpickling."""

    array: np.ndarray | None = None

    @property
    def size_in_bytes(self) -> int:
        return 0 if self.array is None else self.array.nbytes

    def take_state(self, state: Any) -> None:
        """state: (version, shape, dtype, whether the first axis changes fastest, data)."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise ValueError("an array has no state")
        _, shape, kind, fortran, data = state
        if not isinstance(fortran, int):
            raise ValueError("an array does not state its memory order")
        self.array = _numbers(data, kind).reshape(_shape(shape), order="F" if fortran else "C")


def _numbers(data: Any, kind: Any) -> np.ndarray:
    """Python 2 wrote the bytes of arrays as text."""
    data = data.encode("latin1") if isinstance(data, str) else data
    if not isinstance(data, bytes) or not isinstance(kind, _Type):
        raise ValueError("an array does not consist of bytes")
    return np.frombuffer(data, kind.dtype)


def _shape(shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or len(shape) > MAX_AXES or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError("the shape of an array is not a tuple of integers")
    return shape


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    del kind, shape, code  # they are repeated with the data
    return _Array()


def _from_buffer(data: Any, kind: Any, shape: Any, order: Any, axes: Any = None) -> _Array:
    """An array of protocol 5. order "K": `shape` is that of the data, whose axes are then transposed to `axes`."""
    result = _Array()
    if isinstance(order, str) and order == "K" and axes is not None:
        result.array = _numbers(data, kind).reshape(_shape(shape)).transpose(_shape(axes))
    else:
        fortran = isinstance(order, str) and order == "F"
        result.array = _numbers(data, kind).reshape(_shape(shape), order="F" if fortran else "C")
    return result


def _scalar(kind: Any, data: Any) -> Any:
    numbers = _numbers(data, kind)
    if numbers.size != 1:
        raise ValueError("a single number has the data of several")
    return numbers[0]


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or not isinstance(encoding, str) or encoding != "latin1":
        raise ValueError("bytes are not written as latin1 text")
    return text.encode("latin1")


def _dict(items: Any = ()) -> dict[Any, Any]:
    """A Counter, such as the milestones of torch's MultiStepLR, as a plain dict."""
    if not isinstance(items, dict):
        raise ValueError("a dict is made from something that is not a dict")
    return dict(items)


def _ordered_dict(items: Any = ()) -> OrderedDict[Any, Any]:
    """From a dict, or from pairs, which are lists in Python 2."""
    found: OrderedDict[Any, Any] = OrderedDict()
    if isinstance(items, dict):
        found.update(items)
    elif isinstance(items, list | tuple) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in items):
        set_items(found, [(key, value) for key, value in items])
    else:
        raise ValueError("a dict is made from something other than pairs")
    return found


def _no_bytes() -> bytes:
    return b""  # as the older protocols write it


def _finished(value: Any, done: dict[int, Any], depth: int) -> Any:
    """The same containers, with placeholders replaced by arrays.

    `done`, from id to result, keeps shared parts shared; otherwise they could multiply endlessly.
    """
    if id(value) in done:
        if done[id(value)] is None:
            raise ValueError("a container contains itself, unlike any dict of weights")
        return done[id(value)]
    if isinstance(value, _Array):
        if value.array is None:
            raise ValueError("an array has no data; the file is damaged")
        return value.array
    if not isinstance(value, dict | list | tuple) or not value:
        return value
    if not depth:
        raise ValueError(f"its containers are nested more than {MAX_DEPTH} deep")
    done[id(value)] = None
    result: Any
    if isinstance(value, dict):
        result = type(value)((key, _finished(item, done, depth - 1)) for key, item in value.items())
    else:
        result = type(value)(_finished(item, done, depth - 1) for item in value)
    done[id(value)] = result
    return result


PLAIN: Known = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("collections", "Counter"): _dict,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
}
NUMPY: Known = {
    **PLAIN,
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): _Type,
    **{
        (f"numpy.{core}.{module}", name): function
        for core in ("core", "_core")
        for module, name, function in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _from_buffer),
        )
    },
}

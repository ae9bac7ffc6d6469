"""Pickles of numpy arrays from strangers, read without running anything of theirs.

`mrcnn.weights.importers.pickle_machine` carries out the pickle; the functions that it may call are here. They build
arrays and plain containers.
"""

import os
import re
from collections import OrderedDict
from typing import Any

import numpy as np

from mrcnn.weights.importers.pickle_machine import MAX_DEPTH, ForbiddenPickle, Known, PickleMachine, set_items

__all__ = ["NUMPY", "PLAIN", "ForbiddenPickle", "load_pickle"]

DTYPE = re.compile(r"[<>=|]?[biuf]\d{1,2}")  # bool, integers and floats: what a weight may be
MAX_AXES = 16


def load_pickle(path: str | os.PathLike[str]) -> Any:
    """A pickle of containers and numpy arrays, such as Detectron2's `.pkl`.

    Returns:
        dicts, lists, tuples, texts and numbers as they were; arrays as read-only numpy arrays.

    Raises:
        FileNotFoundError: no such file.
        ForbiddenPickle: it asks for more; nothing has run.
        ValueError: it is damaged, holds arrays of anything but numbers, or takes more steps or memory than weights do.
    """
    with open(path, "rb") as file:
        content = PickleMachine(file, path, NUMPY).run()
    try:
        return _finished(content, {}, MAX_DEPTH)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)} cannot be read: {error}") from error


class _Type:
    """Stands for a numpy.dtype while unpickling: numpy's own would take any state that a file makes up."""

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or not DTYPE.fullmatch(code):
            raise ValueError("an array is of a type that holds no numbers")
        self.dtype = np.dtype(code)

    def take_state(self, state: Any) -> None:
        """The second item of the state is the order of bytes."""
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "=", "|"):
            raise ValueError("a type has no order of bytes")
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands for a numpy.ndarray while unpickling."""

    array: np.ndarray | None = None

    @property
    def size_in_bytes(self) -> int:
        return 0 if self.array is None else self.array.nbytes

    def take_state(self, state: Any) -> None:
        """(version, shape, type, whether the first axis changes fastest, data)."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise ValueError("an array has no state")
        _, shape, kind, fortran, data = state
        if not isinstance(fortran, int):
            raise ValueError("an array does not say in which order its numbers are")
        self.array = _numbers(data, kind).reshape(_shape(shape), order="F" if fortran else "C")


def _numbers(data: Any, kind: Any) -> np.ndarray:
    """Python 2 wrote the bytes of arrays as text."""
    data = data.encode("latin1") if isinstance(data, str) else data
    if not isinstance(data, bytes) or not isinstance(kind, _Type):
        raise ValueError("an array does not consist of bytes")
    return np.frombuffer(data, kind.dtype)


def _shape(shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or len(shape) > MAX_AXES or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError("the shape of an array is no tuple of whole numbers")
    return shape


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    del kind, shape, code  # what they say comes again, with the data
    return _Array()


def _from_buffer(data: Any, kind: Any, shape: Any, order: Any, axes: Any = None) -> _Array:
    """An array of protocol 5. order "K": `shape` is that of the data, whose axes are turned to `axes` then."""
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
        raise ValueError("bytes are written in another way than as latin1 text")
    return text.encode("latin1")


def _dict(items: Any = ()) -> dict[Any, Any]:
    """A Counter, such as the milestones of torch's MultiStepLR, as a plain dict."""
    if not isinstance(items, dict):
        raise ValueError("a dict is made of what is no dict")
    return dict(items)


def _ordered_dict(items: Any = ()) -> OrderedDict[Any, Any]:
    """Of a dict, or of pairs: lists in Python 2."""
    found: OrderedDict[Any, Any] = OrderedDict()
    if isinstance(items, dict):
        found.update(items)
    elif isinstance(items, list | tuple) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in items):
        set_items(found, [(key, value) for key, value in items])
    else:
        raise ValueError("a dict is made of what are no pairs")
    return found


def _no_bytes() -> bytes:
    return b""  # how the older protocols write it


def _finished(value: Any, done: dict[int, Any], depth: int) -> Any:
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
    if not isinstance(value, dict | list | tuple) or not value:
        return value
    if not depth:
        raise ValueError(f"its containers lie in one another more than {MAX_DEPTH} deep")
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

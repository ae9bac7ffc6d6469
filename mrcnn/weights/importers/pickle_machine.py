"""A pickle interpreter that executes pickle instructions on plain data only.

A pickle is a program for a small stack machine. Python's own machine calls any function that the program names, sets
attributes of any object, and hashes or prints whatever was built, which may take 2^60 steps. This machine has the same
instructions with restricted meanings:

- it calls only functions from a table that its caller supplies;
- keys of dicts and members of sets are strings, bytes or numbers;
- BUILD passes its state to an object's `take_state`, and sets no attributes;
- it executes a limited number of instructions, and copies a limited number of bytes.

Every error is a ValueError that names the wrong instruction or number, and shows no data from the file except the names
of rejected functions.

Source: the instruction set as documented in Python's `pickletools`.
"""

import os
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

MAX_INSTRUCTIONS = 1_000_000  # a Detectron2 file with its optimizer has about 50,000
MAX_DEPTH = 100  # of nested containers
COPIES = 8  # maximum bytes that calls may copy, in multiples of the file size,
FREE_COPIES = 2**20  # plus this many bytes
ITEM = 16  # bytes counted per item of a copied container
LONGEST_INTEGER = 16  # bytes; torch's magic number has 10
LONGEST_NAME = 100  # maximum characters of a rejected name in a message
KEYS = (str, bytes, int, float, type(None))

Known = Mapping[tuple[str, str], Any]


class ForbiddenPickle(ValueError):
    """A pickle that needs more than arrays and plain containers."""


class _Input:
    """The rest of a file; checks that declared data exists before allocating memory for it."""

    def __init__(self, file: BinaryIO) -> None:
        start = file.tell()
        self._file, self.left = file, file.seek(0, os.SEEK_END) - start
        file.seek(start)

    def read(self, count: int) -> bytes:
        if not 0 <= count <= self.left:
            raise ValueError(f"{count} bytes are declared, but {self.left} are left")
        self.left -= count
        return self._file.read(count)

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.read(struct.calcsize(form)))[0]

    def line(self) -> bytes:
        line = self._file.readline()
        self.left -= len(line)
        if not line.endswith(b"\n"):
            raise ValueError("a line of text does not end")
        return line[:-1]


class _Function:
    """A function of the table, on the stack."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call


class PickleMachine:
    """Reads one pickle.

    Args:
        file: opened in binary mode, seekable; it is read up to the end of the pickle and no further.
        path: for messages.
        known: allowed names: (module, name) -> a function of ours, or the value of the name.
        persistent: returns the object for a persistent id; None: such ids are rejected.
    """

    def __init__(
        self, file: BinaryIO, path: str | os.PathLike[str], known: Known, persistent: Callable[[Any], Any] | None = None
    ) -> None:
        self.input, self.path, self.known, self.persistent = _Input(file), os.fspath(path), known, persistent
        self.copies_left = COPIES * self.input.left + FREE_COPIES
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The object that the pickle describes. Raises ValueError for any error in it."""
        try:
            return self._run()
        except ForbiddenPickle:
            raise
        except (ValueError, struct.error) as error:
            raise ValueError(f"{self.path} is not a pickle, or truncated or damaged: {error}") from error
        except Exception as error:  # such as a call with wrong arguments; the text may contain data from the file
            raise ValueError(
                f"{self.path} is not a pickle, or truncated or damaged: {type(error).__name__} in a call"
            ) from error

    def _run(self) -> Any:
        for _ in range(MAX_INSTRUCTIONS):
            code = self.input.read(1)
            if code == pickle.STOP:
                return self.pop()
            if code not in INSTRUCTIONS:
                raise ValueError(f"{code!r} is not an instruction that weight files contain")
            INSTRUCTIONS[code](self)
        raise ValueError(f"it has more than {MAX_INSTRUCTIONS} instructions")

    # The stack

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        self._require(1)
        return self.stack.pop()

    def top(self) -> Any:
        self._require(1)
        return self.stack[-1]

    def pop_to_mark(self) -> list[Any]:
        """Pops the last mark and returns the values above it."""
        if not self.marks:
            raise ValueError("a mark is missing on the stack")
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def take(self, count: int) -> list[Any]:
        self._require(count)
        values = self.stack[-count:]
        del self.stack[-count:]
        return values

    def _require(self, count: int) -> None:
        floor = self.marks[-1] if self.marks else 0
        if len(self.stack) - floor < count:
            raise ValueError("an instruction takes more from the stack than is there")

    # Shared by instructions

    def find(self, module: str, name: str) -> None:
        """Pushes the object with this name. Raises ForbiddenPickle for a name that is not in the table."""
        if (module, name) not in self.known:
            raise ForbiddenPickle(
                f"{self.path} asks for {_shown(module)}.{_shown(name)}. A pickle can run any code, so only arrays "
                "and plain containers are read from one; none of its code was run. Save the bare dict of weights and "
                "load that"
            )
        known = self.known[module, name]
        self.push(_Function(known) if callable(known) else known)

    def refer(self, pid: Any) -> None:
        if self.persistent is None:
            raise ForbiddenPickle(f"{self.path} refers to an object outside the pickle, which is not read")
        self.push(self.persistent(pid))

    def copied(self, value: Any) -> Any:
        """The result of a call, after deducting its size from the bytes that may be copied."""
        if isinstance(value, str | bytes):
            self.copies_left -= len(value)
        elif isinstance(value, list | tuple | dict):
            self.copies_left -= ITEM * len(value)
        else:
            self.copies_left -= getattr(value, "size_in_bytes", 0)
        if self.copies_left < 0:
            raise ValueError("it copies its parts repeatedly, to many times its own size")
        return value


def _shown(name: str) -> str:
    text = name.encode("unicode_escape").decode("ascii")
    return text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]}..."


def is_key(value: Any) -> bool:
    """Whether a value may be a dict key or a set member: it is hashed in one step, without provoked collisions.

    Integers of more than 64 bits can all share one hash.
    """
    return isinstance(value, KEYS) and not (isinstance(value, int) and value.bit_length() > 64)


def set_items(target: Any, pairs: list[tuple[Any, Any]]) -> None:
    """Adds items to a dict. Raises ValueError if the target is not a dict or a key is not allowed."""
    if not isinstance(target, dict) or not all(is_key(key) for key, _ in pairs):
        raise ValueError("an item is set on something that is not a dict, or with a key that is not text or a number")
    target.update(pairs)


# The instructions

Instruction = Callable[[PickleMachine], None]
Value = Callable[[PickleMachine], Any]


def _utf8(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _latin1(data: bytes) -> str:
    """Python 2's bytes, as text."""
    return data.decode("latin1")


def _integer(data: bytes) -> int:
    if len(data) > LONGEST_INTEGER:
        raise ValueError(f"an integer of {len(data)} bytes")
    return int.from_bytes(data, "little", signed=True)


def _number(text: bytes, kind: type[int] | type[float]) -> Any:
    if len(text) > LONGEST_NAME:
        raise ValueError(f"a number of {len(text)} digits")
    try:
        return kind(text)
    except ValueError:
        raise ValueError("invalid number") from None


def _binary(form: str) -> Value:
    return lambda machine: machine.input.number(form)


def _data(form: str, change: Callable[[bytes], Any] = bytes) -> Value:
    """Data preceded by its length, a number of this form."""
    return lambda machine: change(machine.input.read(machine.input.number(form)))


def _text(change: Callable[[bytes], Any]) -> Value:
    """A line."""
    return lambda machine: change(machine.input.line())


def _remembered(form: str | None) -> Value:
    def value(machine: PickleMachine) -> Any:
        place = machine.input.number(form) if form else _number(machine.input.line(), int)
        if place not in machine.memo:
            raise ValueError(f"memo entry {place} is read before it is set")
        return machine.memo[place]

    return value


def _of_two_quotes(line: bytes) -> str:
    if len(line) < 2 or line[:1] not in (b"'", b'"') or line[-1:] != line[:1]:
        raise ValueError("a text without quotes")
    return line[1:-1].decode("unicode_escape")  # of bytes: each is its latin1 character


def _int_or_bool(line: bytes) -> int:
    return line == b"01" if line in (b"00", b"01") else _number(line, int)


# Instructions that push a value.
VALUES: dict[bytes, Value] = {
    pickle.NONE: lambda _: None,
    pickle.NEWTRUE: lambda _: True,
    pickle.NEWFALSE: lambda _: False,
    pickle.INT: _text(_int_or_bool),
    pickle.LONG: _text(lambda line: _number(line.removesuffix(b"L"), int)),
    pickle.FLOAT: _text(lambda line: _number(line, float)),
    pickle.BININT: _binary("<i"),
    pickle.BININT1: _binary("<B"),
    pickle.BININT2: _binary("<H"),
    pickle.BINFLOAT: _binary(">d"),
    pickle.LONG1: _data("<B", _integer),
    pickle.LONG4: _data("<i", _integer),
    pickle.STRING: _text(_of_two_quotes),
    pickle.SHORT_BINSTRING: _data("<B", _latin1),
    pickle.BINSTRING: _data("<i", _latin1),
    pickle.UNICODE: _text(lambda line: line.decode("raw-unicode-escape")),
    pickle.SHORT_BINUNICODE: _data("<B", _utf8),
    pickle.BINUNICODE: _data("<I", _utf8),
    pickle.BINUNICODE8: _data("<Q", _utf8),
    pickle.SHORT_BINBYTES: _data("<B"),
    pickle.BINBYTES: _data("<I"),
    pickle.BINBYTES8: _data("<Q"),
    pickle.BYTEARRAY8: _data("<Q"),
    pickle.EMPTY_TUPLE: lambda _: (),
    pickle.TUPLE1: lambda machine: tuple(machine.take(1)),
    pickle.TUPLE2: lambda machine: tuple(machine.take(2)),
    pickle.TUPLE3: lambda machine: tuple(machine.take(3)),
    pickle.TUPLE: lambda machine: tuple(machine.pop_to_mark()),
    pickle.EMPTY_LIST: lambda _: [],
    pickle.LIST: lambda machine: machine.pop_to_mark(),
    pickle.EMPTY_DICT: lambda _: {},
    pickle.EMPTY_SET: lambda _: set(),
    pickle.DUP: lambda machine: machine.top(),
    pickle.GET: _remembered(None),
    pickle.BINGET: _remembered("<B"),
    pickle.LONG_BINGET: _remembered("<I"),
}


def _pushed(value: Value) -> Instruction:
    return lambda machine: machine.stack.append(value(machine))


INSTRUCTIONS: dict[bytes, Instruction] = {code: _pushed(value) for code, value in VALUES.items()}


def _instruction(code: bytes) -> Callable[[Instruction], Instruction]:
    def register(function: Instruction) -> Instruction:
        INSTRUCTIONS[code] = function
        return function

    return register


@_instruction(pickle.PROTO)
def _protocol(machine: PickleMachine) -> None:
    version = machine.input.read(1)[0]
    if version > pickle.HIGHEST_PROTOCOL:
        raise ValueError(f"it has protocol {version}, which this Python does not support")


@_instruction(pickle.FRAME)
def _frame(machine: PickleMachine) -> None:
    """A frame only says how much may be read ahead."""
    length = machine.input.number("<Q")
    if length > machine.input.left:
        raise ValueError(f"{length} bytes are declared, but {machine.input.left} are left")


@_instruction(pickle.MARK)
def _mark(machine: PickleMachine) -> None:
    machine.marks.append(len(machine.stack))


@_instruction(pickle.POP)
def _pop(machine: PickleMachine) -> None:
    if machine.marks and machine.marks[-1] == len(machine.stack):
        machine.marks.pop()
    else:
        machine.pop()


@_instruction(pickle.POP_MARK)
def _pop_mark(machine: PickleMachine) -> None:
    machine.pop_to_mark()


@_instruction(pickle.PUT)
def _put(machine: PickleMachine) -> None:
    machine.memo[_number(machine.input.line(), int)] = machine.top()


@_instruction(pickle.BINPUT)
def _put_short(machine: PickleMachine) -> None:
    machine.memo[machine.input.number("<B")] = machine.top()


@_instruction(pickle.LONG_BINPUT)
def _put_long(machine: PickleMachine) -> None:
    machine.memo[machine.input.number("<I")] = machine.top()


@_instruction(pickle.MEMOIZE)
def _memoize(machine: PickleMachine) -> None:
    machine.memo[len(machine.memo)] = machine.top()


@_instruction(pickle.APPEND)
def _append(machine: PickleMachine) -> None:
    _extend(machine, [machine.pop()])


@_instruction(pickle.APPENDS)
def _appends(machine: PickleMachine) -> None:
    _extend(machine, machine.pop_to_mark())


def _extend(machine: PickleMachine, values: list[Any]) -> None:
    target = machine.top()
    if not isinstance(target, list):
        raise ValueError("an item is appended to something that is not a list")
    target.extend(values)


@_instruction(pickle.DICT)
def _dict(machine: PickleMachine) -> None:
    values = machine.pop_to_mark()
    machine.push({})
    _set_pairs(machine, values)


@_instruction(pickle.SETITEM)
def _set_item(machine: PickleMachine) -> None:
    _set_pairs(machine, machine.take(2))


@_instruction(pickle.SETITEMS)
def _set_items(machine: PickleMachine) -> None:
    _set_pairs(machine, machine.pop_to_mark())


def _set_pairs(machine: PickleMachine, values: list[Any]) -> None:
    if len(values) % 2:
        raise ValueError("a key has no value")
    set_items(machine.top(), list(zip(values[::2], values[1::2], strict=True)))


@_instruction(pickle.ADDITEMS)
def _add_items(machine: PickleMachine) -> None:
    values, target = machine.pop_to_mark(), machine.top()
    if not isinstance(target, set) or not all(map(is_key, values)):
        raise ValueError("an item is added to something that is not a set, or is neither text nor a number")
    target.update(values)


@_instruction(pickle.FROZENSET)
def _frozenset(machine: PickleMachine) -> None:
    values = machine.pop_to_mark()
    if not all(map(is_key, values)):
        raise ValueError("a member of a set is neither text nor a number")
    machine.push(frozenset(values))


@_instruction(pickle.GLOBAL)
def _global(machine: PickleMachine) -> None:
    module, name = _utf8(machine.input.line()), _utf8(machine.input.line())
    machine.find(module, name)


@_instruction(pickle.STACK_GLOBAL)
def _stack_global(machine: PickleMachine) -> None:
    module, name = machine.take(2)
    if not isinstance(module, str) or not isinstance(name, str):
        raise ValueError("the name of a function is not text")
    machine.find(module, name)


@_instruction(pickle.INST)
def _instance(machine: PickleMachine) -> None:
    """A class and its instance in one instruction, as Python 2 wrote old-style classes."""
    module, name = _utf8(machine.input.line()), _utf8(machine.input.line())
    raise ForbiddenPickle(f"{machine.path} asks for an instance of {_shown(module)}.{_shown(name)}, which is not read")


@_instruction(pickle.REDUCE)
def _reduce(machine: PickleMachine) -> None:
    function, arguments = machine.take(2)
    if not isinstance(function, _Function) or not isinstance(arguments, tuple):
        raise ValueError("something other than a function is called")
    machine.push(machine.copied(function.call(*arguments)))


@_instruction(pickle.BUILD)
def _build(machine: PickleMachine) -> None:
    state = machine.pop()
    target = machine.top()
    if isinstance(target, OrderedDict):  # a torch state dict has one attribute, its modules' versions
        if not isinstance(state, dict) or set(state) - {"_metadata"}:
            raise ValueError("attributes are set on a dict")
    elif hasattr(target, "take_state"):
        target.take_state(state)
        machine.copied(target)
    else:
        raise ValueError("attributes are set on an object that has none")


@_instruction(pickle.PERSID)
def _persistent_text(machine: PickleMachine) -> None:
    machine.refer(machine.input.line().decode("ascii", "replace"))


@_instruction(pickle.BINPERSID)
def _persistent(machine: PickleMachine) -> None:
    machine.refer(machine.pop())

"""Reads TFRecord files of tf.train.Example without TensorFlow: finds each value without loading the images between.

A record (tensorflow/core/lib/io/record_writer.h) is stored as its length (8 bytes), the length's checksum, the data and
its checksum. An Example is a protocol buffer (tensorflow/core/example/example.proto), a map of names and lists.
"""

import functools
import mmap
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mrcnn.data.annotations.problems import AnnotationError
from mrcnn.data.annotations.text_files import check_regular

WHAT = "TensorFlow records"
HEAD, TAIL = 12, 4  # bytes
POLYNOMIAL, MASK_DELTA = 0x82F63B78, 0xA282EAD8  # CRC-32C, reflected; record_writer.h adds the latter
LANES = 1024  # parts of a record whose checksums are computed in parallel
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
MOST_FEATURES = 10_000
GZIP = b"\x1f\x8b"


class Record(NamedTuple):
    """A record of a file. features: by name, either the positions of the values in the file, or the numbers."""

    file: str
    number: int
    start: int
    length: int
    features: dict[str, "Feature"]

    @property
    def name(self) -> str:
        """For messages."""
        return f"record {self.number}"


class Feature(NamedTuple):
    """places: (start, length) of each string or image. numbers: [n] float32 or int64."""

    places: list[tuple[int, int]]
    numbers: np.ndarray


def read_examples(path: str | os.PathLike) -> Iterator[Record]:
    """The records of a file.

    Raises FileNotFoundError, or AnnotationError naming the damaged or truncated record.
    """
    path = os.fspath(path)
    check_regular(path, WHAT)
    size = os.path.getsize(path)
    if not size:
        return
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:2] == GZIP and not _is_frame(data[:HEAD]):
            raise AnnotationError(path, "", "", "compressed with gzip; decompress it first")
        place = number = 0
        while place < size:
            record = f"record {number}"
            if not _is_frame(data[place : place + HEAD]):
                raise AnnotationError(
                    path, record, "", f"its length at byte {place} is damaged; is it a TFRecord file?"
                )
            (length,) = struct.unpack("<Q", data[place : place + 8])
            start = place + HEAD
            place = start + length + TAIL
            if place > size:
                raise AnnotationError(
                    path, record, "", f"the file is truncated: {place:,} bytes expected, {size:,} found"
                )
            try:
                features = _features(data, start, start + length)
            except (ValueError, struct.error, IndexError) as error:
                raise AnnotationError(path, record, "", f"not a tf.train.Example: {error}") from error
            yield Record(path, number, start, length, features)
            number += 1


def check_record(path: str, start: int, length: int) -> bytes:
    """The data of a record, after verifying its checksum. Raises ValueError naming file and byte."""
    with open(path, "rb") as file:
        file.seek(start)
        data, stored = file.read(length), file.read(TAIL)
    if len(stored) < TAIL or struct.unpack("<I", stored)[0] != masked(checksum(data)):
        raise ValueError(f"{path!r}: the record at byte {start} is damaged (wrong checksum); fetch the file again")
    return data


def _is_frame(head: bytes) -> bool:
    return len(head) == HEAD and struct.unpack("<I", head[8:])[0] == masked(checksum(head[:8]))


def _features(data: mmap.mmap, start: int, end: int) -> dict[str, Feature]:
    """The features of an Example."""
    found: dict[str, Feature] = {}
    for place, stop in _messages(data, start, end, 1):
        for entry, entry_stop in _messages(data, place, stop, 1):
            name, feature = "", Feature([], np.zeros(0))
            for field, value, value_end in _fields(data, entry, entry_stop):
                if field == 1:
                    name = data[value:value_end].decode("utf-8")
                elif field == 2:
                    feature = _feature(data, value, value_end)
            found[name] = feature
            if len(found) > MOST_FEATURES:
                raise ValueError(f"it has more than {MOST_FEATURES} features")
    return found


def _feature(data: mmap.mmap, start: int, end: int) -> Feature:
    for field, value, stop in _fields(data, start, end):
        if field == 1:
            return Feature([(place, after - place) for place, after in _messages(data, value, stop, 1)], np.zeros(0))
        if field == 2:
            return Feature([], _floats(data, value, stop))
        if field == 3:
            return Feature([], _integers(data, value, stop))
    return Feature([], np.zeros(0))


def _floats(data: mmap.mmap, start: int, end: int) -> np.ndarray:
    parts = [data[value:stop] for field, value, stop in _fields(data, start, end) if field == 1]
    return np.frombuffer(b"".join(parts), "<f4")


def _integers(data: mmap.mmap, start: int, end: int) -> np.ndarray:
    values = []
    for field, value, stop in _fields(data, start, end):
        while field == 1 and value < stop:
            number, value = _varint(data, value, stop)
            values.append(number - (1 << 64) if number >> 63 else number)
    return np.array(values, np.int64)


def _messages(data: mmap.mmap, start: int, end: int, wanted: int) -> Iterator[tuple[int, int]]:
    """The positions of a field's values."""
    for field, value, stop in _fields(data, start, end):
        if field == wanted:
            yield value, stop


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(number, start, end) of a message's fields. Raises ValueError for a field that exceeds the message."""
    while start < end:
        key, start = _varint(data, start, end)
        wire = key & 7
        if wire == VARINT:
            _, stop = _varint(data, start, end)
        elif wire == BYTES:
            length, start = _varint(data, start, end)
            stop = start + length
        elif wire in (FIXED32, FIXED64):
            stop = start + (4 if wire == FIXED32 else 8)
        else:
            raise ValueError(f"unknown field type {wire}")
        if stop > end:
            raise ValueError("a field is longer than its message")
        yield key >> 3, start, stop
        start = stop


def _varint(data: mmap.mmap, start: int, end: int) -> tuple[int, int]:
    """A varint (groups of seven bits, lowest first), and the position after it."""
    number = 0
    for shift in range(0, 70, 7):
        if start >= end:
            break
        byte = data[start]
        start += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number & (1 << 64) - 1, start
    raise ValueError("unterminated number")


def masked(value: int) -> int:
    """A checksum in its stored form."""
    return ((value >> 15 | value << 17) + MASK_DELTA) & 0xFFFFFFFF


def checksum(data: bytes) -> int:
    """CRC-32C of bytes, computed in parallel over parts of equal length whose results are shifted and combined."""
    if len(data) < 4:
        return _serial(data)
    values = np.frombuffer(data, np.uint8).copy()
    values[:4] ^= 255  # the initial ones; the zeros in front then have no effect
    lanes = min(LANES, 1 << max(0, len(data) // 64).bit_length())
    width = -(-len(values) // lanes)
    table, state = _table(), np.zeros(lanes, np.uint32)
    columns = np.concatenate([np.zeros(lanes * width - len(values), np.uint8), values]).reshape(lanes, width).T.copy()
    for column in columns:
        state = table[(state ^ column) & 255] ^ (state >> 8)
    shift = _shift(width)
    while len(state) > 1:
        state = _applied(shift, state[::2]) ^ state[1::2]
        shift = _applied(shift, shift)
    return int(state[0]) ^ 0xFFFFFFFF


def _serial(data: bytes) -> int:
    state = 0xFFFFFFFF
    for byte in data:
        state = int(_table()[(state ^ byte) & 255]) ^ state >> 8
    return state ^ 0xFFFFFFFF


@functools.cache
def _table() -> np.ndarray:
    """[256] uint32: the effect of each byte on the register."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ np.uint32(POLYNOMIAL), table >> 1)
    return table.astype(np.uint32)


def _shift(count: int) -> np.ndarray:
    """[32] uint32: the effect of `count` zero bytes on each bit of the register."""
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    one = _table()[bits & 255] ^ (bits >> 8)  # one byte
    result = bits
    while count:
        if count & 1:
            result = _applied(one, result)
        one = _applied(one, one)
        count >>= 1
    return result


def _applied(operator: np.ndarray, states: np.ndarray) -> np.ndarray:
    """Applies a linear map of bits [32] to registers [n]."""
    found = np.zeros_like(states)
    for bit in range(32):
        found ^= np.where(states >> np.uint32(bit) & 1, operator[bit], np.uint32(0)).astype(np.uint32)
    return found

"""Reads lists in JSON files of hundreds of megabytes in batches of records, to limit memory."""

import json
import os
import re
from collections.abc import Callable, Collection, Generator, Iterator
from typing import Any

from mrcnn.data.annotations.problems import AnnotationError
from mrcnn.data.annotations.text_files import json_error, read_text

NO_LIST = -1  # in place of a position
CHUNK = 8192  # records per batch
SPACES = re.compile(r"[ \t\n\r]*")

Scan = Callable[[str, int], tuple[Any, int]]
Records = tuple[str, int, Any]


def read_records(path: str | os.PathLike, what: str, keys: Collection[str]) -> Iterator[Records]:
    """The records of lists in a JSON file's outermost object, in file order.

    Args:
        what: the expected content of the file, for messages.
        keys: keys of the lists; other keys are ignored.

    Yields:
        (key, position of the first record, records), in batches of thousands. Before a list's records, (key, NO_LIST,
        value) once, where value is [], or the value in the file if it is not a list.

    Raises:
        FileNotFoundError: the file is missing.
        AnnotationError: invalid JSON, naming the line, or a duplicate key.
    """
    path = os.fspath(path)
    text = read_text(path, what, most=None)
    try:
        yield from _records(path, text, keys)
    except json.JSONDecodeError as error:
        raise json_error(path, what, text, error) from error
    except AnnotationError:
        raise
    except (RecursionError, ValueError) as error:  # endlessly nested lists, numbers with thousands of digits
        raise AnnotationError(path, "", "", f"it cannot be read ({error}); export {what} again") from error


def _records(path: str, text: str, keys: Collection[str]) -> Iterator[Records]:
    scan, seen = json.JSONDecoder().raw_decode, set[str]()
    place = _skip(text, 0)
    if text[place : place + 1] != "{":
        scan(text, place)  # raises if the text is not JSON
        return
    place = _skip(text, place + 1)
    while text[place : place + 1] != "}":
        if text[place : place + 1] != '"':
            raise json.JSONDecodeError("Expecting property name enclosed in double quotes", text, place)
        key, place = scan(text, place)
        place = _skip(text, place)
        if text[place : place + 1] != ":":
            raise json.JSONDecodeError("Expecting ':' delimiter", text, place)
        place = _skip(text, place + 1)
        if key in keys and key in seen:
            line = f"line {text.count(chr(10), 0, place) + 1}"
            raise AnnotationError(path, line, key, "duplicate key; keep one of the two")
        seen.add(key)
        if key in keys and text[place : place + 1] == "[":
            yield key, NO_LIST, []
            place = yield from _elements(scan, text, place, key)
        else:
            value, place = scan(text, place)
            if key in keys:
                yield key, NO_LIST, value
        place = _next(text, place, "}")
    if _skip(text, place + 1) != len(text):
        raise json.JSONDecodeError("Extra data", text, _skip(text, place + 1))


def _elements(scan: Scan, text: str, place: int, key: str) -> Generator[Records, None, int]:
    """Yields the elements of the list at `place`, and returns the position after it."""
    place, first = _skip(text, place + 1), 0
    records: list[Any] = []
    while text[place : place + 1] != "]":
        record, place = scan(text, place)
        records.append(record)
        if len(records) == CHUNK:
            yield key, first, records
            first, records = first + len(records), []
        following = text[place : place + 3]
        if following == ", {":  # as written by json.dump
            place += 2
        elif following[:2] == ",{":
            place += 1
        else:
            place = _next(text, place, "]")
    if records:
        yield key, first, records
    return place + 1


def _next(text: str, place: int, end: str) -> int:
    """The position of the next element, or of the bracket that ends the list or object."""
    place = _skip(text, place)
    char = text[place : place + 1]
    if char == end:
        return place
    if char != ",":
        raise json.JSONDecodeError("Expecting ',' delimiter", text, place)
    following = _skip(text, place + 1)
    if text[following : following + 1] == end:
        raise json.JSONDecodeError("Illegal trailing comma before end of object", text, place)
    return following


def _skip(text: str, place: int) -> int:
    """The position after whitespace."""
    match = SPACES.match(text, place)
    return match.end() if match else place

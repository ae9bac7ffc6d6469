"""Lists in a JSON file of hundreds of megabytes, some records at a time, so that they never fill the memory."""

import json
import os
import re
from collections.abc import Callable, Collection, Generator, Iterator
from typing import Any

from mrcnn.data.annotations.problems import AnnotationError
from mrcnn.data.annotations.text_files import json_error, read_text

NO_LIST = -1  # instead of a place
CHUNK = 8192  # records at a time
SPACES = re.compile(r"[ \t\n\r]*")

Scan = Callable[[str, int], tuple[Any, int]]
Records = tuple[str, int, Any]


def read_records(path: str | os.PathLike, what: str, keys: Collection[str]) -> Iterator[Records]:
    """The records of lists in the object that a JSON file holds, in the order of the file.

    Args:
        what: the file is to hold, for messages.
        keys: of the lists; other keys are passed over.

    Yields:
        (key, place of the first, records), thousands of them at a time. (key, NO_LIST, value) once for a list, before
        its records: its value is [], or whatever stands there that is no list.

    Raises:
        FileNotFoundError: no such file.
        AnnotationError: naming the line where the file is damaged, or a key that it has twice.
    """
    path = os.fspath(path)
    text = read_text(path, what, most=None)
    try:
        yield from _records(path, text, keys)
    except json.JSONDecodeError as error:
        raise json_error(path, what, text, error) from error
    except AnnotationError:
        raise
    except (RecursionError, ValueError) as error:  # lists in lists without end, numbers of thousands of digits
        raise AnnotationError(path, "", "", f"it cannot be read ({error}); export {what} again") from error


def _records(path: str, text: str, keys: Collection[str]) -> Iterator[Records]:
    scan, seen = json.JSONDecoder().raw_decode, set[str]()
    place = _skip(text, 0)
    if text[place : place + 1] != "{":
        scan(text, place)  # raises for what is no JSON
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
            raise AnnotationError(path, line, key, "the file has it a second time; keep one of them")
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
    """Yields the elements of the list at `place`, and returns the place after it."""
    place, first = _skip(text, place + 1), 0
    records: list[Any] = []
    while text[place : place + 1] != "]":
        record, place = scan(text, place)
        records.append(record)
        if len(records) == CHUNK:
            yield key, first, records
            first, records = first + len(records), []
        following = text[place : place + 3]
        if following == ", {":  # as json.dump writes it
            place += 2
        elif following[:2] == ",{":
            place += 1
        else:
            place = _next(text, place, "]")
    if records:
        yield key, first, records
    return place + 1


def _next(text: str, place: int, end: str) -> int:
    """The place of the next element, or of the bracket that ends the list or object."""
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
    """The place after spaces and line breaks."""
    match = SPACES.match(text, place)
    return match.end() if match else place

"""Tables in csv files, checked row by row."""

import csv
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from mrcnn.data.annotations.problems import AnnotationError, Problems

HEAD = 2**16  # characters
TOKEN = re.compile(r'\s*(?:"(?P<text>(?:[^"\\]|\\.)*)"(?P<key>\s*:)?|(?P<open>[\[{])|(?P<close>[\]}])|[^\s"\[\]{}]+)')


FILE_NAME = re.compile(r'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")')


class Head(NamedTuple):
    """Keys of the outermost object (`top`), and of the objects that lie directly in it, or in a list (`second`).

    file_name: the first value of such a key; "" without one.
    """

    top: frozenset[str] = frozenset()
    second: frozenset[str] = frozenset()
    file_name: str = ""


def read_head(path: str | os.PathLike) -> Head:
    """The keys in the first 64 thousand characters; none when the file is not json, or cannot be read as text."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(HEAD)
    except OSError:
        return Head()
    keys: dict[int, set[str]] = {}
    depth, place = 0, 0
    while token := TOKEN.match(text, place):  # ends at a text that is cut off
        place = token.end()
        if token["open"]:
            depth += 1
        elif token["close"]:
            depth -= 1
        elif token["key"]:
            keys.setdefault(depth, set()).add(_unescaped(f'"{token["text"]}"'))
        elif depth == 0:
            break  # a number, or no json at all
    name = FILE_NAME.search(text)
    return Head(frozenset(keys.get(1, ())), frozenset(keys.get(2, ())), _unescaped(name[1]) if name else "")


def _unescaped(text: str) -> str:
    try:
        return json.loads(text, strict=False)
    except ValueError:  # the reader says what is wrong
        return text


NO_END = "file without a last line break"


def read_header(path: str | os.PathLike) -> list[str]:
    """The names of the columns of a csv; none for an empty file."""
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        return [name.strip() for name in next(csv.reader([file.readline(100_000)]), [])]


def read_rows(
    problems: Problems, path: str | os.PathLike, what: str, required: Sequence[str]
) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a csv by the names in its first line, each after the name of its record, "line 7".

    Rows of more or fewer fields than there are columns are broken. A last row without a line break is noted: the file
    may be cut off within its last field, which then looks whole.

    Raises:
        FileNotFoundError: no such file.
        AnnotationError: not text, or a column is missing.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no {what} at {path!r}; check the path")
    columns = read_header(path)
    for column in required:
        if column not in columns:
            raise AnnotationError(
                path,
                "line 1",
                column,
                f"there is no such column; expected {', '.join(required)}, got {', '.join(columns)[:200] or 'nothing'}",
            )
    if len(set(columns)) != len(columns):
        raise AnnotationError(path, "line 1", "", f"columns repeat: {', '.join(columns)[:200]}")
    number = 1
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            for number, row in _numbered_rows(file):
                if len(row) == len(columns):
                    yield f"line {number}", dict(zip(columns, row, strict=True))
                elif row:
                    field = columns[min(len(row), len(columns) - 1)]
                    problems.broken(
                        path,
                        f"line {number}",
                        field,
                        f"expected {len(columns)} fields, got {len(row)}; is the file cut off?",
                    )
    except (UnicodeDecodeError, csv.Error) as error:
        raise AnnotationError(path, f"after line {number}", "", f"it is not a csv in UTF-8: {error}") from error
    if number > 1 and not _ends_with_line_break(path):
        problems.noted(
            NO_END,
            path,
            f"line {number}",
            columns[-1],
            "no line break follows it; is the file cut off?",
            "it is used as it is",
        )


def _numbered_rows(file) -> Iterator[tuple[int, list[str]]]:
    """Number of the line, and fields, of each row after the first."""
    reader = csv.reader(file, strict=True)
    limit = csv.field_size_limit(sys.maxsize)  # 128 KiB unless told; one mask's run lengths can be longer
    try:
        next(reader, None)
        for row in reader:
            yield reader.line_num, row
    finally:
        csv.field_size_limit(limit)


def _ends_with_line_break(path: str) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) in b"\r\n"


def read_json(path: str | os.PathLike, what: str) -> Any:
    """The content of a json file. Raises FileNotFoundError, or AnnotationError saying where it is damaged."""
    path = os.fspath(path)
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        raise FileNotFoundError(f"no {what} at {path!r}; check the path") from None
    except json.JSONDecodeError as error:
        raise AnnotationError(
            path, f"line {error.lineno}", "", f"it is not json ({error.msg}), damaged or cut off; export {what} again"
        ) from error
    except UnicodeDecodeError as error:
        raise AnnotationError(
            path, f"byte {error.start}", "", f"it is not text in UTF-8; export {what} again"
        ) from error
    except (RecursionError, ValueError) as error:  # lists in lists without end, numbers of thousands of digits
        raise AnnotationError(path, "", "", f"it cannot be read ({error}); export {what} again") from error

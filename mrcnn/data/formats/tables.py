"""Tables in csv files, checked row by row."""

import csv
import os
import sys
from collections.abc import Iterator, Sequence

from mrcnn.data.formats.problems import AnnotationError, Problems

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

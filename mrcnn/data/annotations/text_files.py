"""Reads untrusted text files in any common encoding, with bounded time and memory; errors name the file.

All JSON, YAML, XML and CSV annotation files are opened here. A byte order mark (UTF-8 or UTF-16) sets the encoding;
without one it is UTF-8. Only regular files are read, because a device or a pipe might never end.
"""

import codecs
import csv
import json
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from io import TextIOWrapper
from typing import Any, NamedTuple
from xml.etree import ElementTree

from mrcnn.data.annotations.problems import AnnotationError, Problems

NO_END = "file without a final newline"
MOST_TEXT = 2**26  # byte limit for a file that lists names or images, or describes one image
MOST_YAML = 2**24  # byte limit for a YAML file
MOST_VALUES = 1_000_000  # maximum number of values in a YAML file, with aliases expanded
MOST_DEPTH = 50  # maximum nesting of lists in a YAML file
BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
XML_ENCODING = re.compile(rb"<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([A-Za-z0-9._-]{1,40})[\"']")
XML_ENCODINGS = re.compile(
    r"utf-(8|16|32)\S*|ascii|iso8859-\d+|cp\d+|gb\w+|hz|big5\w*|shift_jis\w*|euc_\w+|iso2022\w*|koi8-\w|mac-\w+|johab"
)
HEADS = (2**16, 2**20, 2**24, 2**28)  # characters that `read_head` reads, in turn, until it knows enough
TOKEN = re.compile(r'[^"\[\]{}]*(?:(?P<open>[\[{])|(?P<close>[\]}])|")')
TEXT_END = re.compile(r'[^"\\]*(?:\\.[^"\\]*)*"(?P<key>\s*:)?', re.DOTALL)
MOST_TOKENS = 2_000_000


def open_text(
    path: str | os.PathLike, what: str, *, most: int | None = None, newline: str | None = None, errors: str = "strict"
) -> TextIOWrapper:
    """Opens a text file in its own encoding; reading invalid bytes raises UnicodeDecodeError.

    Args:
        what: the expected content, for messages.
        most: maximum size in bytes.
        errors: how to handle invalid bytes, as for `open`.

    Raises:
        FileNotFoundError: the file is missing.
        AnnotationError: the path is a folder, a device or a pipe, or the file is too large.
    """
    path = os.fspath(path)
    check_regular(path, what, most)
    with open(path, "rb") as file:
        start = file.read(4)
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if start.startswith(mark)), "utf-8")
    return open(path, encoding=encoding, newline=newline, errors=errors)


def check_regular(path: str, what: str, most: int | None = None) -> None:
    """Raises FileNotFoundError or AnnotationError unless `path` is a regular file of at most `most` bytes."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"no {what} at {path!r}; check the path") from None
    except ValueError as error:  # a null byte
        raise FileNotFoundError(f"no {what} at {path!r}: {error}; check the path") from None
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a device or a pipe"
        raise AnnotationError(path, "", "", f"expected a file with {what}, got {kind}")
    if most is not None and status.st_size > most:
        raise AnnotationError(path, "", "", f"the file has {status.st_size:,} bytes; the limit for {what} is {most:,}")


def read_text(path: str | os.PathLike, what: str, *, most: int | None = MOST_TEXT) -> str:
    """The content of a text file. Raises as `open_text`, and AnnotationError naming the first invalid byte."""
    try:
        with open_text(path, what, most=most) as file:
            return file.read()
    except UnicodeDecodeError as error:
        message = f"not valid {error.encoding.upper()} text; export {what} again"
        raise AnnotationError(os.fspath(path), f"byte {error.start}", "", message) from error


def read_lines(path: str | os.PathLike, what: str) -> list[str]:
    """The lines of a text file, stripped of surrounding whitespace. Raises as `read_text`."""
    return [line.strip() for line in read_text(path, what).splitlines()]


def read_json(path: str | os.PathLike, what: str) -> Any:
    """The content of a JSON file. Raises FileNotFoundError, or AnnotationError naming the invalid line."""
    text = read_text(path, what, most=None)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise json_error(os.fspath(path), what, text, error) from error
    except (RecursionError, ValueError) as error:  # endlessly nested lists, numbers with thousands of digits
        message = f"it cannot be read ({error}); export {what} again"
        raise AnnotationError(os.fspath(path), "", "", message) from error


def json_error(path: str, what: str, text: str, error: json.JSONDecodeError) -> AnnotationError:
    """The error for invalid JSON text, naming the line."""
    line = text.count("\n", 0, error.pos) + 1
    return AnnotationError(path, f"line {line}", "", f"invalid or truncated JSON ({error.msg}); export {what} again")


class Head(NamedTuple):
    """Keys of a JSON file's outermost object (`top`), and of objects in it or in a list in it (`second`)."""

    top: frozenset[str] = frozenset()
    second: frozenset[str] = frozenset()


def read_head(path: str | os.PathLike, tells: frozenset[str] = frozenset()) -> Head:
    """The keys at the start of a JSON file, which may have hundreds of megabytes; empty if it is not JSON.

    Args:
        tells: keys that end the search: one in `top` or two in `second` are enough. The first 64 thousand characters
            are always read, then more and more of the file until such keys are found.
    """
    head = Head()
    try:
        size = os.path.getsize(path)
        for most in HEADS:
            with open_text(path, "JSON", errors="replace") as file:
                head = _keys(file.read(most))
            if most >= size or head.top & tells or len(head.second & tells) > 1:
                break
    except (OSError, AnnotationError):
        return Head()
    return head


def _keys(text: str) -> Head:
    keys: dict[int, set[str]] = {}
    depth, place = 0, 0
    for _ in range(MOST_TOKENS):
        token = TOKEN.match(text, place)
        if token is None or (depth == 0 and not token["open"]):
            break
        place = token.end()
        if token["open"]:
            depth += 1
        elif token["close"]:
            depth -= 1
            if depth == 0:
                break
        else:
            start, end = place, TEXT_END.match(text, place)
            if end is None:  # truncated
                break
            place = end.end()
            if end["key"] and depth <= 2:
                keys.setdefault(depth, set()).add(_unescaped(text[start - 1 : end.start("key")]))
    return Head(frozenset(keys.get(1, ())), frozenset(keys.get(2, ())))


def _unescaped(text: str) -> str:
    try:
        return json.loads(text, strict=False)
    except ValueError:  # the reader reports what is wrong
        return text


def read_yaml(path: str | os.PathLike, what: str) -> Any:
    """The content of a YAML file.

    Raises:
        FileNotFoundError: the file is missing.
        AnnotationError: invalid YAML, or aliases that expand to too many values; names the line.
    """
    import yaml

    path, text = os.fspath(path), read_text(path, what, most=MOST_YAML)
    kind = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    node = None
    try:
        _check_depth(path, yaml.parse(text, kind))
        loader = kind(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_expanded(path, node)
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}" if mark else ""
        raise AnnotationError(path, line, "", f"invalid or truncated YAML: {_one_line(error)}") from error
    except AnnotationError:
        raise
    except Exception as error:  # constructors raise any error: February 30, numbers with 5,000 digits
        line = _line_of(node, kind) if node is not None else ""
        raise AnnotationError(path, line, "", f"a value cannot be read: {_one_line(error)}; correct it") from error


def _check_depth(path: str, events: Iterable[Any]) -> None:
    """Raises AnnotationError for collections nested so deeply that composing them would overflow the stack."""
    depth = 0
    for event in events:
        name = type(event).__name__
        depth += name.endswith("StartEvent") - name.endswith("EndEvent")
        if depth > MOST_DEPTH:
            line = f"line {event.start_mark.line + 1}"
            raise AnnotationError(path, line, "", f"lists are nested more than {MOST_DEPTH} deep; is the file damaged?")


def _check_expanded(path: str, node: Any) -> None:
    """Raises AnnotationError for aliases that expand to millions of values or refer to themselves."""
    sizes: dict[int, int | None] = {}

    def count(node: Any) -> int:
        known = sizes.get(id(node), 0)
        if known:
            return known
        line = f"line {node.start_mark.line + 1}"
        if known is None:
            raise AnnotationError(path, line, "", "an alias refers to itself; write it out")
        sizes[id(node)] = None
        value = node.value if isinstance(node.value, list) else []
        inner = [part for entry in value for part in (entry if isinstance(entry, tuple) else (entry,))]
        total = sizes[id(node)] = 1 + sum(map(count, inner))
        if total > MOST_VALUES:
            raise AnnotationError(
                path, line, "", f"it expands to more than {MOST_VALUES:,} values; write out its aliases"
            )
        return total

    count(node)


def _line_of(node: Any, kind: Any) -> str:
    """The line of the first scalar that cannot be constructed."""
    nodes, seen = [node], {id(node)}
    while nodes:
        node = nodes.pop()
        if isinstance(node.value, list):
            inner = [part for entry in node.value for part in (entry if isinstance(entry, tuple) else (entry,))]
            nodes += [part for part in reversed(inner) if id(part) not in seen]
            seen.update(map(id, inner))
            continue
        try:
            kind("").construct_object(node)
        except Exception:
            return f"line {node.start_mark.line + 1}"
    return ""


def read_xml(path: str | os.PathLike, what: str) -> ElementTree.Element:
    """The root of an XML file, read in the encoding it declares.

    Raises:
        FileNotFoundError: the file is missing.
        AnnotationError: invalid XML, an unknown encoding, or entity declarations, which could expand without limit or
            read other files; names the line.
    """
    path = os.fspath(path)
    check_regular(path, what, MOST_TEXT)
    with open(path, "rb") as file:
        data = file.read()
    text = _decoded_xml(path, data)
    declared = re.search(r"<!(?:DOCTYPE|ENTITY)", text)
    if declared:
        line = f"line {text.count(chr(10), 0, declared.start()) + 1}"
        raise AnnotationError(
            path, line, "", "it declares a document type or entities, which are not supported; remove them"
        )
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        line = f"line {error.position[0]}"
        raise AnnotationError(path, line, "", f"invalid XML: {error}; is the file truncated?") from error
    except (ValueError, RecursionError) as error:
        raise AnnotationError(path, "line 1", "", f"invalid XML: {_one_line(error)}") from error


def _decoded_xml(path: str, data: bytes) -> str:
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if data.startswith(mark)), None)
    if encoding is None:
        declared = XML_ENCODING.match(data.lstrip()[:400])
        encoding = declared[1].decode("ascii") if declared else "utf-8"
    try:
        if not XML_ENCODINGS.fullmatch(codecs.lookup(encoding).name.replace("utf_8_sig", "utf-8")):
            raise LookupError(encoding)
        text = data.decode(encoding)
    except LookupError:
        raise AnnotationError(
            path, "line 1", "encoding", f"{encoding!r} is not a text encoding; declare utf-8 and save the file in it"
        ) from None
    except UnicodeDecodeError as error:
        line = f"line {data.count(b'%c' % 10, 0, error.start) + 1}"
        raise AnnotationError(
            path, line, "", f"not valid {encoding} text, although it declares that encoding; save it again"
        ) from None
    # Drop the declaration, whose encoding no longer applies, but keep the number of lines
    return re.sub(r"^\s*<\?xml.*?\?>", lambda match: "\n" * match[0].count("\n"), text, count=1, flags=re.DOTALL)


def read_header(path: str | os.PathLike) -> list[str]:
    """The column names of a CSV file; [] if it is empty or unreadable."""
    try:
        with open_text(path, "CSV", newline="", errors="replace") as file:
            return [name.strip() for name in next(csv.reader([file.readline(100_000)]), [])]
    except (AnnotationError, csv.Error):
        return []


def read_rows(
    problems: Problems, path: str | os.PathLike, what: str, required: Sequence[str] = ()
) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a CSV file as dicts by column name, each preceded by its record name, such as "line 7".

    Rows with too many or too few fields are errors. A last row without a newline is noted: the file may have been
    truncated within its last field, which then looks complete.

    Raises:
        FileNotFoundError: the file is missing.
        AnnotationError: the file is not text, or a column is missing.
    """
    path = os.fspath(path)
    check_regular(path, what)
    columns = read_header(path)
    for column in required:
        if column not in columns:
            raise AnnotationError(
                path,
                "line 1",
                column,
                f"missing column; expected {', '.join(required)}, got {', '.join(columns)[:200] or 'nothing'}",
            )
    if len(set(columns)) != len(columns):
        raise AnnotationError(path, "line 1", "", f"duplicate columns: {', '.join(columns)[:200]}")
    number = 1
    try:
        with open_text(path, what, newline="") as file:
            for number, row in _numbered_rows(file):
                if len(row) == len(columns):
                    yield f"line {number}", dict(zip(columns, row, strict=True))
                elif row:
                    field = columns[min(len(row), len(columns) - 1)]
                    message = f"expected {len(columns)} fields, got {len(row)}; is the file truncated?"
                    problems.broken(path, f"line {number}", field, message, images=0, instances=1)
    except (UnicodeDecodeError, csv.Error) as error:
        raise AnnotationError(path, f"after line {number}", "", f"not a valid UTF-8 CSV file: {error}") from error
    if number > 1 and not _ends_with_line_break(path):
        message = "it does not end with a newline; is the file truncated?"
        problems.noted(NO_END, path, f"line {number}", columns[-1], message, "used as is")


def _numbered_rows(file: TextIOWrapper) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of each row after the first."""
    reader = csv.reader(file, strict=True)
    limit = csv.field_size_limit(sys.maxsize)  # default 128 KiB; the RLE of one mask can be longer
    try:
        next(reader, None)
        for row in reader:
            yield reader.line_num, row
    finally:
        csv.field_size_limit(limit)


def _ends_with_line_break(path: str) -> bool:
    with open(path, "rb") as file:
        file.seek(-2, os.SEEK_END)
        return file.read(2).rstrip(b"\0")[-1:] in (b"\r", b"\n")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]

"""Text files from strangers: read with any usual encoding, in bounded time and memory, and named when they are damaged.

JSON, YAML, XML and CSV files of annotations are all opened here. A byte order mark (UTF-8 or UTF-16) decides the
encoding of a file; without one it is UTF-8. Only regular files are read: a device or a pipe would never end.
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

NO_END = "file without a last line break"
MOST_TEXT = 2**26  # bytes of a file that lists names or images, or describes one image
MOST_YAML = 2**24  # bytes
MOST_VALUES = 1_000_000  # of a YAML file, once its aliases are expanded
MOST_DEPTH = 50  # of lists in lists in a YAML file
BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
XML_ENCODING = re.compile(rb"<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([A-Za-z0-9._-]{1,40})[\"']")
XML_ENCODINGS = re.compile(
    r"utf-(8|16|32)\S*|ascii|iso8859-\d+|cp\d+|gb\w+|hz|big5\w*|shift_jis\w*|euc_\w+|iso2022\w*|koi8-\w|mac-\w+|johab"
)
HEADS = (2**16, 2**20, 2**24, 2**28)  # characters that `read_head` looks at, in turn, until it knows enough
TOKEN = re.compile(r'[^"\[\]{}]*(?:(?P<open>[\[{])|(?P<close>[\]}])|")')
TEXT_END = re.compile(r'[^"\\]*(?:\\.[^"\\]*)*"(?P<key>\s*:)?', re.DOTALL)
MOST_TOKENS = 2_000_000


def open_text(
    path: str | os.PathLike, what: str, *, most: int | None = None, newline: str | None = None, errors: str = "strict"
) -> TextIOWrapper:
    """Opens a text file in its own encoding; bytes that are not text raise UnicodeDecodeError when they are read.

    Args:
        what: the file is to hold, for messages.
        most: bytes.
        errors: what to do with bytes that are no text, as `open` has it.

    Raises:
        FileNotFoundError: no such file.
        AnnotationError: a folder, a device or a pipe, or a larger file.
    """
    path = os.fspath(path)
    check_regular(path, what, most)
    with open(path, "rb") as file:
        start = file.read(4)
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if start.startswith(mark)), "utf-8")
    return open(path, encoding=encoding, newline=newline, errors=errors)


def check_regular(path: str, what: str, most: int | None = None) -> None:
    """Raises FileNotFoundError or AnnotationError unless `path` is a file that can be read to its end."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"no {what} at {path!r}; check the path") from None
    except ValueError as error:  # a null byte
        raise FileNotFoundError(f"no {what} at {path!r}: {error}; check the path") from None
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a device or a pipe"
        raise AnnotationError(path, "", "", f"expected a file of {what}, got {kind}")
    if most is not None and status.st_size > most:
        raise AnnotationError(path, "", "", f"it has {status.st_size:,} bytes; a file of {what} has {most:,} at most")


def read_text(path: str | os.PathLike, what: str, *, most: int | None = MOST_TEXT) -> str:
    """The content of a text file. Raises as `open_text`, and AnnotationError naming the byte that is not text."""
    try:
        with open_text(path, what, most=most) as file:
            return file.read()
    except UnicodeDecodeError as error:
        message = f"it is not text in {error.encoding.upper()}; export {what} again"
        raise AnnotationError(os.fspath(path), f"byte {error.start}", "", message) from error


def read_lines(path: str | os.PathLike, what: str) -> list[str]:
    """The lines of a text file, without spaces around them. Raises as `read_text`."""
    return [line.strip() for line in read_text(path, what).splitlines()]


def read_json(path: str | os.PathLike, what: str) -> Any:
    """The content of a JSON file. Raises FileNotFoundError, or AnnotationError saying where it is damaged."""
    text = read_text(path, what, most=None)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise json_error(os.fspath(path), what, text, error) from error
    except (RecursionError, ValueError) as error:  # lists in lists without end, numbers of thousands of digits
        message = f"it cannot be read ({error}); export {what} again"
        raise AnnotationError(os.fspath(path), "", "", message) from error


def json_error(path: str, what: str, text: str, error: json.JSONDecodeError) -> AnnotationError:
    """The error for a JSON text that is damaged, naming the line."""
    line = text.count("\n", 0, error.pos) + 1
    return AnnotationError(
        path, f"line {line}", "", f"it is not json ({error.msg}), damaged or cut off; export {what} again"
    )


class Head(NamedTuple):
    """Keys of the outermost object of a JSON file (`top`), and of the objects in it, or in a list in it (`second`)."""

    top: frozenset[str] = frozenset()
    second: frozenset[str] = frozenset()


def read_head(path: str | os.PathLike, tells: frozenset[str] = frozenset()) -> Head:
    """The keys at the start of a JSON file that may be hundreds of megabytes long; none when it is no JSON file.

    Args:
        tells: keys, of which one in `top` or two in `second` make it unnecessary to look further. The first 64 thousand
            characters are looked at in any case, then more and more of the file until such keys are found.
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
            if end is None:  # cut off
                break
            place = end.end()
            if end["key"] and depth <= 2:
                keys.setdefault(depth, set()).add(_unescaped(text[start - 1 : end.start("key")]))
    return Head(frozenset(keys.get(1, ())), frozenset(keys.get(2, ())))


def _unescaped(text: str) -> str:
    try:
        return json.loads(text, strict=False)
    except ValueError:  # the reader says what is wrong
        return text


def read_yaml(path: str | os.PathLike, what: str) -> Any:
    """The content of a YAML file.

    Raises:
        FileNotFoundError: no such file.
        AnnotationError: naming the line that is damaged, or that aliases expand to more than a file should hold.
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
        raise AnnotationError(path, line, "", f"it is not yaml, damaged or cut off: {_one_line(error)}") from error
    except AnnotationError:
        raise
    except Exception as error:  # constructors raise what they like: the 30th of February, numbers of 5,000 digits
        line = _line_of(node, kind) if node is not None else ""
        raise AnnotationError(path, line, "", f"a value cannot be read: {_one_line(error)}; correct it") from error


def _check_depth(path: str, events: Iterable[Any]) -> None:
    """Raises AnnotationError for collections nested so deeply that composing them would exhaust the stack."""
    depth = 0
    for event in events:
        name = type(event).__name__
        depth += name.endswith("StartEvent") - name.endswith("EndEvent")
        if depth > MOST_DEPTH:
            line = f"line {event.start_mark.line + 1}"
            raise AnnotationError(path, line, "", f"lists are nested more than {MOST_DEPTH} deep; is the file damaged?")


def _check_expanded(path: str, node: Any) -> None:
    """Raises AnnotationError for aliases that make a few lines stand for millions of values, or for themselves."""
    sizes: dict[int, int | None] = {}

    def count(node: Any) -> int:
        known = sizes.get(id(node), 0)
        if known:
            return known
        line = f"line {node.start_mark.line + 1}"
        if known is None:
            raise AnnotationError(path, line, "", "an alias stands inside of what it stands for; write it out")
        sizes[id(node)] = None
        value = node.value if isinstance(node.value, list) else []
        inner = [part for entry in value for part in (entry if isinstance(entry, tuple) else (entry,))]
        total = sizes[id(node)] = 1 + sum(map(count, inner))
        if total > MOST_VALUES:
            raise AnnotationError(
                path, line, "", f"it stands for more than {MOST_VALUES:,} values; write out its aliases"
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
    """The root of an XML file, in the encoding that it declares.

    Raises:
        FileNotFoundError: no such file.
        AnnotationError: naming the line that is damaged, that declares an unknown encoding, or that declares entities,
            which could expand without bounds or read other files.
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
            path, line, "", "it declares a document type or entities, which are not read; remove them"
        )
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        line = f"line {error.position[0]}"
        raise AnnotationError(path, line, "", f"it is not xml: {error}; is it cut off?") from error
    except (ValueError, RecursionError) as error:
        raise AnnotationError(path, "line 1", "", f"it is not xml: {_one_line(error)}") from error


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
            path, "line 1", "encoding", f"{encoding!r} is not an encoding of text; write utf-8, and save the file in it"
        ) from None
    except UnicodeDecodeError as error:
        line = f"line {data.count(b'%c' % 10, 0, error.start) + 1}"
        raise AnnotationError(
            path, line, "", f"it is not text in {encoding}, which it declares; save it again"
        ) from None
    # Without the declaration, whose encoding is that of `data`, and with as many lines
    return re.sub(r"^\s*<\?xml.*?\?>", lambda match: "\n" * match[0].count("\n"), text, count=1, flags=re.DOTALL)


def read_header(path: str | os.PathLike) -> list[str]:
    """The names of the columns of a CSV file; none for an empty file, or one that cannot be read."""
    try:
        with open_text(path, "CSV", newline="", errors="replace") as file:
            return [name.strip() for name in next(csv.reader([file.readline(100_000)]), [])]
    except (AnnotationError, csv.Error):
        return []


def read_rows(
    problems: Problems, path: str | os.PathLike, what: str, required: Sequence[str] = ()
) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a CSV file by the names in its first line, each after the name of its record, "line 7".

    Rows of more or fewer fields than there are columns are broken. A last row without a line break is noted: the file
    may be cut off within its last field, which then looks whole.

    Raises:
        FileNotFoundError: no such file.
        AnnotationError: not text, or a column is missing.
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
                f"there is no such column; expected {', '.join(required)}, got {', '.join(columns)[:200] or 'nothing'}",
            )
    if len(set(columns)) != len(columns):
        raise AnnotationError(path, "line 1", "", f"columns repeat: {', '.join(columns)[:200]}")
    number = 1
    try:
        with open_text(path, what, newline="") as file:
            for number, row in _numbered_rows(file):
                if len(row) == len(columns):
                    yield f"line {number}", dict(zip(columns, row, strict=True))
                elif row:
                    field = columns[min(len(row), len(columns) - 1)]
                    message = f"expected {len(columns)} fields, got {len(row)}; is the file cut off?"
                    problems.broken(path, f"line {number}", field, message, images=0, instances=1)
    except (UnicodeDecodeError, csv.Error) as error:
        raise AnnotationError(path, f"after line {number}", "", f"it is not a csv in UTF-8: {error}") from error
    if number > 1 and not _ends_with_line_break(path):
        message = "no line break follows it; is the file cut off?"
        problems.noted(NO_END, path, f"line {number}", columns[-1], message, "it is used as it is")


def _numbered_rows(file: TextIOWrapper) -> Iterator[tuple[int, list[str]]]:
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
        file.seek(-2, os.SEEK_END)
        return file.read(2).rstrip(b"\0")[-1:] in (b"\r", b"\n")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]

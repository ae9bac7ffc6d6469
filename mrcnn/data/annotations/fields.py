"""Checked values of record fields, for all readers."""

import base64
import binascii
import reprlib
from collections import Counter
from typing import Any

import numpy as np

from mrcnn.data.annotations import problems
from mrcnn.data.annotations.outlines import Ellipse, Outline, Polygons, Rectangle
from mrcnn.data.annotations.problems import Problems

MOST_SHOWN = 60  # characters
NEEDS_MASKS = "a box without a mask; add masks, or use masks=False and a model with MASK_HEAD = None"
MOST = 1e300
SHORT = reprlib.Repr()
SHORT.maxlevel, SHORT.maxstring, SHORT.maxlong, SHORT.maxother = 4, 200, 200, 200
SHORT.maxlist = SHORT.maxtuple = SHORT.maxdict = SHORT.maxset = 20


class FieldError(ValueError):
    """An invalid field of a record; `kind` is one of `mrcnn.data.annotations.problems`."""

    def __init__(self, field: str, message: str, kind: str = problems.BROKEN) -> None:
        super().__init__(message)
        self.field, self.kind = field, kind


def shown(value: Any) -> str:
    """A value as shown in error messages, shortened if large or deeply nested."""
    try:
        text = SHORT.repr(value)
    except ValueError:  # a number of thousands of digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 3]}..."


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; True and False are not."""
    return type(value) in (int, float) and -MOST < value < MOST  # JSON allows integers of any size, and NaN


def number(record: dict, field: str) -> float:
    """A numeric field. Raises FieldError."""
    if field not in record:
        raise FieldError(field, f"missing; the record has {', '.join(map(str, record)) or 'no fields'}")
    if not is_number(record[field]):
        raise FieldError(field, f"expected a number, got {shown(record[field])}")
    return float(record[field])


def size_of(record: dict, field: str) -> float:
    """A numeric field >= 0. Raises FieldError."""
    value = number(record, field)
    if value < 0:
        raise FieldError(field, f"expected a number >= 0, got {shown(record[field])}")
    return value


def id_of(value: Any, field: str) -> int | str:
    """An id normalized for comparison: 1.0 and "1" become 1. Raises FieldError."""
    key = plain_id(value)
    if key is None:
        raise FieldError(field, f"expected an integer, got {shown(value)}")
    return key


def plain_id(value: Any) -> int | str | None:
    """Like `id_of`, but None if the value is not an id."""
    if type(value) is int:
        return value
    if type(value) is float and value.is_integer():
        return int(value)
    if type(value) is str and value:
        whole = value.isascii() and value.isdecimal() and len(value) < 19 and str(int(value)) == value
        return int(value) if whole else value
    return None


def decoded(text: Any, field: str) -> bytes:
    """The decoded content of a base64 string. Raises FieldError."""
    if not isinstance(text, str) or not text:
        raise FieldError(field, f"expected a base64-encoded image, got {shown(text)}")
    try:
        return base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise FieldError(field, f"invalid or truncated base64: {error}") from error


def polygon(points: Any, field: str) -> Polygons:
    """One polygon from [[x, y], ...]. Raises FieldError."""
    if not isinstance(points, list) or not all(
        isinstance(point, list) and len(point) == 2 and all(map(is_number, point)) for point in points
    ):
        raise FieldError(field, f"expected a list of points [x, y], got {shown(points)}")
    return Polygons((np.array(points, np.float64).reshape(-1, 2),))


def encloses(found: Problems, outline: Outline, file: str, record: str, field: str) -> bool:
    """Whether an outline has an area; if not (such as after a click without a drag), it is skipped and recorded.

    Polygons are checked when they are added to the dataset.
    """
    if isinstance(outline, (Ellipse, Rectangle)):
        y1, x1, y2, x2 = outline.bounds()
        if y1 == y2 or x1 == x2:
            message = f"it spans {(y1, x1, y2, x2)} (y1, x1, y2, x2), which has no area"
            found.left_out(problems.EMPTY, file, record, field, message, images=0, instances=1)
            return False
    return True


class Unread:
    """Counts ignored fields, since every one of a million records may have the same fault."""

    def __init__(self, found: Problems, file: str) -> None:
        self._found, self._file = found, file
        self._first: dict[tuple[str, str, str], tuple[str, str]] = {}
        self._counts: Counter[tuple[str, str, str]] = Counter()

    def add(self, what: str, record: str, field: str, message: str, treatment: str) -> None:
        """Counts a field of a record; what: the kind of record."""
        key = what, field, treatment
        self._counts[key] += 1
        self._first.setdefault(key, (record, message))

    def note(self) -> None:
        """Records each kind once, with its first record."""
        for (what, field, treatment), count in self._counts.items():
            record, message = self._first[what, field, treatment]
            others = f"; the same in {count - 1} other {what} records" if count > 1 else ""
            self._found.noted(problems.UNREAD, self._file, record, field, message + others, treatment)

"""Values of records, checked: what the readers of json and text have in common."""

from typing import Any

import numpy as np

from mrcnn.data.annotations import problems
from mrcnn.data.annotations.outlines import Ellipse, Outline, Polygons, Rectangle
from mrcnn.data.annotations.problems import Problems

MOST_SHOWN = 60  # characters
MOST = 1e300


class FieldError(ValueError):
    """A field of a record that cannot be read; `kind` is that of `mrcnn.data.annotations.problems`."""

    def __init__(self, field: str, message: str, kind: str = problems.BROKEN) -> None:
        super().__init__(message)
        self.field, self.kind = field, kind


def shown(value: Any) -> str:
    """A value as an error message shows it."""
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 3]}..."


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; True and False are none."""
    return type(value) in (int, float) and -MOST < value < MOST  # json has whole numbers of any size, and NaN


def number(record: dict, field: str) -> float:
    """A field that is a number."""
    if field not in record:
        raise FieldError(field, f"it is missing; there are {', '.join(map(str, record)) or 'no fields'}")
    if not is_number(record[field]):
        raise FieldError(field, f"expected a number, got {shown(record[field])}")
    return float(record[field])


def size_of(record: dict, field: str) -> float:
    """A field that is a number from 0 on."""
    value = number(record, field)
    if value < 0:
        raise FieldError(field, f"expected a number from 0 on, got {shown(record[field])}")
    return value


def whole(
    record: dict, field: str, least: int | None = None, most: int | None = None, what: str = "a whole number"
) -> int:
    """A field that is a whole number, from `least` to `most` where those are given; True and False are none."""
    value = record[field]
    if type(value) is not int or (least is not None and value < least) or (most is not None and value > most):
        between = "" if least is None else f" from {least} on" if most is None else f" from {least} on, {most} at most"
        raise FieldError(field, f"expected {what}{between}, got {shown(value)}")
    return value


def text(record: dict, field: str) -> str:
    """A field that is a text of at least one character."""
    if not isinstance(record[field], str) or not record[field]:
        raise FieldError(field, f"expected a text, got {shown(record[field])}")
    return record[field]


def polygon(points: list, field: str) -> Polygons:
    """One polygon of [[x, y], ...]."""
    if not isinstance(points, list) or not all(
        isinstance(point, list) and len(point) == 2 and all(map(is_number, point)) for point in points
    ):
        raise FieldError(field, f"expected a list of points [x, y], got {shown(points)}")
    return Polygons((np.array(points, np.float64).reshape(-1, 2),))


def encloses(found: Problems, outline: Outline, file: str, record: str, field: str) -> bool:
    """Whether an outline is more than a point or a line, as a click without a drag leaves behind; if not, left out.

    Polygons are checked where they are added to the dataset.
    """
    if isinstance(outline, (Ellipse, Rectangle)):
        y1, x1, y2, x2 = outline.bounds()
        if y1 == y2 or x1 == x2:
            found.left_out(
                problems.EMPTY, file, record, field, f"it spans {(y1, x1, y2, x2)} (y1, x1, y2, x2), which has no area"
            )
            return False
    return True

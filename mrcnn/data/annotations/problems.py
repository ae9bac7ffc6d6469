"""Problems: what a reader of annotations found wrong, and what it did about it."""

import dataclasses
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import TypedDict, Unpack

BROKEN = "broken record"
MISSING = "missing image file"
UNREADABLE = "unreadable image file"
SIZE = "wrong image size"
CLASH = "clashing id"
DEGENERATE = "polygon of fewer than three points"
EMPTY = "empty mask"
OUTSIDE = "outline outside the image"
PARTLY_OUTSIDE = "outline partly outside the image"
SELF_CROSSING = "self-intersecting polygon"
DUPLICATE = "duplicate instance"
SMALL = "box under a pixel"
UNANNOTATED = "image without instances"
TAGGED = "image with an orientation tag"
BOXES_ONLY = "box without a mask"
NOT_A_CLASS = "label that is not a class"
UNREAD = "field that is not used"
FOUND = "images in another folder"

LEFT_OUT = "left out"


class Lost(TypedDict, total=False):
    """How many images and instances of a file go with what is left out."""

    images: int
    instances: int


class AnnotationError(ValueError):
    """A record that cannot be read: `file`, `record` and `field` say where it stands."""

    def __init__(self, file: str, record: str, field: str, message: str) -> None:
        super().__init__(": ".join([", ".join(filter(None, [file, record, field and f"field {field!r}"])), message]))
        self.file, self.record, self.field = file, record, field


@dataclasses.dataclass(frozen=True)
class Problem:
    """One thing that is wrong. `record` and `field` say where in `file`; `treatment` what was done about it.

    images, instances: how many of the file go with it when it is left out; neither for other records, such as classes.
    """

    kind: str
    file: str
    record: str
    field: str
    message: str
    treatment: str
    images: int = 0
    instances: int = 0

    def __str__(self) -> str:
        return f"{AnnotationError(self.file, self.record, self.field, self.message)} ({self.treatment})"


class Problems:
    """Collects what a reader finds. Nothing is left out without standing here.

    Args:
        strict: raise at the first broken record; else leave it out and go on.
    """

    def __init__(self, strict: bool = True) -> None:
        self.strict = strict
        self._found: list[Problem] = []

    def __iter__(self) -> Iterator[Problem]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def broken(
        self, file: str, record: str, field: str, message: str, kind: str = BROKEN, **lost: Unpack[Lost]
    ) -> None:
        """A record that cannot be read. Raises AnnotationError when strict. lost: see `Problem`."""
        if self.strict:
            raise AnnotationError(file, record, field, f"{message} (strict=False reads on without it)")
        self.left_out(kind, file, record, field, message, **lost)

    def left_out(self, kind: str, file: str, record: str, field: str, message: str, **lost: Unpack[Lost]) -> None:
        """A record that can be read and not be used, such as a mask without pixels."""
        self.noted(kind, file, record, field, message, LEFT_OUT, **lost)

    def noted(
        self, kind: str, file: str, record: str, field: str, message: str, treatment: str, **lost: Unpack[Lost]
    ) -> None:
        """A record that is used, about which a person should know."""
        self._found.append(Problem(kind, file, record, field, message, treatment, **lost))

    def counts(self) -> dict[str, int]:
        """How many of each kind."""
        return dict(Counter(problem.kind for problem in self._found))

    def warn(self, path: str) -> None:
        """One warning that counts what was left out; none when nothing was."""
        left_out = [problem for problem in self._found if problem.treatment == LEFT_OUT]
        if left_out:
            counts = ", ".join(f"{n} x {kind}" for kind, n in Counter(problem.kind for problem in left_out).items())
            warnings.warn(
                f"{path}: left out {counts}; the first: {left_out[0]}. The dataset's `problems` holds all", stacklevel=3
            )

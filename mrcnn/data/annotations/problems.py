"""Problems that annotation readers find, and what they do about them."""

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
    """How many images and instances are lost with a skipped record."""

    images: int
    instances: int


class AnnotationError(ValueError):
    """An invalid record, located by `file`, `record` and `field`."""

    def __init__(self, file: str, record: str, field: str, message: str) -> None:
        super().__init__(": ".join([", ".join(filter(None, [file, record, field and f"field {field!r}"])), message]))
        self.file, self.record, self.field = file, record, field


@dataclasses.dataclass(frozen=True)
class Problem:
    """One problem, located by `file`, `record` and `field`; `treatment` says how it was handled.

    images, instances: how many are lost if the record is skipped; both 0 for other records, such as classes.
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
    """Collects the problems that a reader finds; nothing is skipped without being recorded here.

    Args:
        strict: raise at the first invalid record; if False, skip it and continue.
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
        """Records an invalid record; raises AnnotationError if strict. lost: see `Problem`."""
        if self.strict:
            raise AnnotationError(file, record, field, f"{message} (strict=False skips it)")
        self.left_out(kind, file, record, field, message, **lost)

    def left_out(self, kind: str, file: str, record: str, field: str, message: str, **lost: Unpack[Lost]) -> None:
        """Records that a valid but unusable record, such as a mask without pixels, is skipped."""
        self.noted(kind, file, record, field, message, LEFT_OUT, **lost)

    def noted(
        self, kind: str, file: str, record: str, field: str, message: str, treatment: str, **lost: Unpack[Lost]
    ) -> None:
        """Records something the user should know about a record that is used."""
        self._found.append(Problem(kind, file, record, field, message, treatment, **lost))

    def counts(self) -> dict[str, int]:
        """The number of problems of each kind."""
        return dict(Counter(problem.kind for problem in self._found))

    def warn(self, path: str) -> None:
        """Issues one warning that counts the skipped records, if any."""
        left_out = [problem for problem in self._found if problem.treatment == LEFT_OUT]
        if left_out:
            counts = ", ".join(f"{n} x {kind}" for kind, n in Counter(problem.kind for problem in left_out).items())
            warnings.warn(
                f"{path}: left out {counts}; the first: {left_out[0]}. All are in the dataset's `problems`",
                stacklevel=3,
            )

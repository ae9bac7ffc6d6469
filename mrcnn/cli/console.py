"""Exit codes, messages and the progress bar of all commands."""

import re
import sys
from dataclasses import dataclass
from typing import Any

DONE, FAILED, USAGE, INCOMPLETE, INTERRUPTED = 0, 1, 2, 3, 130
LONGEST = 2000  # characters per message


@dataclass(frozen=True)
class Outcome:
    """The result of a command: its --json output and exit code."""

    values: Any
    code: int = DONE


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with a line that says what was saved and how to continue."""


def one_line(message: Any) -> str:
    """A multi-line message as one line."""
    text = " ".join(part.strip() for part in str(message).splitlines() if part.strip())
    text = re.sub(r"^\[Errno \d+\] ", "", text)  # which Python writes before the system's words
    return text if len(text) <= LONGEST else text[:LONGEST] + " ..."


def counted(number: int, name: str) -> str:
    """ "1 image", "2 images"."""
    return f"{number} {name}" if number == 1 else f"{number} {name}s"


def note(message: str) -> None:
    """Prints a line for people to standard error."""
    print(message, file=sys.stderr, flush=True)


def progress(total: int | None, unit: str, done: int = 0) -> Any:
    """A progress bar on standard error, with `update()` and `close()`, that shows the count and the time left.

    Args:
        total: number of items; None if unknown.
        unit: name of an item, in the singular.
        done: number of items already done.
    """
    from tqdm import tqdm

    return tqdm(total=total, initial=done, unit=unit, file=sys.stderr, dynamic_ncols=True, mininterval=0.5)

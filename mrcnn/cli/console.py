"""What the commands share in talking to people and programs: exit codes, messages, one progress bar."""

import sys
from dataclasses import dataclass
from typing import Any

DONE, FAILED, USAGE, INCOMPLETE, INTERRUPTED = 0, 1, 2, 3, 130
LONGEST = 2000  # characters of a message


@dataclass(frozen=True)
class Outcome:
    """The result of a command: what --json prints, and the exit code."""

    values: Any
    code: int = DONE


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with a line that says what is saved and how to continue."""


def one_line(message: Any) -> str:
    """A message of several lines as one."""
    text = " ".join(part.strip() for part in str(message).splitlines() if part.strip())
    return text if len(text) <= LONGEST else text[:LONGEST] + " ..."


def note(message: str) -> None:
    """A line for people, on standard error."""
    print(message, file=sys.stderr, flush=True)


def progress(total: int | None, unit: str, done: int = 0) -> Any:
    """A bar on standard error, to `update()` and `close()`, that shows how many there have been and the time left.

    Args:
        total: how many there are; None where nobody knows.
        unit: what they are, in the singular.
        done: how many there were before.
    """
    from tqdm import tqdm

    return tqdm(total=total, initial=done, unit=unit, file=sys.stderr, dynamic_ncols=True, mininterval=0.5)

"""Records of finished runs in a comparison's JSON file, with which a comparison continues without the runs themselves.

A record identifies a run by `Run.key` and the fingerprint of the validation data, and has its numbers. Nothing in it
depends on the machine, so it can be committed.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from mrcnn.files import FolderInUseError, locked

FILE = "comparison.json"
PATIENCE = 60.0  # maximum seconds to wait for another process that is writing

Record = dict[str, Any]


def name_of(key: str, validation: str) -> str:
    """The name of a record."""
    return f"{key[:16]}-{validation[:16]}"


def read(folder: Path) -> dict[str, Record]:
    """The records in a folder, by name. Raises ValueError for a file that was not written by a comparison."""
    file = folder / FILE
    if not file.is_file():
        return {}
    try:
        runs = json.loads(file.read_text())["runs"]
        return {name: {**record, "numbers": dict(record["numbers"])} for name, record in runs.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{file} was not written by a comparison of this version; move it away, or pass another output folder"
        ) from error


def write(folder: Path, records: Mapping[str, Record], report: Callable[[dict[str, Record]], Any]) -> Any:
    """Calls `report` with these records and those that other processes wrote meanwhile, and returns its result.

    Raises FolderInUseError if another process keeps the folder for a minute.
    """
    with _patiently(folder):
        return report(dict(sorted((read(folder) | dict(records)).items())))


@contextmanager
def _patiently(folder: Path) -> Iterator[None]:
    end = time.monotonic() + PATIENCE
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(folder))
                break
            except FolderInUseError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
        yield

"""Images and videos written completely or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mrcnn.files import atomic_path


@contextmanager
def atomic_media(path: Path) -> Iterator[Path]:
    """`atomic_path` with the suffix of `path`: OpenCV and matplotlib derive the format from the suffix."""
    with atomic_path(path) as temporary:
        ending = temporary.with_name(temporary.name + path.suffix)
        try:
            yield ending
            ending.replace(temporary)
        finally:
            ending.unlink(missing_ok=True)

"""Iterates over the image files in any number of folders."""

import itertools
import os
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mrcnn.data.images import SUFFIXES

SORTED = 10_000  # folders with more entries are read in file system order


class Found(NamedTuple):
    """An image file: its path, and its name relative to the searched folder, with forward slashes."""

    path: str
    name: str

    def version(self) -> str:
        """Identifies the file's content by its length and time of modification; "" if it is gone."""
        try:
            status = os.stat(self.path)
        except OSError:
            return ""
        return f"{status.st_size}:{status.st_mtime_ns}"


def walk_images(paths: Sequence[str | os.PathLike], skip: Iterable[str | os.PathLike] = ()) -> Iterator[Found]:
    """The given files, and the images in the given folders and their subfolders, in constant memory.

    Names are relative to the folder, or to the closest common parent of several paths. Files in folders are
    selected by suffix (`SUFFIXES`); files given directly may have any. Hidden files and linked folders are skipped;
    a link to a missing file or to itself is not, nor a subfolder that cannot be listed, so that reading it says so.
    A path that is given twice, or that another one contains, is walked once.

    Args:
        skip: folders to skip, such as that of the output, unless they are among the paths.

    Raises FileNotFoundError for a missing path, before yielding the first file, and OSError for a given folder that
    cannot be listed.
    """
    roots = [os.path.abspath(path) for path in paths]
    for given, root in zip(paths, roots, strict=True):
        if not os.fspath(given) or not os.path.exists(root):
            raise FileNotFoundError(f"no file or folder {os.fspath(given)!r}; check the path")
    base = common_folder(roots)
    skipped = frozenset(map(os.path.abspath, skip))
    once = dict.fromkeys(roots)
    return _walk([root for root in once if not _is_inside(root, once, skipped)], base, skipped)


def common_folder(paths: Sequence[str]) -> str:
    """The folder to which names are relative, for absolute paths."""
    return os.path.commonpath([path if os.path.isdir(path) else os.path.dirname(path) for path in paths])


def _is_inside(path: str, roots: Container[str], skip: Container[str]) -> bool:
    """Whether the walk of another root also comes to this path."""
    if not _is_chosen(path) and not os.path.isdir(path):
        return False
    while not os.path.basename(path).startswith(".") and path not in skip and not _is_linked_folder(path):
        path, before = os.path.dirname(path), path
        if path == before:
            return False
        if path in roots:
            return True
    return False


def _is_chosen(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in SUFFIXES


def _is_linked_folder(path: str) -> bool:
    """Unlike the methods of `os.DirEntry`, this does not raise for a link to itself."""
    return os.path.islink(path) and os.path.isdir(path)


def _walk(roots: Sequence[str], base: str, skip: Container[str]) -> Iterator[Found]:
    folders = list(reversed(roots))
    while folders:
        path = folders.pop()
        if not os.path.isdir(path):
            yield Found(path, _name(path, base))
            continue
        inside: list[str] = []
        try:
            for entry in _entries(path):
                if entry.name.startswith(".") or entry.path in skip:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    inside.append(entry.path)
                elif _is_chosen(entry.path) and not _is_linked_folder(entry.path):
                    yield Found(entry.path, _name(entry.path, base))
        except OSError:
            if path in roots:
                raise
            yield Found(path, _name(path, base))
        folders += reversed(inside)


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        first = list(itertools.islice(entries, SORTED))
        yield from sorted(first, key=lambda entry: entry.name) if len(first) < SORTED else first
        yield from entries


def _name(path: str, base: str) -> str:
    return Path(os.path.relpath(path, base)).as_posix()

"""Finds the images named in annotations: names may be paths on another machine, or relative to any folder."""

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import islice
from urllib.parse import unquote, urlsplit

from mrcnn.data.annotations import problems
from mrcnn.data.annotations.folders import PICTURES, listed
from mrcnn.data.annotations.problems import Problems

SAMPLE = 200  # number of names to look for in each candidate folder
MOST_FILES = 2_000_000  # maximum number of files to search
SHOWN = 3  # number of folders shown in a message
FOR_ANNOTATIONS = ("annotations", "annotation", "labels", "jsons", "json", "ann")  # with the images next to them


class ImageFinder:
    """Finds image files by the names in annotations.

    If `image_dir` is given, names are looked up below it. Otherwise, the first candidate folder that holds every name
    is used; else the only folder below `root` that holds them; else each name is looked up by itself, by as much of
    its path as identifies a single image. Backslashes separate folders too, and for a URL the path is used.

    Args:
        names: as written in the annotations; a sample of them decides.
        folders: the candidates, in this order; missing ones are skipped.
        root: the folder to search; "" searches nothing.
        image_dir: the folder given by the caller.
    """

    def __init__(
        self, names: Iterable[str], folders: Sequence[str], root: str = "", image_dir: str | None = None
    ) -> None:
        if image_dir is not None and not os.path.isdir(image_dir):
            raise FileNotFoundError(f"image folder {image_dir!r} does not exist; check image_dir")
        given = list(names)
        sample = [name for name in islice(given, 0, None, max(1, len(given) // SAMPLE)) if name]
        self.found = ""  # how the folder was found, if the user should check it
        self._root = image_dir if image_dir is not None else root
        self._index: dict[str, list[str]] | None = None
        self._ambiguous: dict[str, list[str]] = {}
        there = [image_dir] if image_dir is not None else list(dict.fromkeys(filter(os.path.isdir, folders)))
        counts = [sum(map(self._direct, [folder] * len(sample), sample)) for folder in there]
        self.folder = there[counts.index(max(counts))] if there else root
        if sample and max(counts, default=0) < len(sample) and image_dir is None and root:
            self._search(sample, max(counts, default=0))

    def path(self, name: str) -> str:
        """The image file of a name; if it is not found, the path where it is expected."""
        parts = spelled(name)
        direct = os.path.join(self.folder, *parts)
        if os.path.isfile(direct):
            return direct
        whole = os.path.join(self.folder, name)  # a backslash may be part of the name
        if os.path.isfile(whole):
            return whole
        # A name without a folder, or in an existing folder, is missing: another image of that name is not meant
        if self._root and (len(parts) > 1 and not os.path.isdir(os.path.dirname(direct)) or self.found):
            fitting = self._fitting(parts)
            if len(fitting) == 1:
                return fitting[0]
            if fitting:
                self._ambiguous[direct] = fitting
        return direct

    def why(self, path: str) -> str:
        """Text to add to a message about a missing image: the candidates, if there are several."""
        fitting = sorted(self._ambiguous.get(path, []))
        more = ", ..." * (len(fitting) > SHOWN)
        return f"; candidates: {', '.join(map(repr, fitting[:SHOWN]))}{more}; choose with image_dir=" if fitting else ""

    def note(self, found: Problems, file: str) -> None:
        """Notes which folder was chosen, if it is not a conventional one."""
        if self.found:
            found.noted(problems.FOUND, file, "", "", self.found, "images are read from there")

    def _direct(self, folder: str, name: str) -> bool:
        return os.path.isfile(os.path.join(folder, *spelled(name)))

    def _search(self, sample: list[str], known: int) -> None:
        """Chooses the only folder under `root` that holds more names than `known`, if there is one."""
        held: dict[str, int] = {}
        for name in sample:
            parts = spelled(name)
            for path in self._named(parts[-1]):
                if path.split(os.sep)[-len(parts) :] == parts:
                    folder = os.sep.join(path.split(os.sep)[: -len(parts)])
                    held[folder] = held.get(folder, 0) + 1
        best = max(held.values(), default=0)
        folders = [folder for folder, count in held.items() if count == best]
        if best > known and len(folders) == 1:
            self.folder = folders[0]
            self.found = f"the images are in {self.folder!r}"
        elif not known:
            self.found = f"the images are in several folders below {self._root!r} and are found by name"
            if not any(len(self._fitting(spelled(name))) == 1 for name in sample):
                self.found = ""

    def _fitting(self, parts: list[str]) -> list[str]:
        """The images whose paths share the longest ending with a name."""
        fitting = self._named(parts[-1])
        for count in range(2, len(parts) + 1):
            closer = [path for path in fitting if path.split(os.sep)[-count:] == parts[-count:]]
            if not closer:
                break
            fitting = closer
        return fitting

    def _named(self, name: str) -> list[str]:
        """The images below `root` with a file name."""
        if self._index is None:
            self._index = {}
            left, folders = MOST_FILES, [os.path.normpath(self._root)]
            while folders and left > 0:
                for entry in listed(folders.pop()):
                    left -= 1
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif entry.name.lower().endswith(PICTURES):
                        self._index.setdefault(entry.name, []).append(entry.path)
        return self._index.get(name, [])


def search_root(folder: str) -> str:
    """Where to search for the images of the annotations in a folder: the folder itself, or its parent."""
    path = os.path.abspath(folder)
    return os.path.dirname(path) if os.path.basename(path) in FOR_ANNOTATIONS else folder


def spelled(name: str) -> list[str]:
    """The folders and file of a name written by a tool: the path of a URL, with either separator."""
    if "://" in name:
        with suppress(ValueError):  # an address with a damaged host is a name like any other
            name = unquote(urlsplit(name).path)
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    return parts or [name]

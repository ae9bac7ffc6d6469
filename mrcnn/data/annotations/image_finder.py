"""Where the images are that annotations name: names may be paths of another machine, or relative to any folder."""

import os
from collections.abc import Iterable, Sequence
from itertools import islice
from urllib.parse import unquote, urlsplit

from mrcnn.data.annotations import problems
from mrcnn.data.annotations.folders import PICTURES, listed
from mrcnn.data.annotations.problems import Problems

SAMPLE = 200  # names that are looked for in each folder in question
MOST_FILES = 2_000_000  # that a search looks at
SHOWN = 3  # folders in a message
FOR_ANNOTATIONS = ("annotations", "annotation", "labels", "jsons", "json", "ann")  # whose images lie beside them


class ImageFinder:
    """Finds image files by the names in annotations.

    A name is looked for below `image_dir` where that is given. Else below each of the folders in question, of which the
    first that holds every name is taken; else below the one folder under `root` that holds them; else each name on its
    own, by as much of its path as fits one image only. A backslash separates folders, too, and of an address the path
    counts.

    Args:
        names: as the annotations have them; a sample of them decides.
        folders: in question, in this order. Those that are missing are passed over.
        root: the folder to search; "" searches nothing.
        image_dir: the folder that the caller names.
    """

    def __init__(
        self, names: Iterable[str], folders: Sequence[str], root: str = "", image_dir: str | None = None
    ) -> None:
        if image_dir is not None and not os.path.isdir(image_dir):
            raise FileNotFoundError(f"no folder {image_dir!r} of images; check image_dir")
        given = list(names)
        sample = [name for name in islice(given, 0, None, max(1, len(given) // SAMPLE)) if name]
        self.found = ""  # how the folder was found, where that takes a person's eye
        self._root = image_dir if image_dir is not None else root
        self._index: dict[str, list[str]] | None = None
        self._ambiguous: dict[str, list[str]] = {}
        there = [image_dir] if image_dir is not None else list(dict.fromkeys(filter(os.path.isdir, folders)))
        counts = [sum(map(self._direct, [folder] * len(sample), sample)) for folder in there]
        self.folder = there[counts.index(max(counts))] if there else root
        if sample and max(counts, default=0) < len(sample) and image_dir is None and root:
            self._search(sample, max(counts, default=0))

    def path(self, name: str) -> str:
        """The image file of a name; where it would have to be, when it is not found."""
        parts = spelled(name)
        direct = os.path.join(self.folder, *parts)
        if os.path.isfile(direct):
            return direct
        whole = os.path.join(self.folder, name)  # a backslash may be part of a name
        if os.path.isfile(whole):
            return whole
        # A name that lies in no folder of its own, or in one that is there, is missing and no other image is meant
        if self._root and (len(parts) > 1 and not os.path.isdir(os.path.dirname(direct)) or self.found):
            fitting = self._fitting(parts)
            if len(fitting) == 1:
                return fitting[0]
            if fitting:
                self._ambiguous[direct] = fitting
        return direct

    def why(self, path: str) -> str:
        """What to add to a message about an image that is missing: that several could be meant, or nothing."""
        fitting = sorted(self._ambiguous.get(path, []))
        more = ", ..." * (len(fitting) > SHOWN)
        return (
            f"; {', '.join(map(repr, fitting[:SHOWN]))}{more} could be meant: choose with image_dir=" if fitting else ""
        )

    def note(self, found: Problems, file: str) -> None:
        """Notes which folder was chosen, where no convention leads there."""
        if self.found:
            found.noted(problems.FOUND, file, "", "", self.found, "images are read from there")

    def _direct(self, folder: str, name: str) -> bool:
        return os.path.isfile(os.path.join(folder, *spelled(name)))

    def _search(self, sample: list[str], known: int) -> None:
        """Chooses the one folder under `root` that holds more names than are known, if there is one."""
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
            self.found = f"the images are in several folders under {self._root!r}, and are found by their names"
            if not any(len(self._fitting(spelled(name))) == 1 for name in sample):
                self.found = ""

    def _fitting(self, parts: list[str]) -> list[str]:
        """The images that share the longest end of a path with a name."""
        fitting = self._named(parts[-1])
        for count in range(2, len(parts) + 1):
            closer = [path for path in fitting if path.split(os.sep)[-count:] == parts[-count:]]
            if not closer:
                break
            fitting = closer
        return fitting

    def _named(self, name: str) -> list[str]:
        """The images under `root` of a name without folders."""
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
    """The folder in which to look for the images of the annotations in a folder: that, or the one around it."""
    path = os.path.abspath(folder)
    return os.path.dirname(path) if os.path.basename(path) in FOR_ANNOTATIONS else folder


def spelled(name: str) -> list[str]:
    """The folders and the file of a name that a tool wrote: the path of an address, either separator."""
    if "://" in name:
        name = unquote(urlsplit(name).path)
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    return parts or [name]

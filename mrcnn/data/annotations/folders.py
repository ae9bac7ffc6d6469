"""Folders of pictures: what the readers of annotations that are pictures themselves have in common."""

import os
from collections.abc import Callable, Sequence
from typing import Any

from mrcnn.data.annotations import problems
from mrcnn.data.annotations.annotated import AnnotatedDataset, image_size

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
LOSSLESS = (".png", ".bmp", ".tif", ".tiff", ".gif")  # jpeg changes values: zeros around a mask would become ones
Places = list[dict[str, Any]]
LOOKED_AT = 5  # of the json files in a folder: labelme has one an image
INSTANCES = "instances_"
COCO_KEYS, LABELME_KEYS = {"images", "annotations"}, {"shapes", "imagePath", "imageData", "imageHeight"}
LITTER = ("thumbs.db", "desktop.ini", "__macosx")  # of file managers


def listed(folder: str) -> list[os.DirEntry]:
    """What a folder holds, by name; hidden files and those of file managers left out. Empty when there is none."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                (e for e in entries if not e.name.startswith(".") and e.name.lower() not in LITTER),
                key=lambda entry: entry.name,
            )
    except (FileNotFoundError, NotADirectoryError):
        return []


def names_in(folder: str) -> str:
    """What a folder holds, for messages."""
    names = [entry.name + "/" * entry.is_dir() for entry in listed(folder)]
    return ", ".join(names[:8] + [f"{len(names) - 8} more"] * (len(names) > 8)) or "nothing"


def subset_folder(root: str | os.PathLike, subset: str | None) -> str:
    """`root`/`subset`. Raises FileNotFoundError saying what is there instead."""
    root = os.fspath(root)
    folder = os.path.join(root, subset) if subset else root
    if not os.path.isdir(root):
        raise FileNotFoundError(f"no folder {root!r}; check the path")
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"no folder {folder!r}; {root!r} holds {names_in(root)}")
    return folder


def paired_folders(
    root: str | os.PathLike, subset: str | None, names: Sequence[str], fits: Callable[[str], bool]
) -> tuple[str, list[str]]:
    """The folder of images, and the folders of these names beside it that fit; "" and [] when none does.

    With a subset, `root`/`subset`/images is looked for first, then `root`/images/`subset`.
    """
    root = os.fspath(root)

    def inner(name: str) -> str:
        return os.path.join(root, subset or "", name).rstrip(os.sep)

    def outer(name: str) -> str:
        return os.path.join(root, name, subset or "").rstrip(os.sep)

    for place in (inner, outer):
        beside = [place(name) for name in names if fits(place(name))]
        if os.path.isdir(place("images")) and beside:
            return place("images"), beside
    return "", []


def by_stem(dataset: AnnotatedDataset, folder: str, suffixes: Sequence[str] = PICTURES) -> dict[str, str]:
    """Paths of the pictures in a folder by their names without suffix; two of one such name, or others, are broken."""
    found: dict[str, str] = {}
    for entry in listed(folder):
        stem, suffix = os.path.splitext(entry.name)
        if entry.is_dir() or suffix.lower() not in suffixes:
            dataset.problems.broken(folder, entry.name, "name", f"expected a picture, one of {', '.join(suffixes)}")
        elif stem in found:
            dataset.problems.broken(
                folder,
                entry.name,
                "name",
                f"{os.path.basename(found[stem])!r} has the same name before the dot, so it is unclear which is meant",
                problems.CLASH,
            )
        else:
            found[stem] = entry.path
    return found


def header_size(path: str) -> tuple[int, int] | None:
    """(height, width) from the header of a picture; None when it is none."""
    try:
        return image_size(path)
    except ValueError:
        return None


def same_size(dataset: AnnotatedDataset, path: str, record: str, image: str, size: tuple[int, int] | None) -> bool:
    """Whether a mask picture has the (height, width) of its image, by their headers; broken otherwise.

    size: the image's; None when that is unreadable, which is reported elsewhere.
    """
    found = header_size(path)
    if found is None:
        dataset.problems.broken(
            path, record, "header", "it is not a picture, or damaged; write it again as png", problems.UNREADABLE
        )
        return False
    if size is not None and found != size:
        dataset.problems.broken(
            path,
            record,
            "height/width",
            f"it is {found[0]} x {found[1]}, its image {image!r} {size[0]} x {size[1]} (height x width)",
            problems.SIZE,
        )
        return False
    return True


def files_in(folder: str, *suffixes: str) -> list[str]:
    return [entry.path for entry in listed(folder) if entry.name.lower().endswith(suffixes) and entry.is_file()]


def stem_of(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]


def of_subset(files: list[str], subset: str | None) -> list[str]:
    """The file of exactly this name, else those that have it in theirs."""
    if subset is None:
        return files
    exact = [file for file in files if stem_of(file).removeprefix(INSTANCES) == subset]
    return exact or [file for file in files if subset in stem_of(file)]

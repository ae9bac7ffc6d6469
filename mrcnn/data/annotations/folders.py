"""Folders of images and annotations: their contents, subsets, and which files belong together."""

import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from mrcnn.data.annotations import problems
from mrcnn.data.annotations.annotated import AnnotatedDataset
from mrcnn.data.images import SUFFIXES, Header, read_header

PICTURES = SUFFIXES  # masks are told from images by folder or name, as both may be .png or .gif
LOSSLESS = (".png", ".bmp", ".tif", ".tiff", ".gif")  # JPEG changes values: zeros around a mask may become ones
LITTER = ("thumbs.db", "desktop.ini", "__macosx")  # created by file managers
LOOKED_AT = 5  # number of JSON files to check in a folder: labelme writes one per image
INSTANCES = "instances_"  # prefix of COCO's file names, before the subset
SUBSETS = (("train", "training"), ("val", "valid", "validation"), ("test", "testing"))  # synonyms
WORD = re.compile(r"[^\W\d_]+|\d+")

Places = list[dict[str, Any]]  # arguments for a format's reader, one dict per possible location


def listed(folder: str) -> list[os.DirEntry[str]]:
    """A folder's entries, sorted by name, without hidden files and those of file managers; [] if it does not exist."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                (e for e in entries if not e.name.startswith(".") and e.name.lower() not in LITTER),
                key=lambda entry: entry.name,
            )
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a null byte in the path
        return []


def names_in(folder: str) -> str:
    """A folder's contents, for messages."""
    names = [entry.name + "/" * entry.is_dir() for entry in listed(folder)]
    return ", ".join(names[:8] + [f"{len(names) - 8} more"] * (len(names) > 8)) or "nothing"


def files_in(folder: str, *suffixes: str) -> list[str]:
    """The files in a folder with one of these suffixes, sorted by name."""
    return [entry.path for entry in listed(folder) if entry.name.lower().endswith(suffixes) and entry.is_file()]


def stem_of(path: str) -> str:
    """A file name without its suffix."""
    return os.path.splitext(os.path.basename(path))[0]


def spellings(subset: str) -> tuple[str, ...]:
    """The subset and its synonyms: Roboflow's `valid` is `val` elsewhere."""
    same = next((words for words in SUBSETS if subset.lower() in words), ())
    return (subset, *(word for word in same if word != subset))


def of_subset(files: list[str], subset: str | None) -> list[str]:
    """The files of a subset: the one with exactly this name, else those whose name contains it as a word.

    `train` is a word in instances_train2017.json, but not in trainval.json; train_val.json belongs to neither.
    """
    if subset is None:
        return files
    names = spellings(subset)
    others = {word for words in SUBSETS for word in words} - set(names)
    for name in names:
        if exact := [file for file in files if stem_of(file).removeprefix(INSTANCES) == name]:
            return exact
    for name in names:
        wanted = _words(name)
        fitting = [file for file in files if _holds(_words(stem_of(file)), wanted)]
        if alone := [file for file in fitting if not others & set(_words(stem_of(file))) - set(wanted)]:
            return alone
    return []


def _words(name: str) -> list[str]:
    """Runs of letters and of digits; a capital letter after a lowercase one also starts a word."""
    return [word.lower() for word in WORD.findall(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name))]


def _holds(words: list[str], wanted: list[str]) -> bool:
    ends = range(len(wanted), len(words) + 1)
    return bool(wanted) and any(words[end - len(wanted) : end] == wanted for end in ends)


def subset_folder(root: str | os.PathLike, subset: str | None) -> str:
    """`root`/`subset`, or the folder of a synonym. Raises FileNotFoundError listing what is there instead."""
    root = os.fspath(root)
    if not os.path.isdir(root):
        raise FileNotFoundError(f"folder {root!r} does not exist; check the path")
    if not subset:
        return root
    folders = [os.path.join(root, name) for name in spellings(subset)]
    if not any(map(os.path.isdir, folders)):
        raise FileNotFoundError(f"folder {folders[0]!r} does not exist; {root!r} holds {names_in(root)}")
    return next(filter(os.path.isdir, folders))


def folder_or_root(root: str, subset: str | None) -> str:
    """`root`/`subset`, or the folder of a synonym, whether or not it exists; `root` without a subset."""
    try:
        return subset_folder(root, subset)
    except FileNotFoundError:
        return os.path.join(root, subset or "")


def paired_folders(
    root: str | os.PathLike,
    subset: str | None,
    names: Sequence[str],
    fits: Callable[[str], bool],
    images: str = "images",
) -> tuple[str, list[str]]:
    """The image folder, and the matching folders of the given names next to it; "" and [] if there are none.

    With a subset, `root`/`subset`/images is tried first, then `root`/images/`subset`.
    """
    for part in spellings(subset) if subset else ("",):
        for order in ("{root}/{part}/{name}", "{root}/{name}/{part}"):

            def place(name: str, order: str = order, part: str = part) -> str:
                return os.path.normpath(order.format(root=os.fspath(root), part=part, name=name))

            beside = [place(name) for name in names if fits(place(name))]
            if os.path.isdir(place(images)) and beside:
                return place(images), beside
    return "", []


def below(folder: str) -> Iterator[os.DirEntry[str]]:
    """The files in a folder and its subfolders."""
    for entry in listed(folder):
        if entry.is_dir():
            yield from below(entry.path)
        else:
            yield entry


def by_stem(dataset: AnnotatedDataset, folder: str, suffixes: Sequence[str] = PICTURES) -> dict[str, str]:
    """Paths of a folder's images by name without suffix; duplicates of a name and other files are errors."""
    found: dict[str, str] = {}
    for entry in listed(folder):
        stem, suffix = os.path.splitext(entry.name)
        where = folder, entry.name, "name"
        if entry.is_dir() or suffix.lower() not in suffixes:
            dataset.problems.broken(*where, f"expected an image file: {', '.join(suffixes)}")
        elif stem in found:
            message = f"{os.path.basename(found[stem])!r} has the same name before the dot; rename or remove one"
            dataset.problems.broken(*where, message, problems.CLASH)
        else:
            found[stem] = entry.path
    return found


def header_of(path: str) -> Header | None:
    """An image's header; None if the image is missing or invalid, which is reported when the image is added."""
    try:
        return read_header(path)
    except (OSError, ValueError):
        return None


def mask_size(
    dataset: AnnotatedDataset, path: str, record: str, image: str, fitting: Collection[tuple[int, int]], **lost: int
) -> tuple[int, int] | None:
    """(height, width) of a mask file; None, and an error, if it is not one of the `fitting` sizes.

    fitting: size of the image, upright and as stored; () if the image is unreadable, which is reported elsewhere.
    """
    header = header_of(path)
    if header is None:
        message = "not an image, or damaged; save it again as PNG"
        dataset.problems.broken(path, record, "header", message, problems.UNREADABLE, **lost)
        return None
    if fitting and header.size not in fitting:
        tall, wide = next(iter(fitting))
        message = f"it is {header.height} x {header.width}, its image {image!r} is {tall} x {wide} (height x width)"
        dataset.problems.broken(path, record, "height/width", message, problems.SIZE, **lost)
        return None
    return header.size


def fitting_sizes(header: Header | None) -> tuple[tuple[int, int], ...]:
    """(height, width) that an image's masks may have: as stored and upright. () if the image is unreadable."""
    return () if header is None else tuple(dict.fromkeys((header.size, header.upright_size)))

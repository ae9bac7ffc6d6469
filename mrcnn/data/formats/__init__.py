"""load_dataset: reads any supported annotation format, recognized from the contents of the file or folder."""

import importlib
import inspect
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

from mrcnn.data.annotations.annotated import AnnotatedDataset
from mrcnn.data.annotations.folders import listed, names_in

# Each format is a module of this package, listed with what identifies it. A module has `find(path, subset)`, which
# returns the reader's arguments for each possible location, and the reader `read_<name>`.
FORMATS: dict[str, str] = {
    "coco": "a JSON file with images, annotations and categories: the path itself, "
    "annotations/instances_<subset>.json, or <subset>/_annotations.coco.json",
    "via": "a JSON or CSV file of the VGG Image Annotator: the path itself, or in <subset>/",
    "labelme": "JSON files with shapes, one per image, or labels/ containing them",
    "voc": "a folder SegmentationObject, or VOC<year>/SegmentationObject",
    "yolo": "a YAML file with names, or labels/ with txt files",
    "mask_files": "<id>/images/ and <id>/masks/, or images/ and masks/<name>/, with one file per mask",
    "instance_ids": "images/ and masks/, instances/ or labels/ with one instance map per image; leftImg8bit/ and "
    "gtFine/; PNGImages/ and PedMasks/",
    "label_studio": "a JSON file of Label Studio tasks",
    "supervisely": "<dataset>/img/ and <dataset>/ann/ with one JSON file per image",
    "tfrecord": "files named .tfrecord or .record, or shards of them, -00000-of-00010",
    "rle_csv": "a CSV file with columns ImageId and EncodedPixels, or similar names: the path itself, <subset>.csv, "
    "or in the folder",
}


def load_dataset(
    path: str | os.PathLike, subset: str | None = None, *, format: str | None = None, **options: Any
) -> AnnotatedDataset:
    """Reads annotations of any format in `FORMATS`::

        load_dataset("coco", "train2017")
        load_dataset("balloon", "train", class_names=["balloon"])
        load_dataset("export/_annotations.coco.json")

    Args:
        path: an annotation file or a folder.
        subset: the part to read, such as "train": a folder or file of that name.
        format: one of `FORMATS`; None: detect it from the contents.
        options: passed to the format's reader; all take class_names, source, masks, upright and strict.

    Returns:
        A prepared dataset.

    Raises:
        FileNotFoundError: the path does not exist.
        ValueError: no format, several formats or several files match; the message lists what was expected and found.
        TypeError: the reader does not take one of the options.
    """
    path = os.fspath(path)
    name = recognize(path, subset) if format is None else format
    if name not in FORMATS:
        raise ValueError(f"unknown format {name!r}; known formats: {', '.join(FORMATS)}")
    _check_exists(path)
    reader = _reader(name)
    _check_options(name, reader, options)
    found = _module(name).find(path, subset)
    if len(found) == 1:
        return reader(**(found[0] | options))
    if found:
        files = [next(place[key] for key in ("annotation_file", "csv_file") if key in place) for place in found]
        raise ValueError(
            f"{_shown(path, subset)} holds {len(found)} {name} annotation files: {files}; choose one by its "
            "path, or with subset="
        )
    if os.path.isfile(path):
        return reader(path, **options)  # raises an error that says what is wrong with the file
    if "subset" in inspect.signature(reader).parameters:
        return reader(path, subset, **options)
    raise FileNotFoundError(
        f"{_shown(path, subset)} does not match {name}: expected {FORMATS[name]}; found {_there(path, subset)}"
    )


def recognize(path: str | os.PathLike, subset: str | None = None) -> str:
    """The name of a file's or folder's format, judged by file names and first bytes; the reader checks the rest.

    Raises FileNotFoundError if nothing is there, ValueError if no format or several match.
    """
    path = os.fspath(path)
    _check_exists(path)
    fitting = _fitting(path, subset)
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise ValueError(
            f"{_shown(path, subset)} matches several formats: {', '.join(fitting)}; choose one with format=, "
            "or give the path of a file"
        )
    wanted = "\n".join(f"  {name}: {wants}" for name, wants in FORMATS.items())
    raise ValueError(
        f"no format matches {_shown(path, subset)}; found {_there(path, subset)}{_hint(path, subset)}. "
        f"Expected one of:\n{wanted}\nPass format= and that format's reader says what is missing"
    )


def _fitting(path: str, subset: str | None) -> list[str]:
    return [name for name in FORMATS if _module(name).find(path, subset)]


def _hint(path: str, subset: str | None) -> str:
    """Suggests the subfolders that match a format, if any."""
    if subset is not None:
        return ""
    below = [entry.name for entry in listed(path)[:50] if entry.is_dir() and _fitting(path, entry.name)]
    return f"; subset= set to one of {below[:8]} would match" if below else ""


def _there(path: str, subset: str | None) -> str:
    if os.path.isfile(path):
        return f"a file of {os.path.getsize(path)} bytes"
    inside = f"; in {subset}/, {names_in(os.path.join(path, subset))}" if subset else ""
    return names_in(path) + inside


def _shown(path: str, subset: str | None) -> str:
    return repr(path) + (f" with subset {subset!r}" if subset else "")


def _check_exists(path: str) -> None:
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path!r} does not exist; check the path")


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"mrcnn.data.formats.{name}")


def _reader(name: str) -> Callable[..., AnnotatedDataset]:
    return getattr(_module(name), f"read_{name}")


def _check_options(name: str, reader: Callable, options: dict[str, Any]) -> None:
    """Raises TypeError naming the options that the reader does not take."""
    known = [option for option in list(inspect.signature(reader).parameters)[1:] if option != "subset"]
    if unknown := [option for option in options if option not in known]:
        raise TypeError(f"read_{name} takes no option {', '.join(unknown)}; it takes {', '.join(known)}")

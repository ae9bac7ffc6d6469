"""load_dataset: any of the annotation formats that the package reads, recognised by what is in the file or folder."""

import importlib
import inspect
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

from mrcnn.data.annotations.annotated import AnnotatedDataset
from mrcnn.data.annotations.folders import listed, names_in

# Formats, each a module of this package, and what each is recognised by. A module has `find(path, subset)`,
# which returns the arguments of the reader for each place that could be meant, and the reader, `read_<name>`.
FORMATS: dict[str, str] = {
    "coco": "a json with images, annotations and categories: itself, annotations/instances_<subset>.json, or "
    "<subset>/_annotations.coco.json",
    "via": "a json or csv of the VGG Image Annotator: itself, or in <subset>/",
    "labelme": "json files with shapes, one an image, or labels/ with them",
    "voc": "a folder SegmentationObject, or VOC<year>/SegmentationObject",
    "yolo": "a yaml with names, or labels/ with txt files",
    "mask_files": "<id>/images/ and <id>/masks/, or images/ and masks/<name>/ with a picture a mask",
    "instance_ids": "images/ and masks/, instances/ or labels/ with a picture an image; leftImg8bit/ and gtFine/; "
    "PNGImages/ and PedMasks/",
    "label_studio": "a json of Label Studio's tasks",
    "supervisely": "<dataset>/img/ and <dataset>/ann/ with a json an image",
    "tfrecord": "files called .tfrecord or .record, or parts of them, -00000-of-00010",
    "rle_csv": "a csv with the columns ImageId and EncodedPixels, or others like them: itself, <subset>.csv, or in the "
    "folder",
}


def load_dataset(
    path: str | os.PathLike, subset: str | None = None, *, format: str | None = None, **options: Any
) -> AnnotatedDataset:
    """Reads annotations of any format in `FORMATS`::

        load_dataset("coco", "train2017")
        load_dataset("balloon", "train", class_names=["balloon"])
        load_dataset("export/_annotations.coco.json")

    Args:
        path: a file of annotations, or a folder.
        subset: the part of it, such as "train": the folder or the file of that name.
        format: one of `FORMATS`; None: recognised by what is there.
        options: of the format's reader; all take class_names, source, masks, upright and strict.

    Returns:
        A prepared dataset.

    Raises:
        FileNotFoundError: there is nothing at the path.
        ValueError: no format fits, or several do, or there are several files; it says what was looked for and found.
        TypeError: an option that the reader does not take.
    """
    path = os.fspath(path)
    name = recognise(path, subset) if format is None else format
    if name not in FORMATS:
        raise ValueError(f"no format {name!r}; known are {', '.join(FORMATS)}")
    _check_exists(path)
    reader = _reader(name)
    _check_options(name, reader, options)
    found = _module(name).find(path, subset)
    if len(found) == 1:
        return reader(**(found[0] | options))
    if found:
        files = [next(place[key] for key in ("annotation_file", "csv_file") if key in place) for place in found]
        raise ValueError(
            f"{_shown(path, subset)} holds {len(found)} annotations of {name}: {files}; choose one by its "
            "path, or by subset="
        )
    if os.path.isfile(path):
        return reader(path, **options)  # which says what is wrong with it
    if "subset" in inspect.signature(reader).parameters:
        return reader(path, subset, **options)
    raise FileNotFoundError(
        f"{_shown(path, subset)} does not fit {name}: looked for {FORMATS[name]}; there is {_there(path, subset)}"
    )


def recognise(path: str | os.PathLike, subset: str | None = None) -> str:
    """The name of the format of a file or folder, by names and heads of files; the readers check the rest.

    Raises FileNotFoundError, or ValueError when no format fits, or several do.
    """
    path = os.fspath(path)
    _check_exists(path)
    fitting = _fitting(path, subset)
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise ValueError(
            f"{_shown(path, subset)} fits several formats: {', '.join(fitting)}; choose with format=, "
            "or give the path of a file"
        )
    wanted = "\n".join(f"  {name}: {wants}" for name, wants in FORMATS.items())
    raise ValueError(
        f"no format fits {_shown(path, subset)}; there is {_there(path, subset)}{_hint(path, subset)}. "
        f"Looked for:\n{wanted}\nWith format=, the reader of that format says what it misses"
    )


def _fitting(path: str, subset: str | None) -> list[str]:
    return [name for name in FORMATS if _module(name).find(path, subset)]


def _hint(path: str, subset: str | None) -> str:
    """That folders in it fit, where they do."""
    if subset is not None:
        return ""
    below = [entry.name for entry in listed(path)[:50] if entry.is_dir() and _fitting(path, entry.name)]
    return f"; with subset= one of {below[:8]} it would" if below else ""


def _there(path: str, subset: str | None) -> str:
    if os.path.isfile(path):
        return f"a file of {os.path.getsize(path)} bytes"
    inside = f"; in {subset}/, {names_in(os.path.join(path, subset))}" if subset else ""
    return names_in(path) + inside


def _shown(path: str, subset: str | None) -> str:
    return repr(path) + (f" with subset {subset!r}" if subset else "")


def _check_exists(path: str) -> None:
    if not os.path.exists(path):
        raise FileNotFoundError(f"nothing is at {path!r}; check the path")


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"mrcnn.data.formats.{name}")


def _reader(name: str) -> Callable[..., AnnotatedDataset]:
    return getattr(_module(name), f"read_{name}")


def _check_options(name: str, reader: Callable, options: dict[str, Any]) -> None:
    """Raises TypeError naming options that the reader does not take."""
    known = [option for option in list(inspect.signature(reader).parameters)[1:] if option != "subset"]
    if unknown := [option for option in options if option not in known]:
        raise TypeError(f"the reader of {name} takes no option {', '.join(unknown)}; it takes {', '.join(known)}")

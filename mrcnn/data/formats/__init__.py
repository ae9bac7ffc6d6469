"""load_dataset: any of the annotation formats that the package reads, recognised by what is in the file or folder."""

import importlib
import inspect
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from mrcnn.data.formats import places
from mrcnn.data.formats.annotated import AnnotatedDataset
from mrcnn.data.formats.folders import listed, names_in


class Format(NamedTuple):
    """An annotation format.

    wants: what it is recognised by, in words. places: the function that looks for it. reader: module and function.
    """

    wants: str
    places: Callable[[str, str | None], places.Places]
    reader: str


FORMATS: dict[str, Format] = {
    "coco": Format(
        "a json with images, annotations and categories: itself, annotations/instances_<subset>.json, or "
        "<subset>/_annotations.coco.json",
        places.coco,
        "mrcnn.data.formats.coco:load_coco",
    ),
    "via": Format(
        "a json of the VGG Image Annotator: itself, or in <subset>/", places.via, "mrcnn.data.formats.via:load_via"
    ),
    "labelme": Format(
        "json files with shapes, one an image", places.labelme, "mrcnn.data.formats.labelme:load_labelme"
    ),
    "voc": Format(
        "a folder SegmentationObject, or VOC<year>/SegmentationObject", places.of_voc, "mrcnn.data.formats.voc:load_voc"
    ),
    "yolo": Format("a yaml with names, or labels/ with txt files", places.yolo, "mrcnn.data.formats.yolo:load_yolo"),
    "mask_files": Format(
        "<id>/images/ and <id>/masks/, or images/ and masks/<name>/ with a picture a mask",
        places.of_mask_files,
        "mrcnn.data.formats.mask_files:load_mask_files",
    ),
    "instance_ids": Format(
        "images/ and masks/, instances/ or labels/ with a picture an image",
        places.of_instance_ids,
        "mrcnn.data.formats.instance_ids:load_instance_ids",
    ),
    "rle_csv": Format(
        "a csv with the columns ImageId and EncodedPixels: itself, <subset>.csv, or in the folder",
        places.rle_csv,
        "mrcnn.data.formats.rle_csv:load_rle_csv",
    ),
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
        options: of the format's reader; all take class_names, source and strict.

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
    found = FORMATS[name].places(path, subset)
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
        f"{_shown(path, subset)} does not fit {name}: looked for {FORMATS[name].wants}; there is {_there(path, subset)}"
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
    wanted = "\n".join(f"  {name}: {format.wants}" for name, format in FORMATS.items())
    raise ValueError(
        f"no format fits {_shown(path, subset)}; there is {_there(path, subset)}{_hint(path, subset)}. "
        f"Looked for:\n{wanted}\nWith format=, the reader of that format says what it misses"
    )


def _fitting(path: str, subset: str | None) -> list[str]:
    return [name for name, format in FORMATS.items() if format.places(path, subset)]


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


def _reader(name: str) -> Callable[..., AnnotatedDataset]:
    module, function = FORMATS[name].reader.split(":")
    return getattr(importlib.import_module(module), function)


def _check_options(name: str, reader: Callable, options: dict[str, Any]) -> None:
    """Raises TypeError naming options that the reader does not take."""
    known = [option for option in list(inspect.signature(reader).parameters)[1:] if option != "subset"]
    if unknown := [option for option in options if option not in known]:
        raise TypeError(f"the reader of {name} takes no option {', '.join(unknown)}; it takes {', '.join(known)}")

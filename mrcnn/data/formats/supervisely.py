"""Supervisely's own format: a project of meta.json and datasets, each with img/ and ann/, one JSON file per image.

https://developer.supervisely.com/getting-started/supervisely-annotation-format
"""

import io
import os
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mrcnn.data import rle
from mrcnn.data.annotations import problems
from mrcnn.data.annotations.annotated import AnnotatedDataset, Instance
from mrcnn.data.annotations.classes import Classes, is_class
from mrcnn.data.annotations.fields import FieldError, decoded, encloses, is_number, polygon, shown
from mrcnn.data.annotations.folders import PICTURES, Places, files_in, folder_or_root, listed, names_in, spellings
from mrcnn.data.annotations.outlines import Outline, Polygons, Rectangle, Runs, open_picture, values_of
from mrcnn.data.annotations.problems import AnnotationError, Lost
from mrcnn.data.annotations.text_files import read_json

META, IMAGES, ANNOTATIONS = "meta.json", "img", "ann"
WHAT = "Supervisely annotations"
TYPES = ("polygon", "bitmap", "rectangle")
MOST_BYTES = 2**26  # maximum size of an unpacked bitmap


class Annotated(NamedTuple):
    """An image, its annotation file, and the file's content."""

    name: str
    image: str
    file: str
    size: tuple[int, int]
    objects: list[Any]


def read_supervisely(
    dataset_dir: str | os.PathLike,
    subset: str | None = None,
    *,
    class_names: Sequence[str] | None = None,
    source: str = "supervisely",
    masks: bool = True,
    upright: bool | None = None,
    strict: bool = True,
) -> AnnotatedDataset:
    """Reads a Supervisely project: <dataset>/img/<image> and <dataset>/ann/<image>.json, with meta.json above them.

    Polygons (with holes), bitmaps and rectangles become instances. Other shapes have no area and are invalid.

    Args:
        dataset_dir: the project, or one of its datasets.
        subset: the dataset of the project; None: all of them.
        class_names: the classes, in this order; None: those of meta.json, in its order, or else those found, sorted.
        source: name of the source in the dataset.
        masks, upright, strict: see `AnnotatedDataset`.

    Returns:
        A prepared dataset, images ordered by dataset and name.

    Raises:
        FileNotFoundError: the folder is missing or holds no dataset.
        AnnotationError: an invalid record, named by file, record and field.
    """
    root = os.fspath(dataset_dir)
    folders = _datasets(root, subset)
    if not folders:
        where = names_in(folder_or_root(root, subset))
        raise FileNotFoundError(f"no Supervisely folders img/ and ann/ in {root!r}, which holds {where}")
    dataset = AnnotatedDataset(root, strict, masks=masks, upright=upright)
    read = [entry for folder in folders for entry in _annotated(dataset, root, folder)]
    found = {_class_of(record) for entry in read for record in entry.objects}
    named = _named(dataset, root, folders[0])
    classes = Classes(dataset, source, filter(_is_usable, found), named if class_names is None else class_names)
    for entry in read:
        _add(dataset, source, entry, classes)
    if not dataset.image_info:
        dataset.problems.broken(root, "", IMAGES, "no image can be read")
    return dataset.finish()


def find(path: str, subset: str | None) -> Places:
    """img/ and ann/ with JSON files, in the folder or in those of its datasets."""
    return [{"dataset_dir": path, "subset": subset}] if not os.path.isfile(path) and _datasets(path, subset) else []


def _datasets(root: str, subset: str | None) -> list[str]:
    """The folders that hold img/ and ann/."""
    if subset is None:
        folders = [root, *(entry.path for entry in listed(root) if entry.is_dir())]
    else:
        folders = [os.path.join(root, name) for name in spellings(subset)]
    return [
        folder
        for folder in folders
        if os.path.isdir(os.path.join(folder, IMAGES)) and files_in(os.path.join(folder, ANNOTATIONS), ".json")
    ]


def _named(dataset: AnnotatedDataset, root: str, folder: str) -> list[str] | None:
    """The class names in meta.json, next to the datasets; None if it is missing."""
    places = (root, folder, os.path.dirname(os.path.abspath(folder)))
    path = next((file for place in places if os.path.isfile(file := os.path.join(place, META))), None)
    if path is None:
        return None
    content = read_json(path, "Supervisely classes")
    entries = content.get("classes") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise AnnotationError(path, "", "classes", f"expected a list of objects with a title, got {shown(entries)}")
    titles = [entry.get("title") if isinstance(entry, dict) else None for entry in entries]
    names = [title for title in titles if isinstance(title, str) and title]
    if len(names) < len(titles):
        raise AnnotationError(path, "", "classes", f"expected a list of objects with a title, got {shown(entries)}")
    return [name for name in dict.fromkeys(names) if is_class(name)]


def _annotated(dataset: AnnotatedDataset, root: str, folder: str) -> list[Annotated]:
    """The images of a dataset with their annotations; images without a JSON file and invalid files are skipped."""
    images = {e.name: e.path for e in listed(os.path.join(folder, IMAGES)) if e.name.lower().endswith(PICTURES)}
    by_stem = {os.path.splitext(name)[0]: name for name in images}
    found, taken = [], set()
    for file in files_in(os.path.join(folder, ANNOTATIONS), ".json"):
        name = os.path.basename(file)[: -len(".json")]
        name = name if name in images else by_stem.get(name, name)  # older exports omit the image's suffix
        record = f"image {name!r}"
        try:
            size, objects = _content(file)
        except AnnotationError as error:
            if dataset.problems.strict:
                raise
            dataset.problems.left_out(problems.BROKEN, file, record, "", str(error), images=1, instances=0)
            continue
        taken.add(name)
        label = os.path.join(os.path.basename(folder), name) if folder != root else name
        found.append(Annotated(label, images.get(name, os.path.join(folder, IMAGES, name)), file, size, objects))
    for name in images.keys() - taken:
        where = os.path.join(folder, IMAGES), f"image {name!r}", "", "no JSON file annotates it"
        dataset.problems.left_out(problems.UNANNOTATED, *where, images=1, instances=0)
    return found


def _content(file: str) -> tuple[tuple[int, int], list[Any]]:
    """(height, width) of the image, and its objects. Raises AnnotationError."""
    content = read_json(file, WHAT)
    content = content if isinstance(content, dict) else {}
    size, objects = content.get("size"), content.get("objects")
    sides = [size.get(side) if isinstance(size, dict) else None for side in ("height", "width")]
    whole = [side for side in sides if type(side) is int and side > 0]
    if len(whole) != 2:
        raise AnnotationError(file, "", "size", f"expected height and width in pixels, got {shown(size)}")
    if not isinstance(objects, list):
        message = f"expected a list of objects, got {shown(objects)}; is it a Supervisely file?"
        raise AnnotationError(file, "", "objects", message)
    return (whole[0], whole[1]), objects


def _class_of(record: Any) -> Any:
    name = record.get("classTitle") if isinstance(record, dict) else None
    return name if isinstance(name, str) else None


def _is_usable(name: str | None) -> bool:
    return name is not None and bool(name) and is_class(name)


def _add(dataset: AnnotatedDataset, source: str, entry: Annotated, classes: Classes) -> None:
    """Adds an image."""
    header = dataset.image_header(entry.image, f"image {entry.name!r}", len(entry.objects))
    if header is None:
        return
    size, tagged = dataset.sized(header, entry.size)
    if size != entry.size:
        message = f"the annotations are for a {entry.size[0]} x {entry.size[1]} image, but {entry.image!r} is "
        message += f"{size[0]} x {size[1]} (height x width)"
        where = entry.file, f"image {entry.name!r}"
        gone = len(entry.objects)
        dataset.problems.broken(*where, "size", message, problems.SIZE, images=1, instances=gone)
        return
    instances = []
    for place, record in enumerate(entry.objects):
        where = entry.file, f"object {place}"
        lost: Lost = {"images": 0, "instances": 1}
        name = _class_of(record)
        if name and not is_class(name):
            message = f"{name!r} is not a class"
            dataset.problems.left_out(problems.NOT_A_CLASS, *where, "classTitle", message, **lost)
            continue
        try:
            if not name:
                raise FieldError("classTitle", f"expected a class name, got {shown(name)}")
            outline = outline_of(record, *size)
        except FieldError as error:
            dataset.problems.broken(*where, error.field, str(error), **lost)
            continue
        class_id = classes.number(name, *where, "classTitle")
        if class_id is not None and encloses(dataset.problems, outline, *where, "points"):
            instances.append(Instance(class_id, outline, record=f"{entry.file}, object {place}", field="points"))
    height, width = size
    dataset.add_annotated(source, entry.name, entry.image, instances, height=height, width=width, tagged=tagged)


def outline_of(record: dict[str, Any], height: int, width: int) -> Outline:
    """The outline of an object in an image of the given size. Raises FieldError."""
    kind = record.get("geometryType", "bitmap" if "bitmap" in record else "polygon")
    if kind not in TYPES:
        raise FieldError("geometryType", f"a {shown(kind)} has no area; expected one of {', '.join(TYPES)}")
    if kind == "bitmap":
        return _bitmap(record.get("bitmap"), height, width)
    points = record.get("points")
    if not isinstance(points, dict):
        raise FieldError("points", f"expected an object with exterior points, got {shown(points)}")
    outer = polygon(points.get("exterior"), "points")
    if kind == "rectangle":
        corners = outer.parts[0]
        if len(corners) != 2:
            raise FieldError("points", f"expected 2 points for a rectangle, got {len(corners)}")
        (x1, y1), (x2, y2) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
        return Rectangle(y1, x1, y2, x2)
    holes = points.get("interior") or []
    if not isinstance(holes, list):
        raise FieldError("points", f"expected lists of interior points, got {shown(holes)}")
    if not holes or len(outer.parts[0]) < 3:
        return outer
    try:
        mask = outer.fill(height, width)
        for hole in holes:
            inner = polygon(hole, "points")
            mask &= ~Polygons(inner.parts).fill(height, width)
    except FieldError:
        raise
    except ValueError as error:
        raise FieldError("points", str(error)) from error
    return Runs(rle.encode(mask))


def _bitmap(bitmap: Any, height: int, width: int) -> Runs:
    """The outline in a packed PNG whose corner is at `origin`. Raises FieldError."""
    origin = bitmap.get("origin") if isinstance(bitmap, dict) else None
    if not isinstance(origin, list) or len(origin) != 2 or not all(map(is_number, origin)):
        raise FieldError("bitmap", f"expected data and origin [x, y], got {shown(bitmap)}")
    part = _pixels(decoded(bitmap.get("data"), "bitmap"), height, width)
    left, top = (int(np.clip(value, -side, side)) for value, side in zip(origin, (width, height), strict=True))
    y1, x1 = min(max(top, 0), height), min(max(left, 0), width)
    inside = part[max(-top, 0) : max(height - top, 0), max(-left, 0) : max(width - left, 0)]
    return Runs(rle.encode_box(inside, y1, x1, height, width))


def _pixels(data: bytes, height: int, width: int) -> np.ndarray:
    """[h, w] bool: a zlib-packed PNG, no larger than the image. Raises FieldError."""
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(data, MOST_BYTES)
    except zlib.error as error:
        raise FieldError("bitmap", f"it cannot be unpacked: {error}; is it truncated?") from error
    if unpacker.unconsumed_tail:
        raise FieldError("bitmap", f"unpacked, it is larger than {MOST_BYTES:,} bytes")
    try:
        with open_picture(io.BytesIO(data), "the bitmap") as image:
            if image.height > height or image.width > width:
                message = f"the bitmap is {image.height} x {image.width}, the image {height} x {width}"
                raise FieldError("bitmap", f"{message} (height x width)")
            if "A" in image.getbands():  # the mask is in the alpha channel, over any color
                return np.asarray(image.getchannel("A")) > 0
            return values_of(image, "the bitmap") != 0
    except FieldError:
        raise
    except ValueError as error:
        raise FieldError("bitmap", str(error)) from error

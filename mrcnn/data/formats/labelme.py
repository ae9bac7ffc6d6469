"""Annotations of labelme: a json an image, as a Dataset."""

import base64
import binascii
import io
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from mrcnn.data import rle
from mrcnn.data.annotations import problems
from mrcnn.data.annotations.annotated import Instance
from mrcnn.data.annotations.classes import Classes
from mrcnn.data.annotations.fields import FieldError, encloses, polygon, shown
from mrcnn.data.annotations.folders import (
    LABELME_KEYS,
    LOOKED_AT,
    PICTURES,
    Places,
    files_in,
    listed,
    names_in,
    subset_folder,
)
from mrcnn.data.annotations.outlines import Ellipse, Outline, Polygons, Rectangle, Runs
from mrcnn.data.annotations.problems import AnnotationError, Problems
from mrcnn.data.annotations.text_files import Head, read_head, read_json
from mrcnn.data.annotations.upright import SIDEWAYS, TAGGED, UprightDataset, header_of, upright_size
from mrcnn.data.images import read_image

CORNERS = ("oriented_rectangle", "rotation")  # of labelme 6 and X-AnyLabeling: the four corners
TYPES = ("polygon", "rectangle", "circle", "mask", *CORNERS)
POINTS = {"rectangle": (2, 4), "circle": (2,), "mask": (2,), **dict.fromkeys(CORNERS, (4,))}


def outline_of(shape: dict, height: int, width: int) -> tuple[Outline, int]:
    """The outline of a shape, and how many of its pixels were cut off at the border of the image.

    The pixels cut off are counted for masks only. Raises FieldError.
    """
    kind = shape.get("shape_type") or "polygon"  # files of labelme 2 have none
    if kind not in TYPES:
        raise FieldError("shape_type", f"a {kind!r} has no area; expected one of {', '.join(TYPES)}")
    outline = polygon(shape.get("points"), "points")
    points = outline.parts[0]
    if len(points) not in POINTS.get(kind, (len(points),)):
        wanted = " or ".join(map(str, POINTS[kind]))
        raise FieldError("points", f"a {kind} has {wanted} points, got {len(points)}")
    if kind == "mask":
        return _mask(shape, points, height, width)
    if kind == "circle":
        (cx, cy), (x, y) = points.tolist()
        radius = math.hypot(x - cx, y - cy)
        return Ellipse(cy, cx, radius, radius), 0
    if kind == "rectangle" and len(points) == 2:
        (x1, y1), (x2, y2) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        return Rectangle(y1, x1, y2, x2), 0
    return outline, 0


def union(outlines: list[Outline], height: int, width: int) -> Outline:
    """One outline that covers what several do. Raises ValueError for one that cannot be filled."""
    if len(outlines) == 1:
        return outlines[0]
    if all(isinstance(outline, Polygons) for outline in outlines):
        return Polygons(tuple(part for outline in outlines for part in outline.parts))
    mask = np.zeros((height, width), bool)
    for outline in outlines:
        mask |= outline.fill(height, width)
    return Runs(rle.encode(mask))


def decoded(text: Any, field: str) -> bytes:
    """What a text in base64 holds. Raises FieldError."""
    if not isinstance(text, str) or not text:
        raise FieldError(field, f"expected a picture in base64, got {shown(text)}")
    try:
        return base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise FieldError(field, f"it is not base64, or cut off: {error}") from error


def _mask(shape: dict, points: np.ndarray, height: int, width: int) -> tuple[Runs, int]:
    """A png of the pixels between two corners, both of which it covers."""
    part = _mask_pixels(shape.get("mask"))
    left, top = np.round(points[0]).astype(int).tolist()
    between = np.abs(np.round(points[1]) - np.round(points[0])).astype(int) + 1
    # Corners that are no whole numbers may round apart
    if max(abs(between[1] - part.shape[0]), abs(between[0] - part.shape[1])) > 1:
        raise FieldError(
            "mask",
            f"the picture is {part.shape[0]} x {part.shape[1]}, between its points are "
            f"{between[1]} x {between[0]} pixels (height x width)",
        )
    y1, x1 = min(max(top, 0), height), min(max(left, 0), width)
    inside = part[max(-top, 0) : max(height - top, 0), max(-left, 0) : max(width - left, 0)]
    return Runs(rle.encode_box(inside, y1, x1, height, width)), int(part.sum() - inside.sum())


def _mask_pixels(text: Any) -> np.ndarray:
    """[h, w] bool: the pixels of a picture in base64 that are not zero."""
    from PIL import Image

    data = decoded(text, "mask")
    try:
        with Image.open(io.BytesIO(data)) as image:
            values = np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise FieldError("mask", f"it is not a picture, or cut off: {error}") from error
    except Image.DecompressionBombError as error:  # none of these; `outlines.open_picture` is for files
        raise FieldError(
            "mask",
            f"it is too large: {error}; draw it on a smaller image, or, if you trust the file, "
            "raise PIL.Image.MAX_IMAGE_PIXELS",
        ) from error
    return values != 0 if values.ndim == 2 else values[..., :3].any(axis=-1)


SIZE_FIELDS = "imageHeight", "imageWidth"


class Picture(NamedTuple):
    """An image of which there is an annotation file.

    path: the picture, or the json where the picture is in it (`embedded`). size: (height, width), upright.
    """

    file: str
    path: str
    size: tuple[int, int]
    orientation: int
    embedded: bool


def picture_of(found: Problems, file: str, record: str, content: dict) -> Picture | None:
    """The picture of a json; broken, and None, when it is missing, unreadable or of another size."""
    try:
        picture = _picture(file, content)
    except FieldError as error:
        found.broken(file, record, error.field, str(error), error.kind)
        return None
    if picture.orientation != 1:
        found.noted(
            TAGGED,
            file,
            record,
            "imagePath",
            f"{picture.path!r} has the orientation tag {picture.orientation}",
            "turned upright, as labelme shows it",
        )
    return picture


def opened(text: Any):
    """The picture, open, in a text in base64. Raises FieldError."""
    from PIL import Image

    try:
        return Image.open(io.BytesIO(decoded(text, "imageData")))
    except OSError as error:
        raise FieldError("imageData", f"it is not a picture: {error}", problems.UNREADABLE) from error
    except Image.DecompressionBombError as error:  # no OSError; `outlines.open_picture` is for files
        raise FieldError(
            "imageData",
            f"it is too large: {error}; cut it into tiles, or, if you trust the file, raise PIL.Image.MAX_IMAGE_PIXELS",
            problems.UNREADABLE,
        ) from error


def _picture(file: str, content: dict) -> Picture:
    path = _path(file, content)
    if os.path.isfile(path):
        try:
            found, where, embedded = upright_size(path), repr(path), False
        except ValueError as error:
            raise FieldError("imagePath", str(error), problems.UNREADABLE) from error
    elif content.get("imageData"):
        with opened(content["imageData"]) as image:
            found, where, embedded = header_of(image), "its imageData", True
    else:
        raise FieldError("imagePath", f"there is no image file {path!r}, and no imageData", problems.MISSING)
    size, orientation = _agreed(content, *found, where)
    return Picture(file, file if embedded else path, size, orientation, embedded)


def _path(file: str, content: dict) -> str:
    """The path of the picture: as it is written, maybe on Windows, or of the same name beside the json."""
    name = content.get("imagePath")
    if not isinstance(name, str) or not name:
        if content.get("imageData"):
            return ""
        raise FieldError("imagePath", f"expected the name of a picture, got {shown(name)}")
    folder, name = os.path.dirname(file), name.replace("\\", "/")
    path, beside = os.path.normpath(os.path.join(folder, name)), os.path.join(folder, os.path.basename(name))
    return beside if os.path.isfile(beside) and not os.path.isfile(path) else path


def _agreed(content: dict, size: tuple[int, int], orientation: int, where: str) -> tuple[tuple[int, int], int]:
    """The size and orientation in which the picture was annotated. Raises FieldError when it is another picture."""
    stated = []
    for field, length in zip(SIZE_FIELDS, size, strict=True):
        value = content.get(field)
        if value is not None and (type(value) is not int or value < 1):
            raise FieldError(field, f"expected pixels from 1 on, got {shown(value)}")
        stated.append(length if value is None else value)
    if tuple(stated) == size:
        return size, orientation
    if orientation in SIDEWAYS and tuple(stated) == size[::-1]:
        return size[::-1], 1  # annotated as its pixels are stored, by a labelme that ignored the tag
    raise FieldError(
        "/".join(SIZE_FIELDS),
        f"the annotations are of an image of {stated[0]} x {stated[1]}, but "
        f"{where} is {size[0]} x {size[1]} (height x width)",
        problems.SIZE,
    )


SUFFIX, WHAT = ".json", "annotations of labelme"


class Shape(NamedTuple):
    """A shape that can be read."""

    name: str
    group: Any
    outline: Outline
    record: str


class LabelmeDataset(UprightDataset):
    """Photographs annotated with labelme; made by `read_labelme`."""

    def read_stored(self, image_id: int) -> np.ndarray:
        """The pixels of the picture, or of that in the annotation file."""
        info = self.image_info[image_id]
        if not info["embedded"]:
            return super().read_stored(image_id)
        content = read_json(info["path"], WHAT)
        try:
            with opened(content["imageData"]) as image:
                return read_image(image)
        except (OSError, SyntaxError, ValueError) as error:
            raise AnnotationError(
                info["path"], info["record"], "imageData", f"it cannot be decoded: {error}"
            ) from error


def read_labelme(
    dataset_dir: str | os.PathLike,
    subset: str | None = None,
    *,
    class_names: Sequence[str] | None = None,
    source: str = "labelme",
    strict: bool = True,
) -> LabelmeDataset:
    """Reads a folder of labelme's json files, one an image; an image without shapes has no instances.

    Polygons, rectangles, circles and masks become instances; several shapes of one label and one group_id are parts of
    one. Lines and points have no area and are broken records. The picture is the file that `imagePath` names, or, where
    that is missing, the one inside the json (`imageData`). A photograph with an orientation tag is turned upright, as
    labelme shows it. Pictures beside the json files that have none were not annotated: they are left out, and counted.

    Args:
        dataset_dir, subset: the folder `dataset_dir/subset`, or one json file.
        class_names: the classes, in this order; None: the labels found, sorted.
        source: the source's name in the dataset.
        strict: raise at the first broken record; else leave it out and count it in `problems`.

    Returns:
        A prepared dataset; images by the names of the json files, ids are names without suffix.

    Raises:
        FileNotFoundError: no such folder, or no json in it.
        AnnotationError: naming file, record and field.
    """
    files, folder = _files(dataset_dir, subset)
    dataset = LabelmeDataset(folder or files[0], strict)
    read = list(_annotated(dataset, files))
    if folder:
        _note_others(dataset, folder, files, {picture.path for picture, _ in read})
    found = {shape.name for _, shapes in read for shape in shapes}
    if not found and class_names is None:
        dataset.problems.broken(
            dataset.file,
            "",
            "shapes",
            "no file holds a shape that can be read, so that there are "
            "no classes; pass class_names= for a dataset without instances",
        )
    classes = Classes(dataset, source, found, class_names)
    for picture, shapes in read:
        _add(dataset, source, picture, shapes, classes)
    return dataset.finish()


def _files(dataset_dir: str | os.PathLike, subset: str | None) -> tuple[list[str], str]:
    """The json files, and their folder, "" for a single file."""
    if not subset and os.path.isfile(dataset_dir):
        return [os.fspath(dataset_dir)], ""
    folder = subset_folder(dataset_dir, subset)
    files = [entry.path for entry in listed(folder) if entry.name.lower().endswith(SUFFIX) and entry.is_file()]
    if not files:
        raise FileNotFoundError(f"no json files of labelme in {folder!r}, which holds {names_in(folder)}")
    return files, folder


def _stem(file: str) -> str:
    return os.path.splitext(os.path.basename(file))[0]


def _annotated(dataset: LabelmeDataset, files: list[str]) -> Iterator[tuple[Picture, list[Shape]]]:
    """The pictures that are annotated, each with its shapes."""
    taken: dict[str, str] = {}
    for file in files:
        content, record = _content(dataset, file), f"image {_stem(file)!r}"
        picture = content and picture_of(dataset.problems, file, record, content)
        if not picture:
            continue
        first = taken.setdefault(os.path.realpath(picture.path), file)
        if first == file:
            yield picture, _shapes(dataset, picture, content["shapes"])
        else:
            dataset.problems.broken(
                file,
                record,
                "imagePath",
                f"{first!r} annotates the same picture {picture.path!r}; merge their shapes",
                problems.CLASH,
            )


def _content(dataset: LabelmeDataset, file: str) -> dict | None:
    """The content of a json; broken, and None, when it is not one of labelme's."""
    record = f"image {_stem(file)!r}"
    try:
        content = read_json(file, WHAT)
    except AnnotationError as error:
        if dataset.problems.strict:
            raise
        dataset.problems.left_out(problems.BROKEN, file, record, "", str(error))
        return None
    shapes = content.get("shapes") if isinstance(content, dict) else None
    if not isinstance(shapes, list):
        dataset.problems.broken(
            file, record, "shapes", f"expected a list of shapes, got {shown(shapes)}; is it a file of labelme?"
        )
        return None
    return content


def _note_others(dataset: LabelmeDataset, folder: str, files: list[str], paths: set[str]) -> None:
    """Counts the pictures in the folder that have no json."""
    stems, taken = set(map(_stem, files)), set(map(os.path.realpath, paths))
    for entry in listed(folder):
        stem, suffix = os.path.splitext(entry.name)
        if suffix.lower() in PICTURES and stem not in stems and os.path.realpath(entry.path) not in taken:
            dataset.problems.left_out(problems.UNANNOTATED, folder, f"image {entry.name!r}", "", "no json annotates it")


def _shapes(dataset: LabelmeDataset, picture: Picture, shapes: list) -> list[Shape]:
    """The shapes of a file that can be read."""
    found = []
    for place, shape in enumerate(shapes):
        record = f"shape {place}"
        try:
            name, group = _label(shape)
            outline, lost = outline_of(shape, *picture.size)
        except FieldError as error:
            dataset.problems.broken(picture.file, record, error.field, str(error))
            continue
        inside = not lost or _is_inside(dataset, picture, record, outline, lost)
        if inside and encloses(dataset.problems, outline, picture.file, record, "points"):
            found.append(Shape(name, group, outline, record))
    return found


def _label(shape: Any) -> tuple[str, Any]:
    """The label and the group of a shape. Raises FieldError."""
    if not isinstance(shape, dict):
        raise FieldError("shapes", f"expected an object, got {shown(shape)}")
    name, group = shape.get("label"), shape.get("group_id")
    if not isinstance(name, str) or not name:
        raise FieldError("label", f"expected the name of a class, got {shown(name)}")
    if group is not None and type(group) not in (int, str):
        raise FieldError("group_id", f"expected a number or null, got {shown(group)}")
    return name, group


def _is_inside(dataset: LabelmeDataset, picture: Picture, record: str, mask: Runs, lost: int) -> bool:
    """Whether anything of a mask is left that was cut off at the border."""
    text = f"{lost} pixels of the mask lie outside the image of {picture.size}"
    if not rle.area(mask.runs):
        dataset.problems.left_out(problems.OUTSIDE, picture.file, record, "points", text)
        return False
    dataset.problems.noted(problems.PARTLY_OUTSIDE, picture.file, record, "points", text, "cut off at the border")
    return True


def _add(dataset: LabelmeDataset, source: str, picture: Picture, shapes: list[Shape], classes: Classes) -> None:
    """Adds an image; shapes of one label and group become one instance, in the place of the first."""
    groups: dict[Any, list[Shape]] = {}
    for place, shape in enumerate(shapes):
        key = (shape.name, type(shape.group), place if shape.group is None else shape.group)
        groups.setdefault(key, []).append(shape)
    instances = [_instance(dataset, picture, parts, classes) for parts in groups.values()]
    dataset.add_annotated(
        source,
        _stem(picture.file),
        picture.path,
        [i for i in instances if i is not None],
        height=picture.size[0],
        width=picture.size[1],
        orientation=picture.orientation,
        embedded=picture.embedded,
    )


def _instance(dataset: LabelmeDataset, picture: Picture, parts: list[Shape], classes: Classes) -> Instance | None:
    """One instance of its parts; None when it is broken."""
    record = " and ".join(shape.record for shape in parts)
    class_id = classes.number(parts[0].name, picture.file, record, "label")
    if class_id is None:
        return None
    try:
        outline = union([shape.outline for shape in parts], *picture.size)
    except ValueError as error:
        dataset.problems.broken(picture.file, record, "points", str(error))
        return None
    where = record if dataset.file == picture.file else f"{os.path.basename(picture.file)}, {record}"
    return Instance(class_id, outline, record=where, field="points")


def find(path: str, subset: str | None) -> Places:
    """A folder of json files, one an image, or one of them."""
    if os.path.isfile(path):
        return [{"dataset_dir": path}] if path.endswith(".json") and is_labelme(read_head(path)) else []
    files = files_in(os.path.join(path, subset or ""), ".json")[:LOOKED_AT]
    fits = any(is_labelme(read_head(file)) for file in files)
    return [{"dataset_dir": path, "subset": subset}] if fits else []


def is_labelme(head: Head) -> bool:
    """Whether the keys are those of labelme."""
    return "shapes" in head.top or len(head.top & LABELME_KEYS) > 1

"""Annotations of labelme: a json an image, as a Dataset."""

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from mrcnn.data import rle
from mrcnn.data.formats import problems
from mrcnn.data.formats.annotated import Instance, read_json
from mrcnn.data.formats.classes import Classes
from mrcnn.data.formats.fields import FieldError, encloses, shown
from mrcnn.data.formats.folders import PICTURES, listed, names_in, subset_folder
from mrcnn.data.formats.labelme_pictures import Picture, opened, picture_of
from mrcnn.data.formats.labelme_shapes import outline_of, union
from mrcnn.data.formats.problems import AnnotationError
from mrcnn.data.formats.upright import UprightDataset
from mrcnn.data.images import read_image
from mrcnn.data.outlines import Outline, Runs

SUFFIX, WHAT = ".json", "annotations of labelme"


class Shape(NamedTuple):
    """A shape that can be read."""

    name: str
    group: Any
    outline: Outline
    record: str


class LabelmeDataset(UprightDataset):
    """Photographs annotated with labelme; made by `load_labelme`."""

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


def load_labelme(
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

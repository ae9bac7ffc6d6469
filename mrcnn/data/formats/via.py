"""Annotations of the VGG Image Annotator (VIA), versions 1 and 2, as a Dataset."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from mrcnn.data.annotations import problems
from mrcnn.data.annotations.annotated import Instance
from mrcnn.data.annotations.classes import Classes
from mrcnn.data.annotations.fields import FieldError, encloses, number, polygon, shown, size_of
from mrcnn.data.annotations.folders import LOOKED_AT, Places, files_in
from mrcnn.data.annotations.outlines import Ellipse, Outline, Rectangle
from mrcnn.data.annotations.problems import AnnotationError
from mrcnn.data.annotations.text_files import Head, read_head, read_json
from mrcnn.data.annotations.upright import SIDEWAYS, TAGGED, UprightDataset, known_size

ANNOTATION_FILE = "via_region_data.json"
SHAPES = ("polygon", "rect", "circle", "ellipse")
DEFAULT_NAME = "object"
LENGTH = "image file of another length"
UNREAD = "attribute that is not read"


class ViaDataset(UprightDataset):
    """Photographs annotated with polygons, rectangles, circles and ellipses; made by `read_via`."""


class Region(NamedTuple):
    """A region that can be read. name: of its class."""

    name: str
    outline: Outline
    record: str


def read_via(
    dataset_dir: str | os.PathLike,
    subset: str | None = None,
    class_name: str | Sequence[str] = DEFAULT_NAME,
    *,
    attribute: str | None = None,
    source: str = "via",
    annotation_file: str = ANNOTATION_FILE,
    class_names: Sequence[str] | None = None,
    upright: bool | None = None,
    strict: bool = True,
) -> ViaDataset:
    """Reads the photographs that were annotated in a folder; those without regions are left out, as in the old package.

    The file is an export as json, of VIA 1 or 2, or a saved project of VIA 2. It does not say how large the photographs
    are; that comes from their headers.

    Args:
        dataset_dir, subset: the folder `dataset_dir/subset` holds photographs and the annotation file.
        class_name: the name of the only class, or a list of names when `attribute` is given.
        attribute: the region attribute that holds the name of a region's class: a text or choice, or checkboxes of
            which one is ticked.
        source: the source's name in the dataset.
        annotation_file: its name in the folder.
        class_names: the classes, in this order, in place of class_name. None, with an attribute and no class_name: the
            names found, sorted.
        upright: whether regions were drawn on photographs turned by their orientation tag, as browsers show them since
            2020, or as their pixels are stored. None: photographs with such a tag are broken records.
        strict: raise at the first broken record; else leave it out and count it in `problems`.

    Returns:
        A prepared dataset.

    Raises:
        FileNotFoundError: for a missing annotation file.
        AnnotationError: naming file, record and field, for what is not VIA's, a shape that has no area, an unknown
            class, a missing photograph.
    """
    names = _names(class_name, class_names, attribute)
    folder = os.path.join(os.fspath(dataset_dir), subset or "")
    dataset = ViaDataset(os.path.join(folder, annotation_file), strict)
    entries = _entries(dataset, read_json(dataset.file, "annotations of VIA"))
    only = None if attribute is not None else names[0]
    regions = {filename: _regions(dataset, entry, attribute, only) for filename, entry in entries.items()}
    classes = Classes(dataset, source, {region.name for found in regions.values() for region in found}, names)
    for filename, found in regions.items():
        numbers = [classes.number(r.name, dataset.file, r.record, attribute or "region_attributes") for r in found]
        instances = [
            Instance(class_id, region.outline, record=region.record, field="shape_attributes")
            for class_id, region in zip(numbers, found, strict=True)
            if class_id is not None
        ]
        _add(dataset, source, os.path.join(folder, filename), entries[filename], instances, upright)
    if class_names is None and class_name == DEFAULT_NAME and attribute is None:
        _note_attributes(dataset, entries)
    if not dataset.image_info:
        dataset.problems.broken(
            dataset.file,
            "",
            "regions",
            "it annotates no regions that can be read; draw some in VIA and export them as json",
        )
    return dataset.finish()


def _names(
    class_name: str | Sequence[str], class_names: Sequence[str] | None, attribute: str | None
) -> list[str] | None:
    """The names of the classes; None: those that the attribute has."""
    if class_names is not None and class_name != DEFAULT_NAME:
        raise ValueError(f"class_name={class_name!r} and class_names={list(class_names)} say the same; give one")
    if class_names is None and class_name == DEFAULT_NAME and attribute is not None:
        return None
    names = class_name if class_names is None else class_names
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise ValueError("there are no names of classes; give at least one")
    if len(names) > 1 and attribute is None:
        raise ValueError(f"{len(names)} classes {names} need attribute=, the region attribute that tells them apart")
    return names


def _entries(dataset: ViaDataset, content: Any) -> dict[str, dict]:
    """The records of images by file name; those without regions are left out, broken ones too."""
    if isinstance(content, dict):
        content = content.get("_via_img_metadata", content)  # a saved VIA 2 project wraps them
    if isinstance(content, list):
        content = dict(enumerate(content))
    if not isinstance(content, dict) or content and not any(map(_is_near, content.values())):
        raise AnnotationError(
            dataset.file,
            "",
            "",
            f"it is no annotation file of VIA 1 or 2: each entry must have filename and regions, got {shown(content)}",
        )
    entries: dict[str, dict] = {}
    for key, record in content.items():
        name = f"image record {key!r}"
        if _is_entry(dataset, name, record):
            filename = record["filename"]
            if filename in entries:
                dataset.problems.broken(
                    dataset.file,
                    name,
                    "filename",
                    f"another record is of {filename!r}, too; merge their regions",
                    problems.CLASH,
                )
            elif record["regions"]:
                entries[filename] = record
            else:
                dataset.problems.left_out(
                    problems.UNANNOTATED, dataset.file, f"image {filename!r}", "regions", "no region is drawn on it"
                )
    return entries


def _is_near(record: Any) -> bool:
    """Whether a record may be meant as one of an image."""
    return isinstance(record, dict) and not {"filename", "regions"}.isdisjoint(record)


def _is_entry(dataset: ViaDataset, name: str, record: Any) -> bool:
    """Whether a record is one of an image; broken otherwise."""
    expected = {"filename": (str, "a name"), "regions": ((list, dict), "a list or, of VIA 1, an object")}
    for field, (kinds, wanted) in expected.items():
        value = record.get(field) if isinstance(record, dict) else None
        if not isinstance(value, kinds) or value == "":
            dataset.problems.broken(dataset.file, name, field, f"expected {wanted}, got {shown(value)}")
            return False
    return True


def _regions(dataset: ViaDataset, entry: dict, attribute: str | None, only: str | None) -> list[Region]:
    """The regions of an image that can be read; `only` is their class where no attribute gives it."""
    regions, found = entry["regions"], []
    for place, region in enumerate(regions.values() if isinstance(regions, dict) else regions):
        record = f"{entry['filename']!r}, region {place}"
        try:
            outline = _outline(_object(region, "shape_attributes"))
            name = only if attribute is None else _class_name(region, attribute)
        except FieldError as error:
            dataset.problems.broken(dataset.file, record, error.field, str(error))
            continue
        if encloses(dataset.problems, outline, dataset.file, record, "shape_attributes"):
            found.append(Region(name, outline, record))
    return found


def _object(region: Any, field: str) -> dict:
    value = region.get(field) if isinstance(region, dict) else None
    if not isinstance(value, dict):
        raise FieldError(field, f"expected an object, got {shown(value)}")
    return value


def _outline(shape: dict) -> Outline:
    """The outline of a region's shape_attributes. Raises FieldError."""
    kind = shape.get("name")
    if kind == "polygon":
        return _polygon(shape)
    if kind == "rect":
        x, y = number(shape, "x"), number(shape, "y")
        return Rectangle(y, x, y + size_of(shape, "height"), x + size_of(shape, "width"))
    if kind == "circle":
        radius = size_of(shape, "r")
        return Ellipse(number(shape, "cy"), number(shape, "cx"), radius, radius)
    if kind == "ellipse":
        angle = number(shape, "theta") if "theta" in shape else 0.0
        return Ellipse(number(shape, "cy"), number(shape, "cx"), size_of(shape, "ry"), size_of(shape, "rx"), angle)
    raise FieldError("name", f"shape {kind!r} has no area; expected one of {SHAPES}")


def _polygon(shape: dict) -> Outline:
    fields = "all_points_x", "all_points_y"
    for field in fields:
        if not isinstance(shape.get(field), list):
            raise FieldError(field, f"expected a list of numbers, got {shown(shape.get(field))}")
    xs, ys = (shape[field] for field in fields)
    if len(xs) != len(ys):
        raise FieldError(fields[1], f"there are {len(ys)} numbers, and {len(xs)} of {fields[0]}; points need both")
    return polygon([list(point) for point in zip(xs, ys, strict=True)], "/".join(fields))


def _class_name(region: dict, attribute: str) -> str:
    """A region's class name: the value of an attribute, or the only checkbox that is ticked. Raises FieldError."""
    value = _object(region, "region_attributes").get(attribute)
    if isinstance(value, dict):
        ticked = [name for name, state in value.items() if state]
        if len(ticked) != 1:
            raise FieldError(attribute, f"expected one ticked box, got {shown(ticked)}; a region has one class")
        return ticked[0]
    if not isinstance(value, str) or not value:
        raise FieldError(attribute, f"expected the name of a class, got {shown(value)}")
    return value


def _add(
    dataset: ViaDataset, source: str, path: str, entry: dict, instances: list[Instance], turn: bool | None
) -> None:
    """Adds an image."""
    filename, (size, orientation) = entry["filename"], known_size(path)
    record = f"image {filename!r}"
    if orientation != 1 and turn is None:
        dataset.problems.broken(
            dataset.file,
            record,
            "filename",
            f"{path!r} has the orientation tag {orientation}; "
            "were its regions drawn on the photograph upright? Pass upright=True (browsers show it "
            "so since 2020) or upright=False",
            TAGGED,
        )
        return
    if orientation != 1 and not turn:
        size, orientation = (size[::-1] if orientation in SIDEWAYS else size), 1
    added = dataset.add_annotated(
        source, filename, path, instances, height=size[0], width=size[1], orientation=orientation
    )
    length = entry.get("size")
    if added and type(length) is int and length > 0 and length != os.path.getsize(path):  # -1: not known to VIA
        dataset.problems.noted(
            LENGTH,
            dataset.file,
            record,
            "size",
            f"the annotated file had {length} bytes, {path!r} "
            f"has {os.path.getsize(path)}; is it the same, in the same size?",
            "used",
        )


def _note_attributes(dataset: ViaDataset, entries: dict[str, dict]) -> None:
    """Notes that regions have attributes, one of which may be meant as the class."""
    regions = [
        region
        for entry in entries.values()
        for region in (entry["regions"].values() if isinstance(entry["regions"], dict) else entry["regions"])
    ]
    attributes = [region.get("region_attributes") for region in regions if isinstance(region, dict)]
    names = sorted({name for values in attributes if isinstance(values, dict) for name, v in values.items() if v})
    if names:
        dataset.problems.noted(
            UNREAD,
            dataset.file,
            "",
            "region_attributes",
            f"regions have the attributes {names}",
            f"all are of the class {DEFAULT_NAME!r}; attribute= takes classes from one of them",
        )


def find(path: str, subset: str | None) -> Places:
    """A json, or one in the folder `subset`."""
    if os.path.isfile(path):
        files = [path] if path.endswith(".json") else []
    else:
        files = files_in(os.path.join(path, subset or ""), ".json")[:LOOKED_AT]
    return [
        {"dataset_dir": os.path.dirname(file), "annotation_file": os.path.basename(file)}
        for file in files
        if is_via(read_head(file))
    ]


def is_via(head: Head) -> bool:
    """Whether the keys are those of the VGG Image Annotator."""
    return any(key.startswith("_via_") for key in head.top) or {"filename", "regions"} <= head.second

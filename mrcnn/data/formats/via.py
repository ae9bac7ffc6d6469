"""VGG Image Annotator (VIA) annotations: JSON and CSV of versions 1, 2 and 3."""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from mrcnn.data.annotations import problems
from mrcnn.data.annotations.annotated import AnnotatedDataset, Instance
from mrcnn.data.annotations.classes import Classes, is_class
from mrcnn.data.annotations.fields import FieldError, Unread, encloses, number, polygon, shown, size_of
from mrcnn.data.annotations.folders import LOOKED_AT, Places, files_in, folder_or_root
from mrcnn.data.annotations.image_finder import ImageFinder, search_root
from mrcnn.data.annotations.outlines import Ellipse, Outline, Rectangle
from mrcnn.data.annotations.problems import AnnotationError, Lost
from mrcnn.data.annotations.text_files import Head, read_head, read_header, read_json, read_rows
from mrcnn.data.formats.via_3 import KEYS, TITLE, Entry, from_csv, from_project

ANNOTATION_FILE = "via_region_data.json"
WHAT = "VIA annotations"
SHAPES = ("polygon", "rect", "circle", "ellipse")
# The type of a shape without a name, by its fields
FIELDS = {
    "polygon": {"all_points_x", "all_points_y"},
    "rect": {"x", "y", "width", "height"},
    "circle": {"cx", "cy", "r"},
    "ellipse": {"cx", "cy", "rx", "ry"},
}
CLOSED = 1.0  # maximum distance in pixels between the ends of a closed polyline
TELLS = frozenset({"filename", "regions", "_via_settings", "_via_img_metadata", "shapes", "images", *KEYS})
DEFAULT_NAME = "object"
LENGTH = "image file of different length"
UNREAD = "attribute that is not read"


class ViaDataset(AnnotatedDataset):
    """Images annotated with polygons, rectangles, circles and ellipses, read by `read_via`."""


class Region(NamedTuple):
    """A valid region. name: the name of its class."""

    name: str
    outline: Outline
    record: str


def read_via(
    dataset_dir: str | os.PathLike,
    subset: str | None = None,
    class_name: str | Sequence[str] = DEFAULT_NAME,
    *,
    attribute: str | None = None,
    image_dir: str | os.PathLike | None = None,
    source: str = "via",
    annotation_file: str | None = None,
    class_names: Sequence[str] | None = None,
    masks: bool = True,
    upright: bool | None = None,
    strict: bool = True,
) -> ViaDataset:
    """Reads a folder of images annotated with VIA; as in the old package, images without regions are skipped.

    The file is a JSON or CSV export, or a saved project, of VIA 1, 2 or 3. It does not contain image sizes, so these
    are read from the image headers. A polyline that ends where it starts is read as a polygon.

    Args:
        dataset_dir, subset: the folder `dataset_dir/subset` holds images and annotation file.
        class_name: the name of the only class, or a list of names if `attribute` is given.
        attribute: the region attribute with the name of a region's class: a text, a choice, or checkboxes with
            exactly one ticked.
        image_dir: folder of the images; None: that of the annotations, images/ in it, or the one that holds them.
        source: name of the source in the dataset.
        annotation_file: name of the file in the folder. None: via_region_data.json, or else all VIA files in the
            folder, no two of which may annotate the same image.
        class_names: the classes, in this order, instead of class_name. None, with an attribute and no class_name: the
            names found, sorted.
        masks, upright, strict: see `AnnotatedDataset`.

    Returns:
        A prepared dataset.

    Raises:
        FileNotFoundError: the annotation file is missing.
        AnnotationError: a file that is not VIA's, a shape without area, an unknown class or a missing image, named by
            file, record and field.
    """
    names = _names(class_name, class_names, attribute)
    folder = folder_or_root(os.fspath(dataset_dir), subset)
    files = _files(folder, annotation_file)
    dataset = ViaDataset(files[0] if len(files) == 1 else folder, strict, masks=masks, upright=upright)
    entries = _entries(dataset, files)
    only = None if attribute is not None else (names or [DEFAULT_NAME])[0]
    unread = Unread(dataset.problems, dataset.file)
    regions = {name: _regions(dataset, entry, attribute, only, unread) for name, entry in entries.items()}
    unread.note()
    classes = Classes(dataset, source, {region.name for found in regions.values() for region in found}, names)
    places = [folder, os.path.join(folder, "images")]
    finder = ImageFinder(entries, places, search_root(folder), None if image_dir is None else os.fspath(image_dir))
    for filename, found in regions.items():
        entry, where = entries[filename], attribute or "region_attributes"
        numbers = [classes.number(region.name, entry.file, region.record, where) for region in found]
        instances = [
            Instance(class_id, region.outline, record=region.record, field="shape_attributes")
            for class_id, region in zip(numbers, found, strict=True)
            if class_id is not None
        ]
        _add(dataset, source, finder, entry, instances)
    finder.note(dataset.problems, dataset.file)
    if class_names is None and class_name == DEFAULT_NAME and attribute is None:
        _note_attributes(dataset, entries)
    if not dataset.image_info:
        message = "it has no valid regions; draw some in VIA and export them as JSON"
        dataset.problems.broken(dataset.file, "", "regions", message)
    return dataset.finish()


def find(path: str, subset: str | None) -> Places:
    """A VIA file, or those in the folder `subset`."""
    if os.path.isfile(path):
        if not is_file(path):
            return []
        return [{"dataset_dir": os.path.dirname(path), "annotation_file": os.path.basename(path)}]
    folder = folder_or_root(path, subset)
    files = [file for suffix in (".json", ".csv") for file in files_in(folder, suffix)[:LOOKED_AT] if is_file(file)]
    return [{"dataset_dir": folder}] if files else []


def is_via(head: Head) -> bool:
    """Whether the keys of a JSON file are VIA's."""
    return (
        any(key.startswith("_via_") for key in head.top)
        or {"filename", "regions"} <= head.second
        or (KEYS <= head.top and not {"images", "shapes"} & head.top)
    )


def is_file(path: str) -> bool:
    """Whether a file is a VIA annotation file."""
    if path.lower().endswith(".json"):
        return is_via(read_head(path, TELLS))
    if not path.lower().endswith(".csv"):
        return False
    header = read_header(path)
    return "region_shape_attributes" in header or bool(header) and header[0].startswith(TITLE)


def _files(folder: str, annotation_file: str | None) -> list[str]:
    """The annotation files to read together."""
    if annotation_file is not None:
        return [os.path.join(folder, annotation_file)]
    usual = os.path.join(folder, ANNOTATION_FILE)
    if os.path.isfile(usual):
        return [usual]
    return [file for file in files_in(folder, ".json", ".csv") if is_file(file)] or [usual]


def _names(
    class_name: str | Sequence[str], class_names: Sequence[str] | None, attribute: str | None
) -> list[str] | None:
    """The class names; None: the values of the attribute."""
    if class_names is not None and class_name != DEFAULT_NAME:
        raise ValueError(
            f"class_name={class_name!r} and class_names={list(class_names)} both set the classes; pass only one of them"
        )
    if class_names is None and class_name == DEFAULT_NAME and attribute is not None:
        return None
    names = class_name if class_names is None else class_names
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise ValueError("the list of class names is empty; give at least one")
    if len(names) > 1 and attribute is None:
        raise ValueError(f"{len(names)} classes {names} need attribute=, the region attribute that distinguishes them")
    return names


def _entries(dataset: ViaDataset, files: Sequence[str]) -> dict[str, Entry]:
    """Images by file name; images without regions and invalid records are skipped."""
    entries: dict[str, Entry] = {}
    for file in files:
        read = _from_csv if file.lower().endswith(".csv") else _from_json
        for name, entry in read(dataset, file):
            where = file, name, "filename"
            if entry.filename in entries:
                other = entries[entry.filename].file
                message = f"another record annotates {entry.filename!r}; merge their regions"
                if other != file:
                    message = f"{other!r} also annotates {entry.filename!r}; choose one with annotation_file="
                lost: Lost = {"images": 0, "instances": len(entry.regions)}
                dataset.problems.broken(*where, message, problems.CLASH, **lost)
            elif entry.regions:
                entries[entry.filename] = entry
            else:
                where = file, f"image {entry.filename!r}", "regions"
                message = "it has no regions"
                dataset.problems.left_out(problems.UNANNOTATED, *where, message, images=1, instances=0)
    return entries


def _from_json(dataset: ViaDataset, file: str) -> Iterable[tuple[str, Entry]]:
    """The images of a JSON file, each with a name for messages."""
    content = read_json(file, WHAT)
    if isinstance(content, dict) and content.keys() >= KEYS:
        yield from from_project(dataset, file, content)
        return
    if isinstance(content, dict):
        content = content.get("_via_img_metadata", content)  # a saved VIA 2 project wraps them
    if isinstance(content, list):
        content = dict(enumerate(content))
    if not isinstance(content, dict) or content and not any(map(_is_near, content.values())):
        message = f"not a VIA 1 or 2 annotation file: each entry must have filename and regions, got {shown(content)}"
        raise AnnotationError(file, "", "", message)
    for key, record in content.items():
        name = f"image record {shown(key)}"
        if _is_entry(dataset, file, name, record):
            regions = record["regions"]
            regions = list(regions.values()) if isinstance(regions, dict) else regions
            yield name, Entry(file, record["filename"], record.get("size"), regions)


def _is_near(record: Any) -> bool:
    """Whether a record looks like that of an image, valid or not."""
    return isinstance(record, dict) and not {"filename", "regions"}.isdisjoint(record)


def _is_entry(dataset: ViaDataset, file: str, name: str, record: Any) -> bool:
    """Whether a record is a valid image record; an error otherwise."""
    expected = {"filename": "a file name", "regions": "a list or, in VIA 1, an object"}
    for field, wanted in expected.items():
        value = record.get(field) if isinstance(record, dict) else None
        named = isinstance(value, str) and value and "\0" not in value
        if not (named if field == "filename" else isinstance(value, list | dict)):
            message = f"expected {wanted}, got {shown(value)}"
            dataset.problems.broken(file, name, field, message, images=1, instances=0)
            return False
    return True


def _from_csv(dataset: ViaDataset, file: str) -> Iterable[tuple[str, Entry]]:
    """The images of a CSV file of VIA 1 or 2, one row per region, or of VIA 3."""
    header = read_header(file)
    if header and header[0].startswith(TITLE):
        yield from from_csv(dataset, file)
        return
    image = "#filename" if "#filename" in header else "filename"  # VIA 1
    by_image: dict[str, tuple[str, Any, list]] = {}
    for record, row in read_rows(dataset.problems, file, WHAT, (image, "region_shape_attributes")):
        try:
            shape = _json(row, "region_shape_attributes")
            attributes = _json(row, "region_attributes") if "region_attributes" in row else {}
        except FieldError as error:
            dataset.problems.broken(file, record, error.field, str(error), images=0, instances=1)
            continue
        if not row[image] or "\0" in row[image]:
            dataset.problems.broken(
                file, record, image, "expected a file name, got ''", images=0, instances=int(bool(shape))
            )
            continue
        length = row.get("file_size", "").strip()
        known = by_image.setdefault(row[image], (record, int(length) if length.isdecimal() else -1, []))
        if shape:  # an image without regions has one row without a shape
            known[2].append({"shape_attributes": shape, "region_attributes": attributes})
    for filename, (record, length, regions) in by_image.items():
        yield record, Entry(file, filename, length, regions)


def _json(row: Mapping[str, str], field: str) -> dict:
    """The object in a table cell. Raises FieldError."""
    try:
        value = json.loads(row[field] or "{}")
    except (RecursionError, ValueError) as error:
        raise FieldError(field, f"expected a JSON object, got {shown(row[field])}") from error
    if not isinstance(value, dict):
        raise FieldError(field, f"expected a JSON object, got {shown(value)}")
    return value


def _regions(
    dataset: ViaDataset, entry: Entry, attribute: str | None, only: str | None, unread: Unread
) -> list[Region]:
    """The valid regions of an image; `only` is their class if no attribute gives it."""
    found = []
    for place, region in enumerate(entry.regions):
        record = f"{entry.filename!r}, region {place}"
        try:
            outline = _outline(_shape(region), lambda *what, record=record: unread.add("region", record, *what))
            name = only if attribute is None else _class_name(region, attribute)
        except FieldError as error:
            dataset.problems.broken(entry.file, record, error.field, str(error), images=0, instances=1)
            continue
        if name is None or not is_class(name):
            where = entry.file, record, attribute or "", f"{name!r} is not a class"
            dataset.problems.left_out(problems.NOT_A_CLASS, *where, images=0, instances=1)
        elif encloses(dataset.problems, outline, entry.file, record, "shape_attributes"):
            found.append(Region(name, outline, record))
    return found


def _object(region: Any, field: str) -> dict:
    value = region.get(field) if isinstance(region, dict) else None
    if not isinstance(value, dict):
        raise FieldError(field, f"expected an object, got {shown(value)}")
    return value


def _shape(region: Any) -> dict:
    """A region's shape_attributes, including a name. Raises FieldError."""
    shape = _object(region, "shape_attributes")
    if shape.get("name") is not None:
        return shape
    fitting = next((name for name, fields in FIELDS.items() if fields <= shape.keys()), None)
    beside = region.get("name")  # some tools write the name here
    return {**shape, "name": beside if isinstance(beside, str) else fitting}


def _outline(shape: dict, note: Callable[[str, str, str], None]) -> Outline:
    """The outline of a region's shape_attributes. Raises FieldError."""
    kind = shape.get("name")
    if kind == "polygon":
        return _polygon(shape)
    if kind == "polyline":
        points = _polygon(shape).parts[0]
        if len(points) > 3 and abs(points[0] - points[-1]).max() <= CLOSED:
            note("name", "a polyline that ends where it starts", "read as a polygon")
            return polygon(points[:-1].tolist(), "all_points_x/all_points_y")
    if kind == "rect":
        x, y = number(shape, "x"), number(shape, "y")
        return Rectangle(y, x, y + size_of(shape, "height"), x + size_of(shape, "width"))
    if kind == "circle":
        radius = size_of(shape, "r")
        return Ellipse(number(shape, "cy"), number(shape, "cx"), radius, radius)
    if kind == "ellipse":
        angle = number(shape, "theta") if "theta" in shape else 0.0
        return Ellipse(number(shape, "cy"), number(shape, "cx"), size_of(shape, "ry"), size_of(shape, "rx"), angle)
    raise FieldError("name", f"shape {shown(kind)} has no area; expected one of {SHAPES}")


def _polygon(shape: dict) -> Any:
    fields = "all_points_x", "all_points_y"
    for field in fields:
        if not isinstance(shape.get(field), list):
            raise FieldError(field, f"expected a list of numbers, got {shown(shape.get(field))}")
    xs, ys = (shape[field] for field in fields)
    if len(xs) != len(ys):
        raise FieldError(fields[1], f"expected as many numbers as {fields[0]} has ({len(xs)}), got {len(ys)}")
    return polygon([list(point) for point in zip(xs, ys, strict=True)], "/".join(fields))


def _class_name(region: dict, attribute: str) -> str:
    """A region's class name: the value of an attribute, or the only ticked checkbox. Raises FieldError."""
    value = _object(region, "region_attributes").get(attribute)
    if isinstance(value, dict):
        ticked = [name for name, state in value.items() if state]
        if len(ticked) != 1:
            raise FieldError(attribute, f"expected one ticked box, got {shown(ticked)}; a region has one class")
        return ticked[0]
    if not isinstance(value, str) or not value:
        raise FieldError(attribute, f"expected a class name, got {shown(value)}")
    return value


def _add(dataset: ViaDataset, source: str, finder: ImageFinder, entry: Entry, instances: list[Instance]) -> None:
    """Adds an image."""
    path, record = finder.path(entry.filename), f"image {entry.filename!r}"
    added = dataset.add_annotated(source, entry.filename, path, instances, hint=finder.why(path))
    length = entry.size
    if added and type(length) is int and length > 0 and length != os.path.getsize(path):  # -1: unknown to VIA
        message = f"the annotated file had {length} bytes, {path!r} has {os.path.getsize(path)}; "
        message += "is it the same image at the same size?"
        dataset.problems.noted(LENGTH, entry.file, record, "size", message, "used")


def _note_attributes(dataset: ViaDataset, entries: Mapping[str, Entry]) -> None:
    """Notes that regions have attributes, one of which may be the class."""
    regions = [region for entry in entries.values() for region in entry.regions if isinstance(region, dict)]
    attributes = [region.get("region_attributes") for region in regions]
    names = sorted({name for values in attributes if isinstance(values, dict) for name, v in values.items() if v})
    if names:
        dataset.problems.noted(
            UNREAD,
            dataset.file,
            "",
            "region_attributes",
            f"regions have the attributes {shown(names)}",
            f"all have class {DEFAULT_NAME!r}; attribute= reads the class from one of the attributes",
        )

"""Converts projects and CSV files of VGG Image Annotator 3 to the form of version 2, for `read_via`."""

import csv
import json
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from mrcnn.data.annotations.annotated import AnnotatedDataset
from mrcnn.data.annotations.fields import FieldError, is_number, shown
from mrcnn.data.annotations.problems import AnnotationError
from mrcnn.data.annotations.text_files import read_text

KEYS = {"metadata", "file", "view"}  # of a project
TITLE = "# Exported using VGG Image Annotator"  # first line of a CSV file
# From _via_metadata.js: the shape codes, their names in VIA 2, and the names of the numbers that follow the code
SHAPES = {
    2: ("rect", ("x", "y", "width", "height")),
    3: ("circle", ("cx", "cy", "r")),
    4: ("ellipse", ("cx", "cy", "rx", "ry")),
}
POLYLINE, POLYGON, EXTREME_RECTANGLE, EXTREME_CIRCLE = 6, 7, 8, 9
NAMES = ("polygon", "rect", "circle", "ellipse")
CHECKBOXES = 2  # attribute type


class Entry(NamedTuple):
    """An image. file: the annotation file. size: bytes of the image file, -1 if unknown to VIA."""

    file: str
    filename: str
    size: Any
    regions: Sequence[Any]


def from_csv(dataset: AnnotatedDataset, file: str) -> Iterable[tuple[str, Entry]]:
    """The images of a VIA 3 CSV file, which defines its attributes in comments before the rows."""
    lines = read_text(file, "VIA annotations", most=None).splitlines()
    comments = [line for line in lines if line.startswith("#")]
    found = next((match for line in comments if (match := re.match(r"#\s*ATTRIBUTES?\s*=\s*(\{.*\})", line))), None)
    try:
        attributes = json.loads(found[1]) if found else {}
    except (RecursionError, ValueError):
        attributes = {}
    metadata, views, files = {}, {}, {}
    try:
        rows = list(csv.reader([line for line in lines if line and not line.startswith("#")], strict=True))
    except csv.Error as error:
        raise AnnotationError(file, "", "", f"not a valid CSV file: {error}") from error
    for place, row in enumerate(rows, len(comments) + 1):
        try:
            if len(row) < 6:
                raise ValueError(f"expected 6 fields, got {len(row)}")
            names, moment, shape, values = (json.loads(row[column] or "null") for column in (1, 3, 4, 5))
            if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
                raise ValueError(f"expected a list with one image, got {shown(row[1])}")
        except (RecursionError, ValueError) as error:
            dataset.problems.broken(file, f"line {place}", "", str(error), images=0, instances=1)
            continue
        views[names[0]], files[names[0]] = {"fid_list": [names[0]]}, {"fname": names[0]}
        metadata[f"{row[0]} in line {place}"] = {"vid": names[0], "z": moment, "xy": shape, "av": values}
    content = {"attribute": attributes, "metadata": metadata, "view": views, "file": files}
    yield from from_project(dataset, file, content)


def from_project(dataset: AnnotatedDataset, file: str, content: dict) -> Iterable[tuple[str, Entry]]:
    """The images of a VIA 3 project, with regions in the form of VIA 2."""
    tables: dict[str, dict[str, Any]] = {}
    for key in (*sorted(KEYS), "attribute"):
        table = content.get(key)
        table = {} if key == "attribute" and table is None else table
        if not isinstance(table, dict):
            raise AnnotationError(file, "", key, f"expected an object, got {shown(table)}; is it a VIA 3 project?")
        tables[key] = table
    by_image: dict[str, list] = {}
    for view, record in tables["view"].items():
        name = _file(tables["file"], record)
        if name is not None:
            by_image.setdefault(name, [])
        elif any(isinstance(m, dict) and str(m.get("vid")) == view for m in tables["metadata"].values()):
            message = "expected a view with exactly one image"
            dataset.problems.broken(file, f"view {shown(view)}", "fid_list", message, images=1, instances=0)
    for key, record in tables["metadata"].items():
        where = file, f"metadata {shown(key)}"
        try:
            if not isinstance(record, dict):
                raise FieldError("metadata", f"expected an object, got {shown(record)}")
            name = _file(tables["file"], tables["view"].get(str(record.get("vid"))))
            if name is None:
                raise FieldError("vid", f"no view {shown(record.get('vid'))} with one image")
            if not record.get("xy"):
                continue  # describes the whole image
            if record.get("z"):
                raise FieldError("z", "it belongs to a video frame; expected an image")
            shape = _shape(record["xy"])
        except FieldError as error:
            dataset.problems.broken(*where, error.field, str(error), images=0, instances=1)
            continue
        attributes = _attributes(tables["attribute"], record.get("av"))
        by_image[name].append({"shape_attributes": shape, "region_attributes": attributes})
    for name, regions in by_image.items():
        yield f"image {name!r}", Entry(file, name, -1, regions)


def _file(files: dict, view: Any) -> str | None:
    """The name of the only file of a view; None if there is none."""
    fids = view.get("fid_list") if isinstance(view, dict) else None
    if not isinstance(fids, list) or len(fids) != 1:
        return None
    entry = files.get(str(fids[0]))
    name = entry.get("fname") if isinstance(entry, dict) else None
    return name if isinstance(name, str) and name and "\0" not in name else None


def _shape(xy: Any) -> dict[str, Any]:
    """The shape of `xy`, [shape code, coordinates ...], in the form of VIA 2. Raises FieldError."""
    if not isinstance(xy, list) or not all(map(is_number, xy)):
        raise FieldError("xy", f"expected a shape code and coordinates, got {shown(xy)}")
    kind, values = xy[0], xy[1:]
    points = list(zip(values[::2], values[1::2], strict=False))
    if kind in SHAPES and len(values) == len(SHAPES[kind][1]):
        name, fields = SHAPES[kind]
        return {"name": name, **dict(zip(fields, values, strict=True))}
    if kind in (POLYGON, POLYLINE) and len(values) % 2 == 0:
        name = "polygon" if kind == POLYGON else "polyline"
        return {"name": name, "all_points_x": [x for x, _ in points], "all_points_y": [y for _, y in points]}
    if kind == EXTREME_RECTANGLE and len(values) == 8:
        left, top = min(values[::2]), min(values[1::2])
        return {
            "name": "rect",
            "x": left,
            "y": top,
            "width": max(values[::2]) - left,
            "height": max(values[1::2]) - top,
        }
    if kind == EXTREME_CIRCLE and len(values) == 6:
        return _circle_through(points)
    raise FieldError("xy", f"shape {shown(kind)} with {len(values)} numbers has no area; expected one of {NAMES}")


def _circle_through(points: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """The circle through three points. Raises FieldError if they are collinear."""
    (ax, ay), (bx, by), (cx, cy) = points
    double = 2 * (ax * (by - cy) + bx * (cy - ay) + cx * (ay - by))
    if not double:
        raise FieldError("xy", f"the points {points} of a circle are collinear")
    squares = ax**2 + ay**2, bx**2 + by**2, cx**2 + cy**2
    x = (squares[0] * (by - cy) + squares[1] * (cy - ay) + squares[2] * (ay - by)) / double
    y = (squares[0] * (cx - bx) + squares[1] * (ax - cx) + squares[2] * (bx - ax)) / double
    return {"name": "circle", "cx": x, "cy": y, "r": math.hypot(ax - x, ay - y)}


def _attributes(table: dict, values: Any) -> dict[str, Any]:
    """Attribute values by attribute name, with the names of chosen options."""
    named: dict[str, Any] = {}
    for key, value in values.items() if isinstance(values, dict) else ():
        entry = table.get(key)
        entry = entry if isinstance(entry, dict) else {}
        name = entry.get("aname", key)
        options = entry.get("options")
        options = options if isinstance(options, dict) else {}
        if entry.get("type") == CHECKBOXES and isinstance(value, str):
            named[str(name)] = {str(options.get(choice, choice)): True for choice in value.split(",") if choice}
        else:
            named[str(name)] = options.get(value, value) if isinstance(value, str) else value
    return named

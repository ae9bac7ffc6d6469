"""Label Studio JSON: tasks with annotations or predictions as brush masks, polygons, rectangles or ellipses."""

import math
import os
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

import numpy as np

from mrcnn.data import rle
from mrcnn.data.annotations import problems
from mrcnn.data.annotations.annotated import AnnotatedDataset, Instance
from mrcnn.data.annotations.classes import Classes, is_class
from mrcnn.data.annotations.fields import FieldError, Unread, encloses, number, polygon, shown, size_of
from mrcnn.data.annotations.folders import LOOKED_AT, Places, files_in, folder_or_root, of_subset
from mrcnn.data.annotations.image_finder import ImageFinder, search_root
from mrcnn.data.annotations.outlines import Ellipse, Outline, Polygons, Rectangle, Runs
from mrcnn.data.annotations.problems import AnnotationError
from mrcnn.data.annotations.text_files import Head, read_head, read_json

TELLS = frozenset({"data", "annotations", "predictions", "images", "shapes", "_via_img_metadata"})
KINDS = ("brushlabels", "polygonlabels", "rectanglelabels", "ellipselabels")
LOCAL = "?d="  # precedes the path of a local file
CHANNELS, SIZE_BITS, WORD_BITS, COUNT_BITS = 4, 32, 5, 4


def read_label_studio(
    annotation_file: str | os.PathLike,
    image_dir: str | os.PathLike | None = None,
    *,
    class_names: Sequence[str] | None = None,
    source: str = "label_studio",
    masks: bool = True,
    upright: bool | None = None,
    strict: bool = True,
) -> AnnotatedDataset:
    """Reads a Label Studio export as JSON, or tasks with predictions.

    Reads each task's first annotation that was not canceled; if there is none, its first prediction.

    Args:
        annotation_file: the JSON file.
        image_dir: folder of the images; None: the folder of the JSON file, images/ in it, or the subfolder that holds
            them.
        class_names: the classes, in this order; None: the names found, sorted.
        source: name of the source in the dataset.
        masks, upright, strict: see `AnnotatedDataset`.

    Returns:
        A prepared dataset, images ordered by task id, or by position in the file.

    Raises:
        FileNotFoundError: the file is missing.
        AnnotationError: an invalid record, named by file, record and field.
    """
    file = os.fspath(annotation_file)
    dataset = AnnotatedDataset(file, strict, masks=masks, upright=upright)
    tasks = read_json(file, "tasks of Label Studio")
    if not isinstance(tasks, list):
        raise AnnotationError(file, "", "", f"expected a list of tasks, got {shown(tasks)}; is it from Label Studio?")
    unread = Unread(dataset.problems, file)
    read = [entry for place, task in enumerate(tasks) if (entry := _task(dataset, place, task, unread)) is not None]
    unread.note()
    found = {name for _, _, results in read for result in results if (name := _name(result)) and is_class(name)}
    classes = Classes(dataset, source, found, class_names)
    folder = os.path.dirname(file) or "."
    given = None if image_dir is None else os.fspath(image_dir)
    places = [folder, os.path.join(folder, "images")]
    finder = ImageFinder([name for _, name, _ in read], places, search_root(folder), given)
    for key, name, results in read:
        _add(dataset, source, key, finder.path(name), results, classes)
    finder.note(dataset.problems, file)
    if not dataset.image_info:
        dataset.problems.broken(file, "", "data", "none of its images can be read; check image_dir")
    return dataset.finish()


def find(path: str, subset: str | None) -> Places:
    """A JSON file of tasks, or those in a folder."""
    if os.path.isfile(path):
        files = [path] if path.lower().endswith(".json") else []
    else:
        files = files_in(folder_or_root(path, subset), ".json")[:LOOKED_AT]
        files = files or of_subset(files_in(path, ".json"), subset)[:LOOKED_AT]
    return [{"annotation_file": file} for file in files if is_label_studio(read_head(file, TELLS))]


def is_label_studio(head: Head) -> bool:
    """Whether the keys are those of Label Studio tasks."""
    return not head.top and "data" in head.second and bool(head.second & {"annotations", "predictions"})


def _task(dataset: AnnotatedDataset, place: int, task: Any, unread: Unread) -> tuple[Any, str, list[Any]] | None:
    """A task's id, image name and results; None, and an error, if it has no image."""
    record, data = f"task {place}", task.get("data") if isinstance(task, dict) else None
    texts = [value for value in data.values() if isinstance(value, str)] if isinstance(data, dict) else []
    name = data.get("image", texts[0] if texts else None) if isinstance(data, dict) else None
    if not isinstance(name, str) or not name or "\0" in name:
        message = f"expected an object with the URL of an image, got {shown(data)}"
        dataset.problems.broken(dataset.file, record, "data", message, images=1, instances=0)
        return None
    if LOCAL in name:
        name = unquote(name.partition(LOCAL)[2])
    key = task["id"] if isinstance(task.get("id"), int | str) else place
    for field in ("annotations", "predictions"):
        versions = task.get(field)
        versions = versions if isinstance(versions, list) else []
        usable = [v for v in versions if isinstance(v, dict) and not v.get("was_cancelled")]
        if usable:
            if len(usable) > 1:
                unread.add("task", record, field, f"it has {len(usable)} {field}", "the first is used")
            results = usable[0].get("result")
            if not isinstance(results, list):
                message = f"expected a list, got {shown(results)}"
                dataset.problems.broken(dataset.file, record, "result", message, images=1, instances=0)
                return None
            return key, name, [r for r in results if not isinstance(r, dict) or r.get("type") in KINDS]
    return key, name, []


def _name(result: Any) -> str:
    """The label of a result; empty if it has none or several."""
    value = result.get("value") if isinstance(result, dict) else None
    labels = value.get(result.get("type")) if isinstance(value, dict) else None
    if not isinstance(labels, list) or len(labels) != 1 or not isinstance(labels[0], str):
        return ""
    return labels[0]


def _add(dataset: AnnotatedDataset, source: str, key: Any, path: str, results: list[Any], classes: Classes) -> None:
    """Adds an image."""
    header = dataset.image_header(path, f"task {key!r}", len(results))
    if header is None:
        return
    sizes = [(r.get("original_height"), r.get("original_width")) for r in results if isinstance(r, dict)]
    stated = next((s for s in sizes if s in (header.size, header.upright_size)), None)
    size, tagged = dataset.sized(header, stated)
    instances = []
    for place, result in enumerate(results):
        where = dataset.file, f"task {key!r}, result {place}"
        try:
            name = _name(result)
            if not name:
                raise FieldError("value", f"expected one label, got {shown(result)}")
            if not is_class(name):
                message = f"{name!r} is not a class"
                dataset.problems.left_out(problems.NOT_A_CLASS, *where, "value", message, images=0, instances=1)
                continue
            outline = outline_of(result["type"], result["value"], *size)
        except FieldError as error:
            dataset.problems.broken(*where, error.field, str(error), images=0, instances=1)
            continue
        class_id = classes.number(name, *where, "value")
        if class_id is not None and encloses(dataset.problems, outline, *where, "value"):
            instances.append(Instance(class_id, outline, record=where[1], field="value"))
    height, width = size
    record = f"task {key!r}"
    dataset.add_annotated(source, key, path, instances, height=height, width=width, record=record, tagged=tagged)


def outline_of(kind: str, value: dict[str, Any], height: int, width: int) -> Outline:
    """The outline of a result; everything but brush masks is in percent of the image size. Raises FieldError."""
    if kind == "brushlabels":
        return Runs(rle.encode(decode_brush(value.get("rle"), height, width)))
    if kind == "polygonlabels":
        points = polygon(value.get("points"), "points").parts[0]
        return Polygons((np.round(points * (width / 100, height / 100), 3),))
    x, y = number(value, "x") * width / 100, number(value, "y") * height / 100
    angle = math.radians(number(value, "rotation")) if "rotation" in value else 0.0
    if kind == "ellipselabels":
        return Ellipse(y, x, size_of(value, "radiusY") * height / 100, size_of(value, "radiusX") * width / 100, angle)
    wide, tall = size_of(value, "width") * width / 100, size_of(value, "height") * height / 100
    if not angle:
        return Rectangle(y, x, y + tall, x + wide)
    corners = np.array([[0, 0], [wide, 0], [wide, tall], [0, tall]])  # rotated about the first corner
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return Polygons((corners @ turn + (x, y),))


def decode_brush(values: Any, height: int, width: int) -> np.ndarray:
    """[H, W] bool: a decoded brush mask; see `mrcnn.data.export.label_studio`. Raises FieldError."""
    try:
        if not isinstance(values, list):
            raise TypeError
        text = "".join(f"{byte:08b}" for byte in bytes(values))
    except (TypeError, ValueError) as error:
        raise FieldError("rle", f"expected a list of bytes, got {shown(values)}") from error
    place, total = 0, height * width * CHANNELS

    def read(count: int) -> int:
        nonlocal place
        place += count
        if place > len(text):
            raise FieldError("rle", "the brush mask is truncated")
        return int(text[place - count : place], 2)

    stated, word = read(SIZE_BITS), read(WORD_BITS) + 1
    if stated != total:
        raise FieldError("rle", f"expected {total} values (image of {height} x {width} x {CHANNELS}), got {stated}")
    sizes = [read(COUNT_BITS) + 1 for _ in range(4)]
    flat, filled = np.zeros(total, bool), 0
    while filled < total:
        run, count = read(1), read(sizes[read(2)]) + 1
        count = min(count, total - filled)
        if run:
            flat[filled : filled + count] = read(word) > 0
        else:
            flat[filled : filled + count] = [read(word) > 0 for _ in range(count)]
        filled += count
    return flat.reshape(height, width, CHANNELS)[:, :, CHANNELS - 1]

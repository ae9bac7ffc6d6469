"""Labelme annotations, also as written by other tools: one JSON file per image."""

import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mrcnn.data import rle
from mrcnn.data.annotations import problems
from mrcnn.data.annotations.annotated import AnnotatedDataset, Instance
from mrcnn.data.annotations.classes import Classes, is_class
from mrcnn.data.annotations.fields import FieldError, decoded, encloses, polygon, shown
from mrcnn.data.annotations.folders import (
    LOOKED_AT,
    PICTURES,
    Places,
    files_in,
    folder_or_root,
    listed,
    names_in,
    stem_of,
    subset_folder,
)
from mrcnn.data.annotations.image_finder import FOR_ANNOTATIONS, ImageFinder, search_root
from mrcnn.data.annotations.outlines import FAR, Ellipse, Outline, Polygons, Rectangle, Runs, open_picture, values_of
from mrcnn.data.annotations.problems import AnnotationError, Lost
from mrcnn.data.annotations.text_files import Head, read_head, read_json
from mrcnn.data.images import Header, ImageFile, read_header

SUFFIX, WHAT = ".json", "labelme annotations"
KEYS = {"shapes", "imagePath", "imageData", "imageHeight"}
TELLS = frozenset({"shapes", "images", "_via_img_metadata"})
SIZE_FIELDS = "imageHeight", "imageWidth"
CORNERS = ("oriented_rectangle", "rotation")  # labelme 6 and X-AnyLabeling: the four corners
TYPES = ("polygon", "rectangle", "circle", "mask", *CORNERS)
POINTS = {"rectangle": (2, 4), "circle": (2,), "mask": (2,), **dict.fromkeys(CORNERS, (4,))}


class Picture(NamedTuple):
    """An annotated image.

    path: the image file, or the JSON file if the image is inside (`embedded`). size: (height, width) of the annotated
    image. tagged: the header, if only the package's rule decided how to rotate the image.
    """

    file: str
    path: str
    size: tuple[int, int]
    embedded: bool
    tagged: Header | None = None


class Shape(NamedTuple):
    """A valid shape."""

    name: str
    group: Any
    outline: Outline
    record: str


class LabelmeDataset(AnnotatedDataset):
    """Images annotated with labelme, read by `read_labelme`."""

    def load_image(self, image_id: int) -> np.ndarray:
        """The image, from its file or the annotation file, upright, [H, W, 3] uint8 RGB.

        Raises AnnotationError if it cannot be decoded or its size differs from the one in the annotation file.
        """
        info = self.image_info[image_id]
        if not info.get("embedded"):
            return super().load_image(image_id)
        content = read_json(info["path"], WHAT)
        try:
            file = _embedded(info["path"], content, self.max_pixels)
            image = file.decode(self.orientation_of(image_id, file.header))
        except (FieldError, ValueError) as error:
            message = f"it cannot be decoded: {error}"
            raise AnnotationError(info["path"], info["record"], "imageData", message) from error
        return self.of_stated_size(image_id, image)


def read_labelme(
    dataset_dir: str | os.PathLike,
    subset: str | None = None,
    *,
    class_names: Sequence[str] | None = None,
    image_dir: str | os.PathLike | None = None,
    source: str = "labelme",
    masks: bool = True,
    upright: bool | None = None,
    strict: bool = True,
) -> LabelmeDataset:
    """Reads a folder of labelme JSON files, one per image; an image without shapes has no instances.

    Polygons, rectangles, circles and masks become instances; shapes with the same label and group_id are parts of one
    instance. Lines and points have no area and are invalid. As in labelme, the image inside the JSON file
    (`imageData`) is used if there is one, else the file named by `imagePath`. Images without a JSON file in the
    folder were not annotated: they are skipped and counted.

    Args:
        dataset_dir, subset: the folder `dataset_dir/subset`, or one JSON file.
        class_names: the classes, in this order; None: the labels found, sorted.
        image_dir: folder of the images; None: the location in `imagePath`, the folder of the JSON files, or the one
            next to or below it that holds them.
        source: name of the source in the dataset.
        masks, upright, strict: see `AnnotatedDataset`.

    Returns:
        A prepared dataset, images ordered by the name of their JSON file; image ids are names without suffix.

    Raises:
        FileNotFoundError: the folder is missing or holds no JSON file.
        AnnotationError: an invalid record, named by file, record and field.
    """
    files, folder = _files(dataset_dir, subset)
    dataset = LabelmeDataset(folder or files[0], strict, masks=masks, upright=upright)
    contents = {file: content for file in files if (content := _content(dataset, file)) is not None}
    above = folder or os.path.dirname(files[0]) or "."
    names = [content["imagePath"] for content in contents.values() if content["imagePath"]]
    finder = ImageFinder(names, [above], search_root(above), None if image_dir is None else os.fspath(image_dir))
    read = list(_annotated(dataset, contents, finder))
    finder.note(dataset.problems, dataset.file)
    if folder:
        _note_others(dataset, folder, files, {picture.path for picture, _ in read})
    found = {shape.name for _, shapes in read for shape in shapes}
    if not found and class_names is None:
        message = "no file holds a valid shape, so there are no classes; "
        message += "pass class_names= for a dataset without instances"
        dataset.problems.broken(dataset.file, "", "shapes", message)
    classes = Classes(dataset, source, found, class_names)
    for picture, shapes in read:
        _add(dataset, source, picture, shapes, classes)
    return dataset.finish()


def find(path: str, subset: str | None) -> Places:
    """A folder of JSON files, one per image, or its only subfolder of that kind, or one of the files."""
    if os.path.isfile(path):
        fits = path.lower().endswith(SUFFIX) and is_labelme(read_head(path, TELLS))
        return [{"dataset_dir": path}] if fits else []
    folder = folder_or_root(path, subset)
    if _holds_labelme(folder):
        return [{"dataset_dir": path, "subset": subset}]
    inside = [entry.path for entry in listed(folder) if entry.name in FOR_ANNOTATIONS and _holds_labelme(entry.path)]
    return [{"dataset_dir": inside[0]}] if len(inside) == 1 else []


def is_labelme(head: Head) -> bool:
    """Whether the keys are those of labelme."""
    return "shapes" in head.top or len(head.top & KEYS) > 1


def _holds_labelme(folder: str) -> bool:
    return any(is_labelme(read_head(file, TELLS)) for file in files_in(folder, SUFFIX)[:LOOKED_AT])


def outline_of(shape: dict, height: int, width: int) -> tuple[Outline, int]:
    """The outline of a shape, and how many of its pixels were cut off at the image border.

    Cut-off pixels are counted for masks only. Raises FieldError.
    """
    kind = shape.get("shape_type") or "polygon"  # labelme 2 writes no shape_type
    if kind not in TYPES:
        raise FieldError("shape_type", f"a {kind!r} has no area; expected one of {', '.join(TYPES)}")
    outline = polygon(shape.get("points"), "points")
    points = outline.parts[0]
    if len(points) not in POINTS.get(kind, (len(points),)):
        wanted = " or ".join(map(str, POINTS[kind]))
        raise FieldError("points", f"expected {wanted} points for a {kind}, got {len(points)}")
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
    """One outline that covers all of several. Raises ValueError if one cannot be filled."""
    if len(outlines) == 1:
        return outlines[0]
    polygons = [outline for outline in outlines if isinstance(outline, Polygons)]
    if len(polygons) == len(outlines):
        return Polygons(tuple(part for outline in polygons for part in outline.parts))
    mask = np.zeros((height, width), bool)
    for outline in outlines:
        mask |= outline.fill(height, width)
    return Runs(rle.encode(mask))


def _mask(shape: dict, points: np.ndarray, height: int, width: int) -> tuple[Runs, int]:
    """A PNG mask that covers the pixels between two corners, including both."""
    if np.abs(points).max() > FAR:
        raise FieldError("points", f"expected coordinates inside the image, got {shown(points.tolist())}")
    left, top = np.round(points[0]).astype(int).tolist()
    between = np.abs(np.round(points[1]) - np.round(points[0])).astype(int) + 1
    part = _mask_pixels(shape.get("mask"), int(between[1]), int(between[0]))
    y1, x1 = min(max(top, 0), height), min(max(left, 0), width)
    inside = part[max(-top, 0) : max(height - top, 0), max(-left, 0) : max(width - left, 0)]
    return Runs(rle.encode_box(inside, y1, x1, height, width)), int(part.sum() - inside.sum())


def _mask_pixels(text: Any, height: int, width: int) -> np.ndarray:
    """[h, w] bool: the nonzero pixels of a base64-encoded image. Raises FieldError if its size is different."""
    data = io.BytesIO(decoded(text, "mask"))
    try:
        with open_picture(data, "the mask") as image:
            # Fractional corners may round in different directions
            if max(abs(height - image.height), abs(width - image.width)) > 1:
                message = f"the mask is {image.height} x {image.width} pixels, its points enclose {height} x {width}"
                raise FieldError("mask", f"{message} (height x width)")
            return values_of(image, "the mask") != 0
    except FieldError:
        raise
    except ValueError as error:
        raise FieldError("mask", f"{error}; is it truncated?") from error


def _files(dataset_dir: str | os.PathLike, subset: str | None) -> tuple[list[str], str]:
    """The JSON files, and their folder, "" for a single file."""
    if not subset and os.path.isfile(dataset_dir):
        return [os.fspath(dataset_dir)], ""
    folder = subset_folder(dataset_dir, subset)
    files = files_in(folder, SUFFIX)
    if not files:
        raise FileNotFoundError(f"no labelme JSON files in {folder!r}, which holds {names_in(folder)}")
    return files, folder


def _content(dataset: LabelmeDataset, file: str) -> dict[str, Any] | None:
    """The needed fields of a JSON file; None, and an error, if it is not labelme's.

    The embedded image is left in the file and read again when needed, since it may be several megabytes.
    """
    record = f"image {stem_of(file)!r}"
    try:
        content = read_json(file, WHAT)
    except AnnotationError as error:
        if dataset.problems.strict:
            raise
        dataset.problems.left_out(problems.BROKEN, file, record, "", str(error), images=1, instances=0)
        return None
    shapes = content.get("shapes") if isinstance(content, dict) else None
    if not isinstance(shapes, list):
        message = f"expected a list of shapes, got {shown(shapes)}; is it a labelme file?"
        dataset.problems.broken(file, record, "shapes", message, images=1, instances=0)
        return None
    name = content.get("imagePath")
    usable = isinstance(name, str) and name and "\0" not in name and os.path.basename(name) != os.path.basename(file)
    kept = {field: content.get(field) for field in SIZE_FIELDS}
    header: Header | str | None = None
    if content.get("imageData"):
        try:
            header = _embedded(file, content, dataset.max_pixels).header
        except (FieldError, ValueError) as error:
            header = str(error)
    return {**kept, "shapes": shapes, "imagePath": name if usable else "", "stated": name, "embedded": header}


def _embedded(file: str, content: dict[str, Any], max_pixels: int) -> ImageFile:
    """The image inside a JSON file. Raises FieldError or ValueError."""
    return ImageFile.from_bytes(decoded(content.get("imageData"), "imageData"), f"{file}: imageData", max_pixels)


def _annotated(
    dataset: LabelmeDataset, contents: Mapping[str, dict[str, Any]], finder: ImageFinder
) -> Iterator[tuple[Picture, list[Shape]]]:
    """The annotated images, each with its shapes."""
    taken: dict[str, str] = {}
    for file, content in contents.items():
        where = file, f"image {stem_of(file)!r}"
        lost: Lost = {"images": 1, "instances": len(content["shapes"])}
        try:
            picture = _picture(dataset, file, content, finder)
        except FieldError as error:
            dataset.problems.broken(*where, error.field, str(error), error.kind, **lost)
            continue
        first = taken.setdefault(os.path.realpath(picture.path), file)
        if first == file:
            yield picture, _shapes(dataset, picture, content["shapes"])
        else:
            message = f"{first!r} annotates the same image {picture.path!r}; merge their shapes"
            dataset.problems.broken(*where, "imagePath", message, problems.CLASH, **lost)


def _picture(dataset: LabelmeDataset, file: str, content: dict[str, Any], finder: ImageFinder) -> Picture:
    """The image of a JSON file. Raises FieldError if it is missing, unreadable or of another size."""
    header, path, embedded = content["embedded"], "", True
    if not isinstance(header, Header):
        path, embedded = _path(file, content, finder), False
        if not os.path.isfile(path) and isinstance(header, str):
            raise FieldError("imageData", header, problems.UNREADABLE)
        if not path:
            raise FieldError("imagePath", f"expected an image file name, got {shown(content['stated'])}")
        if not os.path.isfile(path):
            message = f"image file {path!r} is missing{finder.why(path)}, and there is no imageData"
            raise FieldError("imagePath", message, problems.MISSING)
        try:
            header = read_header(path, dataset.max_pixels)
        except (OSError, ValueError) as error:
            raise FieldError("imagePath", str(error), problems.UNREADABLE) from error
    stated = _stated(content)
    size, tagged = dataset.sized(header, stated)
    if stated is not None and stated != size:
        where = "its imageData" if embedded else repr(path)
        message = f"the annotations are for a {stated[0]} x {stated[1]} image, but {where} is {size[0]} x {size[1]}"
        raise FieldError("/".join(SIZE_FIELDS), f"{message} (height x width)", problems.SIZE)
    return Picture(file, file if embedded else path, size, embedded, tagged)


def _path(file: str, content: dict[str, Any], finder: ImageFinder) -> str:
    """The path of the image: where `imagePath` points, or the image with the name of the JSON file."""
    name = content["imagePath"]
    if name:
        beside = os.path.normpath(os.path.join(os.path.dirname(file), name.replace("\\", "/")))
        path = beside if os.path.isfile(beside) else finder.path(name)
        if not os.path.isfile(path):
            base = os.path.join(os.path.dirname(file), os.path.basename(name.replace("\\", "/")))
            path = base if os.path.isfile(base) else path
        if os.path.isfile(path):
            return path
    else:
        path = ""
    start = os.path.splitext(file)[0]
    same = next((start + suffix for suffix in PICTURES if os.path.isfile(start + suffix)), "")
    return path or same


def _stated(content: dict[str, Any]) -> tuple[int, int] | None:
    """(height, width) stated in a JSON file; None if absent. Raises FieldError."""
    stated: list[int] = []
    for field in SIZE_FIELDS:
        value = content.get(field)
        if value is not None and (type(value) is not int or value < 1):
            raise FieldError(field, f"expected at least 1 pixel, got {shown(value)}")
        stated += [] if value is None else [value]
    return (stated[0], stated[1]) if len(stated) == 2 else None


def _note_others(dataset: LabelmeDataset, folder: str, files: list[str], paths: set[str]) -> None:
    """Counts the images in the folder that have no JSON file."""
    stems, taken = set(map(stem_of, files)), set(map(os.path.realpath, paths))
    for entry in listed(folder):
        stem, suffix = os.path.splitext(entry.name)
        if suffix.lower() in PICTURES and stem not in stems and os.path.realpath(entry.path) not in taken:
            where = folder, f"image {entry.name!r}", "", "no JSON file annotates it"
            dataset.problems.left_out(problems.UNANNOTATED, *where, images=1, instances=0)


def _shapes(dataset: LabelmeDataset, picture: Picture, shapes: list) -> list[Shape]:
    """The valid shapes of a file."""
    found = []
    for place, shape in enumerate(shapes):
        record = f"shape {place}"
        try:
            name, group = _label(shape)
            if not is_class(name):
                where = picture.file, record, "label", f"{name!r} is not a class"
                dataset.problems.left_out(problems.NOT_A_CLASS, *where, images=0, instances=1)
                continue
            outline, lost = outline_of(shape, *picture.size)
        except FieldError as error:
            dataset.problems.broken(picture.file, record, error.field, str(error), images=0, instances=1)
            continue
        inside = not lost or not isinstance(outline, Runs) or _is_inside(dataset, picture, record, outline, lost)
        if inside and encloses(dataset.problems, outline, picture.file, record, "points"):
            found.append(Shape(name, group, outline, record))
    return found


def _label(shape: Any) -> tuple[str, Any]:
    """The label and group of a shape. Raises FieldError."""
    if not isinstance(shape, dict):
        raise FieldError("shapes", f"expected an object, got {shown(shape)}")
    name, group = shape.get("label"), shape.get("group_id")
    if not isinstance(name, str) or not name:
        raise FieldError("label", f"expected a class name, got {shown(name)}")
    if group is not None and type(group) not in (int, str):
        raise FieldError("group_id", f"expected a number or null, got {shown(group)}")
    return name, group


def _is_inside(dataset: LabelmeDataset, picture: Picture, record: str, mask: Runs, lost: int) -> bool:
    """Whether a mask still has pixels after being cut off at the image border."""
    text = f"{lost} pixels of the mask lie outside the image of {picture.size}"
    if not rle.area(mask.runs):
        where = picture.file, record, "points", text
        dataset.problems.left_out(problems.OUTSIDE, *where, images=0, instances=1)
        return False
    dataset.problems.noted(problems.PARTLY_OUTSIDE, picture.file, record, "points", text, "cut off at the border")
    return True


def _add(dataset: LabelmeDataset, source: str, picture: Picture, shapes: list[Shape], classes: Classes) -> None:
    """Adds an image; shapes of one label and group become one instance, at the position of the first."""
    groups: dict[Any, list[Shape]] = {}
    for place, shape in enumerate(shapes):
        key = (shape.name, type(shape.group), place if shape.group is None else shape.group)
        groups.setdefault(key, []).append(shape)
    instances = [_instance(dataset, picture, parts, classes) for parts in groups.values()]
    dataset.add_annotated(
        source,
        stem_of(picture.file),
        picture.path,
        [i for i in instances if i is not None],
        height=picture.size[0],
        width=picture.size[1],
        tagged=picture.tagged,
        embedded=picture.embedded,
    )


def _instance(dataset: LabelmeDataset, picture: Picture, parts: list[Shape], classes: Classes) -> Instance | None:
    """One instance made of its parts; None if invalid."""
    record = " and ".join(shape.record for shape in parts)
    class_id = classes.number(parts[0].name, picture.file, record, "label")
    if class_id is None:
        return None
    try:
        outline = union([shape.outline for shape in parts], *picture.size)
    except ValueError as error:
        dataset.problems.broken(picture.file, record, "points", str(error), images=0, instances=1)
        return None
    where = record if dataset.file == picture.file else f"{os.path.basename(picture.file)}, {record}"
    return Instance(class_id, outline, record=where, field="points")

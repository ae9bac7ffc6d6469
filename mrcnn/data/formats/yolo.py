"""YOLO segmentation labels: one text file per image, one polygon per line.

The keys of the YAML file, and the meaning of relative paths in it, follow Ultralytics
(https://docs.ultralytics.com/datasets/segment/).
"""

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from mrcnn.data.annotations import problems
from mrcnn.data.annotations.annotated import AnnotatedDataset, Instance
from mrcnn.data.annotations.classes import Classes, is_class
from mrcnn.data.annotations.fields import NEEDS_MASKS, FieldError, shown
from mrcnn.data.annotations.folders import (
    PICTURES,
    Places,
    below,
    files_in,
    folder_or_root,
    header_of,
    listed,
    names_in,
    paired_folders,
    spellings,
)
from mrcnn.data.annotations.outlines import Polygons
from mrcnn.data.annotations.problems import AnnotationError, Lost
from mrcnn.data.annotations.text_files import check_regular, open_text, read_lines, read_text, read_yaml

YAML = (".yaml", ".yml")
CLASS_FILE = "classes.txt"
SUBSETS = ("train", "val", "test")
IGNORED = (".txt", ".npy", ".cache", ".json")  # labels and training leftovers next to images
LEAST, MOST = -1.0, 2.0  # range of coordinates; values outside were not divided by the image size
# Decimals of pixel coordinates. Labels usually come from COCO polygons, which have two. Fractions with six digits are
# less precise, and an error of 1e-4 pixel can change how the rasterizer rounds.
DIGITS = 2


class YoloDataset(AnnotatedDataset):
    """Images with YOLO labels, read by `read_yolo`."""


class Layout(NamedTuple):
    """file: the YAML file, or the folder if there is none. images: folders, image files, or text files that list
    images. names: class names by number; None if unknown."""

    file: str
    images: list[str]
    names: dict[int, str] | None


class Labeled(NamedTuple):
    """An image and its labels. name: the image's path without suffix, relative to the image folder."""

    name: str
    path: str
    labels: str


def read_yolo(
    dataset_dir: str | os.PathLike,
    subset: str | None = None,
    *,
    class_names: Sequence[str] | None = None,
    source: str = "yolo",
    masks: bool = True,
    upright: bool | None = None,
    strict: bool = True,
) -> YoloDataset:
    """Reads images/ and labels/ with a text file of the same name per image; lines are `class x1 y1 x2 y2 x3 y3 ...`.

    Coordinates are fractions of the image's width and height. Each line is one polygon; an instance of several parts
    is one polygon whose parts are joined by lines there and back, which have no area. An image without a text file
    has no instances. A line of five numbers is a box, which says nothing about the mask; it is an error unless masks
    is False, because training on it would teach rectangular masks.

    Args:
        dataset_dir: the folder, or its YAML file with the key names, and path, train, val, test if the images are not
            in `subset`/images or images/`subset`. Without a YAML file, classes.txt holds the names.
        subset: train, val, test, another key of the YAML file, or a folder name; None: the only one.
        class_names: the classes, in this order; None: all in the YAML file, ordered by number.
        source: name of the source in the dataset.
        masks, upright, strict: see `AnnotatedDataset`.

    Returns:
        A prepared dataset, images ordered by name; image ids are file names without suffix.

    Raises:
        FileNotFoundError: the folder, the subset's images or the class names are missing.
        AnnotationError: an invalid record, named by file, record and field.
    """
    layout = find_layout(dataset_dir, subset)
    dataset = YoloDataset(layout.file, strict, masks=masks, upright=upright)
    names = dict(enumerate(class_names or ())) if layout.names is None else layout.names
    if not names:
        raise FileNotFoundError(
            f"{layout.file!r} has no class names: no YAML file with names, no {CLASS_FILE}; "
            "pass class_names=, ordered by class number"
        )
    chosen = [name for name in names.values() if is_class(name)] if class_names is None else class_names
    classes = Classes(dataset, source, (), chosen)
    images = _labeled(dataset, layout.images)
    _check_labels(dataset, images, layout.images)
    for image in images:
        _add(dataset, source, image, names, classes)
    if not dataset.image_info:
        dataset.problems.broken(dataset.file, "", "images", f"no image can be read in {layout.images}")
    return dataset.finish()


def find(path: str, subset: str | None) -> Places:
    """A YAML file with class names, in the folder or the path itself; or labels/ with text files or subfolders."""
    if os.path.isfile(path):
        fits = path.lower().endswith(YAML) and _has_names(path)
    else:
        fits = any(map(_has_names, files_in(path, *YAML)))
        for labels in (os.path.join(path, "labels"), os.path.join(folder_or_root(path, subset), "labels")):
            inside = [labels, *(entry.path for entry in listed(labels) if entry.is_dir())]
            fits = fits or any(files_in(folder, ".txt") for folder in inside)
    return [{"dataset_dir": path, "subset": subset}] if fits else []


def find_layout(dataset_dir: str | os.PathLike, subset: str | None) -> Layout:
    """The parts of a dataset.

    Args:
        dataset_dir: its folder or YAML file.
        subset: a key of the YAML file, or the name of a folder above or inside images/.

    Raises:
        FileNotFoundError: the path or the subset's images are missing.
        AnnotationError: an invalid YAML file, named with line or field.
        ValueError: there are several YAML files or subsets and none was chosen.
    """
    path = os.fspath(dataset_dir)
    if not os.path.exists(path):
        raise FileNotFoundError(f"no folder or YAML file {path!r}; check the path")
    file, root = (path, os.path.dirname(path)) if os.path.isfile(path) else (_yaml_in(path), path)
    content = read_keys(file) if file else {}
    images = _images(root, subset, file, content)
    above = "" if file else _yaml_in(os.path.dirname(os.path.abspath(root)))  # only its names apply here
    names = (
        _listed_names(root, images)
        if not file and not above
        else class_names(file or above, content if file else read_keys(above))
    )
    return Layout(file or root, images, names)


def labels_of(image: str) -> str:
    """The path of an image's labels: the last folder images/ replaced by labels/; without one, next to the image."""
    parts = os.path.splitext(image)[0].split(os.sep)
    places = [place for place, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
    return os.sep.join(parts) + ".txt"


def labels_in(images: str) -> str:
    """The label folder of an image folder."""
    return os.path.dirname(labels_of(os.path.join(images, "x.jpg")))


def read_keys(path: str) -> dict[str, Any]:
    """The content of a YAML file. Raises AnnotationError naming the invalid line."""
    content = read_yaml(path, "dataset YAML")
    if not isinstance(content, dict):
        raise AnnotationError(path, "", "names", f"expected keys such as names, got {shown(content)}")
    return content


def class_names(path: str, content: dict[str, Any]) -> dict[int, str] | None:
    """Class names by number; None if the file only has a count. Raises AnnotationError."""
    names = content.get("names")
    if names is None and type(content.get("nc")) is int:
        return None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        message = f"expected a list of names, or names by numbers, got {shown(content.get('names'))}"
        raise AnnotationError(path, "", "names", message)
    for number, name in names.items():
        if type(number) is not int or number < 0:
            raise AnnotationError(path, "", "names", f"expected numbers >= 0, got {shown(number)}")
        if type(name) not in (str, int, float) or name == "":
            message = f"expected a string, got {shown(name)}; put it in quotes"
            raise AnnotationError(path, "", f"names[{shown(number)}]", message)
    names = {number: str(names[number]) for number in sorted(names)}
    if len(set(names.values())) < len(names):
        raise AnnotationError(path, "", "names", f"duplicate names: {shown(list(names.values()))}")
    count = content.get("nc", len(names))
    if count != len(names):
        raise AnnotationError(path, "", "nc", f"it says {shown(count)}, but there are {len(names)} names")
    return names


def _yaml_in(folder: str) -> str:
    """The YAML file in a folder that has class names; "" if there is none."""
    found = [file for file in files_in(folder, *YAML) if _has_names(file)]
    if len(found) > 1:
        raise ValueError(f"several files have class names: {found}; pass the path of one of them")
    return found[0] if found else ""


def _has_names(path: str) -> bool:
    """Whether a YAML file has class names or their number, judged by its beginning."""
    try:
        with open_text(path, "yaml", errors="replace") as file:
            start = file.read(2**20)
    except (OSError, AnnotationError):
        return False
    return any(line.startswith(("names", "nc:", '"names"', "'names'")) for line in start.splitlines())


def _images(root: str, subset: str | None, file: str, content: dict[str, Any]) -> list[str]:
    """Image folders, images, or text files that list them."""
    tried: list[str] = []
    names = spellings(subset) if subset else (None,)
    for name in names:
        if name is not None and content.get(name) and (found := _of_yaml(file, content, name, tried)):
            return found
    for name in names:
        images, _ = paired_folders(root, name, ["labels"], os.path.isdir)
        beside = os.path.join(root, name or "")
        for folder in (images, beside):
            if folder and (name or has_files(folder, PICTURES)) and (folder == images or _is_mixed(folder)):
                return [folder]
    subsets = [key for key in SUBSETS if content.get(key)]
    if subset is None and len(subsets) == 1:
        return _images(root, subsets[0], file, content)
    if subset is None and subsets:
        raise ValueError(f"{file!r} has the subsets {', '.join(subsets)}; choose one, such as subset={subsets[0]!r}")
    raise FileNotFoundError(
        f"no images in YOLO's layout{f' for the subset {subset!r}' * bool(subset)} in {root!r}, "
        f"which holds {names_in(root)}; expected images/ and labels/, with the subset's folder above or inside "
        f"both{f'; the YAML file points to {shown(tried)}' * bool(tried)}"
    )


def _of_yaml(file: str, content: dict[str, Any], subset: str, tried: list[str]) -> list[str]:
    """The paths that a key of the YAML file refers to; [] if one does not exist."""
    entries = content[subset] if isinstance(content[subset], list) else [content[subset]]
    base = content.get("path")
    for field, values in ((subset, entries), ("path", [base] * (base is not None))):
        if not all(isinstance(value, str) and "\0" not in value for value in values):
            raise AnnotationError(file, "", field, f"expected a path, got {shown(values)}")
    # "path" may be relative to the folder of all datasets, the parent of the YAML file's, or belong to another machine
    above = os.path.dirname(file)
    bases = [above] if not base else [os.path.join(above, base), above, os.path.join(above, os.pardir, base)]
    found = []
    for entry in entries:
        places = [os.path.normpath(os.path.join(place, name)) for name in _endings(entry, subset) for place in bases]
        place = next(filter(os.path.exists, places), None)
        if place is None:
            tried += dict.fromkeys(places)
            return []
        if not os.path.isdir(place):
            try:
                check_regular(place, "images")
            except AnnotationError as error:
                raise AnnotationError(file, "", subset, f"it points to {place!r}, not a folder or file") from error
        found.append(place)
    return found


def _endings(path: str, subset: str = "") -> list[str]:
    """A path as written, also on Windows, and without its leading folders, which may be those of another machine.

    subset: folders of this name are kept, because what follows them may be the same for each subset.
    """
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
    kept = max((i for i, part in enumerate(parts[:-1]) if part in spellings(subset)), default=len(parts) - 1)
    return list(dict.fromkeys([path, *(os.path.join(*parts[i:]) for i in range(min(kept, len(parts) - 1) + 1))]))


def has_files(folder: str, suffixes: tuple[str, ...]) -> bool:
    """Whether a folder holds files with one of these suffixes."""
    return any(entry.name.lower().endswith(suffixes) and entry.is_file() for entry in listed(folder))


def _is_mixed(folder: str) -> bool:
    """Whether labels are next to the images."""
    return has_files(folder, PICTURES) and has_files(folder, (".txt",))


def _listed_names(root: str, images: list[str]) -> dict[int, str] | None:
    """The names in a classes.txt, one per line, in the dataset's folder or among the labels; None if missing."""
    for folder in (root, os.path.join(root, "labels"), *map(labels_in, images)):
        path = os.path.join(folder, CLASS_FILE)
        if os.path.isfile(path):
            return class_names(path, {"names": list(filter(None, read_lines(path, "class names")))})
    return None


def _labeled(dataset: YoloDataset, places: list[str]) -> list[Labeled]:
    """The images in folders and their subfolders, listed in text files, or given by path."""
    start = os.path.commonpath([os.path.abspath(p if os.path.isdir(p) else os.path.dirname(p)) for p in places])
    images: dict[str, Labeled] = {}
    for place in places:
        for path in _in_place(dataset, place):
            labels, name = labels_of(path), os.path.splitext(os.path.relpath(path, start))[0]
            if labels not in images:
                images[labels] = Labeled(name, path, labels)
            else:
                first = images[labels].path
                what = "it is listed twice" if path == first else f"{first!r} has the same labels, {labels!r}"
                where = dataset.file, f"image {path!r}", "name", what
                dataset.problems.broken(*where, problems.CLASH, images=int(path != first), instances=0)
    return list(images.values())


def _in_place(dataset: YoloDataset, place: str) -> Iterator[str]:
    """The images in a folder and its subfolders, in a list file, or at the path itself; other files are errors."""
    if os.path.isfile(place):
        yield from [place] if place.lower().endswith(PICTURES) else _listed_in(place)
        return
    for entry in below(place):
        if entry.name.lower().endswith(PICTURES):
            yield entry.path
        elif not entry.name.lower().endswith(IGNORED):
            message = f"expected an image file: {', '.join(PICTURES)}"
            where = dataset.file, f"image {entry.path!r}", "name", message
            dataset.problems.broken(*where, images=0, instances=0)


def _listed_in(path: str) -> Iterator[str]:
    """The paths in a list file, relative to it; leading folders are dropped if that leads to an image."""
    skipped, folder = 0, os.path.dirname(path)
    for line in filter(None, read_lines(path, "image paths")):
        if "\0" in line:
            raise AnnotationError(path, shown(line), "", "not a path; is the file a text file that lists images?")
        places = [os.path.normpath(os.path.join(folder, name)) for name in _endings(line)]
        usual = min(skipped, len(places) - 1)  # drop as many folders as for the previous line
        if not os.path.isfile(places[usual]):
            usual = next((i for i, place in enumerate(places) if os.path.isfile(place)), 0)
        skipped = usual or skipped
        yield places[usual]


def _check_labels(dataset: YoloDataset, images: list[Labeled], places: list[str]) -> None:
    """Checks that there are labels at all, and none without an image; notes images without labels."""
    missing = [image for image in images if not os.path.isfile(image.labels)]
    if images and len(missing) == len(images):
        message = f"none of the {len(images)} images has labels; expected files such as {images[0].labels!r}"
        dataset.problems.broken(dataset.file, "", "labels", message)
    for image in missing:
        where = dataset.file, f"image {image.path!r}", "labels", f"{image.labels!r} is missing"
        dataset.problems.noted(problems.UNANNOTATED, *where, "an image without instances")
    known = {image.labels for image in images}
    for folder in filter(os.path.isdir, places):  # a list file may list only some of the images
        for entry in below(labels_in(folder)):
            is_text = entry.name.lower().endswith(".txt") and entry.name != CLASS_FILE
            if is_text and entry.path not in known:
                where = entry.path, "image", "name", f"no image of this name in {folder!r}"
                lost: Lost = {"images": 1, "instances": _count_lines(entry.path)}
                dataset.problems.broken(*where, problems.MISSING, **lost)


def _count_lines(path: str) -> int:
    """How many instances a label file holds, valid or not."""
    with open(path, "rb") as file:
        return sum(bool(line.strip()) for line in file.read().splitlines())


def _add(dataset: YoloDataset, source: str, image: Labeled, names: dict[int, str], classes: Classes) -> None:
    """Adds an image."""
    header = header_of(image.path)
    # Also check the lines of an unreadable image, to know which instances are lost with it
    size, tagged = ((1, 1), None) if header is None else dataset.sized(header)
    instances = _instances(dataset, image, size, names, classes)
    height, width = (None, None) if header is None else size
    where = source, image.name, image.path
    dataset.add_annotated(*where, instances, height=height, width=width, tagged=tagged)


def _instances(
    dataset: YoloDataset, image: Labeled, size: tuple[int, int], names: dict[int, str], classes: Classes
) -> list[Instance]:
    """The instances on the valid lines of an image's label file."""
    try:
        lines = read_text(image.labels, "labels").splitlines()
    except FileNotFoundError:
        return []
    except AnnotationError as error:
        message = str(error).removeprefix(str(AnnotationError(error.file, error.record, error.field, "")))
        lost: Lost = {"images": 0, "instances": _count_lines(image.labels)}
        dataset.problems.broken(image.labels, f"image {image.path!r}", "labels", message, **lost)
        return []
    instances = []
    for place, line in enumerate(lines, 1):
        if line.strip():
            where, record = (image.labels, f"line {place}"), f"{image.labels}, line {place}"
            try:
                number, instance = _parsed(line, size, dataset.masks)
                if number not in names:
                    raise FieldError("class", f"class {number} is not among {shown(names)}")
            except FieldError as error:
                dataset.problems.broken(*where, error.field, str(error), error.kind, images=0, instances=1)
                continue
            if not is_class(names[number]):
                message = f"{names[number]!r} is not a class"
                dataset.problems.left_out(problems.NOT_A_CLASS, *where, "class", message, images=0, instances=1)
                continue
            class_id = classes.number(names[number], *where, "class")
            if class_id is not None:
                instances.append(instance._replace(class_id=class_id, record=record, field="coordinates"))
    return instances


def _parsed(line: str, size: tuple[int, int], masks: bool) -> tuple[int, Instance]:
    """The class number, and the instance in pixels of an image of size (height, width). Raises FieldError."""
    words = line.split()
    values: list[float] = []
    for word in words:
        try:
            values.append(float(word))
        except ValueError:
            raise FieldError("coordinates" if values else "class", f"expected numbers, got {shown(word)}") from None
    if values[0] != abs(values[0]) // 1:
        raise FieldError("class", f"expected an integer >= 0, got {shown(words[0])}")
    number, box = int(values[0]), len(values) == 5
    if box and masks:
        message = f"{NEEDS_MASKS}; this line is a box (class, x, y, width, height)"
        raise FieldError("coordinates", message, problems.BOXES_ONLY)
    if not box and (len(values) < 7 or len(values) % 2 == 0):
        message = f"expected x and y of at least three points, got {len(values) - 1} numbers; is the line truncated?"
        raise FieldError("coordinates", message)
    points = np.array(values[1:]).reshape(-1, 2)
    if not (LEAST <= points.min() and points.max() <= MOST):  # also rejects NaN
        raise FieldError(
            "coordinates",
            f"expected fractions of the width and height, from 0 to 1, got values from "
            f"{points.min():g} to {points.max():g}; are they pixels?",
        )
    points = np.round(points * size[::-1], DIGITS)
    if not box:
        return number, Instance(0, Polygons((points,)))
    (x, y), (wide, tall) = points.tolist()
    return number, Instance(0, None, box=(y - tall / 2, x - wide / 2, y + tall / 2, x + wide / 2))

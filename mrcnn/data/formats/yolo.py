"""YOLO's labels for segmentation: a text an image, a polygon a line, as a Dataset."""

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from mrcnn.data.annotations import problems
from mrcnn.data.annotations.annotated import Instance
from mrcnn.data.annotations.classes import Classes
from mrcnn.data.annotations.fields import FieldError, shown
from mrcnn.data.annotations.folders import PICTURES, Places, files_in, listed, names_in, paired_folders
from mrcnn.data.annotations.outlines import Polygons
from mrcnn.data.annotations.problems import AnnotationError
from mrcnn.data.annotations.upright import TAGGED, UprightDataset, known_size

YAML = (".yaml", ".yml")
CLASS_FILE = "classes.txt"
SUBSETS = ("train", "val", "test")
ALIASES = {"val": ("val", "valid", "validation"), "valid": ("valid", "val", "validation")}


class Layout(NamedTuple):
    """file: the yaml, or the folder where there is none. images: folders of pictures, or texts that list them. names:
    of the classes, by their numbers; None when nothing says them."""

    file: str
    images: list[str]
    names: dict[int, str] | None


def find_layout(dataset_dir: str | os.PathLike, subset: str | None) -> Layout:
    """The parts of a dataset.

    Args:
        dataset_dir: its folder, or its yaml.
        subset: a key of the yaml, or the name of a folder around or in images/.

    Raises:
        FileNotFoundError: nothing is there, or no images of the subset.
        AnnotationError: a damaged yaml, naming its line or field.
        ValueError: several yaml files, or several subsets, where one is to be named.
    """
    path = os.fspath(dataset_dir)
    if not os.path.exists(path):
        raise FileNotFoundError(f"no folder or yaml {path!r}; check the path")
    file, root = (path, os.path.dirname(path)) if os.path.isfile(path) else (_yaml_in(path), path)
    content = read_yaml(file) if file else {}
    images = _images(root, subset, file, content)
    above = "" if file else _yaml_in(os.path.dirname(os.path.abspath(root)))  # for names; its paths are of others
    names = (
        _listed_names(root, images)
        if not file and not above
        else class_names(file or above, content if file else read_yaml(above))
    )
    return Layout(file or root, images, names)


def labels_of(image: str) -> str:
    """The path of an image's labels: the last folder images/ replaced by labels/, or beside it without one."""
    parts = os.path.splitext(image)[0].split(os.sep)
    places = [place for place, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
    return os.sep.join(parts) + ".txt"


def labels_in(images: str) -> str:
    """The folder of the labels of a folder of images."""
    return os.path.dirname(labels_of(os.path.join(images, "x.jpg")))


def read_yaml(path: str) -> dict[str, Any]:
    """The content of a yaml. Raises AnnotationError naming the line that is damaged."""
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            content = yaml.safe_load(file)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}" if mark else ""
        raise AnnotationError(path, line, "", f"it is not yaml, damaged or cut off: {_one_line(error)}") from error
    if not isinstance(content, dict):
        raise AnnotationError(path, "", "names", f"expected keys such as names, got {shown(content)}")
    return content


def class_names(path: str, content: dict[str, Any]) -> dict[int, str] | None:
    """The names of the classes by their numbers; None where there is a count only. Raises AnnotationError."""
    names = content.get("names")
    if names is None and type(content.get("nc")) is int:
        return None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        raise AnnotationError(
            path, "", "names", f"expected a list of names, or names by numbers, got {shown(content.get('names'))}"
        )
    for number, name in names.items():
        if type(number) is not int or number < 0:
            raise AnnotationError(path, "", "names", f"expected numbers from 0 on, got {shown(number)}")
        if type(name) not in (str, int, float) or name == "":
            raise AnnotationError(path, "", f"names[{number}]", f"expected a name, got {shown(name)}; put it in quotes")
    names = {number: str(names[number]) for number in sorted(names)}
    if len(set(names.values())) < len(names):
        raise AnnotationError(path, "", "names", f"names repeat: {shown(list(names.values()))}")
    count = content.get("nc", len(names))
    if count != len(names):
        raise AnnotationError(path, "", "nc", f"it says {shown(count)}, but there are {len(names)} names")
    return names


def _yaml_in(folder: str) -> str:
    """The yaml in a folder that names classes; "" when there is none."""
    found = [entry.path for entry in listed(folder) if entry.name.lower().endswith(YAML) and _has_names(entry.path)]
    if len(found) > 1:
        raise ValueError(f"several files name classes: {found}; give the path of one of them")
    return found[0] if found else ""


def _has_names(path: str) -> bool:
    with open(path, encoding="utf-8", errors="replace") as file:
        return any(line.startswith(("names", "nc:")) for line in file)


def _images(root: str, subset: str | None, file: str, content: dict[str, Any]) -> list[str]:
    """Folders of images, or texts that list them."""
    tried: list[str] = []
    for name in ALIASES.get(subset, (subset,)):
        if name is not None and content.get(name):
            found = _of_yaml(file, content, name, tried)
            if found:
                return found
    for name in ALIASES.get(subset, (subset,)):
        images, _ = paired_folders(root, name, ["labels"], os.path.isdir)
        beside = os.path.join(root, name or "")
        for folder in (images, beside):
            if folder and (name or has_files(folder, PICTURES)) and (folder == images or _is_mixed(folder)):
                return [folder]
    subsets = [key for key in SUBSETS if content.get(key)]
    if subset is None and len(subsets) == 1:
        return _images(root, subsets[0], file, content)
    if subset is None and subsets:
        raise ValueError(f"{file!r} has the subsets {', '.join(subsets)}; name one, subset={subsets[0]!r}")
    raise FileNotFoundError(
        f"no images of YOLO's layout{f' and of the subset {subset!r}' * bool(subset)} in {root!r}, "
        f"which holds {names_in(root)}; expected images/ and labels/, the subset around them or in "
        f"both{f'; the yaml led to {tried}' * bool(tried)}"
    )


def _of_yaml(file: str, content: dict[str, Any], subset: str, tried: list[str]) -> list[str]:
    """The places that a key of the yaml means; [] when one is not there."""
    entries = content[subset] if isinstance(content[subset], list) else [content[subset]]
    base, above = content.get("path"), os.path.dirname(file)
    for field, values in ((subset, entries), ("path", [base] * (base is not None))):
        if not all(isinstance(value, str) for value in values):
            raise AnnotationError(file, "", field, f"expected a path, got {shown(values)}")
    # "path" may be relative to the folder of all datasets, of which the yaml's is one, or be another machine's
    bases = [above] if not base else [os.path.join(above, base), above, os.path.join(above, os.pardir, base)]
    found = []
    for entry in entries:
        # Exports of Roboflow begin with ../ and mean the folder of the yaml
        names = [entry, entry.removeprefix("../")]
        places = [os.path.normpath(os.path.join(place, name)) for place in bases for name in names]
        found.append(next(filter(os.path.exists, places), None))
        if found[-1] is None:
            tried += dict.fromkeys(places)
    return [] if None in found else found


def has_files(folder: str, suffixes: tuple[str, ...]) -> bool:
    """Whether files with one of these suffixes lie in a folder."""
    return any(entry.name.lower().endswith(suffixes) and entry.is_file() for entry in listed(folder))


def _is_mixed(folder: str) -> bool:
    """Whether labels lie beside the images."""
    return has_files(folder, PICTURES) and has_files(folder, (".txt",))


def _listed_names(root: str, images: list[str]) -> dict[int, str] | None:
    """The names in a classes.txt, a line each, in the dataset's folder or among the labels; None without one."""
    for folder in (root, os.path.join(root, "labels"), *map(labels_in, images)):
        path = os.path.join(folder, CLASS_FILE)
        if os.path.isfile(path):
            with open(path, encoding="utf-8-sig", errors="replace") as file:
                names = [line.strip() for line in file if line.strip()]
            return class_names(path, {"names": names})
    return None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


IGNORED = (".txt", ".npy", ".cache", ".json")  # labels beside images, and what trainings leave there
LEAST, MOST = -1.0, 2.0  # coordinates; what is further out was not divided by the size of the image
# Of pixels. Labels are most often made from COCO's polygons, which have two; the six digits that fractions are written
# in are fewer than they need, and a rest of a ten-thousandth of a pixel can tip the rasteriser's rounding
DIGITS = 2


class YoloDataset(UprightDataset):
    """Photographs with YOLO's labels; made by `read_yolo`."""


class Labelled(NamedTuple):
    """An image and its labels. name: the image's path without suffix, below the folder of images."""

    name: str
    path: str
    labels: str


def read_yolo(
    dataset_dir: str | os.PathLike,
    subset: str | None = None,
    *,
    class_names: Sequence[str] | None = None,
    source: str = "yolo",
    strict: bool = True,
) -> YoloDataset:
    """Reads images/ and labels/ with a text an image of the same name, whose lines are `class x1 y1 x2 y2 x3 y3 ...`.

    Coordinates are fractions of the image's width and height. A line is one polygon; one of several parts has them
    joined by lines there and back, which cover nothing. An image without a text has no instances. A line of five
    numbers is a box, which says nothing of the mask inside, and so is a broken record: trained on, it would teach masks
    that are rectangles. Photographs with an orientation tag are turned upright, as YOLO's own training reads them.

    Args:
        dataset_dir: the folder, or its yaml, whose keys are names, and path, train, val, test where the images are not
            in `subset`/images or images/`subset`. Without a yaml, classes.txt holds the names.
        subset: train, val, test or another key of the yaml or name of a folder; None: the only one.
        class_names: the classes, in this order; None: all in the yaml, by their numbers.
        source: the source's name in the dataset.
        strict: raise at the first broken record; else leave it out and count it in `problems`.

    Returns:
        A prepared dataset; images by their names, ids are names without suffix.

    Raises:
        FileNotFoundError: no such folder, no images of the subset, or nothing that names the classes.
        AnnotationError: naming file, record and field.
    """
    layout = find_layout(dataset_dir, subset)
    dataset = YoloDataset(layout.file, strict)
    names = dict(enumerate(class_names or ())) if layout.names is None else layout.names
    if not names:
        raise FileNotFoundError(
            f"nothing in {layout.file!r} names the classes: no yaml with names, no {CLASS_FILE}; "
            "pass class_names=, in the order of their numbers"
        )
    classes = Classes(dataset, source, (), list(names.values()) if class_names is None else class_names)
    images = _labelled(dataset, layout.images)
    _check_labels(dataset, images, layout.images)
    for image in images:
        _add(dataset, source, image, names, classes)
    if not dataset.image_info:
        dataset.problems.broken(dataset.file, "", "images", f"there is no image that can be read in {layout.images}")
    return dataset.finish()


def _labelled(dataset: YoloDataset, places: list[str]) -> list[Labelled]:
    """The images in folders and those below them, or in texts that list them."""
    start = os.path.commonpath([os.path.abspath(p if os.path.isdir(p) else os.path.dirname(p)) for p in places])
    images: dict[str, Labelled] = {}
    for place in places:
        for path in _below(dataset, place) if os.path.isdir(place) else _listed_in(place):
            labels, name = labels_of(path), os.path.splitext(os.path.relpath(path, start))[0]
            if labels not in images:
                images[labels] = Labelled(name, path, labels)
            else:
                first = images[labels].path
                what = "it is listed twice" if path == first else f"{first!r} has the same labels, {labels!r}"
                dataset.problems.broken(dataset.file, f"image {path!r}", "name", what, problems.CLASH)
    return list(images.values())


def _below(dataset: YoloDataset, folder: str) -> Iterator[str]:
    """The pictures in a folder and those below it; other files are broken."""
    for entry in listed(folder):
        if entry.is_dir():
            yield from _below(dataset, entry.path)
        elif entry.name.lower().endswith(PICTURES):
            yield entry.path
        elif not entry.name.lower().endswith(IGNORED):
            dataset.problems.broken(
                dataset.file, f"image {entry.path!r}", "name", f"expected a picture, one of {', '.join(PICTURES)}"
            )


def _listed_in(path: str) -> Iterator[str]:
    """The paths in a text, relative to it."""
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        lines = [line.strip() for line in file]
    for line in filter(None, lines):
        yield os.path.normpath(os.path.join(os.path.dirname(path), line))


def _check_labels(dataset: YoloDataset, images: list[Labelled], places: list[str]) -> None:
    """That there are labels at all, and none without an image; notes images without labels."""
    missing = [image for image in images if not os.path.isfile(image.labels)]
    if images and len(missing) == len(images):
        dataset.problems.broken(
            dataset.file, "", "labels", f"none of the {len(images)} images has labels, such as {images[0].labels!r}"
        )
    for image in missing:
        dataset.problems.noted(
            problems.UNANNOTATED,
            dataset.file,
            f"image {image.path!r}",
            "labels",
            f"there is no {image.labels!r}",
            "an image without instances",
        )
    known = {image.labels for image in images}
    for folder in filter(os.path.isdir, places):  # a text may list some of the images only
        for path in _texts(labels_in(folder)):
            if path not in known:
                dataset.problems.broken(
                    path,
                    "image",
                    "name",
                    f"there is no image of this name in {folder!r}",
                    problems.MISSING,
                    images=1,
                    instances=_count_lines(path),
                )


def _texts(folder: str) -> Iterator[str]:
    """The texts in a folder and those below it."""
    for entry in listed(folder):
        if entry.is_dir():
            yield from _texts(entry.path)
        elif entry.name.lower().endswith(".txt") and entry.name != CLASS_FILE:
            yield entry.path


def _count_lines(path: str) -> int:
    """How many instances a text of labels holds, readable or not."""
    with open(path, "rb") as file:
        return sum(bool(line.strip()) for line in file.read().splitlines())


def _add(dataset: YoloDataset, source: str, image: Labelled, names: dict[int, str], classes: Classes) -> None:
    """Adds an image."""
    size, orientation = known_size(image.path)
    # The lines of an image that cannot be read are judged, too, so that it is known what goes with it
    instances = _instances(dataset, image, (1, 1) if size[0] is None else size, names, classes)
    if orientation != 1:
        dataset.problems.noted(
            TAGGED,
            dataset.file,
            f"image {image.path!r}",
            "",
            f"it has the orientation tag {orientation}",
            "turned upright, as YOLO's training reads it",
        )
    dataset.add_annotated(
        source, image.name, image.path, instances, height=size[0], width=size[1], orientation=orientation
    )


def _instances(
    dataset: YoloDataset, image: Labelled, size: tuple[int, int], names: dict[int, str], classes: Classes
) -> list[Instance]:
    """The instances of an image whose lines can be read."""
    try:
        with open(image.labels, encoding="utf-8-sig") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return []
    except UnicodeDecodeError as error:
        dataset.problems.broken(
            image.labels,
            f"image {image.path!r}",
            "labels",
            f"it is not a text in UTF-8: {error}",
            images=0,
            instances=_count_lines(image.labels),
        )
        return []
    instances = []
    for place, line in enumerate(lines, 1):
        if line.strip():
            record = f"line {place}"
            try:
                number, outline = _parsed(line, size)
                if number not in names:
                    raise FieldError("class", f"{number} is not among the classes {shown(names)}")
            except FieldError as error:
                dataset.problems.broken(image.labels, record, error.field, str(error))
                continue
            class_id = classes.number(names[number], image.labels, record, "class")
            if class_id is not None:
                instances.append(Instance(class_id, outline, record=f"{image.labels}, {record}", field="coordinates"))
    return instances


def _parsed(line: str, size: tuple[int, int]) -> tuple[int, Polygons]:
    """The number of the class, and the polygon in pixels of an image of size (height, width). Raises FieldError."""
    words = line.split()
    values = []
    for word in words:
        try:
            values.append(float(word))
        except ValueError:
            raise FieldError("coordinates" if values else "class", f"expected numbers, got {word!r}") from None
    if values[0] != abs(values[0]) // 1:
        raise FieldError("class", f"expected a whole number from 0 on, got {words[0]!r}")
    if len(values) == 5:
        raise FieldError(
            "coordinates",
            "it is a box (class, x, y, width, height), as detection has it, which says "
            "nothing of the mask; export polygons for segmentation",
        )
    if len(values) < 7 or len(values) % 2 == 0:
        raise FieldError(
            "coordinates",
            f"expected x and y of at least three points, got {len(values) - 1} numbers; is the line cut off?",
        )
    points = np.array(values[1:]).reshape(-1, 2)
    if not (points.min() >= LEAST and points.max() <= MOST):  # false for NaN, too
        raise FieldError(
            "coordinates",
            f"expected fractions of the width and height, from 0 to 1, got values from "
            f"{points.min():g} to {points.max():g}; are they pixels?",
        )
    return int(values[0]), Polygons((np.round(points * size[::-1], DIGITS),))


def find(path: str, subset: str | None) -> Places:
    """A yaml that names classes, in the folder or named itself; or labels/ with texts in it, or in its folders."""
    if os.path.isfile(path):
        fits = path.endswith((".yaml", ".yml")) and _names_classes(path)
    else:
        fits = any(map(_names_classes, files_in(path, ".yaml", ".yml")))
        for labels in (os.path.join(path, "labels"), os.path.join(path, subset or "", "labels")):
            below = [labels, *(entry.path for entry in listed(labels) if entry.is_dir())]
            fits = fits or any(files_in(folder, ".txt") for folder in below)
    return [{"dataset_dir": path, "subset": subset}] if fits else []


def _names_classes(path: str) -> bool:
    with open(path, encoding="utf-8", errors="replace") as file:
        return any(line.startswith("names") for line in file.read(2**16).splitlines())

"""Pascal VOC segmentation, an object map and a class map for each image, and similar data of other tools."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mrcnn.data.annotations import problems
from mrcnn.data.annotations.annotated import AnnotatedDataset, Instance
from mrcnn.data.annotations.classes import BACKGROUND_NAMES, NO_CLASSES, Classes, Labels, numbered
from mrcnn.data.annotations.folders import (
    LOSSLESS,
    PICTURES,
    Places,
    by_stem,
    fitting_sizes,
    header_of,
    listed,
    mask_size,
    names_in,
    spellings,
)
from mrcnn.data.annotations.id_maps import (
    SHORT,
    InstanceIdDataset,
    check_single,
    piece_outline,
    pieces_of,
    ranked,
    read_numbers,
)
from mrcnn.data.annotations.outlines import MaskFile, Outline, open_picture, read_values
from mrcnn.data.annotations.problems import AnnotationError, Lost
from mrcnn.data.annotations.text_files import read_lines, read_xml

OBJECTS, CLASSES, IMAGES, DETAILS = "SegmentationObject", "SegmentationClass", "JPEGImages", "Annotations"
SETS = os.path.join("ImageSets", "Segmentation")
LABELMAP, NAME_FILES = "labelmap.txt", ("class_names.txt", "labels.txt", "classes.txt")
TWO_CLASSES = "object of two classes"
UNLIKE = "object with two different class names"
UNNAMED = "classes without names"
# Numbers 1 to 20, in the order of http://host.robots.ox.ac.uk/pascal/VOC/voc2012/segexamples/index.html
VOC_CLASSES = tuple(
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant sheep "
    "sofa train tvmonitor".split()
)
BACKGROUND, VOID = "", "void"  # in place of a class name
VOID_NUMBER = 255
Color = tuple[int, int, int]


def color_of(number: int) -> Color:
    """VOC's palette: the (red, green, blue) of a number, from its bits in groups of three, most significant first."""
    color = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            color[channel] |= (number >> (3 * place + channel) & 1) << (7 - place)
    return color[0], color[1], color[2]


NUMBER_OF = {color_of(number): number for number in range(256)}
VOID_COLOR = color_of(VOID_NUMBER)


class ClassCodes:
    """Class names by the values of a class map.

    Args:
        numbers: names by number, from 1.
        colors: names by color; None: by the number that the color has in VOC's palette.
    """

    def __init__(self, numbers: Mapping[int, str], colors: Mapping[Color, str] | None = None) -> None:
        self._numbers = {VOID_NUMBER: VOID, **numbers, 0: BACKGROUND}
        self._colors = None if colors is None else {VOID_COLOR: VOID, **colors, (0, 0, 0): BACKGROUND}
        named = numbers.values() if colors is None else colors.values()
        self.names = list(dict.fromkeys(name for name in named if name not in (BACKGROUND, VOID)))

    def name(self, value: int, header: "Header") -> str | None:
        """The name of a pixel value as returned by `outlines.read_values`; None if it has no name."""
        if self._colors is None:
            return self._numbers.get(header.number(value))
        if header.numbers and header.palette is None:
            return self._numbers.get(value)
        color = header.palette.get(value) if header.palette else _color(value)
        return None if color is None else self._colors.get(color)


class Header:
    """Whether a map's values are numbers, and the colors of its palette, if it has one.

    Raises ValueError, naming the file, if it is not an image or exceeds Pillow's size limit.
    """

    def __init__(self, path: str) -> None:
        with open_picture(path) as image:
            mode, palette = image.mode, image.getpalette() if image.mode == "P" else None
        self.numbers = mode not in ("RGB", "RGBA")
        self._void = mode in ("P", "L")  # in 16 bits, 255 is an ordinary number
        self.palette = palette and {i: tuple(palette[3 * i : 3 * i + 3]) for i in range(len(palette) // 3)}

    def number(self, value: int) -> int:
        """The number of a pixel value: that of its color in VOC's palette, if it has one."""
        return value if self.numbers else NUMBER_OF.get(_color(value), value)

    def is_void(self, value: int) -> bool:
        """Whether a value of an object map marks the border between objects."""
        return value == VOID_NUMBER and self._void if self.numbers else _color(value) == VOID_COLOR


def read_labelmap(path: str | os.PathLike) -> ClassCodes:
    """Reads a labelmap.txt: one `name:red,green,blue:parts:actions` per line, # starts a comment.

    The class with color 0, 0, 0 is the background. Numbers, if a map has numbers, count the lines from 0.

    Raises AnnotationError naming the line.
    """
    path = os.fspath(path)
    numbers: dict[int, str] = {}
    colors: dict[Color, str] = {}
    for place, line in enumerate(read_lines(path, "class names and colors"), 1):
        if not line or line.startswith("#"):
            continue
        name, *rest = line.split(":")
        parts = rest[0].split(",") if rest else []
        if not name or len(parts) != 3 or not all(part.strip().isdecimal() and int(part) < 256 for part in parts):
            raise AnnotationError(path, f"line {place}", "color_rgb", f"expected name:red,green,blue::, got {line!r}")
        color = int(parts[0]), int(parts[1]), int(parts[2])
        if color in colors:
            raise AnnotationError(path, f"line {place}", "color_rgb", f"{colors[color]!r} already has this color")
        is_class = color not in ((0, 0, 0), VOID_COLOR)
        colors[color] = numbers[len(numbers)] = name if is_class else VOID if any(color) else BACKGROUND
    if not any(name not in (BACKGROUND, VOID) for name in colors.values()):
        raise AnnotationError(path, "", "", "it contains no class; expected lines name:red,green,blue::")
    return ClassCodes(numbers, colors)


def most_of(objects: np.ndarray, classes: np.ndarray) -> dict[int, dict[int, int]]:
    """Pixels of each class in each object, most frequent first: {object: {class: pixels}}.

    objects, classes: [H, W], values of the two maps.
    """
    (numbers, rows), (codes, columns) = ranked(objects), ranked(classes)
    pairs = rows.astype(np.int64) * len(codes) + columns
    if len(numbers) * len(codes) < SHORT:
        table = np.bincount(pairs.ravel())
        there = np.flatnonzero(table)
        counts = table[there]
    else:  # a table of all pairs could need too much memory
        unique = np.unique(pairs, return_counts=True)
        there, counts = unique[0], unique[1]
    found: dict[int, dict[int, int]] = {int(number): {} for number in numbers}
    for place in np.argsort(-counts, kind="stable").tolist():
        row, column = divmod(int(there[place]), len(codes))
        found[int(numbers[row])][int(codes[column])] = int(counts[place])
    return found


def _color(value: int) -> Color:
    return value & 255, value >> 8 & 255, value >> 16


class Detail(NamedTuple):
    """An object in an image's XML file."""

    class_name: str
    difficult: bool


class Parsed(NamedTuple):
    """An image with its maps.

    objects, classes: paths of the maps, with their headers. size: (height, width) of both. pixels: number of pixels
    of each class in each object, most frequent first. details: the objects in the XML file, which have the numbers
    1, 2, ...
    """

    stem: str
    image: str
    objects: str
    classes: str
    object_header: Header
    class_header: Header
    size: tuple[int, int] | None
    pixels: dict[int, dict[int, int]]
    details: list[Detail]

    def detail(self, value: int) -> Detail | None:
        """The XML entry of an object value."""
        number = self.object_header.number(value)
        return self.details[number - 1] if 0 < number <= len(self.details) else None


def read_voc(
    dataset_dir: str | os.PathLike,
    subset: str | None = None,
    *,
    class_names: Sequence[str] | None = None,
    labels: Labels | None = None,
    separate: bool | None = None,
    source: str = "voc",
    masks: bool = True,
    upright: bool | None = None,
    strict: bool = True,
) -> InstanceIdDataset:
    """Reads JPEGImages, SegmentationObject, SegmentationClass and, if present, Annotations/*.xml.

    Each value of an object map is an instance; its class is the most frequent one among its pixels in the class map.
    Void pixels (number 255, the pale border around objects) belong to no mask. An object marked difficult in the XML
    file is a crowd: it is ignored in training and evaluation. The XML file's objects have the numbers 1, 2, ...

    Args:
        dataset_dir: the folder that holds these, or one above it such as VOCdevkit.
        subset: train, val or trainval: a list in ImageSets/Segmentation, or a subfolder of `dataset_dir`. None: all
            images that have an object map.
        class_names: the classes, in this order; None: all of them, ordered by number.
        labels: names of the numbers in the class maps, or a list of the names of 1, 2, ... None: those of
            labelmap.txt (`name:red,green,blue::`) or class_names.txt (one name per line, starting at 0), or those that
            the XML files imply, including VOC's 20. A number without a name becomes "class <number>".
        separate: what to do if the object maps equal the class maps: True makes each connected piece an instance,
            False each number. None: an error if a number has several pieces.
        source: name of the source in the dataset.
        masks, upright, strict: see `AnnotatedDataset`.

    Returns:
        A prepared dataset; image ids are file names without suffix, in the order of the list.

    Raises:
        FileNotFoundError: the folder or list is missing.
        AnnotationError: an invalid record, named by file, record and field.
    """
    root, inner = _root(dataset_dir, subset)
    dataset = InstanceIdDataset(root, strict, masks=masks, upright=upright)
    parsed = [entry for stem in _stems(dataset, root, inner) if (entry := _parsed(dataset, root, stem)) is not None]
    codes = _codes(dataset, root, labels, parsed)
    if class_names is not None and not set(class_names) & set(codes.names):
        raise ValueError(
            f"none of the class_names {list(class_names)} is among the names in {root!r}, {codes.names}; "
            "name the numbers in the class maps with labels="
        )
    classes = Classes(dataset, source, (), codes.names if class_names is None else class_names)
    same = all(list(entry.pixels) == list(_largest(entry).values()) for entry in parsed)
    if same and separate is None:
        numbers = {entry.stem: list(entry.pixels) for entry in parsed}
        if not check_single(dataset, {entry.stem: entry.objects for entry in parsed}, numbers):
            parsed = [entry._replace(pixels={}) for entry in parsed]
    for entry in parsed:
        _add(dataset, source, entry, codes, classes, bool(separate) and same)
    if not dataset.image_info:
        dataset.problems.broken(root, "", IMAGES, "no image can be read")
    return dataset.finish()


def find(path: str, subset: str | None) -> Places:
    """SegmentationObject, or VOC<year> containing it."""
    fits = voc_root(path) or any(voc_root(os.path.join(path, name)) for name in (spellings(subset) if subset else ()))
    return [{"dataset_dir": path, "subset": subset}] if fits else []


def voc_root(folder: str) -> str | None:
    """The folder that holds SegmentationObject: this one, or the only one in it or in its VOCdevkit; None if none."""
    if os.path.isdir(os.path.join(folder, OBJECTS)):
        return folder
    inside = [
        entry.path
        for place in (folder, os.path.join(folder, "VOCdevkit"))
        for entry in listed(place)
        if entry.name.startswith("VOC") and os.path.isdir(os.path.join(entry.path, OBJECTS))
    ]
    if len(inside) > 1:
        raise ValueError(f"{folder!r} holds several VOC folders: {inside}; pass the path of one of them")
    return inside[0] if inside else None


def _root(dataset_dir: str | os.PathLike, subset: str | None) -> tuple[str, str | None]:
    """The folder, and the name of the list in it."""
    folder = os.fspath(dataset_dir)
    if root := voc_root(folder):
        return root, subset
    for name in spellings(subset) if subset else ():
        if root := voc_root(os.path.join(folder, name)):
            return root, None
    raise FileNotFoundError(f"no folder {OBJECTS} in {folder!r}, which holds {names_in(folder)}")


def _stems(dataset: AnnotatedDataset, root: str, subset: str | None) -> list[str]:
    """Image names, without suffix."""
    if subset is None:
        return list(by_stem(dataset, os.path.join(root, OBJECTS), LOSSLESS))
    lists = [os.path.join(root, SETS, f"{name}.txt") for name in spellings(subset)]
    path = next(filter(os.path.isfile, lists), None)
    if path is None:
        folder = os.path.join(root, SETS)
        message = f"no list {lists[0]!r} of the images of {subset!r}; {folder!r} holds {names_in(folder)}"
        raise FileNotFoundError(message)
    stems = list(filter(None, read_lines(path, "image names")))
    for stem, count in Counter(stems).items():
        if count > 1:
            where = path, f"image {stem!r}", "name", f"it is listed {count} times"
            dataset.problems.broken(*where, problems.CLASH, images=0, instances=0)
    return list(dict.fromkeys(stems))


def _parsed(dataset: InstanceIdDataset, root: str, stem: str) -> Parsed | None:
    """An image with its maps; None, and an error, if one is missing or unreadable."""
    record, suffixes = f"image {stem!r}", {IMAGES: PICTURES, OBJECTS: LOSSLESS, CLASSES: LOSSLESS}
    image, objects, classes = (_picture(dataset, root, folder, stem, suffixes[folder]) for folder in suffixes)
    if image is None or objects is None or classes is None:
        return None
    fitting = fitting_sizes(header_of(image))
    values = read_numbers(dataset, objects, record, image, fitting)
    if values is None:
        return None
    size = int(values.shape[0]), int(values.shape[1])
    if mask_size(dataset, classes, record, image, (size,), images=1, instances=0) is None:
        return None
    try:
        border, header, codes = Header(objects), Header(classes), read_values(classes)
    except (OSError, ValueError) as error:
        dataset.problems.broken(classes, record, "pixels", str(error), problems.UNREADABLE, images=1, instances=0)
        return None
    pixels = {
        value: found for value, found in most_of(values, codes).items() if value != 0 and not border.is_void(value)
    }
    details = _details(dataset, os.path.join(root, DETAILS, f"{stem}.xml"), fitting)
    return Parsed(stem, image, objects, classes, border, header, size if fitting else None, pixels, details)


def _picture(dataset: AnnotatedDataset, root: str, folder: str, stem: str, suffixes: Sequence[str]) -> str | None:
    """The path of a file; None, and an error, if it is missing."""
    start = os.path.join(root, folder, stem)
    found = next((start + suffix for suffix in suffixes if os.path.isfile(start + suffix)), None)
    if found is None:
        where = root, f"image {stem!r}", folder, f"there is no file {start}.*"
        dataset.problems.broken(*where, problems.MISSING, images=1, instances=0)
    return found


def _codes(dataset: AnnotatedDataset, root: str, labels: Labels | None, parsed: Sequence[Parsed]) -> ClassCodes:
    """The meaning of the values in class maps; a number without a name becomes its own name."""
    if labels is not None:
        return ClassCodes(numbered(labels))
    path = os.path.join(root, LABELMAP)
    if os.path.isfile(path):
        return read_labelmap(path)
    for name in NAME_FILES:
        path = os.path.join(root, name)
        if os.path.isfile(path):
            return read_class_names(path)
    found = {_number(entry, code) for entry in parsed for of_object in entry.pixels.values() for code in of_object}
    proven = _proven(parsed)
    voc = dict(enumerate(VOC_CLASSES, 1))
    if proven and proven.items() <= voc.items():
        return ClassCodes(voc)
    names = {number: proven.get(number, f"class {number}") for number in sorted(found - {0, VOID_NUMBER})}
    unnamed = [number for number in names if number not in proven]
    if unnamed:
        message = f"classes {unnamed} have no name in a labelmap.txt, class_names.txt or XML file"
        treatment = f"named {names[unnamed[0]]!r} and so on; labels= sets the names"
        dataset.problems.noted(UNNAMED, dataset.file, "", "class", message, treatment)
    return ClassCodes(names)


def read_class_names(path: str | os.PathLike) -> ClassCodes:
    """Reads a class_names.txt, as written by labelme's converter: one name per line, for the numbers 0, 1, 2, ...

    A first line __ignore__ stands for -1; without a background line, the first name has number 1.
    """
    names = list(filter(None, read_lines(path, "class names")))
    if names[:1] and names[0] in NO_CLASSES and "ignore" in names[0]:
        names = names[1:]
    background = bool(names) and (names[0] in NO_CLASSES or names[0].lower() in BACKGROUND_NAMES)
    numbers = dict(enumerate(names, 0 if background else 1))
    numbers.pop(0, None)
    if not numbers:
        raise AnnotationError(
            os.fspath(path), "", "", "it contains no class; expected one name per line, the background first"
        )
    return ClassCodes({number: VOID if name in NO_CLASSES else name for number, name in numbers.items()})


def _largest(entry: Parsed) -> dict[int, int]:
    """Each object's most frequent class number, not counting background and void."""
    return {value: _number(entry, code) for value in entry.pixels if (code := _code(entry, value)) is not None}


def _code(entry: Parsed, value: int) -> int | None:
    return next((code for code in entry.pixels[value] if _number(entry, code) not in (0, VOID_NUMBER)), None)


def _number(entry: Parsed, code: int) -> int:
    return entry.class_header.number(code)


def _proven(parsed: Sequence[Parsed]) -> dict[int, str]:
    """Names of class numbers, by majority vote over the objects in the XML files."""
    votes: dict[int, Counter[str]] = {}
    for entry in parsed:
        if len(entry.details) == len(entry.pixels):
            for value, number in _largest(entry).items():
                detail = entry.detail(value)
                if detail is not None and detail.class_name:
                    votes.setdefault(number, Counter())[detail.class_name] += 1
    names = {number: of_number.most_common(1)[0][0] for number, of_number in sorted(votes.items())}
    return names if len(set(names.values())) == len(names) else {}


def _add(
    dataset: InstanceIdDataset, source: str, entry: Parsed, codes: ClassCodes, classes: Classes, separate: bool
) -> None:
    """Adds an image."""
    instances: list[Instance] = []
    pieces = pieces_of(read_values(entry.objects)) if separate else {}
    for value, name in _names(dataset, entry, codes).items():
        where = f"image {entry.stem!r}, object {entry.object_header.number(value)}"
        class_id = classes.number(name, entry.classes, where, "class")
        crowd = _difficult(dataset, entry, value, name, where)
        if class_id is None:
            continue
        outlines: list[Outline] = [MaskFile(entry.objects, value)]
        if separate and entry.size is not None:
            outlines = [piece_outline(places, *entry.size) for places in pieces[value]]
        instances += [Instance(class_id, outline, crowd, record=where, field=OBJECTS) for outline in outlines]
    height, width = entry.size or (None, None)
    dataset.add_annotated(source, entry.stem, entry.image, instances, height=height, width=width)


def _names(dataset: AnnotatedDataset, entry: Parsed, codes: ClassCodes) -> dict[int, str]:
    """The class name of each value in the object map; objects without one are errors."""
    names = {}
    for value, pixels in entry.pixels.items():
        where = entry.classes, f"image {entry.stem!r}, object {entry.object_header.number(value)}", "class"
        lost: Lost = {"images": 0, "instances": 1}
        found = {code: codes.name(code, entry.class_header) for code in pixels}
        found = {code: name for code, name in found.items() if name not in (BACKGROUND, VOID)}
        named = [name for name in found.values() if name is not None]
        if len(named) < len(found):
            code = next(code for code, name in found.items() if name is None)
            message = (
                f"its pixels have the value {code}, which is not a class; known classes: {codes.names}; "
                f"name others with labels= or a {LABELMAP}"
            )
            dataset.problems.broken(*where, message, **lost)
        elif not named and any(_is_ignored(entry, codes, code) for code in pixels):
            dataset.problems.left_out(problems.NOT_A_CLASS, *where, "it is labeled __ignore__", **lost)
        elif not named:
            dataset.problems.broken(*where, "none of its pixels has a class", **lost)
        else:
            names[value], *others = dict.fromkeys(named)
            if others:
                message, treatment = f"some of its pixels are {others}", f"it is {names[value]!r}, like most pixels"
                dataset.problems.noted(TWO_CLASSES, *where, message, treatment)
    return names


def _is_ignored(entry: Parsed, codes: ClassCodes, code: int) -> bool:
    """Whether a class number means __ignore__, rather than the void around objects."""
    return codes.name(code, entry.class_header) == VOID and _number(entry, code) != VOID_NUMBER


def _details(dataset: AnnotatedDataset, path: str, fitting: Sequence[tuple[int, int]]) -> list[Detail]:
    """The objects in the image's XML file; [] if there is none."""
    if not os.path.isfile(path):
        return []
    try:
        tree = read_xml(path, "annotated objects")
    except AnnotationError as error:
        if dataset.problems.strict:
            raise
        message = str(error).removeprefix(str(AnnotationError(path, error.record, error.field, "")))
        dataset.problems.left_out(problems.BROKEN, path, error.record, error.field, message, images=0, instances=0)
        return []
    stated = [tree.findtext(f"size/{field}") for field in ("height", "width")]
    if fitting and all(stated) and stated not in [[str(length) for length in size] for size in fitting]:
        tall, wide = fitting[0]
        message = f"it says {' x '.join(filter(None, stated))}, the image is {tall} x {wide} (height x width)"
        where = path, "size", "height/width", message
        dataset.problems.broken(*where, problems.SIZE, images=0, instances=0)
        return []
    return [
        Detail(entry.findtext("name", "").strip(), entry.findtext("difficult", "0").strip() == "1")
        for entry in tree.findall("object")
    ]


def _difficult(dataset: AnnotatedDataset, entry: Parsed, value: int, name: str, where: str) -> bool:
    """Whether the XML file marks an object as difficult; False if it names another class for that object."""
    detail = entry.detail(value)
    if detail is None:
        return False
    if detail.class_name != name:
        message = f"the XML file has a {detail.class_name!r} at this position"
        treatment = f"it is {name!r}, as in the class map, and not difficult"
        dataset.problems.noted(UNLIKE, dataset.file, where, "name", message, treatment)
        return False
    return detail.difficult

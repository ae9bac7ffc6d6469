"""Pascal VOC's segmentation: a picture of objects and one of classes for each image, and other tools' data like it."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from mrcnn.data.annotations import problems
from mrcnn.data.annotations.annotated import AnnotatedDataset, Instance
from mrcnn.data.annotations.classes import Classes, Labels, numbered
from mrcnn.data.annotations.folders import LOSSLESS, PICTURES, Places, by_stem, header_size, listed, names_in, same_size
from mrcnn.data.annotations.id_maps import InstanceIdDataset, ranked, read_numbers
from mrcnn.data.annotations.outlines import MaskFile, open_picture, read_values
from mrcnn.data.annotations.problems import AnnotationError

# In the order of http://host.robots.ox.ac.uk/pascal/VOC/voc2012/segexamples/index.html: the numbers 1 to 20
VOC_CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
BACKGROUND, VOID = "", "void"  # instead of a name
VOID_NUMBER = 255
Colour = tuple[int, int, int]


def colour_of(number: int) -> Colour:
    """The (red, green, blue) that VOC's palette gives a number: its bits, three by three, from the highest bit down."""
    colour = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            colour[channel] |= (number >> (3 * place + channel) & 1) << (7 - place)
    return tuple(colour)


NUMBER_OF = {colour_of(number): number for number in range(256)}
VOID_COLOUR = colour_of(VOID_NUMBER)


class ClassCodes:
    """Names by the values of a picture of classes.

    Args:
        numbers: names by numbers, from 1 on.
        colours: names by colours; None: by the number that VOC's palette has for a colour.
    """

    def __init__(self, numbers: Mapping[int, str], colours: Mapping[Colour, str] | None = None) -> None:
        self._numbers = {VOID_NUMBER: VOID, **numbers, 0: BACKGROUND}
        self._colours = None if colours is None else {VOID_COLOUR: VOID, **colours, (0, 0, 0): BACKGROUND}
        named = numbers.values() if colours is None else colours.values()
        self.names = list(dict.fromkeys(name for name in named if name not in (BACKGROUND, VOID)))

    def name(self, value: int, header: "Header") -> str | None:
        """The name of a value of a picture as `outlines.read_values` gives it; None for one that has none."""
        if self._colours is None:
            return self._numbers.get(header.number(value))
        if header.numbers and header.palette is None:
            return self._numbers.get(value)
        return self._colours.get(header.palette.get(value) if header.palette else _colour(value))


class Header:
    """Whether the values of a picture are numbers, and the colours of its palette, if it has one.

    Raises ValueError naming the file when it is no picture, or larger than Pillow takes.
    """

    def __init__(self, path: str) -> None:
        try:
            with open_picture(path) as image:
                mode, palette = image.mode, image.getpalette() if image.mode == "P" else None
        except OSError as error:
            raise ValueError(f"{path!r} is not a picture, or damaged: {error}; write it again as png") from error
        self.numbers = mode not in ("RGB", "RGBA")
        self._void = mode in ("P", "L")  # with 16 bits, 255 is a number as any other
        self.palette = palette and {i: tuple(palette[3 * i : 3 * i + 3]) for i in range(len(palette) // 3)}

    def number(self, value: int) -> int:
        """The number that a value of a picture stands for: that of its colour in VOC's palette, where it has one."""
        return value if self.numbers else NUMBER_OF.get(_colour(value), value)

    def is_void(self, value: int) -> bool:
        """Whether a value of a picture of objects marks the border between them."""
        return value == VOID_NUMBER and self._void if self.numbers else _colour(value) == VOID_COLOUR


def read_labelmap(path: str | os.PathLike) -> ClassCodes:
    """Reads a labelmap.txt, a line a class as `name:red,green,blue:parts:actions`; # begins a comment.

    The class of colour 0, 0, 0 is the background. Numbers, where a picture has those, count its lines from 0.

    Raises AnnotationError naming the line.
    """
    path, numbers, colours = os.fspath(path), {}, {}
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = [(place, line.strip()) for place, line in enumerate(file, 1)]
    for place, line in lines:
        if not line or line.startswith("#"):
            continue
        name, *rest = line.split(":")
        parts = rest[0].split(",") if rest else []
        if not name or len(parts) != 3 or not all(part.strip().isdecimal() and int(part) < 256 for part in parts):
            raise AnnotationError(path, f"line {place}", "color_rgb", f"expected name:red,green,blue::, got {line!r}")
        colour = tuple(map(int, parts))
        if colour in colours:
            raise AnnotationError(path, f"line {place}", "color_rgb", f"{colours[colour]!r} has the same colour")
        is_class = colour not in ((0, 0, 0), VOID_COLOUR)
        colours[colour] = numbers[len(numbers)] = name if is_class else VOID if any(colour) else BACKGROUND
    if not any(name not in (BACKGROUND, VOID) for name in colours.values()):
        raise AnnotationError(path, "", "", "it names no class; expected lines name:red,green,blue::")
    return ClassCodes(numbers, colours)


def most_of(objects: np.ndarray, classes: np.ndarray) -> dict[int, dict[int, int]]:
    """How many pixels of each class are in each object, the commonest first: {object: {class: pixels}}.

    objects, classes: [H, W], values of two pictures.
    """
    (numbers, rows), (codes, columns) = ranked(objects), ranked(classes)
    counts = np.bincount((rows * len(codes) + columns).ravel()).tolist()
    counts += [0] * (len(numbers) * len(codes) - len(counts))
    found = {}
    for row, number in enumerate(numbers.tolist()):
        inside = zip(codes.tolist(), counts[row * len(codes) : (row + 1) * len(codes)], strict=True)
        found[number] = dict(sorted(((code, n) for code, n in inside if n), key=lambda pair: -pair[1]))
    return found


def _colour(value: int) -> Colour:
    return value & 255, value >> 8 & 255, value >> 16


OBJECTS, CLASSES, IMAGES, DETAILS = "SegmentationObject", "SegmentationClass", "JPEGImages", "Annotations"
SETS = os.path.join("ImageSets", "Segmentation")
TWO_CLASSES = "object of two classes"
UNLIKE = "object that two files name differently"


class Detail(NamedTuple):
    """An object in the xml of an image."""

    class_name: str
    difficult: bool


def read_voc(
    dataset_dir: str | os.PathLike,
    subset: str | None = None,
    *,
    class_names: Sequence[str] | None = None,
    labels: Labels | None = None,
    source: str = "voc",
    strict: bool = True,
) -> InstanceIdDataset:
    """Reads JPEGImages, SegmentationObject, SegmentationClass and, where there are any, Annotations/*.xml.

    Each value of a picture of objects is an instance; its class is that of most of its pixels in the picture of
    classes. Pixels that are void (number 255, the pale border around objects) belong to no mask. An object that the
    xml calls difficult is a crowd: neither learnt nor counted; the objects of the xml are the numbers 1, 2, ...

    Args:
        dataset_dir: the folder that holds these, or one above it such as VOCdevkit.
        subset: train, val or trainval: a list in ImageSets/Segmentation, or a folder of `dataset_dir`. None: all images
            that have a picture of objects.
        class_names: the classes, in this order; None: all of them, in the order of their numbers.
        labels: names of the numbers in the pictures of classes, or a list of the names of 1, 2, ... None: those of
            labelmap.txt (`name:red,green,blue::`) where there is one, else VOC's 20.
        source: the source's name in the dataset.
        strict: raise at the first broken record; else leave it out and count it in `problems`.

    Returns:
        A prepared dataset; ids are names without suffix, in the order of the list.

    Raises:
        FileNotFoundError: no such folder or list.
        AnnotationError: naming file, record and field.
    """
    root, inner = _root(dataset_dir, subset)
    dataset = InstanceIdDataset(root, strict)
    labelmap = os.path.join(root, "labelmap.txt")
    if labels is None and os.path.isfile(labelmap):
        codes = read_labelmap(labelmap)
    else:
        codes = ClassCodes(numbered(VOC_CLASSES if labels is None else labels))
    if class_names is not None and not set(class_names) & set(codes.names):
        raise ValueError(
            f"none of the class_names {list(class_names)} is among the names in {root!r}, {codes.names}; "
            "labels= names the numbers of the pictures of classes"
        )
    classes = Classes(dataset, source, (), codes.names if class_names is None else class_names)
    for stem in _stems(dataset, root, inner):
        _add(dataset, source, root, stem, codes, classes)
    if not dataset.image_info:
        dataset.problems.broken(root, "", IMAGES, "there is no image that can be read")
    return dataset.finish()


def voc_root(folder: str) -> str | None:
    """The folder that holds SegmentationObject: this, or the only such in it or in its VOCdevkit; None without one."""
    if os.path.isdir(os.path.join(folder, OBJECTS)):
        return folder
    inside = [
        entry.path
        for place in (folder, os.path.join(folder, "VOCdevkit"))
        for entry in listed(place)
        if entry.name.startswith("VOC") and os.path.isdir(os.path.join(entry.path, OBJECTS))
    ]
    if len(inside) > 1:
        raise ValueError(f"{folder!r} holds several: {inside}; name the one to read")
    return inside[0] if inside else None


def _root(dataset_dir: str | os.PathLike, subset: str | None) -> tuple[str, str | None]:
    """The folder, and the name of the list in it."""
    folder = os.fspath(dataset_dir)
    if root := voc_root(folder):
        return root, subset
    if subset and (root := voc_root(os.path.join(folder, subset))):
        return root, None
    raise FileNotFoundError(f"no folder {OBJECTS} in {folder!r}, which holds {names_in(folder)}")


def _stems(dataset: AnnotatedDataset, root: str, subset: str | None) -> list[str]:
    """The names of the images, without suffixes."""
    if subset is None:
        return list(by_stem(dataset, os.path.join(root, OBJECTS), LOSSLESS))
    path = os.path.join(root, SETS, f"{subset}.txt")
    if not os.path.isfile(path):
        folder = os.path.join(root, SETS)
        raise FileNotFoundError(f"no list {path!r} of the images of {subset!r}; {folder!r} holds {names_in(folder)}")
    with open(path, encoding="utf-8", errors="replace") as file:
        stems = [line.strip() for line in file if line.strip()]
    for stem, count in Counter(stems).items():
        if count > 1:
            dataset.problems.broken(path, f"image {stem!r}", "name", f"it stands there {count} times", problems.CLASH)
    return list(dict.fromkeys(stems))


def _picture(dataset: AnnotatedDataset, root: str, folder: str, stem: str, suffixes: Sequence[str]) -> str | None:
    """The path of a picture; broken, and None, when there is none."""
    start = os.path.join(root, folder, stem)
    found = next((start + suffix for suffix in suffixes if os.path.isfile(start + suffix)), None)
    if found is None:
        dataset.problems.broken(root, f"image {stem!r}", folder, f"there is no picture {start}.*", problems.MISSING)
    return found


def _add(dataset: InstanceIdDataset, source: str, root: str, stem: str, codes: ClassCodes, classes: Classes) -> None:
    """Adds an image."""
    record, suffixes = f"image {stem!r}", {IMAGES: PICTURES, OBJECTS: LOSSLESS, CLASSES: LOSSLESS}
    image, objects, picture = (_picture(dataset, root, folder, stem, suffixes[folder]) for folder in suffixes)
    if image is None or objects is None or picture is None:
        return
    size = header_size(image)
    values = read_numbers(dataset, objects, record, image, size)
    if values is None or not same_size(dataset, picture, record, image, size):
        return
    header = Header(objects)
    details = _details(dataset, os.path.join(root, DETAILS, f"{stem}.xml"), size)
    names = _names(dataset, values, header, picture, codes, record)
    if names is None:
        return
    instances = []
    for value, name in names.items():
        number = header.number(value)
        where = f"{record}, object {number}"
        class_id = classes.number(name, picture, where, "class")
        crowd = _difficult(dataset, details, number, name, where)
        if class_id is not None:
            instances.append(Instance(class_id, MaskFile(objects, value), crowd, record=where, field=OBJECTS))
    height, width = size or (None, None)
    dataset.add_annotated(source, stem, image, instances, height=height, width=width)


def _names(
    dataset: AnnotatedDataset, objects: np.ndarray, border: Header, picture: str, codes: ClassCodes, record: str
) -> dict[int, str] | None:
    """The name of the class of each value of the picture of objects; objects without one are broken.

    None when the picture of classes cannot be read.
    """
    try:
        header, values = Header(picture), read_values(picture)
    except ValueError as error:
        dataset.problems.broken(picture, record, "pixels", str(error), problems.UNREADABLE)
        return None
    names = {}
    for value, pixels in most_of(objects, values).items():
        if value == 0 or border.is_void(value):
            continue
        where = f"{record}, object {border.number(value)}"
        found = {code: codes.name(code, header) for code in pixels}
        found = {code: name for code, name in found.items() if name not in (BACKGROUND, VOID)}
        if None in found.values():
            code = next(code for code, name in found.items() if name is None)
            dataset.problems.broken(
                picture,
                where,
                "class",
                f"the value {code} of its pixels stands for no class; "
                f"known are {codes.names}, labels= or a labelmap.txt may name others",
            )
        elif not found:
            dataset.problems.broken(picture, where, "class", "none of its pixels has a class")
        else:
            names[value], *others = dict.fromkeys(found.values())
            if others:
                dataset.problems.noted(
                    TWO_CLASSES,
                    picture,
                    where,
                    "class",
                    f"some of its pixels are {others}",
                    f"it is {names[value]!r}, as most are",
                )
    return names


def _details(dataset: AnnotatedDataset, path: str, size: tuple[int, int] | None) -> list[Detail]:
    """The objects in the xml of an image; [] when there is none."""
    if not os.path.isfile(path):
        return []
    try:
        tree = ElementTree.parse(path)
    except ElementTree.ParseError as error:
        dataset.problems.broken(path, f"line {error.position[0]}", "", f"it is not xml: {error}; is it cut off?")
        return []
    stated = [tree.findtext(f"size/{field}") for field in ("height", "width")]
    if size is not None and all(stated) and stated != [str(length) for length in size]:
        dataset.problems.broken(
            path,
            "size",
            "height/width",
            f"it says {' x '.join(stated)}, the image is {size[0]} x {size[1]} (height x width)",
            problems.SIZE,
        )
        return []
    return [
        Detail(entry.findtext("name", ""), entry.findtext("difficult", "0").strip() == "1")
        for entry in tree.findall("object")
    ]


def _difficult(dataset: AnnotatedDataset, details: list[Detail], number: int, name: str, where: str) -> bool:
    """Whether the xml calls an object difficult; not when it means another, as it names another class."""
    if number > len(details):
        return False
    detail = details[number - 1]
    if detail.class_name != name:
        dataset.problems.noted(
            UNLIKE,
            dataset.file,
            where,
            "name",
            f"the xml has a {detail.class_name!r} in its place",
            f"it is {name!r}, as the picture of classes says, and not difficult",
        )
        return False
    return detail.difficult


def find(path: str, subset: str | None) -> Places:
    """SegmentationObject, or VOC<year> with it."""
    fits = voc_root(path) or (subset and voc_root(os.path.join(path, subset)))
    return [{"dataset_dir": path, "subset": subset}] if fits else []

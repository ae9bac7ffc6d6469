"""Pascal VOC's segmentation: a picture of objects and one of classes for each image, and other tools' data like it."""

import os
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from mrcnn.data.formats import problems
from mrcnn.data.formats.annotated import AnnotatedDataset, Instance
from mrcnn.data.formats.classes import Classes, Labels, numbered
from mrcnn.data.formats.folders import LOSSLESS, PICTURES, by_stem, header_size, listed, names_in, same_size
from mrcnn.data.formats.id_pictures import InstanceIdDataset, read_numbers
from mrcnn.data.formats.voc_classes import BACKGROUND, VOC_CLASSES, VOID, ClassCodes, Header, most_of, read_labelmap
from mrcnn.data.outlines import MaskFile, read_values

OBJECTS, CLASSES, IMAGES, DETAILS = "SegmentationObject", "SegmentationClass", "JPEGImages", "Annotations"
SETS = os.path.join("ImageSets", "Segmentation")
TWO_CLASSES = "object of two classes"
UNLIKE = "object that two files name differently"


class Detail(NamedTuple):
    """An object in the xml of an image."""

    class_name: str
    difficult: bool


def load_voc(
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

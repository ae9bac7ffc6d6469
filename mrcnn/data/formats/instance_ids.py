"""One picture an image whose pixels are numbers of instances, 0 for none."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mrcnn.data.annotations import problems
from mrcnn.data.annotations.annotated import AnnotatedDataset, Instance
from mrcnn.data.annotations.classes import Classes, Labels, numbered, only_name
from mrcnn.data.annotations.folders import (
    LOSSLESS,
    PICTURES,
    Places,
    by_stem,
    header_size,
    listed,
    names_in,
    paired_folders,
    subset_folder,
)
from mrcnn.data.annotations.id_maps import InstanceIdDataset, read_numbers, values_in
from mrcnn.data.annotations.outlines import MaskFile, read_values
from mrcnn.data.annotations.problems import AnnotationError
from mrcnn.data.annotations.text_files import read_json, read_rows

CLASS_FILES = ("classes.json", "classes.csv")
COLUMNS = ("image", "id", "class")
STUFF = "pixels of no single instance"

Numbers = Mapping[str, list[int]]  # the numbers in the picture of each image


class Kind(NamedTuple):
    """What a number stands for. crowd: a group of instances that are not told apart."""

    class_name: str
    crowd: bool = False


Kinds = dict[str, dict[int, Kind]]  # by images and numbers; background has none


def kinds_by_divisor(dataset: AnnotatedDataset, numbers: Numbers, divisor: int, labels: Mapping[int, str]) -> Kinds:
    """number // divisor is the number of the class; numbers under the divisor are crowds, or background."""
    if divisor < 2:
        raise ValueError(f"divisor is {divisor}; expected a whole number from 2 on, such as 1000")
    names = {
        number // divisor: labels.get(number // divisor, str(number // divisor))
        for of_image in numbers.values()
        for number in of_image
        if number >= divisor
    }
    single = Counter(number for of_image in numbers.values() for number in of_image if number < divisor)
    for number, count in sorted(single.items()):
        dataset.problems.noted(
            STUFF,
            dataset.file,
            f"number {number}",
            "pixels",
            f"in {count} images; it is under the divisor {divisor}",
            "a crowd" if number in names else "background",
        )
    return {
        stem: {
            n: Kind(names[n if n < divisor else n // divisor], n < divisor)
            for n in of_image
            if n >= divisor or n in names
        }
        for stem, of_image in numbers.items()
    }


def kinds_by_file(
    dataset: AnnotatedDataset, numbers: Numbers, path: str, shared: bool, gone: Numbers | None = None
) -> Kinds:
    """As a file states them.

    shared: the file may be about more images than these, whose entries are counted, but not broken.
    gone: the numbers of images that were left out before; only what the file adds to them is counted here.
    """
    gone = gone or {}
    stated = _read_csv(dataset, path) if path.lower().endswith(".csv") else _read_json(dataset, path)
    for stem, of_image in stated.items():
        where, text = (path, f"image {stem!r}", "image"), "there is no such image with a picture of its instances"
        lost = {"images": int(stem not in gone), "instances": len(of_image.keys() - gone.get(stem, ()))}
        if stem not in numbers and shared:
            dataset.problems.left_out(problems.MISSING, *where, text, **lost)
        elif stem not in numbers and any(lost.values()):
            dataset.problems.broken(*where, text, problems.MISSING, **lost)
        for number in sorted(of_image.keys() - numbers.get(stem, of_image)):
            dataset.problems.left_out(
                problems.EMPTY, path, f"image {stem!r}", str(number), "no pixel has this number", images=0, instances=1
            )
    kinds: Kinds = {stem: {} for stem in numbers}
    for stem, of_image in numbers.items():
        for number in of_image:
            if number in stated.get(stem, {}):
                kinds[stem][number] = Kind(stated[stem][number])
            else:
                dataset.problems.broken(
                    path,
                    f"image {stem!r}",
                    str(number),
                    "pixels of the picture have this number, but it has no class here",
                    images=0,
                    instances=1,
                )
    return kinds


def _read_json(dataset: AnnotatedDataset, path: str) -> dict[str, dict[int, str]]:
    """{image: {number: class}}."""
    content = read_json(path, "classes of instances")
    if not isinstance(content, dict):
        raise AnnotationError(path, "", "", f"expected {{image: {{number: class}}}}, got {content!r:.60}")
    stated: dict[str, dict[int, str]] = {}
    for name, of_image in content.items():
        if not isinstance(of_image, dict):
            dataset.problems.broken(
                path, f"image {name!r}", "", f"expected {{number: class}}, got {of_image!r:.60}", images=0, instances=0
            )
            continue
        stated.setdefault(_stem(name), {})
        for number, class_name in of_image.items():
            _state(dataset, stated, path, f"image {name!r}", (name, number, class_name))
    return stated


def _read_csv(dataset: AnnotatedDataset, path: str) -> dict[str, dict[int, str]]:
    """A row a number: image, id, class."""
    stated: dict[str, dict[int, str]] = {}
    for record, row in read_rows(dataset.problems, path, "classes of instances", COLUMNS):
        _state(dataset, stated, path, record, tuple(row[column] for column in COLUMNS))
    return stated


def _state(dataset: AnnotatedDataset, stated: dict[str, dict[int, str]], path: str, record: str, row: tuple) -> None:
    """Enters the class of a number of an image, once checked.

    A broken entry is no instance of its own: its pixels, if there are any, are counted as having no class.
    """
    name, number, class_name = row
    nothing = {"images": 0, "instances": 0}
    if not isinstance(class_name, str) or not class_name:
        dataset.problems.broken(
            path, record, number, f"expected the name of a class, got {class_name!r:.60}", **nothing
        )
    elif not number.strip().isdecimal():
        dataset.problems.broken(path, record, number, "expected the number of an instance, from 1 on", **nothing)
    else:
        known = stated.setdefault(_stem(name), {}).setdefault(int(number), class_name)
        if known != class_name:
            dataset.problems.broken(
                path,
                record,
                number,
                f"its class is {known!r} already, and {class_name!r} here",
                problems.CLASH,
                **nothing,
            )


def _stem(name: str) -> str:
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in PICTURES else name


FOLDERS = ("masks", "instances", "labels")


class Picture(NamedTuple):
    """An image, the picture of its instances, and the numbers in it."""

    stem: str
    image: str
    path: str
    size: tuple[int, int] | None
    numbers: list[int]


def read_instance_ids(
    dataset_dir: str | os.PathLike,
    subset: str | None = None,
    *,
    class_name: str | None = None,
    class_names: Sequence[str] | None = None,
    classes: str | os.PathLike | None = None,
    divisor: int | None = None,
    labels: Labels | None = None,
    folder: str | None = None,
    source: str = "instance_ids",
    strict: bool = True,
) -> InstanceIdDataset:
    """Reads images/<name>.jpg with masks/<name>.png (or instances/, labels/), whose pixels are numbers of instances.

    Pictures may have 8 or 16 bits, a palette (the number is that in the palette), or colours (r + 256 g + 65536 b).
    Their class comes from the first of these that there is:

    - divisor: number // divisor is the number of the class, as 1000 in Cityscapes. Numbers below it are of no single
      instance: those of a class that has instances elsewhere are a crowd, others background, noted in `problems`.
    - classes: a json {name: {number: class}}, or a csv with the columns image, id and class.
    - one class for all.

    Args:
        dataset_dir, subset: images lie in `dataset_dir/subset/images` or `dataset_dir/images/subset`.
        class_name: the only class; None: the only one of class_names, or "object".
        class_names: the classes, in this order; None: those found, sorted.
        classes: the file; None: classes.json or classes.csv beside the folder of images, if there is one.
        labels: with a divisor: names of the classes by their numbers, or a list of the names of 1, 2, ...; a number
            that has none is its own name.
        folder: the name of the folder of pictures; None: the one that is there.
        source: the source's name in the dataset.
        strict: raise at the first broken record; else leave it out and count it in `problems`.

    Returns:
        A prepared dataset; images by their names, ids are names without suffix.

    Raises:
        FileNotFoundError: no such folder, or no such layout in it.
        AnnotationError: naming file, record and field.
    """
    if divisor is not None and classes is not None:
        raise ValueError("divisor and classes both give the class of an instance; give one of them")
    images, ids = _folders(dataset_dir, subset, folder)
    dataset = InstanceIdDataset(ids, strict)
    pictures, gone = _pictures(dataset, images, ids)
    numbers, only = {p.stem: p.numbers for p in pictures}, only_name(class_name, class_names)
    if divisor is not None:
        kinds = kinds_by_divisor(dataset, numbers, divisor, numbered(labels))
    elif path := _class_file(dataset_dir, images, classes):
        kinds = kinds_by_file(dataset, numbers, path, bool(subset), gone)
    else:
        kinds = {stem: dict.fromkeys(of_image, Kind(only)) for stem, of_image in numbers.items()}
    found = {kind.class_name for of_image in kinds.values() for kind in of_image.values()}
    table = Classes(dataset, source, found or {only}, class_names)
    for picture in pictures:
        _add(dataset, source, picture, kinds[picture.stem], table)
    if not dataset.image_info:
        dataset.problems.broken(ids, "", "images", "there is no image that can be read")
    return dataset.finish()


def holds_pictures(folder: str) -> bool:
    """Whether pictures that keep their values lie in a folder."""
    return any(entry.name.lower().endswith(LOSSLESS) and entry.is_file() for entry in listed(folder))


def _folders(root: str | os.PathLike, subset: str | None, folder: str | None) -> tuple[str, str]:
    """The folders of images and of pictures of instances."""
    names = FOLDERS if folder is None else (folder,)
    images, beside = paired_folders(root, subset, names, holds_pictures)
    if len(beside) > 1:
        raise ValueError(f"several folders may hold the numbers of instances: {beside}; choose one with folder=")
    if not beside:
        below = subset_folder(root, None)
        raise FileNotFoundError(
            f"no pictures of instances in {below!r}: expected images/ and one of "
            f"{', '.join(name + '/' for name in names)} beside it, the subset below or above; it "
            f"holds {names_in(below)}"
        )
    return images, beside[0]


def _pictures(dataset: InstanceIdDataset, images: str, ids: str) -> tuple[list[Picture], dict[str, list[int]]]:
    """Images with their pictures, and the numbers, by stem, of those left out; what stands alone is broken."""
    gone = {}
    photographs, maps = by_stem(dataset, images), by_stem(dataset, ids, LOSSLESS)
    for stem in sorted(photographs.keys() ^ maps.keys()):
        path, other = (maps[stem], images) if stem in maps else (photographs[stem], ids)
        gone[stem] = _readable_numbers(maps[stem]) if stem in maps else []
        dataset.problems.broken(
            os.path.dirname(path),
            os.path.basename(path),
            "name",
            f"there is no picture of this name in {other!r}",
            problems.MISSING,
            images=1,
            instances=len(gone[stem]),
        )
    found = []
    for stem in sorted(photographs.keys() & maps.keys()):
        size = header_size(photographs[stem])
        values = read_numbers(dataset, maps[stem], f"image {stem!r}", photographs[stem], None)
        numbers = [] if values is None else values_in(values)
        if values is None:
            gone[stem] = numbers
        elif size is not None and values.shape != size:
            gone[stem] = numbers
            _other_size(dataset, maps[stem], f"image {stem!r}", values.shape, photographs[stem], size, len(numbers))
        else:
            found.append(Picture(stem, photographs[stem], maps[stem], size, numbers))
    return found, gone


def _readable_numbers(path: str) -> list[int]:
    """The numbers in a picture; none in one that cannot be read."""
    try:
        return values_in(read_values(path))
    except (ValueError, OSError):
        return []


def _other_size(
    dataset: InstanceIdDataset,
    path: str,
    record: str,
    found: tuple[int, ...],
    image: str,
    size: tuple[int, int],
    instances: int,
) -> None:
    dataset.problems.broken(
        path,
        record,
        "height/width",
        f"it is {found[0]} x {found[1]}, its image {image!r} {size[0]} x {size[1]} (height x width)",
        problems.SIZE,
        images=1,
        instances=instances,
    )


def _class_file(root: str | os.PathLike, images: str, classes: str | os.PathLike | None) -> str | None:
    """The file of classes: the one named, or one that lies in the dataset's folder or beside that of the images."""
    if classes is not None:
        return os.fspath(classes)
    places = [os.path.join(folder, name) for folder in (os.path.dirname(images), root) for name in CLASS_FILES]
    return next(filter(os.path.isfile, places), None)


def _add(dataset: InstanceIdDataset, source: str, picture: Picture, kinds: dict[int, Kind], classes: Classes) -> None:
    instances = []
    for number, kind in kinds.items():
        record = f"image {picture.stem!r}, instance {number}"
        class_id = classes.number(kind.class_name, dataset.file, record, "class")
        if class_id is not None:
            instances.append(
                Instance(class_id, MaskFile(picture.path, number), kind.crowd, record=record, field="pixels")
            )
    height, width = picture.size or (None, None)
    dataset.add_annotated(source, picture.stem, picture.image, instances, height=height, width=width)


def find(path: str, subset: str | None) -> Places:
    """images/ and masks/, instances/ or labels/ with pictures in it."""
    _, beside = paired_folders(path, subset, FOLDERS, holds_pictures)
    return [{"dataset_dir": path, "subset": subset}] if beside else []

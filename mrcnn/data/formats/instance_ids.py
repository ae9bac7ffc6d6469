"""One picture an image whose pixels are numbers of instances, 0 for none."""

import os
from collections.abc import Sequence
from typing import NamedTuple

from mrcnn.data.formats import problems
from mrcnn.data.formats.annotated import Instance
from mrcnn.data.formats.classes import Classes, Labels, numbered, only_name
from mrcnn.data.formats.folders import LOSSLESS, by_stem, header_size, listed, names_in, paired_folders, subset_folder
from mrcnn.data.formats.id_pictures import InstanceIdDataset, read_numbers, values_in
from mrcnn.data.formats.instance_classes import CLASS_FILES, Kind, kinds_by_divisor, kinds_by_file
from mrcnn.data.outlines import MaskFile, read_values

FOLDERS = ("masks", "instances", "labels")


class Picture(NamedTuple):
    """An image, the picture of its instances, and the numbers in it."""

    stem: str
    image: str
    path: str
    size: tuple[int, int] | None
    numbers: list[int]


def load_instance_ids(
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

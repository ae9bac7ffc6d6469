"""Instance maps: one image of instance ids per image, 0 for background; also Cityscapes' and Penn-Fudan's layouts."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from mrcnn.data.annotations import problems
from mrcnn.data.annotations.annotated import LARGE, AnnotatedDataset, Instance
from mrcnn.data.annotations.classes import Classes, Labels, numbered, only_name
from mrcnn.data.annotations.folders import (
    LOSSLESS,
    PICTURES,
    Places,
    below,
    by_stem,
    fitting_sizes,
    header_of,
    listed,
    mask_size,
    names_in,
    paired_folders,
    stem_of,
    subset_folder,
)
from mrcnn.data.annotations.id_maps import (
    InstanceIdDataset,
    check_single,
    piece_outline,
    pieces_of,
    read_numbers,
    values_in,
)
from mrcnn.data.annotations.outlines import MaskFile, Outline, read_values
from mrcnn.data.annotations.problems import AnnotationError, Lost
from mrcnn.data.annotations.text_files import read_json, read_rows

FOLDERS = ("masks", "instances", "labels")
PENN_FUDAN, PEDESTRIAN, MASK = ("PNGImages", "PedMasks"), "pedestrian", "_mask"  # cis.upenn.edu/~jshi/ped_html
CITYSCAPES, CITYSCAPES_PARTS = ("leftImg8bit", "gtFine"), ("train", "val", "test")
# Cityscapes' classes with separate instances, by id (cityscapes-dataset.com/dataset-overview)
CITYSCAPES_CLASSES = {
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    29: "caravan",
    30: "trailer",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
CLASS_FILES = ("classes.json", "classes.csv")
COLUMNS = ("image", "id", "class")
STUFF = "pixels of no single instance"

Numbers = Mapping[str, list[int]]  # the values in each image's instance map


class Kind(NamedTuple):
    """The meaning of an instance id. crowd: a group of instances without separate ids."""

    class_name: str
    crowd: bool = False


Kinds = dict[str, dict[int, Kind]]  # by image and instance id, without the background


def kinds_by_divisor(
    dataset: AnnotatedDataset,
    numbers: Numbers,
    divisor: int,
    labels: Mapping[int, str],
    only: Mapping[int, str] | None = None,
) -> Kinds:
    """The class is id // divisor; ids below the divisor are crowds or background.

    only: the classes that have instances, if known; other ids are background.
    """
    if divisor < 2:
        raise ValueError(f"divisor is {divisor}; expected an integer of at least 2, such as 1000")
    if only:
        names = dict(only)
    else:
        large = {number // divisor for of_image in numbers.values() for number in of_image if number >= divisor}
        names = {number: labels.get(number, str(number)) for number in large}
        single = Counter(number for of_image in numbers.values() for number in of_image if number < divisor)
        for number, count in sorted(single.items()):
            message = f"in {count} images; below the divisor {divisor}"
            treatment = "a crowd" if number in names else "background"
            dataset.problems.noted(STUFF, dataset.file, f"number {number}", "pixels", message, treatment)
    kinds: Kinds = {stem: {} for stem in numbers}
    for stem, of_image in numbers.items():
        for number in of_image:
            crowd = number < divisor
            class_number = number if crowd else number // divisor
            if class_number in names:
                kinds[stem][number] = Kind(names[class_number], crowd)
    return kinds


def kinds_by_file(
    dataset: AnnotatedDataset, numbers: Numbers, path: str, shared: bool, gone: Numbers | None = None
) -> Kinds:
    """Classes listed in a JSON or CSV file.

    shared: the file may also list images of other subsets; their entries are counted but are not errors.
    gone: the ids in skipped images; only ids that the file adds to them are counted here.
    """
    gone = gone or {}
    stated = _read_csv(dataset, path) if path.lower().endswith(".csv") else _read_json(dataset, path)
    for stem, of_image in stated.items():
        where, text = (path, f"image {stem!r}", "image"), "no image of this name has an instance map"
        lost: Lost = {"images": int(stem not in gone), "instances": len(of_image.keys() - gone.get(stem, ()))}
        if stem not in numbers and shared:
            dataset.problems.left_out(problems.MISSING, *where, text, **lost)
        elif stem not in numbers and any(lost.values()):
            dataset.problems.broken(*where, text, problems.MISSING, **lost)
        for number in sorted(of_image.keys() - numbers.get(stem, of_image)):
            dataset.problems.left_out(
                problems.EMPTY, path, f"image {stem!r}", str(number), "no pixel has this id", images=0, instances=1
            )
    kinds: Kinds = {stem: {} for stem in numbers}
    for stem, found in numbers.items():
        for number in found:
            if number in stated.get(stem, {}):
                kinds[stem][number] = Kind(stated[stem][number])
            else:
                dataset.problems.broken(
                    path,
                    f"image {stem!r}",
                    str(number),
                    "pixels have this id, but the file gives it no class",
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
    """One row per id: image, id, class."""
    stated: dict[str, dict[int, str]] = {}
    for record, row in read_rows(dataset.problems, path, "classes of instances", COLUMNS):
        _state(dataset, stated, path, record, tuple(row[column] for column in COLUMNS))
    return stated


def _state(dataset: AnnotatedDataset, stated: dict[str, dict[int, str]], path: str, record: str, row: tuple) -> None:
    """Checks and enters the class of one instance id.

    An invalid entry does not count as a lost instance: its pixels, if any, are reported as having no class.
    """
    name, number, class_name = row
    nothing: Lost = {"images": 0, "instances": 0}
    if not isinstance(class_name, str) or not class_name:
        dataset.problems.broken(path, record, number, f"expected a class name, got {class_name!r:.60}", **nothing)
    elif not number.strip().isdecimal():
        dataset.problems.broken(path, record, number, "expected an instance id >= 1", **nothing)
    else:
        known = stated.setdefault(_stem(name), {}).setdefault(int(number), class_name)
        if known != class_name:
            dataset.problems.broken(
                path,
                record,
                number,
                f"it has the class {known!r} already, and {class_name!r} here",
                problems.CLASH,
                **nothing,
            )


def _stem(name: str) -> str:
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in PICTURES else name


class Pairs(NamedTuple):
    """Images and their instance maps, by file name without suffix.

    place: the folder of the maps, for messages. divisor, labels: see `read_instance_ids`; set for Cityscapes, where
    all other classes are background. class_name: the only class.
    """

    place: str
    images: dict[str, str]
    maps: dict[str, str]
    divisor: int | None = None
    labels: dict[int, str] | None = None
    class_name: str | None = None


class Picture(NamedTuple):
    """An image, its instance map, the size of both, and the ids in the map."""

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
    separate: bool | None = None,
    folder: str | None = None,
    source: str = "instance_ids",
    masks: bool = True,
    upright: bool | None = None,
    strict: bool = True,
) -> InstanceIdDataset:
    """Reads images/<name>.jpg with masks/<name>.png (or instances/, labels/), whose pixel values are instance ids.

    Also reads Cityscapes' leftImg8bit/ and gtFine/, with its classes, and Penn-Fudan's PNGImages/ and PedMasks/,
    whose maps are named <name>_mask.png.

    Instance maps may have 8 or 16 bits, a palette (the id is the palette index), or colors (r + 256 g + 65536 b).
    The class comes from the first of these that is given:

    - divisor: the class is id // divisor, as with 1000 in Cityscapes. Ids below the divisor belong to no single
      instance: a crowd if their class has instances elsewhere, else background, recorded in `problems`.
    - classes: a JSON file {name: {id: class}}, or a CSV file with the columns image, id and class.
    - a single class.
    - one class for all.

    Args:
        dataset_dir, subset: images are in `dataset_dir/subset/images` or `dataset_dir/images/subset`.
        class_name: the only class; None: the only entry of class_names, or "object".
        class_names: the classes, in this order; None: the names found, sorted.
        classes: the class file; None: classes.json or classes.csv next to the image folder, if it exists.
        labels: class names by number, or a list of the names of 1, 2, ..., for use with a divisor or separate=True;
            an unlisted number becomes its own name.
        separate: True: values are classes, and each connected piece is an instance. False: each value is one
            instance, in any number of pieces. None: like False, but values that look like classes are an error.
        folder: name of the folder of instance maps; None: detect it.
        source: name of the source in the dataset.
        masks, upright, strict: see `AnnotatedDataset`.

    Returns:
        A prepared dataset, images ordered by name; image ids are file names without suffix.

    Raises:
        FileNotFoundError: the folder is missing or has another layout.
        AnnotationError: an invalid record, named by file, record and field.
    """
    if divisor is not None and classes is not None:
        raise ValueError("divisor and classes both define the class of an instance; pass only one of them")
    place = _place(os.fspath(dataset_dir), subset, folder)
    dataset = InstanceIdDataset(place[1], strict, masks=masks, upright=upright)
    pairs = _pairs(dataset, *place)
    entries, gone = _pictures(dataset, pairs)
    numbers, only = {p.stem: p.numbers for p in entries}, only_name(class_name or pairs.class_name, class_names)
    by = pairs.divisor if divisor is None else divisor
    if separate:
        kinds = _kinds_by_number(numbers, numbered(labels), only)
    elif by is not None:
        kinds = kinds_by_divisor(dataset, numbers, by, numbered(labels), pairs.labels)
    elif path := _class_file(dataset_dir, place[0], classes):
        kinds = kinds_by_file(dataset, numbers, path, bool(subset), gone)
    else:
        if separate is None and not check_single(dataset, {p.stem: p.path for p in entries}, numbers):
            numbers = {stem: [] for stem in numbers}
        kinds = {stem: dict.fromkeys(of_image, Kind(only)) for stem, of_image in numbers.items()}
    found = {kind.class_name for of_image in kinds.values() for kind in of_image.values()}
    if pairs.labels and divisor is None:
        class_names = list(pairs.labels.values()) if class_names is None else class_names
        for of_image in kinds.values():  # drop Cityscapes' classes that were not requested
            for number in [number for number, kind in of_image.items() if kind.class_name not in class_names]:
                del of_image[number]
    table = Classes(dataset, source, found or {only}, class_names)
    for picture in entries:
        _add(dataset, source, picture, kinds[picture.stem], table, bool(separate))
    if not dataset.image_info:
        dataset.problems.broken(dataset.file, "", "images", "no image can be read")
    return dataset.finish()


def find(path: str, subset: str | None) -> Places:
    """images/ and masks/, instances/ or labels/ with image files; the layouts of Cityscapes and Penn-Fudan."""
    return [{"dataset_dir": path, "subset": subset}] if any(_places(path, subset, FOLDERS)) else []


def holds_pictures(folder: str) -> bool:
    """Whether a folder holds losslessly compressed images."""
    return any(entry.name.lower().endswith(LOSSLESS) and entry.is_file() for entry in listed(folder))


def _places(root: str, subset: str | None, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The existing pairs of an image folder and a folder of instance maps."""
    images, beside = paired_folders(root, subset, names, holds_pictures)
    yield from ((images, folder) for folder in beside)
    images, beside = paired_folders(root, subset, [PENN_FUDAN[1]], holds_pictures, PENN_FUDAN[0])
    yield from ((images, folder) for folder in beside)
    images, beside = paired_folders(root, subset, [CITYSCAPES[1]], os.path.isdir, CITYSCAPES[0])
    yield from ((images, folder) for folder in beside)


def _place(root: str, subset: str | None, folder: str | None) -> tuple[str, str]:
    """The image folder and the folder of instance maps."""
    names = FOLDERS if folder is None else (folder,)
    places = list(_places(root, subset, names))
    if len(places) > 1:
        beside = [path for _, path in places]
        raise ValueError(f"several folders may hold instance maps: {beside}; choose one with folder=")
    if not places:
        below = subset_folder(root, None)
        raise FileNotFoundError(
            f"no instance maps in {below!r}: expected images/ next to one of "
            f"{', '.join(name + '/' for name in names)}, with the subset's folder above or inside both; it "
            f"holds {names_in(below)}"
        )
    return places[0]


def _pairs(dataset: InstanceIdDataset, images: str, maps: str) -> Pairs:
    """The images and instance maps in two folders."""
    if CITYSCAPES[1] in maps.split(os.sep)[-2:]:
        return _cityscapes(images, maps)
    images_by_stem, maps_by_stem = by_stem(dataset, images), by_stem(dataset, maps, LOSSLESS)
    for stem in list(maps_by_stem):  # Penn-Fudan and others name the maps <name>_mask
        bare = stem.removesuffix(MASK)
        if stem not in images_by_stem and bare in images_by_stem and bare not in maps_by_stem:
            maps_by_stem[bare] = maps_by_stem.pop(stem)
    class_name = PEDESTRIAN if PENN_FUDAN[1] in maps.split(os.sep) else None
    return Pairs(maps, images_by_stem, maps_by_stem, class_name=class_name)


def _cityscapes(images: str, maps: str) -> Pairs:
    """Cityscapes' <city>/<name>_leftImg8bit.png and <city>/<name>_gtFine_instanceIds.png."""
    parts = [entry.name for entry in listed(images) if entry.name in CITYSCAPES_PARTS]
    if len(parts) > 1:
        raise ValueError(f"{images!r} holds the subsets {parts}; choose one, such as subset={parts[0]!r}")
    found = [
        {stem_of(e.path).removesuffix(end): e.path for e in below(folder) if stem_of(e.path).endswith(end)}
        for folder, end in ((images, f"_{CITYSCAPES[0]}"), (maps, f"_{CITYSCAPES[1]}_instanceIds"))
    ]
    return Pairs(maps, found[0], found[1], 1000, CITYSCAPES_CLASSES)


def _pictures(dataset: InstanceIdDataset, pairs: Pairs) -> tuple[list[Picture], dict[str, list[int]]]:
    """Images with their maps, and the ids in skipped maps, by stem; an image or map without its pair is an error."""
    gone = {}
    for stem in sorted(pairs.images.keys() ^ pairs.maps.keys()):
        there = pairs.maps if stem in pairs.maps else pairs.images
        gone[stem] = _readable_numbers(pairs.maps[stem]) if stem in pairs.maps else []
        path, other = there[stem], pairs.place if there is pairs.images else _folder_of(pairs.images)
        dataset.problems.broken(
            os.path.dirname(path),
            os.path.basename(path),
            "name",
            f"no file of this name in {other!r}",
            problems.MISSING,
            images=1,
            instances=len(gone[stem]),
        )
    found = []
    for stem in sorted(pairs.images.keys() & pairs.maps.keys()):
        image, path, record = pairs.images[stem], pairs.maps[stem], f"image {stem!r}"
        fitting = fitting_sizes(header_of(image))
        found_header = header_of(path)
        if found_header is not None and fitting and found_header.size not in fitting:
            gone[stem] = _readable_numbers(path)
            mask_size(dataset, path, record, image, fitting, images=1, instances=len(gone[stem]))
            continue
        values = read_numbers(dataset, path, record, image, fitting)
        if values is None:
            gone[stem] = []
            continue
        size = (int(values.shape[0]), int(values.shape[1])) if fitting else None
        found.append(Picture(stem, image, path, size, values_in(values)))
    return found, gone


def _folder_of(paths: Mapping[str, str]) -> str:
    return os.path.dirname(next(iter(paths.values()), ""))


def _readable_numbers(path: str) -> list[int]:
    """The ids in a map; empty if it cannot be read or is too large to read quickly."""
    header = header_of(path)
    try:
        if header is None or header.height * header.width > LARGE:
            return []
        return values_in(read_values(path))
    except (ValueError, OSError):
        return []


def _class_file(root: str | os.PathLike, images: str, classes: str | os.PathLike | None) -> str | None:
    """The class file: the given one, or one in the dataset's folder or next to the image folder."""
    if classes is not None:
        return os.fspath(classes)
    places = [os.path.join(folder, name) for folder in (os.path.dirname(images), root) for name in CLASS_FILES]
    return next(filter(os.path.isfile, places), None)


def _kinds_by_number(numbers: Numbers, labels: Mapping[int, str], only: str) -> Kinds:
    """Each value is the class of that number; a single value is the only class."""
    found = sorted({number for of_image in numbers.values() for number in of_image})
    single = len(found) == 1 and not labels
    names = {number: only if single else labels.get(number, f"class {number}") for number in found}
    return {stem: {number: Kind(names[number]) for number in of_image} for stem, of_image in numbers.items()}


def _add(
    dataset: InstanceIdDataset, source: str, picture: Picture, kinds: dict[int, Kind], classes: Classes, separate: bool
) -> None:
    instances = []
    pieces = pieces_of(read_values(picture.path)) if separate else {}
    for number, kind in kinds.items():
        record = f"image {picture.stem!r}, instance {number}"
        class_id = classes.number(kind.class_name, dataset.file, record, "class")
        if class_id is None:
            continue
        if not separate:
            outlines: list[tuple[str, Outline]] = [(record, MaskFile(picture.path, number))]
        elif picture.size is not None:
            outlines = [
                (f"{record}, piece {i}", piece_outline(places, *picture.size))
                for i, places in enumerate(pieces[number])
            ]
        else:
            outlines = []
        instances += [
            Instance(class_id, outline, kind.crowd, record=where, field="pixels") for where, outline in outlines
        ]
    height, width = picture.size or (None, None)
    dataset.add_annotated(source, picture.stem, picture.image, instances, height=height, width=width)

"""The classes of numbered instances: a part of the number, or a file beside the pictures."""

import os
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from mrcnn.data.formats import problems
from mrcnn.data.formats.annotated import AnnotatedDataset, read_json
from mrcnn.data.formats.folders import PICTURES
from mrcnn.data.formats.problems import AnnotationError
from mrcnn.data.formats.tables import read_rows

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

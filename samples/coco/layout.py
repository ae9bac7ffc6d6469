"""COCO's own folders: the location of each year's files, and their splits.

    DIR/annotations/instances_{train,val}{year}.json
    DIR/{train,val}{year}/*.jpg

For 2014, the old package's splits are used if both their files exist: `valminusminival` (35k images of val) is added to
the training images, and `minival` (the other 5k) is used for validation.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mrcnn.data.formats.coco import CocoDataset, read_coco

YEARS = (2014, 2017)
SERVER = "http://images.cocodataset.org"
MINIVAL = {  # 2014 only
    "minival": "https://dl.dropboxusercontent.com/s/o43o90bna78omob/instances_minival2014.json.zip?dl=0",
    "valminusminival": "https://dl.dropboxusercontent.com/s/s3tw5zcg7395368/instances_valminusminival2014.json.zip?dl=0",
}


class MissingData(FileNotFoundError):
    """Files of COCO are missing; the message says which, and how to get them."""


class Part(NamedTuple):
    """An annotation file and its image folder."""

    annotations: Path
    images: Path


class Archive(NamedTuple):
    """A zip file to download, the folder to unpack it to, the resulting paths, and whether the data are complete
    without it."""

    url: str
    folder: Path
    results: tuple[Path, ...]
    optional: bool = False

    def missing(self) -> list[Path]:
        """The results that do not exist."""
        return [path for path in self.results if not path.exists()]


def parts(dataset: str | Path, year: int, split: str) -> list[Part]:
    """The files of a split, "train" or "val". Raises ValueError for an unknown year or split."""
    if year not in YEARS or split not in ("train", "val"):
        raise ValueError(f"split {split!r} of {year!r}: expected train or val of {' or '.join(map(str, YEARS))}.")
    folder = Path(dataset)
    names = ["train" if split == "train" else "val"]
    if year == 2014 and all((folder / "annotations" / f"instances_{name}2014.json").is_file() for name in MINIVAL):
        names = ["train", "valminusminival"] if split == "train" else ["minival"]
    images = {"train": f"train{year}"}
    return [
        Part(folder / "annotations" / f"instances_{name}{year}.json", folder / images.get(name, f"val{year}"))
        for name in names
    ]


def archives(dataset: str | Path, year: int, splits: Sequence[str] = ("train", "val")) -> list[Archive]:
    """The archives on COCO's server for a year's splits."""
    folder = Path(dataset)
    annotations = folder / "annotations"
    names = [name for name in ("train", "val") if name in splits or (year == 2014 and name == "val")]
    found = [Archive(f"{SERVER}/zips/{name}{year}.zip", folder, (folder / f"{name}{year}",)) for name in names]
    minival = {url: annotations / f"instances_{name}2014.json" for name, url in MINIVAL.items()}
    wanted = [part.annotations for split in splits for part in parts(folder, year, split)]
    own = tuple(path for path in dict.fromkeys(wanted) if path not in minival.values())
    if own:
        found.append(Archive(f"{SERVER}/annotations/annotations_trainval{year}.zip", folder, own))
    if year == 2014:
        found += [Archive(url, annotations, (path,), optional=True) for url, path in minival.items()]
    return found


def require(dataset: str | Path, year: int, splits: Sequence[str] = ("train", "val")) -> None:
    """Raises MissingData if annotations or images of these splits are missing."""
    wanted = [path for split in splits for part in parts(dataset, year, split) for path in part]
    missing = [path for path in dict.fromkeys(wanted) if not path.exists()]
    if missing:
        raise MissingData(how_to_get(dataset, year, splits, missing))


def how_to_get(dataset: str | Path, year: int, splits: Sequence[str], missing: Sequence[Path]) -> str:
    """A message that says what is missing, and which files to put where."""
    folder = Path(dataset)
    state = "" if folder.is_dir() else " (it does not exist)"
    lines = [
        f"{folder} does not hold COCO {year}{state}. Missing:",
        *(f"    {path}" for path in missing),
        f"Set --dataset to the folder that holds annotations/ and val{year}/, with its --year; or use --download; or "
        "download and unpack by hand:",
        *(
            f"    {archive.url}  ->  {', '.join(map(str, archive.results))}{' (optional)' * archive.optional}"
            for archive in archives(folder, year, splits)
        ),
    ]
    return "\n".join(lines)


def load_split(
    dataset: str | Path, year: int, split: str, limit: int | None = None, class_names: Sequence[str] | None = None
) -> CocoDataset:
    """A split, as a prepared dataset.

    Args:
        dataset: the folder.
        split: "train" or "val".
        limit: use only this many images, in order of id.
        class_names: classes without background, in this order; None: all in the file, in order of id.

    Raises:
        MissingData: files are missing; the message says which to put where.
        AnnotationError: an invalid annotation file, named with record and field.
        ValueError: an unknown year or split, a limit below 1, or two files of a split with different categories.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit}: expected at least 1, or None for all images.")
    require(dataset, year, [split])
    first, *others = [
        read_coco(part.annotations, part.images, class_names=class_names) for part in parts(dataset, year, split)
    ]
    if others:
        _join(first, others)
    if others or limit is not None:
        first.image_info = sorted(first.image_info, key=lambda info: info["id"])[:limit]
        first.prepare()
    return first


def _join(first: CocoDataset, others: Sequence[CocoDataset]) -> None:
    """Adds the images and problems of other files; messages name the file as part of the record."""
    for other in others:
        if [info["id"] for info in other.class_info] != [info["id"] for info in first.class_info]:
            raise ValueError(f"{other.file} and {first.file} have different categories and cannot form one split.")
        for problem in other.problems:
            first.problems.noted(**dataclasses.asdict(problem))
    for dataset in (first, *others):
        name = os.path.basename(dataset.file)
        for info in dataset.image_info:
            info["record"] = f"{name}, {info['record']}"
            info["instances"] = [
                instance._replace(record=f"{name}, {instance.record}") for instance in info["instances"]
            ]
    for other in others:
        first.image_info += other.image_info
    first.file = os.path.dirname(first.file)


def fingerprint(folder: str | Path, year: int, split: str, dataset: CocoDataset) -> str:
    """A hash of a split's content, wherever its folder is: annotation files, classes, image names and sizes."""
    digest = hashlib.sha256()
    for part in parts(folder, year, split):
        with open(part.annotations, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    content = [
        dataset.class_names,
        [(info["id"], info["file_name"], os.path.getsize(info["path"])) for info in dataset.image_info],
    ]
    digest.update(json.dumps(content).encode())
    return digest.hexdigest()

"""Looks through a dataset before training, and says what it found and how the package treats it.

    python -m mrcnn.data.check DATA                          # the format is recognised
    python -m mrcnn.data.check DATA --subset train --images  # decodes every image, too
    python -m mrcnn.data.check DATA --json report.json       # the whole report, for a program
    python -m mrcnn.data.check DATA --page report.html       # with pictures of the instances in question
    python -m mrcnn.data.check DATA --fix CLEANED            # a copy in COCO's format of what training can use

Exit status: 0 when nothing is broken; 1 when a record had to be left out, a file is missing, or training would stop
(marked "!" in the report); 2 when the data could not be read at all. In Python::

    report = check(load_dataset("data"), images=True)
    print(report)
"""

import argparse
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from mrcnn.data.check.checker import Checker
from mrcnn.data.check.fix import ANNOTATIONS, check_empty, write_fixed
from mrcnn.data.check.page import write_page
from mrcnn.data.check.report import Report
from mrcnn.data.check.statistics import Statistics
from mrcnn.data.dataset import Dataset

__all__ = ["Report", "check", "main", "write_fixed", "write_page"]

BLOCK = 256  # images whose polygons are looked at together


def check(
    dataset: Dataset,
    *,
    images: bool = False,
    limit: int | None = None,
    progress: bool = False,
    examples: int = 3,
    min_dim: int = 800,
    max_dim: int = 1333,
    smallest_anchor: int = 32,
    max_instances: int = 100,
) -> Report:
    """Looks through a prepared dataset, image by image. Empty masks that show join the dataset's `problems`.

    Args:
        dataset: any Dataset. More is found in one that a reader made, which knows outlines and records.
        images: decode every image: truncated files, real sizes, the same picture twice.
        limit: look at the first so many images only.
        progress: show a bar.
        examples: findings of each kind that the text shows.
        min_dim, max_dim, smallest_anchor, max_instances: settings that the training will have (IMAGE_MIN_DIM,
            IMAGE_MAX_DIM, the least of RPN_ANCHOR_SCALES, MAX_GT_INSTANCES); see Statistics.

    Raises:
        ValueError: for a dataset that is not prepared, or a limit under 1.
    """
    if not hasattr(dataset, "class_names") or len(dataset.image_ids) != len(dataset.image_info):
        raise ValueError(
            f"the {type(dataset).__name__} of {len(dataset.image_info)} images is not prepared; call its "
            "prepare() first"
        )
    if limit is not None and limit < 1:
        raise ValueError(f"the limit is {limit}; give a number of images from 1 on, or None for all")
    start = time.monotonic()
    statistics = Statistics(
        dataset.class_names,
        min_dim=min_dim,
        max_dim=max_dim,
        smallest_anchor=smallest_anchor,
        max_instances=max_instances,
    )
    checker = Checker(dataset, statistics, images)
    ids = [int(i) for i in dataset.image_ids[:limit]]
    with tqdm(total=len(ids), desc="checking", unit="image", disable=not progress, leave=False) as shown:
        for start_id in range(0, len(ids), BLOCK):
            block = ids[start_id : start_id + BLOCK]
            checker.images(block)
            shown.update(len(block))
    if len(ids) == len(dataset.image_ids):
        checker.classes()
    return Report(
        checker.file,
        statistics,
        checker.findings(),
        checker.records(),
        len(ids),
        len(dataset.image_ids),
        images,
        time.monotonic() - start,
        examples,
        checker.places,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    options = _parse(arguments)
    shown = sys.stderr.isatty()
    try:
        for path in filter(None, (options.json, options.page)):
            check_writable(path)  # before minutes of work
        if options.fix:
            check_empty(options.fix)
            check_writable(os.path.join(options.fix, ANNOTATIONS))
    except (OSError, ValueError) as error:
        print(f"{error}", file=sys.stderr)
        return 2
    if shown:
        print(f"reading {options.path} ...", file=sys.stderr)
    try:
        dataset = _load(options)
    except (OSError, ValueError, TypeError) as error:
        print(f"{options.path} could not be read: {error}", file=sys.stderr)
        return 2
    settings = {
        "min_dim": options.min_dim,
        "max_dim": options.max_dim,
        "smallest_anchor": options.smallest_anchor,
        "max_instances": options.max_instances,
    }
    report = check(
        dataset, images=options.images, limit=options.limit, examples=options.examples, progress=shown, **settings
    )
    print(report)
    if options.json:
        report.save(options.json)
    if options.page:
        write_page(options.page, report, dataset)
    if options.fix:
        written = write_fixed(options.fix, dataset, progress=shown)
        print(f"{options.fix}: {written['images']:,} images with {written['instances']:,} instances were written")
    return int(bool(report.broken))


def check_writable(path: str | os.PathLike) -> None:
    """Raises OSError, naming the path, where no file can be written there; folders that are missing can be made."""
    path = os.path.abspath(path)
    if os.path.isdir(path):
        raise IsADirectoryError(f"cannot write {path!r}: it is a folder; name a file")
    folder = os.path.dirname(path)
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"cannot write {path!r}: {error.strerror or error} in {folder!r}; name another place") from error


def _load(options: argparse.Namespace) -> Dataset:
    """The dataset, with what is broken in it left out and counted."""
    from mrcnn.data.formats import load_dataset

    given = dict(options.option)
    if options.class_names is not None:
        given["class_names"] = options.class_names
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*: left out ")  # the report says it in full
        return load_dataset(options.path, options.subset, format=options.format, strict=False, **given)


def _from_1(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, got {text}")
    return number


def _option(text: str) -> tuple[str, Any]:
    """The name and value of NAME=VALUE; what is json, such as 3, true or ["a"], is taken as that."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m mrcnn.data.check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("path", help="a file of annotations, or a folder with one")
    add("--subset", help="such as train or val, where the folder holds several")
    add("--format", help="of the annotations, where it is not recognised")
    add("--class-names", nargs="+", metavar="NAME", help="the classes of the training, in its order")
    add(
        "--option",
        type=_option,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of the format's reader, such as image_dir=photographs",
    )
    add("--images", action="store_true", help="decode every image: damaged files, real sizes, pictures that repeat")
    add("--limit", type=_from_1, metavar="N", help="look at the first N images only")
    add("--json", metavar="FILE", help="write the whole report there")
    add("--page", metavar="FILE", help="write an HTML page with pictures of the instances in question there")
    add("--fix", metavar="FOLDER", help="write a cleaned copy there: what training can use, in COCO's format")
    add("--examples", type=int, default=3, metavar="N", help="findings of each kind to show (3)")
    settings = parser.add_argument_group("settings that the training will have")
    settings.add_argument("--min-dim", type=int, default=800, metavar="PIXELS", help="IMAGE_MIN_DIM (800)")
    settings.add_argument("--max-dim", type=int, default=1333, metavar="PIXELS", help="IMAGE_MAX_DIM (1333)")
    settings.add_argument(
        "--smallest-anchor", type=int, default=32, metavar="PIXELS", help="the least of RPN_ANCHOR_SCALES (32)"
    )
    settings.add_argument("--max-instances", type=int, default=100, metavar="N", help="MAX_GT_INSTANCES (100)")
    return parser.parse_args(arguments)

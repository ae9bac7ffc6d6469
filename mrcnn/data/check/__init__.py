"""Checks a dataset before training and reports what it found and how the package handles it.

    python -m mrcnn.data.check DATA                          # the format is detected
    python -m mrcnn.data.check DATA --subset train --images  # also decodes every image
    python -m mrcnn.data.check DATA --json report.json       # the full report, machine-readable
    python -m mrcnn.data.check DATA --page report.html       # with images of the affected instances
    python -m mrcnn.data.check DATA --fix CLEANED            # a copy in COCO format of what training can use

Exit status: 0 if nothing is broken; 1 if a record had to be left out, a file is missing, or training would stop
(marked "!" in the report); 2 if the data could not be read at all. In Python::

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

__all__ = ["Report", "check", "check_outputs", "main", "write_fixed", "write_page"]

BLOCK = 256  # images whose polygons are checked together


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
    """Checks a prepared dataset, image by image. Empty masks that turn up are added to the dataset's `problems`.

    Args:
        dataset: any Dataset. The check finds more in datasets made by a reader, which have outlines and records.
        images: decode every image to find truncated files, wrong sizes and duplicate images.
        limit: check only this many images from the start.
        progress: show a progress bar.
        examples: number of findings of each kind in the text.
        min_dim, max_dim, smallest_anchor, max_instances: the training settings (IMAGE_MIN_DIM, IMAGE_MAX_DIM, the
            smallest of RPN_ANCHOR_SCALES, MAX_GT_INSTANCES); see Statistics.

    Raises:
        ValueError: the dataset is not prepared, or limit is below 1.
    """
    if not hasattr(dataset, "class_names") or len(dataset.image_ids) != len(dataset.image_info):
        raise ValueError(
            f"the {type(dataset).__name__} of {len(dataset.image_info)} images is not prepared; call its "
            "prepare() first"
        )
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; expected at least 1 image, or None for all")
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
    """Runs the command and returns the exit status."""
    options = _parse(arguments)
    shown = sys.stderr.isatty()
    try:
        check_outputs(options.json, options.page, fix=options.fix)
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
        print(f"{options.fix}: wrote {written['images']:,} images with {written['instances']:,} instances")
    return int(bool(report.broken))


def check_outputs(*files: str | None, fix: str | None) -> None:
    """Raises OSError or ValueError if an output cannot be written, so that it fails before minutes of work."""
    for path in filter(None, files):
        check_writable(path)
    if fix:
        check_empty(fix)
        check_writable(os.path.join(fix, ANNOTATIONS))


def check_writable(path: str | os.PathLike) -> None:
    """Raises OSError, naming the path, if a file cannot be written there; missing folders may be created."""
    path = os.path.abspath(path)
    if os.path.isdir(path):
        raise IsADirectoryError(f"cannot write {path!r}: it is a folder; give the path of a file")
    folder = os.path.dirname(path)
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"cannot write {path!r}: {error.strerror or error} in {folder!r}; choose another path") from error


def _load(options: argparse.Namespace) -> Dataset:
    """The dataset, with its invalid records skipped and counted."""
    from mrcnn.data.formats import load_dataset

    given = dict(options.option)
    if options.class_names is not None:
        given["class_names"] = options.class_names
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*: left out ")  # the report lists them all
        return load_dataset(options.path, options.subset, format=options.format, strict=False, **given)


def _from_1(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a number >= 1, got {text}")
    return number


def _option(text: str) -> tuple[str, Any]:
    """The name and value of NAME=VALUE; values that are valid JSON, such as 3, true or ["a"], are parsed."""
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
    add("path", help="an annotation file, or a folder with one")
    add("--subset", help="for example train or val, if the folder holds several")
    add("--format", help="annotation format, if it cannot be detected")
    add("--class-names", nargs="+", metavar="NAME", help="the classes, in the order used for training")
    add(
        "--option",
        type=_option,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="option of the format's reader, such as image_dir=images",
    )
    add("--images", action="store_true", help="decode every image to find damaged files, wrong sizes and duplicates")
    add("--limit", type=_from_1, metavar="N", help="check only the first N images")
    add("--json", metavar="FILE", help="write the full report to this file")
    add("--page", metavar="FILE", help="write an HTML page with images of the affected instances")
    add("--fix", metavar="FOLDER", help="write a cleaned copy in COCO format, with what training can use")
    add("--examples", type=int, default=3, metavar="N", help="number of findings to show of each kind (3)")
    settings = parser.add_argument_group("training settings")
    settings.add_argument("--min-dim", type=int, default=800, metavar="PIXELS", help="IMAGE_MIN_DIM (800)")
    settings.add_argument("--max-dim", type=int, default=1333, metavar="PIXELS", help="IMAGE_MAX_DIM (1333)")
    settings.add_argument(
        "--smallest-anchor", type=int, default=32, metavar="PIXELS", help="smallest of RPN_ANCHOR_SCALES (32)"
    )
    settings.add_argument("--max-instances", type=int, default=100, metavar="N", help="MAX_GT_INSTANCES (100)")
    return parser.parse_args(arguments)

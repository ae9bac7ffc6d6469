"""Checks annotations before training, and reports what it found.

examples:
  mrcnn check data/
  mrcnn check data/ --subset train --images
  mrcnn check annotations.json --report report.json --page report.html
  mrcnn check data/ --fix cleaned/

The exit code is 1 if a record had to be left out, a file is missing, or
training would stop; those are marked "!". --images decodes every image.
"""

import argparse
import warnings

from mrcnn.cli import options
from mrcnn.cli.console import DONE, FAILED, Outcome

USAGE = "mrcnn check DATA [options]"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help="annotations: a file or a folder")
    parser.add_argument("--subset", metavar="NAME", help="part of the data, such as train")
    parser.add_argument("--format", metavar="NAME", help="annotation format, if it cannot be detected")
    parser.add_argument("--images", action="store_true", help="also decode every image")
    parser.add_argument("--limit", type=options.positive, metavar="N", help="only the first N images")
    parser.add_argument("--report", metavar="FILE", help="write the full report as JSON")
    parser.add_argument("--page", metavar="FILE", help="write an HTML page with images of the affected instances")
    parser.add_argument("--fix", metavar="FOLDER", help="write a cleaned copy in COCO format")


def run(arguments: argparse.Namespace) -> Outcome:
    from mrcnn.data.check import check, check_outputs, write_fixed, write_page
    from mrcnn.data.formats import load_dataset

    check_outputs(arguments.report, arguments.page, fix=arguments.fix)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*: left out ")  # the report lists them all
        dataset = load_dataset(arguments.data, arguments.subset, format=arguments.format, strict=False)
    report = check(dataset, images=arguments.images, limit=arguments.limit, progress=True)
    print(report)
    if arguments.report:
        report.save(arguments.report)
    if arguments.page:
        write_page(arguments.page, report, dataset)
    if arguments.fix:
        write_fixed(arguments.fix, dataset, progress=True)
    return Outcome(report.as_dict(), FAILED if report.broken else DONE)

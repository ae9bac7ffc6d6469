"""Computes COCO metrics (AP) of a model on annotated images.

examples:
  mrcnn evaluate coco/ --subset val2017 --weights mask_rcnn_coco.h5
  mrcnn evaluate data/ --subset val --weights last --boundary
  mrcnn evaluate annotations.json --weights model.h5 --results found.json

DATA is a file or folder of annotations in any supported format; classes of the
model and the data are matched by name. --results writes the detections in the
format of COCO's evaluation server.
"""

import argparse
from typing import Any

from mrcnn.cli import options

USAGE = "mrcnn evaluate DATA --weights W [options]"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help="annotations: a file or a folder")
    parser.add_argument("--subset", metavar="NAME", help="part of the data, such as val")
    parser.add_argument("--format", metavar="NAME", help="annotation format, if it cannot be detected")
    options.add_weights(parser)
    parser.add_argument("--limit", type=options.positive, metavar="N", help="only the first N images")
    parser.add_argument("--boundary", action="store_true", help="also compute Boundary AP")
    parser.add_argument("--results", metavar="FILE", help="write the detections as COCO results JSON")
    options.add_settings(parser)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    from mrcnn.data.formats import load_dataset
    from mrcnn.evaluation import evaluate
    from mrcnn.inference.class_names import WithClassesOf, names_of

    model = options.load_model(arguments)
    masks = model.config.MASK_HEAD is not None
    dataset = load_dataset(arguments.data, arguments.subset, format=arguments.format, masks=masks)
    names = names_of(model.class_names, model.config.NUM_CLASSES)
    judged = model if names == dataset.class_names else WithClassesOf(model, names, dataset.class_names)
    results = evaluate(judged, dataset, limit=arguments.limit, boundary=arguments.boundary, results=arguments.results)
    print(results)
    values = {"images": results.images, "instances": results.instances, "box": results.box, "mask": results.mask}
    return values | {"boundary": results.boundary, "per_class": results.per_class, "ms_per_image": results.ms_per_image}

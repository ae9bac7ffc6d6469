"""Lists published weights, or describes a file: program, classes, settings,
layers. Published weights are first downloaded to $MRCNN_CACHE.

examples:
  mrcnn weights
  mrcnn weights torchvision/maskrcnn_resnet50_fpn_v2
  mrcnn weights logs/cats20261130T101500/mask_rcnn_cats_0012.h5 --json

AP in percent as published, for boxes, masks and keypoints, on COCO val2017.
"""

import argparse
import math
from typing import Any

USAGE = "mrcnn weights [FILE|NAME]"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", metavar="FILE", help="a checkpoint of any supported program")


def run(arguments: argparse.Namespace) -> Any:
    return published() if arguments.file is None else described(arguments.file)


def published() -> list[dict[str, Any]]:
    """Prints the table of published weights; returns its rows."""
    from mrcnn.weights.published import PUBLISHED, cache_folder

    rows = [_row(weights) for weights in PUBLISHED.values()]
    print(f"{'name':44} {'MB':>5}  {'license':13} {'box':>4} {'mask':>4} {'key':>4}  here")
    for row in rows:
        size = f"{row['size'] / 1e6:.0f}" if row["size"] else ""
        figures = " ".join(
            "   ." if row[name] is None else f"{row[name]:4}" for name in ("box_ap", "mask_ap", "keypoint_ap")
        )
        print(f"{row['name']:44} {size:>5}  {row['license']:13} {figures}  {'yes' if row['path'] else ''}".rstrip())
        if row["note"]:
            print(f"  {row['note']}")
    print(f"files are kept in {cache_folder()}")
    return rows


def _row(weights: Any) -> dict[str, Any]:
    """A row of the table: the published data, and the path if the file is on this machine.

    `size` in bytes is the published one or that of the local file; None if unknown. If only the number of float32
    parameters is published, `size` is four times that, and `exact` is false.
    """
    path = weights.path()
    size = weights.size or (path.stat().st_size if path.is_file() else None)
    exact = size is not None
    if not exact and weights.parameters:
        size = 4 * weights.parameters
    values = {"name": weights.name, "url": weights.url, "sha256": weights.sha256}
    values |= {"size": size, "exact": exact}
    values |= {"license": weights.license, "box_ap": weights.box_ap, "mask_ap": weights.mask_ap}
    values |= {"keypoint_ap": weights.keypoint_ap, "note": weights.note}
    return {**values, "path": str(path) if path.is_file() else None}


def described(file: str) -> dict[str, Any]:
    """Prints the content of a file, and returns it."""
    from mrcnn.weights.pretrained import locate
    from mrcnn.weights.recognize import read_source

    path = locate(file)
    source = read_source(path)
    shapes = {name: list(tensor.shape) for name, tensor in source.tensors.items()}
    numbers = sum(math.prod(shape) for shape in shapes.values())
    values: dict[str, Any] = {"file": str(path), "program": source.program, "parts": list(source.parts)}
    values |= {"tensors": len(shapes), "parameters": numbers, "class_names": list(source.class_names)}
    values |= {"settings": source.settings, "notes": list(source.notes)}
    print(f"{path}: weights of {source.program}, {numbers:,} numbers in {len(shapes)} tensors")
    print(f"  parts     {', '.join(source.parts)}")
    if source.class_names:
        print(f"  classes   {len(source.class_names) - 1}: {', '.join(source.class_names[1:])}")
    for name, value in source.settings.items():
        print(f"  {name} = {value!r}")
    for line in source.notes:
        print(f"  {line}")
    return values

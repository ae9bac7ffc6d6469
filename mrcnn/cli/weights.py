"""Says what a file of weights holds: program, classes, settings, layers.

examples:
  mrcnn weights mask_rcnn_coco.h5
  mrcnn weights logs/cats20261130T101500/mask_rcnn_cats_0012.h5 --json
"""

import argparse
import math
from typing import Any

USAGE = "mrcnn weights FILE"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="a checkpoint of any program that the package reads")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    from mrcnn.weights.recognise import read_source

    source = read_source(arguments.file)
    shapes = {name: list(tensor.shape) for name, tensor in source.tensors.items()}
    numbers = sum(math.prod(shape) for shape in shapes.values())
    values = {"file": arguments.file, "program": source.program, "parts": list(source.parts)}
    values |= {"tensors": len(shapes), "parameters": numbers, "class_names": list(source.class_names)}
    values |= {"settings": source.settings, "notes": list(source.notes)}
    print(f"{arguments.file}: weights of {source.program}, {numbers:,} numbers in {len(shapes)} tensors")
    print(f"  parts     {', '.join(source.parts)}")
    if source.class_names:
        print(f"  classes   {len(source.class_names) - 1}: {', '.join(source.class_names[1:])}")
    for name, value in source.settings.items():
        print(f"  {name} = {value!r}")
    for line in source.notes:
        print(f"  {line}")
    return values

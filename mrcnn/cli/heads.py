"""Lists the mask and keypoint heads, or describes one: inputs, outputs and cost.

examples:
  mrcnn heads
  mrcnn heads unet
  mrcnn heads fcn:filters=64,convolutions=2

Choose a head by name: mrcnn train DATA --head unet
"""

import argparse
import inspect
from typing import Any

USAGE = "mrcnn heads [NAME[:OPTION=VALUE,...]]"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="describe only this head")
    parser.add_argument("--classes", type=int, default=81, metavar="N", help="with background, or keypoints (81)")


def run(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    import heads
    from mrcnn.cli.options import mask_head

    if arguments.name is not None:
        chosen = mask_head(arguments.name, kind=None)
        heads.describe(chosen, num_classes=arguments.classes)
        return [_summary(chosen["name"])]
    found = [_summary(name) for name in heads.names()]
    for head in found:
        print(f"{head['name']:20} {head['summary']}")
        if head["options"]:
            print(f"{'':20} {', '.join(f'{name}={value!r}' for name, value in head['options'].items())}")
    return found


def _summary(name: str) -> dict[str, Any]:
    """Name, kind, options with their defaults, and the first sentence of the description."""
    import heads

    head = heads.get(name)
    parameters = [
        p for p in inspect.signature(head).parameters.values() if p.name not in ("input_shape", "num_classes")
    ]
    defaults = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
    summary = (inspect.getdoc(head) or "").partition("\n\n")[0].replace("\n", " ")
    return {"name": name, "kind": getattr(head, "kind", "mask"), "options": defaults, "summary": summary}

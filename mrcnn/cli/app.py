"""Opens a page in the browser: drop images, see masks, choose confidence and
classes, correct class names, download JSON and cut-outs.
The page is for this machine only, unless --host says otherwise; Ctrl-C ends.

examples:
  mrcnn app --weights last
  mrcnn app --weights fcn.h5 --against unet.h5           (side by side)
  mrcnn app --weights w.h5 --tile 1024 --port 8000
"""

import argparse
import copy
import ipaddress
import os
import threading
from pathlib import Path
from typing import Any

from mrcnn.cli import options
from mrcnn.cli.console import note

USAGE = "mrcnn app --weights W [--against W2] [options]"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_weights(parser)
    parser.add_argument("--against", metavar="W2", help="a second model, whose results stand beside the first's")
    parser.add_argument(
        "--min-score", type=options.share, default=0.5, metavar="S", help="where the slider stands (0.5)"
    )
    parser.add_argument("--tile", type=options.tile_side, metavar="PX", help="large images: also in tiles of PX a side")
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDR", help="address to listen at (127.0.0.1)")
    parser.add_argument("--port", type=options.positive, metavar="N", help="(the first free one from 7860 on)")
    parser.add_argument("--open", action="store_true", help="open it in the browser")
    options.add_settings(parser)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from mrcnn.app.address import check_address
    from mrcnn.app.page import build_page, serve
    from mrcnn.app.session import NamedModel
    from mrcnn.inference.extras import require

    require("gradio", "app")  # before a model is built
    check_address(arguments.host, arguments.port)
    given = {"tile": arguments.tile} if arguments.tile else {}
    models: list[NamedModel] = []
    for weights in filter(None, (arguments.weights, arguments.against)):
        own = copy.copy(arguments)
        own.weights = weights
        models.append(NamedModel(_name(weights, models), options.load_model(own), **given))
    page = build_page(models, arguments.min_score)
    address = serve(page, arguments.host, arguments.port, arguments.open)
    if not _is_loopback(arguments.host):
        note(f"everybody who can reach {arguments.host} can use the page")
    note(f"{address} shows the page; Ctrl-C ends")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        note("")
    finally:
        page.close(verbose=False)
    return {"address": address}


def _name(weights: str, before: list[Any]) -> str:
    """What the page calls a model: its file, different from the other's."""
    name = Path(weights).name
    return name if all(name != other.name for other in before) else f"{name} (2)"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

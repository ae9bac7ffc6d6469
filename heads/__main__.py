"""python -m heads NAME: builds a head, says what it takes, gives and costs, and checks that it keeps the contract.

    python -m heads unet
    python -m heads mine --file my_head.py --classes 5 --option filters=64

--file runs a Python file that registers the head.
"""

import argparse
import ast
import runpy
import sys
from functools import partial
from typing import Any

import heads
from heads.protocol import contract


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; 0 if the head keeps the contract, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m heads", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", help=f"one of {', '.join(heads.names())}, or of --file; all without it")
    parser.add_argument("--file", help="a Python file that registers heads")
    parser.add_argument("--classes", type=int, default=4, help="mask channels with background, or keypoints")
    parser.add_argument("--features", type=int, nargs=3, default=[14, 14, 16], metavar=("HEIGHT", "WIDTH", "CHANNELS"))
    parser.add_argument("--option", type=_option, action="append", default=[], metavar="NAME=VALUE")
    parsed = parser.parse_args(arguments)
    if parsed.file:
        runpy.run_path(parsed.file)
    given = {"input_shape": tuple(parsed.features), "num_classes": parsed.classes, "options": dict(parsed.option)}
    return max([_check(name, given) for name in ([parsed.name] if parsed.name else heads.names())])


def _option(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value


def _check(name: str, given: dict[str, Any]) -> int:
    try:
        heads.describe(name, given["input_shape"], given["num_classes"], **given["options"])
    except (ValueError, TypeError, NotImplementedError) as error:
        print(f"FAILED  {error}")
        return 1
    failed = 0
    for check in contract.CHECKS:
        title = check.__name__.replace("_", " ")
        try:
            check(partial(heads.make, name, **given))
            print(f"  ok      {title}", flush=True)
        except (contract.BrokenContractError, ValueError, TypeError) as error:
            print(f"  FAILED  {title}: {error}", flush=True)
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())

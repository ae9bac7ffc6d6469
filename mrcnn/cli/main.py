"""`mrcnn COMMAND`: selects the command, and turns errors into exit codes and one-line messages."""

import argparse
import contextlib
import importlib
import json
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import mrcnn
from mrcnn.cli.console import DONE, FAILED, INTERRUPTED, Interrupted, Outcome, one_line

COMMANDS = {
    "detect": "find objects in images: pictures, COCO JSON, areas, cutouts",
    "video": "find and follow objects in a video",
    "train": "train on annotated images, or continue training",
    "evaluate": "compute COCO metrics on annotated images",
    "compare": "train mask heads from the same start and compare them",
    "check": "check annotations before training",
    "export": "write a model as ONNX, OpenVINO, LiteRT or SavedModel",
    "heads": "list the mask heads",
    "app": "browser app: drop images, view and correct masks",
    "weights": "list published weights, or describe a file",
}
WORDED = (OSError, ValueError, ImportError, RuntimeError, argparse.ArgumentTypeError)  # whose messages are sentences
EPILOG = """
`mrcnn COMMAND --help` shows the options of a command, with examples.

Exit codes: 0 success; 1 error; 2 wrong usage; 3 done, but some images could
not be read; 130 interrupted (run the same command to continue).
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0].startswith("-"):
        _about().parse_args(given or ["--help"])
        return DONE
    name, *rest = given
    if name not in COMMANDS:
        _about().error(f"unknown command {name!r}; choose one of {', '.join(COMMANDS)}")
    module = importlib.import_module(f"mrcnn.cli.{name}")
    return _run(name, module.run, _parser(name, module).parse_args(rest))


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Formats help for 80 columns and a single screen."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=22, width=80)


def _about() -> argparse.ArgumentParser:
    lines = "\n".join(f"  {name:10} {summary}" for name, summary in COMMANDS.items())
    parser = argparse.ArgumentParser(
        "mrcnn",
        usage="mrcnn COMMAND ...",
        description=f"Mask R-CNN on Keras 3.\n\ncommands:\n{lines}",
        epilog=EPILOG,
        formatter_class=Formatter,
    )
    parser.add_argument("--version", action="version", version=f"mrcnn {mrcnn.__version__}")
    return parser


def _parser(name: str, module: Any) -> argparse.ArgumentParser:
    """The parser of a command: its docstring is the help, with the examples after the options."""
    description, _, examples = module.__doc__.partition("examples:\n")
    parser = argparse.ArgumentParser(
        f"mrcnn {name}",
        description=description.strip(),
        epilog="examples:\n" + examples,
        formatter_class=Formatter,
        usage=module.USAGE,
        add_help=False,
    )
    parser._positionals.title = "arguments"
    module.add_arguments(parser)
    common = parser.add_argument_group("output")
    common.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    common.add_argument("--help", "-h", action="help", help="show this help and exit")
    return parser


def _run(name: str, run: Any, arguments: argparse.Namespace) -> int:
    """Runs a command. With --json, standard output holds only its result; everything else goes to standard error."""
    warnings.showwarning = lambda message, *_, **__: print(f"mrcnn {name}: {one_line(message)}", file=sys.stderr)
    output = sys.stdout
    try:
        with contextlib.redirect_stdout(sys.stderr) if arguments.json else contextlib.nullcontext():
            outcome = run(arguments)
        if not isinstance(outcome, Outcome):
            outcome = Outcome(outcome)
        if arguments.json:
            print(json.dumps(outcome.values, indent=2), file=output)
        output.flush()
        return outcome.code
    except BrokenPipeError:  # `mrcnn ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt as error:
        advice = f": {error}" if isinstance(error, Interrupted) else ""
        print(f"\nmrcnn {name}: interrupted{advice}", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if arguments.debug:
            raise
        message = one_line(error if isinstance(error, WORDED) else repr(error))
        print(f"mrcnn {name}: error: {message or type(error).__name__}", file=sys.stderr)
        if arguments.json:
            print(json.dumps({"error": str(error), "kind": type(error).__name__}), file=output)
        return FAILED

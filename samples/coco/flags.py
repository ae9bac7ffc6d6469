"""The command line of the COCO sample."""

import argparse
from collections.abc import Callable
from pathlib import Path

from samples.coco.layout import YEARS
from samples.coco.recipes import CONFIGS, EPOCHS, REFERENCE_EPOCHS
from samples.settings import add_settings

ROOT = Path(__file__).resolve().parents[2]


def count(text: str) -> int:
    """A whole number from 1 on. Raises ArgumentTypeError for another text."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, got {text!r}")
    return int(text)


def parse(arguments: list[str] | None, description: str) -> argparse.Namespace:
    """The command line; `command` says which of train, evaluate, compare and detect."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="train|evaluate|compare|detect")
    for name, (text, groups) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        for add in groups:
            add(command)
        add_settings(command, several_heads=name == "compare")
    parsed = parser.parse_args(arguments)
    if parsed.command == "compare" and parsed.model == "last":
        parser.error('compare begins each head from the same weights: --model imagenet, none or a path, not "last"')
    return parsed


def data(command: argparse.ArgumentParser) -> None:
    command.add_argument("--dataset", required=True, metavar="DIR", help="folder with annotations/ and the images")
    command.add_argument("--year", type=int, choices=YEARS, default=2017)
    command.add_argument("--download", action="store_true", help="fetch and unpack what is not there yet")
    command.add_argument("--limit", type=count, metavar="N", help="judge by the first N images only")


def weights(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--model",
        required=True,
        help='a checkpoint; "last", the newest in --logs; "coco", the old package\'s weights; '
        '"imagenet" or a keras.applications file, for the backbone; or "none"',
    )
    command.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="LAYER",
        help="layers of the checkpoint to leave out, a name or a regular expression; repeatable. For "
        "one of other classes: mrcnn_class_logits, mrcnn_bbox_fc and mrcnn_mask",
    )
    command.add_argument("--logs", default=str(ROOT / "logs"), metavar="DIR", help="where runs are kept")
    command.add_argument("--preset", choices=CONFIGS, help="whose conventions; reference unless a run says otherwise")


def schedule(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--epochs",
        type=count,
        help=f"the last epoch; {REFERENCE_EPOCHS}, or {EPOCHS['matterport']} with --preset matterport",
    )
    command.add_argument(
        "--layers",
        help='"heads", "3+", "4+", "5+", "all" or a regular expression; 3+ unless the '
        "weights are none; with --preset matterport the old three stages",
    )
    command.add_argument("--train-limit", type=count, metavar="N", help="learn from the first N images only")
    command.add_argument("--verbose", type=int, default=1, help="0 silent, 1 progress bar, 2 a line an epoch")


def validation(command: argparse.ArgumentParser) -> None:
    command.add_argument("--no-validation", action="store_true", help="take no val_ losses and no AP")
    command.add_argument("--every", type=count, default=1, metavar="N", help="take the AP every N epochs")
    command.add_argument("--metric", help='what the best epoch is chosen by, as "mask AP50"')
    command.add_argument(
        "--patience", type=count, metavar="N", help="end the training after N evaluations without a better one"
    )


def judging(command: argparse.ArgumentParser) -> None:
    command.add_argument("--split", choices=["train", "val"], default="val")
    command.add_argument("--boundary", action="store_true", help="Boundary AP, too")
    command.add_argument("--results", metavar="FILE", help="write the detections as json that COCO's server accepts")


def comparison(command: argparse.ArgumentParser) -> None:
    command.add_argument("--seeds", type=int, nargs="+", metavar="SEED", help="train each head once with each")
    command.add_argument("--output", type=Path, metavar="DIR", help="where the table goes; comparison/ in --logs")


def photographs(command: argparse.ArgumentParser) -> None:
    command.add_argument("--image", nargs="+", required=True, type=Path, metavar="PATH", help="files or folders")
    command.add_argument("--output", type=Path, metavar="DIR", help="where the pictures go; beside each photograph")
    command.add_argument("--min-score", type=float, default=0.5, help="what is found with less is not drawn")


Group = Callable[[argparse.ArgumentParser], None]
COMMANDS: dict[str, tuple[str, list[Group]]] = {
    "train": ("train, and validate with COCO's AP", [data, weights, schedule, validation]),
    "evaluate": ("COCO's numbers of a trained model", [data, weights, judging]),
    "compare": ("train mask heads from the same start and compare them", [data, weights, schedule, comparison]),
    "detect": ("draw what is found in photographs", [weights, photographs]),
}

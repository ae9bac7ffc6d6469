"""The COCO sample's command line."""

import argparse
from collections.abc import Callable
from pathlib import Path

from samples.coco.layout import YEARS
from samples.coco.recipes import CONFIGS, EPOCHS, REFERENCE_EPOCHS
from samples.settings import add_settings

ROOT = Path(__file__).resolve().parents[2]


def count(text: str) -> int:
    """An integer of at least 1. Raises ArgumentTypeError for anything else."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer >= 1, got {text!r}")
    return int(text)


def parse(arguments: list[str] | None, description: str) -> argparse.Namespace:
    """Parses the command line; `command` is train, evaluate, compare or detect."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="train|evaluate|compare|detect")
    for name, (text, groups) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        for add in groups:
            add(command)
        add_settings(command, several_heads=name == "compare")
    parsed = parser.parse_args(arguments)
    if parsed.command == "compare" and parsed.model == "last":
        parser.error('compare starts each head from the same weights: --model imagenet, none or a path, not "last"')
    return parsed


def data(command: argparse.ArgumentParser) -> None:
    command.add_argument("--dataset", required=True, metavar="DIR", help="folder with annotations/ and the images")
    command.add_argument("--year", type=int, choices=YEARS, default=2017)
    command.add_argument("--download", action="store_true", help="download and unpack missing files")
    command.add_argument("--limit", type=count, metavar="N", help="evaluate only on the first N images")


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
        help="layers of the checkpoint to skip, by name or regular expression; repeatable. For "
        "a checkpoint with other classes: mrcnn_class_logits, mrcnn_bbox_fc and mrcnn_mask",
    )
    command.add_argument("--logs", default=str(ROOT / "logs"), metavar="DIR", help="folder of training runs")
    command.add_argument("--preset", choices=CONFIGS, help="conventions to use; reference unless a run has others")


def schedule(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--epochs",
        type=count,
        help=f"last epoch; {REFERENCE_EPOCHS}, or {EPOCHS['matterport']} with --preset matterport",
    )
    command.add_argument(
        "--layers",
        help='"heads", "3+", "4+", "5+", "all" or a regular expression; 3+ unless the '
        "weights are none; with --preset matterport the old three stages",
    )
    command.add_argument("--train-limit", type=count, metavar="N", help="train only on the first N images")
    command.add_argument("--verbose", type=int, default=1, help="0 silent, 1 progress bar, 2 one line per epoch")


def validation(command: argparse.ArgumentParser) -> None:
    command.add_argument("--no-validation", action="store_true", help="compute neither val_ losses nor AP")
    command.add_argument("--every", type=count, default=1, metavar="N", help="compute AP every N epochs")
    command.add_argument("--metric", help='metric for the best epoch, such as "mask AP50"')
    command.add_argument("--patience", type=count, metavar="N", help="stop after N evaluations without improvement")


def judging(command: argparse.ArgumentParser) -> None:
    command.add_argument("--split", choices=["train", "val"], default="val")
    command.add_argument("--boundary", action="store_true", help="also compute Boundary AP")
    command.add_argument("--results", metavar="FILE", help="write the detections as JSON for COCO's server")


def comparison(command: argparse.ArgumentParser) -> None:
    command.add_argument("--seeds", type=int, nargs="+", metavar="SEED", help="train each head once per seed")
    command.add_argument(
        "--output", type=Path, metavar="DIR", help="folder for the table; default comparison/ in --logs"
    )


def photographs(command: argparse.ArgumentParser) -> None:
    command.add_argument("--image", nargs="+", required=True, type=Path, metavar="PATH", help="files or folders")
    command.add_argument(
        "--output", type=Path, metavar="DIR", help="folder for the drawings; default next to each image"
    )
    command.add_argument("--min-score", type=float, default=0.5, help="minimum score of the detections to draw")


Group = Callable[[argparse.ArgumentParser], None]
COMMANDS: dict[str, tuple[str, list[Group]]] = {
    "train": ("train, and validate with COCO AP", [data, weights, schedule, validation]),
    "evaluate": ("compute COCO metrics of a trained model", [data, weights, judging]),
    "compare": ("train mask heads from the same start and compare them", [data, weights, schedule, comparison]),
    "detect": ("draw the objects found in images", [weights, photographs]),
}

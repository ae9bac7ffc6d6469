"""How close the numbers of imported weights come to those of the programs that they were made with. Prints a table.

    python benchmarks/parity.py --oracles ORACLES
    python benchmarks/parity.py --oracles ORACLES --only live --torchvision-python DIR/bin/python \\
        --photographs COCO/val2017

Each row is a stage of a source, with the bar it must keep. Features, logits and deltas: the largest difference, by the
standard deviation of the tensor. "fed its RoIs": the other program's boxes through RoIAlign on the pyramid of this one.
Left over: detections (or proposals) without a partner of the same class. "decided by rounding": those that are not
counted there, as both programs' lists are right but for a decision with the boundary between the programs' own numbers,
which the row gives; see parity_rounding.py. Weights are seeded, none is downloaded.

With --torchvision-python torchvision's own models run live: other seeds, depths and sizes, photographs, and files that
torch itself saved, in both of its formats. Nothing is written but --json. Run "loading" on a machine that does nothing
else: it takes the time.
"""

import argparse
import sys
from pathlib import Path

import common  # noqa: F401  makes the checkout importable
from parity_rows import Row, report

PARTS = ("torchvision", "detectron2", "matterport", "live", "loading")


def main() -> int:
    """Prints the rows; 0 where all bars are kept."""
    arguments = parser().parse_args()
    rows = list(_rows(arguments))
    return report(rows, arguments.json)


def parser() -> argparse.ArgumentParser:
    """Flags."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--oracles", type=Path, required=True, help="folder of the oracles, with seeded.py")
    flags.add_argument("--only", nargs="+", choices=[*PARTS])
    flags.add_argument("--images", nargs="+", default=["a", "b"], choices=["a", "b"], help="of the oracles")
    flags.add_argument("--torchvision-python", help="a Python with torch and torchvision")
    flags.add_argument("--photographs", type=Path, help="a folder of .jpg files for torchvision")
    flags.add_argument("--count", type=int, default=2, help="of the photographs")
    flags.add_argument("--seeds", type=int, nargs="+", default=[1, 2], help="of torchvision's weights")
    flags.add_argument("--models", nargs="+", default=None, help="of torchvision: see parity_torchvision.py")
    flags.add_argument("--json", type=Path, help="file for the rows")
    return flags


def _rows(arguments: argparse.Namespace) -> list[Row]:
    import parity_keypoints
    import parity_live
    import parity_loading
    import parity_oracles

    rows = []
    for name, checks in parity_oracles.SOURCES.items():
        if arguments.only is None or name in arguments.only:
            for check in (*checks, *parity_keypoints.SOURCES.get(name, ())):
                rows += _told(check(arguments.oracles, arguments.images))
    if arguments.torchvision_python and (arguments.only is None or "live" in arguments.only):
        rows += _told(
            parity_live.torchvision(
                arguments.torchvision_python,
                arguments.oracles,
                seeds=arguments.seeds,
                models=arguments.models,
                photographs=arguments.photographs,
                count=arguments.count,
            )
        )
        rows += _told(
            parity_keypoints.torchvision(arguments.torchvision_python, arguments.oracles, seeds=arguments.seeds)
        )
    if arguments.only is None or "loading" in arguments.only:
        rows += _told(parity_loading.loading(arguments.oracles))
    return rows


def _told(rows):
    for row in rows:
        print(f"{row.source}, {row.stage}: {row.figure:.3g} {'' if row.passed else 'FAIL'}", file=sys.stderr)
        yield row


if __name__ == "__main__":
    sys.exit(main())

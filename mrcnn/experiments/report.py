"""The table of a head comparison as text, JSON, Markdown and a plot."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.files import atomic_path, write_atomically

# name in a row, title, digits, divisor; AP50 and AP75 are of masks
NUMBERS = (
    ("box_ap", "box AP", 3, 1),
    ("mask_ap", "mask AP", 3, 1),
    ("mask_ap50", "AP50", 3, 1),
    ("mask_ap75", "AP75", 3, 1),
    ("boundary_ap", "Boundary AP", 3, 1),
    ("parameters", "parameters", 0, 1),
    ("flops", "GFLOPs", 1, 1e9),
    ("ms_per_batch", "ms/RoI batch", 1, 1),
    ("ms_per_image", "ms/image", 0, 1),
)
APS = NUMBERS[:5]
LEAST_AP = 0.01  # lower bound of the plot's upper limit, so that noise around zero does not fill the axes

# "dataset", "head" and "seeds", and each number as one value or as a list with a value per seed
Row = dict[str, Any]


def mean(value: float | Sequence[float]) -> float:
    """Mean over the seeds."""
    return float(np.mean(value))


def spread(value: float | Sequence[float]) -> float | None:
    """Sample standard deviation (n - 1) over the seeds; None for a single seed."""
    values = np.atleast_1d(value)
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def names(rows: Sequence[Row]) -> list[str]:
    """What to call each row: its head, after its dataset if there are several."""
    several = len({row.get("dataset") for row in rows}) > 1
    return [f"{row['dataset']}, {row['head']}" if several else row["head"] for row in rows]


def cells(row: Row, name: str | None = None) -> list[str]:
    """The texts of a row: its name, then each mean, with the spread if there are several seeds."""
    texts = [name or row["head"]]
    for name, _, digits, divisor in NUMBERS:
        value = row.get(name)
        if value is None:
            texts.append("-")
            continue
        deviation = spread(value)
        text = f"{mean(value) / divisor:,.{digits}f}"
        texts.append(text if deviation is None else f"{text} ± {deviation / divisor:.{digits}f}")
    return texts


def text_table(rows: Sequence[Row]) -> str:
    """The table with aligned columns."""
    table = [["head", *(title for _, title, *_ in NUMBERS)], *map(cells, rows, names(rows))]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in table
    )


def markdown_table(rows: Sequence[Row]) -> str:
    """The table in GitHub's Markdown."""
    titles = [title for _, title, *_ in NUMBERS]
    lines = [["head", *titles], ["---", *("---:" for _ in NUMBERS)], *map(cells, rows, names(rows))]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def as_json(rows: Sequence[Row], about: dict[str, Any]) -> str:
    """Every value, and the means and spreads."""
    summary = [
        {
            "dataset": row.get("dataset"),
            "head": row["head"],
            "mean": {name: mean(row[name]) for name, *_ in NUMBERS if name in row},
            "spread": {name: spread(row[name]) for name, *_ in NUMBERS if isinstance(row.get(name), list)},
        }
        for row in rows
    ]
    return json.dumps({"about": about, "rows": list(rows), "summary": summary}, indent=2) + "\n"


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draws the APs of the heads side by side, and the mask AP over the time per RoI batch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    bars, costs = figure.subplots(1, 2, width_ratios=(2, 1))
    width = 0.8 / len(rows)
    for i, (row, name) in enumerate(zip(rows, names(rows), strict=True)):
        places = np.arange(len(APS)) + (i - (len(rows) - 1) / 2) * width
        errors = None if spread(row["mask_ap"]) is None else [spread(row[ap]) for ap, *_ in APS]
        bars.bar(places, [mean(row[ap]) for ap, *_ in APS], width * 0.9, label=name, yerr=errors, capsize=3)
        if "ms_per_batch" in row:
            costs.errorbar(
                mean(row["ms_per_batch"]),
                mean(row["mask_ap"]),
                yerr=spread(row["mask_ap"]),
                fmt="o",
                capsize=3,
                label=name,
            )
    bars.set_xticks(range(len(APS)), [title for _, title, *_ in APS])
    bars.set_ylabel("AP")
    bars.legend(frameon=False)
    costs.set_xlabel("ms per RoI batch")
    costs.set_ylabel("mask AP")
    costs.margins(0.15)
    costs.set_xlim(left=0)
    for axes in (bars, costs):
        axes.set_ylim(0, max(axes.get_ylim()[1], LEAST_AP))
        axes.spines[["top", "right"]].set_visible(False)
    content = io.BytesIO()
    figure.savefig(content, dpi=110, format="png")
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.getvalue())


def write(rows: Sequence[Row], folder: Path, about: dict[str, Any]) -> str:
    """Writes comparison.txt, .md, .json and .png into the folder, each completely or not at all; returns the text."""
    text = text_table(rows)
    write_atomically(folder / "comparison.txt", text + "\n")
    write_atomically(folder / "comparison.md", markdown_table(rows) + "\n")
    write_atomically(folder / "comparison.json", as_json(rows, about))
    plot(rows, folder / "comparison.png")
    return text

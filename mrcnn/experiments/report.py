"""The table of a head comparison as text, JSON, Markdown and a plot."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.experiments.significance import TEST, paired_t_test
from mrcnn.files import atomic_path, write_atomically

# name in a row, title, digits, divisor; APs without a qualifier are for masks
NUMBERS = (
    ("box_ap", "box AP", 3, 1),
    ("mask_ap", "mask AP", 3, 1),
    ("mask_ap50", "AP50", 3, 1),
    ("mask_ap75", "AP75", 3, 1),
    ("mask_ap_small", "APs", 3, 1),
    ("mask_ap_medium", "APm", 3, 1),
    ("mask_ap_large", "APl", 3, 1),
    ("boundary_ap", "Boundary AP", 3, 1),
    ("parameters", "parameters", 0, 1),
    ("multiply_adds", "GMAC/RoI", 2, 1e9),
    ("ms_per_batch", "ms/RoI batch", 1, 1),
    ("ms_per_image", "ms/image", 0, 1),
    ("training_seconds", "training s", 0, 1),
)
APS = NUMBERS[:8]
# Each AP in the results of `mrcnn.evaluation.evaluate`
AP_OF = {
    "box_ap": ("box", "AP"),
    "mask_ap": ("mask", "AP"),
    "mask_ap50": ("mask", "AP50"),
    "mask_ap75": ("mask", "AP75"),
    "mask_ap_small": ("mask", "APs"),
    "mask_ap_medium": ("mask", "APm"),
    "mask_ap_large": ("mask", "APl"),
    "boundary_ap": ("boundary", "AP"),
}
MEASURED = (*AP_OF, "ms_per_image", "training_seconds")  # one value per seed
TESTED = ("box_ap", "mask_ap", "mask_ap75", "boundary_ap")
LEAST_AP = 0.01  # minimum upper limit of the plot's axis, so that noise around zero does not fill it

# "dataset", "head" and "seeds", and each number as one value or as a list with a value per seed; None: nothing measured
Row = dict[str, Any]


def mean(value: Any) -> float | None:
    """Mean over the seeds; None if any of them has no value."""
    values = value if isinstance(value, list) else [value]
    return None if None in values else float(np.mean(values))


def spread(value: Any) -> float | None:
    """Sample standard deviation (n - 1) over the seeds; None for a single seed, or if any has no value."""
    values = value if isinstance(value, list) else [value]
    return float(np.std(values, ddof=1)) if len(values) > 1 and None not in values else None


def names(rows: Sequence[Row]) -> list[str]:
    """A name for each row: its head, preceded by its dataset if there are several."""
    several = len({row.get("dataset") for row in rows}) > 1
    return [f"{row['dataset']}, {row['head']}" if several else row["head"] for row in rows]


def cells(row: Row, name: str | None = None) -> list[str]:
    """The texts of a row: its name, then each mean, with the spread if there are several seeds."""
    texts = [name or row["head"]]
    for key, _, digits, divisor in NUMBERS:
        middle, deviation = mean(row.get(key)), spread(row.get(key))
        text = "-" if middle is None else f"{middle / divisor:,.{digits}f}"
        texts.append(text if deviation is None else f"{text} ± {deviation / divisor:.{digits}f}")
    return texts


def differences(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """How each head differs from the first one on the same dataset: dataset, head, reference, number, and a
    `Difference` with is_real, if both have the same seeds, at least two."""
    found = []
    for place, row in enumerate(rows):
        first = next(other for other in rows if other.get("dataset") == row.get("dataset"))
        if first is row or first["seeds"] != row["seeds"]:
            continue
        for name in TESTED:
            ours, theirs = row.get(name) or [], first.get(name) or []
            if ours and len(ours) == len(theirs) and None not in [*ours, *theirs]:
                difference = paired_t_test(ours, theirs)
                if difference is not None:
                    of = {"row": place, "dataset": row.get("dataset"), "head": row["head"], "reference": first["head"]}
                    found.append(of | {"number": name, **difference._asdict(), "is_real": difference.is_real})
    return found


def difference_lines(rows: Sequence[Row]) -> list[list[str]]:
    """The differences as cells, one line per head; empty if there are none."""
    titles = {name: title for name, title, *_ in NUMBERS}
    found, called = differences(rows), names(rows)
    lines = []
    for place in dict.fromkeys(each["row"] for each in found):
        own = {each["number"]: each for each in found if each["row"] == place}
        reference = next(iter(own.values()))["reference"]
        cell = {
            name: f"{each['mean']:+.3f} (p {_probability(each['p'])}{', real' if each['is_real'] else ''})"
            for name, each in own.items()
        }
        lines.append([f"{called[place]} - {reference}", *(cell.get(name, "-") for name in TESTED)])
    return [["difference", *(titles[name] for name in TESTED)], *lines] if lines else []


def _probability(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def text_table(rows: Sequence[Row]) -> str:
    """The table with aligned columns, and the differences of the heads."""
    table = [["head", *(title for _, title, *_ in NUMBERS)], *map(cells, rows, names(rows))]
    apart = difference_lines(rows)
    return "\n".join([*_aligned(table), *(["", *_aligned(apart), f"({TEST})"] if apart else [])])


def _aligned(table: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in table
    ]


def markdown_table(rows: Sequence[Row]) -> str:
    """The tables in GitHub's Markdown."""
    table = [["head", *(title for _, title, *_ in NUMBERS)], *map(cells, rows, names(rows))]
    apart = difference_lines(rows)
    return "\n".join([*_markdown(table), *(["", *_markdown(apart), "", f"Differences: {TEST}."] if apart else [])])


def _markdown(table: list[list[str]]) -> list[str]:
    first, *others = table
    lines = [first, ["---", *("---:" for _ in first[1:])], *others]
    return ["| " + " | ".join(line) + " |" for line in lines]


def as_json(rows: Sequence[Row], about: dict[str, Any], runs: Mapping[str, Any]) -> str:
    """Every value, means, spreads and differences, and the records of `mrcnn.experiments.records`."""
    summary = [
        {
            "dataset": row.get("dataset"),
            "head": row["head"],
            "mean": {name: mean(row[name]) for name, *_ in NUMBERS if name in row},
            "spread": {name: spread(row[name]) for name, *_ in NUMBERS if isinstance(row.get(name), list)},
        }
        for row in rows
    ]
    content = {
        "about": about,
        "rows": list(rows),
        "summary": summary,
        "test": TEST,
        "differences": differences(rows),
        "runs": runs,
    }
    return json.dumps(content, indent=2) + "\n"


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draws the APs of the heads side by side, and the mask AP over the time per RoI batch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    bars, costs = figure.subplots(1, 2, width_ratios=(2, 1))
    width = 0.8 / len(rows)
    for i, (row, name) in enumerate(zip(rows, names(rows), strict=True)):
        places = np.arange(len(APS)) + (i - (len(rows) - 1) / 2) * width
        errors = None if spread(row["mask_ap"]) is None else [spread(row.get(ap)) or 0.0 for ap, *_ in APS]
        heights = [mean(row.get(ap)) or 0.0 for ap, *_ in APS]
        bars.bar(places, heights, width * 0.9, label=name, yerr=errors, capsize=3)
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


def write(rows: Sequence[Row], folder: Path, about: dict[str, Any], runs: Mapping[str, Any]) -> str:
    """Writes comparison.txt, .md, .json and .png into the folder, each completely or not at all; returns the text."""
    text = text_table(rows)
    write_atomically(folder / "comparison.txt", text + "\n")
    write_atomically(folder / "comparison.md", markdown_table(rows) + "\n")
    write_atomically(folder / "comparison.json", as_json(rows, about, runs))
    plot(rows, folder / "comparison.png")
    return text

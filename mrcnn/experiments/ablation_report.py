"""The report of an ablation: the user's figures beside the paper's, as Markdown and JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mrcnn.experiments import report
from mrcnn.experiments.tables import Row
from mrcnn.files import write_atomically

TITLES = {
    "mask_ap": "mask AP",
    "mask_ap50": "AP50",
    "mask_ap75": "AP75",
    "box_ap": "box AP",
    "keypoint_ap": "keypoint AP",
}
WITHOUT_PAPER = ("mask_ap", "mask_ap50", "mask_ap75", "box_ap")  # shown where the paper has no figures


def numbers_of(rows: Sequence[Row]) -> list[str]:
    """Which numbers a table is about: those that the paper has of any row."""
    return [name for name in TITLES if any(name in row.paper for row in rows)] or list(WITHOUT_PAPER)


def summaries(rows: Sequence[Row], measured: Sequence[report.Row]) -> list[dict[str, Any]]:
    """For each row its label and settings, the paper's figures, and of its own in percent the mean and the spread.

    Numbers are by the names of `TITLES`. seeds: those that are done; a row without any has no numbers.
    """
    found = {row["head"]: row for row in measured}
    summary = []
    for row in rows:
        own: report.Row = found.get(row.label, {"seeds": []})
        values = {name: own.get(name) for name in numbers_of(rows)}
        summary.append(
            {
                "row": row.label,
                "settings": {name: _plain(value) for name, value in row.settings.items()},
                "seeds": own["seeds"],
                "paper": dict(row.paper),
                "values": {name: _percent(value) for name, value in values.items()},
                "mean": {name: _times_100(report.mean(value)) for name, value in values.items()},
                "spread": {name: _times_100(report.spread(value)) for name, value in values.items()},
            }
        )
    return summary


def _plain(value: Any) -> Any:
    """A setting as JSON has it; a function by its name."""
    return getattr(value, "__name__", type(value).__name__) if callable(value) else value


def _times_100(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _percent(values: Any) -> list[float | None]:
    return [_times_100(value) for value in values or []]


def order(summary: Sequence[Mapping[str, Any]], number: str) -> str:
    """A sentence on whether the rows' order by their mean is the paper's; empty where there are no two to compare.

    Rows with the same figure, to a tenth of a percent, have no order.
    """
    both = [row for row in summary if number in row["paper"] and row["mean"].get(number) is not None]
    if len(both) < 2:
        return ""
    ours, theirs = (
        _ranking({row["row"]: round(row[source][number], 1) for row in both}) for source in ("mean", "paper")
    )
    if ours == theirs:
        return f"By {TITLES[number]} the rows stand in the paper's order: {ours}."
    return f"By {TITLES[number]}: {ours}; the paper's order: {theirs}."


def _ranking(figures: Mapping[str, float]) -> str:
    names = sorted(figures, key=lambda name: -figures[name])
    signs = [" = " if figures[one] == figures[other] else " > " for one, other in zip(names, names[1:], strict=False)]
    return "".join(part for pair in zip(names, [*signs, ""], strict=True) for part in pair)


def markdown(table: str, rows: Sequence[Row], summary: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> str:
    """The table: a line per row; for each number the paper's figure and the mean of the user's seeds, with the spread
    and the difference from the first row that is done."""
    names, has_paper = numbers_of(rows), any(row.paper for row in rows)
    heads = ["row", "seeds"]
    for name in names:
        heads += [f"{TITLES[name]}, paper"] * has_paper + [f"{TITLES[name]}, here", "difference"]
    lines = [heads, ["---", *("---:" for _ in heads[1:])]]
    for row in summary:
        cells = [row["row"], ", ".join(map(str, row["seeds"])) or "-"]
        for name in names:
            first = next((other["mean"][name] for other in summary if other["mean"][name] is not None), None)
            cells += [_figure(row["paper"].get(name))] * has_paper
            cells += [_mean(row, name), _difference(row["mean"][name], first)]
        lines.append(cells)
    title = "The old package's causes, one at a time" if table == "matterport" else f"Table {table} of Mask R-CNN"
    text = [f"# {title}", "", *("| " + " | ".join(line) + " |" for line in lines), ""]
    text += [
        "AP in percent on the validation data: the mean over the seeds and the sample standard deviation. The paper's "
        "figures are of COCO. Differences are from the first row.",
        "",
        *(["A row of one seed has no spread: its difference may be chance."] if _single(summary) else []),
        *(sentence for name in names if (sentence := order(summary, name))),
        f"Initial weights: {about['model']}.",
    ]
    return "\n".join(text) + "\n"


def _single(summary: Sequence[Mapping[str, Any]]) -> bool:
    return any(len(row["seeds"]) == 1 for row in summary)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _mean(row: Mapping[str, Any], name: str) -> str:
    spread = row["spread"][name]
    return _figure(row["mean"][name]) + ("" if spread is None else f" ± {spread:.1f}")


def _difference(value: float | None, first: float | None) -> str:
    return "-" if value is None or first is None else f"{value - first:+.1f}"


def write(
    table: str, rows: Sequence[Row], measured: Sequence[report.Row], folder: Path, about: Mapping[str, Any]
) -> str:
    """Writes ablation.md and ablation.json into the folder, each completely or not at all; returns the first."""
    summary = summaries(rows, measured)
    text = markdown(table, rows, summary, about)
    orders = {name: order(summary, name) for name in numbers_of(rows)}
    content = {"about": dict(about), "rows": summary, "order": orders}
    write_atomically(folder / "ablation.md", text)
    write_atomically(folder / "ablation.json", json.dumps(content, indent=2) + "\n")
    return text

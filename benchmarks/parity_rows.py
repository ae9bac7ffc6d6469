"""Rows of the table of parity, and the comparisons behind their figures. numpy only."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Row(NamedTuple):
    """One stage of one source: its bar, what was measured, and how to read it."""

    source: str
    stage: str
    bar: float | None  # None: measured only
    figure: float
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether the figure is within the bar; NaN never is."""
        return self.bar is None or self.figure <= self.bar

    def as_dict(self) -> dict[str, Any]:
        """For json."""
        return self._asdict() | {"figure": float(self.figure), "passed": bool(self.passed)}


def table(rows: Sequence[Row]) -> str:
    """The rows as a table of Markdown."""
    lines = ["| source | stage | bar | measured | |", "|---|---|---|---|---|"]
    for row in rows:
        verdict = "" if row.bar is None else "pass" if row.passed else "FAIL"
        bar = "" if row.bar is None else f"{row.bar:g}"
        note = f" {row.note}" if row.note else ""
        lines.append(f"| {row.source} | {row.stage} | {bar} | {row.figure:.3g}{note} | {verdict} |")
    return "\n".join(lines)


def report(rows: Sequence[Row], file: Path | None) -> int:
    """Prints the rows, and writes them to a JSON file if one is given. Returns 0 if all bars are kept, else 1."""
    print(table(rows))
    failed = [row for row in rows if not row.passed]
    print(f"\n{sum(row.bar is not None for row in rows)} bars, {len(failed)} not kept")
    if file:
        file.write_text(json.dumps([row.as_dict() for row in rows], indent=1))
    return int(bool(failed))


def relative(found: Any, expected: Any, deviation: float | None = None) -> float:
    """Largest difference by the standard deviation of what is expected, or by `deviation`."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if found.shape != expected.shape:
        raise ValueError(f"arrays of {found.shape} and {expected.shape} are compared")
    return float(np.abs(found - expected).max() / (expected.std() if deviation is None else deviation))


def sampled(features: Any) -> np.ndarray:
    """[B, H, W, C] as the compact oracles keep it."""
    features = np.asarray(features)
    every, channel = max(1, features.shape[1] // 8), max(1, features.shape[3] // 32)
    return features[:, ::every, ::every, ::channel]


def match(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], reach: float) -> list[tuple[int, int]]:
    """Pairs (index found, index expected), one to one: of one class, boxes at most `reach` pixels apart, the closest
    first.

    Both hold "boxes" [n, 4]; "class_ids" and "scores" [n] where they have them.
    """
    cost = np.abs(found["boxes"][:, None] - expected["boxes"][None]).max(axis=-1)
    allowed = cost <= reach
    if "class_ids" in expected:
        allowed &= found["class_ids"][:, None] == expected["class_ids"][None]
    if "scores" in expected:  # boxes that coincide are told apart by their scores
        cost = cost + 100 * np.abs(found["scores"][:, None] - expected["scores"][None])
    pairs, ours, theirs = [], set(), set()
    flat = np.flatnonzero(allowed)
    for place in flat[np.argsort(cost.ravel()[flat], kind="stable")]:
        i, j = divmod(int(place), cost.shape[1])
        if i not in ours and j not in theirs:
            pairs.append((i, j))
            ours.add(i)
            theirs.add(j)
    return pairs


def detection_rows(
    source: str,
    stage: str,
    found: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
    *,
    bars: Mapping[str, float | None],
    reach: float = 1.0,
    verdict: Callable[[], Any] | None = None,
) -> list[Row]:
    """Detections or proposals against each other.

    Args:
        found, expected: "boxes", and where both have them "class_ids", "scores" and "masks" (probabilities [n, s, s]),
            or "pasted" (whole masks [H, W, n] bool).
        bars: for "unmatched", "boxes" (pixels), "scores", "masks" (probability), "pasted" (1 - IoU).
        reach: see `match`.
        verdict: asked where some are left over, of both lists in this order; see `parity_rounding.Verdict`.

    Returns:
        The rows; where there is no pair, one that is not kept in place of the figures of pairs, unless both are empty.
    """
    pairs = match(found, expected, reach)
    ours, theirs = [i for i, _ in pairs], [j for _, j in pairs]
    count, other = len(found["boxes"]), len(expected["boxes"])
    left = set(range(count)) - set(ours), set(range(other)) - set(theirs)
    note = f"({len(pairs)} pairs of {count} and {other})"
    rows = _left_over(source, stage, bars.get("unmatched"), note, left, verdict)
    if not pairs:
        alone = max(count, other)
        return [*rows, Row(source, f"{stage}: no pair to compare", 0, alone, "of these")] if alone else rows
    for name, unit in (("boxes", "px"), ("scores", ""), ("masks", "")):
        if name in expected and name in found:
            apart = np.abs(np.asarray(found[name])[ours].astype(float) - np.asarray(expected[name])[theirs])
            apart = apart.reshape(len(pairs), -1).max(axis=1)
            rows.append(
                Row(
                    source,
                    f"{stage}: {'mask probabilities' if name == 'masks' else name}",
                    bars.get(name),
                    apart.max(),
                    f"{unit} (median {np.median(apart):.1g})".strip(),
                )
            )
    if "pasted" in expected and "pasted" in found:
        apart = [1 - iou(found["pasted"][..., i], expected["pasted"][..., j]) for i, j in pairs]
        rows.append(
            Row(
                source,
                f"{stage}: whole masks, 1 - IoU",
                bars.get("pasted"),
                max(apart),
                f"(median {np.median(apart):.1g})",
            )
        )
    return rows


def _left_over(
    source: str,
    stage: str,
    bar: float | None,
    note: str,
    left: tuple[set[int], set[int]],
    verdict: Callable[[], Any] | None,
) -> list[Row]:
    """The row of those without a partner; where rounding is to blame for some, a second one that says so.

    Args:
        note: how many there are.
        left: indices of those, in found and in expected.
        verdict: see `detection_rows`.
    """
    alone = max(map(len, left))
    if not alone or verdict is None:
        return [Row(source, f"{stage}: left over", bar, alone, note)]
    judged = verdict()
    if not judged.excused:
        return [Row(source, f"{stage}: left over", bar, alone, f"{note}: {'; '.join(judged.faults[:3])}")]
    # A decision explains the detections that one list alone has, not one that both have and that found no partner
    rest = max(len(some - set(own)) for some, own in zip(left, judged.alone, strict=True))
    margins, others = "; ".join(map(str, judged.decisions)), ": both lists have the candidates of the rest"
    return [
        Row(
            source,
            f"{stage}: left over",
            bar,
            rest,
            f"{note[:-1]}, {alone - rest} by rounding){others if rest else ''}",
        ),
        Row(source, f"{stage}: decided by rounding", None, alone - rest, f"({margins})"),
    ]


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """Of two masks; 1 where both are empty."""
    union = np.logical_or(one, other).sum()
    return float(np.logical_and(one, other).sum() / union) if union else 1.0


def xyxy(boxes: np.ndarray) -> np.ndarray:
    """(x1, y1, x2, y2) as (y1, x1, y2, x2), or back."""
    return np.asarray(boxes)[..., [1, 0, 3, 2]]


def nhwc(array: np.ndarray) -> np.ndarray:
    """[B, C, H, W] as [B, H, W, C]."""
    return np.asarray(array).transpose(0, 2, 3, 1)

"""Who is measured, in which order, and what the rounds say."""

import itertools
import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

OURS = "this package"
COLUMNS = (
    "program",
    "precision",
    "batch",
    "photograph",
    "seconds",
    "CPU seconds",
    "an image",
    "ours / it",
    "by CPU",
    "of its first",
    "peak MB",
    "above import",
    "build s",
    "first call s",
    "found",
)


class Case(NamedTuple):
    """What one process measures: a program on one combination of settings."""

    program: str
    precision: str
    batch: int
    height: int  # of the photographs
    width: int

    @property
    def setting(self) -> tuple:
        """All but the program: cases that share it are compared."""
        return self[1:]

    @property
    def photograph(self) -> str:
        """height x width."""
        return f"{self.height}x{self.width}"


def cases(
    programs: Iterable[str], precisions: Sequence[str], batches: Sequence[int], photographs: Sequence[tuple[int, int]]
) -> list[Case]:
    """Every program on every combination; programs of one combination stand together."""
    combinations = itertools.product(photographs, batches, precisions)
    programs = list(programs)
    return [
        Case(program, precision, batch, *photograph)
        for photograph, batch, precision in combinations
        for program in programs
    ]


def interleaved(every: Sequence[Case], rounds: int) -> Iterator[tuple[int, Case]]:
    """(round, case): each case once a round, in an order that begins one further each time, so that nobody always
    follows the same one."""
    for number in range(rounds):
        start = number % len(every)
        for case in [*every[start:], *every[:start]]:
            yield number, case


def summary(
    started: dict[Case, dict], measured: Sequence[dict[Case, dict]], found: dict[Case, dict]
) -> list[dict[str, Any]]:
    """A row a case: medians over the rounds, and ratios as medians of those within a round.

    Args:
        started: what each program said when it had built and called once.
        measured: a dict a round, of what it said of each call.
        found: what its last call gave.

    Returns dicts by the names of the table's columns, in lower case, with "rounds" (seconds of each) and "pasted".
    `ours_ratio`, `cpu_ratio`: this package's seconds, wall and CPU, in parts of the row's. `first_ratio`: seconds an
    image in parts of those of the program's first case; None where it has but one.
    """
    rows = []
    for case in started:
        rows.append(_row(case, started, measured, found[case], [r[case]["seconds"] for r in measured], ""))
        for name in measured[0][case]["apart_s"]:
            times = [r[case]["seconds"] + r[case]["apart_s"][name] for r in measured]
            rows.append(_row(case, started, measured, found[case], times, f", and {name}"))
    return rows


def _row(
    case: Case,
    started: dict[Case, dict],
    measured: Sequence[dict[Case, dict]],
    found: dict,
    times: list[float],
    more: str,
) -> dict[str, Any]:
    ours, first = Case(OURS, *case.setting), next(c for c in started if c.program == case.program)
    beside = case != ours and ours in started
    ratio = [r[ours]["seconds"] / t for r, t in zip(measured, times, strict=True)] if beside else None
    cpu_ratio = [r[ours]["cpu_s"] / r[case]["cpu_s"] for r in measured] if beside and not more else None
    of_first = [t / case.batch / (r[first]["seconds"] / first.batch) for r, t in zip(measured, times, strict=True)]
    images = found.get("images", case.batch)
    begun = started[case]
    peak = max(r[case]["peak_mb"] for r in measured)
    return {
        "program": case.program + more,
        "precision": case.precision,
        "batch": case.batch,
        "photograph": case.photograph,
        "seconds": statistics.median(times),
        "rounds": times,
        "cpu_s": statistics.median(r[case]["cpu_s"] for r in measured),
        "seconds_an_image": statistics.median(times) / images,
        "ours_ratio": ratio and statistics.median(ratio),
        "cpu_ratio": cpu_ratio and statistics.median(cpu_ratio),
        "first_ratio": None if case == first else statistics.median(of_first),
        "peak_mb": peak,
        "above_import_mb": peak - begun["imported_mb"],
        "build_s": begun["build_s"],
        "first_s": begun["first_s"],
        "found": found,
        "version": begun["version"],
        "note": begun["note"],
    }


def fastest(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each combination: this package beside the fastest peer, and the fastest whose call pastes the
    masks."""
    lines = []
    settings = dict.fromkeys((r["precision"], r["batch"], r["photograph"]) for r in rows)
    for setting in settings:
        peers = [
            r for r in rows if r["ours_ratio"] is not None and (r["precision"], r["batch"], r["photograph"]) == setting
        ]
        pasting = [r for r in peers if r["found"].get("pasted")]
        told = []
        for some, name in ((peers, "the fastest peer"), (pasting, "the fastest that pastes masks itself")):
            if some:
                best = max(some, key=lambda row: row["ours_ratio"])
                told.append(f"{best['ours_ratio']:.2f} of the time of {name}, {best['program']}")
        if told:
            lines.append(f"{setting[0]}, batch {setting[1]}, {setting[2]}: {'; '.join(told)}")
    return lines


def each_beside_each(rows: Sequence[dict[str, Any]]) -> str:
    """The rows' seconds in parts of each other's, whatever their precisions: median of the ratios within a round.

    Returns a Markdown table for each batch and size of photographs; empty where no two rows share them.
    """
    tables = []
    for setting in dict.fromkeys((row["batch"], row["photograph"]) for row in rows):
        some = [row for row in rows if (row["batch"], row["photograph"]) == setting]
        if len(some) < 2:
            continue
        names = [f"{row['program']}, {row['precision']}" for row in some]
        lines = [f"| batch {setting[0]}, {setting[1]} | " + " | ".join(names) + " |", "|" + " --- |" * (len(some) + 1)]
        for name, row in zip(names, some, strict=True):
            ratios = ["" if other is row else f"{_ratio(row, other):.2f}" for other in some]
            lines.append(f"| {name} | " + " | ".join(ratios) + " |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def _ratio(row: dict[str, Any], other: dict[str, Any]) -> float:
    return statistics.median(a / b for a, b in zip(row["rounds"], other["rounds"], strict=True))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    return "\n".join(lines + ["| " + " | ".join(_cells(row)) + " |" for row in rows])


def _cells(row: dict[str, Any]) -> list[str]:
    spread = f"{row['seconds']:.2f} ({min(row['rounds']):.2f}-{max(row['rounds']):.2f})"
    found = ", ".join(f"{name} {value}" for name, value in row["found"].items() if name != "pasted")
    ratios = ["" if row[name] is None else f"{row[name]:.2f}" for name in ("ours_ratio", "cpu_ratio", "first_ratio")]
    return [
        row["program"],
        row["precision"],
        str(row["batch"]),
        row["photograph"],
        spread,
        f"{row['cpu_s']:.2f}",
        f"{row['seconds_an_image']:.2f}",
        *ratios,
        f"{row['peak_mb']:.0f}",
        f"{row['above_import_mb']:.0f}",
        f"{row['build_s']:.1f}",
        f"{row['first_s']:.1f}",
        found,
    ]

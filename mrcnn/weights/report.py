"""The report of loading weights: the outcome for every tensor."""

import html
from typing import NamedTuple

Shape = tuple[int, ...]
HTML_ROWS = 20


class Tensor(NamedTuple):
    """One weight: its name `<layer>/<weight>` and its shape in model and file; None where it is missing."""

    name: str
    model_shape: Shape | None
    file_shape: Shape | None


class LoadReport(NamedTuple):
    """Every tensor of the model and of the file, in exactly one of four lists.

    loaded: assigned to the model.
    skipped: not loaded because it was excluded, or because its shape differs and that was allowed.
    missing: in the model, absent from the file.
    unexpected: in the file, unknown to the model.
    notes: descriptions of conversions, and of what the file does not cover.
    """

    loaded: list[Tensor]
    skipped: list[Tensor]
    missing: list[Tensor]
    unexpected: list[Tensor]
    notes: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """The number of tensors in each list, in one line."""
        counts = [f"{len(getattr(self, kind))} {kind}" for kind in ("loaded", "skipped", "missing", "unexpected")]
        return f"weights: {', '.join(counts)}"

    def __str__(self) -> str:
        """The counts in one line, the notes, then a table of everything that was not loaded."""
        lines = [self.summary, *(f"  {note}" for note in self.notes)]
        for kind in ("skipped", "missing", "unexpected"):
            lines += format_tensors(getattr(self, kind), kind)
        return "\n".join(lines)

    def __repr__(self) -> str:
        """One line, so that a report at the end of a notebook cell does not fill the page. `print` shows the table."""
        return f"<LoadReport {self.summary}>"

    def _repr_html_(self) -> str:
        """The counts and notes, and the collapsed table."""
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self.notes)
        rows = [
            line for kind in ("skipped", "missing", "unexpected") for line in format_tensors(getattr(self, kind), kind)
        ]
        shown, more = rows[:HTML_ROWS], len(rows) - HTML_ROWS
        table = html.escape("\n".join(shown + [f"... and {more} more lines; print shows all"] * (more > 0)))
        details = f"<details><summary>not loaded</summary><pre>{table}</pre></details>" if rows else ""
        return f"<p>{self.summary}</p>{f'<ul>{notes}</ul>' if notes else ''}{details}"


def format_tensors(tensors: list[Tensor], title: str) -> list[str]:
    """One line per tensor with both shapes, under a title line; nothing for an empty list."""
    if not tensors:
        return []
    width = max(len(tensor.name) for tensor in tensors)
    rows = [f"  {t.name:<{width}}  model {_shape(t.model_shape):<20} file {_shape(t.file_shape)}" for t in tensors]
    return [f"{title}:", *rows]


def _shape(shape: Shape | None) -> str:
    return "-" if shape is None else str(tuple(shape))

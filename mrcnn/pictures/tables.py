"""Tables: HTML in a notebook, aligned text elsewhere."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

OVERFLOW = 1000.0


def display_table(table: Iterable[Sequence[Any]]) -> str:
    """Shows rows of cells, and returns the output: HTML in a notebook, text elsewhere."""
    rows = [[str(cell) for cell in row] for row in table]
    if not _in_notebook():
        text = "\n".join(_aligned(rows))
        print(text)
        return text
    from IPython.display import HTML, display

    page = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    page = f"<table>{page}</table>"
    display(HTML(page))
    return page


def display_weight_stats(model: Any) -> list[list[str]]:
    """Shows the shape, minimum, maximum and standard deviation of every weight of a model.

    Args:
        model: a `MaskRCNN`, or any Keras model.

    Returns:
        The rows, header first. A kernel whose values are all equal is marked "dead?"; values that are not finite or
        exceed 1000 in magnitude are marked "overflow?".
    """
    rows = [["weight", "shape", "min", "max", "std", ""]]
    for name, values in _named_weights(model):
        numbers = [f"{value:+10.4f}" for value in (values.min(), values.max(), values.std())]
        rows.append([name, str(values.shape), *numbers, _suspicion(values)])
    display_table(rows)
    return rows


def _named_weights(model: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Name and values of all weights, "part/layer/weight"."""
    network = getattr(model, "network", None)
    weights = network.layers() if network is not None else {"": model}
    for key, layer in weights.items():
        for weight in layer.weights:
            yield f"{key}/{weight.name}" if key else weight.path, np.asarray(weight, np.float32)


def _suspicion(values: np.ndarray) -> str:
    if not np.isfinite(values).all() or np.abs(values).max() > OVERFLOW:
        return "overflow?"
    # Biases and BatchNorm vectors are initially constant, kernels never are
    return "dead?" if values.ndim > 1 and values.min() == values.max() else ""


def _in_notebook() -> bool:
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    shell = get_ipython()
    return shell is not None and hasattr(shell, "kernel")


def _aligned(rows: list[list[str]]) -> list[str]:
    count = max((len(row) for row in rows), default=0)
    rows = [row + [""] * (count - len(row)) for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(count)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]

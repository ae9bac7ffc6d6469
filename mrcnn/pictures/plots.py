"""Plots of a model's scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mrcnn.pictures import canvas
from mrcnn.pictures.colors import random_colors
from mrcnn.pictures.instances import class_captions


def plot_precision_recall(AP: float, precisions: Sequence[float], recalls: Sequence[float]) -> Any:
    """Plots precision over recall, as returned by `compute_ap`.

    Args:
        AP: the area under the curve, for the title.
        precisions, recalls: [points], 0..1.

    Returns:
        The matplotlib Axes.

    Raises:
        ValueError: the arrays differ in length.
    """
    from matplotlib import pyplot

    if len(precisions) != len(recalls):
        raise ValueError(f"precisions and recalls must have equal length, got {len(precisions)} and {len(recalls)}")
    figure, ax = pyplot.subplots(figsize=(5, 4.2), layout="constrained")
    color = random_colors(1, bright=False)[0]
    # A step at each detection; in between, the precision of the detection to the right applies
    ax.step(recalls, precisions, where="pre", color=color, linewidth=1.8)
    ax.fill_between(recalls, precisions, step="pre", color=color, alpha=0.12, linewidth=0)
    ax.set(xlim=(0, 1.02), ylim=(0, 1.05), xlabel="recall", ylabel="precision", title=f"AP@50 = {AP:.3f}")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color="0.9", linewidth=0.6)
    canvas.show(figure)
    return ax


def plot_overlaps(
    gt_class_ids: ArrayLike,
    pred_class_ids: ArrayLike,
    pred_scores: ArrayLike,
    overlaps: ArrayLike,
    class_names: Sequence[str],
    threshold: float = 0.5,
) -> Any:
    """Shows the IoU of each detection (rows) with each object (columns), and which pairs match.

    Args:
        gt_class_ids: [N].
        pred_class_ids: [M].
        pred_scores: [M].
        overlaps: [M, N] IoU, as returned by `compute_ap`.
        class_names: class names, background first.
        threshold: pairs with at least this IoU are marked "match", or "wrong" if the classes differ.

    Returns:
        The matplotlib Axes.

    Raises:
        ValueError: counts that do not match `overlaps`, or a class id without a name.
    """
    from matplotlib import pyplot

    true_ids, found_ids, ious = (np.asarray(a) for a in (gt_class_ids, pred_class_ids, overlaps))
    rows = class_captions(found_ids, class_names, pred_scores)
    columns = class_captions(true_ids, class_names)
    if ious.shape != (len(rows), len(columns)):
        raise ValueError(
            f"overlaps has shape {ious.shape}; {len(rows)} detections and {len(columns)} objects need "
            f"{(len(rows), len(columns))}"
        )
    size = (max(3.5, 1.8 + 0.75 * len(columns)), max(2.5, 1.2 + 0.45 * len(rows)))
    figure, ax = pyplot.subplots(figsize=size, layout="constrained")
    ax.set(xlabel="ground truth", ylabel="detections")
    ax.set_xticks(range(len(columns)), columns, rotation=60, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(rows)), rows)
    if ious.size:
        ax.imshow(ious, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for i, j in np.argwhere(ious >= 0.005):
            text, color = _cell(ious[i, j], threshold, bool(found_ids[i] == true_ids[j]))
            ax.text(j, i, text, ha="center", va="center", fontsize=8, color=color)
    else:
        canvas.add_note(ax, f"{len(rows)} detections, {len(columns)} objects")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    canvas.show(figure)
    return ax


def _cell(overlap: float, threshold: float, same_class: bool) -> tuple[str, str]:
    """Text and color of a cell; dark cells get light text."""
    color = "white" if overlap > 0.6 else "black" if overlap > 0.2 else "0.4"
    mark = "" if overlap < threshold else "\nmatch" if same_class else "\nwrong"
    return f"{overlap:.2f}{mark}", color

"""Plots of the results of `mrcnn.evaluation.analysis`: curves, confusion matrix, mistakes, and the worst images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mrcnn.data import rle
from mrcnn.evaluation.analysis import ERRORS, ConfusionMatrix, Curves, ErrorBreakdown, ImageReport, worst_images
from mrcnn.evaluation.coco_results import Annotation, Records
from mrcnn.pictures import canvas
from mrcnn.pictures.colors import GRAY, Color, random_colors
from mrcnn.pictures.instances import display_instances

# One color per kind of mistake in all figures; green is correct, red is missed.
COLORS: dict[str, Color] = {
    "class": (0.62, 0.35, 0.85),
    "localisation": (1.0, 0.6, 0.1),
    "both": (0.85, 0.45, 0.6),
    "duplicate": (0.2, 0.7, 0.95),
    "background": (0.55, 0.42, 0.3),
    "missed": (0.95, 0.2, 0.2),
    "correct": (0.1, 0.75, 0.25),
    "found": (0.1, 0.75, 0.25),
    "ignored": GRAY,
    "crowd": GRAY,
}
RIGHT = ("correct", "found", "ignored", "crowd")
CAPTIONS = 12  # maximum number of captioned mistakes in an image, the largest ones
TALLEST = 0.85  # maximum height of an image on a page, as a fraction of its column's width


def plot_curves(curves: Curves, most: int = 10, ax: Any = None) -> Any:
    """Plots precision over recall: one line per class, the mean in black.

    Args:
        curves: from `precision_recall`.
        most: number of classes with a color and a name, those with the most objects; the others are gray.
        ax: axes to draw on.

    Returns:
        The matplotlib Axes.
    """
    ax, new = _axes(ax, (7, 4.6))
    named = sorted(curves.classes, key=lambda name: -curves.classes[name].objects)[:most]
    for name, curve in curves.classes.items():
        if name not in named:
            ax.plot(curves.recall, curve.precision, color="0.85", linewidth=0.8)
    colors = random_colors(len(named), bright=False)
    for name, color in zip(named, colors, strict=True):
        curve = curves.classes[name]
        ax.plot(curves.recall, curve.precision, color=color, linewidth=1.4, label=f"{name}  {curve.ap:.3f}")
    if len(curves.classes) > 1:
        label = f"mean of {len(curves.classes)}  {curves.ap:.3f}"
        ax.plot(curves.recall, curves.precision, color="black", linewidth=2.4, label=label)
    title = f"AP of {_objects(curves.kind)} at IoU {curves.iou:g}: {curves.ap:.3f}"
    ax.set(xlim=(0, 1.01), ylim=(0, 1.03), xlabel="recall", ylabel="precision", title=title)
    _tidy(ax)
    # Next to the plot, where it covers no curve
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=8.5, title="class, AP")
    if new:
        canvas.show(ax.figure)
    return ax


def plot_confusion_matrix(matrix: ConfusionMatrix, ax: Any = None) -> Any:
    """Shows which classes are confused; colors are fractions of a row's objects.

    Classes with neither objects nor detections are left out.

    Args:
        matrix: from `confusion_matrix`.
        ax: axes to draw on.

    Returns:
        The matplotlib Axes.
    """
    from matplotlib.colors import PowerNorm

    used = np.flatnonzero(matrix.counts.sum(axis=0) + matrix.counts.sum(axis=1) > 0)
    # Background last, as a margin
    order = [int(i) for i in used if i > 0] + [0]
    counts, names = matrix.counts[np.ix_(order, order)], [matrix.names[i] for i in order]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(0.42 * len(names), 2.6, 13))
    ax, new = _axes(ax, (side + 2.6 + 0.04 * side, side + 1.5))
    # Rare mistakes are drawn darker than their fraction, to be visible
    picture = ax.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
    size = float(np.clip(72 * side / len(names) * 0.75, 4.5, 10))  # label size in points, from the height of a cell
    ax.set_xticks(range(len(names)), [*names[:-1], "(missed)"], rotation=90, fontsize=size)
    ax.set_yticks(range(len(names)), [*names[:-1], "(nothing there)"], fontsize=size)
    ax.set(xlabel="found as", ylabel="true class")
    ax.set_title(f"{matrix.kind} IoU {matrix.iou:g}, score >= {matrix.min_score:g}", fontsize=10)
    _grid_lines(ax, len(names))
    small = (0.85 if len(names) < 15 else 0.6) * size
    for i, j in np.argwhere(counts):
        color = "white" if shares[i, j] > 0.4 else "black"
        ax.text(j, i, str(counts[i, j]), ha="center", va="center", fontsize=small, color=color)
    bar = ax.figure.colorbar(picture, ax=ax, shrink=0.7, pad=0.02, aspect=30, ticks=[0, 0.1, 0.25, 0.5, 1])
    bar.set_label("fraction of the row", fontsize=9)
    bar.outline.set_visible(False)
    if new:
        canvas.show(ax.figure)
    return ax


def plot_errors(breakdown: ErrorBreakdown | Mapping[str, ErrorBreakdown], ax: Any = None) -> Any:
    """Shows, for each kind of mistake, the AP that correcting it would add, and the number of mistakes.

    Args:
        breakdown: from `error_breakdown`; or several by name to compare, for example of several heads.
        ax: axes to draw on.

    Returns:
        The matplotlib Axes.

    Raises:
        ValueError: no breakdown given, or breakdowns that differ in kind or IoU.
    """
    several = dict(breakdown) if isinstance(breakdown, Mapping) else {"": breakdown}
    if len({(b.kind, b.iou) for b in several.values()}) != 1:
        given = {name: (b.kind, b.iou) for name, b in several.items()}
        raise ValueError(f"breakdowns to compare must have the same kind and IoU, got {given}")
    first = next(iter(several.values()))
    ax, new = _axes(ax, (6.6, 1.1 + (0.42 if len(several) == 1 else 0.32 * len(several) + 0.2) * len(ERRORS)))
    height = 0.72 / len(several)
    for n, (name, one) in enumerate(several.items()):
        for i, error in enumerate(ERRORS):
            y, gain = i + (n - (len(several) - 1) / 2) * height, one.gains[error]
            ax.barh(y, gain, height * 0.92, color=COLORS[error], alpha=1 - 0.65 * n / max(len(several) - 1, 1))
            text = f" {gain:+.3f}   {one.counts[error]}" + (f"   {name}" if name else "")
            ax.text(max(gain, 0), y, text, va="center", fontsize=9 if len(several) == 1 else 7.5)
    ax.set_yticks(range(len(ERRORS)), ERRORS)
    ax.set_ylim(len(ERRORS) - 0.5, -0.5)
    largest = max(gain for one in several.values() for gain in one.gains.values())
    ax.set_xlim(0, max(1.35 * largest, 0.01))  # room for the texts
    aps = ", ".join(f"{name} {one.ap:.3f}".strip() for name, one in several.items())
    ax.set(xlabel="AP gained by correcting it, and the number of mistakes")
    ax.set_title(f"AP of {_objects(first.kind)} at IoU {first.iou:g}: {aps}", fontsize=11)
    _tidy(ax)
    ax.grid(axis="y", visible=False)
    if new:
        canvas.show(ax.figure)
    return ax


def show_worst(
    dataset: Any,
    records: Records | Sequence[ImageReport],
    count: int = 6,
    *,
    kind: str = "mask",
    iou: float = 0.5,
    min_score: float = 0.5,
    pairs_per_row: int = 2,
    width: float = 4.0,
) -> Any:
    """Draws the worst images in pairs: ground truth on the left, detections on the right.

    Colors show the outcome for each instance; mistakes are named.

    Args:
        dataset: the evaluated dataset, with images and class names.
        records: from the evaluation; or the result of `worst_images`, in which case the next arguments are not used.
        count, kind, iou, min_score: as in `worst_images`.
        pairs_per_row: number of images in a row.
        width: of an image, in inches.

    Returns:
        The matplotlib Figure.
    """
    from matplotlib import pyplot

    if pairs_per_row < 1:
        raise ValueError(f"pairs_per_row={pairs_per_row}; expected at least 1")
    reports = worst_images(records, count, kind, iou, min_score) if isinstance(records, Records) else list(records)
    if not reports:
        figure = pyplot.figure(figsize=(4, 1))
        figure.text(0.5, 0.5, "no image has a mistake", ha="center", va="center")
        canvas.show(figure)
        return figure
    images = [dataset.load_image(report.image_id) for report in reports]
    figure, places = _page([image.shape[0] / image.shape[1] for image in images], pairs_per_row, width)
    for report, image, (place, title) in zip(reports, images, places, strict=True):
        figure.text(*title, _summary(report), fontsize=8.5, va="bottom", ha="left")
        for (left, bottom, across, up), side in zip(place, (report.truth, report.found), strict=True):
            _draw(figure.add_axes((left, bottom, across, up)), image, side, dataset.class_names)
    _legend(figure)
    canvas.show(figure)
    return figure


def _draw(ax: Any, image: np.ndarray, side: Sequence[tuple[Annotation, str]], names: Sequence[str]) -> None:
    """Draws an image with annotations in the color of their label; mistakes are drawn over correct ones."""
    side = sorted(side, key=lambda entry: entry[1] not in RIGHT)
    masks = [rle.decode(annotation["segmentation"]) for annotation, _ in side]
    boxes = [[y, x, y + h, x + w] for x, y, w, h in (annotation["bbox"] for annotation, _ in side)]
    display_instances(
        image,
        np.array(boxes, float).reshape(-1, 4),
        np.stack(masks, axis=-1) if masks else np.zeros((*image.shape[:2], 0), bool),
        [annotation["category_id"] for annotation, _ in side],
        names,
        ax=ax,
        colors=[COLORS[label] for _, label in side],
        captions=_captions(side, names),
    )


def _captions(side: Sequence[tuple[Annotation, str]], names: Sequence[str]) -> list[str]:
    """A text per annotation; only the largest mistakes have one if there are too many."""
    places = list(range(len(side)))
    if len(side) > CAPTIONS:
        wrong = [i for i in places if side[i][1] not in RIGHT]
        places = sorted(wrong, key=lambda i: -side[i][0]["bbox"][2] * side[i][0]["bbox"][3])[:CAPTIONS]
    texts = [""] * len(side)
    for i in places:
        annotation, label = side[i]
        score = f" {annotation['score']:.2f}" if "score" in annotation else ""
        what = "" if label in ("correct", "found") else f": {label}"
        texts[i] = names[annotation["category_id"]] + score + what
    return texts


def _summary(report: ImageReport) -> str:
    mistakes = ", ".join(f"{count} {error}" for error, count in report.counts.items() if count)
    return f"image {report.image_id}: {report.quality:.0%} right; {mistakes}"


def _page(proportions: Sequence[float], columns: int, width: float) -> tuple[Any, list[tuple[Any, Any]]]:
    """A figure, and for each of the proportions (height / width) places for two axes and a title.

    Places are in fractions of the figure; rows are only as high as needed.
    """
    from matplotlib import pyplot

    gap, between, head, foot = 0.06, 0.3, 0.26, 0.4  # inches, as all sizes here
    columns = min(columns, len(proportions))
    sizes = [(min(width, TALLEST * width / p), min(width * p, TALLEST * width)) for p in proportions]  # (width, height)
    rows = [sizes[i : i + columns] for i in range(0, len(sizes), columns)]
    across = columns * (2 * width + gap) + (columns - 1) * between + 2 * gap
    up = foot + sum(head + max(high for _, high in row) for row in rows) + gap
    figure = pyplot.figure(figsize=(across, up), facecolor="white")
    places, top = [], up - gap
    for row in rows:
        top -= head
        for i, (wide, high) in enumerate(row):
            left = gap + i * (2 * width + gap + between)
            lefts, bottom = (left, left + wide + gap), top - high
            pair = [(x / across, bottom / up, wide / across, high / up) for x in lefts]
            places.append((pair, (left / across, (top + 0.04) / up)))
        top -= max(high for _, high in row)
    return figure, places


def _legend(figure: Any) -> None:
    from matplotlib.patches import Patch

    labels = ("correct", *ERRORS, "ignored")
    handles = [Patch(facecolor=COLORS[label], label=label) for label in labels]
    columns = len(labels) if figure.get_figwidth() > 8 else 4
    figure.legend(handles=handles, loc="lower center", ncols=columns, frameon=False, fontsize=8, handlelength=1,
                  columnspacing=1.2, borderpad=0.1)  # fmt: skip


def _axes(ax: Any, size: tuple[float, float]) -> tuple[Any, bool]:
    """The given axes, or those of a new figure, and whether they are new."""
    if ax is not None:
        return ax, False
    from matplotlib import pyplot

    return pyplot.subplots(figsize=size, layout="constrained")[1], True


def _tidy(ax: Any) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)


def _grid_lines(ax: Any, count: int) -> None:
    """Thin lines between the cells of a matrix, a thicker one before the background."""
    ax.set_xticks(np.arange(count - 1) + 0.5, minor=True)
    ax.set_yticks(np.arange(count - 1) + 0.5, minor=True)
    ax.grid(which="minor", color="0.92", linewidth=0.5)
    ax.tick_params(which="both", length=0)
    ax.spines[:].set_visible(False)
    for line in (ax.axhline, ax.axvline):
        line(count - 1.5, color="0.5", linewidth=0.8)


def _objects(kind: str) -> str:
    return {"box": "boxes", "mask": "masks", "boundary": "boundaries"}[kind]

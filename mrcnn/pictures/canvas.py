"""Axes that show an image, with outlines, boxes and labels drawn on them.

Coordinates are those of boxes: pixel x covers [x, x + 1).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mrcnn.data.keypoints import MIN_KEYPOINT
from mrcnn.pictures.colors import Color, text_color

# Backends that write files and cannot open a window
SILENT_BACKENDS = {"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"}
LABEL_PADDING = 0.2  # as a fraction of the font size
SMALL_BOX = 6  # labels avoid boxes smaller than this many times their area


def image_axes(image: np.ndarray, figsize: tuple[float, float], title: str = "", ax: Any = None) -> Any:
    """Shows an image on `ax`, or on a new figure of at most `figsize` inches with the image's proportions."""
    if ax is None:
        from matplotlib import pyplot

        height, width = image.shape[:2]
        scale = min(figsize[0] / width, figsize[1] / height)
        # Each line of a title takes about a third of an inch
        margin = 0.35 * (title.count("\n") + 1) if title else 0.0
        figure = pyplot.figure(figsize=(width * scale, height * scale + margin))
        ax = figure.add_axes((0, 0, 1, 1 - margin / figure.get_figheight()))
    show_image(ax, image)
    if title:
        ax.set_title(title, fontsize=title_size(ax))
    return ax


def show_image(ax: Any, image: np.ndarray, **options: Any) -> None:
    """Shows an image on axes without ticks and frame; pixel x covers [x, x + 1)."""
    height, width = image.shape[:2]
    ax.imshow(image, extent=(0, width, height, 0), **options)
    ax.set_axis_off()
    ax.autoscale(False)  # boxes outside the image must not shrink it


def show(figure: Any) -> None:
    """Opens a window, or shows the figure in a notebook. Does nothing with a backend that only writes files."""
    import matplotlib

    if matplotlib.get_backend().lower() not in SILENT_BACKENDS:
        from matplotlib import pyplot

        pyplot.figure(figure.number)
        pyplot.show()


def axes_width(ax: Any) -> float:
    """Width of the image on the axes, in inches."""
    ax.apply_aspect()
    return ax.get_window_extent().width / ax.figure.dpi


def label_size(ax: Any) -> float:
    """Font size for labels: readable on a page, smaller for a small image."""
    return float(np.clip(1.3 * axes_width(ax), 5.5, 11))


def title_size(ax: Any) -> float:
    """Font size for a title above an image."""
    return float(np.clip(2.2 * axes_width(ax), 7, 14))


def line_width(ax: Any) -> float:
    """Width of thin lines, in points."""
    return float(np.clip(0.2 * axes_width(ax), 0.8, 1.6))


def add_box(ax: Any, box: Sequence[float] | np.ndarray, color: Color, **style: Any) -> None:
    """Draws the outline of a box (y1, x1, y2, x2)."""
    from matplotlib.patches import Rectangle

    y1, x1, y2, x2 = (float(value) for value in box)
    style = {"linewidth": line_width(ax), "alpha": 0.9} | style
    ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=color, **style))


def add_outline(ax: Any, mask: np.ndarray, color: Color, **style: Any) -> None:
    """Draws the outline of a mask [H, W]."""
    from matplotlib.collections import LineCollection

    lines = mask_outline(mask)
    style = {"linewidth": line_width(ax)} | style
    ax.add_collection(LineCollection([line[:, ::-1] for line in lines], colors=[color], **style), autolim=False)


def add_keypoints(ax: Any, keypoints: np.ndarray, edges: Iterable[tuple[int, int]], color: Color) -> None:
    """Draws the keypoints [K, (y, x, score or visibility)] of an instance, and lines between those of `edges`.

    Those with a score under `MIN_KEYPOINT` are left out, with their lines.
    """
    seen = keypoints[:, 2] >= MIN_KEYPOINT
    width = line_width(ax)
    for one, other in edges:
        if seen[one] and seen[other]:
            (y1, x1), (y2, x2) = keypoints[[one, other], :2]
            ax.plot([x1, x2], [y1, y2], color=color, linewidth=1.5 * width)
    y, x = keypoints[seen, 0], keypoints[seen, 1]
    ax.scatter(x, y, s=(4 * width) ** 2, color=[color], edgecolors="white", linewidths=width / 2)


def mask_outline(mask: np.ndarray) -> list[np.ndarray]:
    """Closed lines [points, (y, x)] along the edge of a mask [H, W], halfway between inner and outer pixels."""
    from skimage.measure import find_contours

    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return []
    top, left = rows[0], columns[0]
    part = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1], 1)
    # Padding shifted the mask by one pixel, and the center of pixel 0 is at 0.5
    return [line + (top - 0.5, left - 0.5) for line in find_contours(part.astype(np.float32), 0.5)]


def add_labels(ax: Any, labels: Iterable[tuple[Sequence[float] | np.ndarray, str, Color]]) -> None:
    """Writes labels (box, text, color) at their boxes, inside the image, without covering labels or small boxes."""
    labels = list(labels)
    (left, right), (bottom, top) = sorted(ax.get_xlim()), sorted(ax.get_ylim())
    size = label_size(ax)
    boxes = np.array([box for box, _, _ in labels], float).reshape(-1, 4)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    taken = np.zeros((0, 4))
    for box, text, color in labels:
        if not text:
            continue
        frame = {"boxstyle": f"square,pad={LABEL_PADDING}", "facecolor": color, "edgecolor": "none", "alpha": 0.85}
        label = ax.text(0, 0, text, size=size, color=text_color(color), va="top", ha="left", bbox=frame)
        padding, width, height = _data_size(ax, label, size)
        y, x = _places(box, height, width).T
        y, x = np.clip(y, bottom, max(top - height, bottom)), np.clip(x, left, max(right - width, left))
        places = np.stack([y, x, y + height, x + width], axis=1)
        small = boxes[areas < SMALL_BOX * height * width]
        best = places[np.argmin(4 * _covered(places, taken) + _covered(places, small))]
        taken = np.concatenate([taken, best[None]])
        label.set_position((best[1] + padding, best[0] + padding))


def add_note(ax: Any, text: str) -> None:
    """Writes a note in the lower left corner of an image."""
    frame = {"boxstyle": "square,pad=0.4", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
    ax.text(0.02, 0.02, text, transform=ax.transAxes, size=label_size(ax), color="black", va="bottom", bbox=frame)


def _data_size(ax: Any, label: Any, font_size: float) -> tuple[float, float, float]:
    """Padding, width and height of a label, including padding, in image pixels."""
    extent = label.get_window_extent()
    (x0, y0), (x1, y1) = ax.transData.inverted().transform([(0, 0), (extent.width, extent.height)])
    points = ax.transData.inverted().transform([(0, 0), (font_size * ax.figure.dpi / 72, 0)])
    padding = LABEL_PADDING * float(points[1, 0] - points[0, 0])
    return padding, abs(x1 - x0) + 2 * padding, abs(y1 - y0) + 2 * padding


def _places(box: Sequence[float] | np.ndarray, height: float, width: float) -> np.ndarray:
    """Candidates for the upper left corner of a label, [places, (y, x)], best first: above, inside, around the box."""
    y1, x1, y2, x2 = (float(value) for value in box)
    over, inside, flush, before = y1 - height, y2 - height, x2 - width, x1 - width
    near = [(over, x1), (y1, x1), (y2, x1), (over, flush), (y2, flush)]
    beside = [(y1, x2), (inside, x2), (y1, before), (inside, before)]
    far = [(over, x2), (y2, x2), (over, before), (y2, before)]
    return np.array([*near, *beside, *far, (inside, x1), (inside, flush)])


def _covered(places: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Total overlap area of each of `places` [places, 4] with all `boxes` [boxes, 4]."""
    low = np.maximum(places[:, None, :2], boxes[None, :, :2])
    high = np.minimum(places[:, None, 2:], boxes[None, :, 2:])
    return np.prod(np.maximum(high - low, 0), axis=-1).sum(axis=1)

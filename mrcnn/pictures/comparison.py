"""Detections next to ground truth, in one figure for a report."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mrcnn.data.images import read_image
from mrcnn.evaluation.matching import compute_matches
from mrcnn.pictures.canvas import title_size
from mrcnn.pictures.colors import Color, random_colors
from mrcnn.pictures.instances import checked_instances, display_instances

Given = Mapping[str, Any] | tuple[Any, Any]


class Instances(NamedTuple):
    """The N instances of an image. scores is None for ground truth."""

    boxes: np.ndarray  # [N, (y1, x1, y2, x2)]
    masks: np.ndarray  # [H, W, N] bool
    class_ids: np.ndarray  # [N]
    scores: np.ndarray | None  # [N]


def save_comparison(
    image: Any,
    truth: Any,
    detections: Any,
    class_names: Sequence[str],
    path: str | os.PathLike,
    *,
    min_score: float = 0.5,
    titles: tuple[str, str] = ("ground truth", "detections"),
    pairs_per_row: int = 1,
    width: float = 4.0,
) -> Any:
    """Saves a figure of one image or several, ground truth on the left and detections on the right.

    A detection has the color of the object it matches (same class, mask IoU of at least 0.5); all others have a
    color of their own.

    Args:
        image: anything `detect` takes, or a list.
        truth: (masks, class_ids) as returned by `load_mask`, or a dict as returned by `detect`; or a list of these.
        detections: likewise.
        class_names: class names, background first.
        path: the file; its suffix sets the format, for example ".png".
        min_score: minimum score of the detections to draw.
        titles: above the two columns.
        pairs_per_row: number of images in a row.
        width: of an image, in inches.

    Returns:
        The matplotlib Figure.

    Raises:
        ValueError: lists of different lengths, or instances that do not fit their image.
    """
    if pairs_per_row < 1:
        raise ValueError(f"pairs_per_row={pairs_per_row}; expected at least 1")
    images, truths, found = _as_lists(image, truth, detections)
    images = [read_image(image) for image in images]
    figure, pairs = _grid([image.shape[0] / image.shape[1] for image in images], min(pairs_per_row, len(images)), width)
    for pair, image, true, detected in zip(pairs, images, truths, found, strict=True):
        _draw_pair(pair, image, true, detected, class_names, min_score)
    for pair in pairs[:pairs_per_row]:
        for axes, title in zip(pair, titles, strict=True):
            axes.set_title(title, fontsize=title_size(axes))
    figure.savefig(path, dpi=100)
    return figure


def _grid(proportions: Sequence[float], columns: int, width: float) -> tuple[Any, list[list[Any]]]:
    """A figure with a pair of axes for each of the proportions (height / width); rows are only as high as needed."""
    from matplotlib.figure import Figure

    gap, margin = 0.08, 0.4  # inches, like all sizes here
    rows = [proportions[i : i + columns] for i in range(0, len(proportions), columns)]
    heights = [width * max(row) for row in rows]
    across, up = columns * 2 * (width + gap) + gap, margin + sum(heights) + gap * len(rows)
    # not pyplot, which would keep the figures alive
    figure = Figure(figsize=(across, up), facecolor="white")
    pairs = []
    bottom = up - margin
    for row, height in zip(rows, heights, strict=True):
        bottom -= height
        lefts = [gap + i * (width + gap) for i in range(2 * len(row))]
        places = [(left / across, bottom / up, width / across, height / up) for left in lefts]
        axes = [figure.add_axes(place, anchor="N") for place in places]
        pairs += [axes[i : i + 2] for i in range(0, len(axes), 2)]
        bottom -= gap
    return figure, pairs


def _as_lists(*arguments: Any) -> list[list[Any]]:
    """The arguments as lists of equal length; a single image with its instances becomes lists of length one."""
    lists = [list(a) if isinstance(a, list) else [a] for a in arguments]
    if len({len(entries) for entries in lists}) > 1 or not lists[0]:
        counts = ", ".join(
            f"{len(e)} {name}" for e, name in zip(lists, ("images", "truths", "detections"), strict=True)
        )
        raise ValueError(f"expected one truth and one detection result per image, got {counts}")
    return lists


def _draw_pair(
    pair: Sequence[Any], image: np.ndarray, truth: Given, found: Given, class_names: Sequence[str], min_score: float
) -> None:
    sides = _instances(image, truth, 0), _instances(image, found, min_score)
    for axes, side, colors in zip(pair, sides, matching_colors(*sides), strict=True):
        boxes, masks, class_ids, scores = side
        display_instances(image, boxes, masks, class_ids, class_names, scores, ax=axes, colors=colors, min_score=0)


def _instances(image: np.ndarray, given: Given, min_score: float) -> Instances:
    """The instances with at least this score, checked."""
    known = given if isinstance(given, Mapping) else dict(zip(("masks", "class_ids"), given, strict=True))
    boxes, masks, class_ids = checked_instances(image, known.get("rois"), known["masks"], known["class_ids"])
    assert masks is not None
    if known.get("scores") is None:
        return Instances(boxes, masks, class_ids, None)
    scores = np.asarray(known["scores"])
    keep = scores >= min_score
    return Instances(boxes[keep], masks[..., keep], class_ids[keep], scores[keep])


def matching_colors(truth: Instances, found: Instances) -> tuple[list[Color], list[Color]]:
    """Colors of objects and detections; a detection has the color of the object it matches."""
    count = len(truth.class_ids)
    colors = random_colors(count + len(found.class_ids))
    scores = np.ones(len(found.class_ids)) if found.scores is None else found.scores
    # Boxes of ones: `compute_matches` drops rows of zeros as padding, and there is no padding here
    _, pred_match, _ = compute_matches(
        np.ones_like(truth.boxes),
        truth.class_ids,
        truth.masks,
        np.ones_like(found.boxes),
        found.class_ids,
        scores,
        found.masks,
        iou_threshold=0.5,
    )
    found_colors = colors[count:]
    for rank, i in enumerate(np.argsort(-scores, kind="stable").tolist()):
        if pred_match[rank] > -1:
            found_colors[i] = colors[int(pred_match[rank])]
    return colors[:count], found_colors

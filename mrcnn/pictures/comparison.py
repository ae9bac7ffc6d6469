"""Detections beside ground truth, in one picture that can be put into a report."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mrcnn.data.images import read_image
from mrcnn.evaluation.matching import compute_matches
from mrcnn.pictures.canvas import title_size
from mrcnn.pictures.colors import Color, random_colors
from mrcnn.pictures.instances import checked_instances, display_instances

Instances = Mapping[str, Any] | tuple[Any, Any]


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
    """Saves ground truth at the left and detections at the right, of one photograph or of several.

    A detection has the colour of the object that it matches (same class, mask IoU 0.5 or more), every other one a
    colour of its own.

    Args:
        image: what `detect` takes, or a list of it.
        truth: (masks, class_ids) as `load_mask` gives it, or a dict as `detect` gives it; or a list of them.
        detections: likewise.
        class_names: the names, the background's first.
        path: the file; its ending says the format, e.g. ".png".
        min_score: detections below it are not drawn.
        titles: over the two columns.
        pairs_per_row: how many photographs lie side by side.
        width: of one photograph, in inches.

    Returns:
        The matplotlib Figure.

    Raises:
        ValueError: lists of different lengths, or instances that do not fit their image.
    """
    if pairs_per_row < 1:
        raise ValueError(f"pairs_per_row={pairs_per_row}; at least one pair has to fit into a row")
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
    """A figure with a pair of axes for each of the proportions (height / width), rows only as high as they need be."""
    from matplotlib.figure import Figure

    gap, margin = 0.08, 0.4  # inches, as all sizes here
    rows = [proportions[i : i + columns] for i in range(0, len(proportions), columns)]
    heights = [width * max(row) for row in rows]
    across, up = columns * 2 * (width + gap) + gap, margin + sum(heights) + gap * len(rows)
    # No pyplot: many pictures can be saved without keeping their figures alive
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
    """The arguments as lists of the same length; a single image with its instances becomes lists of one."""
    lists = [list(a) if isinstance(a, list) else [a] for a in arguments]
    if len({len(entries) for entries in lists}) > 1 or not lists[0]:
        counts = ", ".join(
            f"{len(e)} {name}" for e, name in zip(lists, ("images", "truths", "detections"), strict=True)
        )
        raise ValueError(f"one truth and one detection is needed for each image, got {counts}")
    return lists


def _draw_pair(
    pair: Sequence[Any], image: np.ndarray, truth: Instances, found: Instances, class_names: Sequence[str], least: float
) -> None:
    truth, found = _instances(image, truth, 0), _instances(image, found, least)
    true_colors, found_colors = matching_colors(truth, found)
    for axes, (boxes, masks, class_ids, scores), colors in zip(
        pair, (truth, found), (true_colors, found_colors), strict=True
    ):
        display_instances(image, boxes, masks, class_ids, class_names, scores, ax=axes, colors=colors)


def _instances(image: np.ndarray, given: Instances, least: float) -> tuple[Any, Any, Any, Any]:
    """boxes, masks, class ids and scores (or None) of the instances with at least a score."""
    if not isinstance(given, Mapping):
        masks, class_ids = given
        given = {"masks": masks, "class_ids": class_ids}
    boxes, masks, class_ids = checked_instances(image, given.get("rois"), given["masks"], given["class_ids"])
    scores = given.get("scores")
    if scores is None:
        return boxes, masks, class_ids, None
    scores = np.asarray(scores)
    keep = scores >= least
    return boxes[keep], masks[..., keep], class_ids[keep], scores[keep]


def matching_colors(truth: tuple[Any, ...], found: tuple[Any, ...]) -> tuple[list[Color], list[Color]]:
    """Colours for two sets of (boxes, masks, class_ids, scores), the same for instances that match."""
    (boxes, masks, class_ids, _), (found_boxes, found_masks, found_class_ids, scores) = truth, found
    count = len(class_ids)
    colors = random_colors(count + len(found_class_ids))
    scores = np.ones(len(found_class_ids)) if scores is None else scores
    # Ones instead of the boxes: no row is padding here, and none shall be dropped
    ones, found_ones = np.ones_like(boxes), np.ones_like(found_boxes)
    _, pred_match, _ = compute_matches(
        ones, class_ids, masks, found_ones, found_class_ids, scores, found_masks, iou_threshold=0.5
    )
    found_colors = colors[count:]
    for rank, i in enumerate(np.argsort(-scores, kind="stable")):
        if pred_match[rank] > -1:
            found_colors[i] = colors[int(pred_match[rank])]
    return colors[:count], found_colors

"""Draws boxes from anchors to detections, to inspect a model step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mrcnn.data.images import read_image
from mrcnn.data.pasting import paste_masks
from mrcnn.pictures import canvas
from mrcnn.pictures.colors import GRAY, Color, blend_masks, random_colors
from mrcnn.pictures.instances import class_captions

HIDDEN, FAINT, FULL = 0, 1, 2  # visibilities of `draw_boxes`
STYLES: dict[int, dict[str, Any]] = {
    HIDDEN: {"linestyle": "dotted", "alpha": 0.8},
    FAINT: {"linestyle": "dotted", "alpha": 0.9},
    FULL: {"linestyle": "solid", "alpha": 0.9},
}


def draw_boxes(
    image: Any,
    boxes: ArrayLike | None = None,
    refined_boxes: ArrayLike | None = None,
    masks: ArrayLike | None = None,
    captions: Sequence[str] | None = None,
    visibilities: Sequence[int] | None = None,
    title: str = "",
    ax: Any = None,
) -> Any:
    """Draws boxes, their refined boxes (solid, joined to the first by a line), masks and captions.

    Args:
        image: anything `detect` takes.
        boxes: [N, (y1, x1, y2, x2)] in image pixels, such as anchors or proposals.
        refined_boxes: [N, (y1, x1, y2, x2)], the same boxes after refinement; rows of zeros are not drawn.
        masks: [height, width, N].
        captions: [N] texts; an empty one draws no label.
        visibilities: [N] of 0 (gray, dotted), 1 (colored, dotted), 2 (colored, solid); None for 1 throughout.
        title: above the image.
        ax: axes to draw on.

    Returns:
        The matplotlib Axes.

    Raises:
        ValueError: nothing to draw, counts that differ, or an unknown visibility.
    """
    image = read_image(image)
    before, after = (
        None if given is None else np.asarray(given, float).reshape(-1, 4) for given in (boxes, refined_boxes)
    )
    count = _checked_count(image, before, after, masks, captions, visibilities)
    visibilities = [FAINT] * count if visibilities is None else visibilities
    colors = [color if v != HIDDEN else GRAY for color, v in zip(random_colors(count), visibilities, strict=True)]
    inside = None if masks is None else np.asarray(masks) != 0
    new = ax is None
    ax = canvas.image_axes(image if inside is None else blend_masks(image, inside, colors), (12, 12), title, ax)
    for i, color in enumerate(colors):
        pair = [None if some is None else some[i] for some in (before, after)]
        _draw_boxes(ax, pair[0], pair[1], color, STYLES[visibilities[i]])
        if inside is not None:
            canvas.add_outline(ax, inside[..., i], color)
    last = after if after is not None else before
    if captions is not None and last is not None:
        canvas.add_labels(ax, [(last[i], captions[i], colors[i]) for i in range(count) if last[i].any()])
    if not count:
        canvas.add_note(ax, "no boxes")
    if new:
        canvas.show(ax.figure)
    return ax


def draw_rois(
    image: Any,
    rois: ArrayLike,
    refined_rois: ArrayLike,
    mask: ArrayLike,
    class_ids: ArrayLike,
    class_names: Sequence[str],
    limit: int = 10,
    seed: int | None = 0,
) -> Any:
    """Draws some RoIs with their targets: background gray and dotted, others with class, refined box and mask.

    Args:
        image: anything `detect` takes.
        rois: [N, (y1, x1, y2, x2)] in image pixels.
        refined_rois: [N, (y1, x1, y2, x2)], the target of each.
        mask: [N, m, m] in 0..1, each inside its RoI.
        class_ids: [N], 0 for background.
        class_names: class names, background first.
        limit: number of RoIs to draw, chosen at random.
        seed: the same seed chooses the same RoIs; None chooses different ones on every call.

    Returns:
        The matplotlib Axes.

    Raises:
        ValueError: counts that differ.
    """
    image = read_image(image)
    boxes, targets, masks, ids = (np.asarray(array) for array in (rois, refined_rois, mask, class_ids))
    counts = {"rois": len(boxes), "refined_rois": len(targets), "masks": len(masks), "class_ids": len(ids)}
    _check_equal(counts)
    chosen = np.random.default_rng(seed).permutation(len(boxes))[:limit]
    positive = ids[chosen] > 0
    pasted = paste_masks(masks[chosen], boxes[chosen], *image.shape[:2])
    names = class_captions(ids[chosen], class_names)
    positives = int((ids > 0).sum())
    share = positives / len(ids) if len(ids) else 0.0
    return draw_boxes(
        image,
        boxes[chosen],
        targets[chosen] * positive[:, None],
        pasted & positive,
        [name if known else "" for name, known in zip(names, positive, strict=True)],
        np.where(positive, FAINT, HIDDEN).tolist(),
        f"{len(chosen)} of {len(boxes)} RoIs, of which {positives} are positive ({share:.0%})",
    )


def _draw_boxes(
    ax: Any, before: np.ndarray | None, after: np.ndarray | None, color: Color, style: dict[str, Any]
) -> None:
    """Draws boxes, their refined boxes, and lines from old to new corners; zeros are not drawn."""
    if before is not None and before.any():
        canvas.add_box(ax, before, color, **style)
    if after is not None and after.any():
        canvas.add_box(ax, after, color)
        if before is not None and before.any():
            ax.plot(*zip(before[1::-1], after[1::-1], strict=True), color=color, linewidth=0.8)


def _checked_count(
    image: np.ndarray,
    boxes: np.ndarray | None,
    refined_boxes: np.ndarray | None,
    masks: ArrayLike | None,
    captions: Sequence[str] | None,
    visibilities: Sequence[int] | None,
) -> int:
    """The number of boxes. Raises ValueError if the arguments do not match each other or the image."""
    if boxes is None and refined_boxes is None:
        raise ValueError("nothing to draw: pass boxes or refined_boxes")
    given = {"boxes": boxes, "refined_boxes": refined_boxes, "captions": captions, "visibilities": visibilities}
    counts = {name: len(values) for name, values in given.items() if values is not None}
    if masks is not None:
        if np.shape(masks)[:2] != image.shape[:2] or np.ndim(masks) != 3:
            raise ValueError(
                f"masks have shape {np.shape(masks)}, the image {image.shape}; expected [height, width, N]"
            )
        counts["masks"] = np.shape(masks)[-1]
    _check_equal(counts)
    unknown = set(visibilities if visibilities is not None else ()) - set(STYLES)
    if unknown:
        raise ValueError(f"visibilities must be 0, 1 or 2, got {sorted(unknown)}")
    return next(iter(counts.values()))


def _check_equal(counts: dict[str, int]) -> None:
    if len(set(counts.values())) > 1:
        raise ValueError("expected equal counts, got " + ", ".join(f"{n} {name}" for name, n in counts.items()))

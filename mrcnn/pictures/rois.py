"""Boxes on their way from anchors to detections, for looking into a model step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mrcnn.data.images import read_image
from mrcnn.data.masks import paste_masks
from mrcnn.pictures import canvas
from mrcnn.pictures.colors import GREY, Color, blend_masks, random_colors
from mrcnn.pictures.instances import class_captions

HIDDEN, FAINT, FULL = 0, 1, 2  # visibilities of `draw_boxes`
STYLES = {
    HIDDEN: {"linestyle": "dotted", "alpha": 0.8},
    FAINT: {"linestyle": "dotted", "alpha": 0.9},
    FULL: {"linestyle": "solid", "alpha": 0.9},
}


def draw_boxes(
    image: Any,
    boxes: np.ndarray | None = None,
    refined_boxes: np.ndarray | None = None,
    masks: np.ndarray | None = None,
    captions: Sequence[str] | None = None,
    visibilities: Sequence[int] | None = None,
    title: str = "",
    ax: Any = None,
) -> Any:
    """Draws boxes, what they became (solid, joined to where they were by a line), masks and captions.

    Args:
        image: what `detect` takes.
        boxes: [N, (y1, x1, y2, x2)] in its pixels, such as anchors or proposals.
        refined_boxes: [N, (y1, x1, y2, x2)], the same after refinement; zeros draw nothing.
        masks: [height, width, N].
        captions: [N] texts; empty or None for none.
        visibilities: [N] of 0 (grey, dotted), 1 (coloured, dotted), 2 (coloured, solid); None for 1 throughout.
        title: above the picture.
        ax: axes to draw on.

    Returns:
        The matplotlib Axes.

    Raises:
        ValueError: nothing to draw, counts that differ, or an unknown visibility.
    """
    image = read_image(image)
    boxes, refined_boxes, count = _checked(image, boxes, refined_boxes, masks, captions, visibilities)
    visibilities = [FAINT] * count if visibilities is None else visibilities
    colors = [color if v != HIDDEN else GREY for color, v in zip(random_colors(count), visibilities, strict=True)]
    if masks is not None:
        masks = np.asarray(masks) != 0
        picture = blend_masks(image, masks, colors)
    new = ax is None
    ax = canvas.image_axes(image if masks is None else picture, (12, 12), title, ax)
    for i, color in enumerate(colors):
        _draw_boxes(ax, boxes, refined_boxes, i, color, STYLES[visibilities[i]])
        if masks is not None:
            canvas.add_outline(ax, masks[..., i], color)
    last = boxes if refined_boxes is None else refined_boxes
    texts = [""] * count if captions is None else captions
    labels = [(last[i], texts[i], colors[i]) for i in range(count) if last[i].any()]
    canvas.add_labels(ax, labels)
    if not count:
        canvas.add_note(ax, "no boxes")
    if new:
        canvas.show(ax.figure)
    return ax


def draw_rois(
    image: Any,
    rois: np.ndarray,
    refined_rois: np.ndarray,
    mask: np.ndarray,
    class_ids: Sequence[int],
    class_names: Sequence[str],
    limit: int = 10,
    seed: int = 0,
) -> Any:
    """Draws some RoIs with their targets: grey and dotted for background, else class, refined box and mask.

    Args:
        image: what `detect` takes.
        rois: [N, (y1, x1, y2, x2)] in its pixels.
        refined_rois: [N, (y1, x1, y2, x2)], what each should become.
        mask: [N, m, m] in 0..1, each inside its RoI.
        class_ids: [N], 0 for background.
        class_names: the names, the background's first.
        limit: draw so many, chosen at random (the same ones for the same `seed`).

    Returns:
        The matplotlib Axes.

    Raises:
        ValueError: counts that differ.
    """
    image = read_image(image)
    rois, refined_rois, mask, class_ids = (np.asarray(array) for array in (rois, refined_rois, mask, class_ids))
    counts = {"rois": len(rois), "refined_rois": len(refined_rois), "masks": len(mask), "class_ids": len(class_ids)}
    if len(set(counts.values())) > 1:
        raise ValueError("one each is needed, got " + ", ".join(f"{n} {name}" for name, n in counts.items()))
    chosen = np.random.default_rng(seed).permutation(len(rois))[:limit]
    positive = class_ids[chosen] > 0
    pasted = paste_masks(mask[chosen], rois[chosen], *image.shape[:2])
    names = class_captions(class_ids[chosen], class_names)
    positives = int((class_ids > 0).sum())
    share = positives / len(class_ids) if len(class_ids) else 0.0
    return draw_boxes(
        image,
        rois[chosen],
        refined_rois[chosen] * positive[:, None],
        pasted & positive,
        [name if known else "" for name, known in zip(names, positive, strict=True)],
        np.where(positive, FAINT, HIDDEN).tolist(),
        f"{len(chosen)} of {len(rois)} RoIs, of which {positives} are positive ({share:.0%})",
    )


def _draw_boxes(ax: Any, boxes: Any, refined_boxes: Any, i: int, color: Color, style: dict[str, Any]) -> None:
    """Box i, what it became, and a line from the old corner to the new one; rows of zeros are not drawn."""
    before = boxes is not None and boxes[i].any()
    if before:
        canvas.add_box(ax, boxes[i], color, **style)
    if refined_boxes is not None and refined_boxes[i].any():
        canvas.add_box(ax, refined_boxes[i], color)
        if before:
            ax.plot(*zip(boxes[i][1::-1], refined_boxes[i][1::-1], strict=True), color=color, linewidth=0.8)


def _checked(
    image: np.ndarray, boxes: Any, refined_boxes: Any, masks: Any, captions: Any, visibilities: Any
) -> tuple[np.ndarray | None, np.ndarray | None, int]:
    """Both kinds of boxes as float arrays, and their count; raises ValueError where arguments do not fit."""
    if boxes is None and refined_boxes is None:
        raise ValueError("neither boxes nor refined_boxes were given, so there is nothing to draw")
    boxes, refined_boxes = (
        None if given is None else np.asarray(given, float).reshape(-1, 4) for given in (boxes, refined_boxes)
    )
    counts = {
        name: len(given)
        for name, given in (
            ("boxes", boxes),
            ("refined_boxes", refined_boxes),
            ("captions", captions),
            ("visibilities", visibilities),
        )
        if given is not None
    }
    if masks is not None:
        if np.shape(masks)[:2] != image.shape[:2] or np.ndim(masks) != 3:
            raise ValueError(
                f"masks have shape {np.shape(masks)}, the image {image.shape}; expected [height, width, N]"
            )
        counts["masks"] = np.shape(masks)[-1]
    if len(set(counts.values())) > 1:
        raise ValueError("one each is needed, got " + ", ".join(f"{n} {name}" for name, n in counts.items()))
    unknown = set(visibilities if visibilities is not None else ()) - set(STYLES)
    if unknown:
        raise ValueError(f"visibilities must be 0, 1 or 2, got {sorted(unknown)}")
    return boxes, refined_boxes, next(iter(counts.values()))

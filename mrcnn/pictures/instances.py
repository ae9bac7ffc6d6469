"""Instances on their photograph: masks, boxes, names and scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mrcnn.data.images import read_image
from mrcnn.data.masks import extract_bboxes
from mrcnn.evaluation.matching import compute_matches
from mrcnn.pictures import canvas
from mrcnn.pictures.colors import Color, blend_masks, random_colors

TRUE_COLOR: Color = (0.1, 0.75, 0.25)
FOUND_COLOR: Color = (0.95, 0.2, 0.2)


def display_instances(
    image: Any,
    boxes: np.ndarray | None,
    masks: np.ndarray | None,
    class_ids: Sequence[int],
    class_names: Sequence[str],
    scores: Sequence[float] | None = None,
    title: str = "",
    figsize: tuple[float, float] = (16, 16),
    ax: Any = None,
    show_mask: bool = True,
    show_bbox: bool = True,
    colors: Sequence[Color] | None = None,
    captions: Sequence[str] | None = None,
) -> Any:
    """Draws instances over their photograph and shows it, unless `ax` is given.

    Args:
        image: [height, width, 3] uint8, or whatever `detect` takes: grey, RGBA, floats, a path.
        boxes: [N, (y1, x1, y2, x2)], floats allowed; rows of zeros are padding and left out. None: from the masks.
        masks: [height, width, N]; None for boxes only.
        class_ids: [N]; a negative one is a crowd of that class.
        class_names: the names, the background's first.
        scores: [N] in 0..1, written behind the names.
        title: above the picture.
        figsize: (width, height) in inches that a new figure may take at most; it has the image's proportions.
        ax: axes to draw on, e.g. of a figure with several.
        show_mask, show_bbox: what to draw beside the labels.
        colors: [N] of (red, green, blue) in 0..1.
        captions: [N] texts instead of name and score; empty for none.

    Returns:
        The matplotlib Axes.

    Raises:
        ValueError: counts or sizes that differ, or a class id without a name.
    """
    image = read_image(image)
    boxes, masks, class_ids = checked_instances(image, boxes, masks, class_ids)
    count = len(class_ids)
    captions = class_captions(class_ids, class_names, scores) if captions is None else captions
    colors = random_colors(count) if colors is None else colors
    _check_counts(count, captions=captions, colors=colors)
    visible = np.flatnonzero(np.any(boxes != 0, axis=1))
    masked = masks is not None and show_mask
    picture = blend_masks(image, masks[..., visible], [colors[i] for i in visible]) if masked else image
    new = ax is None
    ax = canvas.image_axes(picture, figsize, title, ax)
    for i in visible:
        if masked:
            canvas.add_outline(ax, masks[..., i], colors[i])
        if show_bbox:
            canvas.add_box(ax, boxes[i], colors[i])
    canvas.add_labels(ax, [(boxes[i], captions[i], colors[i]) for i in visible])
    if not len(visible):
        canvas.add_note(ax, "no instances")
    if new:
        canvas.show(ax.figure)
    return ax


def display_differences(
    image: Any,
    gt_box: np.ndarray,
    gt_class_id: Sequence[int],
    gt_mask: np.ndarray,
    pred_box: np.ndarray,
    pred_class_id: Sequence[int],
    pred_score: Sequence[float],
    pred_mask: np.ndarray,
    class_names: Sequence[str],
    title: str = "",
    ax: Any = None,
    show_mask: bool = True,
    show_box: bool = True,
    iou_threshold: float = 0.5,
    score_threshold: float = 0.5,
) -> Any:
    """Draws ground truth in green and detections in red on one picture; returns the Axes.

    Detections are labelled with their score and the mask IoU with the object that they match (`compute_matches`, whose
    two thresholds these are), objects that no detection matches with "missed".
    """
    keep_true, keep_found = (np.any(np.asarray(boxes).reshape(-1, 4) != 0, axis=1) for boxes in (gt_box, pred_box))
    arrays = (gt_box, gt_class_id, gt_mask, pred_box, pred_class_id, pred_score, pred_mask)
    gt_match, pred_match, overlaps = compute_matches(
        *arrays, iou_threshold=iou_threshold, score_threshold=score_threshold
    )
    # Matches count detections in falling order of score, without padding
    true_order = np.flatnonzero(keep_true)
    found_order = np.flatnonzero(keep_found)[np.argsort(-np.asarray(pred_score)[keep_found], kind="stable")]
    true_names = class_captions(np.asarray(gt_class_id)[true_order], class_names)
    found_names = class_captions(
        np.asarray(pred_class_id)[found_order], class_names, np.asarray(pred_score)[found_order]
    )
    captions = ["" if match > -1 else f"missed {name}" for match, name in zip(gt_match, true_names, strict=True)]
    captions += [
        f"{name} / IoU {overlaps[i, int(match)]:.2f}" if match > -1 else f"{name} / no match"
        for i, (match, name) in enumerate(zip(pred_match, found_names, strict=True))
    ]
    return display_instances(
        image,
        np.concatenate([np.reshape(gt_box, (-1, 4))[true_order], np.reshape(pred_box, (-1, 4))[found_order]]),
        np.concatenate([np.asarray(gt_mask)[..., true_order], np.asarray(pred_mask)[..., found_order]], axis=-1),
        np.concatenate([np.asarray(gt_class_id)[true_order], np.asarray(pred_class_id)[found_order]]),
        class_names,
        title=title or "Ground truth (green) and detections (red): score / mask IoU",
        ax=ax,
        show_mask=show_mask,
        show_bbox=show_box,
        colors=[TRUE_COLOR] * len(true_order) + [FOUND_COLOR] * len(found_order),
        captions=captions,
    )


def checked_instances(
    image: np.ndarray, boxes: np.ndarray | None, masks: np.ndarray | None, class_ids: Sequence[int]
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """boxes [N, 4] float, masks [H, W, N] bool or None and class_ids [N]; raises ValueError where they do not fit."""
    class_ids = np.asarray(class_ids, np.int64).reshape(-1)
    if masks is not None:
        masks = np.asarray(masks)
        if not len(class_ids) and not masks.size:
            masks = np.zeros((*image.shape[:2], 0), bool)
        if masks.shape != (*image.shape[:2], len(class_ids)):
            raise ValueError(
                f"masks have shape {masks.shape}; the image of {image.shape[0]} x {image.shape[1]} and "
                f"{len(class_ids)} class ids ask for {(*image.shape[:2], len(class_ids))}"
            )
        masks = masks != 0
    if boxes is None:
        if masks is None:
            raise ValueError("neither boxes nor masks were given; at least one of them says where the instances are")
        boxes = extract_bboxes(masks)
    boxes = np.asarray(boxes, float).reshape(-1, 4) if np.size(boxes) == 0 else np.asarray(boxes, float)
    if boxes.shape != (len(class_ids), 4):
        raise ValueError(f"boxes have shape {boxes.shape}; {len(class_ids)} class ids ask for ({len(class_ids)}, 4)")
    return boxes, masks, class_ids


def class_captions(
    class_ids: Sequence[int], class_names: Sequence[str], scores: Sequence[float] | None = None
) -> list[str]:
    """A text per instance: the name of its class, and its score where given."""
    wrong = [int(i) for i in class_ids if abs(i) >= len(class_names)]
    if wrong:
        raise ValueError(f"class ids {wrong[:5]} have no name: {len(class_names)} names were given, background first")
    names = [str(class_names[abs(i)]) + (" (crowd)" if i < 0 else "") for i in class_ids]
    if scores is None:
        return names
    _check_counts(len(names), scores=scores)
    return [f"{name} {score:.2f}" for name, score in zip(names, scores, strict=True)]


def _check_counts(count: int, **given: Sequence[Any]) -> None:
    for name, values in given.items():
        if len(values) != count:
            raise ValueError(f"{len(values)} {name} were given for {count} instances; one each is needed")

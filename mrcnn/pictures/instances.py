"""Draws instances on their image: masks, boxes, keypoints, class names and scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mrcnn.data.images import read_image
from mrcnn.data.keypoints import Skeleton
from mrcnn.data.masks import extract_bboxes
from mrcnn.evaluation.matching import compute_matches
from mrcnn.evaluation.overlaps import compute_overlaps, compute_overlaps_masks
from mrcnn.pictures import canvas
from mrcnn.pictures.colors import Color, blend_masks, random_colors

TRUE_COLOR: Color = (0.1, 0.75, 0.25)
FOUND_COLOR: Color = (0.95, 0.2, 0.2)
MIN_SCORE = 0.5


def display_instances(
    image: Any,
    boxes: ArrayLike | None,
    masks: ArrayLike | None,
    class_ids: ArrayLike,
    class_names: Sequence[str],
    scores: ArrayLike | None = None,
    title: str = "",
    figsize: tuple[float, float] = (16, 16),
    ax: Any = None,
    show_mask: bool = True,
    show_bbox: bool = True,
    colors: Sequence[Color] | None = None,
    captions: Sequence[str] | None = None,
    *,
    min_score: float = MIN_SCORE,
    max_overlap: float | None = None,
    keypoints: ArrayLike | None = None,
    skeleton: Skeleton | None = None,
) -> Any:
    """Draws instances over their image and shows it, unless `ax` is given.

    `detect` returns every detection with at least DETECTION_MIN_CONFIDENCE, 0.05 by default: average precision needs
    them, but people want to see the confident ones. So only scores of at least `min_score` are drawn, and a note in the
    corner of the image counts the others.

    Several labels on one object: by default, a RoI may become a detection of every class, and NMS only compares boxes
    of the same class. `max_overlap=0.5` draws only the best of the instances that cover one place, regardless of class.
    With DETECTION_BEST_CLASS_ONLY = True, `detect` gives each RoI only its best class.

    Args:
        image: [height, width, 3] uint8, or anything `detect` takes: gray, RGBA, floats, a path.
        boxes: [N, (y1, x1, y2, x2)] in image pixels; rows of zeros are padding and not drawn. None: from the masks.
        masks: [height, width, N]; None to draw only boxes.
        class_ids: [N]; a negative id is a crowd of that class.
        class_names: class names, background first.
        scores: [N] in 0..1, written after the names.
        title: above the image.
        figsize: maximum (width, height) of a new figure in inches; it has the proportions of the image.
        ax: axes to draw on, for example of a figure with several.
        show_mask, show_bbox: what to draw besides the labels.
        colors: [N] of (red, green, blue) in 0..1.
        captions: [N] texts instead of name and score; an empty one draws no label.
        min_score: instances with a lower score are not drawn; 0 draws all. Without `scores` all are drawn.
        max_overlap: an instance is not drawn if its IoU with one of higher score exceeds this (IoU of masks, or of
            boxes without masks). None: all are drawn. Has no effect without `scores`.
        keypoints: [N, K, (y, x, score or visibility)], such as `result.keypoints`; those under 0.05 are not drawn.
        skeleton: the keypoints that are connected by lines, such as `result.skeleton`.

    Returns:
        The matplotlib Axes.

    Raises:
        ValueError: counts or sizes that differ, or a class id without a name.
    """
    image = read_image(image)
    all_boxes, all_masks, ids = checked_instances(image, boxes, masks, class_ids)
    texts = class_captions(ids, class_names, scores) if captions is None else captions
    colors = random_colors(len(ids)) if colors is None else colors
    _check_counts(len(ids), captions=texts, colors=colors)
    points = None if keypoints is None else np.asarray(keypoints, float)
    if points is not None:
        _check_counts(len(ids), keypoints=points)
    real = np.flatnonzero(np.any(all_boxes != 0, axis=1))
    if scores is None:
        visible = real.tolist()
    else:
        _check_counts(len(ids), scores=np.asarray(scores))
        visible = _chosen(real, np.asarray(scores), all_boxes, all_masks, min_score, max_overlap)
    shown_masks = all_masks if show_mask else None
    chosen_colors = [colors[i] for i in visible]
    picture = image if shown_masks is None else blend_masks(image, shown_masks[..., visible], chosen_colors)
    new = ax is None
    ax = canvas.image_axes(picture, figsize, title, ax)
    for i, color in zip(visible, chosen_colors, strict=True):
        if shown_masks is not None:
            canvas.add_outline(ax, shown_masks[..., i], color)
        if show_bbox:
            canvas.add_box(ax, all_boxes[i], color)
        if points is not None:
            canvas.add_keypoints(ax, points[i], skeleton.edges if skeleton else (), color)
    canvas.add_labels(ax, [(all_boxes[i], texts[i], colors[i]) for i in visible])
    note = _note(len(visible), len(real), scores, min_score)
    if note:
        canvas.add_note(ax, note)
    if new:
        canvas.show(ax.figure)
    return ax


def _chosen(
    real: np.ndarray,
    scores: np.ndarray,
    boxes: np.ndarray,
    masks: np.ndarray | None,
    min_score: float,
    max_overlap: float | None,
) -> list[int]:
    """The instances among `real` to draw, in order."""
    confident = real[scores[real] >= min_score]
    if max_overlap is None or len(confident) < 2:
        return confident.tolist()
    ranked = confident[np.argsort(-scores[confident], kind="stable")]
    if masks is None:
        overlaps = compute_overlaps(boxes[ranked], boxes[ranked])
    else:
        overlaps = compute_overlaps_masks(masks[..., ranked], masks[..., ranked])
    kept: list[int] = []
    for i in range(len(ranked)):
        if not (overlaps[i, kept] > max_overlap).any():
            kept.append(i)
    return sorted(ranked[kept].tolist())


def _note(drawn: int, count: int, scores: ArrayLike | None, min_score: float) -> str:
    """The note about instances that are not drawn; empty if all are."""
    if not count:
        return "no instances"
    low = 0 if scores is None else int((np.asarray(scores) < min_score).sum())
    return f"{low} with scores below {min_score:g} not drawn (min_score)" if low and drawn < count else ""


def display_differences(
    image: Any,
    gt_box: ArrayLike,
    gt_class_id: ArrayLike,
    gt_mask: ArrayLike,
    pred_box: ArrayLike,
    pred_class_id: ArrayLike,
    pred_score: ArrayLike,
    pred_mask: ArrayLike,
    class_names: Sequence[str],
    title: str = "",
    ax: Any = None,
    show_mask: bool = True,
    show_box: bool = True,
    iou_threshold: float = 0.5,
    score_threshold: float = 0.5,
) -> Any:
    """Draws ground truth in green and detections in red in one image; returns the Axes.

    Detections are labeled with their score and their mask IoU with the matching object (see `compute_matches`, which
    takes the two thresholds), objects without a match with "missed".
    """
    true_boxes, found_boxes = (np.reshape(boxes, (-1, 4)) for boxes in (gt_box, pred_box))
    true_ids, found_ids, scores = (np.asarray(values) for values in (gt_class_id, pred_class_id, pred_score))
    gt_match, pred_match, overlaps = compute_matches(
        gt_box,
        gt_class_id,
        gt_mask,
        pred_box,
        pred_class_id,
        pred_score,
        pred_mask,
        iou_threshold=iou_threshold,
        score_threshold=score_threshold,
    )
    # Matches index detections by decreasing score, without padding
    true_order = np.flatnonzero(np.any(true_boxes != 0, axis=1))
    real = np.flatnonzero(np.any(found_boxes != 0, axis=1))
    found_order = real[np.argsort(-scores[real], kind="stable")]
    true_names = class_captions(true_ids[true_order], class_names)
    found_names = class_captions(found_ids[found_order], class_names, scores[found_order])
    captions = ["" if match > -1 else f"missed {name}" for match, name in zip(gt_match, true_names, strict=True)]
    captions += [
        f"{name} / IoU {overlaps[i, int(match)]:.2f}" if match > -1 else f"{name} / no match"
        for i, (match, name) in enumerate(zip(pred_match, found_names, strict=True))
    ]
    return display_instances(
        image,
        np.concatenate([true_boxes[true_order], found_boxes[found_order]]),
        np.concatenate([np.asarray(gt_mask)[..., true_order], np.asarray(pred_mask)[..., found_order]], axis=-1),
        np.concatenate([true_ids[true_order], found_ids[found_order]]),
        class_names,
        title=title or "Ground truth (green) and detections (red): score / mask IoU",
        ax=ax,
        show_mask=show_mask,
        show_bbox=show_box,
        colors=[TRUE_COLOR] * len(true_order) + [FOUND_COLOR] * len(found_order),
        captions=captions,
    )


def checked_instances(
    image: np.ndarray, boxes: ArrayLike | None, masks: ArrayLike | None, class_ids: ArrayLike
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """boxes [N, 4] float, masks [H, W, N] bool or None, and class_ids [N] int64.

    Raises ValueError if they do not match each other or the image.
    """
    ids = np.asarray(class_ids, np.int64).reshape(-1)
    inside: np.ndarray | None = None
    if masks is not None:
        inside = np.asarray(masks)
        if not len(ids) and not inside.size:
            inside = np.zeros((*image.shape[:2], 0), bool)
        if inside.shape != (*image.shape[:2], len(ids)):
            raise ValueError(
                f"masks have shape {inside.shape}; the image of {image.shape[0]} x {image.shape[1]} and "
                f"{len(ids)} class ids need {(*image.shape[:2], len(ids))}"
            )
        inside = inside != 0
    if boxes is None and inside is None:
        raise ValueError("neither boxes nor masks were given; pass at least one of them")
    corners = np.asarray(extract_bboxes(inside) if boxes is None and inside is not None else boxes, float)
    corners = corners.reshape(-1, 4) if corners.size == 0 else corners
    if corners.shape != (len(ids), 4):
        raise ValueError(f"boxes have shape {corners.shape}; {len(ids)} class ids need ({len(ids)}, 4)")
    return corners, inside, ids


def class_captions(class_ids: ArrayLike, class_names: Sequence[str], scores: ArrayLike | None = None) -> list[str]:
    """A text per instance: its class name, and its score if given."""
    ids = [int(i) for i in np.asarray(class_ids).reshape(-1)]
    wrong = [i for i in ids if abs(i) >= len(class_names)]
    if wrong:
        raise ValueError(f"class ids {wrong[:5]} have no name: got {len(class_names)} names, including background")
    names = [str(class_names[abs(i)]) + (" (crowd)" if i < 0 else "") for i in ids]
    if scores is None:
        return names
    values = np.asarray(scores)
    _check_counts(len(names), scores=values)
    return [f"{name} {score:.2f}" for name, score in zip(names, values, strict=True)]


def _check_counts(count: int, **given: Sequence[Any] | np.ndarray) -> None:
    for name, values in given.items():
        if len(values) != count:
            raise ValueError(f"got {len(values)} {name} for {count} instances; pass one per instance")

"""The wiring of a keypoint head: which RoIs it learns from, and the heatmaps of detections."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from mrcnn.layers.keep_valid import KeepValid
from mrcnn.network.head_branch import Pool, head_inputs

if TYPE_CHECKING:
    from heads.protocol.head import Head

PoolOf = Callable[[Any, Any], Pool]  # (boxes [R, 4], image_index [R]) -> what makes features of them


def keypoint_training(
    head: "Head", levels: list[Any], rois: dict[str, Any], truth: dict[str, Any], pool_of: PoolOf
) -> dict[str, Any]:
    """What the losses of a keypoint head need of a training step.

    A RoI teaches it where it is positive and its instance has a visible keypoint (Detectron2's
    select_proposals_with_visible_keypoints).

    Args:
        rois: boxes [B, R, (y1, x1, y2, x2)], class_ids [B, R] (0: background) and instance [B, R].
        truth: gt_boxes [B, G, 4] and gt_keypoints [B, G, K, (y, x, visibility)].

    Returns:
        {"keypoint_head": outputs of the head, "keypoint_truth": arguments of `heads.Targets`}.
    """
    visible = ops.any(truth["gt_keypoints"][..., 2] > 0, axis=-1)
    learns = ops.logical_and(rois["class_ids"] > 0, ops.take_along_axis(visible, rois["instance"], axis=1))
    kept, image_index, weight = KeepValid(name="keypoint_rois")(learns, list(rois.values()))
    given = dict(zip(rois, kept, strict=True)) | {"image_index": image_index}
    outputs = head.model(head_inputs(head, levels, given, pool_of(given["boxes"], image_index), training=True))
    return {"keypoint_head": outputs, "keypoint_truth": given | truth | {"weight": weight}}


def heatmaps_of(
    head: "Head",
    levels: list[Any],
    found: dict[str, Any],
    valid: Any,
    pool_of: PoolOf,
    folded: Callable[[keras.Model], keras.Model],
) -> Any:
    """Heatmaps of the valid detections, [kept, m, m, K] float32 logits.

    Args:
        found: boxes [B, D, (y1, x1, y2, x2)] and class_ids [B, D] of the detections, with padding rows.
        valid: [B, D] bool.
        folded: makes a model of the same function in fewer operations.
    """
    kept, image_index, _ = KeepValid(name="kept_for_keypoints")(valid, [found["boxes"], found["class_ids"]])
    given = {"boxes": kept[0], "class_ids": kept[1], "image_index": image_index}
    inputs = head_inputs(head, levels, given, pool_of(kept[0], image_index), training=False)
    return folded(head.inference)(inputs)["keypoints"]

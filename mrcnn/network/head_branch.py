"""Wiring of the heads: RoI features, their named inputs from the graph, and what is needed of their outputs."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from mrcnn.config import Config
from mrcnn.fusion.mask_channel import PickClass
from mrcnn.layers.keep_valid import KeepValid
from mrcnn.layers.roi_align.roi_align import RoIAlign, fastest_method
from mrcnn.layers.roi_align.roi_pool import RoIPool

if TYPE_CHECKING:
    from heads.protocol.head import Head

Pool = Callable[[int, list[Any], str], Any]
PoolOf = Callable[[Any, Any], Pool]  # (boxes [R, 4], image_index [R]) -> what makes features of them


def roi_layer(
    config: Config, pool_size: int, name: str, *, fast: bool, portable: bool = False, levels: int = 4
) -> RoIAlign | RoIPool:
    """The layer that computes RoI features, from the given number of pyramid levels."""
    strides = tuple(config.BACKBONE_STRIDES[:levels])
    method = fastest_method(config.ROI_SAMPLING_RATIO, config.ROI_GEOMETRY) if fast else None
    if config.ROI_POOLING == "pool":
        return RoIPool(pool_size, strides=strides, level_rounding=config.ROI_LEVEL_ROUNDING, name=name)
    return RoIAlign(
        pool_size,
        config.ROI_SAMPLING_RATIO,
        config.ROI_ALIGNED,
        strides=strides,
        level_rounding=config.ROI_LEVEL_ROUNDING,
        reduction=config.ROI_REDUCTION,
        rounded=config.ROI_POOLING == "warp",
        geometry=config.ROI_GEOMETRY,
        method="gather" if portable else method,
        name=name,
    )


def pooling(config: Config, rois: Any, image_index: Any, *, fast: bool, portable: bool = False) -> Pool:
    """The function (cells per side, levels, name) -> features of rois [R, 4]."""
    return lambda size, levels, name: roi_layer(config, size, name, fast=fast, portable=portable, levels=len(levels))(
        levels, rois, image_index
    )


def head_inputs(
    head: "Head", levels: list[Any], given: dict[str, Any], pool: Pool, *, training: bool
) -> dict[str, Any]:
    """The inputs that a head requires, by name; see `heads.Head`.

    Args:
        levels: the feature maps that RoIs are pooled from, finest first.
        given: known inputs: boxes [R, (y1, x1, y2, x2)], class_ids and image_index [R]; in training also seed [R];
            features, if they are not pooled from `levels`.
        pool: (cells per side, levels, name) -> RoI features of the boxes.
    """
    makers: dict[str, Callable[[], Any]] = {
        "features": lambda: pool(head.input_shape[0], levels, f"roi_align_{head.kind}"),
        "fine": lambda: pool(head.fine_size or 0, levels[:1], f"roi_align_{head.kind}_fine"),
        "pyramid": lambda: levels,
    }
    return {name: given[name] if name in given else makers[name]() for name in head.needs(training)}


class Rescore(keras.layers.Layer):
    """Mask scores from a head. call: (outputs of the head, scores [R], class_ids [R]) -> [R] float32."""

    def __init__(self, head: "Head", **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.head = head

    def call(self, outputs: dict[str, Any], scores: Any, class_ids: Any) -> Any:
        return ops.cast(self.head.rescore(outputs, scores, class_ids), "float32")

    def compute_output_spec(self, outputs: dict[str, Any], scores: Any, class_ids: Any) -> Any:
        return keras.KerasTensor(scores.shape, "float32")


def mask_outputs(head: "Head", made: dict[str, Any], class_ids: Any, scores: Any = None) -> dict[str, Any]:
    """What the inference graph gives of a mask head's outputs: masks [R, m, m] of each RoI's class, and mask_scores [R]
    if the head scores its masks."""
    outputs = {"masks": PickClass(name="masks")(made["masks"], class_ids)}
    if head.rescores:
        outputs["mask_scores"] = Rescore(head, name="mask_scores")(made, scores, class_ids)
    return outputs


def head_model(head: "Head") -> keras.Model:
    """A head's inference as a model from its named inputs, with class_ids and scores where they are needed, to
    `mask_outputs` or keypoints [R, m, m, K]."""
    given = keras.tree.map_structure(
        lambda one: keras.Input(one.shape[1:], dtype=one.dtype, name=one.name), dict(head.inference.input)
    )
    made = head.inference(given)
    if head.kind == "keypoints":
        return keras.Model(given, {"keypoints": made["keypoints"]})
    for name, dtype in {"class_ids": "int32", **({"scores": "float32"} if head.rescores else {})}.items():
        given.setdefault(name, keras.Input((), dtype=dtype, name=name))
    return keras.Model(given, mask_outputs(head, made, given["class_ids"], given.get("scores")))


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
    *,
    portable: bool = False,
) -> Any:
    """Heatmaps of the valid detections, [kept, m, m, K] float32 logits.

    Args:
        found: boxes [B, D, (y1, x1, y2, x2)] and class_ids [B, D] of the detections, with padding rows.
        valid: [B, D] bool.
        folded: makes a model of the same function in fewer operations.
        portable: see `mrcnn.network.graph.inference_graph`.
    """
    kept, image_index, _ = KeepValid(portable, name="kept_for_keypoints")(valid, [found["boxes"], found["class_ids"]])
    given = {"boxes": kept[0], "class_ids": kept[1], "image_index": image_index}
    inputs = head_inputs(head, levels, given, pool_of(kept[0], image_index), training=False)
    return folded(head.inference)(inputs)["keypoints"]

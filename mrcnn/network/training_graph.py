"""The training graph: targets and predictions of one step, from which the losses are computed."""

from functools import partial
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from mrcnn.config import Config
from mrcnn.fusion.mask_channel import class_masks
from mrcnn.fusion.sampled_rpn import SampledRPN
from mrcnn.layers.keep_valid import KeepValid
from mrcnn.layers.targets import AnchorTargets, MaskTargets, RoITargets
from mrcnn.network.graph import (
    Network,
    box_branch,
    folded_model,
    image_inputs,
    proposal_bounds,
    proposal_layer,
    pyramid,
    shared_stage,
)
from mrcnn.network.head_branch import head_inputs, keypoint_training, pooling, roi_layer
from mrcnn.ops.boxes import decode

if TYPE_CHECKING:
    from heads.protocol.head import Head

Tensors = dict[str, Any]


def training_graph(network: Network, config: Config) -> tuple[Tensors, Tensors]:
    """Inputs and outputs of one training step; the losses depend on the outputs alone.

    Inputs: a batch of `mrcnn.data.loader.Loader`. Outputs for B images, S sampled anchors, R sampled RoIs, K positives:
        rpn_labels [B, S] (1, 0, -1 not sampled), rpn_logits [B, S], rpn_target and rpn_deltas [B, S, 4];
        roi_class_ids [B, R], roi_sampled [B, R], class_logits [B, R, classes], roi_target and roi_deltas [B, R, 4],
        active_classes [B, classes]; mask_target and masks [K, size, size], mask_weight [K]; image_id [B]. A head that
        is not plain has its outputs in "head" and the ground truth for its targets in "head_truth" instead of
        mask_target and masks; a keypoint head likewise in "keypoint_head" and "keypoint_truth".
    """
    inputs = _inputs(network, config)
    levels, logits, deltas, anchors = pyramid(network, config, inputs["image"], training=True, fast=True)
    outputs, levels = _anchor_outputs(network, config, inputs, levels, logits, deltas, anchors)
    proposed = proposal_layer(config, training=True)(logits, deltas, anchors, *proposal_bounds(config, inputs))
    rois, box_features, box_outputs = _box_outputs(network, config, inputs, levels, proposed)
    outputs |= box_outputs | {"active_classes": inputs["active_classes"], "image_id": inputs["image_id"]}
    # The other heads learn from the positives, which stand first.
    most = max(int(config.TRAIN_ROIS_PER_IMAGE * config.ROI_POSITIVE_RATIO), 1)
    rois = {name: value[:, :most] for name, value in rois.items()}
    if network.keypoints is not None:
        truth = {name: inputs[name] for name in ("gt_boxes", "gt_keypoints")}
        pool_of = partial(pooling, config, fast=True)
        outputs |= keypoint_training(network.keypoints, levels[:4], rois, truth, pool_of)
    if network.head is not None:
        candidates = _candidates(network, network.head, config, inputs, rois, box_features, outputs["roi_deltas"])
        outputs |= _mask_outputs(network, network.head, config, inputs, levels, candidates)
    return inputs, outputs


def _inputs(network: Network, config: Config) -> Tensors:
    inputs = image_inputs(config) | {
        "gt_class_ids": keras.Input((config.MAX_GT_INSTANCES,), dtype="int32", name="gt_class_ids"),
        "gt_boxes": keras.Input((config.MAX_GT_INSTANCES, 4), name="gt_boxes"),
        "active_classes": keras.Input((config.NUM_CLASSES,), name="active_classes"),
        "image_id": keras.Input((), dtype="int32", name="image_id"),
        "seed": keras.Input((), dtype="int32", name="seed"),
    }
    if network.head is not None:
        side = (None, None) if network.whole_masks else config.MINI_MASK_SHAPE
        inputs["gt_masks"] = keras.Input((config.MAX_GT_INSTANCES, *side), dtype="uint8", name="gt_masks")
    if network.keypoints is not None:
        inputs["gt_keypoints"] = keras.Input((config.MAX_GT_INSTANCES, config.NUM_KEYPOINTS, 3), name="gt_keypoints")
    return inputs


def _anchor_outputs(
    network: Network, config: Config, inputs: Tensors, levels: list, logits: list, deltas: list, anchors: list
) -> tuple[Tensors, list]:
    """Targets and predictions of the sampled anchors; the levels for the heads."""
    indices, labels, target = AnchorTargets(
        count=config.RPN_TRAIN_ANCHORS_PER_IMAGE,
        positive_ratio=config.RPN_POSITIVE_RATIO,
        positive_overlap=config.RPN_POSITIVE_OVERLAP,
        negative_overlap=config.RPN_NEGATIVE_OVERLAP,
        std_dev=config.RPN_BBOX_STD_DEV,
        name="anchor_targets",
    )(ops.concatenate(anchors, axis=0), inputs["gt_boxes"], inputs["gt_class_ids"], inputs["window"], inputs["seed"])
    if config.RPN_CONVOLUTIONS == 1 and config.RPN_ANCHOR_STRIDE == 1:
        parts = [network.rpn.get_layer(name) for name in ("rpn_conv_shared", "rpn_class_raw", "rpn_bbox_pred")]
        own_logits, own_deltas, levels = SampledRPN(*parts, name="sampled_rpn")(levels, indices)
    else:
        own_logits = ops.take_along_axis(ops.concatenate(logits, axis=1), indices, axis=1)
        own_deltas = ops.take_along_axis(ops.concatenate(deltas, axis=1), indices[..., None], axis=1)
    outputs = {"rpn_labels": labels, "rpn_target": target, "rpn_logits": own_logits, "rpn_deltas": own_deltas}
    return outputs, levels


def _box_outputs(
    network: Network, config: Config, inputs: Tensors, levels: list, proposed: tuple[Any, Any, Any]
) -> tuple[Tensors, Any, Tensors]:
    """The RoIs sampled from the proposals, their features, and the targets and predictions of the box head.

    The RoIs are boxes [B, R, (y1, x1, y2, x2)], class_ids [B, R] (0: background) and instance [B, R].
    """
    boxes, class_ids, target, sampled, instance = RoITargets(
        count=config.TRAIN_ROIS_PER_IMAGE,
        positive_ratio=config.ROI_POSITIVE_RATIO,
        positive_overlap=config.ROI_POSITIVE_OVERLAP,
        add_ground_truth=config.ROI_ADD_GROUND_TRUTH,
        std_dev=config.BBOX_STD_DEV,
        name="roi_targets",
    )(*proposed[:2], inputs["gt_boxes"], inputs["gt_class_ids"], inputs["seed"])
    align = roi_layer(config, config.POOL_SIZE, "roi_align_box", fast=True)
    features = shared_stage(network, training=True, fast=True)(align(levels[:4], boxes))
    logits, deltas = box_branch(network, config, features, config.TRAIN_ROIS_PER_IMAGE, training=True, fast=True)
    own = ops.one_hot(class_ids, config.NUM_CLASSES, dtype="float32")[..., None]
    outputs = {
        "roi_class_ids": class_ids,
        "roi_sampled": sampled,
        "class_logits": logits,
        "roi_target": target,
        "roi_deltas": ops.sum(deltas * own, axis=2),
    }
    return {"boxes": boxes, "class_ids": class_ids, "instance": instance}, features, outputs


def _candidates(
    network: Network, head: "Head", config: Config, inputs: Tensors, rois: Tensors, box_features: Any, deltas: Any
) -> Tensors:
    """What the mask head may be given of each RoI: box, class and instance, and features and a seed if needed.

    Args:
        rois: of `_box_outputs`, as many as may be positive.
        box_features, deltas: of all sampled RoIs; deltas [B, R, 4].
    """
    most, candidates = rois["boxes"].shape[1], dict(rois)
    if head.train_on_predicted_boxes:
        moved = ops.stop_gradient(deltas[:, :most])
        candidates["boxes"] = decode(moved, rois["boxes"], config.BBOX_STD_DEV)
    if network.roi_stage is not None:  # the mask head takes rows of the box head's features (Detectron2)
        by_image = (-1, config.TRAIN_ROIS_PER_IMAGE, *box_features.shape[1:])
        candidates["features"] = ops.reshape(box_features, by_image)[:, :most]
    if "seed" in head.needs(training=True):
        candidates["seed"] = ops.expand_dims(inputs["seed"], 1) + ops.arange(most, dtype="int32")
    return candidates


def _mask_outputs(
    network: Network, head: "Head", config: Config, inputs: Tensors, levels: list, candidates: Tensors
) -> Tensors:
    """What the losses of the mask head need, for the positive ones of the candidate RoIs."""
    positive = candidates["class_ids"] > 0
    kept, image_index, weight = KeepValid(name="positive_rois")(positive, list(candidates.values()))
    given = dict(zip(candidates, kept, strict=True)) | {"image_index": image_index}
    pool = pooling(config, given["boxes"], image_index, fast=True)
    if head.is_plain:
        features = given.get("features")
        if features is None:
            features = pool(config.MASK_POOL_SIZE, levels[:4], "roi_align_mask")
        masks = class_masks(folded_model(head.model, training=True, fast=True), training=True)(
            features, given["class_ids"]
        )
        target = MaskTargets(mask_size=network.mask_size, name="mask_targets")(
            given["boxes"], image_index, given["instance"], inputs["gt_boxes"], inputs["gt_masks"]
        )
        return {"mask_weight": weight, "masks": masks, "mask_target": target}
    truth = {name: given[name] for name in ("class_ids", "boxes", "image_index", "instance")}
    truth |= {"weight": weight, "gt_boxes": inputs["gt_boxes"], "gt_masks": inputs["gt_masks"]}
    made = head.model(head_inputs(head, levels[:4], given, pool, training=True))
    return {"mask_weight": weight, "head": made, "head_truth": truth}

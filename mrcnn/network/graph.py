"""One network, two graphs: every part with weights is built once, and two functions connect the parts.

Training and inference differ in where the RoIs come from. `training_graph` samples them from proposals and ground
truth; `inference_graph` feeds the proposals to the box head and its detections to the mask head.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
from keras import ops

import heads
from heads.protocol import check
from mrcnn.config import Config
from mrcnn.fusion.folding import fold
from mrcnn.fusion.mask_channel import PickClass, class_masks
from mrcnn.layers.anchors import Anchors
from mrcnn.layers.detections import Detections
from mrcnn.layers.keep_valid import KeepValid
from mrcnn.layers.proposals import Proposals, WholeInput
from mrcnn.layers.targets import AnchorTargets, MaskTargets, RoITargets
from mrcnn.network.backbone import Backbone, build_backbone
from mrcnn.network.box_head import build_box_head
from mrcnn.network.fpn import feature_pyramid
from mrcnn.network.frozen_batch_norm import fixed_norms
from mrcnn.network.head_branch import Rescore, head_inputs, pooling, roi_layer
from mrcnn.network.keypoint_branch import heatmaps_of, keypoint_training
from mrcnn.network.precision import precision
from mrcnn.network.rpn import build_rpn
from mrcnn.ops.boxes import decode


@dataclass(frozen=True)
class Network:
    """Every part with weights.

    trunk: image [batch, height, width, channels] -> feature maps, [P2..P6] with a pyramid; rpn: a feature map ->
    logits, deltas; roi_stage: stage 5 of the ResNet, which the heads share with the "c4" neck, else None; box_head:
    RoI features -> class logits, deltas; head: the mask head, None without masks; keypoints: the keypoint head, or
    None; backbone: the feature extractor in the trunk, with its stages and pixel scaling.
    """

    trunk: keras.Model
    rpn: keras.Model
    box_head: keras.Model
    head: heads.Head | None
    backbone: Backbone
    roi_stage: keras.Model | None = None
    keypoints: heads.Head | None = None

    @property
    def mask_head(self) -> keras.Model | None:
        """The model with the mask head's weights: for a plain head, from RoI features to masks [rois, size, size,
        classes]; otherwise from the head's named inputs to its named outputs."""
        return self.head.model if self.head else None

    @property
    def mask_size(self) -> int:
        """Side of a predicted mask in cells; 0 without a mask head."""
        return self.head.mask_size if self.head else 0

    @property
    def whole_masks(self) -> bool:
        """Whether training needs masks the size of the network input."""
        return self.head is not None and self.head.source_masks

    @property
    def class_layers(self) -> list[str]:
        """Keys of the layers whose weights mix the classes; see `heads.Head.class_layers`."""
        return [f"mask_head/{name}" for name in self.head.class_layers] if self.head else []

    def parts(self) -> dict[str, keras.Model]:
        """The models with weights, by name."""
        parts = {
            "trunk": self.trunk,
            "rpn": self.rpn,
            "roi_stage": self.roi_stage,
            "box_head": self.box_head,
            "mask_head": self.mask_head,
            "keypoint_head": self.keypoints.model if self.keypoints else None,
        }
        return {name: part for name, part in parts.items() if part is not None}

    def layers(self) -> dict[str, keras.layers.Layer]:
        """Every layer with weights, keyed "part/layer"."""
        return {f"{part}/{path}": layer for part, model in self.parts().items() for path, layer in _leaves(model)}


def _leaves(model: keras.Model, prefix: str = "") -> Iterator[tuple[str, keras.layers.Layer]]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _leaves(layer, f"{prefix}{layer.name}/")
        elif layer.weights:
            yield prefix + layer.name, layer


def build_network(config: Config) -> Network:
    """Builds every part from the settings; `config.SEED` determines the initial weights.

    Raises ValueError for an unknown backbone or head, an impossible setting, or a single class.
    """
    config.validate()
    if config.NUM_CLASSES < 2:
        raise ValueError(f"NUM_CLASSES is {config.NUM_CLASSES}: the background alone. Set it to 1 + your classes.")
    keras.utils.set_random_seed(config.SEED)
    with precision(config.PRECISION):
        # The box head comes first, because drawing its largest kernel briefly takes several times the kernel's memory
        pyramid = config.NECK == "fpn"
        box_head = _build_box_head(config, config.POOL_SIZE, config.TOP_DOWN_PYRAMID_SIZE) if pyramid else None
        backbone = build_backbone(
            config.BACKBONE,
            channels=config.IMAGE_CHANNEL_COUNT,
            train_bn=config.TRAIN_BN,
            options=config.BACKBONE_OPTIONS,
            stride_in_1x1=config.BACKBONE_STRIDE_IN_1X1,
            stem_padding=config.BACKBONE_STEM_PADDING,
            neck=config.NECK,
            roi_size=config.POOL_SIZE,
        )
        taps = backbone.model.outputs
        levels = feature_pyramid(taps, config.TOP_DOWN_PYRAMID_SIZE) if pyramid else taps[-1:]
        stage = backbone.last_stage
        box_side, mask_side, channels = config.POOL_SIZE, config.MASK_POOL_SIZE, levels[-1].shape[-1]
        if stage is not None:
            box_side, mask_side, channels = stage.output_shape[1], stage.output_shape[1], stage.output_shape[-1]
        return Network(
            trunk=keras.Model(backbone.model.inputs[0], levels, name="trunk"),
            rpn=build_rpn(
                levels[-1].shape[-1],
                config.RPN_CHANNELS,
                len(config.RPN_ANCHOR_RATIOS) * (1 if pyramid else len(config.RPN_ANCHOR_SCALES)),
                config.RPN_ANCHOR_STRIDE,
                config.RPN_CONVOLUTIONS,
            ),
            box_head=box_head or _build_box_head(config, box_side, channels),
            head=build_mask_head(config, (mask_side, mask_side, channels), levels[0].shape[-1]),
            backbone=backbone,
            roi_stage=stage,
            keypoints=_build_keypoint_head(config, levels[-1].shape[-1]),
        )


def _build_box_head(config: Config, side: int, channels: int) -> keras.Model:
    return build_box_head(
        side,
        channels,
        config.FPN_CLASSIF_FC_LAYERS_SIZE,
        config.NUM_CLASSES,
        convolutions=config.BOX_HEAD_CONVOLUTIONS,
        fc_layers=config.BOX_HEAD_FC_LAYERS,
    )


def build_mask_head(
    config: Config, input_shape: tuple[int, int, int] | None = None, channels: int | None = None
) -> heads.Head | None:
    """The mask head alone, as in the network; None if MASK_HEAD is None.

    Args:
        input_shape: (height, width, channels) of the RoI features; None for those of a pyramid.
        channels: of the feature maps; None for those of a pyramid.

    Raises ValueError for an unknown head or option.
    """
    if config.MASK_HEAD is None:
        return None
    side = config.MASK_POOL_SIZE
    with precision(config.PRECISION):
        return heads.make(
            config.MASK_HEAD,
            input_shape or (side, side, config.TOP_DOWN_PYRAMID_SIZE),
            config.NUM_CLASSES,
            kind="mask",
            strides=config.BACKBONE_STRIDES[:4],
            channels=channels,
        )


def trial_inputs(head: heads.Head, rois: int) -> dict[str, Any]:
    """Random inputs for a head's inference, by name; see `heads.protocol.check.trial_inputs`."""
    return check.trial_inputs(head, training=False, rois=rois)


def registered_heads(kind: str) -> list[str]:
    """Names of the heads of a kind, such as "mask"."""
    return heads.names(kind)


def importable_heads(program: str) -> dict[str, type[heads.Head]]:
    """The registered heads that state their layers' names in files of a program ("detectron2"), by name."""
    registered: dict[str, Any] = {name: heads.get(name) for name in heads.names()}
    return {name: head for name, head in registered.items() if program in getattr(head, "weight_names", ())}


def _build_keypoint_head(config: Config, channels: int) -> heads.Head | None:
    if config.KEYPOINT_HEAD is None:
        return None
    side, strides = config.KEYPOINT_POOL_SIZE, config.BACKBONE_STRIDES[:4]
    return heads.make(
        config.KEYPOINT_HEAD, (side, side, channels), config.NUM_KEYPOINTS, kind="keypoints", strides=strides
    )


def _image_inputs(config: Config) -> dict[str, Any]:
    return {
        "image": keras.Input((None, None, config.IMAGE_CHANNEL_COUNT), name="image"),
        "window": keras.Input((4,), name="window"),
    }


def _folded(model: keras.Model, *, training: bool, fast: bool) -> keras.Model:
    return fold(model, fixed_norms(training=training), by_winograd=fast)


def _pyramid(network: Network, config: Config, image: Any, *, training: bool, fast: bool) -> tuple[list, ...]:
    """The trunk's feature maps, and for each of them the RPN's logits, the RPN's deltas and the anchors."""
    levels = _folded(network.trunk, training=training, fast=fast)(image)
    levels = list(levels) if isinstance(levels, (list, tuple)) else [levels]
    rpn = _folded(network.rpn, training=training, fast=fast)
    logits, deltas = zip(*(rpn(level) for level in levels), strict=True)
    anchors = Anchors(
        scales=config.RPN_ANCHOR_SCALES if config.NECK == "fpn" else [tuple(config.RPN_ANCHOR_SCALES)],
        ratios=config.RPN_ANCHOR_RATIOS,
        strides=config.BACKBONE_STRIDES,
        anchor_stride=config.RPN_ANCHOR_STRIDE,
        rounded=config.RPN_ANCHOR_ROUNDED,
        ratio_meaning=config.RPN_ANCHOR_RATIO_MEANING,
        step_from_size=config.RPN_ANCHOR_STEP_FROM_SIZE,
        name="anchors",
    )(levels)
    return levels, list(logits), list(deltas), anchors


def _proposals(config: Config, *, training: bool, portable: bool = False) -> Proposals:
    return Proposals(
        pre_nms_limit=config.PRE_NMS_LIMIT_TRAINING if training else config.PRE_NMS_LIMIT,
        post_nms_limit=config.POST_NMS_ROIS_TRAINING if training else config.POST_NMS_ROIS_INFERENCE,
        nms_threshold=config.RPN_NMS_THRESHOLD,
        std_dev=config.RPN_BBOX_STD_DEV,
        per_level=config.RPN_PER_LEVEL,
        min_size=config.RPN_MIN_SIZE,
        inclusive=config.BOXES_INCLUSIVE,
        inside_only=training,  # so that training does not depend on the amount of padding
        portable=portable,
        name="proposals",
    )


def _bounds(config: Config, inputs: dict[str, Any]) -> tuple[Any, Any]:
    """What proposals are clipped to (the image or the whole network input), and the latter's extent if needed."""
    whole = WholeInput(name="whole_input")(inputs["image"])
    return inputs["window"] if config.RPN_CLIP_TO_PHOTOGRAPH else whole, whole if config.BOXES_INCLUSIVE else None


def _shared_stage(network: Network, *, training: bool, fast: bool) -> Callable[[Any], Any]:
    """The stage that the heads share, from RoI features: stage 5 with the "c4" neck, else the identity."""
    return _folded(network.roi_stage, training=training, fast=fast) if network.roi_stage else lambda features: features


def _box_branch(
    network: Network, config: Config, features: Any, count: int, *, training: bool, fast: bool
) -> tuple[Any, Any]:
    """Class logits [batch, count, classes] and deltas [batch, count, classes, 4] of features [batch * count, ...]."""
    logits, deltas = _folded(network.box_head, training=training, fast=fast)(features)
    return (
        ops.reshape(logits, (-1, count, config.NUM_CLASSES)),
        ops.reshape(deltas, (-1, count, config.NUM_CLASSES, 4)),
    )


def training_graph(network: Network, config: Config) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs and outputs of one training step; the losses depend on the outputs alone.

    Inputs: a batch of `mrcnn.data.loader.Loader`. Outputs for B images, S sampled anchors, R sampled RoIs, K positives:
        rpn_labels [B, S] (1, 0, -1 not sampled), rpn_logits [B, S], rpn_target and rpn_deltas [B, S, 4];
        roi_class_ids [B, R], roi_sampled [B, R], class_logits [B, R, classes], roi_target and roi_deltas [B, R, 4],
        active_classes [B, classes]; mask_target and masks [K, size, size], mask_weight [K]; image_id [B]. A head that
        is not plain has its outputs in "head" and the ground truth for its targets in "head_truth" instead of
        mask_target and masks; a keypoint head likewise in "keypoint_head" and "keypoint_truth".
    """
    inputs = _image_inputs(config)
    inputs |= {
        "gt_class_ids": keras.Input((config.MAX_GT_INSTANCES,), dtype="int32", name="gt_class_ids"),
        "gt_boxes": keras.Input((config.MAX_GT_INSTANCES, 4), name="gt_boxes"),
        "active_classes": keras.Input((config.NUM_CLASSES,), name="active_classes"),
        "image_id": keras.Input((), dtype="int32", name="image_id"),
        "seed": keras.Input((), dtype="int32", name="seed"),
    }
    if network.head is not None:
        side = (None, None) if network.whole_masks else config.MINI_MASK_SHAPE
        inputs["gt_masks"] = keras.Input((config.MAX_GT_INSTANCES, *side), dtype="uint8", name="gt_masks")
    gt_boxes, gt_class_ids, seed = inputs["gt_boxes"], inputs["gt_class_ids"], inputs["seed"]
    levels, logits, deltas, anchors = _pyramid(network, config, inputs["image"], training=True, fast=True)

    # RPN: the sampled anchors, gathered from all levels.
    indices, rpn_labels, rpn_target = AnchorTargets(
        count=config.RPN_TRAIN_ANCHORS_PER_IMAGE,
        positive_ratio=config.RPN_POSITIVE_RATIO,
        positive_overlap=config.RPN_POSITIVE_OVERLAP,
        negative_overlap=config.RPN_NEGATIVE_OVERLAP,
        std_dev=config.RPN_BBOX_STD_DEV,
        name="anchor_targets",
    )(ops.concatenate(anchors, axis=0), gt_boxes, gt_class_ids, inputs["window"], seed)
    outputs = {
        "rpn_labels": rpn_labels,
        "rpn_target": rpn_target,
        "rpn_logits": ops.take_along_axis(ops.concatenate(logits, axis=1), indices, axis=1),
        "rpn_deltas": ops.take_along_axis(ops.concatenate(deltas, axis=1), indices[..., None], axis=1),
    }

    # Box head on sampled proposals.
    bounds = _bounds(config, inputs)
    rois, valid, _ = _proposals(config, training=True)(logits, deltas, anchors, *bounds)
    rois, class_ids, roi_target, sampled, instance = RoITargets(
        count=config.TRAIN_ROIS_PER_IMAGE,
        positive_ratio=config.ROI_POSITIVE_RATIO,
        positive_overlap=config.ROI_POSITIVE_OVERLAP,
        add_ground_truth=config.ROI_ADD_GROUND_TRUTH,
        std_dev=config.BBOX_STD_DEV,
        name="roi_targets",
    )(rois, valid, gt_boxes, gt_class_ids, seed)
    stage, count = _shared_stage(network, training=True, fast=True), config.TRAIN_ROIS_PER_IMAGE
    box_features = stage(roi_layer(config, config.POOL_SIZE, "roi_align_box", fast=True)(levels[:4], rois))
    class_logits, box_deltas = _box_branch(network, config, box_features, count, training=True, fast=True)
    own = ops.one_hot(class_ids, config.NUM_CLASSES, dtype="float32")[..., None]
    outputs |= {
        "roi_class_ids": class_ids,
        "roi_sampled": sampled,
        "class_logits": class_logits,
        "roi_target": roi_target,
        "roi_deltas": ops.sum(box_deltas * own, axis=2),
        "active_classes": inputs["active_classes"],
    }

    outputs["image_id"] = inputs["image_id"]
    # The other heads learn from the positives, which stand first.
    most = max(int(config.TRAIN_ROIS_PER_IMAGE * config.ROI_POSITIVE_RATIO), 1)
    if network.keypoints is not None:
        inputs["gt_keypoints"] = keras.Input((config.MAX_GT_INSTANCES, config.NUM_KEYPOINTS, 3), name="gt_keypoints")
        outputs |= keypoint_training(
            network.keypoints,
            levels[:4],
            {"boxes": rois[:, :most], "class_ids": class_ids[:, :most], "instance": instance[:, :most]},
            {"gt_boxes": gt_boxes, "gt_keypoints": inputs["gt_keypoints"]},
            partial(pooling, config, fast=True),
        )
    if network.head is None:
        return inputs, outputs

    head = network.head
    positive, rois = class_ids[:, :most] > 0, rois[:, :most]
    if head.train_on_predicted_boxes:
        rois = decode(ops.stop_gradient(outputs["roi_deltas"][:, :most]), rois, config.BBOX_STD_DEV)
    candidates = {"boxes": rois, "class_ids": class_ids[:, :most], "instance": instance[:, :most]}
    if network.roi_stage is not None:  # the mask head takes rows of the box head's features (Detectron2)
        candidates["features"] = ops.reshape(box_features, (-1, count, *box_features.shape[1:]))[:, :most]
    if "seed" in head.needs(training=True):
        candidates["seed"] = ops.expand_dims(seed, 1) + ops.arange(most, dtype="int32")
    kept, image_index, weight = KeepValid(name="positive_rois")(positive, list(candidates.values()))
    given = dict(zip(candidates, kept, strict=True)) | {"image_index": image_index}
    pool = pooling(config, given["boxes"], image_index, fast=True)
    outputs["mask_weight"] = weight
    if head.is_plain:
        features = given.get("features")
        if features is None:
            features = pool(config.MASK_POOL_SIZE, levels[:4], "roi_align_mask")
        mask_head = _folded(head.model, training=True, fast=True)
        outputs["masks"] = class_masks(mask_head)(features, given["class_ids"])
        outputs["mask_target"] = MaskTargets(mask_size=network.mask_size, name="mask_targets")(
            given["boxes"], image_index, given["instance"], gt_boxes, inputs["gt_masks"]
        )
        return inputs, outputs
    truth = {name: given[name] for name in ("class_ids", "boxes", "image_index", "instance")}
    outputs["head"] = head.model(head_inputs(head, levels[:4], given, pool, training=True))
    outputs["head_truth"] = truth | {"weight": weight, "gt_boxes": gt_boxes, "gt_masks": inputs["gt_masks"]}
    return inputs, outputs


def head_targets(head: heads.Head, outputs: dict[str, Any]) -> heads.Targets:
    """The ground truth of the RoIs in a training graph's outputs, for a head that is not plain."""
    return heads.Targets(**outputs["head_truth"], whole=head.source_masks)


def keypoint_targets(outputs: dict[str, Any]) -> heads.Targets:
    """The ground truth of the RoIs in the outputs of a training graph, for a keypoint head."""
    return heads.Targets(**outputs["keypoint_truth"])


def inference_graph(network: Network, config: Config, *, fast: bool = False, portable: bool = False) -> keras.Model:
    """The model from images to detections, in pixels of the network input.

    Args:
        fast: use Winograd convolutions and the fastest RoIAlign for this machine. Not for graphs to save or export.
        portable: use only operations that LiteRT has, with static shapes, for one image at a time. The masks then have
            D rows; `valid` marks the real ones.

    Returns a model of {"image": [batch, height, width, channels], "window": [batch, (y1, x1, y2, x2)]} -> a dict, D =
    DETECTION_MAX_INSTANCES: boxes [batch, D, (y1, x1, y2, x2)], class_ids, scores, valid [batch, D], zero-padded and
    sorted by score; masks [valid detections, size, size] of each detection's class, image by image (at least one row;
    absent without a mask head); mask_scores [valid detections] if the head scores its masks; keypoints [valid
    detections, size, size, NUM_KEYPOINTS] with a keypoint head, the logits of heatmaps inside the boxes;
    counts [batch, 4]: RoIs, (RoI, class) pairs over the minimum score, those left by NMS, detections.
    """
    inputs = _image_inputs(config)
    levels, logits, deltas, anchors = _pyramid(network, config, inputs["image"], training=False, fast=fast)
    bounds = _bounds(config, inputs)
    rois, valid, _ = _proposals(config, training=False, portable=portable)(logits, deltas, anchors, *bounds)
    stage, count = _shared_stage(network, training=False, fast=fast), config.POST_NMS_ROIS_INFERENCE
    align = roi_layer(config, config.POOL_SIZE, "roi_align_box", fast=fast, portable=portable)
    features = stage(align(levels[:4], rois))
    class_logits, box_deltas = _box_branch(network, config, features, count, training=False, fast=fast)
    boxes, class_ids, scores, valid, counts = Detections(
        num_classes=config.NUM_CLASSES,
        max_instances=config.DETECTION_MAX_INSTANCES,
        min_confidence=config.DETECTION_MIN_CONFIDENCE,
        nms_threshold=config.DETECTION_NMS_THRESHOLD,
        std_dev=config.BBOX_STD_DEV,
        best_class_only=config.DETECTION_BEST_CLASS_ONLY,
        min_size=config.DETECTION_MIN_SIZE,
        inclusive=config.BOXES_INCLUSIVE,
        portable=portable,
        name="detections",
    )(rois, valid, class_logits, box_deltas, inputs["window"], bounds[1])
    outputs = {"boxes": boxes, "class_ids": class_ids, "scores": scores, "valid": valid, "counts": counts}
    if network.head is not None:
        found = {"boxes": boxes, "class_ids": class_ids, "scores": scores}
        own_stage = stage if network.roi_stage else None
        outputs |= _masks(network.head, config, levels, found, valid, own_stage, fast=fast, portable=portable)
    if network.keypoints is not None:
        found, pool_of = {"boxes": boxes, "class_ids": class_ids}, partial(pooling, config, fast=fast)
        folded = partial(_folded, training=False, fast=fast)
        outputs["keypoints"] = heatmaps_of(network.keypoints, levels[:4], found, valid, pool_of, folded)
    return keras.Model(inputs, outputs, name="mask_rcnn")


def _masks(
    head: heads.Head,
    config: Config,
    levels: list,
    found: dict[str, Any],
    valid: Any,
    stage: Callable[[Any], Any] | None,
    *,
    fast: bool,
    portable: bool = False,
) -> dict[str, Any]:
    """Masks of the valid detections, and their scores if the head predicts any.

    Args:
        found: boxes, class_ids and scores of the detections, with padding rows.
        stage: the stage that the heads share, see `_shared_stage`.
    """
    names = ["boxes", "class_ids", *(["scores"] if head.rescores else [])]
    kept, image_index, _ = KeepValid(portable, name="kept_detections")(valid, [found[name] for name in names])
    given = dict(zip(names, kept, strict=True)) | {"image_index": image_index}
    pool = pooling(config, given["boxes"], image_index, fast=fast, portable=portable)
    if stage is not None:
        given["features"] = stage(pool(config.POOL_SIZE, levels[:4], "roi_align_mask"))
    if head.is_plain:
        features = given.get("features")
        if features is None:
            features = pool(config.MASK_POOL_SIZE, levels[:4], "roi_align_mask")
        mask_head = _folded(head.model, training=False, fast=fast)
        return {"masks": class_masks(mask_head)(features, given["class_ids"])}
    made = head.inference(head_inputs(head, levels[:4], given, pool, training=False))
    outputs = {"masks": PickClass(name="masks")(made["masks"], given["class_ids"])}
    if head.rescores:
        outputs["mask_scores"] = Rescore(head, name="mask_scores")(made, given["scores"], given["class_ids"])
    return outputs


def mask_graph(network: Network, config: Config, *, fast: bool = False) -> keras.Model:
    """Masks of given boxes, without the RPN and the box head.

    Returns a model of {"image": [batch, height, width, channels], "boxes": [batch, D, (y1, x1, y2, x2)] in pixels of
    the network input, "class_ids", "scores", "valid": [batch, D], valid ones first} -> {"masks": as `inference_graph`}.
    D is DETECTION_MAX_INSTANCES.

    Raises ValueError for a network without a mask head.
    """
    if network.head is None:
        raise ValueError("the network has no mask head, so it cannot predict the masks of boxes")
    count = config.DETECTION_MAX_INSTANCES
    inputs = {
        "image": _image_inputs(config)["image"],
        "boxes": keras.Input((count, 4), name="boxes"),
        "class_ids": keras.Input((count,), dtype="int32", name="class_ids"),
        "scores": keras.Input((count,), name="scores"),
        "valid": keras.Input((count,), dtype="bool", name="valid"),
    }
    levels = _folded(network.trunk, training=False, fast=fast)(inputs["image"])
    levels = list(levels) if isinstance(levels, (list, tuple)) else [levels]
    found = {name: inputs[name] for name in ("boxes", "class_ids", "scores")}
    stage = _shared_stage(network, training=False, fast=fast) if network.roi_stage else None
    outputs = _masks(network.head, config, levels, found, inputs["valid"], stage, fast=fast)
    return keras.Model(inputs, {"masks": outputs["masks"]}, name="masks_of_boxes")

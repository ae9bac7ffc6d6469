"""One network, two graphs: every part with weights is built once, and two functions connect the parts.

Training and inference differ in where the RoIs come from. `network/training_graph.py` samples them from proposals and
ground truth; `inference_graph` feeds the proposals to the box head and its detections to the mask head.
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
from mrcnn.fusion.mask_channel import class_masks
from mrcnn.layers.anchors import Anchors
from mrcnn.layers.detections import Detections
from mrcnn.layers.keep_valid import KeepValid
from mrcnn.layers.proposals import Proposals, WholeInput
from mrcnn.network.backbone import Backbone, build_backbone
from mrcnn.network.box_head import build_box_head
from mrcnn.network.fpn import feature_pyramid
from mrcnn.network.frozen_batch_norm import fixed_norms
from mrcnn.network.head_branch import head_inputs, heatmaps_of, mask_outputs, pooling, roi_layer
from mrcnn.network.precision import precision
from mrcnn.network.rpn import build_rpn


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
            # After the RPN and the box head, whose initial weights are then the same with every mask head
            head=_checked_head(config, build_mask_head(config, (mask_side, mask_side, channels), levels[0].shape[-1])),
            backbone=backbone,
            roi_stage=stage,
            keypoints=_build_keypoint_head(config, levels[-1].shape[-1]),
        )


def _checked_head(config: Config, head: heads.Head | None) -> heads.Head | None:
    """Raises ValueError for a head that cannot share the features of the box head."""
    if config.NECK == "c4" and head and head.train_on_predicted_boxes and "features" in head.needs(training=True):
        raise ValueError(
            f'MASK_HEAD = {config.MASK_HEAD!r} trains on predicted boxes, but with NECK = "c4" it shares the '
            'features of proposals with the box head. Set NECK = "fpn", or another MASK_HEAD'
        )
    return head


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
        try:
            return heads.make(
                config.MASK_HEAD,
                input_shape or (side, side, config.TOP_DOWN_PYRAMID_SIZE),
                config.NUM_CLASSES,
                kind="mask",
                strides=config.BACKBONE_STRIDES[:4],
                channels=channels,
            )
        except ValueError as error:
            if input_shape is None or config.NECK != "c4":
                raise
            raise ValueError(
                f'{error}. With NECK = "c4" a mask head gets {input_shape[0]} x {input_shape[0]} cells of stage 5, '
                f"half of POOL_SIZE = {config.POOL_SIZE}; set another POOL_SIZE, MASK_HEAD or NECK"
            ) from error


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


def image_inputs(config: Config) -> dict[str, Any]:
    """The image and the window in it, inputs of both graphs."""
    return {
        "image": keras.Input((None, None, config.IMAGE_CHANNEL_COUNT), name="image"),
        "window": keras.Input((4,), name="window"),
    }


def folded_model(model: keras.Model, *, training: bool, fast: bool) -> keras.Model:
    """The same function of inputs and weights in fewer operations; see `mrcnn.fusion.folding`."""
    return fold(model, fixed_norms(training=training), by_winograd=fast)


def pyramid(network: Network, config: Config, image: Any, *, training: bool, fast: bool) -> tuple[list, ...]:
    """The trunk's feature maps, and for each of them the RPN's logits, the RPN's deltas and the anchors."""
    levels = folded_model(network.trunk, training=training, fast=fast)(image)
    levels = list(levels) if isinstance(levels, (list, tuple)) else [levels]
    rpn = folded_model(network.rpn, training=training, fast=fast)
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


def proposal_layer(config: Config, *, training: bool, portable: bool = False) -> Proposals:
    """The layer that makes proposals of the RPN's predictions."""
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


def proposal_bounds(config: Config, inputs: dict[str, Any]) -> tuple[Any, Any]:
    """What proposals are clipped to (the image or the whole network input), and the latter's extent if needed."""
    whole = WholeInput(name="whole_input")(inputs["image"])
    return inputs["window"] if config.RPN_CLIP_TO_PHOTOGRAPH else whole, whole if config.BOXES_INCLUSIVE else None


def shared_stage(network: Network, *, training: bool, fast: bool) -> Callable[[Any], Any]:
    """The stage that the heads share, from RoI features: stage 5 with the "c4" neck, else the identity."""
    return (
        folded_model(network.roi_stage, training=training, fast=fast)
        if network.roi_stage
        else lambda features: features
    )


def box_branch(
    network: Network, config: Config, features: Any, count: int, *, training: bool, fast: bool
) -> tuple[Any, Any]:
    """Class logits [batch, count, classes] and deltas [batch, count, classes, 4] of features [batch * count, ...]."""
    logits, deltas = folded_model(network.box_head, training=training, fast=fast)(features)
    return (
        ops.reshape(logits, (-1, count, config.NUM_CLASSES)),
        ops.reshape(deltas, (-1, count, config.NUM_CLASSES, 4)),
    )


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
        portable: use only operations that LiteRT has, with static shapes, for one image at a time. Masks and keypoints
            then have D rows; `valid` marks the real ones.

    Returns a model of {"image": [batch, height, width, channels], "window": [batch, (y1, x1, y2, x2)]} -> a dict, D =
    DETECTION_MAX_INSTANCES: boxes [batch, D, (y1, x1, y2, x2)], class_ids, scores, valid [batch, D], zero-padded and
    sorted by score; masks [valid detections, size, size] of each detection's class, image by image (at least one row;
    absent without a mask head); mask_scores [valid detections] if the head scores its masks; keypoints [valid
    detections, size, size, NUM_KEYPOINTS] with a keypoint head, the logits of heatmaps inside the boxes;
    counts [batch, 4]: RoIs, (RoI, class) pairs over the minimum score, those left by NMS, detections.
    """
    inputs = image_inputs(config)
    levels, logits, deltas, anchors = pyramid(network, config, inputs["image"], training=False, fast=fast)
    bounds = proposal_bounds(config, inputs)
    rois, valid, _ = proposal_layer(config, training=False, portable=portable)(logits, deltas, anchors, *bounds)
    stage, count = shared_stage(network, training=False, fast=fast), config.POST_NMS_ROIS_INFERENCE
    align = roi_layer(config, config.POOL_SIZE, "roi_align_box", fast=fast, portable=portable)
    features = stage(align(levels[:4], rois))
    class_logits, box_deltas = box_branch(network, config, features, count, training=False, fast=fast)
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
        found = {"boxes": boxes, "class_ids": class_ids}
        pool_of = partial(pooling, config, fast=fast, portable=portable)
        folded = partial(folded_model, training=False, fast=fast)
        outputs["keypoints"] = heatmaps_of(
            network.keypoints, levels[:4], found, valid, pool_of, folded, portable=portable
        )
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
        stage: the stage that the heads share, see `shared_stage`.
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
        mask_head = folded_model(head.model, training=False, fast=fast)
        return {"masks": class_masks(mask_head)(features, given["class_ids"])}
    made = head.inference(head_inputs(head, levels[:4], given, pool, training=False))
    return mask_outputs(head, made, given["class_ids"], given.get("scores"))


def mask_graph(network: Network, config: Config, *, fast: bool = False) -> keras.Model:
    """Masks of given boxes, without the RPN and the box head, and their scores if the head scores its masks.

    Returns a model of {"image": [batch, height, width, channels], "boxes": [batch, D, (y1, x1, y2, x2)] in pixels of
    the network input, "class_ids", "scores", "valid": [batch, D], valid ones first} -> {"masks", "mask_scores": as
    `inference_graph`}.
    D is DETECTION_MAX_INSTANCES.

    Raises ValueError for a network without a mask head.
    """
    if network.head is None:
        raise ValueError("the network has no mask head, so it cannot predict the masks of boxes")
    count = config.DETECTION_MAX_INSTANCES
    inputs = {
        "image": image_inputs(config)["image"],
        "boxes": keras.Input((count, 4), name="boxes"),
        "class_ids": keras.Input((count,), dtype="int32", name="class_ids"),
        "scores": keras.Input((count,), name="scores"),
        "valid": keras.Input((count,), dtype="bool", name="valid"),
    }
    levels = folded_model(network.trunk, training=False, fast=fast)(inputs["image"])
    levels = list(levels) if isinstance(levels, (list, tuple)) else [levels]
    found = {name: inputs[name] for name in ("boxes", "class_ids", "scores")}
    stage = shared_stage(network, training=False, fast=fast) if network.roi_stage else None
    outputs = _masks(network.head, config, levels, found, inputs["valid"], stage, fast=fast)
    return keras.Model(inputs, outputs, name="masks_of_boxes")

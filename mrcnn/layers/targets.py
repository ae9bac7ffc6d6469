"""Training targets of the anchors, the RoIs and their masks.

Class ids: 0 is padding or background, positive an object, negative a crowd. Crowds are ignored: anchors and RoIs that
touch one are not negatives, and no box is regressed to one.
"""

from typing import Any

import keras
from keras import ops

from mrcnn.layers import keep_valid as padding
from mrcnn.layers.roi_align import roi_align
from mrcnn.layers.static_output import StaticOutputLayer, spec
from mrcnn.ops import boxes, sampling

CROWD_OVERLAP = 0.001  # a box with at least this IoU with a crowd is not a negative (matterport)


@keras.saving.register_keras_serializable("mrcnn")
class AnchorTargets(StaticOutputLayer):
    """Samples the anchors that train the RPN (Ren et al. 2015, section 3.1.2).

    An anchor is positive if its IoU with an object is at least `positive_overlap`, or if it has the highest IoU of all
    anchors with some object. It is background if its IoU with every object is below `negative_overlap`. Other anchors
    are not used.

    Call arguments:
        anchors: [anchors, (y1, x1, y2, x2)], pixels of the network input.
        gt_boxes: [batch, instances, (y1, x1, y2, x2)], zero-padded.
        gt_class_ids: [batch, instances], zero-padded.
        windows: [batch, (y1, x1, y2, x2)], position of the image in the network input.
        seed: [batch] int32.

    Returns:
        indices: [batch, count] int32 of the sampled anchors.

        labels: [batch, count] int32, 1 object, 0 background, -1 not sampled.

        deltas: [batch, count, (dy, dx, log dh, log dw)] divided by std_dev, 0 where not positive.
    """

    def __init__(
        self,
        *,
        count: int,
        positive_ratio: float,
        positive_overlap: float,
        negative_overlap: float,
        std_dev: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.count, self.positive_ratio, self.std_dev = count, positive_ratio, tuple(std_dev)
        self.positive_overlap, self.negative_overlap = positive_overlap, negative_overlap
        self.supports_jit = keras.backend.backend() != "tensorflow"

    def call(self, anchors: Any, gt_boxes: Any, gt_class_ids: Any, windows: Any, seed: Any) -> tuple[Any, Any, Any]:
        _, gt_boxes, gt_class_ids = padding.trim(gt_class_ids != 0, gt_boxes, gt_class_ids)
        positive, negative, matched = match_anchors(
            anchors,
            gt_boxes,
            gt_class_ids,
            boxes.centered_in(anchors, windows),
            positive_overlap=self.positive_overlap,
            negative_overlap=self.negative_overlap,
        )
        priority = sampling.uniform_of(seed, sampling.box_keys(anchors), salt=1)
        indices, is_positive, is_drawn = sampling.sample_balanced(
            positive, negative, priority, count=self.count, positive_limit=int(self.count * self.positive_ratio)
        )
        matched = ops.take_along_axis(matched, indices, axis=1)
        target = ops.take_along_axis(gt_boxes, ops.expand_dims(matched, -1), axis=1)
        deltas = boxes.encode(target, ops.take(anchors, indices, axis=0), self.std_dev)
        labels = ops.where(is_drawn, ops.cast(is_positive, "int32"), -1)
        return indices, labels, ops.stop_gradient(ops.where(ops.expand_dims(is_positive, -1), deltas, 0.0))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "count": self.count,
            "positive_ratio": self.positive_ratio,
            "positive_overlap": self.positive_overlap,
            "negative_overlap": self.negative_overlap,
            "std_dev": self.std_dev,
        }

    def static_outputs(self, anchors: Any, gt_boxes: Any, *_: Any) -> tuple[Any, Any, Any]:
        rows = (gt_boxes.shape[0], self.count)
        return spec(*rows, dtype="int32"), spec(*rows, dtype="int32"), spec(*rows, 4)


def match_anchors(
    anchors: Any,
    gt_boxes: Any,
    gt_class_ids: Any,
    inside: Any = True,
    *,
    positive_overlap: float,
    negative_overlap: float,
) -> tuple[Any, Any, Any]:
    """Which anchors are positive, which are background, and which object each overlaps most.

    Args:
        anchors: [anchors, (y1, x1, y2, x2)].
        gt_boxes: [batch, instances, (y1, x1, y2, x2)] zero-padded; gt_class_ids: [batch, instances] zero-padded.
        inside: [batch, anchors] bool; False, as for anchors in the padding, means neither positive nor background.

    Returns:
        positive, negative: [batch, anchors] bool; matched: [batch, anchors] int32, the instance of highest IoU.

    Source: torchvision's Matcher with allow_low_quality_matches; matterport's build_rpn_targets for crowds.
    """
    overlaps = boxes.iou(ops.expand_dims(anchors, 0), gt_boxes)
    is_object = ops.logical_and(ops.expand_dims(gt_class_ids > 0, 1), ops.expand_dims(inside, -1))
    object_overlaps = ops.where(is_object, overlaps, -1.0)
    best = ops.max(object_overlaps, axis=-1)
    highest = ops.max(object_overlaps, axis=1, keepdims=True)
    no_better = ops.logical_and(object_overlaps == highest, ops.logical_and(is_object, highest > 0))
    positive = ops.logical_or(best >= positive_overlap, ops.any(no_better, axis=-1))
    background = ops.logical_and(ops.logical_and(best < negative_overlap, inside), ops.logical_not(positive))
    negative = ops.logical_and(background, ops.logical_not(_touches_crowd(overlaps, gt_class_ids)))
    return positive, negative, ops.cast(ops.argmax(object_overlaps, axis=-1), "int32")


def _touches_crowd(overlaps: Any, gt_class_ids: Any) -> Any:
    is_crowd = ops.expand_dims(gt_class_ids < 0, 1)
    return ops.max(ops.where(is_crowd, overlaps, 0.0), axis=-1) >= CROWD_OVERLAP


@keras.saving.register_keras_serializable("mrcnn")
class RoITargets(StaticOutputLayer):
    """Samples the RoIs that train the heads (He et al. 2017, section 3.1; Model Garden's roi_sampler).

    Call arguments:
        rois: [batch, rois, (y1, x1, y2, x2)], zero-padded.
        valid: [batch, rois] bool, False for padding rows.
        gt_boxes, gt_class_ids: [batch, instances, 4] and [batch, instances], zero-padded.
        seed: [batch] int32.

    Returns:
        rois: [batch, count, (y1, x1, y2, x2)], positives first, then negatives, zero-padded.

        class_ids: [batch, count] int32, 0 for background and padding.

        deltas: [batch, count, (dy, dx, log dh, log dw)] divided by std_dev, 0 where not positive.

        sampled: [batch, count] bool, False on padding.

        instance: [batch, count] int32, the ground-truth instance of a positive RoI.
    """

    def __init__(
        self,
        *,
        count: int,
        positive_ratio: float,
        positive_overlap: float,
        add_ground_truth: bool,
        std_dev: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.count, self.positive_ratio, self.positive_overlap = count, positive_ratio, positive_overlap
        self.add_ground_truth, self.std_dev = add_ground_truth, tuple(std_dev)

    def call(self, rois: Any, valid: Any, gt_boxes: Any, gt_class_ids: Any, seed: Any) -> tuple[Any, ...]:
        if self.add_ground_truth:
            rois = ops.concatenate([rois, gt_boxes], axis=1)
            valid = ops.concatenate([valid, gt_class_ids > 0], axis=1)
        overlaps = boxes.iou(rois, gt_boxes)
        object_overlaps = ops.where(ops.expand_dims(gt_class_ids > 0, 1), overlaps, -1.0)
        best = ops.max(object_overlaps, axis=-1)
        positive = ops.logical_and(valid, best >= self.positive_overlap)
        negative = ops.logical_and(valid, ops.logical_not(positive))
        negative = ops.logical_and(negative, ops.logical_not(_touches_crowd(overlaps, gt_class_ids)))
        indices, is_positive, sampled = sampling.sample_balanced(
            positive,
            negative,
            sampling.uniform(seed, ops.shape(rois)[1], salt=2),
            count=self.count,
            positive_limit=int(self.count * self.positive_ratio),
        )
        instance = ops.take_along_axis(ops.cast(ops.argmax(object_overlaps, axis=-1), "int32"), indices, axis=1)
        rois = _rows(rois, indices) * ops.expand_dims(ops.cast(sampled, "float32"), -1)
        deltas = boxes.encode(_rows(gt_boxes, instance), rois, self.std_dev)
        deltas = ops.where(ops.expand_dims(is_positive, -1), deltas, 0.0)
        class_ids = ops.where(is_positive, ops.take_along_axis(gt_class_ids, instance, axis=1), 0)
        return ops.stop_gradient(rois), class_ids, ops.stop_gradient(deltas), sampled, instance

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "count": self.count,
            "positive_ratio": self.positive_ratio,
            "positive_overlap": self.positive_overlap,
            "add_ground_truth": self.add_ground_truth,
            "std_dev": self.std_dev,
        }

    def static_outputs(self, rois: Any, *_: Any) -> tuple[Any, ...]:
        rows = (rois.shape[0], self.count)
        return (
            spec(*rows, 4),
            spec(*rows, dtype="int32"),
            spec(*rows, 4),
            spec(*rows, dtype="bool"),
            spec(*rows, dtype="int32"),
        )


def _rows(array: Any, indices: Any) -> Any:
    return ops.take_along_axis(array, ops.expand_dims(indices, -1), axis=1)


@keras.saving.register_keras_serializable("mrcnn")
class MaskTargets(StaticOutputLayer):
    """Ground-truth masks cropped to the positive RoIs.

    Call arguments:
        rois: [kept, (y1, x1, y2, x2)].
        image_index, instance: [kept], the image and ground-truth instance of each RoI.
        gt_boxes: [batch, instances, (y1, x1, y2, x2)].
        gt_masks: [batch, instances, m, m] uint8 in 0..255, cropped to `gt_boxes`.

    Returns:
        [kept, mask_size, mask_size] float32, 1 where the object covers at least half of the cell, else 0.
    """

    def __init__(self, *, mask_size: int, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.mask_size = mask_size
        self.supports_jit = keras.backend.backend() != "tensorflow"

    def call(self, rois: Any, image_index: Any, instance: Any, gt_boxes: Any, gt_masks: Any) -> Any:
        row = image_index * ops.shape(gt_boxes)[1] + instance
        truth = ops.take(ops.reshape(gt_boxes, (-1, 4)), row, axis=0)
        height, width = gt_masks.shape[2:4]
        masks = ops.take(ops.reshape(gt_masks, (-1, height, width, 1)), row, axis=0)
        masks = ops.pad(masks, ((0, 0), (1, 1), (1, 1), (0, 0)))  # or RoIAlign would extend the edge beyond the box
        origin = ops.concatenate([truth[:, :2]] * 2, axis=1)
        size = ops.maximum(truth[:, 2:] - truth[:, :2], 1e-6)
        cells = ops.convert_to_tensor([height, width] * 2, dtype="float32") / ops.concatenate([size] * 2, axis=1)
        crops = roi_align.roi_align(
            ops.cast(masks, "float32") / 255.0,
            (rois - origin) * cells + 1.0,
            ops.arange(ops.shape(rois)[0]),
            spatial_scale=1.0,
            pool_size=self.mask_size,
            sampling_ratio=2,
            aligned=True,
        )
        return ops.stop_gradient(ops.cast(crops[..., 0] >= 0.5, "float32"))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mask_size": self.mask_size}

    def static_outputs(self, rois: Any, *_: Any) -> Any:
        return spec(rois.shape[0], self.mask_size, self.mask_size)

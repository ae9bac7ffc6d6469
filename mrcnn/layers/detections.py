"""Detections: labeled boxes from the box head's outputs, after non-maximum suppression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from mrcnn.layers.static_output import StaticOutputLayer, spec
from mrcnn.ops import boxes as box_ops
from mrcnn.ops.nms import LOWEST, nms_per_group


class Candidates(NamedTuple):
    """All N RoIs under all C foreground classes, in the layer's internal box convention.

    confident: [B, N, C] bool, whether the pair enters NMS. probabilities: [B, N, C].
    refined, clipped: [B, N, C, (y1, x1, y2, x2)], after the class's deltas, and after clipping to the window.
    valid: [B, D] bool and places: [B, D] int32, indices into [C * N] of the detections that `call` returns.
    """

    confident: Any
    probabilities: Any
    refined: Any
    clipped: Any
    valid: Any
    places: Any


@keras.saving.register_keras_serializable("mrcnn")
class Detections(StaticOutputLayer):
    """Labeled boxes from class logits and box deltas (torchvision and Detectron2). No weights, no gradient.

    Every (RoI, class) pair with a probability above `min_confidence` is a candidate. Its box is decoded with the
    class's deltas, clipped to the image, and dropped if a side is below `min_size`. NMS per class follows; then the
    `max_instances` best are kept.

    Args:
        num_classes: including the background, which is class 0.
        max_instances: detections per image (D).
        min_confidence: probability that a candidate must exceed.
        nms_threshold: IoU above which the lower-scoring box of the same class is dropped.
        std_dev: four numbers that the deltas were divided by, see `boxes.encode`.
        min_size: shortest side kept, in pixels; 0 also keeps boxes without area.
        best_class_only: each RoI yields only its most probable class, or nothing if that is background (matterport).
        inclusive: compute with corners that name the last pixel (matterport, see `boxes.to_inclusive`). Inputs and
            outputs keep the usual convention.
        portable: see `mrcnn.ops.nms.nms_per_group`.

    Call arguments:
        rois: [B, N, (y1, x1, y2, x2)], pixels of the network input, zero-padded.
        rois_valid: [B, N] bool, False for padding rows.
        class_logits: [B, N, num_classes].
        box_deltas: [B, N, num_classes, (dy, dx, log dh, log dw)].
        windows: [B, (y1, x1, y2, x2)], position of the image in the network input.
        extent: [B, (0, 0, height, width)] of the network input, only with `inclusive`: boxes are then computed as
            fractions of it, see `boxes.decode_normalized`.

    Returns:
        boxes [B, D, (y1, x1, y2, x2)] float32, pixels of the network input; class_ids [B, D] int32; scores [B, D]
        float32; valid [B, D] bool; best first, zero-padded where `valid` is False. counts [B, 4] int32: valid RoIs,
        candidates above `min_confidence`, those left by NMS (at most `max_instances` per class), those returned.

    Raises:
        ValueError: if `class_logits` have a different number of classes.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        max_instances: int = 100,
        min_confidence: float = 0.05,
        nms_threshold: float = 0.5,
        std_dev: Sequence[float],
        min_size: float = 1e-2,
        best_class_only: bool = False,
        inclusive: bool = False,
        portable: bool = False,
        **kwargs: Any,
    ) -> None:
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        self.supports_jit = keras.backend.backend() != "tensorflow"  # NMS has no XLA kernel
        self.num_classes, self.max_instances = int(num_classes), int(max_instances)
        self.min_confidence, self.nms_threshold = float(min_confidence), float(nms_threshold)
        self.std_dev = tuple(float(value) for value in std_dev)
        self.min_size = float(min_size)
        self.best_class_only, self.inclusive, self.portable = bool(best_class_only), bool(inclusive), bool(portable)

    def call(
        self, rois: Any, rois_valid: Any, class_logits: Any, box_deltas: Any, windows: Any, extent: Any = None
    ) -> tuple[Any, Any, Any, Any, Any]:
        if class_logits.shape[-1] != self.num_classes:
            raise ValueError(f"class_logits have {class_logits.shape[-1]} classes, num_classes is {self.num_classes}")
        confident, probabilities = self._confident(class_logits, rois_valid)
        boxes = box_ops.clip(*self._refined(rois, box_deltas, windows, extent))
        boxes, class_ids, scores, valid, survived, _ = self._chosen(confident, probabilities, boxes)
        counts = ops.stack([_count(rois_valid), _count(confident), _count(survived), _count(valid)], axis=-1)
        return ops.stop_gradient(boxes), class_ids, ops.stop_gradient(scores), valid, counts

    def candidates(
        self, rois: Any, rois_valid: Any, class_logits: Any, box_deltas: Any, windows: Any, extent: Any = None
    ) -> Candidates:
        """The candidates that enter NMS and the detections that remain; arguments as for `call`."""
        confident, probabilities = self._confident(class_logits, rois_valid)
        refined, windows = self._refined(rois, box_deltas, windows, extent)
        clipped = box_ops.clip(refined, windows)
        *_, valid, _, places = self._chosen(confident, probabilities, clipped)
        return Candidates(confident, probabilities, refined, clipped, valid, places)

    def _chosen(self, confident: Any, probabilities: Any, boxes: Any) -> tuple[Any, Any, Any, Any, Any, Any]:
        """boxes, class_ids, scores and valid as returned by `call`; flags of all that NMS kept; the boxes' indices."""
        y1, x1, y2, x2 = ops.unstack(boxes, 4, axis=-1)
        wanted = ops.logical_and(confident, ops.minimum(y2 - y1, x2 - x1) >= self.min_size)
        scores = ops.where(wanted, probabilities, LOWEST)
        boxes, scores, groups, survived, places = nms_per_group(
            ops.transpose(boxes, (0, 2, 1, 3)),
            ops.transpose(scores, (0, 2, 1)),
            max_per_group=self.max_instances,
            max_total=self.max_instances * (self.num_classes - 1),  # no limit, so that all can be counted
            iou_threshold=self.nms_threshold,
            keep_empty=self.min_size == 0,
            portable=self.portable,
        )
        kept = slice(0, self.max_instances)
        boxes, scores, valid = boxes[:, kept], scores[:, kept], survived[:, kept]
        if self.inclusive:
            boxes = ops.where(valid[..., None], box_ops.to_exclusive(boxes), 0.0)
        class_ids = ops.where(valid, groups[:, kept] + 1, 0)
        return boxes, class_ids, scores, valid, survived, places[:, kept]

    def static_outputs(
        self, rois: Any, rois_valid: Any, class_logits: Any, box_deltas: Any, windows: Any, extent: Any = None
    ) -> tuple[Any, Any, Any, Any, Any]:
        rows = (rois.shape[0], self.max_instances)
        return (
            spec(*rows, 4),
            spec(*rows, dtype="int32"),
            spec(*rows),
            spec(*rows, dtype="bool"),
            spec(rois.shape[0], 4, dtype="int32"),
        )

    def _confident(self, class_logits: Any, rois_valid: Any) -> tuple[Any, Any]:
        """Which (RoI, class) pairs are candidates, and their probabilities; [B, N, num_classes - 1], no background."""
        probabilities = ops.softmax(class_logits, axis=-1)
        confident = probabilities[..., 1:] > self.min_confidence
        if self.best_class_only:
            best = ops.argmax(probabilities, axis=-1)[..., None]
            confident = ops.logical_and(confident, best == ops.arange(1, self.num_classes, dtype=best.dtype))
        return ops.logical_and(confident, rois_valid[..., None]), probabilities[..., 1:]

    def _refined(self, rois: Any, box_deltas: Any, windows: Any, extent: Any) -> tuple[Any, Any]:
        """Boxes of every foreground class [B, N, num_classes - 1, 4], and the windows to clip them to [B, 4]."""
        if self.inclusive:
            rois, windows = box_ops.to_inclusive(rois), box_ops.to_inclusive(windows)
        deltas, rois = box_deltas[:, :, 1:], rois[:, :, None]
        if extent is not None:
            return box_ops.decode_normalized(deltas, rois, self.std_dev, box_ops.to_inclusive(extent)), windows
        return box_ops.decode(deltas, rois, self.std_dev), windows

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "max_instances": self.max_instances,
            "min_confidence": self.min_confidence,
            "nms_threshold": self.nms_threshold,
            "std_dev": self.std_dev,
            "min_size": self.min_size,
            "best_class_only": self.best_class_only,
            "inclusive": self.inclusive,
            "portable": self.portable,
        }


def _count(flags: Any) -> Any:
    """Number of True in each row of `flags` [B, ...] -> [B] int32."""
    flags = ops.cast(flags, "int32")
    return ops.sum(flags, axis=tuple(range(1, len(flags.shape))))

"""Region proposals: the RPN's best anchors, refined by its deltas, after non-maximum suppression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from mrcnn.layers.static_output import StaticOutputLayer, spec
from mrcnn.ops import boxes as box_ops
from mrcnn.ops.nms import LOWEST, nms_per_group


@keras.saving.register_keras_serializable("mrcnn")
class WholeInput(StaticOutputLayer):
    """Windows that include the padding: images [B, H, W, C] -> [B, (0, 0, H, W)] float32, pixels of the network input.

    matterport clips proposals to these windows instead of the image.
    """

    def __init__(self, **kwargs: Any) -> None:
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)

    def call(self, images: Any) -> Any:
        batch, height, width = ops.shape(images)[:3]
        window = ops.cast(ops.stack([0, 0, height, width]), "float32")
        return ops.broadcast_to(window[None], (batch, 4))

    def static_outputs(self, images: Any) -> Any:
        return spec(images.shape[0], 4)


class Candidates(NamedTuple):
    """The best anchors of each level before NMS, in the layer's internal box convention.

    index: [B, levels, count] int32, the anchor's index within its level.
    refined, clipped: [B, levels, count, (y1, x1, y2, x2)], after the deltas, and after clipping to the window.
    scores: [B, levels, count], the logits; `LOWEST` for boxes that are too small and for padding rows.
    """

    index: Any
    refined: Any
    clipped: Any
    scores: Any


@keras.saving.register_keras_serializable("mrcnn")
class Proposals(StaticOutputLayer):
    """Turns the outputs of the RPN into RoIs (FPN, section 4.1; torchvision and Detectron2). No weights, no gradient.

    Per level, takes the `pre_nms_limit` anchors with the highest logits, decodes them, clips them to the image, drops
    those with a side below `min_size`, and applies NMS. Then takes the `post_nms_limit` best of all levels.

    Args:
        pre_nms_limit: anchors per level that enter NMS (of all levels together if `per_level` is False).
        post_nms_limit: RoIs per image.
        nms_threshold: IoU above which the lower-scoring box is dropped.
        std_dev: four numbers that the deltas were divided by, see `boxes.encode`.
        min_size: shortest side kept, in pixels; 0 also keeps boxes without area.
        per_level: False for one top-k and one NMS over all levels (matterport).
        inside_only: ignore anchors whose center is outside the window, such as those in the padding.
        inclusive: compute with corners that name the last pixel (matterport, see `boxes.to_inclusive`). Inputs and
            outputs keep the usual convention.
        portable: see `mrcnn.ops.nms.nms_per_group`.

    Call arguments:
        logits: list of [B, A_l], objectness.
        deltas: list of [B, A_l, (dy, dx, log dh, log dw)].
        anchors: list of [A_l, (y1, x1, y2, x2)], pixels of the network input.
        windows: [B, (y1, x1, y2, x2)], position of the image in the network input.
        extent: [B, (0, 0, height, width)] of the network input, only with `inclusive`: boxes are then computed as
            fractions of it, see `boxes.decode_normalized`.

    Returns:
        rois [B, post_nms_limit, (y1, x1, y2, x2)] float32, pixels of the network input; valid [B, post_nms_limit] bool;
        scores [B, post_nms_limit] float32, the logits. Best first; zero-padded where `valid` is False.
    """

    def __init__(
        self,
        *,
        pre_nms_limit: int,
        post_nms_limit: int,
        nms_threshold: float = 0.7,
        std_dev: Sequence[float],
        min_size: float = 1e-3,
        per_level: bool = True,
        inclusive: bool = False,
        inside_only: bool = False,
        portable: bool = False,
        **kwargs: Any,
    ) -> None:
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        self.supports_jit = keras.backend.backend() != "tensorflow"  # NMS has no XLA kernel
        self.pre_nms_limit, self.post_nms_limit = int(pre_nms_limit), int(post_nms_limit)
        self.nms_threshold, self.min_size = float(nms_threshold), float(min_size)
        self.std_dev = tuple(float(value) for value in std_dev)
        self.per_level, self.inclusive, self.inside_only = bool(per_level), bool(inclusive), bool(inside_only)
        self.portable = bool(portable)

    def call(
        self, logits: list[Any], deltas: list[Any], anchors: list[Any], windows: Any, extent: Any = None
    ) -> tuple[Any, Any, Any]:
        candidates = self.candidates(logits, deltas, anchors, windows, extent)
        rois, scores, valid, _ = self.chosen(candidates)
        return ops.stop_gradient(rois), valid, ops.stop_gradient(scores)

    def candidates(
        self, logits: list[Any], deltas: list[Any], anchors: list[Any], windows: Any, extent: Any = None
    ) -> Candidates:
        """The candidates that enter NMS; arguments as for `call`."""
        if not self.per_level:
            logits, deltas = [ops.concatenate(logits, axis=1)], [ops.concatenate(deltas, axis=1)]
            anchors = [ops.concatenate(anchors, axis=0)]
        if self.inclusive:
            anchors, windows = [box_ops.to_inclusive(level) for level in anchors], box_ops.to_inclusive(windows)
            extent = None if extent is None else box_ops.to_inclusive(extent)
        count = self._candidates_per_level(logits)
        levels = [
            self._candidates(*level, count, windows, extent) for level in zip(logits, deltas, anchors, strict=True)
        ]
        return Candidates(*(ops.stack(parts, axis=1) for parts in zip(*levels, strict=True)))

    def chosen(self, candidates: Candidates) -> tuple[Any, Any, Any, Any]:
        """rois, scores and valid as returned by `call`, and their indices among the candidates [levels * count]."""
        rois, scores, _, valid, places = nms_per_group(
            candidates.clipped,
            candidates.scores,
            max_per_group=self.post_nms_limit,
            max_total=self.post_nms_limit,
            iou_threshold=self.nms_threshold,
            keep_empty=self.min_size == 0,
            portable=self.portable,
        )
        if self.inclusive:
            rois = ops.where(valid[..., None], box_ops.to_exclusive(rois), 0.0)
        return rois, scores, valid, places

    def static_outputs(
        self, logits: list[Any], deltas: Any, anchors: Any, windows: Any, extent: Any = None
    ) -> tuple[Any, Any, Any]:
        rows = (logits[0].shape[0], self.post_nms_limit)
        return spec(*rows, 4), spec(*rows, dtype="bool"), spec(*rows)

    def _candidates_per_level(self, logits: list[Any]) -> int:
        """One count for all levels, so that they can be stacked: the limit, or less if all levels are smaller."""
        sizes = [level.shape[1] for level in logits]
        return self.pre_nms_limit if None in sizes else min(self.pre_nms_limit, max(sizes))

    def _candidates(self, logits: Any, deltas: Any, anchors: Any, count: int, windows: Any, extent: Any) -> Candidates:
        """The candidates of one level, without the level axis."""
        if self.inside_only:
            logits = ops.where(box_ops.centered_in(anchors, windows), logits, LOWEST)
        scores, index = _top(ops.stop_gradient(logits), count)
        deltas = ops.take_along_axis(ops.stop_gradient(deltas), index[..., None], axis=1)
        anchors = ops.take(anchors, index, axis=0)
        refined = (
            box_ops.decode(deltas, anchors, self.std_dev)
            if extent is None
            else box_ops.decode_normalized(deltas, anchors, self.std_dev, extent)
        )
        clipped = box_ops.clip(refined, windows)
        y1, x1, y2, x2 = ops.unstack(clipped, 4, axis=-1)
        wanted = ops.minimum(y2 - y1, x2 - x1) >= self.min_size
        return Candidates(index, refined, clipped, ops.where(wanted, scores, LOWEST))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "pre_nms_limit": self.pre_nms_limit,
            "post_nms_limit": self.post_nms_limit,
            "nms_threshold": self.nms_threshold,
            "std_dev": self.std_dev,
            "min_size": self.min_size,
            "per_level": self.per_level,
            "inclusive": self.inclusive,
            "inside_only": self.inside_only,
            "portable": self.portable,
        }


def _top(logits: Any, count: int) -> tuple[Any, Any]:
    """Best `count` of `logits` [B, A] -> scores, indices [B, count]; `LOWEST` and any index if A is smaller."""
    logits = ops.where(logits > LOWEST, logits, LOWEST)  # NaN, from diverged training, cannot be sorted
    size = logits.shape[1]
    if size is None or size < count:
        # Pad instead of varying k, so that the result has `count` columns for every image size.
        missing = count if size is None else count - size
        padding = ops.full((ops.shape(logits)[0], missing), LOWEST, dtype="float32")
        logits = ops.concatenate([logits, padding], axis=1)
        scores, index = ops.top_k(logits, count)
        last = (ops.shape(logits)[1] if size is None else size + missing) - missing - 1
        return scores, ops.minimum(index, last)
    return ops.top_k(logits, count)

"""Anchors of the region proposal network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from mrcnn.layers.static_output import StaticOutputLayer, spec

RATIO_MEANINGS = ("height/width", "width/height")


def cell_anchors(
    scale: float | Sequence[float],
    ratios: Sequence[float],
    *,
    rounded: bool = False,
    ratio_meaning: str = "height/width",
) -> np.ndarray:
    """Anchors of one location, centered at the origin.

    Args:
        scale: side of the square anchor, in pixels of the network input; every ratio has the area `scale ** 2`. Anchors
            of several scales at one level (C4) are concatenated.
        ratios: one anchor each, in this order.
        rounded: round corners to whole pixels, half to even (torchvision).
        ratio_meaning: "height/width" (Detectron2, torchvision) or "width/height" (matterport).

    Returns:
        [scales * len(ratios), (y1, x1, y2, x2)] float32.

    Raises:
        ValueError: for an unknown `ratio_meaning`.
    """
    if ratio_meaning not in RATIO_MEANINGS:
        raise ValueError(f"ratio_meaning is {ratio_meaning!r}; use one of {', '.join(map(repr, RATIO_MEANINGS))}")
    if isinstance(scale, Sequence):
        options: dict[str, Any] = {"rounded": rounded, "ratio_meaning": ratio_meaning}
        return np.concatenate([cell_anchors(one, ratios, **options) for one in scale])
    root = np.sqrt(np.asarray(ratios, np.float64))
    tall, short = float(scale) * root, float(scale) / root
    heights, widths = (tall, short) if ratio_meaning == "height/width" else (short, tall)
    corners = np.stack([-heights, -widths, heights, widths], axis=-1) / 2
    return (np.round(corners) if rounded else corners).astype(np.float32)


def pyramid_anchors(
    scales: Sequence[float | Sequence[float]],
    ratios: Sequence[float],
    shapes: Sequence[tuple[int, int]],
    strides: Sequence[int | tuple[int, int]],
    anchor_stride: int = 1,
    *,
    rounded: bool = False,
    ratio_meaning: str = "height/width",
) -> list[np.ndarray]:
    """Anchors of every pyramid level, from known feature map sizes.

    Args:
        scales: one per level, in pixels of the network input.
        ratios: shared by all levels.
        shapes: (height, width) of each level's feature map.
        strides: input pixels between neighboring cells of each level; a number, or one for y and one for x.
        anchor_stride: anchors at every cell (1), every second cell (2), ...
        rounded, ratio_meaning: see `cell_anchors`.

    Returns:
        Per level [A_l, (y1, x1, y2, x2)] float32, in pixels of the network input, ordered (y, x, ratio). The anchors of
        cell i are centered at `i * stride`, as in matterport, torchvision and Detectron2. Not clipped.
    """
    levels = []
    for scale, (height, width), stride in zip(scales, shapes, strides, strict=True):
        cells = cell_anchors(scale, ratios, rounded=rounded, ratio_meaning=ratio_meaning)
        step_y, step_x = np.broadcast_to(np.asarray(stride, np.float32), 2)
        y = np.arange(0, height, anchor_stride, dtype=np.float32) * step_y
        x = np.arange(0, width, anchor_stride, dtype=np.float32) * step_x
        y, x = np.meshgrid(y, x, indexing="ij")
        centers = np.stack([y, x, y, x], axis=-1)
        levels.append((centers[:, :, None, :] + cells).reshape(-1, 4))
    return levels


@keras.saving.register_keras_serializable("mrcnn")
class Anchors(StaticOutputLayer):
    """Anchors of each level, from the sizes of its feature maps. No weights.

    Anchors are constants if the sizes are known when the graph is traced, and are computed at run time otherwise, with
    equal results.

    Args:
        scales, ratios, strides, anchor_stride, rounded, ratio_meaning: see `pyramid_anchors`.
        step_from_size: space a level's cells by input size // level size instead of the stride (torchvision,
            models/detection/anchor_utils.py). The two differ where a level's size was rounded up: P6 of an input of 800
            has 13 cells, 61 pixels apart. The input size is the finest level's size times its stride.

    Call arguments:
        features: list of [B, H_l, W_l, C], one per scale and stride.

    Returns:
        List of [A_l, (y1, x1, y2, x2)] float32, as `pyramid_anchors`.

    Raises:
        ValueError: if the numbers of scales, strides and feature maps differ.
    """

    def __init__(
        self,
        scales: Sequence[float | Sequence[float]],
        ratios: Sequence[float],
        strides: Sequence[int],
        anchor_stride: int = 1,
        rounded: bool = False,
        ratio_meaning: str = "height/width",
        step_from_size: bool = False,
        **kwargs: Any,
    ) -> None:
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        if len(scales) != len(strides):
            raise ValueError(
                f"{len(scales)} anchor scales {scales} for {len(strides)} strides {strides}: one per level"
            )
        self.scales, self.ratios, self.strides = tuple(scales), tuple(ratios), tuple(strides)
        self.anchor_stride = int(anchor_stride)
        self.rounded, self.ratio_meaning = bool(rounded), ratio_meaning
        self.step_from_size = bool(step_from_size)
        self._cells = [
            cell_anchors(scale, self.ratios, rounded=self.rounded, ratio_meaning=ratio_meaning) for scale in self.scales
        ]

    def call(self, features: list[Any]) -> list[Any]:
        if len(features) != len(self.scales):
            raise ValueError(f"{len(features)} feature maps for {len(self.scales)} anchor scales: one per level")
        steps = [(stride, stride) for stride in self.strides]
        if self.step_from_size:
            sizes = [_size(feature) for feature in features]
            steps = [
                tuple(self.strides[0] * whole // cells for whole, cells in zip(sizes[0], size, strict=True))
                for size in sizes
            ]
        return [self._level(*level) for level in zip(range(len(features)), features, steps, strict=True)]

    def static_outputs(self, features: list[Any]) -> list[Any]:
        known = [None not in feature.shape[1:3] for feature in features]
        if all(known):
            return [spec(*anchors.shape) for anchors in self.call(features)]
        return [spec(None, 4) for _ in features]

    def _level(self, level: int, feature: Any, step: tuple[Any, Any]) -> Any:
        height, width = feature.shape[1], feature.shape[2]
        if height is not None and width is not None:
            (anchors,) = pyramid_anchors(
                self.scales[level : level + 1],
                self.ratios,
                [(height, width)],
                [step],
                self.anchor_stride,
                rounded=self.rounded,
                ratio_meaning=self.ratio_meaning,
            )
            return ops.convert_to_tensor(anchors)
        height, width = ops.shape(feature)[1:3]
        y = ops.cast(ops.arange(0, height, self.anchor_stride, dtype="int32") * step[0], "float32")
        x = ops.cast(ops.arange(0, width, self.anchor_stride, dtype="int32") * step[1], "float32")
        y, x = ops.meshgrid(y, x, indexing="ij")
        centers = ops.stack([y, x, y, x], axis=-1)
        return ops.reshape(ops.expand_dims(centers, 2) + self._cells[level], (-1, 4))  # LiteRT has no slice by None

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "scales": self.scales,
            "ratios": self.ratios,
            "strides": self.strides,
            "anchor_stride": self.anchor_stride,
            "rounded": self.rounded,
            "ratio_meaning": self.ratio_meaning,
            "step_from_size": self.step_from_size,
        }


def _size(feature: Any) -> tuple[Any, Any]:
    """Height and width of [B, H, W, C]: both as numbers if they are known, else both as tensors."""
    if None not in feature.shape[1:3]:
        return tuple(feature.shape[1:3])
    return tuple(ops.shape(feature)[1:3])

"""Anchors as computed by the old package: ratios are width / height, the order is (y, x, ratio), values are float64.

The network's own anchors follow RPN_ANCHOR_RATIO_MEANING, see `mrcnn.layers.anchors`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mrcnn.config import Config


def compute_backbone_shapes(config: Config, image_shape: Sequence[int]) -> np.ndarray:
    """[levels, (height, width)] int64 of the feature maps P2..P6 for an image of (height, width, ...)."""
    sides = np.asarray(image_shape[:2])
    return np.stack([-(-sides // stride) for stride in config.BACKBONE_STRIDES]).astype(np.int64)


def generate_anchors(
    scales: float | Sequence[float],
    ratios: Sequence[float],
    shape: Sequence[int],
    feature_stride: int,
    anchor_stride: int,
) -> np.ndarray:
    """Anchors of one feature map.

    Args:
        scales: sides of square anchors in pixels; every location has all of them.
        ratios: width / height.
        shape: (height, width) of the feature map.
        feature_stride: image pixels between neighboring cells.
        anchor_stride: cells between locations with anchors.

    Returns:
        [anchors, (y1, x1, y2, x2)] float64 in pixels, not clipped, ordered (y, x, ratio, scale).
    """
    sides, root = np.atleast_1d(np.asarray(scales, np.float64)), np.sqrt(np.asarray(ratios, np.float64))
    heights = (sides[None, :] / root[:, None]).ravel()
    widths = (sides[None, :] * root[:, None]).ravel()
    cells = np.stack([-heights, -widths, heights, widths], axis=-1) / 2
    rows, columns = (np.arange(0, count, anchor_stride) * feature_stride for count in shape[:2])
    y, x = np.meshgrid(rows, columns, indexing="ij")
    centers = np.stack([y, x, y, x], axis=-1)
    return (centers[:, :, None, :] + cells).reshape(-1, 4)


def generate_pyramid_anchors(
    scales: Sequence[float],
    ratios: Sequence[float],
    feature_shapes: Sequence[Sequence[int]] | np.ndarray,
    feature_strides: Sequence[int],
    anchor_stride: int,
) -> np.ndarray:
    """`generate_anchors` for every level, one scale each, concatenated from fine to coarse: [anchors, 4] float64."""
    levels = zip(scales, feature_shapes, feature_strides, strict=True)
    anchors = [generate_anchors(scale, ratios, shape, stride, anchor_stride) for scale, shape, stride in levels]
    return np.concatenate(anchors)

"""The steps of inference between the parts with weights, as ONNX operations, for one image.

Each function has the meaning of the layer that it names, but without padding rows. NonMaxSuppression and RoiAlign are
ONNX's own operations.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mrcnn.inference.export.onnx_builder import OnnxBuilder
from mrcnn.layers.anchors import cell_anchors
from mrcnn.ops.boxes import MAX_LOG_SCALE


def anchors(b: OnnxBuilder, levels: Sequence[str], layer: Any) -> list[str]:
    """As `Anchors`: per level [A_l, (y1, x1, y2, x2)]; `levels` are [1, C, H, W]."""
    found = []
    sizes = [(b.size(level, 2), b.size(level, 3)) for level in levels]
    for size, scale, stride in zip(sizes, layer.scales, layer.strides, strict=True):
        cells = cell_anchors(scale, layer.ratios, rounded=layer.rounded, ratio_meaning=layer.ratio_meaning)
        centers = []
        for axis in (0, 1):
            step = b.constant([stride], np.int64)
            if layer.step_from_size:
                whole = b.op("Mul", sizes[0][axis], b.constant([layer.strides[0]], np.int64))
                step = b.op("Div", whole, size[axis])
            places = b.op(
                "Range", b.constant(0, np.int64), b.op("Squeeze", size[axis]), b.constant(layer.anchor_stride, np.int64)
            )
            centers.append(b.op("Cast", b.op("Mul", places, step), to=1))
        y = b.op("Mul", b.reshape(centers[0], -1, 1, 1, 1), b.constant([1, 0, 1, 0]))
        x = b.op("Mul", b.reshape(centers[1], 1, -1, 1, 1), b.constant([0, 1, 0, 1]))
        grid = b.op("Add", b.op("Add", y, x), b.constant(cells))
        found.append(b.reshape(grid, -1, 4))
    return found


def decode(b: OnnxBuilder, deltas: str, reference: str, std_dev: Sequence[float]) -> str:
    """As `mrcnn.ops.boxes.decode`."""
    dy, dx, log_dh, log_dw = b.unstack(b.op("Mul", deltas, b.constant(std_dev)), 4)
    y1, x1, y2, x2 = b.unstack(reference, 4)
    half, most = b.constant(0.5), b.constant(MAX_LOG_SCALE)
    corners = []
    for low, high, shift, log in ((y1, y2, dy, log_dh), (x1, x2, dx, log_dw)):
        side = b.op("Sub", high, low)
        center = b.op("Add", low, b.op("Mul", half, side))
        center = b.op("Add", center, b.op("Mul", shift, side))
        reach = b.op("Mul", b.op("Mul", half, side), b.op("Exp", b.op("Min", log, most)))
        corners.append((b.op("Sub", center, reach), b.op("Add", center, reach)))
    (top, bottom), (left, right) = corners
    return b.stack(top, left, bottom, right)


def clip(b: OnnxBuilder, boxes: str, window: str) -> str:
    """As `mrcnn.ops.boxes.clip`; `window` is [(y1, x1, y2, x2)]."""
    low = b.op("Gather", window, b.constant([0, 1, 0, 1], np.int64))
    high = b.op("Gather", window, b.constant([2, 3, 2, 3], np.int64))
    return b.op("Min", b.op("Max", boxes, low), high)


def shortest_side(b: OnnxBuilder, boxes: str) -> str:
    """[..., 4] -> [...]."""
    y1, x1, y2, x2 = b.unstack(boxes, 4)
    return b.op("Min", b.op("Sub", y2, y1), b.op("Sub", x2, x1))


def large_enough(b: OnnxBuilder, boxes: str, min_size: float) -> str:
    """Which boxes have sides of `min_size` or more; 0 includes boxes without area."""
    return b.op("GreaterOrEqual", shortest_side(b, boxes), b.constant(min_size))


def whole_input(b: OnnxBuilder, image: str) -> str:
    """As `WholeInput`, for image [1, C, H, W]: [(0, 0, H, W)]."""
    size = b.op("Cast", b.op("Shape", image, start=2, end=4), to=1)
    return b.op("Concat", b.constant([0, 0]), size, axis=0)


def proposals(
    b: OnnxBuilder, logits: Sequence[str], deltas: Sequence[str], grid: Sequence[str], window: str, layer: Any
) -> str:
    """As `Proposals`: RoIs [N, (y1, x1, y2, x2)]. logits: [1, A_l]; deltas: [1, A_l, 4] a level."""
    if not layer.per_level:
        logits, deltas = [b.op("Concat", *logits, axis=1)], [b.op("Concat", *deltas, axis=1)]
        grid = [b.op("Concat", *grid, axis=0)]
    boxes, scores = [], []
    for level_logits, level_deltas, level_anchors in zip(logits, deltas, grid, strict=True):
        best, index = b.best(b.reshape(level_logits, -1), layer.pre_nms_limit)
        reference = inclusive(b, b.rows(level_anchors, index), layer.inclusive)
        found = decode(b, b.rows(b.reshape(level_deltas, -1, 4), index), reference, layer.std_dev)
        found = clip(b, found, inclusive(b, window, layer.inclusive))
        wanted = b.where_true(large_enough(b, found, layer.min_size))
        found, best = b.rows(found, wanted), b.rows(best, wanted)
        kept = nms(b, found, layer.post_nms_limit, layer.nms_threshold)
        boxes.append(b.rows(found, kept))
        scores.append(b.rows(best, kept))
    _, index = b.best(b.op("Concat", *scores, axis=0), layer.post_nms_limit)
    return exclusive(b, b.rows(b.op("Concat", *boxes, axis=0), index), layer.inclusive)


def nms(b: OnnxBuilder, boxes: str, most: int, iou: float) -> str:
    """Indices of the boxes that remain, of `boxes` [N, 4] sorted by descending score."""
    # Ranks replace the scores: engines drop scores below 0, and order equal scores arbitrarily
    count = b.op("Squeeze", b.size(boxes, 0), b.constant([0], np.int64))
    ranks = b.op("Range", count, b.constant(0, np.int64), b.constant(-1, np.int64))
    ranks = b.reshape(b.op("Cast", ranks, to=1), 1, 1, -1)
    chosen = b.op(
        "NonMaxSuppression",
        b.op("Unsqueeze", boxes, b.constant([0], np.int64)),
        ranks,
        b.constant([most], np.int64),
        b.constant([iou]),
        b.constant([0.0]),
    )
    return b.op("Gather", chosen, b.constant(2, np.int64), axis=1)


def detections(b: OnnxBuilder, rois: str, logits: str, deltas: str, window: str, layer: Any) -> tuple[str, str, str]:
    """As `Detections`: boxes [n, 4], class_ids [n] int64 and scores [n], sorted by descending score."""
    classes = layer.num_classes
    probabilities = b.op("Softmax", logits, axis=-1)
    scores = b.op("Slice", probabilities, *(b.constant([v], np.int64) for v in (1, classes, 1)))
    found = b.op("Slice", deltas, *(b.constant([v], np.int64) for v in (1, classes, 1)))
    reference = b.op("Unsqueeze", inclusive(b, rois, layer.inclusive), b.constant([1], np.int64))
    boxes = clip(b, decode(b, found, reference, layer.std_dev), inclusive(b, window, layer.inclusive))
    allowed = large_enough(b, boxes, layer.min_size)
    if layer.best_class_only:
        own = b.op("ArgMax", probabilities, axis=-1, keepdims=1)
        allowed = b.op("And", allowed, b.op("Equal", own, b.constant(np.arange(1, classes), np.int64)))
    scores = b.op("Where", allowed, scores, b.constant(0.0))
    by_class = b.op("Transpose", boxes, perm=[1, 0, 2])  # classes take the place of the images of a batch
    class_scores = b.op("Transpose", scores, perm=[1, 0])
    chosen = b.op(
        "NonMaxSuppression",
        by_class,
        b.op("Unsqueeze", class_scores, b.constant([1], np.int64)),
        b.constant([layer.max_instances], np.int64),
        b.constant([layer.nms_threshold]),
        b.constant([layer.min_confidence]),
    )
    pairs = b.op("Gather", chosen, b.constant([0, 2], np.int64), axis=1)
    best, index = b.best(b.op("GatherND", class_scores, pairs), layer.max_instances)
    pairs = b.rows(pairs, index)
    boxes = exclusive(b, b.op("GatherND", by_class, pairs), layer.inclusive)
    class_ids = b.op("Add", b.op("Gather", pairs, b.constant(0, np.int64), axis=1), b.constant(1, np.int64))
    return boxes, class_ids, best


def inclusive(b: OnnxBuilder, boxes: str, wanted: bool) -> str:
    """As `mrcnn.ops.boxes.to_inclusive`, if wanted."""
    return b.op("Sub", boxes, b.constant([0, 0, 1, 1])) if wanted else boxes


def exclusive(b: OnnxBuilder, boxes: str, wanted: bool) -> str:
    """As `mrcnn.ops.boxes.to_exclusive`, if wanted."""
    return b.op("Add", boxes, b.constant([0, 0, 1, 1])) if wanted else boxes


def roi_align(b: OnnxBuilder, levels: Sequence[str], boxes: str, layer: Any) -> tuple[str, str]:
    """As `RoIAlign` of boxes [M, 4] of one image: features [M, C, pool, pool], and their order [M] int64.

    Boxes are grouped by level, finest first.
    """
    crop = layer.geometry == "crop"
    fractions = corner_fractions(b, levels[0], boxes, layer.strides[0]) if crop else ""
    level = levels_of(b, b.op("Mul", fractions, sides(b, levels[0], layer.strides[0])) if crop else boxes, layer)
    order, pooled = [], []
    for number, (features, stride) in enumerate(zip(levels, layer.strides, strict=True)):
        own = b.where_true(b.op("Equal", level, b.constant(float(number))))
        rows = b.rows(fractions if crop else boxes, own)
        y1, x1, y2, x2 = b.unstack(crop_corners(b, features, rows, layer.pool_size) if crop else rows, 4)
        pooled.append(
            b.op(
                "RoiAlign",
                features,
                b.stack(x1, y1, x2, y2),
                b.op("Mul", own, b.constant(0, np.int64)),
                mode="avg",
                output_height=layer.pool_size,
                output_width=layer.pool_size,
                sampling_ratio=1 if crop else layer.sampling_ratio,
                spatial_scale=1.0 if crop else 1.0 / stride,
                coordinate_transformation_mode="half_pixel" if crop or layer.aligned else "output_half_pixel",
            )
        )
        order.append(own)
    return b.op("Concat", *pooled, axis=0), b.op("Concat", *order, axis=0)


def sides(b: OnnxBuilder, features: str, stride: int = 1) -> str:
    """(height, width, height, width) of a map [1, C, H, W], times the stride."""
    size = b.op("Cast", b.op("Shape", features, start=2, end=4), to=1)
    return b.op("Mul", b.op("Concat", size, size, axis=0), b.constant(float(stride)))


def corner_fractions(b: OnnxBuilder, finest: str, boxes: str, stride: int) -> str:
    """As `mrcnn.layers.roi_align.samples.corner_fractions`: 0 is the first pixel of the input and 1 the last."""
    last = b.op("Sub", sides(b, finest, stride), b.constant(1.0))
    return b.op("Div", inclusive(b, boxes, True), last)


def crop_corners(b: OnnxBuilder, features: str, fractions: str, pool_size: int) -> str:
    """Boxes in cells whose bins have their centers where matterport's `crop_and_resize` takes its samples."""
    y1, x1, y2, x2 = b.unstack(b.op("Mul", fractions, b.op("Sub", sides(b, features), b.constant(1.0))), 4)
    corners = []
    for first, last in ((y1, y2), (x1, x2)):
        step = b.op("Div", b.op("Sub", last, first), b.constant(float(pool_size - 1)))
        start = b.op("Add", b.op("Sub", first, b.op("Mul", step, b.constant(0.5))), b.constant(0.5))
        corners.append((start, b.op("Add", start, b.op("Mul", step, b.constant(float(pool_size))))))
    (top, bottom), (left, right) = corners
    return b.stack(top, left, bottom, right)


def levels_of(b: OnnxBuilder, boxes: str, layer: Any) -> str:
    """The level of each of boxes [M, 4] -> [M] float32, as `RoIAlign` chooses it."""
    y1, x1, y2, x2 = b.unstack(boxes, 4)
    zero = b.constant(0.0)
    lengths = [b.op("Max", b.op("Sub", high, low), zero) for low, high in ((y1, y2), (x1, x2))]
    size = b.op("Div", b.op("Sqrt", b.op("Mul", *lengths)), b.constant(layer.canonical_size))
    log = b.op("Div", b.op("Log", b.op("Max", size, b.constant(1e-9))), b.constant(math.log(2.0)))
    level = b.op("Add", b.constant(float(layer.canonical_level)), log)
    if layer.level_rounding == "floor":
        level = b.op("Floor", b.op("Add", level, b.constant(1e-6)))
    else:
        level = b.op("Round", level)
    first = float(round(math.log2(layer.strides[0])))
    return b.op("Clip", b.op("Sub", level, b.constant(first)), zero, b.constant(float(len(layer.strides) - 1)))

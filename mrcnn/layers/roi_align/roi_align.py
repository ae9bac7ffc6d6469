"""RoIAlign (Mask R-CNN, section 3) over a feature pyramid (FPN, section 4.2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras
from keras import ops

from mrcnn.layers.roi_align import gather as roi_gather
from mrcnn.layers.roi_align import samples as roi_samples
from mrcnn.layers.roi_align.levels import LEVEL_ROUNDINGS, indexed_boxes, levels_of
from mrcnn.layers.static_output import StaticOutputLayer, spec

REDUCTIONS = ("average", "max")
GEOMETRIES = ("aligned", "crop")
METHODS = ("crop_and_resize", "multiply", "gather")
TOGETHER = 128  # boxes whose samples are in memory at once, if their number depends on the box
MOST_SAMPLES = 1 << 12  # per bin and axis


def roi_align(
    feature_map: Any,
    boxes: Any,
    image_index: Any,
    *,
    spatial_scale: float,
    pool_size: int,
    sampling_ratio: int = 2,
    aligned: bool = True,
    reduction: str = "average",
    rounded: bool = False,
) -> Any:
    """Features of each box on a grid of bins, as `torchvision.ops.roi_align`.

    Each bin is the mean (or maximum) of `sampling_ratio ** 2` evenly spaced bilinear samples. Samples up to one cell
    outside the map take the value of its edge; samples farther out are zero.

    Args:
        feature_map: [B, H, W, C]; cell i covers the map's coordinates [i, i + 1).
        boxes: [M, (y1, x1, y2, x2)], pixels of the network input; no gradient flows to them. M may be 0.
        image_index: [M] int, which of the B maps a box belongs to.
        spatial_scale: cells of the map per input pixel, 1 / stride.
        pool_size: bins per side.
        sampling_ratio: samples per side of a bin. 0: as many as the bin has cells, rounded up, for each box and axis
            (Detectron2); a box without height or width then gives zeros.
        aligned: a cell's value is at its center, i + 0.5. False for the older convention (at its corner i, and boxes
            of at least one cell), which torchvision's detectors use.
        reduction: of a bin's samples, "average" or "max".
        rounded: first move box corners to whole cells, with boxes of at least one cell (RoIWarp).

    Returns:
        [M, pool_size, pool_size, C] float32.

    Raises:
        NotImplementedError: for `sampling_ratio` 0 on a backend other than TensorFlow.
    """
    if keras.backend.backend() != "tensorflow":
        _require_fixed_samples(sampling_ratio)
        image_index = ops.cast(image_index, "int32")
        return _reduced(roi_gather.gather, reduction)(
            [feature_map],
            ops.cast(boxes, "float32"),
            image_index,
            ops.zeros_like(image_index),
            strides=(1.0 / spatial_scale,),
            pool_size=pool_size,
            sampling_ratio=sampling_ratio,
            aligned=aligned,
            rounded=rounded,
        )
    start, side = roi_samples.start_and_side(boxes, spatial_scale, aligned, rounded)
    size = ops.stack(roi_samples.size(feature_map))
    # crop_and_resize gives zero beyond the outermost cells; with a border it gives the edge there. One cell would do;
    # with two, _zero_outside decides about samples at exactly -1, independent of rounding in crop_and_resize.
    bordered = _pad_edge(ops.cast(feature_map, "float32"), 2)

    def pool(start: Any, side: Any, image_index: Any, ratios: Sequence[Any]) -> Any:
        y, x = (roi_samples.positions(start[:, i], side[:, i], pool_size, ratio) for i, ratio in enumerate(ratios))
        corners = ops.stack([y[:, 0], x[:, 0], y[:, -1], x[:, -1]], axis=-1) + 2.0
        corners = corners / (ops.concatenate([size, size]) + 3.0)
        samples = _crop(bordered, corners, image_index, [pool_size * ratio for ratio in ratios])
        inside = [ops.logical_and(at >= -1.0, at <= size[i]) for i, at in enumerate((y, x))]
        return _bins(_zero_outside(samples, *inside), pool_size, ratios, reduction)

    if sampling_ratio:
        return pool(start, side, image_index, (sampling_ratio, sampling_ratio))
    return _by_sample_count(pool, start, side, image_index, pool_size, feature_map.shape[-1])


@keras.saving.register_keras_serializable("mrcnn")
class RoIAlign(StaticOutputLayer):
    """`roi_align` on the pyramid level that suits each RoI's size (FPN, Eqn. 1). No weights.

    Args:
        pool_size: bins per side of the output.
        sampling_ratio: samples per side of a bin; 0: by the box's size, see `roi_align`.
        aligned: see `roi_align`.
        strides: input pixels between cells, one per level, each twice the one before.
        level_rounding: "floor" (FPN, torchvision, Detectron2) or "round" (matterport).
        canonical_size, canonical_level: a RoI of this many pixels square is pooled from this level (P4).
        reduction: of a bin's samples, "average" or "max".
        rounded: RoIWarp (Dai et al. 2016): first move box corners to whole cells of their level, as RoIPool does.
        geometry: "aligned" is RoIAlign. "crop" is matterport's layer: one sample per bin, on a grid from corner to
            corner of the box whose last pixel is y2 - 1, zero outside; `sampling_ratio`, `aligned` and `reduction` have
            no effect. The level is chosen from the same corners.
        method: the implementation; results are equal up to rounding. On TensorFlow:
            "crop_and_resize" (None): one `tf.image.crop_and_resize` per level. The only one for `sampling_ratio` 0.
            "multiply": one product of a sparse matrix with the cells of all levels, see
            `mrcnn.layers.roi_align.gather`. Faster on a CPU, in training several times.
            "gather": plain operations, which XLA compiles into one loop; without XLA slow and memory-hungry.
            Other backends support only "gather".

    Call arguments:
        features: list of [B, H_l, W_l, C], finest first.
        boxes: [M, (y1, x1, y2, x2)] float32, pixels of the network input; no gradient flows to them. M may be 0.
        image_index: [M] int, the image of each box. Without it, `boxes` are [B, N, (y1, x1, y2, x2)], N per image, and
            M is B * N.

    Returns:
        [M, pool_size, pool_size, C] in the compute dtype, in the order of `boxes`. Samples are taken in float32. A box
        that is not finite gets zeros.

    Raises:
        ValueError: for an unknown setting, or different numbers of feature maps and strides.
        NotImplementedError: for a method, or `sampling_ratio` 0, that the backend does not support.
    """

    def __init__(
        self,
        pool_size: int,
        sampling_ratio: int = 2,
        aligned: bool = True,
        *,
        strides: Sequence[int] = (4, 8, 16, 32),
        level_rounding: str = "floor",
        canonical_size: float = 224,
        canonical_level: int = 4,
        reduction: str = "average",
        rounded: bool = False,
        geometry: str = "aligned",
        method: str | None = None,
        **kwargs: Any,
    ) -> None:
        # Automatic casting would round the boxes to bfloat16 with mixed precision.
        super().__init__(autocast=False, **kwargs)
        if level_rounding not in LEVEL_ROUNDINGS:
            raise ValueError(f"level_rounding is {level_rounding!r}; use one of {LEVEL_ROUNDINGS}")
        if geometry not in GEOMETRIES:
            raise ValueError(f"geometry is {geometry!r}; use one of {GEOMETRIES}")
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction is {reduction!r}; use one of {REDUCTIONS}")
        if geometry == "crop" and rounded:
            raise ValueError("geometry 'crop' does not round boxes; use geometry 'aligned' with rounded=True")
        self.method = _checked_method(method, 1 if geometry == "crop" else sampling_ratio)
        self.supports_jit = self.method == "gather"  # CropAndResize and sparse products have no XLA kernel
        if pool_size < 1 or sampling_ratio < 0:
            raise ValueError(f"pool_size {pool_size} must be 1 or more and sampling_ratio {sampling_ratio} 0 or more")
        self.pool_size, self.sampling_ratio, self.aligned = int(pool_size), int(sampling_ratio), bool(aligned)
        self.strides, self.level_rounding, self.geometry = tuple(strides), level_rounding, geometry
        self.reduction, self.rounded = "average" if geometry == "crop" else reduction, bool(rounded)
        self.canonical_size, self.canonical_level = float(canonical_size), int(canonical_level)

    def call(self, features: list[Any], boxes: Any, image_index: Any = None) -> Any:
        if len(features) != len(self.strides):
            raise ValueError(f"{len(features)} feature maps for {len(self.strides)} strides {self.strides}: one each")
        boxes, image_index = indexed_boxes(boxes, image_index)
        levels = self._levels(boxes, features[0])
        if self.method == "crop_and_resize":
            pooled = _by_level(self._pool, features, levels, boxes, image_index)
        else:
            pooled = self._pool_at_once(features, boxes, image_index, levels)
        return ops.cast(pooled, self.compute_dtype)

    def static_outputs(self, features: list[Any], boxes: Any, image_index: Any = None) -> Any:
        *counts, _ = boxes.shape
        count = None if None in counts else math.prod(counts)
        return spec(count, self.pool_size, self.pool_size, features[0].shape[-1], dtype=self.compute_dtype)

    def _pool_at_once(self, features: list[Any], boxes: Any, image_index: Any, levels: Any) -> Any:
        options = {
            "strides": self.strides,
            "pool_size": self.pool_size,
            "sampling_ratio": self.sampling_ratio,
            "aligned": self.aligned,
            "geometry": self.geometry,
            "rounded": self.rounded,
        }
        pool = roi_gather.multiply if self.method == "multiply" else roi_gather.gather
        return _reduced(pool, self.reduction)(features, boxes, image_index, levels, **options)

    def _pool(self, level: int, feature_map: Any, boxes: Any, image_index: Any) -> Any:
        if self.geometry == "crop":
            height, width = roi_samples.size(feature_map)
            corners = roi_samples.corner_fractions(boxes, height * self.strides[level], width * self.strides[level])
            return _crop(ops.cast(feature_map, "float32"), corners, image_index, [self.pool_size] * 2)
        return roi_align(
            feature_map,
            boxes,
            image_index,
            spatial_scale=1.0 / self.strides[level],
            pool_size=self.pool_size,
            sampling_ratio=self.sampling_ratio,
            aligned=self.aligned,
            reduction=self.reduction,
            rounded=self.rounded,
        )

    def _levels(self, boxes: Any, finest: Any) -> Any:
        """Index into the features for each box of `boxes` [M, 4] -> [M] int32."""
        if self.geometry == "crop":
            height, width = (side * self.strides[0] for side in roi_samples.size(finest))
            boxes = roi_samples.corner_fractions(boxes, height, width) * ops.stack([height, width] * 2)
        return levels_of(boxes, self.strides, self.level_rounding, self.canonical_size, self.canonical_level)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "pool_size": self.pool_size,
            "sampling_ratio": self.sampling_ratio,
            "aligned": self.aligned,
            "strides": self.strides,
            "level_rounding": self.level_rounding,
            "canonical_size": self.canonical_size,
            "canonical_level": self.canonical_level,
            "reduction": self.reduction,
            "rounded": self.rounded,
            "geometry": self.geometry,
            "method": self.method,
        }


def _pad_edge(feature_map: Any, border: int) -> Any:
    """[B, H, W, C] -> [B, H + 2 * border, W + 2 * border, C], the border repeating the edge."""
    rows = [feature_map[:, :1]] * border + [feature_map] + [feature_map[:, -1:]] * border
    rows = ops.concatenate(rows, axis=1)
    columns = [rows[:, :, :1]] * border + [rows] + [rows[:, :, -1:]] * border
    return ops.concatenate(columns, axis=2)


def _zero_outside(samples: Any, inside_y: Any, inside_x: Any) -> Any:
    """`samples` [M, n, m, C] where the flags [M, n] and [M, m] are True, else 0.

    If every sample is inside, as for boxes clipped to the image, the samples are returned unchanged.
    """
    kept = ops.logical_and(inside_y[:, :, None, None], inside_x[:, None, :, None])
    every = ops.logical_and(ops.all(inside_y), ops.all(inside_x))
    return ops.cond(every, lambda: samples, lambda: ops.where(kept, samples, 0.0))


def _bins(samples: Any, pool_size: int, ratios: Sequence[Any], reduction: str) -> Any:
    """[M, pool * ratio y, pool * ratio x, C] -> [M, pool, pool, C], the mean or maximum of each bin."""
    if all(isinstance(ratio, int) for ratio in ratios):
        if max(ratios) == 1:
            return samples
        pool = ops.average_pool if reduction == "average" else ops.max_pool
        return pool(samples, ratios, strides=ratios, padding="valid", data_format="channels_last")
    shape = (-1, pool_size, ratios[0], pool_size, ratios[1], samples.shape[-1])
    return (ops.mean if reduction == "average" else ops.max)(ops.reshape(samples, shape), axis=(2, 4))


def _reduced(pool: Callable[..., Any], reduction: str) -> Callable[..., Any]:
    """`gather` or `multiply`, which compute means, with the given reduction."""
    return pool if reduction == "average" else partial(roi_gather.highest, pool)


def _checked_method(method: str | None, sampling_ratio: int) -> str:
    """The method to use; raises if the backend or the number of samples does not allow it."""
    if method is not None and method not in METHODS:
        raise ValueError(f"method is {method!r}; use one of {METHODS}")
    if keras.backend.backend() == "tensorflow":
        if sampling_ratio == 0 and method not in (None, "crop_and_resize"):
            raise ValueError(
                f"method {method!r} takes the same number of samples for every box; use "
                "'crop_and_resize' for sampling_ratio 0"
            )
        return method or "crop_and_resize"
    if method not in (None, "gather"):
        raise NotImplementedError(
            f"RoIAlign's method {method!r} is not implemented for the Keras backend "
            f"{keras.backend.backend()!r}; use 'gather', or set KERAS_BACKEND to tensorflow"
        )
    _require_fixed_samples(sampling_ratio)
    return "gather"


def fastest_method(sampling_ratio: int, geometry: str = "aligned") -> str | None:
    """The `method` of `RoIAlign` for this machine: the sparse product on a CPU, else the backend's default.

    The product was timed only on CPUs.
    """
    # matterport's samples lie on a map's last cell, and rounding beyond it makes them zero: use matterport's own kernel
    if keras.backend.backend() != "tensorflow" or sampling_ratio == 0 or geometry == "crop":
        return None
    import tensorflow as tf

    return None if tf.config.list_physical_devices("GPU") else "multiply"


def _require_fixed_samples(sampling_ratio: int) -> None:
    if sampling_ratio == 0:
        raise NotImplementedError(
            "RoIAlign with sampling_ratio 0 (as many samples as a box has cells) needs data-dependent shapes, "
            f"which the Keras backend {keras.backend.backend()!r} does not support. Set ROI_SAMPLING_RATIO to 2, which "
            "gives similar results, or KERAS_BACKEND to tensorflow."
        )


def _crop(feature_map: Any, corners: Any, image_index: Any, points: Sequence[Any]) -> Any:
    """Bilinear samples on a grid from corner to corner -> [M, *points, C]; 0 is the first cell, 1 the last."""
    import tensorflow as tf

    return tf.image.crop_and_resize(feature_map, corners, tf.cast(image_index, tf.int32), points)


def _by_sample_count(pool: Any, start: Any, side: Any, image_index: Any, pool_size: int, channels: int) -> Any:
    """Applies `pool(start, side, image_index, ratios)` to each group of boxes with the same samples per bin and axis.

    At most `TOGETHER` boxes at once, as a bin can have many samples. Results are in the order of the boxes.
    """
    import tensorflow as tf

    image_index = tf.cast(image_index, tf.int32)
    # In float64, because a graph multiplies by 1 / pool_size, and in float32 49 / 7 would be slightly more than 7
    counts = tf.math.ceil(tf.cast(tf.cast(side, tf.float64) / pool_size, tf.float32))
    counts = tf.cast(tf.clip_by_value(counts, 0.0, float(MOST_SAMPLES - 1)), tf.int32)
    ratios = tf.maximum(counts, 1)
    keys = ratios[:, 0] * MOST_SAMPLES + ratios[:, 1]
    order = tf.argsort(keys)
    keys, total = tf.gather(keys, order), tf.size(keys)

    def step(first: Any, done: Any) -> tuple[Any, Any]:
        key = keys[first]
        last = tf.minimum(first + TOGETHER, tf.searchsorted(keys, key[None], side="right")[0])
        mine = order[first:last]
        pooled = pool(
            *(tf.gather(values, mine) for values in (start, side, image_index)),
            (key // MOST_SAMPLES, key % MOST_SAMPLES),
        )
        return last, done.write(done.size(), pooled)

    shape = [None, pool_size, pool_size, channels]
    done = tf.TensorArray(tf.float32, 0, dynamic_size=True, infer_shape=False, element_shape=shape)
    done = done.write(0, tf.zeros([0, *shape[1:]]))  # so that there is something to concatenate without boxes
    _, done = tf.while_loop(lambda first, _: first < total, step, (0, done), parallel_iterations=1)
    pooled = tf.gather(tf.ensure_shape(done.concat(), shape), tf.math.invert_permutation(order))
    return tf.where(tf.reduce_all(counts > 0, axis=1)[:, None, None, None], pooled, 0.0)


def _by_level(pool: Any, features: list[Any], levels: Any, boxes: Any, image_index: Any) -> Any:
    """Applies `pool(level, feature_map, boxes, image_index)` to each level's boxes; results in the order of `boxes`."""
    import tensorflow as tf

    positions, pooled = [], []
    for level, feature_map in enumerate(features):
        position = tf.cast(tf.where(levels == level)[:, 0], tf.int32)
        positions.append(position)
        pooled.append(pool(level, feature_map, tf.gather(boxes, position), tf.gather(image_index, position)))
    ordered = tf.dynamic_stitch(positions, pooled)
    return tf.ensure_shape(ordered, [boxes.shape[0], *pooled[0].shape[1:]])

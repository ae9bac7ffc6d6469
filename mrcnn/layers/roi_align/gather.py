"""RoIAlign of all pyramid levels at once: every bin is a weighted sum of cells.

The levels are concatenated into one table [cells, C]. A bin takes `sampling_ratio ** 2` bilinear samples of four cells
each. Bins lie on a grid, so their rows and columns are computed separately (`taps`). The rest is a product of a sparse
matrix [bins, cells] with the table: `gather` computes it in keras.ops, for XLA; `multiply` with TensorFlow's sparse
product.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from mrcnn.layers.roi_align import samples as roi_samples
from mrcnn.ops.own_gradient import own_gradient


class Taps(NamedTuple):
    """Cells that make up the bins of M boxes; T = 2 * sampling_ratio per axis.

    rows: [M, pool_size, T] int32, index in the table of the first cell of a map's row.
    row_weights: [M, pool_size, T] float32.
    columns: [M, pool_size, T] int32, added to `rows`.
    column_weights: [M, pool_size, T] float32.
    """

    rows: Any
    row_weights: Any
    columns: Any
    column_weights: Any


def table(features: Sequence[Any]) -> Any:
    """Maps [B, H_l, W_l, C] concatenated: [cells, C] in their own dtype."""
    return ops.concatenate([ops.reshape(level, (-1, level.shape[-1])) for level in features], axis=0)


def sizes(features: Sequence[Any]) -> Any:
    """[levels, (batch, height, width)] int32 of maps [B, H_l, W_l, C]."""
    return ops.stack([ops.stack([ops.cast(side, "int32") for side in ops.shape(level)[:3]]) for level in features])


def taps(
    sizes: Any,
    boxes: Any,
    image_index: Any,
    levels: Any,
    *,
    strides: Sequence[float],
    pool_size: int,
    sampling_ratio: int = 2,
    aligned: bool = True,
    geometry: str = "aligned",
    rounded: bool = False,
    apart: bool = False,
) -> Taps:
    """The cells of the `table` that contribute to each bin of the boxes.

    Args:
        sizes: [levels, (batch, height, width)] int32, see `sizes`.
        boxes: [M, (y1, x1, y2, x2)] float32, pixels of the network input.
        image_index: [M] int32.
        levels: [M] int32, the map of each box.
        strides: input pixels between cells, one per level.
        pool_size, sampling_ratio, aligned, geometry, rounded: see
            `mrcnn.layers.roi_align.roi_align.RoIAlign`; `sampling_ratio` is 1 or more.
        apart: give every sample its own bin, `pool_size * sampling_ratio` per axis.
    """
    cells = sizes[:, 0] * sizes[:, 1] * sizes[:, 2]
    offset = ops.take(ops.cumsum(cells) - cells, levels)
    height, width = ops.take(sizes[:, 1], levels), ops.take(sizes[:, 2], levels)
    stride = ops.take(ops.convert_to_tensor(strides, dtype="float32"), levels)
    sides = [ops.cast(side, "float32") for side in (height, width)]
    if geometry == "crop":
        corners = roi_samples.corner_fractions(boxes, sides[0] * stride, sides[1] * stride)
        at = [roi_samples.corner_positions(corners[:, i], corners[:, i + 2], sides[i], pool_size) for i in (0, 1)]
        (y, y_weight), (x, x_weight) = (_bilinear(at[i], sides[i], 0.0, 1, pool_size) for i in (0, 1))
    else:
        start, side = roi_samples.start_and_side(boxes, 1.0 / stride[:, None], aligned, rounded)
        at = [roi_samples.positions(start[:, i], side[:, i], pool_size, sampling_ratio) for i in (0, 1)]
        ratio, bins = (1, pool_size * sampling_ratio) if apart else (sampling_ratio, pool_size)
        (y, y_weight), (x, x_weight) = (_bilinear(at[i], sides[i], 1.0, ratio, bins) for i in (0, 1))
    first = offset + image_index * height * width
    return Taps(first[:, None, None] + y * width[:, None, None], y_weight, x, x_weight)


def _bilinear(position: Any, cells: Any, margin: float, ratio: int, pool_size: int) -> tuple[Any, Any]:
    """Cells and weights of the samples on one axis, grouped by bin.

    Args:
        position: [M, pool_size * ratio] in cells; cells: [M], number of cells on this axis.
        margin: a sample at most this far outside the outermost cell takes its value; farther out it is zero.

    Returns:
        index [M, pool_size, 2 * ratio] int32 in the map, weight [M, pool_size, 2 * ratio], which sums to 1 per bin, or
        less where samples are zero.
    """
    last = cells[:, None] - 1.0
    inside = ops.logical_and(position >= -margin, position <= last + margin)
    position = ops.clip(position, 0.0, last)
    low = ops.floor(position)
    part = ops.where(inside, position - low, 0.0)  # NaN times zero would be NaN
    counted = ops.cast(inside, "float32") / ratio
    weight = ops.stack([(1.0 - part) * counted, part * counted], axis=-1)
    index = ops.cast(ops.stack([low, low + 1.0], axis=-1), "int32")
    # Clip in integers, so that no box, even of NaN, indexes outside the table
    index = ops.clip(index, 0, ops.cast(last, "int32")[..., None])
    shape = (-1, pool_size, 2 * ratio)
    return ops.reshape(index, shape), ops.reshape(weight, shape)


def highest(pool: Callable[..., Any], *call: Any, sampling_ratio: int, **options: Any) -> Any:
    """The maximum of each bin's samples, with `gather` or `multiply`."""
    samples = pool(*call, sampling_ratio=sampling_ratio, apart=True, **options)
    return ops.max_pool(samples, sampling_ratio, strides=sampling_ratio, data_format="channels_last")


def gather(features: Sequence[Any], boxes: Any, image_index: Any, levels: Any, **options: Any) -> Any:
    """Pools boxes of all levels, in keras.ops.

    XLA fuses this into one loop over the bins that reads the table's rows, sums in float32 and writes the result
    without intermediate arrays: on a CPU many times faster than one gather of all taps, whose sum XLA does not
    vectorize.

    Args:
        features: [B, H_l, W_l, C] float32 or bfloat16, one per level.
        boxes, image_index, levels, options: see `taps`.

    Returns:
        [M, pool_size, pool_size, C] float32.
    """
    cells, found = table(features), taps(sizes(features), boxes, image_index, levels, **options)
    return (_jax if keras.backend.backend() == "jax" else _weighted_sum)(cells, found)


def _weighted_sum(cells: Any, taps: Taps) -> Any:
    rows, row_weights, columns, column_weights = taps
    total = 0.0
    for i in range(rows.shape[-1]):
        for j in range(columns.shape[-1]):
            weight = row_weights[:, :, None, i, None] * column_weights[:, None, :, j, None]
            cell = ops.take(cells, rows[:, :, None, i] + columns[:, None, :, j], axis=0)
            total = total + weight * ops.cast(cell, "float32")
    return total


def _jax(cells: Any, taps: Taps) -> Any:
    """`_weighted_sum` with a gradient that accumulates in one table, tap by tap; JAX's own makes a table per tap."""
    import jax

    def scattered(upstream: Any) -> tuple[Any]:
        many = taps.rows.shape[-1]

        def add(tap: Any, total: Any) -> Any:
            rows, row_weights = (array[:, :, None, tap // many] for array in taps[:2])
            columns, column_weights = (array[:, None, :, tap % many] for array in taps[2:])
            part = (row_weights * column_weights)[..., None] * upstream
            return total.at[rows + columns].add(part, mode="promise_in_bounds")

        total = jax.lax.fori_loop(0, many * many, add, jax.numpy.zeros(cells.shape, "float32"))
        return (total.astype(cells.dtype),)

    return jax.custom_gradient(lambda cells: (_weighted_sum(cells, taps), scattered))(cells)


def multiply(features: Sequence[Any], boxes: Any, image_index: Any, levels: Any, **options: Any) -> Any:
    """`gather` as TensorFlow's product of a sparse matrix with a dense one.

    Needs no compilation, and shapes may depend on the data. The gradient, to `features` only, is a sparse product too:
    on a CPU several times faster than that of `crop_and_resize`.
    """
    import tensorflow as tf

    cells = table(features)
    found = taps(sizes(features), boxes, image_index, levels, **options)

    pooled = tf.raw_ops.SparseMatrixMatMul(
        a=tf.stop_gradient(_matrix(found, tf.shape(cells)[0])), b=tf.stop_gradient(tf.cast(cells, tf.float32))
    )
    attach = _gradient(cells.shape[-1], cells.dtype, found.rows.shape[1], found.rows.shape[2])
    return _as_bins(attach(pooled, cells, *found), boxes, found.rows.shape[1])


@functools.cache
def _gradient(channels: int, dtype: Any, pool_size: int, many: int) -> Callable[..., Any]:
    """(pooled, cells, *taps) -> pooled, with the gradient to the cells only."""
    import tensorflow as tf

    def gradient(upstream: Any, pooled: Any, cells: Any, *found: Any) -> tuple[Any, ...]:
        # It builds its own matrix: a SavedModel contains gradients, which cannot capture a variant tensor
        return _spread(_matrix(Taps(*found), tf.shape(cells)[0]), upstream, dtype), *[None] * len(found)

    of_taps = [tf.TensorSpec([None, pool_size, many], kind) for kind in (tf.int32, tf.float32) * 2]
    images = [tf.TensorSpec([None, channels], kind) for kind in (tf.float32, dtype)]
    return own_gradient(gradient, [*images, *of_taps])


def _as_bins(pooled: Any, boxes: Any, pool_size: int) -> Any:
    import tensorflow as tf

    shape = [pool_size, pool_size, pooled.shape[-1]]
    return tf.ensure_shape(tf.reshape(pooled, [-1, *shape]), [boxes.shape[0], *shape])


def _matrix(taps: Taps, cells: Any) -> Any:
    """[M * pool_size * pool_size, cells] sparse float32, with entries in bin order.

    Entries of one bin are unsorted, and a cell that samples share is repeated. The conversion requires only sorted
    rows, and products sum repeated entries.
    """
    import tensorflow as tf

    rows, row_weights, columns, column_weights = taps
    count, pool_size, many = tf.shape(rows)[0], rows.shape[1], rows.shape[2]
    # (bin, cell) of every entry in one int64 addition: 1000 boxes of 7x7 bins have 800 thousand entries
    row_bins = pool_size * tf.reshape(tf.range(tf.cast(count * pool_size, tf.int64)), [count, pool_size, 1])
    by_row = tf.stack([tf.tile(row_bins, [1, 1, many]), tf.cast(rows, tf.int64)], axis=-1)
    by_row = tf.tile(by_row, [1, 1, 1, many])[:, :, None]
    column_bins = tf.tile(tf.range(pool_size, dtype=tf.int64)[None, :, None], [count, 1, many])
    by_column = tf.reshape(
        tf.stack([column_bins, tf.cast(columns, tf.int64)], axis=-1), [count, 1, pool_size, 1, 2 * many]
    )
    weights = row_weights[:, :, None, :, None] * column_weights[:, None, :, None, :]
    return tf.raw_ops.SparseTensorToCSRSparseMatrix(
        indices=tf.reshape(by_row + by_column, [-1, 2]),
        values=tf.reshape(weights, [-1]),
        dense_shape=tf.cast([count * pool_size * pool_size, cells], tf.int64),
    )


def _spread(matrix: Any, upstream: Any, dtype: Any) -> Any:
    """Gradient of the cells [cells, C] from the gradient of the bins.

    TensorFlow's own gradient would also compute one for every weight, as large as all cells that `matrix` refers to.
    """
    import tensorflow as tf

    transposed = tf.raw_ops.SparseMatrixTranspose(input=matrix, type=tf.float32)
    upstream = tf.reshape(upstream, [-1, upstream.shape[-1]])
    return tf.cast(tf.raw_ops.SparseMatrixMatMul(a=transposed, b=upstream), dtype)

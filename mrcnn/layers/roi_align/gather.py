"""RoIAlign of all pyramid levels at once: every bin is a weighted sum of cells.

The levels are laid end to end as one table [cells, C]. A bin takes `sampling_ratio ** 2` bilinear samples of four cells
each, and as bins lie on a grid, their rows and columns can be found apart: `taps`. What remains is a product of a
sparse matrix [bins, cells] with the table. `gather` does it in keras.ops, for XLA; `multiply` is TensorFlow's own
product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from mrcnn.layers.roi_align import samples as roi_samples


class Taps(NamedTuple):
    """Cells that make up the bins of M boxes, T = 2 * sampling_ratio an axis.

    rows: [M, pool_size, T] int32, first cell of a map's row, counted in the table of all levels.
    row_weights: [M, pool_size, T] float32.
    columns: [M, pool_size, T] int32, added to `rows`.
    column_weights: [M, pool_size, T] float32.
    """

    rows: Any
    row_weights: Any
    columns: Any
    column_weights: Any


def table(features: Sequence[Any]) -> Any:
    """Maps [B, H_l, W_l, C] laid end to end: [cells, C] in their own dtype."""
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
    """Which cells of the `table` a box's bins are made of.

    Args:
        sizes: [levels, (batch, height, width)] int32, see `sizes`.
        boxes: [M, (y1, x1, y2, x2)] float32, pixels of the input.
        image_index: [M] int32.
        levels: [M] int32, the map of each box.
        strides: pixels of the input between cells, one a level.
        pool_size, sampling_ratio, aligned, geometry, rounded: see
            `mrcnn.layers.roi_align.roi_align.RoIAlign`; `sampling_ratio` is 1 or more.
        apart: give every sample a bin of its own, `pool_size * sampling_ratio` an axis.
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
    """Cells and weights of samples on one axis, of each bin together.

    Args:
        position: [M, pool_size * ratio] in cells; cells: [M], how many there are.
        margin: so far outside the outermost cells a sample has their value (up to their far side); beyond it is zero.

    Returns:
        index [M, pool_size, 2 * ratio] int32 in the map, weight [M, pool_size, 2 * ratio], of which the sum is 1 or,
        where samples are zero, less.
    """
    last = cells[:, None] - 1.0
    inside = ops.logical_and(position >= -margin, position <= last + margin)
    position = ops.clip(position, 0.0, last)
    low = ops.floor(position)
    part = ops.where(inside, position - low, 0.0)  # a weight of NaN times nothing would be NaN
    counted = ops.cast(inside, "float32") / ratio
    weight = ops.stack([(1.0 - part) * counted, part * counted], axis=-1)
    index = ops.cast(ops.stack([low, low + 1.0], axis=-1), "int32")
    # In integers, so that no box, of NaN even, leads outside the table
    index = ops.clip(index, 0, ops.cast(last, "int32")[..., None])
    shape = (-1, pool_size, 2 * ratio)
    return ops.reshape(index, shape), ops.reshape(weight, shape)


def highest(pool: Callable[..., Any], *call: Any, sampling_ratio: int, **options: Any) -> Any:
    """The highest sample of each bin, by `gather` or `multiply`."""
    samples = pool(*call, sampling_ratio=sampling_ratio, apart=True, **options)
    return ops.max_pool(samples, sampling_ratio, strides=sampling_ratio, data_format="channels_last")


def gather(features: Sequence[Any], boxes: Any, image_index: Any, levels: Any, **options: Any) -> Any:
    """Pools boxes of all levels, in keras.ops.

    Under XLA this is one fused loop over the bins, which reads the table's rows, sums in float32 and writes the result,
    with nothing in between: many times faster on a CPU than one gather of all taps, whose sum XLA does not vectorise.

    Args:
        features: [B, H_l, W_l, C] float32 or bfloat16, a level each.
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
    """`_weighted_sum` with a gradient that is added up in one table, tap by tap; JAX's own makes a table for each."""
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
    """`gather` as TensorFlow's product of a sparse matrix and a dense one.

    Nothing is compiled, and shapes may follow the data. The gradient, which flows to `features` alone, is a product
    too: on a CPU several times faster than that of `crop_and_resize`.
    """
    import tensorflow as tf

    cells = table(features)
    found = taps(sizes(features), boxes, image_index, levels, **options)

    @tf.custom_gradient
    def product(cells: Any) -> tuple[Any, Any]:
        count = tf.shape(cells)[0]
        pooled = tf.raw_ops.SparseMatrixMatMul(a=_matrix(found, count), b=tf.cast(cells, tf.float32))
        # Another matrix for the gradient: a SavedModel holds gradients, which cannot capture a variant
        return pooled, lambda upstream: _spread(_matrix(found, count), upstream, cells.dtype)

    return _as_bins(product(cells), boxes, found.rows.shape[1])


def _as_bins(pooled: Any, boxes: Any, pool_size: int) -> Any:
    import tensorflow as tf

    shape = [pool_size, pool_size, pooled.shape[-1]]
    return tf.ensure_shape(tf.reshape(pooled, [-1, *shape]), [boxes.shape[0], *shape])


def _matrix(taps: Taps, cells: Any) -> Any:
    """[M * pool_size * pool_size, cells] sparse float32, its entries in the order of the bins.

    The entries of one bin come unsorted, and a cell more than once where samples share it. The conversion asks for the
    rows alone to be in order, and products add up what is repeated.
    """
    import tensorflow as tf

    rows, row_weights, columns, column_weights = taps
    count, pool_size, many = tf.shape(rows)[0], rows.shape[1], rows.shape[2]
    # (bin, cell) of every entry in one addition of int64, as there are 800 thousand of them for 1000 boxes of 7 bins
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
    """The gradient by the cells [cells, C] from that of the bins.

    The product's own would make one for every weight too, as large as all cells that `matrix` names.
    """
    import tensorflow as tf

    transposed = tf.raw_ops.SparseMatrixTranspose(input=matrix, type=tf.float32)
    upstream = tf.reshape(upstream, [-1, upstream.shape[-1]])
    return tf.cast(tf.raw_ops.SparseMatrixMatMul(a=transposed, b=upstream), dtype)

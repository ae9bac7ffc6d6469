"""The cells that bins are made of, by hand; that results are those of RoIAlign is tested with the layer."""

import numpy as np
import pytest
from keras import ops

from mrcnn.layers.roi_align import gather as roi_gather


def arrays(taps):
    return [ops.convert_to_numpy(part) for part in taps]


def levels_of(*shapes):
    return ops.convert_to_tensor(np.array(shapes, np.int32))


def test_table_lays_levels_end_to_end():
    features = [np.full((2, 3, 4, 1), 1.0, np.float32), np.full((2, 1, 2, 1), 2.0, np.float32)]
    np.testing.assert_array_equal(ops.convert_to_numpy(roi_gather.sizes(features)), [[2, 3, 4], [2, 1, 2]])
    np.testing.assert_array_equal(ops.convert_to_numpy(roi_gather.table(features))[:, 0], [1.0] * 24 + [2.0] * 4)


def taps_of(box, image, level, sizes=((2, 8, 10), (2, 4, 5)), **options):
    options = {"strides": (4, 8), "pool_size": 1, "sampling_ratio": 1, **options}
    return arrays(
        roi_gather.taps(
            levels_of(*sizes),
            ops.convert_to_tensor([box], "float32"),
            ops.convert_to_tensor([image], "int32"),
            ops.convert_to_tensor([level], "int32"),
            **options,
        )
    )


def test_taps_by_hand():
    # Cells 2..4 of y and 3..4 of x on the finest map; the center is at 3 and 3.5, so at 2.5 and 3 of cells' centers
    rows, row_weights, columns, column_weights = taps_of([8, 12, 16, 16], image=0, level=0)
    np.testing.assert_array_equal(rows, [[[20, 30]]])
    np.testing.assert_allclose(row_weights, [[[0.5, 0.5]]])
    np.testing.assert_array_equal(columns, [[[3, 4]]])
    np.testing.assert_allclose(column_weights, [[[1.0, 0.0]]])


def test_taps_of_another_image_and_level():
    # Behind 160 cells of the first level and 20 of image 0 on the second; 1..2 cells of y and x: at 1 of their centers
    rows, row_weights, columns, _ = taps_of([8, 8, 16, 16], image=1, level=1)
    np.testing.assert_array_equal(rows, [[[160 + 20 + 5, 160 + 20 + 10]]])
    np.testing.assert_allclose(row_weights, [[[1.0, 0.0]]])
    np.testing.assert_array_equal(columns, [[[1, 2]]])


def test_samples_of_a_bin_share_its_weight():
    rows, row_weights, columns, column_weights = taps_of(
        [0, 0, 16, 16], image=0, level=0, pool_size=2, sampling_ratio=2
    )
    # A bin is two cells, sampled at their centers
    np.testing.assert_array_equal(rows, [[[0, 10, 10, 20], [20, 30, 30, 40]]])
    np.testing.assert_array_equal(columns, [[[0, 1, 1, 2], [2, 3, 3, 4]]])
    np.testing.assert_allclose(row_weights, [[[0.5, 0, 0.5, 0]] * 2])
    np.testing.assert_allclose(column_weights, [[[0.5, 0, 0.5, 0]] * 2])


@pytest.mark.parametrize(
    "box", [[-1e9, -1e9, 1e9, 1e9], [1e30, 1e30, 2e30, 2e30], [np.nan] * 4, [-np.inf, -np.inf, np.inf, np.inf]]
)
def test_no_box_leads_outside_the_table(box):
    for geometry in ("aligned", "crop"):
        rows, _, columns, _ = taps_of(box, image=1, level=1, pool_size=3, sampling_ratio=2, geometry=geometry)
        assert rows.min() >= 160 + 20 and columns.min() >= 0
        assert (rows.max() + columns.max()) < 160 + 40


def test_a_sample_of_nan_weighs_nothing():
    _, row_weights, _, column_weights = taps_of([np.nan, 8, np.nan, 16], image=0, level=0)
    np.testing.assert_array_equal(row_weights, [[[0, 0]]])
    assert column_weights.any()


def test_entries_of_the_sparse_matrix_may_repeat_and_be_unsorted():
    """One bin of the cells 3, 2, 3 and 2, with weights 0.2, 0.3, 0.2 and 0.3."""
    taps = roi_gather.Taps(
        *(
            ops.convert_to_tensor(part)
            for part in (
                np.array([[[3, 3]]], np.int32),
                np.array([[[0.5, 0.5]]], np.float32),
                np.array([[[0, -1]]], np.int32),
                np.array([[[0.4, 0.6]]], np.float32),
            )
        )
    )
    import tensorflow as tf

    matrix = roi_gather._matrix(taps, 5)
    cells = tf.reshape(tf.range(5.0) * 10, (5, 1))
    np.testing.assert_allclose(tf.raw_ops.SparseMatrixMatMul(a=matrix, b=cells), [[0.4 * 30 + 0.6 * 20]], rtol=1e-6)
    spread = roi_gather._spread(matrix, tf.constant([[1.0]]), tf.float32)
    np.testing.assert_allclose(spread, [[0], [0], [0.6], [0.4], [0]], rtol=1e-6)


def test_outside_by_more_than_a_cell_weighs_nothing():
    _, row_weights, _, column_weights = taps_of([-80, 8, -70, 16], image=0, level=0)
    assert not row_weights.any()
    assert column_weights.any()

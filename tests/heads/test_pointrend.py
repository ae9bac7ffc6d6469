"""PointRend: its cost by hand, and which cells are computed anew."""

import numpy as np
import pytest

import heads
from heads.pointrend import LeastSure, PutCells
from heads.protocol.costs import multiply_adds


@pytest.mark.slow
def test_cost_by_hand():
    """At 80 classes: the coarse mask, and the point head at 28x28 cells and three times at 784 of them."""
    head = heads.make("pointrend", (14, 14, 256), 81)
    coarse = 49 * 4 * 256 * 256 + 49 * 256 * 1024 + 1024 * 1024 + 1024 * 49 * 80
    point = 3 * (256 + 80) * 256 + (256 + 80) * 80
    assert multiply_adds(head.model) == coarse + 196 * point
    assert multiply_adds(head.inference) == head.multiply_adds == coarse + (28 * 28 + 3 * 784) * point == 924_286_976
    assert head.mask_size == 224


def test_the_least_sure_cells_are_put_anew():
    logits = np.full((2, 4, 4, 1), 9.0, np.float32)
    logits[0, 1, 2], logits[0, 3, 0], logits[1, 0, 3], logits[1, 2, 2] = 0.1, -0.2, -0.3, 0.4
    cells, points = LeastSure(2)(logits)
    np.testing.assert_array_equal(cells, [[6, 12], [3, 10]])
    np.testing.assert_allclose(points[0], [[0.375, 0.625], [0.875, 0.125]])
    found = np.asarray(PutCells()(logits, cells, np.full((2, 2, 1), -5.0, np.float32)))[..., 0]
    assert (found == -5).sum() == 4 and found[0, 1, 2] == found[0, 3, 0] == found[1, 0, 3] == found[1, 2, 2] == -5
    assert ((found == 9) | (found == -5)).all()


@pytest.mark.parametrize("shape", [(7, 7, 8), (14, 12, 8)])
def test_features_are_halved(shape):
    with pytest.raises(ValueError, match="halves its square features"):
        heads.make("pointrend", shape, 3)

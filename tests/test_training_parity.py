"""A training step beside torchvision's: the comparison's own arithmetic, and the whole of it where torchvision runs."""

import numpy as np
import pytest
import training_parity

from tests import oracles
from tests.layers.test_roi_align import torchvision_python


def test_nearest_boxes_are_the_same_within_a_hundredth_of_a_pixel():
    boxes = np.array([[0, 0, 10, 10], [5, 5, 20, 20], [1, 1, 2, 2]], float)
    place, same = training_parity.nearest(boxes, np.array([[5, 5, 20, 20.005], [0, 0, 10, 10.02]]))
    assert place.tolist() == [1, 0, 1] and same.tolist() == [False, True, False]


def test_masks_of_the_batch_fill_their_boxes():
    oracles.path("seeded.py")
    batch = training_parity.batch_of(oracles.FOLDER, 3, 64, 96)
    assert batch["images"].shape == (2, 64, 96, 3) and batch["masks"].shape == (2, 4, 64, 96)
    for mask, (x1, y1, x2, y2) in zip(batch["masks"].reshape(8, 64, 96), batch["boxes"].reshape(8, 4), strict=True):
        rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        assert (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1) == (y1, x1, y2, x2)
    assert ((batch["labels"] > 0) & (batch["labels"] < training_parity.CLASSES)).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", training_parity.MODELS)
def test_a_step_is_torchvision_s(name):
    """Matches one by one, losses and the norm of every gradient to 1e-3."""
    python = torchvision_python()
    oracles.path("seeded.py")
    rows = list(training_parity.rows_of(python, oracles.FOLDER, name, 2, (96, 128)))
    assert sum(row.bar is not None for row in rows) > 10
    assert [f"{row.stage}: {row.figure} over {row.bar}" for row in rows if not row.passed] == []

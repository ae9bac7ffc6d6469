"""BMask: what its branches cost and tell each other."""

import numpy as np
import pytest
from keras import ops

import heads
from heads.protocol import check
from heads.protocol.costs import multiply_adds


@pytest.mark.slow
def test_cost_by_hand():
    """1.09 G multiply-adds per RoI at 80 classes."""
    cells, wide = 14 * 14, 256 * 256
    convolutions = cells * wide * (9 * (4 + 1 + 2 + 1) + 2)
    ends = 2 * (4 * cells * wide + 28 * 28 * 256 * 81)
    head = heads.make("boundary", (14, 14, 256), 81)
    assert multiply_adds(head.model) == convolutions + ends == 1_085_808_640
    assert multiply_adds(head.inference) == convolutions + ends // 2, "the boundary is not computed"


def test_each_branch_hears_of_the_other():
    head = heads.make("boundary", (14, 14, 8), 3, {"filters": 8})
    assert head.fine_size == 28
    given = check.trial_inputs(head, training=True)
    before = head.model(given)
    for changed in ("features", "fine"):
        after = head.model(given | {changed: given[changed] + 1.0})
        for name in ("masks", "boundaries"):
            assert np.abs(np.asarray(after[name]) - np.asarray(before[name])).max() > 1e-3, (changed, name)
    np.testing.assert_allclose(head.inference(given)["masks"], before["masks"], atol=1e-6)


@pytest.mark.slow
def test_a_perfect_boundary_has_no_loss():
    head = heads.make("boundary", (14, 14, 8), 3, {"filters": 8})
    targets = check.trial_targets(
        class_ids=ops.ones((1,), "int32"),
        weight=ops.ones((1,)),
        boxes=ops.convert_to_tensor([[8.0, 8.0, 82.0, 72.0]]),
        image_index=ops.zeros((1,), "int32"),
    )
    perfect = targets.boundary(28)[..., None] * ops.ones((1, 1, 1, 3))
    assert 28 < float(ops.sum(targets.boundary(28))) < 28 * 28 / 4
    for boundaries, loss in ((perfect, 0.0), (1.0 - perfect, 16.0)):
        value, count = head.loss({"masks": perfect, "boundaries": boundaries}, targets)["mask_boundary_loss"]
        assert float(count) == 1 and float(value) == pytest.approx(loss, abs=1.5)


def test_features_are_square():
    with pytest.raises(ValueError, match=r"square features, received \(14, 12, 8\)"):
        heads.make("boundary", (14, 12, 8), 3)

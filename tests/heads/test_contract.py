"""What every registered head does."""

from functools import partial

import keras
import numpy as np
import pytest

import heads
from heads.protocol import check, contract
from tests.heads import small

pytestmark = pytest.mark.slow

every_head = pytest.mark.parametrize("name", [*small.NAMES, *heads.names("keypoints")])


def build(name, num_classes=4):
    side = small.side(name)
    return heads.make(small.small(name), (side, side, 8), num_classes)


@every_head
@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda check: check.__name__)
def test_keeps_the_contract(name, check):
    check(partial(build, name))


@every_head
@pytest.mark.parametrize("num_classes", [1, 2, 5])
def test_gives_square_masks_of_probabilities(name, num_classes):
    if name == "fcn, softmax" and num_classes == 1:
        with pytest.raises(ValueError, match="a softmax needs the background beside a class"):
            build(name, num_classes)
        return
    head = build(name, num_classes)
    outputs = contract.run(head, check.trial_inputs(head, training=False), training=False)[head.output]
    values = keras.ops.convert_to_numpy(outputs)
    assert values.dtype == np.float32 and values.shape[1] == values.shape[2] == head.mask_size
    assert values.shape[0] == 3 and values.shape[3] in (1, num_classes)
    if head.kind == "mask":
        assert 0 <= values.min() < values.max() <= 1


@every_head
def test_computes_in_bfloat16_under_mixed_precision(name):
    with contract.policy("mixed_bfloat16"):
        model = build(name).model
    assert "bfloat16" in {layer.compute_dtype for layer in model._flatten_layers() if layer.weights}


@every_head
def test_a_plain_head_folds_to_the_same(name):
    """The fast path of the network is of plain heads alone, whose function it keeps."""
    from mrcnn.fusion.folding import fold
    from mrcnn.network.frozen_batch_norm import fixed_norms

    head = build(name)
    if not head.is_plain:
        pytest.skip("no plain head")
    x = check.trial_inputs(head, training=False)["features"]
    folded = fold(head.model, fixed_norms(training=False), by_winograd=False)
    np.testing.assert_allclose(folded(x), head.model(x), atol=1e-5)


class Broken(heads.Head):
    """A head that does nothing as it should."""

    def __init__(self, input_shape, num_classes, *, fault):
        super().__init__(input_shape, num_classes)
        self.fault = fault

    def call(self, features):
        x = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(features)
        if self.fault == "rois see each other":
            x = x - keras.ops.mean(x, axis=0, keepdims=True)
        x = keras.layers.Conv2D(self.num_classes, 1, activation="sigmoid", dtype="float32")(x)
        if self.fault == "does not learn":
            x = keras.ops.stop_gradient(x) + 0.0 * x
        return x

    def loss(self, outputs, targets):
        ((name, (value, count)),) = super().loss(outputs, targets).items()
        if self.fault == "mean":
            return {name: (value / count, count / count)}
        if self.fault == "padding":
            return {name: (value + keras.ops.sum(1.0 - targets.weight), count)}
        return {name: (value, count)}


@pytest.mark.parametrize(
    ("fault", "check", "message"),
    [
        ("rois see each other", contract.rois_are_independent, "the masks of a RoI change by .* with the RoIs beside"),
        ("mean", contract.losses_are_sums_over_rois, "of the same in two parts .*: a loss is a sum over RoIs"),
        ("padding", contract.losses_are_sums_over_rois, "with two rows of padding .*: use targets.total"),
        ("does not learn", contract.it_learns, "after 60 steps on the same four RoIs the loss is"),
    ],
)
def test_a_head_that_breaks_the_contract_is_found(monkeypatch, fault, check, message):
    monkeypatch.setattr(heads.registry, "_heads", dict(heads.registry._heads))
    heads.register("broken")(Broken)
    with pytest.raises(contract.BrokenContractError, match=message):
        check(lambda: heads.make("broken", (14, 14, 8), 3, {"fault": fault}))

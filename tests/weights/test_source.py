"""What an importer makes of a file: tensors that are read late, and what is left of the file."""

import numpy as np
import pytest

from mrcnn.weights.report import LoadReport, Tensor
from mrcnn.weights.source import Lazy, Source, fcn_head, left_over


def test_a_tensor_that_reads_as_another_shape():
    assert Lazy((2,), lambda: np.ones(2)).read().tolist() == [1, 1]
    with pytest.raises(ValueError, match=r"declared as \(2,\) has shape \(3,\); the file is damaged"):
        Lazy((2,), lambda: np.ones(3)).read()


def test_the_usual_mask_head_has_no_options():
    assert fcn_head(256, 4) == "fcn"
    assert fcn_head(256, 5) == {"name": "fcn", "filters": 256, "convolutions": 5}


BESIDE = [
    "num_batches_tracked",
    "backbone.body.bn1.num_batches_tracked",
    "conv1_w_momentum",
    "state.0.momentum_buffer",
    "a.exp_avg",
    "a.exp_avg_sq",
    "lr",
    "weight_order",
    "anchors",
    "anchors/kernel",
    "anchors.0",
    "proposal_generator.anchor_generator.cell_anchors.4",
    "pixel_mean",
    "pixel_std",
    "model.pixel_std",
    "fc.weight",
    "fc.bias",
    "fc1000.weight",
    "fc1000_w",
    "__preserve__/fc1000_b",
    "pred_w",
    "linear.weight",
    "stem.fc.weight",
    "backbone.body.fc.bias",
    "backbone.bottom_up.stem.fc.weight",
]
WEIGHTS = [
    "proposal_generator.rpn_head.anchor_deltas.weight",
    "rpn.anchors_head.weight",
    "fc6_w",
    "fc2.weight",
    "roi_heads.box_head.fc.weight",
    "sem_seg_head.predictor.weight",
    "roi_heads.linear.weight",
    "cls_pred_w",
    "my_lr",
    "pixel_mean_head.weight",
    "conv_momentum_w",
    "bn.num_batches",
]


@pytest.mark.parametrize("name", BESIDE)
def test_what_is_beside_the_weights_is_not_left_over(name):
    assert left_over({name: np.ones(3)}, ()) == {}


def test_weights_are_left_over_unless_they_are_used():
    tensors = {name: np.ones((i, 2)) for i, name in enumerate(WEIGHTS)}
    assert left_over(tensors, ()) == {name: (i, 2) for i, name in enumerate(WEIGHTS)}
    assert left_over(tensors, WEIGHTS[1:]) == {WEIGHTS[0]: (0, 2)}
    assert left_over({}, ["a"]) == {}


def test_the_report_gets_what_is_unused_and_the_notes():
    known, alien = Tensor("rpn/a", (1,), (1,)), Tensor("rpn/b", None, (4,))
    report = LoadReport([known], [], [], [alien], ("the file contains only the rpn",))
    source = Source("somebody's", {}, unused={"head.weight": (2, 3), "head.bias": (2,)}, notes=("names are assumed",))
    done = source.completed(report)
    assert done.unexpected == [alien, Tensor("head.weight", None, (2, 3)), Tensor("head.bias", None, (2,))]
    assert done.notes == (
        "the file contains only the rpn",
        "names are assumed",
        "2 tensors of the file match no layer of this network",
    )
    assert done.loaded == [known] and report.unexpected == [alien]
    assert "head.weight  model -                    file (2, 3)" in str(done)
    one = Source("somebody's", {}, unused={"head.bias": (2,)}).completed(LoadReport([], [], [], []))
    assert one.notes == ("1 tensor of the file matches no layer of this network",)


def test_nothing_unused_changes_nothing():
    report = LoadReport([], [], [], [], ("note",))
    assert Source("somebody's", {}).completed(report) == report

"""The training time of a run, also one that was interrupted."""

import json
from types import SimpleNamespace

import pytest

from mrcnn.experiments.step_times import StepTimes


def test_epochs_that_were_cut_count_as_whole_ones(tmp_path):
    """Three epochs of ten steps, of which the second lost its first six to an interruption."""
    (tmp_path / "seconds.json").write_text(json.dumps({"1": [10, 50.0], "2": [4, 8.0], "3": [10, 22.0]}))
    times = StepTimes(SimpleNamespace(log_dir=tmp_path))
    assert times.total() == pytest.approx(30 * 2.1), "the first epoch traces the graph"


def test_a_single_epoch_counts_as_it_is_and_none_is_not_zero(tmp_path):
    times = StepTimes(SimpleNamespace(log_dir=tmp_path))
    assert times.total() is None
    times.on_train_begin()
    times.on_epoch_begin(0)
    for batch in range(3):
        times.on_train_batch_end(batch)
    times.on_epoch_end(0)
    assert json.loads((tmp_path / "seconds.json").read_text())["1"][0] == 3 and times.total() > 0

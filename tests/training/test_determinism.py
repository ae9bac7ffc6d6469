"""With DETERMINISTIC, equal trainings give equal weights bit for bit, in any process, killed or not.

The long form, with kills at random moments, is benchmarks/kills.py.
"""

import pytest

from benchmarks import kills

pytestmark = pytest.mark.slow


def test_a_killed_training_ends_with_the_same_weights(tmp_path, monkeypatch):
    """On two threads. The loader's threads do not matter."""
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "2")
    plan = kills.Plan(epochs=2, steps=6, every=2)
    kills.finish(tmp_path / "whole", plan)
    with pytest.raises(RuntimeError, match="exit status -9"):
        kills.finish(tmp_path / "killed", plan._replace(loader_workers=1, steps_to_live=9))
    assert kills.last_checkpoint(tmp_path / "killed").name == "mask_rcnn_kills_0001_step000002.h5"
    kills.finish(tmp_path / "killed", plan)
    expected = kills.last_checkpoint(tmp_path / "whole")
    assert expected.name == "mask_rcnn_kills_0002.h5"
    assert kills.differences(expected, [tmp_path / "killed"]) == []

"""Folders of runs, in the order in which they began, and the names of checkpoints."""

import datetime
import re

import pytest

from mrcnn.training import run_folder
from mrcnn.training.run_folder import Run, RunPath, checkpoint_name, checkpoints, find_last, new_run_folder, position


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.touch()


@pytest.fixture
def clock(monkeypatch):
    """Sets the time that runs see."""

    def set_to(text):
        class Fixed(datetime.datetime):
            @classmethod
            def now(cls):
                return cls.fromisoformat(text)

        monkeypatch.setattr(run_folder.datetime, "datetime", Fixed)

    return set_to


def test_a_folder_is_named_after_the_run_and_its_time(tmp_path, clock):
    clock("2026-03-04T05:06:07.8")
    assert new_run_folder(tmp_path, "Cats") == tmp_path / "cats20260304T050607"


def test_runs_of_one_second_follow_each_other(tmp_path, clock):
    clock("2026-03-04T05:06:59")
    names = [new_run_folder(tmp_path, "cats").name for _ in range(3)]
    assert names == ["cats20260304T050659", "cats20260304T050700", "cats20260304T050701"]
    assert new_run_folder(tmp_path, "dogs").name == "dogs20260304T050659"


def test_a_run_begun_after_the_clock_was_set_back_is_still_the_last(tmp_path, clock):
    touch(tmp_path, "cats20261025T025959/mask_rcnn_cats_0009.h5", "cats20261025T0230/mask_rcnn_cats_0001.h5")
    clock("2026-10-25T02:10:00")
    folder = new_run_folder(tmp_path, "cats")
    touch(folder, "mask_rcnn_cats_0001.h5")
    assert find_last(tmp_path, "cats") == folder / "mask_rcnn_cats_0001.h5"
    assert folder.name == "cats20261025T030000"


def test_what_is_no_run_is_not_listed(tmp_path):
    touch(tmp_path, "cats20260101T000000/a", "cats20259999T000000/a", "cats/a", "cats220260101T000000/a")
    touch(tmp_path, "cats20260101T0000/a")
    assert [run.name for run in run_folder.runs(tmp_path, "Cats")] == ["cats20260101T0000", "cats20260101T000000"]
    assert run_folder.runs(tmp_path / "nowhere", "cats") == []


@pytest.mark.parametrize("name", ["cats", "Cats_0001", "a_step000002", "1"])
@pytest.mark.parametrize("place", [(1, 0), (12, 0), (3, 500), (10000, 1234567)])
def test_the_name_of_a_checkpoint_says_its_position(tmp_path, name, place):
    assert position(tmp_path / checkpoint_name(name, *place)) == place


def test_another_file_has_no_position(tmp_path):
    with pytest.raises(ValueError, match="mask_rcnn_cats_best.h5 is not named like a checkpoint"):
        position(tmp_path / "mask_rcnn_cats_best.h5")


def test_checkpoints_are_in_the_order_of_their_positions(tmp_path):
    ordered = [checkpoint_name("cats", *place) for place in ((9, 0), (9, 2), (9, 10), (10, 0), (10000, 0))]
    touch(tmp_path, *reversed(ordered), "mask_rcnn_cats_best.h5", f".{ordered[0]}.x.tmp", "log.csv")
    assert [path.name for path in checkpoints(tmp_path)] == ordered


def test_a_run_opens_its_folder_once(tmp_path):
    run = Run()
    with pytest.raises(ValueError, match="Config.NAME is None"):
        run.open(tmp_path, None)
    assert run.open(tmp_path, "cats") is run.open(tmp_path, "cats")
    assert re.fullmatch(r"cats\d{8}T\d{6}", run.folder.name)


# As the old package's programs use what `log_dir` and `find_last` give


def test_the_path_of_a_run_is_also_a_string(tmp_path):
    folder = RunPath(tmp_path)
    assert folder + "/x" == f"{tmp_path}/x" and "in " + folder == f"in {tmp_path}"
    assert folder / "x" == tmp_path / "x"


def test_the_last_checkpoint_is_also_the_pair_of_former_times(tmp_path):
    touch(tmp_path, "cats20260101T000000/mask_rcnn_cats_0001.h5")
    last = find_last(tmp_path, "cats")
    folder, path = last
    assert (folder, path) == (last.parent, last) == (last[0], last[1])
    assert str(path) == str(last) and path.is_file()

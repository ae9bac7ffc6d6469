"""The cleaned copy contains what training uses, and nothing else."""

import json
import os
from functools import partial

import numpy as np
import pytest

from mrcnn.data.check import check, main, write_fixed
from mrcnn.data.formats import load_dataset
from tests.data import damaged
from tests.data.damaged import DAMAGE, read
from tests.tiny import TinyKeypoints


@pytest.fixture
def write(tmp_path):
    """Writes the scene after a change, with its images; returns the path of the JSON file."""
    (tmp_path / "from").mkdir()
    return partial(damaged.write, tmp_path / "from")


def masks_by_name(dataset):
    return {
        os.path.basename(info["path"]): sorted(
            (int(class_id), mask.tobytes())
            for class_id, mask in zip(dataset.load_mask(i)[1], np.moveaxis(dataset.load_mask(i)[0], 2, 0), strict=True)
        )
        for i, info in enumerate(dataset.image_info)
    }


def test_sound_data_stays_as_it_is(write, tmp_path):
    dataset = read(write())
    written = write_fixed(tmp_path / "to", dataset)
    again = load_dataset(tmp_path / "to")
    assert written == {
        "images": len(dataset.image_ids),
        "instances": sum(len(i["instances"]) for i in dataset.image_info),
    }
    assert again.class_names == dataset.class_names and not len(again.problems)
    assert masks_by_name(again) == masks_by_name(dataset)
    assert not check(again, images=True).broken


@pytest.mark.parametrize("name", list(DAMAGE))
def test_whatever_is_damaged_the_copy_is_sound(write, tmp_path, name):
    dataset = read(write(DAMAGE[name][0]))
    write_fixed(tmp_path / "to", dataset)
    content = json.loads((tmp_path / "to" / "annotations.json").read_text())
    if not content["images"]:
        return
    found = check(load_dataset(tmp_path / "to", strict=False), images=True)
    assert not found.broken, str(found)
    used = check(dataset, images=True).records["used"]
    assert len(content["images"]) >= used["images"]


def test_a_folder_that_holds_something_is_left_alone(write, tmp_path, capsys):
    path = write()
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "mine.txt").touch()
    with pytest.raises(ValueError, match="to' is not an empty folder"):
        write_fixed(tmp_path / "to", read(path))
    assert main([str(path), "--fix", str(tmp_path / "to")]) == 2
    assert os.listdir(tmp_path / "to") == ["mine.txt"] and capsys.readouterr().out == ""


def test_the_command_writes_it(write, tmp_path, capsys):
    assert main([str(write()), "--fix", str(tmp_path / "to")]) == 0
    assert "images with" in capsys.readouterr().out
    assert check(load_dataset(tmp_path / "to")).records["used"]["images"] == 3


def test_keypoints_are_kept(tmp_path):
    dataset = TinyKeypoints(2)
    write_fixed(tmp_path / "to", dataset)
    again = load_dataset(tmp_path / "to")
    assert again.skeleton == dataset.skeleton
    for i in range(2):
        np.testing.assert_allclose(again.load_keypoints(i), dataset.load_keypoints(i))

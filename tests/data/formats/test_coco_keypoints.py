"""Keypoints in COCO's json."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mrcnn.data.annotations.keypoint_fields import coco_category, coco_keypoints, skeleton_of
from mrcnn.data.annotations.problems import AnnotationError
from mrcnn.data.formats.coco import read_coco
from mrcnn.data.keypoints import COCO_PERSON, Skeleton

COCO_MINI = Path(__file__).resolve().parents[4] / "shared" / "data" / "coco_mini"
NAMES = ["nose", "left_ear", "right_ear"]


def content():
    """One image of 20 x 30 with a cat that has keypoints, a cat that has none, and a car."""

    def annotation(number, category, **more):
        outline = [[2, 3, 16, 3, 16, 18, 2, 18]]
        box = {"bbox": [2, 3, 14, 15], "area": 210, "iscrowd": 0, "segmentation": outline}
        return {"id": number, "image_id": 1, "category_id": category, **box, **more}

    return {
        "images": [{"id": 1, "file_name": "a.png", "height": 20, "width": 30}],
        "categories": [
            {"id": 1, "name": "cat", "keypoints": NAMES, "skeleton": [[1, 2], [1, 3]]},
            {"id": 2, "name": "car"},
        ],
        "annotations": [
            annotation(1, 1, keypoints=[5, 4, 2, 7.25, 6, 1, 9, 9, 0], num_keypoints=2),
            annotation(2, 1),
            annotation(3, 2),
        ],
    }


@pytest.fixture
def write(tmp_path):
    def _write(change=lambda made: None):
        made = content()
        change(made)
        Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(tmp_path / "a.png")
        (tmp_path / "keypoints.json").write_text(json.dumps(made))
        return tmp_path / "keypoints.json"

    return _write


def test_reads_skeleton_and_keypoints(write):
    dataset = read_coco(write())
    assert dataset.skeleton == Skeleton(NAMES, [(0, 1), (0, 2)]) and dataset.skeleton.flip_pairs == ((1, 2),)
    keypoints = dataset.load_keypoints(0)
    assert keypoints[0].tolist() == [[4.5, 5.5, 2], [6.5, 7.75, 1], [0, 0, 0]]  # centers of pixels
    assert keypoints.shape == (3, 3, 3) and not keypoints[1:].any()
    first, second, car = dataset.annotations(0)
    assert first["keypoints"] == [5, 4, 2, 7.25, 6, 1, 0, 0, 0] and first["num_keypoints"] == 2
    assert second["num_keypoints"] == car["num_keypoints"] == 0 and car["keypoints"] == [0] * 9
    assert dataset.subset([0]).skeleton == dataset.skeleton and not len(dataset.problems)


def test_a_file_without_keypoints_has_no_skeleton(write):
    def without(made):
        del made["categories"][0]["keypoints"]

    dataset = read_coco(write(without))
    assert dataset.skeleton is None and dataset.load_keypoints(0) is None
    assert "keypoints" not in dataset.annotations(0)[0]
    assert read_coco(write(), class_names=["car"]).skeleton is None


@pytest.mark.parametrize(
    "values", ["text", [1, 2], [1] * 8, [None] * 9, [True] * 9, [[1]] * 9, {"a": 1}, [1e400] * 9, [10**400] * 9]
)
def test_keypoints_that_cannot_be_read_are_noted(write, values):
    def change(made):
        made["annotations"][0]["keypoints"] = values

    dataset = read_coco(write(change))
    assert not dataset.load_keypoints(0).any()
    (problem,) = dataset.problems
    assert "expected 9 numbers x, y, visibility" in str(problem)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("keypoints", "nose"),
        ("keypoints", [1, 2]),
        ("keypoints", ["nose", "nose"]),
        ("keypoints", ["a"] * 1000),
        ("skeleton", [[0, 1]]),
        ("skeleton", [[1, 9]]),
        ("skeleton", [[1, 2, 3]]),
        ("skeleton", "abc"),
    ],
)
def test_a_skeleton_that_cannot_be_read_is_noted(write, field, value):
    def change(made):
        made["categories"][0][field] = value

    dataset = read_coco(write(change))
    assert dataset.skeleton is None and len(dataset.problems) == 1


def test_two_skeletons_clash_unless_one_is_chosen(write):
    def change(made):
        made["categories"][1]["keypoints"] = ["wheel"]

    with pytest.raises(AnnotationError, match=r"others than those of 'cat'; read one of them, by class_names="):
        read_coco(write(change))
    assert read_coco(write(change), class_names=["car"]).skeleton.names == ("wheel",)


def test_fields_survive_a_round_trip():
    assert skeleton_of(coco_category(COCO_PERSON)) == COCO_PERSON
    keypoints = np.array([[1.5, 2.5, 2], [0, 0, 0]])
    assert coco_keypoints(keypoints) == {"keypoints": [2, 1, 2, 0, 0, 0], "num_keypoints": 1}


def test_coco_itself():
    path = COCO_MINI / "annotations" / "person_keypoints_val2017.json"
    if not path.is_file():
        pytest.skip("needs ../shared/data/coco_mini")
    dataset = read_coco(path)
    assert dataset.skeleton == COCO_PERSON and dataset.class_names == ["BG", "person"]
    theirs = {a["id"]: a for a in json.loads(path.read_text())["annotations"]}
    for image_id in dataset.image_ids[:20]:
        for annotation in dataset.annotations(int(image_id)):
            assert annotation["keypoints"] == theirs[annotation["id"]]["keypoints"]
            assert annotation["num_keypoints"] == theirs[annotation["id"]]["num_keypoints"]

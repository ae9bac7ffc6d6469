"""Skeletons, and keypoints that follow their image."""

import numpy as np
import pytest

from mrcnn.data.keypoints import COCO_PERSON, MovedKeypoints, Skeleton, checked_keypoints, inside


def test_pairs_follow_from_names_that_differ_in_left_and_right():
    skeleton = Skeleton(["nose", "Left_eye", "Right_eye", "left_wing"])
    assert skeleton.flip_pairs == ((1, 2),)
    assert skeleton.mirrored.tolist() == [0, 2, 1, 3]
    assert Skeleton(["a", "b"], flip_pairs=[(0, 1)]).mirrored.tolist() == [1, 0]
    assert Skeleton(["left_eye", "right_eye"], flip_pairs=[]).mirrored.tolist() == [0, 1]


def test_coco_people_have_pycocotools_sigmas_and_others_their_own():
    from pycocotools.cocoeval import Params

    np.testing.assert_allclose(COCO_PERSON.sigmas, Params("keypoints").kpt_oks_sigmas, atol=1e-12)
    assert COCO_PERSON.count == 17 and len(COCO_PERSON.flip_pairs) == 8 and len(COCO_PERSON.edges) == 19
    assert Skeleton(["a", "b"]).sigmas == (0.05, 0.05)
    assert Skeleton(["a", "b"], sigmas=[0.1, 0.2]).sigmas == (0.1, 0.2)


def test_a_skeleton_survives_json():
    assert Skeleton.from_dict(COCO_PERSON.as_dict()) == COCO_PERSON
    for broken in ({}, {"names": 3, "edges": [], "flip_pairs": [], "sigmas": []}, None):
        with pytest.raises(ValueError, match=r"names of keypoints|a skeleton is a dict"):
            Skeleton.from_dict(broken)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": []}, "1 to 512 texts"),
        ({"names": "nose"}, "1 to 512 texts"),
        ({"names": ["a", "a"]}, "must differ"),
        ({"names": ["a", "b"], "edges": [(0, 2)]}, "edges are pairs of two places from 0 to 1"),
        ({"names": ["a", "b"], "edges": [0]}, "edges are pairs"),
        ({"names": ["a", "b", "c"], "flip_pairs": [(0, 1), (1, 2)]}, "one of the flip_pairs"),
        ({"names": ["a", "b"], "sigmas": [0.1]}, "a positive number for each of the 2"),
        ({"names": ["a"], "sigmas": [0.0]}, "a positive number"),
    ],
)
def test_a_skeleton_that_is_none(arguments, message):
    with pytest.raises(ValueError, match=message):
        Skeleton(**arguments)


def test_keypoints_move_with_their_image():
    points = MovedKeypoints(np.array([[[1.0, 2.0, 2.0], [3.0, 4.0, 1.0]]]), np.array([1, 0]))
    points.shift(-1, 2)
    assert points.values.tolist() == [[[0, 4, 2], [2, 6, 1]]]
    points.mirror(10)
    assert points.values.tolist() == [[[2, 4, 1], [0, 6, 2]]]


@pytest.mark.parametrize(
    ("function", "swaps"),
    [
        (lambda p: p + 1, False),
        (lambda p: p[:, ::-1] * (1, -1) + (0, 20), False),  # a quarter turn
        (lambda p: p * (1, -1) + (0, 20), True),
        (lambda p: p * (-1, 1) + (20, 0), True),
        (lambda p: 20 - p, False),  # half a turn
    ],
)
def test_a_function_that_mirrors_swaps_left_and_right(function, swaps):
    values = np.array([[[1.0, 2.0, 2.0], [3.0, 4.0, 1.0]]])
    points = MovedKeypoints(values, np.array([1, 0]))
    points.move(function, (20, 20, 3))
    expected = np.concatenate([function(values[0, :, :2]), values[0, :, 2:]], axis=1)
    np.testing.assert_allclose(points.values[0], expected[::-1] if swaps else expected)


def test_what_leaves_the_image_is_not_labeled():
    points = np.array([[[0, 0, 2], [10, 5, 1], [10.1, 5, 2], [3, -0.1, 2], [3, 3, 0]]], float)
    expected = np.where([[[1], [1], [0], [0], [0]]], points, 0)
    np.testing.assert_array_equal(inside(points, 10, 5), expected)


def test_keypoints_are_checked():
    skeleton = Skeleton(["a", "b"])
    found = checked_keypoints([[[1, 2, 0], [3, 4, 2]]], 1, skeleton)
    assert found.tolist() == [[[0, 0, 0], [3, 4, 2]]]
    assert checked_keypoints(np.zeros((0, 2, 3)), 0, skeleton).shape == (0, 2, 3)
    with pytest.raises(ValueError, match=r"shape \(1, 3, 3\); expected \(1, 2, 3\)"):
        checked_keypoints(np.zeros((1, 3, 3)), 1, skeleton)
    with pytest.raises(ValueError, match="NaN or infinite"):
        checked_keypoints([[[np.nan, 0, 2], [0, 0, 0]]], 1, skeleton)

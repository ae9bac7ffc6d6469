"""Heatmaps to keypoints, and the results that carry them."""

import copy
import pickle

import numpy as np
import pytest

from mrcnn.data.keypoints import COCO_PERSON, Skeleton, decode_heatmaps
from mrcnn.inference.results import Result, SoftMasks
from tests import oracles


def test_a_peak_lies_in_the_middle_of_its_cell():
    """4 x 4 cells of a box of 8 x 4 pixels; the upsampled peak is one of the pixels around the cell's center."""
    heatmaps = np.full((1, 4, 4, 2), -20, np.float32)
    heatmaps[0, 1, 2, 0] = heatmaps[0, 3, 0, 1] = 20
    (found,) = decode_heatmaps(heatmaps, np.array([[10, 20, 18, 24]]))
    assert abs(found[0, 0] - 13) <= 0.5 and found[0, 1] == 22.5
    assert abs(found[1, 0] - 17) <= 1.5 and found[1, 1] == 20.5


def test_a_score_is_the_share_of_the_peak_among_the_cells():
    """At the size of the heatmap nothing is upsampled, so that the peak is a cell."""
    heatmaps = np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype(np.float32)
    (found,) = decode_heatmaps(heatmaps, np.array([[0, 0, 8, 8]]))
    flat = heatmaps[0].reshape(64, 3)
    np.testing.assert_allclose(found[:, 2], np.exp(flat.max(axis=0)) / np.exp(flat).sum(axis=0), rtol=1e-5)
    np.testing.assert_array_equal((found[:, 0] - 0.5) * 8 + found[:, 1] - 0.5, flat.argmax(axis=0))


def test_sizes_of_boxes_are_rounded_up_and_one_at_least():
    heatmaps = np.zeros((2, 4, 4, 1), np.float32)
    heatmaps[:, 3, 3, 0] = 9
    found = decode_heatmaps(heatmaps, np.array([[0, 0, 0.2, 0.3], [0, 0, 2.5, 3.5]]))
    np.testing.assert_allclose(found[0, 0, :2], [0.5, 0.5])  # one pixel, as Detectron2 has it
    np.testing.assert_allclose(found[1, 0, :2], [2.5 * 2.5 / 3, 3.5 * 3.5 / 4], rtol=1e-6)


def test_a_flat_heatmap_has_a_low_score_and_no_detection_none():
    (found,) = decode_heatmaps(np.zeros((1, 8, 8, 1), np.float32), np.array([[0, 0, 16, 16]]))
    np.testing.assert_allclose(found[0, 2], 1 / 64)
    assert decode_heatmaps(np.zeros((0, 8, 8, 5), np.float32), np.zeros((0, 4))).shape == (0, 5, 3)


def test_many_keypoints_are_decoded_one_like_the_other():
    rng = np.random.default_rng(0)
    heatmaps = rng.normal(size=(2, 6, 6, 11)).astype(np.float32)
    boxes = np.array([[0, 0, 30, 20], [5, 5, 9, 50]], np.float32)
    together = decode_heatmaps(heatmaps, boxes)
    for i in range(11):
        np.testing.assert_allclose(decode_heatmaps(heatmaps[..., i : i + 1], boxes)[:, 0], together[:, i], atol=1e-4)


@pytest.mark.parametrize("name", ["a", "b"])
def test_equals_detectron2(name):
    arrays = oracles.load(f"detectron2/d2_oracle_keypoint_R_50_{name}.npz")
    scale = np.tile(np.divide(arrays["resized_bgr"].shape[:2], arrays["image_rgb"].shape[:2]), 2)
    boxes = (arrays["out_boxes"][:8][:, [1, 0, 3, 2]] * scale).astype(np.float32)
    found = decode_heatmaps(arrays["keypoint_heatmaps"].transpose(0, 2, 3, 1), boxes)
    expected = arrays["det_keypoints_resized"][:8][..., [1, 0, 2]]
    np.testing.assert_allclose(found, expected, atol=1e-3)


def result(count=3):
    rois = np.tile(np.array([[1, 2, 9, 8]], np.float32), (count, 1))
    soft = SoftMasks(np.ones((count, 4, 4), np.float32), rois)
    found = Result(rois, np.ones(count, np.int32), np.linspace(0.9, 0.1, count, dtype=np.float32), soft, (10, 12))
    found["keypoints"] = np.arange(count * 6, dtype=np.float32).reshape(count, 2, 3)
    found.skeleton = Skeleton(["a", "b"])
    return found


def test_results_keep_their_keypoints():
    found = result()
    kept = found.keep([2, 0])
    np.testing.assert_array_equal(kept.keypoints, found["keypoints"][[2, 0]])
    for other in (found.copy(), copy.copy(found), pickle.loads(pickle.dumps(found))):
        np.testing.assert_array_equal(other.keypoints, found.keypoints)
        assert other.skeleton == found.skeleton
    del found["keypoints"]
    assert found.keypoints is None and COCO_PERSON.count == 17

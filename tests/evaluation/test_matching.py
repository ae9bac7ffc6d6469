"""Overlaps, matches, average precision and recall: by hand, and against the old package's own numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from mrcnn.evaluation.matching import compute_ap, compute_ap_range, compute_matches, compute_recall, trim_zeros
from mrcnn.evaluation.overlaps import compute_iou, compute_overlaps, compute_overlaps_masks
from tests import oracles


@pytest.fixture(scope="module")
def oracle():
    return oracles.load("matterport/utils.npz")


def stripes(*columns):
    """Masks [4, 10, N] that are True from one column to another."""
    masks = np.zeros((4, 10, len(columns)), bool)
    for i, (start, stop) in enumerate(columns):
        masks[:, start:stop, i] = True
    return masks


def boxes_of(*columns):
    return np.array([[0, start, 4, stop] for start, stop in columns], np.int32).reshape(-1, 4)


def instances(*rows):
    """boxes, class ids and masks from (start, stop, class id)."""
    columns = [row[:2] for row in rows]
    return boxes_of(*columns), np.array([row[2] for row in rows], np.int32), stripes(*columns)


def detections(*rows):
    """boxes, class ids, scores and masks from (start, stop, class id, score)."""
    boxes, class_ids, masks = instances(*(row[:3] for row in rows))
    return boxes, class_ids, np.array([row[3] for row in rows], np.float32), masks


def test_box_overlaps_by_hand():
    boxes1 = np.array([[0, 0, 4, 4], [0, 0, 0, 0], [0.5, 0.5, 1.5, 2.5]])
    boxes2 = np.array([[0, 2, 4, 6], [0, 0, 4, 4]])
    expected = [[8 / 24, 1], [0, 0], [0.5 / 17.5, 2 / 16]]
    np.testing.assert_allclose(compute_overlaps(boxes1, boxes2), expected, rtol=1e-6)
    np.testing.assert_allclose(compute_iou(boxes2[0], boxes1), [8 / 24, 0, 0.5 / 17.5], rtol=1e-6)
    np.testing.assert_allclose(compute_iou(boxes2[0], boxes1, 16, [16, 0, 2]), [8 / 24, 0, 0.5 / 17.5], rtol=1e-6)


def test_mask_overlaps_by_hand():
    masks1, masks2 = stripes((0, 4), (3, 3)), stripes((2, 6), (0, 4), (5, 5))
    np.testing.assert_allclose(compute_overlaps_masks(masks1, masks2), [[2 / 6, 1, 0], [0, 0, 0]], rtol=1e-6)
    soft = masks2 * 0.6 + 0.2  # probabilities: above a half is inside
    np.testing.assert_allclose(compute_overlaps_masks(masks1, soft), [[2 / 6, 1, 0], [0, 0, 0]], rtol=1e-6)


def test_mask_overlaps_of_a_tall_image():
    masks = np.zeros((1000, 3, 2), bool)
    masks[100:900, :, 0] = masks[500:1000, :, 1] = True
    np.testing.assert_allclose(compute_overlaps_masks(masks, masks), [[1, 4 / 9], [4 / 9, 1]], rtol=1e-6)


@pytest.mark.parametrize("count1, count2", [(0, 0), (0, 2), (2, 0)])
def test_overlaps_of_nothing(count1, count2):
    boxes = np.ones((2, 4))
    assert compute_overlaps(boxes[:count1], boxes[:count2]).shape == (count1, count2)
    masks = np.ones((3, 3, 2), bool)
    assert compute_overlaps_masks(masks[..., :count1], masks[..., :count2]).shape == (count1, count2)


def test_overlaps_of_wrong_shapes():
    with pytest.raises(ValueError, match=r"boxes2 must have shape \[count, .*got \(2, 3\)"):
        compute_overlaps(np.zeros((1, 4)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"masks1 must have shape .*got \(4, 4\)"):
        compute_overlaps_masks(np.zeros((4, 4)), np.zeros((4, 4, 1)))
    with pytest.raises(ValueError, match=r"masks1 \(4, 4\), masks2 \(5, 4\)"):
        compute_overlaps_masks(np.zeros((4, 4, 1)), np.zeros((5, 4, 1)))


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(bool, (5, 7, 3)), hnp.arrays(bool, (5, 7, 2)))
def test_mask_overlaps_are_counts_of_pixels(masks1, masks2):
    overlaps = compute_overlaps_masks(masks1, masks2)
    for i in range(3):
        for j in range(2):
            union = (masks1[..., i] | masks2[..., j]).sum()
            expected = (masks1[..., i] & masks2[..., j]).sum() / union if union else 0
            assert overlaps[i, j] == pytest.approx(expected, rel=1e-6)


def test_matches_by_hand():
    truth = instances((0, 4, 1), (5, 9, 2))
    found = detections((5, 9, 1, 0.9), (0, 4, 1, 0.4), (1, 4, 1, 0.8), (5, 10, 2, 0.7))
    gt_match, pred_match, overlaps = compute_matches(*truth, *found)
    # In falling order of score: the wrong class, three quarters of object 0, object 1, then object 0 whole but taken
    np.testing.assert_array_equal(pred_match, [-1, 0, 1, -1])
    np.testing.assert_array_equal(gt_match, [1, 2])
    np.testing.assert_allclose(overlaps, [[0, 1], [0.75, 0], [0, 0.8], [1, 0]], rtol=1e-6)
    assert compute_matches(*truth, *found, iou_threshold=0.79)[1].tolist() == [-1, -1, 1, 0]
    assert compute_matches(*truth, *found, score_threshold=0.79)[1].tolist() == [-1, -1, 1, 0]


def test_a_detection_takes_the_object_that_it_overlaps_most():
    truth = instances((0, 5, 1), (1, 6, 1))
    gt_match, pred_match, _ = compute_matches(*truth, *detections((1, 6, 1, 0.9), (1, 6, 1, 0.8)))
    assert (gt_match.tolist(), pred_match.tolist()) == ([1, 0], [1, 0])


def test_average_precision_by_hand():
    truth = instances((0, 4, 1), (5, 9, 2))
    found = detections((5, 9, 1, 0.9), (0, 4, 1, 0.8), (5, 9, 2, 0.7))
    ap, precisions, recalls, _ = compute_ap(*truth, *found)
    np.testing.assert_allclose(precisions, [2 / 3, 2 / 3, 2 / 3, 2 / 3, 0])  # 0/1, 1/2, 2/3 made never rising
    np.testing.assert_allclose(recalls, [0, 0, 0.5, 1, 1])
    assert ap == pytest.approx(2 / 3)


def test_ground_truth_fed_back():
    boxes, class_ids, masks = instances((0, 4, 1), (5, 9, 2), (2, 9, 1))
    assert compute_ap(boxes, class_ids, masks, boxes, class_ids, np.ones(3), masks)[0] == 1.0
    assert compute_ap_range(boxes, class_ids, masks, boxes, class_ids, np.ones(3), masks, verbose=0) == 1.0


def test_range_is_the_mean_over_thresholds(capsys):
    truth, found = instances((0, 10, 1)), detections((0, 8, 1, 0.9))  # IoU 0.8
    assert compute_ap_range(*truth, *found, iou_thresholds=[0.5, 0.7, 0.9]) == pytest.approx(2 / 3)
    assert capsys.readouterr().out.splitlines() == [
        "AP @0.50:\t 1.000", "AP @0.70:\t 1.000", "AP @0.90:\t 0.000", "AP @0.50-0.90:\t 0.667"]  # fmt: skip
    narrow = instances((0, 9, 1))  # IoU 0.78, enough for 0.50 to 0.75
    assert compute_ap_range(*narrow, *detections((0, 7, 1, 0.9)), verbose=0) == pytest.approx(0.6)
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match="iou_thresholds is empty"):
        compute_ap_range(*truth, *found, iou_thresholds=[])


def test_nothing_to_find_or_nothing_found():
    none, one = instances(), instances((0, 4, 1))
    no_detections = detections()
    for truth, found in ((none, no_detections), (one, no_detections)):
        ap, precisions, recalls, overlaps = compute_ap(*truth, *found)
        assert ap == 0.0 and precisions.tolist() == [0, 0] and recalls.tolist() == [0, 1]
        assert overlaps.shape == (0, len(truth[1]))


def test_detections_without_objects_are_nan_as_in_the_old_package():
    crowd = instances((0, 4, -1))
    found = detections((0, 4, 1, 0.9), (5, 9, 1, 0.8))
    for truth, counted in ((instances(), 2), (crowd, 1)):  # the first detection lies in the crowd and is not counted
        ap, precisions, recalls, overlaps = compute_ap(*truth, *found)
        assert np.isnan(ap) and np.isnan(recalls[1:-1]).all() and len(recalls) == counted + 2
        assert (precisions == 0).all() and overlaps.shape == (2, len(truth[1]))
        assert np.isnan(compute_ap_range(*truth, *found, verbose=0))


def test_padding_does_not_count():
    boxes, class_ids, masks = instances((0, 4, 1), (5, 9, 2))
    padded = (np.pad(boxes, ((0, 3), (0, 0))), np.pad(class_ids, (0, 3)), np.pad(masks, ((0, 0), (0, 0), (0, 3))))
    gt_match, pred_match, overlaps = compute_matches(*padded, *padded[:2], np.ones(5), padded[2])
    assert gt_match.shape == pred_match.shape == (2,) and overlaps.shape == (2, 2)
    assert trim_zeros(padded[0]).tolist() == boxes.tolist()
    with pytest.raises(ValueError, match=r"got shape \(5,\)"):
        trim_zeros(padded[1])


def test_counts_that_differ():
    truth, found = instances((0, 4, 1)), detections((0, 4, 1, 0.9))
    with pytest.raises(ValueError, match="1 pred_boxes, 1 pred_class_ids, 2 pred_scores, 1 pred_masks"):
        compute_ap(*truth, *found[:2], np.ones(2), found[3])
    with pytest.raises(ValueError, match="1 gt_boxes, 2 gt_class_ids, 1 gt_masks"):
        compute_ap(truth[0], [1, 1], truth[2], *found)


def test_recall_by_hand():
    objects = boxes_of((0, 4), (5, 9))
    recall, positive_ids = compute_recall(boxes_of((4, 5), (0, 4), (1, 4)), objects, iou=0.7)
    assert (recall, positive_ids.tolist()) == (0.5, [1, 2])
    assert compute_recall(boxes_of(), objects, 0.5)[0] == compute_recall(objects, boxes_of(), 0.5)[0] == 0.0


def test_overlaps_are_the_old_package_s(oracle):
    boxes1, boxes2 = oracle["boxes1"], oracle["boxes2"]
    np.testing.assert_allclose(compute_overlaps(boxes1, boxes2), oracle["compute_overlaps"], atol=1e-6)
    np.testing.assert_allclose(compute_iou(boxes2[0], boxes1), oracle["compute_iou_b2_0_vs_boxes1"], atol=1e-6)
    masks = compute_overlaps_masks(oracle["masks1"], oracle["masks2"])
    np.testing.assert_allclose(masks, oracle["compute_overlaps_masks"], atol=1e-6)


@pytest.mark.parametrize("iou", ["0.50", "0.75"])
def test_average_precision_is_the_old_package_s(oracle, iou):
    arrays = [oracle[f"ap_gt_{name}"] for name in ("boxes", "ids", "masks")]
    arrays += [oracle[f"ap_pred_{name}"] for name in ("boxes", "ids", "scores", "masks")]
    gt_match, pred_match, overlaps = compute_matches(*arrays, iou_threshold=float(iou))
    np.testing.assert_array_equal(gt_match, oracle[f"matches_gt_{iou}"])
    np.testing.assert_array_equal(pred_match, oracle[f"matches_pred_{iou}"])
    np.testing.assert_allclose(overlaps, oracle["ap_overlaps"], atol=1e-6)
    ap, precisions, recalls, _ = compute_ap(*arrays, iou_threshold=float(iou))
    np.testing.assert_allclose(precisions, oracle[f"precisions_{iou}"], atol=1e-7)
    np.testing.assert_allclose(recalls, oracle[f"recalls_{iou}"], atol=1e-7)
    assert ap == pytest.approx(float(oracle[f"ap_{iou}"]), abs=1e-7)
    assert compute_ap_range(*arrays, verbose=0) == pytest.approx(float(oracle["ap_range"]), abs=1e-7)


def test_recall_is_the_old_package_s(oracle):
    recall, positive_ids = compute_recall(oracle["ap_pred_boxes"], oracle["ap_gt_boxes"], 0.5)
    assert recall == float(oracle["recall_0.5"])
    np.testing.assert_array_equal(positive_ids, oracle["recall_positive_ids"])

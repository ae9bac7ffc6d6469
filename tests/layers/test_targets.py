"""Targets of anchors, RoIs and masks: by hand, against the old package, and at 0, 1 and the most instances."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrcnn.data.masks import crop_masks
from mrcnn.layers.keep_valid import KeepValid
from mrcnn.layers.targets import AnchorTargets, MaskTargets, RoITargets, match_anchors
from mrcnn.ops.boxes import decode, encode, iou
from tests import oracles

ONES = (1.0, 1.0, 1.0, 1.0)
OLD = (0.1, 0.1, 0.2, 0.2)
SEED = np.array([3], np.int32)


def boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


def padded(rows, size):
    rows = np.asarray(rows)
    return np.concatenate([rows, np.zeros((size - len(rows), *rows.shape[1:]), rows.dtype)])


def grid(side=64, step=8, size=16):
    """Square anchors at every `step` pixels."""
    centers = np.stack(np.meshgrid(*[np.arange(0, side, step)] * 2, indexing="ij"), -1).reshape(-1, 2)
    return np.concatenate([centers - size / 2, centers + size / 2], 1).astype(np.float32)


def match(anchors, gt_boxes, gt_class_ids):
    return [
        np.asarray(a)[0]
        for a in match_anchors(
            anchors, gt_boxes[None], np.array(gt_class_ids, np.int32)[None], positive_overlap=0.7, negative_overlap=0.3
        )
    ]


# Anchors


def test_anchors_by_hand():
    """IoU with the object: 1, 0.75, 0.5 and 0; one more has 0.7 exactly. Then padding, which is nobody."""
    anchors = boxes((0, 0, 10, 10), (0, 0, 7.5, 10), (0, 0, 5, 10), (50, 50, 60, 60), (0, 0, 10, 7))
    positive, negative, matched = match(anchors, padded(boxes((0, 0, 10, 10)), 3), [1, 0, 0])
    np.testing.assert_array_equal(positive, [True, True, False, False, True])
    np.testing.assert_array_equal(negative, [False, False, False, True, False])
    np.testing.assert_array_equal(matched, 0)


def test_an_object_that_no_anchor_fits_takes_the_nearest_one_even_below_the_negative_threshold():
    anchors = boxes((0, 0, 40, 40), (0, 0, 30, 30), (50, 50, 60, 60))
    positive, negative, _ = match(anchors, boxes((10, 10, 14, 14)), [1])
    np.testing.assert_array_equal(positive, [False, True, False])
    np.testing.assert_array_equal(negative, [True, False, True])


def test_ties_for_the_nearest_anchor_are_all_positive():
    anchors = boxes((0, 0, 8, 8), (0, 4, 8, 12), (30, 30, 40, 40))
    positive, _, _ = match(anchors, boxes((0, 2, 8, 10)), [1])
    np.testing.assert_array_equal(positive, [True, True, False])


def test_an_object_beyond_all_anchors_makes_none_positive():
    positive, negative, _ = match(boxes((0, 0, 8, 8), (8, 8, 16, 16)), boxes((50, 50, 60, 60)), [1])
    assert not positive.any()
    assert negative.all()


def test_the_object_of_highest_overlap_is_matched_and_a_crowd_never():
    anchors = boxes((0, 0, 10, 10))
    truth = boxes((0, 0, 10, 10), (0, 0, 10, 8), (0, 0, 10, 9))
    _, _, matched = match(anchors, truth, [-1, 2, 3])
    np.testing.assert_array_equal(matched, [2])


def test_an_anchor_that_touches_a_crowd_teaches_nothing():
    anchors = boxes((0, 0, 10, 10), (20, 20, 30, 30), (5, 5, 25, 25))
    positive, negative, _ = match(anchors, boxes((0, 0, 12, 12)), [-3])
    assert not positive.any()
    np.testing.assert_array_equal(negative, [False, True, False])


def test_no_instances_makes_every_anchor_background():
    positive, negative, _ = match(grid(), np.zeros((5, 4), np.float32), [0] * 5)
    assert not positive.any()
    assert negative.all()


@pytest.mark.parametrize("case", ["", "crowd_"])
def test_anchors_equal_the_old_package(case):
    """Its -1 is background and its 0 not used. Anchors that tie for an object's best one (equal in exact numbers, as
    the many that contain a small object) are told apart by rounding there, in float64, and here, in float32."""
    values = oracles.load("matterport/utils.npz")
    anchors = values["pyramid_anchors_256x256"].astype(np.float32)
    truth, ids = values["rt_gt_boxes"].astype(np.float32), values[f"rt_gt_ids{'_crowd' if case else ''}"]
    theirs = values[f"rpn_match_{case}nosub"]
    positive, negative, matched = match(anchors, truth, ids)

    overlaps = np.asarray(iou(anchors, truth))[:, ids > 0]
    ties = (np.abs(overlaps - overlaps.max(axis=0)) < 1e-6).any(axis=1) & (overlaps.max(axis=1) < 0.7)
    assert (positive == (theirs == 1))[~ties].all()
    assert (negative == (theirs == -1))[~ties].all()
    assert (theirs[~ties] == 1).sum() == 5, "the comparison is not empty"
    for column in overlaps.T:
        assert positive[column > column.max() - 1e-6].any(), "every object has its anchor"

    learnt = np.flatnonzero(theirs == 1)
    np.testing.assert_allclose(
        encode(truth[matched[learnt]], anchors[learnt], OLD), values[f"rpn_bbox_{case}nosub"], atol=1e-5
    )


def anchor_targets(anchors, gt_boxes, gt_class_ids, seed=SEED, count=16, ratio=0.5, std_dev=ONES, window=None):
    everywhere = (-1e6, -1e6, 1e6, 1e6)
    windows = np.tile(np.float32(window or everywhere), (len(gt_boxes), 1))
    layer = AnchorTargets(
        count=count, positive_ratio=ratio, positive_overlap=0.7, negative_overlap=0.3, std_dev=std_dev
    )
    return [np.asarray(a) for a in layer(anchors, gt_boxes, np.asarray(gt_class_ids, np.int32), windows, seed)]


def test_sampled_anchors_carry_their_labels_and_the_way_to_their_object():
    anchors, truth = grid(), boxes((8, 8, 24, 24), (33, 30, 52, 47))
    indices, labels, deltas = (
        a[0] for a in anchor_targets(anchors, padded(truth, 4)[None], [[1, 2, 0, 0]], std_dev=OLD)
    )
    positive, negative, matched = match(anchors, truth, [1, 2])
    assert (labels == 1).sum() == min(positive.sum(), 8)
    assert (labels == 0).sum() == 16 - (labels == 1).sum()
    assert positive[indices[labels == 1]].all() and negative[indices[labels == 0]].all()
    found = decode(deltas[labels == 1], anchors[indices[labels == 1]], OLD)
    np.testing.assert_allclose(found, truth[matched[indices[labels == 1]]], atol=1e-3)
    assert not deltas[labels != 1].any()


def test_at_most_the_ratio_is_positive():
    anchors = boxes((0, 0, 100, 100)) + np.arange(30)[:, None] / 4  # equal anchors would be drawn together
    anchors = np.concatenate([anchors, anchors + 400])
    _, labels, _ = anchor_targets(anchors, boxes((0, 0, 100, 100))[None], [[1]], count=20, ratio=0.25)
    assert ((labels == 1).sum(), (labels == 0).sum()) == (5, 15)


def test_fewer_anchors_than_the_sample_leave_the_rest_unsampled():
    anchors = boxes((0, 0, 10, 10), (40, 40, 50, 50))
    indices, labels, deltas = anchor_targets(anchors, anchors[None, :1], [[1]], count=6)
    np.testing.assert_array_equal(labels, [[1, 0, -1, -1, -1, -1]])
    np.testing.assert_array_equal(indices[0, :2], [0, 1])
    assert np.isfinite(deltas).all()


@pytest.mark.parametrize("ids", [[0] * 3, [-1, 0, 0], [-2, -1, -1], [1, 0, 0], [1, 2, 3]])
def test_targets_of_no_one_and_the_maximum_of_instances_and_of_crowds_are_finite(ids):
    truth = boxes((8, 8, 24, 24), (32, 32, 48, 48), (0, 40, 16, 56)) * (np.array(ids) != 0)[:, None]
    _, labels, deltas = anchor_targets(grid(), truth[None], [ids])
    assert np.isfinite(deltas).all()
    assert (labels == 1).sum() == (np.array(ids) > 0).sum(), "each object fits one anchor of the grid"
    assert (labels == 0).sum() == 16 - (labels == 1).sum()


def test_images_of_a_batch_do_not_see_each_other():
    truth = np.stack([padded(boxes((8, 8, 24, 24)), 2), padded(boxes(), 2), boxes((0, 0, 16, 16), (32, 32, 48, 48))])
    ids, seeds = [[1, 0], [0, 0], [2, 1]], np.array([7, 8, 9], np.int32)
    together = anchor_targets(grid(), truth, ids, seeds)
    for image in range(3):
        alone = anchor_targets(grid(), truth[image : image + 1], ids[image : image + 1], seeds[image : image + 1])
        for a, b in zip(together, alone, strict=True):
            np.testing.assert_array_equal(a[image], b[0])


def test_padding_is_no_background():
    anchors = boxes((0, 0, 8, 8), (0, 8, 8, 16), (0, 12, 8, 20), (0, 16, 8, 24))
    indices, labels, _ = anchor_targets(anchors, np.zeros((1, 2, 4), np.float32), [[0, 0]], window=(0, 0, 8, 16))
    assert sorted(indices[labels == 0]) == [0, 1]  # the third is centered on x = 16, where the padding begins


def test_anchors_in_the_padding_are_neither_object_nor_background():
    """However much padding there is, an object that lies at the border has the best anchor of those in the image."""
    layer = AnchorTargets(count=64, positive_ratio=0.5, positive_overlap=0.7, negative_overlap=0.3, std_dev=ONES)
    windows = np.array([[0, 0, 40, 24], [0, 0, 0, 0]], np.float32)
    truth = np.repeat(boxes((8, 22, 24, 38))[None], 2, axis=0)
    indices, labels, _ = (np.asarray(a) for a in layer(grid(), truth, np.array([[1], [1]]), windows, np.array([1, 2])))
    centers = (grid()[:, :2] + grid()[:, 2:]) / 2
    drawn = centers[indices[0][labels[0] >= 0]]
    assert (drawn < [40, 24]).all()
    np.testing.assert_array_equal(grid()[indices[0][labels[0] == 1]], [[8, 8, 24, 24]])  # another one fits better
    assert not (labels[1] >= 0).any()


def test_the_sample_does_not_depend_on_anchors_in_the_padding():
    truth, window = boxes((8, 8, 24, 24)), (0, 0, 40, 40)
    near = grid()[(grid() < 60).all(axis=1)]
    assert len(near) < len(grid())
    found = []
    for anchors in (near, grid()):
        indices, labels, deltas = anchor_targets(anchors, truth[None], [[1]], count=12, window=window)
        found.append((anchors[indices[0]], labels[0], deltas[0]))
    for first, second in zip(*found, strict=True):
        np.testing.assert_array_equal(first, second)


def test_the_sample_is_a_function_of_the_seed():
    truth, ids = boxes((8, 8, 24, 24))[None], [[1]]
    first, again, other = (anchor_targets(grid(), truth, ids, np.array([s], np.int32))[0] for s in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert set(first[0]) != set(other[0])


# RoIs


def roi_targets(rois, valid, gt_boxes, gt_class_ids, seed=SEED, count=8, ratio=0.25, add=False, std_dev=ONES):
    layer = RoITargets(count=count, positive_ratio=ratio, positive_overlap=0.5, add_ground_truth=add, std_dev=std_dev)
    rois, valid, gt_boxes = (np.asarray(a)[None] for a in (rois, valid, gt_boxes))
    return [
        np.asarray(a)[0]
        for a in layer(
            rois.astype(np.float32), valid, gt_boxes.astype(np.float32), np.asarray(gt_class_ids, np.int32)[None], seed
        )
    ]


def test_rois_by_hand():
    """Two objects; RoIs on each, one with IoU 0.5 exactly, one below, one on nothing, one of padding."""
    truth = padded(boxes((0, 0, 10, 10), (20, 20, 40, 30)), 4)
    proposals = boxes((0, 0, 10, 5), (0, 0, 10, 4), (20, 20, 40, 30), (50, 50, 60, 60), (0, 0, 0, 0))
    rois, class_ids, deltas, sampled, instance = roi_targets(
        proposals, [True] * 4 + [False], truth, [7, 3, 0, 0], ratio=0.5
    )
    np.testing.assert_array_equal(sampled, [True] * 4 + [False] * 4)
    by_roi = {
        tuple(roi): (c, d.tolist(), i)
        for roi, c, d, i in zip(rois[:2].tolist(), class_ids, deltas, instance, strict=False)
    }
    assert by_roi.keys() == {(0, 0, 10, 5), (20, 20, 40, 30)}
    class_id, delta, of = by_roi[0, 0, 10, 5]
    assert (class_id, of) == (7, 0)
    np.testing.assert_allclose(delta, [0, 0.5, 0, np.log(2)], atol=1e-6)
    assert by_roi[20, 20, 40, 30] == (3, [0, 0, 0, 0], 1)
    assert {tuple(roi) for roi in rois[2:4].tolist()} == {(0, 0, 10, 4), (50, 50, 60, 60)}
    np.testing.assert_array_equal(class_ids[2:], 0)
    np.testing.assert_array_equal(rois[4:], 0)
    assert not deltas[2:].any()


def test_ground_truth_joins_the_proposals_but_crowds_and_padding_do_not():
    truth = padded(boxes((0, 0, 10, 10), (20, 20, 40, 30), (50, 5, 60, 15)), 5)
    rois, class_ids, deltas, sampled, _ = roi_targets(
        np.zeros((3, 4)), [False] * 3, truth, [2, -1, 1, 0, 0], add=True, ratio=1.0
    )
    assert sampled.sum() == 2
    assert {(c, *roi) for c, roi in zip(class_ids[:2], rois[:2].tolist(), strict=True)} == {
        (2, 0, 0, 10, 10),
        (1, 50, 5, 60, 15),
    }
    np.testing.assert_allclose(deltas, 0, atol=1e-6)


def test_a_crowd_on_top_of_an_object_is_no_roi_of_it():
    truth = boxes((0, 0, 20, 20), (0, 0, 20, 16))
    rois, _, _, sampled, _ = roi_targets(np.zeros((1, 4)), [False], truth, [1, -1], add=True, ratio=1.0)
    assert sampled.sum() == 1
    np.testing.assert_array_equal(rois[0], truth[0])


def test_a_roi_that_touches_a_crowd_is_no_negative_and_none_is_learnt_as_the_crowd():
    truth = boxes((0, 0, 20, 20), (40, 40, 60, 60))
    proposals = boxes((0, 0, 20, 20), (15, 15, 35, 35), (40, 40, 60, 60), (70, 70, 80, 80))
    rois, class_ids, _, sampled, _ = roi_targets(proposals, [True] * 4, truth, [-2, 4], ratio=0.5)
    assert sampled.sum() == 2
    np.testing.assert_array_equal(class_ids[:2], [4, 0])
    np.testing.assert_array_equal(rois[:2], proposals[2:])


@pytest.mark.parametrize("add", [True, False])
@pytest.mark.parametrize("ids", [[0, 0, 0], [1, 0, 0], [1, 2, 3], [-1, -1, -1]])
def test_no_one_and_the_maximum_of_instances(ids, add):
    ids = np.array(ids)
    truth = boxes((8, 8, 24, 24), (32, 32, 48, 48), (0, 40, 16, 56)) * (ids != 0)[:, None]
    proposals = np.concatenate([grid(step=16), boxes((7, 8, 24, 24), (33, 32, 48, 48), (1, 40, 16, 56))])
    rois, class_ids, deltas, sampled, _ = roi_targets(
        proposals, np.ones(len(proposals), bool), truth, ids, count=12, ratio=0.75, add=add
    )
    assert set(class_ids) - {0} == set(ids[ids > 0])
    assert np.isfinite(deltas).all() and np.isfinite(rois).all()
    assert sampled.sum() == 12 if ids[0] >= 0 else 0 < sampled.sum() < 12, "crowds leave fewer negatives"
    assert (class_ids > 0).sum() <= 9
    if not (ids > 0).any():
        assert not deltas.any()


def test_nothing_proposed_and_nothing_there():
    rois, class_ids, deltas, sampled, instance = roi_targets(
        np.zeros((4, 4)), [False] * 4, np.zeros((3, 4)), [0] * 3, add=True
    )
    assert not sampled.any()
    for values in (rois, class_ids, deltas, instance):
        np.testing.assert_array_equal(values, np.zeros_like(values))


@pytest.mark.parametrize("case", ["full", "mini", "crowd_full", "crowd_mini"])
def test_rois_equal_the_old_package(case):
    """IoU and deltas do not depend on the unit, so its normalized boxes (whose corners name the last pixel) go in as
    they are, times 255. With ratio 0.33 of 64 it takes all RoIs it was given, in another order."""
    values = oracles.load("matterport/utils.npz")
    proposals, truth, ids, theirs, their_ids, their_deltas = (
        values[f"dt_{case}_{name}"] for name in ("proposals", "gt_boxes", "gt_ids", "rois", "class_ids", "deltas")
    )
    rois, class_ids, deltas, sampled, _ = roi_targets(
        255 * proposals, proposals.any(axis=1), 255 * truth, ids, count=64, ratio=0.33, std_dev=OLD
    )
    count = (their_ids > 0).sum()
    assert (class_ids > 0).sum() == count >= 15
    assert sampled.sum() == theirs.any(axis=1).sum()
    distance = np.abs(rois[:, None] - 255 * theirs[None]).max(axis=-1)
    place = distance[:, :count].argmin(axis=0)
    assert distance[place, np.arange(count)].max() < 1e-3
    np.testing.assert_array_equal(class_ids[place], their_ids[:count])
    np.testing.assert_allclose(deltas[place], their_deltas[:count], atol=2e-4)
    negatives = theirs[count:][theirs[count:].any(axis=1)]
    assert np.abs(255 * negatives[:, None] - rois[class_ids == 0]).max(axis=-1).min(axis=1).max() < 1e-3


def test_the_draw_is_a_function_of_the_seed_and_no_image_sees_another():
    truth = padded(boxes((8, 8, 24, 24)), 2)
    proposals = np.concatenate([grid(), boxes((7, 8, 24, 24))])
    valid = np.ones(len(proposals), bool)
    first, again, other = (roi_targets(proposals, valid, truth, [1, 0], np.array([s], np.int32))[0] for s in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    layer = RoITargets(count=8, positive_ratio=0.25, positive_overlap=0.5, add_ground_truth=False, std_dev=ONES)
    batch = layer(
        np.stack([np.zeros_like(proposals), proposals]),
        np.stack([~valid, valid]),
        np.stack([np.zeros_like(truth), truth]),
        np.array([[0, 0], [1, 0]], np.int32),
        np.array([1, 5], np.int32),
    )
    np.testing.assert_array_equal(np.asarray(batch[0])[1], first)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_whatever_is_proposed(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    count, limit = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 5))
    ids = np.array(data.draw(st.lists(st.integers(-2, 3), min_size=limit, max_size=limit)), np.int32)
    ids = ids[np.argsort(ids == 0, kind="stable")]  # padding stands last
    corners = rng.uniform(0, 60, (limit, 2))
    truth = np.concatenate([corners, corners + rng.uniform(2, 30, (limit, 2))], 1) * (ids != 0)[:, None]
    near = truth[rng.integers(limit, size=10)] + rng.normal(0, 2, (10, 4))
    far = rng.uniform(0, 60, (10, 2))
    proposals = np.concatenate([near, np.concatenate([far, far + 8], 1)]).astype(np.float32)
    valid = rng.random(20) < 0.8
    rois, class_ids, deltas, sampled, instance = roi_targets(
        proposals, valid, truth, ids, np.array([rng.integers(2**31)], np.int32), count=count, ratio=0.5, add=True
    )
    positive = class_ids > 0
    overlaps = np.asarray(iou(rois, truth.astype(np.float32)))
    assert positive.sum() <= int(0.5 * count)
    assert (np.diff(sampled.astype(int)) <= 0).all() and (np.diff(positive.astype(int)) <= 0).all()
    assert (class_ids[positive] == ids[instance[positive]]).all()
    assert (overlaps[positive, instance[positive]] >= 0.5 - 1e-6).all()
    negative = sampled & ~positive
    assert (overlaps[negative][:, ids > 0] < 0.5 + 1e-6).all()
    assert (overlaps[negative][:, ids < 0] < 0.001 + 1e-6).all()
    assert np.isfinite(deltas).all() and not deltas[~positive].any()
    np.testing.assert_allclose(decode(deltas[positive], rois[positive], ONES), truth[instance[positive]], atol=1e-2)


# Masks


def mask_targets(rois, image_index, instance, gt_boxes, gt_masks, size=4):
    return np.asarray(
        MaskTargets(mask_size=size)(
            np.asarray(rois, np.float32),
            np.asarray(image_index, np.int32),
            np.asarray(instance, np.int32),
            np.asarray(gt_boxes, np.float32),
            np.asarray(gt_masks, np.uint8),
        )
    )


def left_half(side=8):
    mask = np.zeros((side, side), np.uint8)
    mask[:, : side // 2] = 255
    return mask


def test_mask_targets_by_hand():
    """An object that fills the left half of its box, seen by RoIs on it, in its left half, in its right half, around
    it, and half beside it."""
    truth = boxes((10, 10, 26, 26))[None]
    rois = boxes((10, 10, 26, 26), (12, 10, 20, 17), (12, 19, 20, 26), (2, 2, 34, 34), (10, 2, 26, 18))
    targets = mask_targets(rois, [0] * 5, [0] * 5, truth, left_half()[None, None])
    assert targets.dtype == np.float32
    np.testing.assert_array_equal(targets[0], [[1, 1, 0, 0]] * 4)
    np.testing.assert_array_equal(targets[1], 1)
    np.testing.assert_array_equal(targets[2], 0)
    np.testing.assert_array_equal(targets[3], [[0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(targets[4], [[0, 0, 1, 1]] * 4)


def test_a_cell_is_object_from_half_covered_on():
    truth, roi = boxes((0, 0, 8, 8))[None], boxes((0, 0, 8, 8))
    for grey, expected in ((127, 0), (128, 1)):
        np.testing.assert_array_equal(mask_targets(roi, [0], [0], truth, np.full((1, 1, 8, 8), grey)), expected)


def test_each_roi_sees_the_instance_of_its_own_image():
    masks = np.zeros((2, 3, 8, 8), np.uint8)
    masks[1, 2] = 255
    masks[0, 1] = left_half()
    truth = np.zeros((2, 3, 4), np.float32)
    truth[1, 2], truth[0, 1] = (0, 0, 16, 16), (4, 4, 20, 20)
    targets = mask_targets(boxes((0, 0, 16, 16), (4, 4, 20, 20)), [1, 0], [2, 1], truth, masks)
    np.testing.assert_array_equal(targets[0], 1)
    np.testing.assert_array_equal(targets[1], [[1, 1, 0, 0]] * 4)


def test_an_object_ends_where_its_box_ends():
    """A mask of few cells that fills its box: a RoI twice as wide sees it in its middle half, exactly."""
    for cells in (5, 28):
        targets = mask_targets(
            boxes((10, 2, 26, 34)), [0], [0], boxes((10, 10, 26, 26))[None], np.full((1, 1, cells, cells), 255), size=8
        )
        np.testing.assert_array_equal(targets[0], [[0, 0, 1, 1, 1, 1, 0, 0]] * 8)


def test_rows_of_padding_give_a_finite_empty_mask():
    targets = mask_targets(np.zeros((1, 4)), [0], [0], np.zeros((1, 2, 4)), np.zeros((1, 2, 8, 8)))
    np.testing.assert_array_equal(targets, 0)


@pytest.mark.parametrize("case", ["full", "mini", "crowd_full", "crowd_mini"])
def test_mask_targets_are_nearly_those_of_the_old_package(case):
    """Nearly, because its `crop_and_resize` samples a mask's pixels from corner to corner, one sample a cell, where
    here cells are averaged about their centers: the outline moves by up to half a cell."""
    values = oracles.load("matterport/utils.npz")
    pixel_end = np.array([0, 0, 1, 1])
    truth, rois, ids, masks, expected = (
        values[f"dt_{case}_{name}"] for name in ("gt_boxes", "rois", "class_ids", "gt_masks", "masks")
    )
    truth, rois = truth * 255 + pixel_end, rois * 255 + pixel_end
    if case.endswith("full"):
        masks = crop_masks(masks[:, :, :4], truth[:4], (112, 112))
    else:
        masks = np.moveaxis(masks, -1, 0)[:4] * np.uint8(255)
    positive = ids > 0
    targets = mask_targets(
        rois[positive], np.zeros(positive.sum()), ids[positive] - 1, truth[None, :4], masks[None], size=28
    )
    expected = expected[positive].astype(bool)
    agree = (targets.astype(bool) == expected).mean(axis=(1, 2))
    assert agree.min() > 0.9
    assert agree.mean() > 0.95
    shared = (targets.astype(bool) & expected).sum() / (targets.astype(bool) | expected).sum()
    assert shared > 0.93


def test_no_gradient_flows_into_targets():
    import tensorflow as tf

    rois = tf.Variable(boxes((0, 0, 10, 9), (40, 40, 50, 50)))
    layer = RoITargets(count=4, positive_ratio=0.5, positive_overlap=0.5, add_ground_truth=False, std_dev=ONES)
    with tf.GradientTape() as tape:
        sampled, _, deltas, _, _ = layer(
            rois[None], tf.ones((1, 2), tf.bool), boxes((0, 0, 10, 10))[None], np.array([[1]], np.int32), SEED
        )
        total = tf.reduce_sum(sampled) + tf.reduce_sum(deltas)
    assert float(total) != 0
    assert tape.gradient(total, rois) is None


@pytest.mark.parametrize(
    "layer",
    [
        KeepValid(),
        AnchorTargets(count=16, positive_ratio=0.5, positive_overlap=0.7, negative_overlap=0.3, std_dev=OLD),
        RoITargets(count=8, positive_ratio=0.25, positive_overlap=0.5, add_ground_truth=True, std_dev=OLD),
        MaskTargets(mask_size=28),
    ],
)
def test_layers_are_rebuilt_from_their_configuration(layer):
    assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()

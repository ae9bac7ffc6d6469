"""Ground truth of RoIs in the forms that heads learn from: by hand, and the same from crops and from whole masks."""

import numpy as np
import pytest

import heads


def targets(boxes, masks, gt_boxes, whole=False, image_index=None, instance=None):
    count = len(boxes)
    return heads.Targets(
        class_ids=np.ones(count, np.int32),
        weight=np.ones(count, np.float32),
        boxes=np.array(boxes, np.float32),
        image_index=np.array(image_index or [0] * count, np.int32),
        instance=np.array(instance or [0] * count, np.int32),
        gt_boxes=np.array(gt_boxes, np.float32),
        gt_masks=masks,
        whole=whole,
    )


def crop_of(part):
    """One object of one image whose crop is `part`."""
    return (np.array(part, np.uint8) * 255)[None, None]


def whole_of(mask):
    return np.packbits(np.array(mask, bool), axis=-1)[None, None]


LEFT = np.tile([1, 1, 0, 0], (4, 1))  # the left half of a 4x4 crop


def test_at_by_hand():
    """The object is the left half of the box (0, 0, 8, 8); a RoI of its right two thirds sees a quarter of it."""
    both = targets([[0, 0, 8, 8], [0, 2, 8, 8]], crop_of(LEFT), [[[0, 0, 8, 8]]])
    np.testing.assert_array_equal(both.at(4)[0], LEFT)
    np.testing.assert_array_equal(both.at(6)[1], np.tile([1, 1, 0, 0, 0, 0], (6, 1)))


def test_at_equals_the_layer_that_plain_heads_use():
    from mrcnn.layers.targets import MaskTargets

    rng = np.random.default_rng(0)
    gt = np.concatenate([rng.uniform(0, 30, (2, 3, 2)), rng.uniform(40, 60, (2, 3, 2))], -1).astype("float32")
    masks = (rng.random((2, 3, 14, 14)) > 0.4).astype(np.uint8) * 255
    rois = (gt[[0, 1, 1], [0, 2, 1]] + rng.uniform(-6, 6, (3, 4))).astype("float32")
    image, instance = np.array([0, 1, 1], np.int32), np.array([0, 2, 1], np.int32)
    ours = targets(rois, masks, gt, image_index=image.tolist(), instance=instance.tolist()).at(28)
    theirs = MaskTargets(mask_size=28)(rois, image, instance, gt, masks)
    assert (np.array(ours) == np.array(theirs)).mean() > 0.999, "but for roundings at exactly a half"


def test_at_points_is_linear_between_the_centers_of_cells():
    one = targets([[0, 0, 8, 8]], crop_of(LEFT), [[[0, 0, 8, 8]]])
    points = np.array([[[0.5, 0.1], [0.5, 0.375], [0.5, 0.5], [0.5, 0.625], [0.5, 0.9]]], np.float32)
    np.testing.assert_allclose(one.at_points(points)[0], [0.9, 1, 0.5, 0, 0], atol=1e-6)


def test_boundary_by_hand():
    """Cells of the object that touch one that is not, across the RoI's edge too."""
    square = np.zeros((8, 8), int)
    square[2:7, 0:6] = 1
    one = targets([[0, 0, 8, 8]], crop_of(square), [[[0, 0, 8, 8]]])
    edge = square.copy()
    edge[3:6, 1:5] = 0
    np.testing.assert_array_equal(one.boundary(8)[0], edge)


@pytest.mark.parametrize("whole", [False, True])
def test_area_ratio_by_hand(whole):
    """The left half of the box (8, 8, 24, 24): RoIs with all, half and none of it, and one twice as large."""
    mask = np.zeros((32, 32), int)
    mask[8:24, 8:16] = 1
    masks = whole_of(mask) if whole else crop_of(np.tile([1] * 8 + [0] * 8, (16, 1)))
    rois = [[8, 8, 24, 24], [8, 8, 16, 24], [8, 20, 24, 30], [0, 0, 32, 32]]
    found = targets(rois, masks, [[[8, 8, 24, 24]]], whole).area_ratio()
    np.testing.assert_allclose(found, [1, 0.5, 0, 1], atol=0.05)


def test_whole_masks_are_read_pixel_by_pixel():
    """From crops of 4x4 cells a thin diagonal is lost; from whole masks it is not."""
    mask = np.eye(32, dtype=int)
    one = targets([[0, 0, 32, 32]], whole_of(mask), [[[0, 0, 32, 32]]], whole=True)
    np.testing.assert_array_equal(one.at(32)[0], mask)
    points = np.array([[[0.5 / 32, 0.5 / 32], [3.5 / 32, 4.5 / 32], [3.5 / 32, 3.5 / 32]]], np.float32)
    np.testing.assert_allclose(one.at_points(points)[0], [1, 0, 1], atol=1e-6)


def test_a_roi_reads_the_mask_of_its_own_image_and_object():
    masks = np.zeros((2, 2, 4, 4), np.uint8)
    masks[1, 0] = 255
    gt = np.tile(np.array([0, 0, 8, 8], np.float32), (2, 2, 1))
    found = targets([[0, 0, 8, 8]] * 3, masks, gt, image_index=[0, 1, 1], instance=[0, 0, 1]).at(2)
    assert np.array(found).mean(axis=(1, 2)).tolist() == [0, 1, 0]


def test_padding_adds_nothing_to_a_sum_whatever_it_is():
    one = targets([[0, 0, 8, 8]] * 3, crop_of(LEFT), [[[0, 0, 8, 8]]])
    one.weight = np.array([1, 1, 0], np.float32)
    total, count = one.total(np.array([1.0, 2.0, np.nan], np.float32))
    assert (float(total), float(count)) == (3, 2)


def test_uniform_numbers_repeat_and_are_uniform():
    numbers = np.array(heads.uniform(np.arange(200), (50, 2)))
    assert numbers.shape == (200, 50, 2) and 0 <= numbers.min() and numbers.max() < 1
    np.testing.assert_array_equal(numbers[7], heads.uniform(np.array([7]), (50, 2))[0])
    assert abs(numbers.mean() - 0.5) < 0.01 and np.histogram(numbers, 10, (0, 1))[0].min() > 1700
    assert abs(np.corrcoef(numbers[..., 0].ravel(), numbers[..., 1].ravel())[0, 1]) < 0.05
    assert not np.array_equal(numbers, heads.uniform(np.arange(200), (50, 2), salt=1))

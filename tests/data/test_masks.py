import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrcnn.data import masks
from mrcnn.data.masks import crop_masks, expand_mask, extract_bboxes, minimize_mask, unmold_mask


def rectangle(height, width, y1, x1, y2, x2):
    mask = np.zeros([height, width, 1], bool)
    mask[y1:y2, x1:x2] = True
    return mask


def area_overlap(start, end, size):
    """The fraction of each pixel [x, x + 1) inside [start, end)."""
    pixels = np.arange(size)
    return np.clip(np.minimum(pixels + 1, end) - np.maximum(pixels, start), 0, 1)


def test_extract_bboxes_by_hand():
    masks = np.concatenate([rectangle(8, 9, 2, 3, 5, 9), rectangle(8, 9, 0, 0, 0, 0), rectangle(8, 9, 7, 8, 8, 9)], 2)
    np.testing.assert_array_equal(extract_bboxes(masks), [[2, 3, 5, 9], [0, 0, 0, 0], [7, 8, 8, 9]])
    assert extract_bboxes(masks[:, :, :0]).shape == (0, 4)
    with pytest.raises(ValueError, match=r"\[H, W, N\], got \(8, 9\)"):
        extract_bboxes(masks[:, :, 0])


def test_old_package_values(matterport):
    masks = matterport["masks1"]
    with_empty = np.concatenate([masks, np.zeros_like(masks[..., :1])], axis=2)
    np.testing.assert_array_equal(extract_bboxes(with_empty), matterport["extract_bboxes_masks1_plus_empty"])
    boxes = extract_bboxes(masks)
    mini = minimize_mask(boxes, masks, (56, 56))
    np.testing.assert_array_equal(mini, matterport["minimize_mask_56"])
    np.testing.assert_array_equal(expand_mask(boxes, mini, masks.shape), matterport["expand_mask"])
    pasted = [
        unmold_mask(mask, box, (60, 80, 3))
        for mask, box in zip(matterport["unmold_in"], matterport["unmold_boxes"], strict=True)
    ]
    np.testing.assert_array_equal(np.stack(pasted, axis=2), matterport["unmold_mask"])


def test_minimize_mask_refuses_boxes_without_area():
    with pytest.raises(ValueError, match=r"mask 0 has box \(0, 0, 0, 0\), which has no area"):
        minimize_mask(np.zeros([1, 4]), rectangle(4, 4, 0, 0, 0, 0), (2, 2))


def test_crop_masks_of_a_whole_box_is_the_mask():
    mask = rectangle(10, 10, 3, 3, 7, 7)
    mask[4, 4] = False
    crop = crop_masks(mask, np.array([[3, 3, 7, 7]]), (4, 4))
    assert crop.dtype == np.uint8
    np.testing.assert_array_equal(crop[0], 255 * mask[3:7, 3:7, 0])


def test_crop_masks_averages_when_it_shrinks():
    mask = np.zeros([4, 4, 1], bool)
    mask[0, 0] = mask[0, 1] = mask[3, 3] = True
    np.testing.assert_array_equal(crop_masks(mask, np.array([[0, 0, 4, 4]]), (2, 2))[0], [[128, 0], [0, 64]])
    # a box from 0.5 to 2.5 holds half of pixel 0, all of pixel 1 and half of pixel 2
    column = np.array([True, False, False, True])[None, :, None]
    np.testing.assert_array_equal(crop_masks(column, np.array([[0, 0.5, 1, 2.5]]), (1, 1))[0], [[64]])


def test_crop_masks_interpolates_when_it_grows():
    mask = np.array([False, True])[None, :, None]
    # mini-pixel centers are at 0.25, 0.75, 1.25, 1.75; pixel centers at 0.5 and 1.5
    np.testing.assert_array_equal(crop_masks(mask, np.array([[0, 0, 1, 2]]), (1, 4))[0], [[0, 64, 191, 255]])


def test_crop_masks_without_instances_and_without_area():
    assert crop_masks(np.zeros([5, 5, 0], bool), np.zeros([0, 4]), (3, 3)).shape == (0, 3, 3)
    assert not crop_masks(rectangle(5, 5, 0, 0, 5, 5), np.array([[2, 2, 2, 4]]), (3, 3)).any()
    with pytest.raises(ValueError, match=r"expected boxes of shape \(1, 4\) for 1 masks, got \(2, 4\)"):
        crop_masks(rectangle(5, 5, 0, 0, 5, 5), np.zeros([2, 4]), (3, 3))


def test_crop_masks_takes_any_memory_layout():
    masks = np.random.default_rng(0).random((20, 30, 4)) < 0.5
    boxes = np.array([[1.5, 2, 19, 28.3]] * 4)
    expected = crop_masks(masks, boxes, (6, 6))
    np.testing.assert_array_equal(crop_masks(np.asfortranarray(masks), boxes, (6, 6)), expected)
    flipped = crop_masks(masks[:, ::-1], np.array([[1.5, 30 - 28.3, 19, 28]] * 4), (6, 6))
    np.testing.assert_allclose(flipped[:, :, ::-1].astype(int), expected.astype(int), atol=1)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9))
def test_crop_masks_keeps_the_area_of_what_is_in_the_box(seed, m):
    rng = np.random.default_rng(seed)
    mask = rng.random((16, 16, 1)) < 0.5
    start = rng.uniform(0, 6, 2)
    end = start + rng.uniform(m, 10, 2)  # at least one pixel per mini-pixel, so that it averages
    expected = area_overlap(start[0], end[0], 16) @ mask[:, :, 0] @ area_overlap(start[1], end[1], 16)
    crop = crop_masks(mask, np.array([[*start, *end]]), (m, m))[0]
    share = expected / np.prod(end - start)
    assert abs(crop.mean() / 255 - share) < 0.5 / 255 + 1e-9


def window_weights(start, end, count, size, last=0):
    """[count, size]: weight of each pixel in each mini-pixel (or the last few), from `crop_masks`'s docstring."""
    step = (end - start) / count
    centers = np.clip(start + (np.arange(count) + 0.5) * step, 0.5, size - 0.5)
    half = max(step, 1) / 2
    windows = np.stack([np.maximum(centers - half, 0), np.minimum(centers + half, size)], axis=1)
    weights = np.array([area_overlap(a, b, size) for a, b in windows[-last:]])
    return weights / weights.sum(axis=1, keepdims=True)


LAYOUTS = {
    "one by one": lambda masks: np.moveaxis(np.ascontiguousarray(np.moveaxis(masks, 2, 0)), 0, 2),
    "pixel by pixel": np.ascontiguousarray,
    "columns": np.asfortranarray,
    "mirrored": lambda masks: np.moveaxis(np.ascontiguousarray(np.moveaxis(masks, 2, 0)[:, :, ::-1]), 0, 2)[:, ::-1],
}


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(LAYOUTS)), st.tuples(st.integers(1, 12), st.integers(1, 12)))
def test_crop_masks_equals_weights_pixel_by_pixel(seed, layout, shape):
    """Boxes inside, outside and across the border, that shrink along one axis and grow along the other."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 30, 2)
    masks = LAYOUTS[layout](rng.random((height, width, 3)) < 0.5)
    corners = np.sort(rng.uniform(-8, 38, (3, 2, 2)), axis=1)
    corners[2] = np.rint(corners[2])
    boxes = corners.reshape(3, 4)
    crops = crop_masks(masks, boxes, shape)
    for crop, (y1, x1, y2, x2), mask in zip(crops, boxes, np.moveaxis(masks, 2, 0), strict=True):
        if y2 > y1 and x2 > x1:
            expected = 255 * window_weights(y1, y2, shape[0], height) @ mask @ window_weights(x1, x2, shape[1], width).T
            assert np.abs(crop - expected).max() < 0.5 + 1e-3
        else:
            assert not crop.any()


def test_crop_masks_is_exact_in_the_far_corner_of_a_large_photograph():
    masks = np.ones([3000, 4001, 1], bool)
    masks[2990:, 3990:] = False
    # cumulative sums exceed 2**23 there, where float32 has no halves
    crop = crop_masks(masks, np.array([[0.25, 0.25, 3000, 4001]]), (1500, 2000))[0]
    rows, columns = window_weights(0.25, 3000, 1500, 3000, last=8), window_weights(0.25, 4001, 2000, 4001, last=8)
    expected = 255 * rows @ masks[:, :, 0] @ columns.T
    assert np.abs(crop[-8:, -8:] - expected).max() < 0.51
    assert (crop[:1494] == 255).all()


def test_whole_masks_by_hand():
    """A 4x6 image at twice its size, 3 and 8 pixels from the corner of a 16x32 network input."""
    mask = np.zeros((4, 6, 2), bool)
    mask[1:3, 2:6, 0] = True
    packed = masks.whole_masks(mask, np.array([3, 8, 11, 20], np.float32), (2.0, 2.0), (16, 32))
    assert packed.shape == (2, 16, 4) and packed.dtype == np.uint8
    expected = np.zeros((16, 32), np.uint8)
    expected[5:9, 12:20] = 1
    np.testing.assert_array_equal(np.unpackbits(packed[0], axis=1), expected)
    assert not packed[1].any(), "a mask without pixels"


def test_whole_masks_shrink_by_coverage_and_end_with_the_network_input():
    mask = np.zeros((8, 16, 1), bool)
    mask[:, 3:, 0] = True  # at half size, the second pixel is half covered, the first not at all
    packed = masks.whole_masks(mask, np.array([0, 0, 4, 8], np.float32), (0.5, 0.5), (4, 8))
    np.testing.assert_array_equal(np.unpackbits(packed[0], axis=1), np.tile([0, 1, 1, 1, 1, 1, 1, 1], (4, 1)))
    cut = masks.whole_masks(mask, np.array([-4, 0, 4, 16], np.float32), (1.0, 1.0), (4, 8))
    np.testing.assert_array_equal(np.unpackbits(cut[0], axis=1), np.tile([0, 0, 0, 1, 1, 1, 1, 1], (4, 1)))

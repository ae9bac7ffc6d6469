import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrcnn.data import pasting, rle
from mrcnn.data.masks import crop_masks
from mrcnn.data.pasting import mask_rles, paste_masks


def paste_reference(prob, box, height, width):
    """Bilinear samples at every pixel center of the image, one by one."""
    m = len(prob)
    out = np.zeros([height, width])
    for y in range(height):
        for x in range(width):
            v = (y + 0.5 - box[0]) / (box[2] - box[0]) * m - 0.5
            u = (x + 0.5 - box[1]) / (box[3] - box[1]) * m - 0.5
            for i in range(m):
                for j in range(m):
                    out[y, x] += max(0, 1 - abs(v - i)) * max(0, 1 - abs(u - j)) * prob[i, j]
    return out


def test_paste_masks_equals_samples_one_by_one():
    rng = np.random.default_rng(1)
    probs = rng.random((4, 3, 3))
    boxes = np.array([[2.3, 1.7, 9.1, 11.2], [-3, -2.5, 4, 20], [8.2, 10.1, 8.9, 10.6], [30, 30, 40, 40]])
    for threshold in (0.2, 0.5):
        pasted = paste_masks(probs, boxes, 10, 14, threshold)
        assert pasted.shape == (10, 14, 4) and pasted.dtype == bool
        for i in range(4):
            expected = paste_reference(probs[i], boxes[i], 10, 14)
            certain = np.abs(expected - threshold) > 1e-5
            np.testing.assert_array_equal(pasted[certain, i], expected[certain] >= threshold)


def test_paste_masks_fills_the_pixels_whose_centers_are_inside():
    pasted = paste_masks(np.ones([1, 7, 7]), np.array([[1.4, 2.6, 4.6, 5.4]]), 8, 8)[:, :, 0]
    expected = np.zeros((8, 8), bool)
    expected[1:5, 3:5] = True
    np.testing.assert_array_equal(pasted, expected)


def test_paste_masks_of_nothing():
    assert paste_masks(np.zeros([0, 7, 7]), np.zeros([0, 4]), 5, 6).shape == (5, 6, 0)
    assert not paste_masks(np.ones([1, 7, 7]), np.array([[3, 3, 3, 3]]), 5, 6).any()
    with pytest.raises(ValueError, match=r"got \(1, 7, 7\) and \(2, 4\)"):
        paste_masks(np.ones([1, 7, 7]), np.zeros([2, 4]), 5, 6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_cropped_masks_paste_back(seed):
    rng = np.random.default_rng(seed)
    y1, x1 = rng.integers(0, 20, 2)
    height, width = rng.integers(5, 30, 2)
    mask = np.zeros((64, 64, 1), bool)
    mask[y1 : y1 + height, x1 : x1 + width] = True
    box = np.array([[y1 - 0.0, x1, y1 + height, x1 + width]])
    crop = crop_masks(mask, box, (28, 28)) / 255
    np.testing.assert_array_equal(paste_masks(crop, box, 64, 64), mask)


def test_a_mask_larger_than_a_strip_is_the_same_as_its_parts(monkeypatch):
    rng = np.random.default_rng(0)
    probs, boxes = rng.random((3, 7, 7)), np.array([[-5.3, 2.1, 60.2, 49.9], [10, 10, 12.5, 48], [3, 3, 3, 9]])
    at_once = pasting.paste_masks(probs, boxes, 64, 50)
    monkeypatch.setattr(pasting, "STRIP", 200)  # four rows of either
    np.testing.assert_array_equal(pasting.paste_masks(probs, boxes, 64, 50), at_once)
    monkeypatch.setattr(pasting, "STRIP", 1)
    np.testing.assert_array_equal(pasting.paste_masks(probs, boxes, 64, 50), at_once)
    parts = list(pasting.mask_parts(probs, boxes, 64, 50))
    assert [part.shape for part, _, _ in parts][2] == (0, 0)
    assert parts[0][1:] == (0, 0) and parts[0][0].shape[1] == 50, "it reaches half a mask pixel beyond its box"


def test_a_pixel_exactly_at_the_threshold_is_inside():
    """One mask value of 1, centered at 4.5, falls to zero over 4 rows: in row 2 it is 0.5."""
    column = np.array([[2.5, 0, 6.5, 1]])
    values = {row: max(0.0, 1 - abs(row + 0.5 - 4.5) / 4) for row in range(9)}
    for threshold in (0.25, 0.5, 0.75):
        pasted = paste_masks(np.ones([1, 1, 1]), column, 9, 1, threshold)[:, 0, 0]
        np.testing.assert_array_equal(pasted, [values[row] >= threshold for row in range(9)])
    assert paste_masks(np.full([1, 4, 4], 0.5), np.array([[0, 0, 8, 8]]), 8, 8)[1:7, 1:7].all(), (
        "flat, at the threshold"
    )
    assert not paste_masks(np.full([1, 4, 4], 0.499), np.array([[0, 0, 8, 8]]), 8, 8).any()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 7, 28]), st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_run_lengths_equal_those_of_the_pixels(seed, side, threshold):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 40, 2).tolist()
    probs = rng.choice([rng.random((5, side, side)), rng.integers(0, 3, (5, side, side)) / 2])
    corners = rng.uniform(-30, 50, (5, 2))
    boxes = np.concatenate([corners, corners + rng.choice([0.01, 3, 60, 500], (5, 2)) * rng.random((5, 2))], axis=1)
    boxes = np.round(boxes * 2) / 2 if seed % 2 else boxes
    pixels = paste_masks(probs, boxes, height, width, threshold)
    assert mask_rles(probs, boxes, height, width, threshold) == rle.encode_all(pixels)


def test_values_that_are_not_numbers_are_outside():
    probs = np.ones((1, 4, 4), np.float32)
    probs[0, :2] = np.nan
    clean = np.where(np.isnan(probs), 0, probs)
    box = np.array([[1.0, 1, 9, 9]])
    np.testing.assert_array_equal(paste_masks(probs, box, 10, 10), paste_masks(clean, box, 10, 10))
    assert mask_rles(probs, box, 10, 10) == mask_rles(clean, box, 10, 10)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("corner", range(4))
def test_a_box_with_a_corner_that_is_no_number_has_an_empty_mask(corner, value):
    box = np.array([[1.0, 1, 9, 9]])
    box[0, corner] = value
    probs = np.ones((1, 4, 4), np.float32)
    assert not paste_masks(probs, box, 10, 10).any()
    assert mask_rles(probs, box, 10, 10) == rle.encode_all(np.zeros((10, 10, 1), bool))


@pytest.mark.parametrize(
    "box", [[0, 0, 1e30, 1e30], [-1e30, -1e30, 1e30, 1e30], [-1e30, 3, 1e30, 5], [1e30, 0, 2e30, 9]]
)
def test_run_lengths_of_huge_boxes_are_those_of_their_pixels(box):
    probs, box = np.full((1, 4, 4), 0.9, np.float32), np.array([box], np.float64)
    assert mask_rles(probs, box, 10, 10) == rle.encode_all(paste_masks(probs, box, 10, 10))


def test_a_column_that_fills_the_image_joins_the_next():
    """Two columns of 3 rows, all inside, between two outside: one run of 6."""
    (runs,) = mask_rles(np.ones((1, 2, 2)), np.array([[-5.0, 1, 8, 3]]), 3, 4)
    assert rle.counts_of(runs).tolist() == [3, 6, 3]
    assert mask_rles(np.zeros((0, 2, 2)), np.zeros((0, 4)), 3, 4) == []
    (empty,) = mask_rles(np.ones((1, 2, 2)), np.zeros((1, 4)), 3, 4)
    assert rle.counts_of(empty).tolist() == [12]

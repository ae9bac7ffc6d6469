"""Boundaries counted by hand, against a brute-force erosion, and Boundary AP where it tells more than mask AP."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mrcnn.data import rle
from mrcnn.evaluation.boundary import boundary_iou, boundary_overlaps, boundary_width, mask_boundary, rle_boundary
from mrcnn.evaluation.coco_metrics import coco_numbers
from mrcnn.evaluation.coco_results import Records


def rectangle(y1, x1, y2, x2, shape=(60, 80)):
    mask = np.zeros(shape, bool)
    mask[y1:y2, x1:x2] = True
    return mask


def brute_force(mask, width):
    """Pixels of the mask that see the outside, or beyond the image, in the square of `width` pixels around them."""
    height, length = mask.shape
    wide = np.pad(mask, width)
    inside = np.ones(mask.shape, bool)
    for dy in range(2 * width + 1):
        for dx in range(2 * width + 1):
            inside &= wide[dy : dy + height, dx : dx + length]
    return mask & ~inside


def blob(seed, shape):
    """Noise, smoothed, so that there are pieces, holes and contacts with the image's edge."""
    noise = np.random.default_rng(seed).random((shape[0] + 8, shape[1] + 8))
    smooth = sum(noise[dy : dy + shape[0], dx : dx + shape[1]] for dy in range(9) for dx in range(9)) / 81
    return smooth > 0.47


def test_width_is_two_percent_of_the_diagonal():
    assert boundary_width(60, 80) == 2  # of 100
    assert boundary_width(480, 640) == 16  # of 800
    assert boundary_width(3, 4) == 1  # 0.1 would be none
    assert boundary_width(60, 80, ratio=0.1) == 10


def test_square_in_a_square():
    """20 x 20 pixels have 20^2 - 16^2 = 144 within two of the edge; 16 x 16 have 16^2 - 12^2 = 112."""
    large, small = rectangle(20, 20, 40, 40), rectangle(22, 22, 38, 38)
    assert mask_boundary(large).sum() == 144
    assert mask_boundary(small).sum() == 112
    assert not mask_boundary(large)[22:38, 22:38].any()
    # The boundaries are rings side by side
    assert boundary_iou(large, small) == 0
    assert boundary_iou(large, large) == 1
    # A pixel less on each side: the rings share one of the two pixels, 18^2 - 16^2 = 68; 18^2 - 14^2 = 128 is the other
    assert boundary_iou(large, rectangle(21, 21, 39, 39)) == 68 / (144 + 128 - 68)
    # Moved by a column: columns shift, rows stay; counted on paper
    moved = rectangle(20, 21, 40, 41)
    shared = 4 * 19 + 2 * 16 * 1
    assert boundary_iou(large, moved) == shared / (144 + 144 - shared)


def test_the_image_ends_the_mask():
    whole = np.ones((60, 80), bool)
    assert mask_boundary(whole).sum() == 60 * 80 - 56 * 76
    corner = rectangle(0, 0, 20, 20)
    assert mask_boundary(corner).sum() == 144


def test_thin_masks_are_all_boundary():
    thin = rectangle(10, 5, 14, 70)
    np.testing.assert_array_equal(mask_boundary(thin), thin)
    thicker = rectangle(10, 5, 15, 70)  # one row of pixels lies three from the outside
    np.testing.assert_array_equal(thicker ^ mask_boundary(thicker), rectangle(12, 7, 13, 68))
    assert mask_boundary(rectangle(9, 9, 10, 10)).sum() == 1


def test_nothing():
    empty = np.zeros((60, 80), bool)
    assert not mask_boundary(empty).any()
    assert boundary_iou(empty, empty) == 0
    assert boundary_iou(empty, rectangle(20, 20, 40, 40)) == 0
    assert rle_boundary(rle.encode(empty)) == rle.encode(empty)


shapes = st.tuples(st.integers(1, 40), st.integers(1, 40))


@given(
    st.one_of(shapes.flatmap(lambda s: arrays(bool, s)), st.builds(blob, st.integers(0, 10**6), shapes)),
    st.floats(0.01, 0.2),
)
def test_equal_to_brute_force(mask, ratio):
    expected = brute_force(mask, boundary_width(*mask.shape, ratio))
    np.testing.assert_array_equal(mask_boundary(mask, ratio), expected)
    assert rle_boundary(rle.encode(mask), ratio) == rle.encode(expected)


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=4), st.lists(st.integers(0, 10**6), min_size=1, max_size=4))
def test_overlaps_are_the_lesser_of_two(found, truth):
    found, truth = ([blob(seed // 50, (50, 40)) for seed in seeds] for seeds in (found, truth))  # some the same
    overlaps = boundary_overlaps([rle.encode(m) for m in found], [rle.encode(m) for m in truth], [0] * len(truth))
    for i, a in enumerate(found):
        for j, b in enumerate(truth):
            union = (a | b).sum()
            iou = (a & b).sum() / union if union else 0
            if iou >= 0.5:
                assert overlaps[i, j] == pytest.approx(min(iou, boundary_iou(a, b)))
            else:
                assert overlaps[i, j] < 0.5


def test_crowds_are_covered_not_outlined():
    crowd, inside = rectangle(10, 10, 50, 70), rectangle(20, 20, 40, 40)
    masks = [rle.encode(inside)], [rle.encode(crowd), rle.encode(inside)]
    np.testing.assert_array_equal(boundary_overlaps(*masks, [1, 0]), [[1, 1]])
    assert boundary_overlaps(*masks, [0, 0])[0, 0] < 0.5


def records(found, truth, crowd=False):
    def annotation(mask, **more):
        y1, x1, y2, x2 = rle.box(rle.encode(mask))
        box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "segmentation": rle.encode(mask)}
        return {"image_id": 7, "category_id": 3} | box | more

    return Records(
        [{"id": 7, "height": 60, "width": 80}],
        {3: "thing"},
        [annotation(mask, area=float(mask.sum()), iscrowd=0) for mask in truth],
        [annotation(mask, score=0.9) for mask in found],
    )


def test_boundary_ap_sees_what_mask_ap_does_not():
    large = rectangle(10, 10, 50, 70)
    same, _ = coco_numbers(records([large], [large]), "boundary")
    assert [same["AP"], same["AR100"]] == [pytest.approx(1)] * 2
    # One pixel less all around: mask IoU 38 * 58 / 2400 = 0.918, nine of ten thresholds; rings of 2 px share 1 px:
    # 188 of 384 + 368 - 188, a third
    smaller = rectangle(11, 11, 49, 69)
    assert boundary_iou(large, smaller) == 188 / (384 + 368 - 188)
    mask, _ = coco_numbers(records([smaller], [large]), "mask")
    edge, per_class = coco_numbers(records([smaller], [large]), "boundary")
    assert (mask["AP"], edge["AP"]) == (pytest.approx(0.9), 0)
    assert per_class == {3: (0, 0)}
    # A column less at one side: nearly the same mask, somewhat less of a boundary
    column = rectangle(10, 10, 50, 69)
    iou = boundary_iou(large, column)
    edge, _ = coco_numbers(records([column], [large]), "boundary")
    assert 0.7 < iou < 0.9
    assert edge["AP"] == pytest.approx(sum(iou >= t for t in np.linspace(0.5, 0.95, 10)) / 10)


def test_bad_input():
    with pytest.raises(ValueError, match=r"different shapes, \(3, 4\) and \(4, 3\)"):
        boundary_iou(np.zeros((3, 4)), np.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"one mask \[H, W\], got shape \(3, 4, 1\)"):
        mask_boundary(np.zeros((3, 4, 1)))
    with pytest.raises(ValueError, match="ratio=0;"):
        boundary_width(3, 4, 0)

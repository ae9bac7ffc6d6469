import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrcnn.data.check import findings
from mrcnn.data.check.findings import beyond, crossings, mask_iou, region, same_masks, unlike_box

BOW_TIE = [(0, 0), (4, 4), (4, 0), (0, 4)]
SQUARE = [(0, 0), (4, 0), (4, 4), (0, 4)]
HOURGLASS = [(0, 0), (2, 2), (4, 0), (4, 4), (2, 2), (0, 4)]  # both halves meet in the middle
BOW_TIE_WITH_POINTS = [(0, 0), (2, 2), (4, 4), (4, 0), (2, 2), (0, 4)]  # the lines go through the middle
THROUGH_A_POINT = [(0, 0), (8, 0), (8, 4), (4, 0), (2, -2)]  # one of its points crosses its first edge
TOUCHING = [(0, 0), (8, 0), (8, 4), (4, 0), (2, 4)]  # a point on the first edge, both neighbors on one side
BRIDGE = [(0, 0), (10, 0), (10, 10), (0, 10), (0, 5), (3, 5), (3, 7), (6, 7), (6, 3), (3, 3), (3, 5), (0, 5)]
REPEATED = [(0, 0), (0, 0), (4, 0), (4, 4), (4, 4), (0, 4), (0, 0)]
PENTAGRAM = [(10 * math.sin(turn), 10 * math.cos(turn)) for turn in (4 * math.pi / 5 * k for k in range(5))]


@pytest.mark.parametrize(
    "points, places",
    [
        (BOW_TIE, [(2, 2)]),
        (BOW_TIE[::-1], [(2, 2)]),
        (SQUARE, []),
        (HOURGLASS, []),
        (BOW_TIE_WITH_POINTS, [(2, 2)]),
        (THROUGH_A_POINT, [(4, 0)]),
        (THROUGH_A_POINT[::-1], [(4, 0)]),
        (TOUCHING, []),
        (BRIDGE, []),
        (REPEATED, []),
        ([(0, 0), (4, 0), (2, 0)], []),  # a line, there and back
        ([(0, 0), (4, 0)], []),
        ([], []),
    ],
    ids=str,
)
def test_crossings_by_hand(points, places):
    found = crossings(np.array(points, float).reshape(-1, 2))
    assert found.shape == (len(places), 2) and found.tolist() == [list(place) for place in places]


def test_a_star_of_five_points_crosses_itself_five_times():
    found = crossings(np.array(PENTAGRAM))
    radius = 10 * math.cos(2 * math.pi / 5) / math.cos(math.pi / 5)  # of the inner pentagon
    np.testing.assert_allclose(np.hypot(*found.T), [radius] * 5, atol=1e-5)


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=3, max_size=9), st.floats(0.1, 99))
def test_crossings_in_the_middle_of_edges_equal_exact_arithmetic(points, scale):
    expected, count = set(), len(points)
    edges = [(points[i], points[(i + 1) % count]) for i in range(count)]
    for i, (a, b) in enumerate(edges):
        for c, d in edges[:i]:
            if side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0:
                share = Fraction(side(c, d, a), side(c, d, a) - side(c, d, b))
                expected.add((a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])))
    found = crossings(np.array(points, float) * scale + 3)
    for x, y in expected:
        assert np.abs(found - [float(x) * scale + 3, float(y) * scale + 3]).max(axis=1).min() < 1e-4
    beside = {(x, y) for x, y in points}  # all other crossings are points of the polygon
    for x, y in (found - 3) / scale:
        assert min(math.hypot(x - p, y - q) for p, q in expected | beside) < 1e-4


def side(a, b, c):
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


@given(st.integers(4, 400), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=50)
def test_outlines_drawn_around_a_point_never_cross_and_with_two_points_swapped_do(count, seed):
    rng = np.random.default_rng(seed)
    angles = 2 * np.pi * (np.arange(count) + rng.uniform(0, 0.5, count)) / count
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert not len(crossings(rng.uniform(5, 50, count)[:, None] * directions + 60))
    swapped = 50 * directions
    swapped[[1, 2]] = swapped[[2, 1]]
    assert len(crossings(swapped)) == 1


def test_the_sweep_finds_the_same_in_small_blocks(monkeypatch):
    points = np.random.default_rng(0).uniform(0, 100, (60, 2))
    expected = crossings(points)
    assert len(expected) > 300
    monkeypatch.setattr(findings, "PAIRS", 50)
    np.testing.assert_array_equal(crossings(points), expected)


def test_a_region_is_the_masks_pixels_and_its_parts():
    mask = np.random.default_rng(0).random((30, 41)) < 0.3
    mask[:3], mask[:, :7], mask[27:], mask[:, 38:] = False, False, False, False
    mask[3, 7] = mask[26, 37] = True
    found = region(mask)
    assert found.box == (3, 7, 27, 38) and found.area == mask.sum() and found.bits.nbytes == 24 * 4
    np.testing.assert_array_equal(found.part(*found.box), mask[3:27, 7:38])
    np.testing.assert_array_equal(found.part(5, 16, 9, 33), mask[5:9, 16:33])
    empty = region(np.zeros((30, 41), bool))
    assert empty.area == 0 and empty.box == (0, 0, 0, 0)


def block(y1, x1, y2, x2):
    mask = np.zeros((40, 60), bool)
    mask[y1:y2, x1:x2] = True
    return region(mask)


def test_iou_of_masks_by_hand():
    assert mask_iou(block(0, 0, 10, 10), block(0, 5, 10, 15)) == 50 / 150
    assert mask_iou(block(0, 0, 10, 10), block(0, 10, 10, 20)) == 0
    assert mask_iou(block(5, 6, 7, 9), block(5, 6, 7, 9)) == 1


@given(st.integers(0, 2**32 - 1))
def test_iou_of_masks_equals_that_of_all_pixels(seed):
    rng = np.random.default_rng(seed)
    first, second = np.zeros((2, 40, 60), bool)
    for mask in (first, second):
        y, x = rng.integers(0, 20, 2)
        mask[y : y + 20, x : x + 30] = rng.random((20, 30)) < 0.5
    assert mask_iou(region(first), region(second)) == (first & second).sum() / (first | second).sum()


def test_the_same_mask_drawn_twice():
    regions = [
        block(0, 0, 10, 20),
        block(0, 0, 0, 0),
        block(20, 20, 30, 40),
        block(0, 0, 10, 19),  # IoU 190 / 200
        block(0, 0, 10, 18),
        block(20, 20, 30, 40),
        block(0, 0, 0, 0),
        block(0, 0, 10, 20),
    ]
    assert list(same_masks(regions)) == [(0, 3, 0.95), (2, 5, 1), (0, 7, 1)]
    assert list(same_masks(regions, iou=1)) == [(2, 5, 1), (0, 7, 1)]
    assert not list(same_masks([])) and not list(same_masks(regions[:3]))


def test_a_hair_that_makes_the_box_large_hides_no_double():
    first, second = np.zeros((2, 40, 60), bool)
    first[:20, :20] = second[:20, :20] = True
    second[20:38, 0] = True  # IoU 400 / 418, IoU of the boxes 400 / 760
    assert [pair[:2] for pair in same_masks([region(first), region(second)])] == [(0, 1)]


def test_boxes_beside_their_masks():
    size = (40, 60)
    assert unlike_box((10, 10, 20, 20), (10, 10, 20, 20), size) is None
    assert unlike_box((9, 8, 22, 22), (10, 10, 20, 20), size) is None  # no edge off by more than two pixels
    assert unlike_box((10, 10, 30, 20), (10, 10, 20, 20), size) == 0.5
    assert unlike_box((0, 0, 5, 5), (10, 10, 20, 20), size) == 0
    assert unlike_box((-100, -100, 20, 20), (0, 0, 20, 20), size) is None  # clipped to the image, as in training
    assert unlike_box((10, 10, 10, 10), (10, 10, 20, 20), size) == 0


def test_how_far_bounds_leave_the_image():
    assert beyond((0, 0, 40, 60), (40, 60)) == 0
    assert beyond((-1, -1, 41, 61), (40, 60)) == 0  # tools draw up to a pixel outside
    assert beyond((-1.5, 0, 40, 60), (40, 60)) == 1.5
    assert beyond((0, -3, 40, 75), (40, 60)) == 15

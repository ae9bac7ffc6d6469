"""`segmentation` values, converted together and one by one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrcnn.data.annotations.fields import FieldError
from mrcnn.data.annotations.outlines import Polygons
from mrcnn.data.annotations.segmentations import plain_polygons, read_outline

NUMBERS = st.integers(-50, 50) | st.floats(-50, 50)
PART = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=3, max_size=6).map(lambda points: [v for p in points for v in p])
ODD = st.sampled_from(
    [None, [], [[]], [[1, 2, 3, 4]], {"size": [1, 1], "counts": [1]}, "x", [["1"] * 6], [[True] * 6], [[1e999] * 6]]
)


@given(st.lists(st.lists(PART, min_size=1, max_size=3) | ODD, max_size=8))
def test_polygons_all_at_once_are_those_one_by_one(segmentations):
    for segmentation, outline in zip(segmentations, plain_polygons(segmentations), strict=True):
        if outline is None:
            assert not segmentation or min(map(len, segmentation)) < 6 or segmentation[0][0] in ("1", True, 1e999)
            continue
        expected = read_outline(segmentation, 9, 9)
        assert len(outline.parts) == len(expected.parts)
        assert all(map(np.array_equal, outline.parts, expected.parts))
        assert outline.bounds() == Polygons(expected.parts).bounds()


def test_one_damaged_polygon_does_not_take_others_with_it():
    sound = [[0, 0, 5, 0, 5, 5]]
    for damaged in ([[0, 0, 5, 0, 5, "5"]], [[0, 0, 5, 0, 5, 10**400]], [[0, 0, 5, 0, 5, float("nan")]]):
        first, second, third = plain_polygons([sound, damaged, sound])
        assert second is None and np.array_equal(first.parts[0], third.parts[0])
        with pytest.raises(FieldError, match="expected lists of coordinates or RLE"):
            read_outline(damaged, 9, 9)


@pytest.mark.parametrize(
    "segmentation", [[0, 0, 5, 0, 5, 5], [[0, 0, 5, 0, 5, 5]], [[0, 0], [5, 0], [5, 5]], [[[0, 0], [5, 0], [5, 5]]]]
)
def test_forms_of_a_polygon(segmentation):
    (part,) = read_outline(segmentation, 9, 9).parts
    assert part.tolist() == [[0, 0], [5, 0], [5, 5]]


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (None, "expected lists of coordinates or RLE, got None"),
        ([[1, 2, 3]], "expected pairs of x and y, got a polygon of 3 coordinates"),
        ([1, 2, 3], "a polygon of 3 coordinates"),
        ({"counts": []}, "RLE needs size and counts"),
        ({"size": [9, 8], "counts": []}, r"the RLE has size \[9, 8\], but the image has \[9, 9\]"),
        ({"size": [9, 9], "counts": [10**12, 10**12]}, "cannot be|not an integer|cover"),
        ({"size": [9, 9], "counts": "~"}, "which is not allowed"),
    ],
)
def test_what_is_no_outline(segmentation, message):
    with pytest.raises(FieldError, match=message):
        read_outline(segmentation, 9, 9)

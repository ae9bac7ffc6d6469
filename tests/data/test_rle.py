"""RLE compared with pycocotools, by hand, and invalid."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from mrcnn.data import rle

sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))
masks = st.one_of(
    sizes.flatmap(lambda size: arrays(bool, size)),
    sizes.flatmap(lambda size: st.sampled_from([np.zeros(size, bool), np.ones(size, bool)])),
    st.tuples(st.integers(0, 2**32 - 1), sizes, st.floats(0, 1)).map(
        lambda t: np.random.default_rng(t[0]).random(t[1]) < t[2]
    ),
)


def official(mask):
    encoded = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


@given(masks)
def test_equal_to_pycocotools(mask):
    encoded = rle.encode(mask)
    assert encoded == official(mask)
    assert [type(n) for n in encoded["size"]] == [int, int]
    decoded = rle.decode(encoded)
    assert decoded.dtype == bool and decoded.flags.c_contiguous
    np.testing.assert_array_equal(decoded, mask)
    assert rle.area(encoded) == coco_mask.area(official(mask)) == mask.sum()
    y1, x1, y2, x2 = rle.box(encoded)
    assert [x1, y1, x2 - x1, y2 - y1] == coco_mask.toBbox(official(mask)).tolist()


@given(masks, st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))
def test_parts(mask, top, left, below, beside):
    whole = np.pad(mask, ((top, below), (left, beside)))
    encoded = rle.encode_box(mask, top, left, *whole.shape)
    assert encoded == official(whole)
    part, (y1, x1, y2, x2) = rle.decode_box(encoded)
    assert (y1, x1, y2, x2) == rle.box(encoded)
    np.testing.assert_array_equal(part, whole[y1:y2, x1:x2])


@given(masks, st.sampled_from([0, 1]))
def test_pairs_go_there_and_back(mask, first):
    encoded = rle.encode(mask)
    text = rle.rle_to_pairs(encoded, first=first)
    assert rle.pairs_to_rle(text, *mask.shape, first=first) == encoded


@given(masks)
def test_plain_counts_are_the_same_mask(mask):
    encoded = rle.encode(mask)
    plain = {"size": encoded["size"], "counts": rle.counts_of(encoded).tolist()}
    np.testing.assert_array_equal(rle.decode(plain), mask)
    assert rle.compress(plain) == rle.compress(encoded) == encoded
    assert rle.decode({**encoded, "counts": encoded["counts"].encode()}).sum() == mask.sum()


@given(st.integers(0, 2**32 - 1), sizes, st.integers(0, 4))
def test_every_order_of_memory(seed, size, count):
    stack = np.random.default_rng(seed).random((count, *size)) < 0.3
    expected = [official(mask) for mask in stack]
    view = np.moveaxis(stack, 0, 2)
    for form in (view, np.ascontiguousarray(view), np.asfortranarray(view), view.astype(np.int32) * 7, view * 0.5):
        assert rle.encode_all(form) == expected
    assert rle.encode_all(np.ascontiguousarray(view[::-1])[::-1]) == expected


@given(st.lists(st.integers(0, 2**20), min_size=1, max_size=9))
def test_large_counts(counts):
    """Runs of any length, including zero, compressed as by pycocotools."""
    size = [1, sum(counts)]
    packed = rle.from_counts(counts, *size)
    assert packed["counts"] == coco_mask.frPyObjects({"size": size, "counts": counts}, *size)["counts"].decode()
    np.testing.assert_array_equal(rle.counts_of(packed), counts)


def test_by_hand():
    mask = np.zeros((3, 4), bool)
    mask[1:3, 1] = mask[0, 2] = True  # pixels 4, 5 and 6 in column-major order
    encoded = {"size": [3, 4], "counts": "435"}
    assert rle.encode(mask) == encoded
    assert rle.counts_of(encoded).tolist() == [4, 3, 5]
    assert (rle.area(encoded), rle.box(encoded)) == (3, (0, 1, 3, 3))
    assert rle.rle_to_pairs(encoded) == "5 3"
    assert rle.rle_to_pairs(encoded, first=0) == "4 3"
    for text in ("5 3", "5 1 6 2", "7 1 5 2"):  # touching runs are merged, in any order
        assert rle.pairs_to_rle(text, 3, 4) == encoded
    empty = {"size": [3, 4], "counts": "<"}
    assert rle.encode(np.zeros((3, 4))) == rle.pairs_to_rle(" ", 3, 4) == empty
    assert (rle.area(empty), rle.box(empty), rle.rle_to_pairs(empty)) == (0, (0, 0, 0, 0), "")


def test_runs_of_no_pixel_are_no_runs():
    odd = {"size": [3, 4], "counts": [0, 0, 4, 1, 0, 2, 5, 0]}
    assert rle.box(odd) == (0, 1, 3, 3)
    assert rle.rle_to_pairs(odd) == "5 3"
    assert rle.encode(rle.decode(odd))["counts"] == "435"


def test_nothing():
    assert rle.encode_all(np.zeros((3, 4, 0), bool)) == []
    for shape in ((0, 4), (3, 0), (0, 0)):
        encoded = rle.encode(np.zeros(shape, bool))
        assert encoded == official(np.zeros(shape, bool))
        assert rle.decode(encoded).shape == shape and rle.box(encoded) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    "size, counts, message",
    [
        ([3, 4], "434", r"covers 11 pixels, but the size 3 x 4 has 12"),
        ([3, 5], "435", r"covers 12 pixels, but the size 3 x 5 has 15"),
        ([3, 4], "", "covers 0 pixels"),
        ([3, 4], [], "covers 0 pixels"),
        ([3, 4], "43 5", "character 2 of the RLE is ' '"),
        ([3, 4], "43é5", "character 2 of the RLE is 'é'"),
        ([3, 4], b"43\xff5", "character 2 of the RLE is 'ÿ'"),
        ([3, 4], "43p", "character 2 of the RLE is 'p'"),
        ([3, 4], "43o", "truncated after character 3"),
        ([3, 4], "4o" + "o" * 30 + "0", "a number of 32 characters at character 1"),
        ([3, 4], "4N:", "run 1 of the RLE is -2"),
        ([3, 4], [4, -3, 11], "run 1 of the RLE is -3"),
        ([3, 4], [4, 3.5, 4.5], "run 1 of the RLE is 3.5, not an integer"),
        ([3, 4], [4, "3", 5], "run 1 of the RLE is '3'"),
        ([3, 4], [4, None, 5], "run 1 of the RLE is None"),
        ([3, 4], [4, float("nan"), 5], "run 1 of the RLE is nan"),
        ([3, 4], [4, 2**64, 5], "run 1 of the RLE is 18446744073709551616"),
        ([3, 4], [4, float("inf"), 5], "run 1 of the RLE is inf"),
        ([3, 4], [4, True, 5], "run 1 of the RLE is True"),
        ([3, 4], None, "needs 'counts'.*got None"),
        ([3, 4], 12, "needs 'counts'.*got 12"),
        ([3], "435", r"needs 'size'.*got \[3\]"),
        ([3, -4], "435", r"needs 'size'.*got \[3, -4\]"),
        ([3, 4.5], "435", r"got \[3, 4.5\]"),
        (None, "435", "got None"),
    ],
)
def test_broken(size, counts, message):
    broken = {"size": size, "counts": counts}
    for function in (rle.decode, rle.area, rle.box, rle.rle_to_pairs, rle.compress):
        with pytest.raises(ValueError, match=message):
            function(broken)


@given(st.binary(max_size=12))
def test_any_characters_give_a_mask_or_an_error(counts):
    try:
        mask = rle.decode({"size": [4, 5], "counts": counts})
    except ValueError:
        return
    assert mask.shape == (4, 5) and official(mask) == rle.encode(mask)


def test_no_run_lengths_at_all():
    with pytest.raises(ValueError, match="a dict with 'size' and 'counts', got list"):
        rle.decode([[1, 2, 3, 4]])


@pytest.mark.parametrize(
    "text, message",
    [
        ("5", "contains 1 numbers; expected pairs"),
        ("5 3 x 1", "contains 'x'"),
        ("5 3.0", "contains '3.0'"),
        ("5 1_0", "contains '1_0'"),
        ("5 0", "run '5 0' has no pixel"),
        ("5 -1", "run '5 -1' has no pixel"),
        ("0 3", "run '0 3' is outside the image of 3 x 4 = 12 pixels.*from 1"),
        ("12 2", "run '12 2' is outside the image"),
        ("5 3 7 1", "run '7 1' overlaps the previous one"),
        ("5 99999999999999999999999", "contains '99999999999999999999999'"),
    ],
)
def test_broken_pairs(text, message):
    with pytest.raises(ValueError, match=message):
        rle.pairs_to_rle(text, 3, 4)


def test_wrong_shapes():
    with pytest.raises(ValueError, match=r"one mask \[H, W\], got shape \(3, 4, 1\)"):
        rle.encode(np.zeros((3, 4, 1)))
    with pytest.raises(ValueError, match=r"3 x 4 part at \(1, 0\) extends beyond the 3 x 4 mask"):
        rle.encode_box(np.zeros((3, 4)), 1, 0, 3, 4)
    with pytest.raises(ValueError, match=r"masks \[H, W, N\], got shape \(3, 4\)"):
        rle.encode_all(np.zeros((3, 4)))


def test_parts_of_several_masks_at_once():
    parts = [(np.ones((2, 3), bool), 1, 4), (np.zeros((0, 0), bool), 0, 0), (np.eye(2, dtype=bool), 3, 0)]
    wholes = np.zeros((5, 7, 3), bool)
    for i, (part, top, left) in enumerate(parts):
        wholes[top : top + part.shape[0], left : left + part.shape[1], i] = part
    assert rle.encode_parts(parts, 5, 7) == rle.encode_all(wholes)
    assert rle.encode_parts([], 5, 7) == []

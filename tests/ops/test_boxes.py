"""Box arithmetic against values by hand, properties, and the original program's numbers."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from mrcnn.ops import boxes as box_ops

MATTERPORT = Path(__file__).resolve().parents[3] / "shared" / "oracles" / "matterport" / "utils.npz"
ONE = (1.0, 1.0, 1.0, 1.0)
STD_DEV = (0.1, 0.1, 0.2, 0.2)


@pytest.fixture(scope="module")
def matterport():
    if not MATTERPORT.exists():
        pytest.skip(f"{MATTERPORT} is absent")
    return np.load(MATTERPORT)


def box_arrays(min_side=0.0, max_side=500.0):
    """[N, (y1, x1, y2, x2)] float32, N from 1 to 6."""
    number = st.floats(0, 1000, width=32)
    side = st.floats(np.float32(min_side), max_side, width=32)
    box = st.tuples(number, number, side, side).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
    return st.lists(box, min_size=1, max_size=6).map(lambda rows: np.array(rows, np.float32))


def test_area_by_hand():
    boxes = [[0, 0, 2, 3], [1, 1, 1, 5], [4, 4, 2, 8], [4, 4, 2, 2], [0, 0, 0, 0]]
    np.testing.assert_array_equal(box_ops.area(np.array(boxes, np.float32)), [6, 0, 0, 0, 0])


def test_iou_by_hand():
    boxes1 = np.array([[0, 0, 2, 2], [0, 0, 0, 0]], np.float32)
    boxes2 = np.array([[0, 0, 2, 2], [1, 1, 3, 3], [2, 0, 4, 2], [0, 0, 0, 0]], np.float32)
    np.testing.assert_allclose(box_ops.iou(boxes1, boxes2), [[1, 1 / 7, 0, 0], [0, 0, 0, 0]], rtol=1e-6)


def test_iou_takes_batches():
    rng = np.random.default_rng(0)
    boxes1, boxes2 = rng.uniform(0, 9, (3, 5, 4)), rng.uniform(0, 9, (3, 2, 4))
    overlaps = box_ops.iou(boxes1, boxes2)
    assert overlaps.shape == (3, 5, 2)
    for i in range(3):
        np.testing.assert_array_equal(overlaps[i], box_ops.iou(boxes1[i], boxes2[i]))


@settings(max_examples=50, deadline=None)
@given(box_arrays(), box_arrays())
def test_iou_is_a_symmetric_share(boxes1, boxes2):
    overlaps = ops.convert_to_numpy(box_ops.iou(boxes1, boxes2))
    assert np.all((overlaps >= 0) & (overlaps <= 1 + 1e-5))
    np.testing.assert_allclose(overlaps, ops.convert_to_numpy(box_ops.iou(boxes2, boxes1)).T, rtol=1e-5)
    with_itself = np.diag(box_ops.iou(boxes1, boxes1))
    np.testing.assert_allclose(with_itself, ops.convert_to_numpy(box_ops.area(boxes1)) > 0, rtol=1e-5)


def test_encode_by_hand():
    # The center moves from (5, 10) to (6, 8), the sides double and halve.
    deltas = box_ops.encode(np.array([[-4, 3, 16, 13]]), np.array([[0, 0, 10, 20]]), STD_DEV)
    np.testing.assert_allclose(deltas, [[1.0, -1.0, np.log(2) / 0.2, np.log(0.5) / 0.2]], rtol=1e-6)


@settings(max_examples=50, deadline=None)
@given(box_arrays(min_side=2.0), box_arrays(min_side=2.0))
def test_decode_undoes_encode(boxes, reference):
    count = min(len(boxes), len(reference))
    boxes, reference = boxes[:count], reference[:count]
    # decode does not follow a growth beyond 62.5 times
    sides, reference_sides = boxes[:, 2:] - boxes[:, :2], reference[:, 2:] - reference[:, :2]
    possible = np.all(sides < 60 * reference_sides, axis=-1)
    decoded = ops.convert_to_numpy(box_ops.decode(box_ops.encode(boxes, reference, STD_DEV), reference, STD_DEV))
    np.testing.assert_allclose(decoded[possible], boxes[possible], atol=2e-3)


def test_decode_clamps_the_scale():
    decoded = box_ops.decode(np.array([[0, 0, 1e4, 1.0]]), np.array([[0, 0, 16, 16]]), ONE)
    np.testing.assert_allclose(decoded, [[-492, 8 - 8 * np.e, 508, 8 + 8 * np.e]], rtol=1e-5)


@pytest.mark.parametrize("row", ["boxes", "reference", "both"])
def test_encode_of_padding_is_finite(row):
    box, padding = np.array([[1, 2, 900, 800]], np.float32), np.zeros((1, 4), np.float32)
    deltas = box_ops.encode(box if row == "reference" else padding, box if row == "boxes" else padding, STD_DEV)
    assert np.all(np.isfinite(deltas))
    if row == "both":
        np.testing.assert_array_equal(deltas, np.zeros((1, 4)))


def test_clip_uses_the_window_of_each_image():
    boxes = np.array([[[-5, -5, 50, 50], [30, 30, 40, 40]]] * 2, np.float32)
    windows = np.array([[0, 0, 20, 30], [10, 0, 100, 100]], np.float32)
    expected = [[[0, 0, 20, 30], [20, 30, 20, 30]], [[10, 0, 50, 50], [30, 30, 40, 40]]]
    np.testing.assert_array_equal(box_ops.clip(boxes, windows), expected)
    per_class = box_ops.clip(boxes[:, :, None], windows)
    np.testing.assert_array_equal(per_class, np.array(expected)[:, :, None])
    np.testing.assert_array_equal(box_ops.clip(boxes[0], windows[0]), expected[0])


def test_inclusive_corners_name_the_last_pixel():
    boxes = np.array([[2, 3, 10, 20]], np.float32)
    np.testing.assert_array_equal(box_ops.to_inclusive(boxes), [[2, 3, 9, 19]])
    np.testing.assert_array_equal(box_ops.to_exclusive(box_ops.to_inclusive(boxes)), boxes)


def test_as_the_original_program(matterport):
    boxes1, boxes2 = matterport["boxes1"], matterport["boxes2"]
    np.testing.assert_allclose(box_ops.iou(boxes1, boxes2), matterport["compute_overlaps"], atol=1e-6)
    decoded = box_ops.decode(matterport["deltas"], boxes2, ONE)
    np.testing.assert_allclose(decoded, matterport["apply_box_deltas"], atol=1e-4)
    encoded = box_ops.encode(matterport["gt15"], boxes2, ONE)
    np.testing.assert_allclose(encoded, matterport["box_refinement"], atol=1e-5)
    window = np.array([10, 20, 150, 160], np.float32)
    np.testing.assert_array_equal(box_ops.clip(boxes2, window), matterport["clip_boxes_graph"])


def test_normalized_decoding_is_decoding_on_another_grid():
    """Boxes of a network input of 200 x 320, whose corners name the last pixel."""
    rng = np.random.default_rng(0)
    corner, side = rng.uniform(0, 150, (2, 500, 2)), rng.uniform(1, 150, (2, 500, 2))
    reference = np.concatenate([corner, corner + side], axis=-1).astype(np.float32)
    deltas, extent = rng.normal(size=(2, 500, 4)).astype(np.float32), np.float32([[0, 0, 199, 319]] * 2)
    found = box_ops.decode_normalized(deltas, reference, STD_DEV, extent)
    np.testing.assert_allclose(found, box_ops.decode(deltas, reference, STD_DEV), atol=1e-3)
    fractions = np.float64(np.asarray(found) / extent[:, None, [2, 3, 2, 3]])
    near_the_edge = (fractions > 0.5) & (fractions < 1)
    assert near_the_edge.any()
    off_the_grid = abs(fractions * 2**24 - np.round(fractions * 2**24))[near_the_edge]
    assert off_the_grid.max() == 0, "fractions above one half are multiples of 2**-24"

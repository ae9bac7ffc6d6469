"""Box arithmetic of the old package: by hand, and its own values."""

import numpy as np
import pytest
from keras import ops

from mrcnn.legacy import boxes
from mrcnn.legacy.resize import resize
from tests import oracles

BOXES = np.array([[0, 0, 10, 20], [0, 0, 10, 18], [5, 5, 9, 9], [40, 40, 50, 50]], np.float32)


@pytest.fixture(scope="module")
def old():
    return oracles.load("matterport/utils.npz")


def array(tensor):
    return ops.convert_to_numpy(tensor)


def test_suppression_by_hand():
    # IoU of the first two is 0.9, of the third with the first 16 / 200; the last overlaps nothing
    scores = [0.6, 0.9, 0.5, 0.1]
    kept = boxes.non_max_suppression(BOXES, scores, 0.5)
    assert kept.tolist() == [1, 2, 3] and kept.dtype == np.int32
    assert boxes.non_max_suppression(BOXES, scores, 0.9).tolist() == [1, 0, 2, 3]  # at the threshold, both are kept
    assert boxes.non_max_suppression(BOXES, scores, 0.01).tolist() == [1, 3]


def test_suppression_of_nothing_and_of_empty_boxes():
    assert boxes.non_max_suppression(np.zeros((0, 4)), [], 0.5).shape == (0,)
    assert boxes.non_max_suppression(np.zeros((2, 4)), [0.1, 0.2], 0.5).tolist() == [1, 0]


@pytest.mark.parametrize("threshold", ["0.1", "0.3", "0.5"])
def test_suppression_is_the_old_package_s(old, threshold):
    kept = boxes.non_max_suppression(old["boxes1"], old["scores1"], float(threshold))
    np.testing.assert_array_equal(kept, old[f"non_max_suppression_{threshold}"])


@pytest.mark.parametrize("apply", [boxes.apply_box_deltas, boxes.apply_box_deltas_graph])
def test_deltas_by_hand(apply):
    moved = array(apply(BOXES[:1], np.array([[0.1, -0.05, np.log(2), 0]], np.float32)))
    np.testing.assert_allclose(moved, [[6 - 10, 9 - 10, 6 + 10, 9 + 10]], atol=1e-5)


@pytest.mark.parametrize("refine", [boxes.box_refinement, boxes.box_refinement_graph])
def test_refinement_reverses_deltas(refine):
    target = np.array([[1, 2, 21, 12], [3, 3, 9, 30], [0, 0, 4, 4], [10, 10, 90, 50]], np.float32)
    deltas = array(refine(BOXES, target))
    np.testing.assert_allclose(deltas[0], [(11 - 5) / 10, (7 - 10) / 20, np.log(2), np.log(0.5)], atol=1e-6)
    np.testing.assert_allclose(boxes.apply_box_deltas(BOXES, deltas), target, atol=1e-4)


@pytest.mark.parametrize("suffix", ["", "_graph"])
def test_deltas_are_the_old_package_s(old, suffix):
    apply, refine = (getattr(boxes, name + suffix) for name in ("apply_box_deltas", "box_refinement"))
    moved = array(apply(old["boxes2"], old["deltas"]))
    np.testing.assert_allclose(moved, old["apply_box_deltas" + suffix], rtol=1e-4, atol=1e-4)
    deltas = array(refine(old["boxes2"], old["gt15"]))
    np.testing.assert_allclose(deltas, old["box_refinement" + suffix], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("suffix", ["", "_graph"])
def test_normalized_boxes(suffix):
    norm, denorm = (getattr(boxes, name + suffix) for name in ("norm_boxes", "denorm_boxes"))
    pixels = np.array([[0, 0, 11, 21], [5, 5, 6, 11]])
    normalized = array(norm(pixels, (11, 21)))
    np.testing.assert_allclose(normalized, [[0, 0, 1, 1], [0.5, 0.25, 0.5, 0.5]])
    back = array(denorm(normalized, (11, 21)))
    np.testing.assert_array_equal(back, pixels)
    assert normalized.dtype == np.float32 and back.dtype == np.int32


@pytest.mark.parametrize("suffix", ["", "_graph"])
def test_normalized_boxes_are_the_old_package_s(old, suffix):
    norm, denorm = (getattr(boxes, name + suffix) for name in ("norm_boxes", "denorm_boxes"))
    normalized = array(norm(old["boxes1"], (200, 300)))
    np.testing.assert_allclose(normalized, old[f"norm_boxes{suffix}_200x300"], atol=1e-6)
    np.testing.assert_array_equal(array(denorm(normalized, (200, 300))), old["denorm_boxes_200x300"])


def test_clipping_and_overlaps_of_tensors(old):
    clipped = array(boxes.clip_boxes_graph(ops.convert_to_tensor(BOXES), ops.convert_to_tensor([2.0, 3.0, 8.0, 45.0])))
    np.testing.assert_array_equal(clipped, [[2, 3, 8, 20], [2, 3, 8, 18], [5, 5, 8, 9], [8, 40, 8, 45]])
    overlaps = array(boxes.overlaps_graph(old["boxes1"], old["boxes2"]))
    np.testing.assert_allclose(overlaps, old["overlaps_graph"], atol=1e-6)


def test_padding_and_packing_of_tensors():
    rows, kept = boxes.trim_zeros_graph(ops.convert_to_tensor([[0.0, 0, 2, 2], [0, 0, 0, 0], [1, 1, 3, 3]]))
    assert array(kept).tolist() == [True, False, True] and array(rows).tolist() == [[0, 0, 2, 2], [1, 1, 3, 3]]
    packed = boxes.batch_pack_graph(ops.reshape(ops.arange(12), (2, 3, 2)), [1, 2], 2)
    assert array(packed).tolist() == [[0, 1], [6, 7], [8, 9]]
    assert array(boxes.log2_graph(ops.convert_to_tensor([1.0, 8.0]))).tolist() == [0, 3]


def test_smooth_l1():
    loss = array(boxes.smooth_l1_loss(np.zeros(4, np.float32), np.array([0.5, 1, -3, 0], np.float32)))
    np.testing.assert_allclose(loss, [0.125, 0.5, 2.5, 0])
    old = oracles.load("matterport/losses.npz")
    np.testing.assert_allclose(
        array(boxes.smooth_l1_loss(old["sl1_true"], old["sl1_pred"])), old["smooth_l1_loss"], atol=1e-6
    )


def test_a_function_over_the_entries_of_a_batch():
    x, y = ops.reshape(ops.arange(6), (3, 2)), ops.convert_to_tensor([10, 20, 30])
    assert array(boxes.batch_slice([x, y], lambda a, b: a + b, 3)).tolist() == [[10, 11], [22, 23], [34, 35]]
    total, first = boxes.batch_slice(x, lambda a: (ops.sum(a), a[0]), 3, names=["total", "first"])
    assert array(total).tolist() == [1, 5, 9] and array(first).tolist() == [0, 2, 4]


def test_resize_is_that_of_skimage_without_antialiasing():
    image = np.arange(16.0).reshape(4, 4)
    np.testing.assert_allclose(resize(image, (2, 2), preserve_range=True), [[2.5, 4.5], [10.5, 12.5]])
    assert resize(np.full((2, 2, 3), 255, np.uint8), (5, 4)).max() == 1.0  # as in skimage, integers become 0..1

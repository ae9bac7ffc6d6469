"""Submissions: no pixel twice, run lengths that give the masks again, files written whole or not at all."""

import csv

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mrcnn.data.rle import decode, pairs_to_rle
from samples.submission import confident, encoded_pixels, separated, write_submission


def masks_and_order():
    shapes = st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(0, 5))
    masks = shapes.flatmap(lambda shape: arrays.arrays(bool, shape))
    return masks.flatmap(lambda m: st.tuples(st.just(m), st.permutations(range(m.shape[2]))))


@given(masks_and_order())
def test_separated_masks_share_no_pixel_and_lose_none(drawn):
    masks, order = drawn
    before = masks.copy()
    found = dict(separated(masks, order))
    np.testing.assert_array_equal(masks, before)
    total = np.sum(list(found.values()), axis=0, dtype=int) if found else np.zeros(masks.shape[:2], int)
    np.testing.assert_array_equal(total, masks.any(axis=2).astype(int))  # every pixel once, none that was in no mask
    assert list(found) == [i for i in order if i in found] and all(mask.any() for mask in found.values())
    for place, i in enumerate(order):  # a mask keeps exactly what no more important one has
        kept = masks[:, :, i] & ~masks[:, :, order[:place]].any(axis=2)
        np.testing.assert_array_equal(found.get(i, np.zeros_like(kept)), kept)


def test_the_first_in_order_keeps_the_pixels_that_both_have():
    masks = np.zeros((2, 3, 2), bool)
    masks[:, :2, 0] = masks[:, 1:, 1] = True
    found = dict(separated(masks, [1, 0]))
    np.testing.assert_array_equal(found[1], masks[:, :, 1])
    np.testing.assert_array_equal(found[0], [[True, False, False]] * 2)


def test_a_mask_that_others_hide_is_passed_over():
    masks = np.ones((2, 2, 2), bool)
    masks[0, 0, 1] = False
    assert [i for i, _ in separated(masks, [0, 1])] == [0]


def test_pixels_count_from_one_down_the_columns():
    mask = np.array([[False, True, True], [True, True, False]])
    assert encoded_pixels(mask) == "2 4"
    assert encoded_pixels(np.array([[False, True], [True, False]])) == "2 2"
    assert encoded_pixels(np.array([[True, True], [False, False]])) == "1 1 3 1"


@given(arrays.arrays(bool, st.tuples(st.integers(1, 8), st.integers(1, 8))))
def test_run_lengths_give_the_mask_again(mask):
    np.testing.assert_array_equal(decode(pairs_to_rle(encoded_pixels(mask), *mask.shape)), mask)


def detection(scores, size=(4, 5)):
    count = len(scores)
    return {
        "rois": np.zeros((count, 4), np.float32),
        "class_ids": np.arange(1, count + 1, dtype=np.int32),
        "scores": np.array(scores, np.float32),
        "masks": np.ones((*size, count), bool),
    }


def test_confident_keeps_the_scores_from_the_least_on():
    found = confident(detection([0.9, 0.5, 0.25]), 0.5)
    assert found["class_ids"].tolist() == [1, 2] and found["scores"].tolist() == pytest.approx([0.9, 0.5])
    assert found["masks"].shape == (4, 5, 2) and found["rois"].shape == (2, 4)


class Model:
    """Finds what it is told, or fails."""

    def __init__(self, scores=(0.9, 0.2), fail_at=None):
        self.scores, self.fail_at, self.calls = scores, fail_at, 0

    def detect(self, images):
        self.calls += 1
        if self.calls == self.fail_at:
            raise RuntimeError("out of memory")
        return [detection(self.scores)]


@pytest.fixture
def images(tmp_path):
    paths = [tmp_path / f"{name}.png" for name in "ab"]
    for path in paths:
        cv2.imwrite(str(path), np.zeros((4, 5, 3), np.uint8))
    return [(path.stem, path) for path in paths]


def rows(image_id, found):
    return [(image_id, f"{score:.1f}") for score in found["scores"]]


def test_csv_has_a_header_and_the_rows_of_each_image_in_order(images, tmp_path):
    write_submission(tmp_path / "out" / "s.csv", ("ImageId", "Score"), Model(), images, rows, min_score=0.5)
    assert (tmp_path / "out" / "s.csv").read_text() == "ImageId,Score\na,0.9\nb,0.9\n"
    write_submission(tmp_path / "s.csv", ("ImageId", "Score"), Model(), images, rows, min_score=0.1)
    with open(tmp_path / "s.csv", newline="") as file:
        assert list(csv.reader(file))[1:] == [["a", "0.9"], ["a", "0.2"], ["b", "0.9"], ["b", "0.2"]]


def test_a_failure_leaves_the_older_csv_and_no_other_file(images, tmp_path):
    target = tmp_path / "s.csv"
    target.write_text("older")
    with pytest.raises(RuntimeError, match="out of memory"):
        write_submission(target, ("ImageId", "Score"), Model(fail_at=2), images, rows)
    assert target.read_text() == "older"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png", "s.csv"]


def test_a_damaged_image_is_found_before_the_first_detection(images, tmp_path):
    images[1][1].write_bytes(images[1][1].read_bytes()[:40])
    model = Model()
    with pytest.raises(ValueError, match=r"b\.png.*truncated or damaged"):
        write_submission(tmp_path / "s.csv", ("ImageId", "Score"), model, images, rows)
    assert model.calls == 0 and not (tmp_path / "s.csv").exists()

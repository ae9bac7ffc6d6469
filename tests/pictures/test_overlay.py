"""Results drawn into pixels."""

import numpy as np
import pytest

from mrcnn.data.keypoints import Skeleton
from mrcnn.inference.results import Result
from mrcnn.pictures.overlay import ALPHA, draw_label, draw_result

RED, BLUE = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)


def result(size=(80, 120)):
    masks = np.zeros((*size, 2), bool)
    masks[10:50, 10:60, 0] = True
    masks[30:70, 40:100, 1] = True
    boxes = np.array([[10, 10, 50, 60], [30, 40, 70, 100]], np.float32)
    return Result(boxes, np.array([1, 2]), np.array([0.9, 0.8], np.float32), masks, size, ("BG", "cat", "dog"))


def test_masks_are_tinted_and_the_most_confident_lies_on_top():
    image = np.full((80, 120, 3), 100, np.uint8)
    before = image.copy()
    drawn = draw_result(image, result(), labels=["", ""], colors=[RED, BLUE], boxes=False)
    np.testing.assert_array_equal(image, before)
    only_red = np.rint(np.array([100, 100, 100]) * (1 - ALPHA) + np.array([255, 0, 0]) * ALPHA)
    only_blue = np.rint(np.array([100, 100, 100]) * (1 - ALPHA) + np.array([0, 0, 255]) * ALPHA)
    both = np.rint(only_blue * (1 - ALPHA) + np.array([255, 0, 0]) * ALPHA)
    for y, x, expected in ((20, 20, only_red), (60, 90, only_blue), (40, 50, both), (75, 5, [100] * 3)):
        np.testing.assert_array_equal(drawn[y, x], expected)
    assert drawn[10, 30].tolist() == [255, 0, 0], "the outline"


def test_boxes_and_labels():
    image = np.full((80, 120, 3), 100, np.uint8)
    boxes = draw_result(image, result(), labels=["", ""], colors=[RED, BLUE])
    assert boxes[30, 99].tolist() == [0, 0, 255] and boxes[49, 10].tolist() == [255, 0, 0]
    labeled = draw_result(image, result(), colors=[RED, BLUE])
    assert (labeled[10:20, 10:20] != boxes[10:20, 10:20]).any()


@pytest.mark.parametrize("top, left", [(-50, -50), (75, 115), (0, 0), (500, 500)])
@pytest.mark.parametrize("size", [(80, 120), (3, 2)])
def test_labels_stay_inside(top, left, size):
    picture = np.zeros((*size, 3), np.uint8)
    draw_label(picture, "Bär ü 猫 " * 20, top, left, RED)
    assert picture.any()


def test_nothing_found_changes_nothing():
    image = np.random.default_rng(0).integers(0, 255, (80, 120, 3), np.uint8)
    np.testing.assert_array_equal(draw_result(image, result().keep([])), image)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"expected uint8 \[80, 120, 3\], got uint8 \(10, 10, 3\)"):
        draw_result(np.zeros((10, 10, 3), np.uint8), result())
    with pytest.raises(ValueError, match="got 1 labels and 2 colors for 2 instances"):
        draw_result(np.zeros((80, 120, 3), np.uint8), result(), labels=["a"])


def test_keypoints_and_their_edges():
    """Dots on pixels, a line between those of an edge; what the model is unsure of is not drawn."""
    image, found = np.full((80, 120, 3), 100, np.uint8), result().keep([0])
    found["keypoints"] = np.array([[[20.5, 20.5, 0.9], [20.5, 50.5, 0.9], [40.5, 50.5, 0.04]]], np.float32)
    dots = draw_result(image, found, labels=[""], colors=[RED], boxes=False)
    found.skeleton = Skeleton(["a", "b", "c"], [(0, 1), (1, 2)])
    lines = draw_result(image, found, labels=[""], colors=[RED], boxes=False)
    for picture in (dots, lines):
        assert picture[20, 20].tolist() == picture[20, 50].tolist() == [255, 0, 0]
        assert picture[40, 50].tolist() != [255, 0, 0]
    assert lines[20, 35].tolist() == [255, 0, 0] and dots[20, 35].tolist() != [255, 0, 0]
    np.testing.assert_array_equal(lines[30, 45:56], dots[30, 45:56])

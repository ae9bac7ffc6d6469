"""Numbers that stay: through movement, gaps and crossings; and counts over a line. Values by hand."""

import numpy as np
import pytest

from mrcnn.inference.results import Crop, Result
from mrcnn.inference.video.tracking import LineCounter, Track, Tracker, as_json, center, mask_iou

SIZE = (100, 200)


def boxes_as_result(*boxes, scores=None, class_ids=None):
    """Instances whose masks fill (y1, x1, y2, x2)."""
    masks = np.zeros((*SIZE, len(boxes)), bool)
    for i, (y1, x1, y2, x2) in enumerate(boxes):
        masks[y1:y2, x1:x2, i] = True
    count = len(boxes)
    return Result(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(class_ids or [1] * count, np.int32),
        np.array(scores or [0.9] * count, np.float32),
        masks,
        SIZE,
        ("BG", "cat", "dog"),
    )


def square(y, x, side=20):
    return (y, x, y + side, x + side)


def crop(y, x, height, width):
    return Crop(np.ones((height, width), bool), y, x)


@pytest.mark.parametrize(
    "a, b, expected",
    [
        (crop(0, 0, 10, 10), crop(0, 0, 10, 10), 1),
        (crop(0, 0, 10, 10), crop(0, 5, 10, 10), 50 / 150),
        (crop(0, 0, 10, 10), crop(0, 10, 10, 10), 0),
        (crop(0, 0, 10, 10), crop(2, 2, 2, 2), 4 / 100),
        (crop(0, 0, 0, 0), crop(0, 0, 0, 0), 0),
    ],
)
def test_mask_iou_by_hand(a, b, expected):
    assert mask_iou(a, b) == mask_iou(b, a) == pytest.approx(expected)


def test_center_by_hand():
    assert center(crop(10, 20, 4, 6)) == (23, 12) and center(Crop(np.zeros((4, 6), bool), 10, 20)) == (23, 12)
    mask = np.zeros((4, 4), bool)
    mask[0, 0] = mask[0, 1] = True
    assert center(Crop(mask, 0, 0)) == (1, 0.5)


def test_numbers_follow_objects_whatever_the_order_of_detections():
    tracker = Tracker()
    assert tracker.update(boxes_as_result(square(0, 0), square(50, 100))) == [1, 2]
    assert tracker.update(boxes_as_result(square(50, 104), square(0, 4))) == [2, 1]
    assert tracker.update(boxes_as_result(square(0, 8), square(50, 108), square(70, 20))) == [1, 2, 3]


def test_objects_that_cross_keep_their_numbers():
    """Each moves on at its speed; where they meet, their masks alone would not tell which is which."""
    tracker, found = Tracker(), []
    for step in range(12):
        found.append(tracker.update(boxes_as_result(square(40, 20 + 8 * step), square(44, 116 - 8 * step))))
    assert found == [[1, 2]] * 12


def test_a_gap_is_bridged_and_a_long_one_ends_the_track():
    tracker = Tracker(patience=3)
    for step in range(3):
        tracker.update(boxes_as_result(square(40, 6 * step)))
    for _ in range(3):
        assert tracker.update(boxes_as_result()) == []
    assert tracker.update(boxes_as_result(square(40, 36))) == [1]
    for _ in range(4):
        tracker.update(boxes_as_result())
    assert tracker.update(boxes_as_result(square(40, 42))) == [2] and len(tracker.tracks) == 1


def test_unsure_detections_continue_but_never_begin_a_track():
    tracker = Tracker(begin=0.5)
    assert tracker.update(boxes_as_result(square(0, 0), scores=[0.3])) == [0]
    assert tracker.update(boxes_as_result(square(0, 0), scores=[0.6])) == [1]
    assert tracker.update(boxes_as_result(square(0, 2), scores=[0.3])) == [1]


def test_the_class_of_a_track_is_that_of_most_detections():
    tracker = Tracker()
    for class_id in (1, 2, 2):
        assert tracker.update(boxes_as_result(square(0, 0), class_ids=[class_id])) == [1]
    assert tracker.tracks[0].class_id == 2
    strict = Tracker(same_class=True)
    assert [strict.update(boxes_as_result(square(0, 0), class_ids=[c])) for c in (1, 2)] == [[1], [2]]


def test_trails_are_bounded():
    tracker = Tracker(trail=5)
    for step in range(9):
        tracker.update(boxes_as_result(square(0, step)))
    assert tracker.tracks[0].trail == [(step + 10, 10) for step in range(4, 9)] and tracker.tracks[0].seen == 9


def at(*points, number=1):
    return [Track(number, crop(0, 0, 1, 1), 0.9, {1: 0.9}, trail=list(points))]


def test_a_line_counts_each_track_once_per_direction():
    """Down over a line from left to right: to the right of it."""
    line = LineCounter((0, 50), (100, 50))
    for y in (40, 48, 52, 60, 52, 48, 40, 52):
        line.update(at((30, y)))
    assert line.counts == {"left": 1, "right": 1}
    for y in (10, 90):
        line.update(at((60, y), number=2))
    assert line.counts == {"left": 1, "right": 2}


def test_beyond_the_ends_of_a_line_nothing_is_counted_and_touching_it_is_no_crossing():
    line = LineCounter((0, 50), (100, 50))
    for point in ((130, 40), (130, 60)):
        line.update(at(point))
    for y in (40, 50, 40):
        line.update(at((30, y), number=2))
    assert line.counts == {"left": 0, "right": 0}
    for y in (50, 60):
        line.update(at((30, y), number=2))
    assert line.counts == {"left": 0, "right": 1}
    with pytest.raises(ValueError, match="two different points"):
        LineCounter((1, 1), (1, 1))


def test_json_holds_the_tracked_instances():
    (entry,) = as_json(boxes_as_result(square(0, 0), square(50, 50), class_ids=[1, 2]), [0, 7])
    assert entry["track"] == 7 and entry["class"] == "dog" and entry["box"] == [50, 50, 70, 70]

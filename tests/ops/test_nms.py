"""NMS against a plain greedy loop, and the edges of its contract."""

import keras
import numpy as np
import pytest
from keras import ops

from mrcnn.ops import boxes as box_ops
from mrcnn.ops import nms
from mrcnn.ops.nms import LOWEST, nms_per_group


@pytest.fixture(autouse=True, params=["the backend's", "of static shapes"])
def body(request, monkeypatch):
    """Every test runs the body of other backends too."""
    if request.param == "of static shapes":
        monkeypatch.setitem(nms._BODIES, keras.backend.backend(), nms._static)


def greedy(boxes, scores, iou_threshold):
    """Indices kept of `boxes` [K, 4], best first: the definition, as a loop."""
    kept = []
    for i in np.argsort(-scores, kind="stable"):
        if scores[i] > LOWEST and all(_iou(boxes[i], boxes[j]) <= iou_threshold for j in kept):
            kept.append(i)
    return kept


def _iou(a, b):
    height, width = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(height, 0) * max(width, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def random_boxes(rng, *shape):
    corner, side = rng.uniform(0, 60, (*shape, 2)), rng.uniform(5, 40, (*shape, 2))
    return np.concatenate([corner, corner + side], axis=-1).astype(np.float32)


def run(boxes, scores, **options):
    options = {"max_per_group": 50, "max_total": 50, "iou_threshold": 0.5, **options}
    results = nms_per_group(np.asarray(boxes, np.float32), np.asarray(scores, np.float32), **options)
    return [ops.convert_to_numpy(result) for result in results]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("iou_threshold", [0.0, 0.3, 0.7, 1.0])
def test_equals_a_greedy_loop(shared, iou_threshold):
    rng = np.random.default_rng(3)
    boxes, scores = random_boxes(rng, 2, 1 if shared else 3, 40), rng.normal(size=(2, 3, 40)).astype(np.float32)
    found = run(boxes, scores, max_per_group=10, max_total=25, iou_threshold=iou_threshold)
    for image in range(2):
        rows = []
        for group in range(3):
            own = boxes[image, 0 if shared else group]
            kept = greedy(own, scores[image, group], iou_threshold)[:10]
            rows += [(scores[image, group, i], group, own[i]) for i in kept]
        rows = sorted(rows, key=lambda row: -row[0])[:25]
        count = len(rows)
        assert found[3][image].sum() == count
        np.testing.assert_array_equal(found[3][image], np.arange(25) < count)
        np.testing.assert_array_equal(found[0][image, :count], [row[2] for row in rows])
        np.testing.assert_array_equal(found[1][image, :count], [row[0] for row in rows])
        np.testing.assert_array_equal(found[2][image, :count], [row[1] for row in rows])
        for padded in found[:3]:
            assert not padded[image, count:].any()


def test_overlap_at_the_threshold_is_kept():
    boxes = [[[[0, 0, 2, 1], [0, 0, 1, 1]]]]  # IoU 0.5 exactly
    assert run(boxes, [[[2, 1]]], iou_threshold=0.5)[3].sum() == 2
    assert run(boxes, [[[2, 1]]], iou_threshold=0.49)[3].sum() == 1


def test_groups_do_not_suppress_each_other():
    found = run([[[[0, 0, 9, 9]]]], [[[1], [3], [2]]])
    np.testing.assert_array_equal(found[2][0, :3], [1, 2, 0])
    assert found[3].sum() == 3


def test_boxes_may_be_larger_than_one_and_negative():
    found = run([[[[-50, -40, 500, 1000]]]], [[[0.5]]])
    np.testing.assert_array_equal(found[0][0, 0], [-50, -40, 500, 1000])


def test_negative_scores_are_chosen():
    boxes = [[[[0, 0, 1, 1], [5, 5, 6, 6]], [[0, 0, 1, 1], [7, 7, 8, 8]]]]
    found = run(boxes, [[[-100, -2], [1, -5]]])
    np.testing.assert_array_equal(found[1][0, :4], [1, -2, -5, -100])
    np.testing.assert_array_equal(found[0][0, :4, 0], [0, 5, 7, 0])
    assert found[3].sum() == 4


@pytest.mark.parametrize("score", [LOWEST, -np.inf, np.nan])
def test_padding_is_never_chosen(score):
    found = run([[[[0, 0, 1, 1], [5, 5, 6, 6]]]], [[[score, 1.0]]])
    np.testing.assert_array_equal(found[0][0, 0], [5, 5, 6, 6])
    assert found[3].sum() == 1


@pytest.mark.parametrize("box", [[3, 3, 3, 3], [0, 0, 0, 9], [5, 5, 4, 4], [np.nan, 0, 1, 1]])
def test_boxes_without_area_are_never_chosen(box):
    found = run([[[box, [5, 5, 6, 6]]]], [[[9.0, 1.0]]])
    np.testing.assert_array_equal(found[0][0, 0], [5, 5, 6, 6])
    assert found[3].sum() == 1


def test_boxes_without_area_may_be_kept_and_overlap_nothing():
    boxes = [[[[3, 3, 3, 9], [3, 3, 3, 9], [5, 5, 6, 6]]]]
    found = run(boxes, [[[9.0, 8.0, 1.0]]], keep_empty=True)
    np.testing.assert_array_equal(found[1][0, :3], [9, 8, 1])
    assert found[3].sum() == 3


def test_nothing_to_choose_gives_padding():
    found = run(np.zeros((2, 1, 3, 4)), np.ones((2, 1, 3)), max_total=4)
    for result in found:
        assert result.shape[:2] == (2, 4)
        assert not result.any()


def test_of_equal_scores_the_first_goes_first():
    clusters = np.repeat(np.arange(20), 3) * 20.0
    boxes = np.stack([clusters, clusters, clusters + 10, clusters + 10 + np.tile([0, 1, 2], 20)], axis=-1)
    boxes = np.stack([boxes, boxes + 1000])[None]
    found = run(boxes, np.ones((1, 2, 60)))
    assert found[3].sum() == 40
    np.testing.assert_array_equal(found[0][0, :40], boxes[0, :, ::3].reshape(40, 4))


def test_places_are_those_of_the_kept_boxes():
    rng = np.random.default_rng(1)
    boxes, scores = random_boxes(rng, 2, 3, 40), rng.normal(size=(2, 3, 40)).astype(np.float32)
    kept, kept_scores, groups, valid, places = run(boxes, scores, max_per_group=5, max_total=20, iou_threshold=0.3)
    for image in range(2):
        own = places[image][valid[image]]
        assert 0 < valid[image].sum() < 20 and len(set(own)) == len(own)
        np.testing.assert_array_equal(boxes[image].reshape(-1, 4)[own], kept[image][valid[image]])
        np.testing.assert_array_equal(scores[image].reshape(-1)[own], kept_scores[image][valid[image]])
        np.testing.assert_array_equal(own // 40, groups[image][valid[image]])
        assert not places[image][~valid[image]].any()


def test_kept_boxes_do_not_overlap():
    rng = np.random.default_rng(0)
    boxes, _, _, valid, _ = run(random_boxes(rng, 1, 1, 200), rng.normal(size=(1, 1, 200)), iou_threshold=0.4)
    overlaps = ops.convert_to_numpy(box_ops.iou(boxes[0], boxes[0]))[np.ix_(valid[0], valid[0])]
    assert valid.sum() > 5
    assert np.max(overlaps - np.eye(len(overlaps))) <= 0.4 + 1e-6


def test_other_backends_are_told_what_to_do(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "numpy")
    with pytest.raises(NotImplementedError, match="is not implemented for .* 'numpy'.*KERAS_BACKEND.*tensorflow"):
        run([[[[0, 0, 1, 1]]]], [[[1]]])


def test_bodies_agree_where_boxes_crowd():
    rng = np.random.default_rng(5)
    center, side = rng.uniform(0, 100, (1, 4, 300, 2)), rng.uniform(20, 60, (1, 4, 300, 2))
    boxes = np.concatenate([center - side / 2, center + side / 2], axis=-1).astype(np.float32)
    scores = np.round(rng.normal(size=(1, 4, 300)), 1).astype(np.float32)  # many of them equal
    for found, expected in zip(
        nms._static(boxes, scores, 60, 100, 0.5), nms._tensorflow(boxes, scores, 60, 100, 0.5), strict=True
    ):
        np.testing.assert_array_equal(found, expected)

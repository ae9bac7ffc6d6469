"""Curves, confusion matrix, mistakes and worst images: by hand, against COCO's numbers and against `compute_ap`."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mrcnn.data import rle
from mrcnn.evaluation.analysis import (
    ERRORS,
    confusion_matrix,
    error_breakdown,
    find_mistakes,
    precision_recall,
    worst_images,
)
from mrcnn.evaluation.coco_metrics import KINDS, coco_matches, coco_numbers, interpolated_precision, pair_overlaps
from mrcnn.evaluation.coco_results import Records
from mrcnn.evaluation.matching import compute_ap, compute_ap_range

CAT, DOG = 1, 2
WIDTH = 40


def annotation(image_id, start, stop, class_id, **more):
    """A stripe over the whole height, from one column to another."""
    mask = np.zeros((4, WIDTH), bool)
    mask[:, start:stop] = True
    box = {"bbox": [start, 0, stop - start, 4], "segmentation": rle.encode(mask)}
    return {"image_id": image_id, "category_id": class_id} | box | more


def records(*images, names=("cat", "dog")):
    """From pairs of objects [(start, stop, class id; negative for crowds)] and detections [(..., score)]."""
    truth, found = [], []
    for image_id, (objects, detections) in enumerate(images):
        for start, stop, class_id in objects:
            size = {"area": 4.0 * (stop - start), "iscrowd": int(class_id < 0)}
            truth.append(annotation(image_id, start, stop, abs(class_id), **size))
        found += [annotation(image_id, *place, score=score) for *place, score in detections]
    sizes = [{"id": i, "height": 4, "width": WIDTH} for i in range(len(images))]
    return Records(sizes, dict(enumerate(names, start=1)), truth, found)


def random_records(seed, images=6, classes=3):
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(images):
        starts = rng.integers(0, 30, rng.integers(0, 5))
        objects = [(s, s + rng.integers(2, 10), rng.integers(1, classes + 1)) for s in starts.tolist()]
        objects = [(a, int(b), int(c) * (-1 if rng.random() < 0.1 else 1)) for a, b, c in objects]
        detections = []
        for a, b, c in [*objects, *objects, (3, 30, 1)]:
            a, b = max(0, a + int(rng.integers(-3, 4))), b + int(rng.integers(-2, 3))
            c = abs(c) if rng.random() < 0.7 else int(rng.integers(1, classes + 1))
            if rng.random() < 0.7:
                detections.append((a, max(b, a + 1), c, float(rng.random().__round__(1))))
        made.append((objects, detections))
    made.append(([(0, 9, 1)], []))
    return records(*made, names=[f"class {i}" for i in range(classes)])


def test_a_curve_by_hand():
    curves = precision_recall(records(([(0, 4, CAT), (10, 14, CAT)], [(0, 4, CAT, 0.9), (20, 24, CAT, 0.8),
                                                                        (10, 14, CAT, 0.7)])))  # fmt: skip
    assert list(curves.classes) == ["cat"]  # no dog to be found
    curve = curves.classes["cat"]
    assert curve.objects == 2
    np.testing.assert_array_equal(curve.scores, [0.9, 0.8, 0.7])
    np.testing.assert_allclose(curve.recalls, [0, 0.5, 0.5, 1, 1])
    np.testing.assert_allclose(curve.precisions, [1, 1, 2 / 3, 2 / 3, 0])
    assert curve.area == pytest.approx(0.5 + 0.5 * 2 / 3)
    np.testing.assert_allclose(curve.precision, [1] * 51 + [2 / 3] * 50)
    assert curve.ap == curves.ap == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert (curves.recall[0], curves.recall[50], curves.recall[-1]) == (0, 0.5, 1)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "keypoints"])  # see test_keypoints
@pytest.mark.parametrize("seed", range(3))
def test_curves_are_coco_s(kind, seed):
    made = random_records(seed)
    numbers, per_class = coco_numbers(made, kind)
    curves = precision_recall(made, kind)
    assert curves.ap == pytest.approx(numbers["AP50"], abs=1e-12) and 0 < curves.ap < 1
    assert precision_recall(made, kind, 0.75).ap == pytest.approx(numbers["AP75"], abs=1e-12)
    for class_id, name in made.names.items():
        if name in curves.classes:
            assert curves.classes[name].ap == pytest.approx(per_class[class_id][1], abs=1e-12)
    assert error_breakdown(made, kind).ap == pytest.approx(numbers["AP50"], abs=1e-12)


stripe = st.tuples(st.integers(0, 30), st.integers(1, 9)).map(lambda t: (t[0], t[0] + t[1]))


@settings(deadline=None)
@given(
    st.lists(stripe, min_size=1, max_size=5),
    st.lists(stripe, max_size=2),
    st.lists(st.tuples(stripe, st.integers(0, 9)), max_size=12),
    st.sampled_from(np.linspace(0.5, 0.95, 10).tolist()),
)
def test_compute_ap_agrees(objects, crowds, detections, iou):
    """One image and one class: `compute_ap` is the area under the whole curve, COCO's AP a mean over 101 recalls.

    p never rises. With r = 0, 0.01 ... 1, the sums of p(r) without its first and without its last value enclose the
    area, so that the mean over all of them is 0.01 off at most.
    """
    made, arrays = one_image(objects, crowds, detections)
    curve = precision_recall(made, "mask", iou).classes["cat"]
    ap, precisions, recalls, _ = compute_ap(*arrays, iou_threshold=iou)
    assert ap == pytest.approx(curve.area, abs=1e-12)
    np.testing.assert_allclose(precisions, curve.precisions, atol=1e-12)
    np.testing.assert_allclose(recalls, curve.recalls, atol=1e-12)
    assert abs(curve.ap - curve.area) <= 0.01 + 1e-9


@settings(deadline=None, max_examples=25)
@given(
    st.lists(stripe, min_size=1, max_size=5),
    st.lists(stripe, max_size=2),
    st.lists(st.tuples(stripe, st.integers(0, 9)), max_size=12),
)
@example([(0, 8)], [], [((0, 6), 9)])  # IoU 0.75, one of the thresholds
def test_compute_ap_range_agrees(objects, crowds, detections):
    made, arrays = one_image(objects, crowds, detections)
    numbers, _ = coco_numbers(made, "mask")
    assert abs(numbers["AP"] - compute_ap_range(*arrays, verbose=0)) <= 0.01 + 1e-9


def one_image(objects, crowds, detections):
    """Stripes of one class as records and as the arguments of `compute_ap`."""
    made = records(([(*s, CAT) for s in objects] + [(*s, -CAT) for s in crowds],
                    [(*s, CAT, score / 10) for s, score in detections]))  # fmt: skip
    masks = [rle.decode(a["segmentation"]) for a in made.truth], [rle.decode(a["segmentation"]) for a in made.found]
    truth, found = (np.stack(m, axis=-1) if m else np.zeros((4, WIDTH, 0), bool) for m in masks)
    class_ids = np.array([-CAT if a["iscrowd"] else CAT for a in made.truth])
    scores = np.array([a["score"] for a in made.found])
    boxes = np.ones((len(class_ids), 4)), np.ones((len(scores), 4))  # only rows of zeros would matter
    return made, (boxes[0], class_ids, truth, boxes[1], np.full(len(scores), CAT), scores, found)


def test_interpolated_precision_by_hand():
    np.testing.assert_allclose(interpolated_precision(np.array([False, True]), 1), 0.5)
    np.testing.assert_array_equal(interpolated_precision(np.zeros(0, bool), 3), np.zeros(101))


def test_matches_by_hand():
    made = records(
        ([(0, 10, CAT), (20, 40, -CAT)], [(0, 9, CAT, 0.4), (0, 10, CAT, 0.6), (22, 28, CAT, 0.9)]),
        ([(0, 10, DOG)], [(0, 10, CAT, 0.5)]),
    )
    matches = coco_matches(made)
    assert matches.counted.tolist() == [True, True, False, True]
    assert matches.object.tolist() == [-1, 0, 1, -1]
    assert matches.finder.tolist() == [1, 2, -1]


def test_confusion_by_hand():
    made = records(
        (
            [(0, 10, CAT), (12, 20, DOG), (22, 26, CAT), (30, 40, -DOG)],
            [
                (0, 10, DOG, 0.95),  # the better placed, but the cat there is found by a cat
                (0, 8, CAT, 0.6),
                (12, 20, CAT, 0.9),  # a dog taken for a cat
                (12, 19, CAT, 0.8),  # once more: then there is nothing left that it could be
                (31, 35, DOG, 0.9),  # in a crowd
                (22, 26, CAT, 0.4),  # not sure enough: the cat is missed
            ],
        )
    )
    matrix = confusion_matrix(made)
    assert matrix.names == ["background", "cat", "dog"]
    assert matrix.counts.tolist() == [[0, 1, 1], [1, 1, 0], [0, 1, 0]]
    assert confusion_matrix(made, min_score=0.3).counts.tolist() == [[0, 1, 1], [0, 2, 0], [0, 1, 0]]
    strict = confusion_matrix(made, iou=0.9)
    assert strict.counts.tolist() == [[0, 2, 0], [1, 0, 1], [0, 1, 0]]
    assert (strict.iou, strict.min_score, strict.kind) == (0.9, 0.5, "mask")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "keypoints"])  # see test_keypoints
def test_everything_is_confused_once(kind):
    made = random_records(5)
    counts = confusion_matrix(made, min_score=0, kind=kind).counts
    objects = [a["category_id"] for a in made.truth if not a["iscrowd"]]
    counted = coco_matches(made, kind).counted
    found = [a["category_id"] for a, c in zip(made.found, counted, strict=True) if c]
    assert counts[1:].sum(axis=1).tolist() == [objects.count(i) for i in made.names]
    assert counts[:, 1:].sum(axis=0).tolist() == [found.count(i) for i in made.names]
    assert counts[0, 0] == 0


@pytest.mark.parametrize(
    "detection, label, truth_label",
    [
        ((0, 10, CAT), "correct", "found"),
        ((0, 5, CAT), "correct", "found"),  # IoU 0.5
        ((0, 4, CAT), "localisation", "localisation"),
        ((0, 1, CAT), "localisation", "localisation"),  # IoU 0.1
        ((9, 20, CAT), "background", "missed"),  # IoU 1 / 20
        ((20, 30, CAT), "background", "missed"),
        ((0, 9, DOG), "class", "class"),
        ((0, 4, DOG), "both", "missed"),
        ((9, 20, DOG), "background", "missed"),
    ],
)
@pytest.mark.parametrize("kind", ["box", "mask"])
def test_kinds_of_mistakes(detection, label, truth_label, kind):
    mistakes = find_mistakes(records(([(0, 10, CAT)], [(*detection, 0.9)])), kind)
    assert (mistakes.found, mistakes.truth) == ([label], [truth_label])
    assert mistakes.about.tolist() == [-1 if label in ("both", "background") else 0]


def test_mistakes_about_taken_objects_and_crowds():
    made = records(
        (
            [(0, 10, CAT), (20, 30, -CAT)],
            [(0, 9, CAT, 0.5), (0, 10, CAT, 0.9), (0, 10, DOG, 0.8), (0, 3, CAT, 0.7), (21, 25, CAT, 0.6)],
        ),
        ([], [(0, 10, CAT, 0.5)]),
    )
    mistakes = find_mistakes(made)
    assert mistakes.found == ["duplicate", "correct", "class", "localisation", "ignored", "background"]
    assert mistakes.truth == ["found", "crowd"]


def test_boundary_mistakes_know_small_overlaps():
    """Below 0.5 too the overlap is the boundary's: here 0.2 of it where the masks share more."""

    def square(start, size, **more):
        mask = np.zeros((300, 400), bool)  # a boundary of 10 pixels
        mask[start : start + size, start : start + size] = True
        box = {"bbox": [start, start, size, size], "segmentation": rle.encode(mask)}
        return {"image_id": 0, "category_id": CAT} | box | more

    made = Records([{"id": 0, "height": 300, "width": 400}], {CAT: "cat"},
                   [square(20, 200, area=40000.0, iscrowd=0)], [square(60, 130, score=0.9)])  # fmt: skip
    assert find_mistakes(made, "mask").found == ["localisation"]
    assert pair_overlaps(made.found, made.truth, "boundary", 0.1)[0, 0] == 0
    assert find_mistakes(made, "boundary").found == ["background"]


def test_gains_by_hand():
    made = records(
        ([(0, 10, CAT)], [(0, 4, CAT, 0.9)]),  # localisation
        ([(0, 10, CAT)], [(0, 10, DOG, 0.8)]),  # class
        ([(0, 10, CAT)], [(0, 10, CAT, 0.7), (0, 9, CAT, 0.6)]),  # right, and a duplicate
        ([(0, 10, CAT)], [(20, 30, CAT, 0.95)]),  # background, missed
    )
    breakdown = error_breakdown(made)
    assert breakdown.counts == {"class": 1, "localisation": 1, "both": 0, "duplicate": 1, "background": 1, "missed": 1}
    # Cats in falling order of score: background, localisation, right, duplicate, of 4
    assert breakdown.ap == pytest.approx(26 / 101 / 3)
    gains = {name: gain + breakdown.ap for name, gain in breakdown.gains.items()}
    # Mended: background, right (0.9), right, duplicate: recalls to 1/4 and 1/2 with precision 2/3
    assert gains["localisation"] == pytest.approx(51 / 101 * 2 / 3)
    # Background, localisation, right (0.8), right: 2/4
    assert gains["class"] == pytest.approx(51 / 101 / 2)
    assert gains["duplicate"] == gains["both"] == pytest.approx(breakdown.ap)  # nothing right comes after it
    assert gains["background"] == pytest.approx(26 / 101 / 2)
    assert gains["missed"] == pytest.approx(34 / 101 / 3)  # one of 3 instead of one of 4
    text = str(breakdown)
    assert text.startswith("mask AP at IoU 0.5: 0.086\n") and f"{breakdown.gains['class']:+.3f}" in text
    assert list(breakdown.gains) == list(ERRORS)


def test_one_mistake_an_object_can_be_mended():
    made = records(([(0, 10, CAT)], [(0, 4, CAT, 0.9), (0, 10, DOG, 0.8), (0, 3, CAT, 0.7)]))
    gains = error_breakdown(made).gains
    assert gains["localisation"] == pytest.approx(1)  # the first becomes right, the other vanishes
    assert gains["class"] == 0  # a better detection is about the same object
    assert gains["missed"] == 0


def test_nothing_found():
    made = records(([(0, 10, CAT), (20, 30, DOG)], []))
    breakdown = error_breakdown(made)
    assert breakdown.ap == 0
    assert breakdown.counts == dict.fromkeys(ERRORS, 0) | {"missed": 2}
    assert breakdown.gains == dict.fromkeys(ERRORS, 0) | {"missed": 1}
    assert precision_recall(made).ap == 0
    assert confusion_matrix(made).counts.tolist() == [[0, 0, 0], [1, 0, 0], [1, 0, 0]]
    (worst,) = worst_images(made)
    assert (worst.quality, worst.counts["missed"]) == (0, 2)


def test_all_right():
    made = records(([(0, 10, CAT), (20, 30, DOG)], [(0, 10, CAT, 0.9), (20, 30, DOG, 0.8)]), ([], []))
    breakdown = error_breakdown(made)
    assert breakdown.ap == pytest.approx(1)
    assert list(breakdown.gains.values()) == [pytest.approx(0)] * 6
    assert worst_images(made) == []


def test_worst_images():
    made = records(
        ([(0, 10, CAT)], [(0, 10, CAT, 0.9)]),  # right
        ([(0, 10, CAT)], [(0, 10, CAT, 0.9), (20, 30, CAT, 0.8)]),  # one of two
        ([(0, 10, CAT)], [(0, 10, DOG, 0.9)]),  # a wrong detection, and no right one: 0 of 2
        ([(0, 10, CAT)], []),  # 0 of 1
        ([(0, 10, CAT)], [(0, 10, CAT, 0.9), (0, 10, DOG, 0.3)]),  # right, as far as one can be sure
    )
    worst = worst_images(made, count=3)
    assert [report.image_id for report in worst] == [2, 3, 1]
    assert [report.quality for report in worst] == [0, 0, 0.5]
    assert worst[0].counts == dict.fromkeys(ERRORS, 0) | {"class": 1}
    assert worst[1].counts == dict.fromkeys(ERRORS, 0) | {"missed": 1}
    assert [(a["category_id"], label) for a, label in worst[0].found] == [(DOG, "class")]
    assert [label for _, label in worst[2].truth] == ["found"]
    assert [report.image_id for report in worst_images(made, min_score=0.2)] == [2, 3, 1, 4]
    assert [report.image_id for report in worst_images(made, count=1)] == [2]


def test_bad_input():
    made, empty = records(([(0, 10, CAT)], [])), records(([(0, 10, -CAT)], [(0, 10, CAT, 0.9)]))
    for function in (precision_recall, error_breakdown, find_mistakes, lambda r, k: confusion_matrix(r, kind=k)):
        with pytest.raises(ValueError, match="kind='segm'; choose one of .*'box', 'mask', 'boundary'"):
            function(made, "segm")
    for function in (precision_recall, error_breakdown):
        with pytest.raises(ValueError, match="contain no object"):
            function(empty)
    with pytest.raises(ValueError, match="background_iou=0.1, iou=0.05"):
        find_mistakes(made, iou=0.05)
    with pytest.raises(ValueError, match="count=0"):
        worst_images(made, count=0)

"""Detections by hand, their padding and counts, and against the three original programs."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from mrcnn.layers.detections import Detections
from mrcnn.ops import boxes as box_ops

ORACLES = Path(__file__).resolve().parents[3] / "shared" / "oracles"
ONE = (1.0, 1.0, 1.0, 1.0)
STD_DEV = (0.1, 0.1, 0.2, 0.2)
FAR_APART = [[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]]


def oracle(name):
    if not (ORACLES / name).exists():
        pytest.skip(f"{ORACLES / name} is absent")
    return np.load(ORACLES / name)


def run(rois, probabilities, deltas=None, valid=None, window=(0, 0, 100, 100), **options):
    """Detections of one image -> boxes, class_ids, scores, valid, counts of that image."""
    rois, probabilities = np.array([rois], np.float32), np.array([probabilities], np.float32)
    classes = probabilities.shape[-1]
    options = {"num_classes": classes, "max_instances": 5, "std_dev": ONE, **options}
    deltas = np.zeros((*rois.shape[:2], classes, 4), np.float32) if deltas is None else deltas
    valid = np.ones(rois.shape[:2], bool) if valid is None else np.array([valid])
    results = Detections(**options)(rois, valid, np.log(probabilities), deltas, np.array([window], np.float32))
    return [ops.convert_to_numpy(result)[0] for result in results]


def test_best_stand_first_and_padding_is_zero():
    boxes, class_ids, scores, valid, counts = run(FAR_APART, [[0.2, 0.8, 1e-9], [0.1, 1e-9, 0.9], [1, 1e-9, 1e-9]])
    np.testing.assert_array_equal(boxes[:2], [FAR_APART[1], FAR_APART[0]])
    np.testing.assert_array_equal(class_ids, [2, 1, 0, 0, 0])
    np.testing.assert_allclose(scores, [0.9, 0.8, 0, 0, 0], rtol=1e-5)
    np.testing.assert_array_equal(valid, [True, True, False, False, False])
    np.testing.assert_array_equal(counts, [3, 2, 2, 2])
    assert not boxes[2:].any()


def test_a_roi_may_be_several_classes_or_its_best_only():
    several = run(FAR_APART[:1], [[0.5, 0.3, 0.2]])
    np.testing.assert_array_equal(several[1][:3], [1, 2, 0])
    # The background is the most probable class: nothing is left.
    assert not run(FAR_APART[:1], [[0.5, 0.3, 0.2]], best_class_only=True)[3].any()
    best = run(FAR_APART[:1], [[0.3, 0.2, 0.5]], best_class_only=True)
    np.testing.assert_array_equal(best[1], [2, 0, 0, 0, 0])


def test_nms_is_per_class():
    rois = [[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 8]]
    probabilities = [[0.1, 0.9, 1e-9], [0.2, 0.8, 1e-9], [0.3, 1e-9, 0.7]]
    boxes, class_ids, _, valid, counts = run(rois, probabilities)
    np.testing.assert_array_equal(boxes[:2], [rois[0], rois[2]])
    np.testing.assert_array_equal(class_ids[:2], [1, 2])
    np.testing.assert_array_equal(counts, [3, 3, 2, 2])
    assert run(rois, probabilities, nms_threshold=0.95)[3].sum() == 3


def test_counts_tell_what_fell_where():
    rois = FAR_APART + [[0, 0, 10, 9.5], [60, 60, 60.001, 70], [70, 70, 80, 80]]
    probabilities = [[0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6], [0.2, 0.8], [0.97, 0.03]]
    *_, valid, counts = run(rois, probabilities, max_instances=2, valid=[True, True, True, True, True, True])
    # 6 RoIs; 5 confident; one is a duplicate and one too small; 2 returned
    assert counts[0] == 6 and counts[1] == 5 and counts[3] == 2
    assert valid.sum() == 2
    *_, counts = run(rois, probabilities, max_instances=4)
    np.testing.assert_array_equal(counts, [6, 5, 3, 3])


def test_min_confidence_must_be_exceeded():
    assert run(FAR_APART[:1], [[0.5, 0.5]], min_confidence=0.5)[3].sum() == 0
    assert run(FAR_APART[:1], [[0.5, 0.5]], min_confidence=0.49)[3].sum() == 1


def test_padded_rois_are_no_candidates():
    *_, valid, counts = run(FAR_APART, [[0.1, 0.9]] * 3, valid=[True, False, True])
    np.testing.assert_array_equal(counts, [2, 2, 2, 2])
    assert valid.sum() == 2


def test_deltas_of_the_class_are_used_and_the_window_clips():
    deltas = np.zeros((1, 1, 3, 4), np.float32)
    deltas[0, 0, 0] = 7  # the background's are ignored
    deltas[0, 0, 1] = [0.5, 0, 0, 0]
    deltas[0, 0, 2] = [0, 0, 0, np.log(3)]
    boxes, class_ids, *_ = run([[10, 10, 20, 20]], [[0.1, 0.5, 0.4]], deltas, window=(0, 5, 22, 100))
    np.testing.assert_array_equal(class_ids[:2], [1, 2])
    np.testing.assert_allclose(boxes[:2], [[15, 10, 22, 20], [10, 5, 20, 30]], atol=1e-4)


def test_no_detections_is_all_padding():
    for result in run(FAR_APART, [[1.0, 1e-9]] * 3)[:4]:
        assert not result.any()


def test_many_detections_are_cut_to_the_best():
    rois = [[10 * i, 0, 10 * i + 9, 9] for i in range(9)]
    scores = np.linspace(0.5, 0.9, 9)
    _, _, found, valid, counts = run(rois, np.stack([1 - scores, scores], axis=-1), max_instances=4)
    np.testing.assert_allclose(found, scores[:-5:-1], rtol=1e-5)
    assert valid.all() and counts[3] == 4


def test_symbolic_shapes_and_dtypes():
    layer = Detections(num_classes=4, max_instances=7, std_dev=ONE, dtype="mixed_bfloat16")
    inputs = [
        keras.Input((6, 4)),
        keras.Input((6,), dtype="bool"),
        keras.Input((6, 4)),
        keras.Input((6, 4, 4)),
        keras.Input((4,)),
    ]
    outputs = layer(*inputs)
    assert [output.shape for output in outputs] == [(None, 7, 4), (None, 7), (None, 7), (None, 7), (None, 4)]
    assert [output.dtype for output in outputs] == ["float32", "int32", "float32", "bool", "int32"]
    rng = np.random.default_rng(0)
    values = [
        rng.uniform(0, 50, (2, 6, 4)),
        np.ones((2, 6), bool),
        rng.normal(size=(2, 6, 4)),
        np.zeros((2, 6, 4, 4)),
        np.full((2, 4), [0, 0, 50, 50]),
    ]
    values = [value if value.dtype == bool else value.astype(np.float32) for value in values]
    found = keras.Model(inputs, outputs).predict_on_batch(values)
    for one, other in zip(found, layer(*values), strict=True):
        np.testing.assert_array_equal(one, other)
    assert found[3].any()


def test_another_number_of_classes_is_named():
    with pytest.raises(ValueError, match="class_logits have 2 classes, num_classes is 3"):
        run(FAR_APART, [[0.5, 0.5]] * 3, num_classes=3)


def test_layer_returns_from_its_config_and_stays_out_of_xla():
    layer = Detections(
        num_classes=4,
        max_instances=7,
        min_confidence=0.3,
        nms_threshold=0.4,
        std_dev=(1, 2, 3, 4),
        min_size=3,
        best_class_only=True,
        inclusive=True,
    )
    again = Detections.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert not layer.supports_jit


@pytest.mark.parametrize("image", ["a", "b"])
def test_as_torchvision(image):
    file = oracle(f"torchvision/tv_oracle_{image}_compact.npz")
    _assert_same_detections(file, file["class_logits"], _deltas(file), 1e-2, file["det_labels"])


@pytest.mark.parametrize("image", ["a", "b"])
def test_as_detectron2(image):
    file = oracle(f"detectron2/d2_oracle_R_50_{image}.npz")
    logits = np.concatenate([file["class_logits"][:, -1:], file["class_logits"][:, :-1]], axis=1)  # background last
    deltas = np.concatenate([np.zeros((len(logits), 1, 4), np.float32), _deltas(file)], axis=1)
    _assert_same_detections(file, logits, deltas, 0.0, file["det_classes"] + 1)


def _deltas(file):
    return file["box_regression"].reshape(len(file["proposals"]), -1, 4)[..., [1, 0, 3, 2]]


def _assert_same_detections(file, logits, deltas, min_size, class_ids):
    rois = file["proposals"][:, [1, 0, 3, 2]]
    layer = Detections(num_classes=logits.shape[1], std_dev=STD_DEV, min_size=min_size)
    window = np.array([[0, 0, *file["image_size"]]], np.float32)
    boxes, found_ids, scores, valid, counts = (
        ops.convert_to_numpy(result)[0]
        for result in layer(rois[None], np.ones((1, len(rois)), bool), logits[None], deltas[None], window)
    )
    assert valid.all() and counts[3] == 100 and counts[1] > counts[2] > 100
    np.testing.assert_array_equal(found_ids, class_ids)
    np.testing.assert_allclose(boxes, file["det_boxes_resized"][:, [1, 0, 3, 2]], atol=1e-4)
    np.testing.assert_allclose(scores, file["det_scores"], atol=1e-6)


def test_as_matterport():
    file = oracle("matterport/utils.npz")
    layer = Detections(
        num_classes=5,
        max_instances=50,
        min_confidence=0.4,
        nms_threshold=0.3,
        std_dev=STD_DEV,
        min_size=0,
        best_class_only=True,
        inclusive=True,
    )
    rois = box_ops.to_exclusive(file["pl_proposals"] * 255)
    window = box_ops.to_exclusive(file["rd_window"] * 255)[None]
    logits, deltas = np.log(file["rd_probs"])[None], file["rd_deltas"][None]
    results = layer(rois, np.ones((1, 200), bool), logits, deltas, window)
    boxes, class_ids, scores, *_ = (ops.convert_to_numpy(result)[0] for result in results)
    expected = file["rd_detections"]
    expected = expected[expected[:, 5] > 0]  # without padding; boxes without area are among them
    count = len(expected)
    assert count > 40 and not np.all(expected[:, 2:4] > expected[:, :2])
    boxes = ops.convert_to_numpy(box_ops.to_inclusive(boxes[:count])) / 255
    np.testing.assert_allclose(boxes, expected[:, :4], atol=1e-6)
    np.testing.assert_array_equal(class_ids[:count], expected[:, 4])
    np.testing.assert_allclose(scores[:count], expected[:, 5], atol=1e-6)

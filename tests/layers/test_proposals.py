"""Proposals by hand, their padding, and against the three original programs."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from mrcnn.layers.anchors import pyramid_anchors
from mrcnn.layers.proposals import Proposals, WholeInput
from mrcnn.ops import boxes as box_ops

ORACLES = Path(__file__).resolve().parents[3] / "shared" / "oracles"
SCALES, RATIOS, STRIDES = (32, 64, 128, 256, 512), (0.5, 1, 2), (4, 8, 16, 32, 64)
ONE = (1.0, 1.0, 1.0, 1.0)
FAR_APART = [[0, 0, 9, 9], [20, 0, 29, 9], [40, 0, 49, 9]]


def oracle(name):
    if not (ORACLES / name).exists():
        pytest.skip(f"{ORACLES / name} is absent")
    return np.load(ORACLES / name)


def run(logits, anchors, deltas=None, window=(0, 0, 100, 100), **options):
    """Proposals of one image from lists of rows per level -> rois, valid, scores of that image."""
    options = {"pre_nms_limit": 10, "post_nms_limit": 5, "std_dev": ONE, **options}
    logits = [np.array([level], np.float32) for level in logits]
    anchors = [np.array(level, np.float32) for level in anchors]
    deltas = [np.zeros((1, len(level), 4), np.float32) for level in anchors] if deltas is None else deltas
    results = Proposals(**options)(logits, deltas, anchors, np.array([window], np.float32))
    return [ops.convert_to_numpy(result)[0] for result in results]


def test_best_of_all_levels_stand_first_and_padding_is_zero():
    fine, coarse = [[0, 0, 10, 10], [0, 1, 10, 11], [50, 50, 60, 60]], [[0, 0, 10, 10]]
    rois, valid, scores = run([[2.0, 1.0, -3.0], [5.0]], [fine, coarse])
    # The second box overlaps the first of its own level; the coarse one suppresses nothing on the fine level.
    np.testing.assert_array_equal(rois[:3], [coarse[0], fine[0], fine[2]])
    np.testing.assert_array_equal(scores, [5, 2, -3, 0, 0])
    np.testing.assert_array_equal(valid, [True, True, True, False, False])
    assert not rois[3:].any()


def test_one_nms_over_all_levels():
    rois, valid, scores = run([[2.0], [5.0]], [[[0, 0, 10, 10]], [[0, 0, 10, 9]]], per_level=False)
    np.testing.assert_array_equal(rois[0], [0, 0, 10, 9])
    assert valid.sum() == 1 and scores[0] == 5


def test_pre_nms_limit_is_per_level_or_of_all():
    anchors = [[[0, 0, 9, 9], [20, 0, 29, 9]], [[40, 0, 49, 9], [60, 0, 69, 9]]]
    logits = [[4.0, 3.0], [2.0, 1.0]]
    assert list(run(logits, anchors, pre_nms_limit=1)[2][:3]) == [4, 2, 0]
    assert list(run(logits, anchors, pre_nms_limit=2, per_level=False)[2][:3]) == [4, 3, 0]


def test_post_nms_limit_keeps_the_best():
    anchors = [[[10 * i, 0, 10 * i + 9, 9] for i in range(8)]]
    _, valid, scores = run([np.arange(8.0)], anchors, post_nms_limit=3)
    assert list(scores) == [7, 6, 5] and valid.all()


def test_deltas_move_and_the_window_clips():
    deltas = np.zeros((1, 1, 4), np.float32)
    deltas[0, 0] = [10.0, 0, 0, 5 * np.log(2)]  # center down by a tenth of 10 heights, twice as wide
    rois, _, _ = run([[0.0]], [[[40, 40, 50, 50]]], [deltas], (0, 0, 57, 52), std_dev=(0.1, 0.1, 0.2, 0.2))
    np.testing.assert_allclose(rois[0], [50, 35, 57, 52], atol=1e-4)


def test_small_boxes_go_before_nms():
    # The first is cut to a sliver by the window; it must not take the second with it.
    anchors = [[[0, 95, 10, 115], [0, 100, 10, 120], [0, 0, 10, 0.5]]]
    rois, valid, scores = run([[3.0, 2.0, 1.0]], anchors, window=(0, 0, 100, 100), min_size=1.0)
    assert list(scores[valid]) == [3]
    rois, valid, scores = run([[3.0, 2.0, 1.0]], anchors, window=(0, 0, 100, 100), min_size=0.25)
    assert list(scores[valid]) == [3, 1]


def test_no_proposals_is_all_padding():
    rois, valid, scores = run([[3.0]], [[[200, 200, 210, 210]]])
    assert not valid.any() and not rois.any() and not scores.any()


def test_levels_smaller_than_the_limit_and_sizes_unknown_when_traced():
    rng = np.random.default_rng(0)
    layer = Proposals(pre_nms_limit=6, post_nms_limit=12, std_dev=ONE)
    shapes = [(4, 4), (1, 1)]
    anchors = pyramid_anchors((16, 32), RATIOS, shapes, (8, 16))
    logits = [rng.normal(size=(2, len(level))).astype(np.float32) for level in anchors]
    deltas = [rng.normal(size=(2, len(level), 4)).astype(np.float32) * 0.1 for level in anchors]
    windows = np.array([[0, 0, 32, 32], [0, 0, 20, 32]], np.float32)
    inputs = [
        [keras.Input((None,)) for _ in logits],
        [keras.Input((None, 4)) for _ in deltas],
        [keras.Input((4,)) for _ in anchors],
        keras.Input((4,)),
    ]
    outputs = layer(*inputs)
    assert [output.shape for output in outputs] == [(None, 12, 4), (None, 12), (None, 12)]
    assert [output.dtype for output in outputs] == ["float32", "bool", "float32"]
    # Anchors have no batch axis, which predict would want to be equal: call the model's own function instead.
    traced = keras.Model(inputs, outputs)([logits, deltas, anchors, windows])
    for one, other in zip(traced, layer(logits, deltas, anchors, windows), strict=True):
        np.testing.assert_array_equal(one, other)
    rois, valid, _ = (ops.convert_to_numpy(result) for result in traced)
    assert 0 < valid.sum() <= 2 * (6 + 3)
    assert rois[1, :, [0, 2]].max() <= 20


def test_unknown_sizes_give_the_result_of_known_ones():
    import tensorflow as tf

    rng = np.random.default_rng(1)
    layer = Proposals(pre_nms_limit=5, post_nms_limit=8, std_dev=ONE)
    anchors = pyramid_anchors((16, 32), RATIOS, [(3, 3), (1, 1)], (8, 16))
    logits = [rng.normal(size=(1, len(level))).astype(np.float32) for level in anchors]
    deltas = [np.zeros((1, len(level), 4), np.float32) for level in anchors]
    windows = np.array([[0, 0, 24, 24]], np.float32)

    def spec(*shape):
        return tf.TensorSpec(shape, tf.float32)

    signature = ([spec(None, None)] * 2, [spec(None, None, 4)] * 2, [spec(None, 4)] * 2, spec(None, 4))
    traced = tf.function(lambda *args: layer(*args), input_signature=signature)(logits, deltas, anchors, windows)
    for one, other in zip(traced, layer(logits, deltas, anchors, windows), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_whole_input_is_a_window_of_its_own_size():
    layer = WholeInput()
    windows = layer(np.zeros((2, 64, 96, 3), np.float32))
    np.testing.assert_array_equal(windows, [[0, 0, 64, 96]] * 2)
    assert windows.dtype == "float32"
    image = keras.Input((None, None, 3))
    model = keras.Model(image, layer(image))
    np.testing.assert_array_equal(model.predict_on_batch(np.zeros((1, 32, 160, 3), np.float32)), [[0, 0, 32, 160]])
    assert WholeInput(dtype="mixed_bfloat16")(np.zeros((1, 8, 8, 3))).dtype == "float32"


def test_min_size_zero_keeps_boxes_without_area():
    """matterport's: a box beside the window becomes empty on its edge and stays a proposal; it suppresses nothing."""
    anchors = [[[0, 110, 10, 120], [0, 0, 10, 10], [20, 20, 20, 30]]]
    rois, valid, scores = run([[3.0, 2.0, 1.0]], anchors, min_size=0)
    np.testing.assert_array_equal(rois[valid], [[0, 100, 10, 100], [0, 0, 10, 10], [20, 20, 20, 30]])
    assert list(scores[valid]) == [3, 2, 1]
    rois, valid, _ = run([[3.0, 2.0, 1.0]], anchors)
    np.testing.assert_array_equal(rois[valid], [[0, 0, 10, 10]])


def test_logits_that_are_not_numbers_are_not_chosen():
    rois, valid, scores = run([[np.nan, -3.0, -np.inf]], [FAR_APART])
    np.testing.assert_array_equal(rois[0], FAR_APART[1])
    assert list(scores[valid]) == [-3]


def test_no_gradient_flows_to_the_rpn():
    import tensorflow as tf

    logits, deltas = tf.Variable([[1.0, 2.0]]), tf.Variable(tf.zeros((1, 2, 4)))
    anchors = np.array([[0, 0, 9, 9], [20, 0, 29, 9]], np.float32)
    with tf.GradientTape() as tape:
        rois, _, scores = Proposals(pre_nms_limit=2, post_nms_limit=2, std_dev=ONE)(
            [logits], [deltas], [anchors], np.array([[0, 0, 50, 50]], np.float32)
        )
        total = tf.reduce_sum(rois) + tf.reduce_sum(scores)
    assert tape.gradient(total, [logits, deltas]) == [None, None]


def test_bfloat16_inputs_are_computed_in_float32():
    anchors = np.array([[0, 0, 300.25, 301.5]], np.float32)
    rois, _, scores = Proposals(pre_nms_limit=1, post_nms_limit=1, std_dev=ONE, dtype="mixed_bfloat16")(
        [ops.ones((1, 1), "bfloat16")], [ops.zeros((1, 1, 4), "bfloat16")], [anchors], np.array([[0, 0, 999, 999.0]])
    )
    np.testing.assert_array_equal(rois[0], anchors)
    assert scores.dtype == "float32"


def test_layer_returns_from_its_config_and_stays_out_of_xla():
    layer = Proposals(
        pre_nms_limit=7,
        post_nms_limit=3,
        nms_threshold=0.6,
        std_dev=(1, 2, 3, 4),
        min_size=2,
        per_level=False,
        inclusive=True,
    )
    again = Proposals.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert not layer.supports_jit


def rpn_outputs(file):
    """Logits and deltas of each level of a torch program, in the order of our anchors, and the levels' shapes."""
    logits, deltas, shapes = [], [], []
    for level in range(2, 7):
        objectness, moves = file[f"rpn_objectness_P{level}"], file[f"rpn_deltas_P{level}"]
        shapes.append(objectness.shape[2:])
        logits.append(objectness.transpose(0, 2, 3, 1).reshape(1, -1))
        moves = moves.reshape(3, 4, *shapes[-1]).transpose(2, 3, 0, 1).reshape(1, -1, 4)
        deltas.append(moves[..., [1, 0, 3, 2]])
    return logits, deltas, shapes


@pytest.mark.parametrize(
    "name, rounded, min_size",
    [
        ("torchvision/tv_oracle_a_compact.npz", True, 1e-3),
        ("torchvision/tv_oracle_b_compact.npz", True, 1e-3),
        ("detectron2/d2_oracle_R_50_a.npz", False, 0.0),
        ("detectron2/d2_oracle_R_50_b.npz", False, 0.0),
    ],
)
def test_as_torchvision_and_detectron2(name, rounded, min_size):
    file = oracle(name)
    logits, deltas, shapes = rpn_outputs(file)
    anchors = pyramid_anchors(SCALES, RATIOS, shapes, STRIDES, rounded=rounded)
    layer = Proposals(pre_nms_limit=500, post_nms_limit=200, std_dev=ONE, min_size=min_size)
    rois, valid, scores = layer(logits, deltas, anchors, np.array([[0, 0, *file["image_size"]]], np.float32))
    assert ops.convert_to_numpy(valid).all()
    np.testing.assert_allclose(rois[0], file["proposals"][:, [1, 0, 3, 2]], atol=1e-4)
    if "proposal_logits" in file:
        np.testing.assert_allclose(scores[0], file["proposal_logits"], atol=1e-6)


def test_as_matterport():
    file = oracle("matterport/utils.npz")
    shapes = [tuple(shape) for shape in file["backbone_shapes_256x256"]]
    anchors = pyramid_anchors(SCALES, RATIOS, shapes, STRIDES, ratio_meaning="width/height")
    cuts = np.cumsum([len(level) for level in anchors])[:-1]
    logits = np.log(file["pl_probs"][..., 1]) - np.log(file["pl_probs"][..., 0])
    layer = Proposals(
        pre_nms_limit=6000,
        post_nms_limit=200,
        std_dev=(0.1, 0.1, 0.2, 0.2),
        min_size=0,
        per_level=False,
        inclusive=True,
    )
    logits, deltas = (np.split(values, cuts, axis=1) for values in (logits, file["pl_bbox"]))
    rois, valid, _ = layer(logits, deltas, anchors, np.array([[0, 0, 256, 256.0]]))
    assert ops.convert_to_numpy(valid).all()
    np.testing.assert_allclose(ops.convert_to_numpy(box_ops.to_inclusive(rois)) / 255, file["pl_proposals"], atol=1e-6)

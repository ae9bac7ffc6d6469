"""The five losses against values worked out by hand and against the old package's own numbers."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from keras import ops

from mrcnn.training import losses
from tests import oracles

NUMBERS = st.floats(-30, 30, width=32)


def softplus(x):
    return np.log1p(np.exp(x))


@pytest.fixture(scope="module")
def fixed():
    """The old package's losses on made-up inputs."""
    return oracles.load("matterport/losses.npz")


@pytest.fixture(scope="module")
def step():
    """A training step of the old package's ResNet-50."""
    return oracles.load("matterport/train_r50.npz")


def anchor_labels(match):
    """The old package marks background by -1 and what is not sampled by 0."""
    match = match[..., 0]
    return np.select([match == 1, match == -1], [1, 0], -1)


def unpacked(match, packed):
    """The old package's targets stand packed, in the order of the positive anchors; here each at its own anchor."""
    target = np.zeros((*match.shape[:2], 4), np.float32)
    for image, of_image in enumerate(match[..., 0]):
        target[image, of_image == 1] = packed[image, : (of_image == 1).sum()]
    return target


def of_class(values, class_ids):
    """[batch, rois, ...] of each RoI's own class, the class being the axis after the RoIs."""
    return np.take_along_axis(values, class_ids.reshape(*class_ids.shape, *[1] * (values.ndim - 2)), axis=2)[:, :, 0]


# Smooth L1


@pytest.mark.parametrize(
    "beta, expected",
    [
        (1.0, [0.125, 0.5, 2.5]),
        (0.5, [0.25, 0.75, 2.75]),
        (1 / 9, [0.5 - 1 / 18, 1 - 1 / 18, 3 - 1 / 18]),
        (0.0, [0.5, 1.0, 3.0]),
    ],
)
def test_smooth_l1_by_hand(beta, expected):
    np.testing.assert_allclose(losses.smooth_l1([0.0, 2.0, -1.0], [0.5, 1.0, 2.0], beta), expected, rtol=1e-6)


def test_smooth_l1_equals_the_old_package(fixed):
    np.testing.assert_allclose(
        losses.smooth_l1(fixed["sl1_true"], fixed["sl1_pred"], 1.0), fixed["smooth_l1_loss"], rtol=1e-6
    )


@settings(max_examples=40, deadline=None)
@given(NUMBERS, NUMBERS, st.floats(0.015625, 2, width=32))
def test_smooth_l1_is_symmetric_at_most_l1_and_meets_it_half_a_beta_below(a, b, beta):
    value = float(losses.smooth_l1(a, b, beta))
    assert value == pytest.approx(float(losses.smooth_l1(b, a, beta)))
    assert 0 <= value <= abs(a - b) + 1e-6
    if abs(a - b) >= beta:
        assert value == pytest.approx(abs(a - b) - beta / 2, abs=1e-4)


# RPN


def test_rpn_class_loss_by_hand():
    """An object at logit 2, background at 1, one not sampled at 50."""
    loss = losses.rpn_class_loss(np.array([[1, 0, -1]]), np.array([[2.0, 1.0, 50.0]]))
    assert float(loss) == pytest.approx((softplus(-2) + softplus(1)) / 2, rel=1e-6)


def test_rpn_class_loss_is_one_mean_over_the_batch():
    labels, logits = np.array([[1, 0, 0], [0, -1, -1]]), np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    expected = (softplus(-1) + softplus(2) + softplus(3) + softplus(4)) / 4
    assert float(losses.rpn_class_loss(labels, logits)) == pytest.approx(expected, rel=1e-6)


def test_rpn_class_loss_neither_overflows_nor_loses_digits():
    labels, logits = np.array([[1, 0, 1, 0]]), np.array([[-1e4, 1e4, 20.0, -20.0]], np.float32)
    assert float(losses.rpn_class_loss(labels[:, :2], logits[:, :2])) == pytest.approx(1e4)
    assert float(losses.rpn_class_loss(labels[:, 2:], logits[:, 2:])) == pytest.approx(np.exp(-20), rel=1e-3)


def test_rpn_class_loss_equals_the_old_package(fixed, step):
    """Its softmax over two logits is the sigmoid of their difference."""
    for match, logits, expected in (
        (fixed["rpn_match"], fixed["rpn_class_logits"], fixed["rpn_class_loss"]),
        (step["in_rpn_match"], step["rpn_class_logits"], step["rpn_class_loss"]),
    ):
        loss = losses.rpn_class_loss(anchor_labels(match), logits[..., 1] - logits[..., 0])
        assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_rpn_bbox_loss_by_hand():
    """One positive anchor, 0.5 and 2 off in two coordinates; background and unsampled anchors are far off."""
    labels = np.array([[1, 0, -1, 0]])
    target, predicted = np.zeros((1, 4, 4)), np.full((1, 4, 4), 100.0)
    predicted[0, 0] = [0.5, -2.0, 0.0, 0.0]
    total = 0.125 + 1.5
    sampled = losses.rpn_bbox_loss(labels, target, predicted, beta=1.0, average="sampled")
    positives = losses.rpn_bbox_loss(labels, target, predicted, beta=1.0, average="positives")
    assert float(sampled) == pytest.approx(total / 3)
    assert float(positives) == pytest.approx(total / 4)


def test_rpn_bbox_loss_equals_the_old_package(fixed, step):
    for match, target, predicted, expected in (
        (fixed["rpn_match"], fixed["rpn_target_bbox"], fixed["rpn_bbox"], fixed["rpn_bbox_loss"]),
        (step["in_rpn_match"], step["in_rpn_bbox"], step["rpn_bbox_pred"], step["rpn_bbox_loss"]),
    ):
        loss = losses.rpn_bbox_loss(
            anchor_labels(match), unpacked(match, target), predicted, beta=1.0, average="positives"
        )
        assert float(loss) == pytest.approx(float(expected), rel=1e-5)


# Box head


def test_class_loss_by_hand():
    """Two RoIs that count and one of padding; three classes."""
    logits = np.array([[[1.0, 2.0, 0.0], [0.0, 0.0, 0.0], [9.0, 0.0, 0.0]]])
    loss = losses.mrcnn_class_loss(np.array([[1, 0, 2]]), logits, np.array([[True, True, False]]), np.ones((1, 3)))
    first = -np.log(np.exp(2) / (np.exp(1) + np.exp(2) + 1))
    assert float(loss) == pytest.approx((first + np.log(3)) / 2, rel=1e-6)


def test_classes_that_the_source_does_not_know_are_not_pushed_down():
    """Class 2 leaves the softmax, so its logit changes nothing, and no gradient reaches it."""
    import tensorflow as tf

    active, sampled, class_ids = np.array([[1.0, 1.0, 0.0]]), np.array([[True]]), np.array([[1]])
    logits = tf.Variable([[[0.0, 1.0, 7.0]]])
    with tf.GradientTape() as tape:
        loss = losses.mrcnn_class_loss(class_ids, logits, sampled, active)
    assert float(loss) == pytest.approx(np.log(1 + np.exp(-1)), rel=1e-6)
    gradient = tape.gradient(loss, logits).numpy()[0, 0]
    assert gradient[2] == 0
    assert gradient[0] == pytest.approx(-gradient[1]) and gradient[0] > 0.2


def test_active_classes_are_those_of_each_image():
    logits = np.zeros((2, 1, 4))
    loss = losses.mrcnn_class_loss(
        np.array([[0], [0]]), logits, np.ones((2, 1), bool), np.array([[1, 1, 0, 0], [1, 1, 1, 1]])
    )
    assert float(loss) == pytest.approx((np.log(2) + np.log(4)) / 2, rel=1e-6)


def test_class_loss_equals_the_old_package_where_its_oddities_are_taken_on(fixed, step):
    """There a RoI counts when the class it *predicts* is active in the batch's *first* image, padding included, and
    the softmax is over all classes. So its number is ours over those RoIs, with all classes active."""
    for class_ids, logits, active, expected in (
        (fixed["target_class_ids"], fixed["class_logits"], fixed["active_class_ids"][0], fixed["mrcnn_class_loss"]),
        (step["target_class_ids"], step["mrcnn_class_logits"], step["in_image_meta"][0, -5:], step["mrcnn_class_loss"]),
    ):
        counts = active[logits.argmax(axis=-1)] > 0
        loss = losses.mrcnn_class_loss(class_ids, logits, counts, np.ones((2, 5)))
        assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_box_loss_by_hand():
    positive, sampled = np.array([[True, False, False]]), np.array([[True, True, False]])
    target, predicted = np.zeros((1, 3, 4)), np.ones((1, 3, 4))
    assert float(losses.box_loss(positive, sampled, target, predicted, beta=0, average="sampled")) == 4 / 2
    assert float(losses.box_loss(positive, sampled, target, predicted, beta=0, average="positives")) == 1


def test_box_loss_equals_the_old_package(fixed, step):
    for class_ids, target, predicted, expected in (
        (fixed["target_class_ids"], fixed["target_bbox"], fixed["pred_bbox"], fixed["mrcnn_bbox_loss"]),
        (step["target_class_ids"], step["target_bbox"], step["mrcnn_bbox"], step["mrcnn_bbox_loss"]),
    ):
        loss = losses.box_loss(
            class_ids > 0,
            np.ones_like(class_ids, bool),
            target,
            of_class(predicted, class_ids),
            beta=1.0,
            average="positives",
        )
        assert float(loss) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("average", ["sampled", "positives"])
def test_predictions_on_padding_may_be_anything(average):
    positive = np.array([[True, False]])
    predicted = np.array([[[1.0] * 4, [np.inf, np.nan, -np.inf, 1e38]]], np.float32)
    loss = losses.box_loss(positive, positive, np.zeros((1, 2, 4)), predicted, beta=1.0, average=average)
    assert np.isfinite(float(loss))


# Masks


def test_mask_loss_by_hand():
    """Two RoIs that count, one kept only so that the batch is not empty."""
    target = np.array([[[1, 0], [1, 1]], [[0, 0], [0, 0]], [[1, 1], [1, 1]]])
    probability = np.stack([np.full((2, 2), p) for p in (0.8, 0.5, 0.001)])
    first, second = -(3 * np.log(0.8) + np.log(0.2)) / 4, -np.log(0.5)
    loss = losses.mrcnn_mask_loss(target, probability, np.array([1.0, 1.0, 0.0]))
    assert float(loss) == pytest.approx((first + second) / 2, rel=1e-5)


def test_a_certain_and_wrong_mask_costs_a_finite_price():
    loss = losses.mrcnn_mask_loss(np.ones((1, 2, 2)), np.zeros((1, 2, 2)), np.ones(1))
    assert float(loss) == pytest.approx(-np.log(1e-7), rel=1e-3)


def test_mask_loss_equals_the_old_package(fixed):
    class_ids = fixed["target_class_ids"]
    predicted = of_class(np.moveaxis(fixed["pred_masks"], -1, 2), class_ids)
    positive = class_ids > 0
    loss = losses.mrcnn_mask_loss(fixed["target_masks"][positive], predicted[positive], np.ones(positive.sum()))
    assert float(loss) == pytest.approx(float(fixed["mrcnn_mask_loss"]), rel=1e-5)
    padded = losses.mrcnn_mask_loss(
        fixed["target_masks"].reshape(-1, 28, 28), predicted.reshape(-1, 28, 28), positive.ravel()
    )
    assert float(padded) == pytest.approx(float(loss), rel=1e-6)


def test_mask_loss_equals_the_old_package_in_a_training_step(step):
    positive = step["target_class_ids"] > 0
    shape = step["target_mask_shape"]
    target = np.unpackbits(step["target_mask"], count=shape.prod()).reshape(shape)
    loss = losses.mrcnn_mask_loss(target[positive], step["mrcnn_mask_of_class"][positive], np.ones(positive.sum()))
    assert float(loss) == pytest.approx(float(step["mrcnn_mask_loss"]), rel=1e-5)


# Nothing to learn from


def test_a_batch_without_objects_or_samples_gives_0_everywhere(fixed):
    """As the old package, which returns 0 for the first four too."""
    nothing = np.zeros((2, 3), bool)
    values = {
        "rpn_class_loss_all_neutral": losses.rpn_class_loss(np.full((2, 3), -1), np.ones((2, 3))),
        "rpn_bbox_loss_no_positive": losses.rpn_bbox_loss(
            np.zeros((2, 3)), np.zeros((2, 3, 4)), np.ones((2, 3, 4)), beta=1.0, average="positives"
        ),
        "mrcnn_bbox_loss_no_positive": losses.box_loss(
            nothing, ~nothing, np.zeros((2, 3, 4)), np.ones((2, 3, 4)), beta=1.0, average="positives"
        ),
        "mrcnn_mask_loss_no_positive": losses.mrcnn_mask_loss(np.ones((1, 2, 2)), np.full((1, 2, 2), 0.1), np.zeros(1)),
    }
    assert {name: float(value) for name, value in values.items()} == {name: float(fixed[name]) for name in values}
    assert (
        float(losses.box_loss(nothing, nothing, np.zeros((2, 3, 4)), np.ones((2, 3, 4)), beta=1.0, average="sampled"))
        == 0
    )
    assert float(losses.mrcnn_class_loss(np.zeros((2, 3), int), np.ones((2, 3, 4)), nothing, np.ones((2, 4)))) == 0


def test_gradients_are_0_and_not_nan_where_there_is_nothing_to_learn():
    import tensorflow as tf

    logits, deltas = tf.Variable(tf.ones((1, 3))), tf.Variable(tf.ones((1, 3, 4)))
    masks = tf.Variable(tf.zeros((1, 2, 2)))
    classes = tf.Variable(tf.ones((1, 3, 5)))
    nothing = np.zeros((1, 3), bool)
    with tf.GradientTape() as tape:
        total = (
            losses.rpn_class_loss(np.full((1, 3), -1), logits)
            + losses.box_loss(nothing, nothing, np.zeros((1, 3, 4)), deltas, beta=1 / 9, average="sampled")
            + losses.mrcnn_mask_loss(np.ones((1, 2, 2)), masks, np.zeros(1))
            + losses.mrcnn_class_loss(np.zeros((1, 3), int), classes, nothing, np.ones((1, 5)))
        )
    assert float(total) == 0
    for gradient in tape.gradient(total, [logits, deltas, masks, classes]):
        np.testing.assert_array_equal(gradient, np.zeros(gradient.shape))


def test_half_precision_predictions_give_float32_losses():
    half = ops.cast(np.array([[0.5, -0.25]]), "bfloat16")
    loss = losses.rpn_class_loss(np.array([[1, 0]]), half)
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    assert float(loss) == pytest.approx((softplus(-0.5) + softplus(-0.25)) / 2, rel=1e-6)
    deltas = ops.cast(np.ones((1, 2, 4)), "bfloat16")
    loss = losses.rpn_bbox_loss(np.array([[1, 0]]), np.zeros((1, 2, 4)), deltas, beta=1.0, average="sampled")
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"


@settings(max_examples=40, deadline=None)
@given(
    arrays.arrays(np.int64, (2, 6), elements=st.integers(-1, 1)),
    arrays.arrays(np.float32, (2, 6), elements=NUMBERS),
    st.permutations(range(6)),
)
def test_the_order_of_anchors_does_not_matter_and_a_loss_is_never_negative(labels, logits, order):
    loss = float(losses.rpn_class_loss(labels, logits))
    assert loss >= 0
    assert float(losses.rpn_class_loss(labels[:, order], logits[:, order])) == pytest.approx(loss, rel=1e-5, abs=1e-6)

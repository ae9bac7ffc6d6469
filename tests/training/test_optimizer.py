"""SGD with L2 in the gradient, worked out by hand as torch.optim.SGD does it, and the learning-rate schedules."""

import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrcnn.training.optimizer import SGD, Schedule, decays


def variable(value, name):
    return keras.Variable(np.asarray(value, np.float32), name=name)


def step_by_hand(weight, gradients, *, rate, momentum, l2, clip=None):
    """torch.optim.SGD: d = g + l2 w; v = momentum v + d; w = w - rate v; g clipped to a norm of `clip` before."""
    velocity = np.zeros_like(weight)
    for gradient in gradients:
        if clip is not None:
            gradient = gradient * min(1, clip / np.linalg.norm(gradient))
        velocity = momentum * velocity + gradient + l2 * weight
        weight = weight - rate * velocity
    return weight


def test_three_steps_worked_out_by_hand():
    """w = 1, gradients 0.5, 0, -1, rate 0.1, momentum 0.9, L2 0.2:
    v = 0.7, w = 0.93; v = 0.63 + 0.186 = 0.816, w = 0.8484; v = 0.7344 - 1 + 0.16968 = -0.09592, w = 0.857992."""
    weight = variable([1.0], "kernel")
    optimizer = SGD(0.1, 0.9, l2=0.2)
    for gradient, expected in ((0.5, 0.93), (0.0, 0.8484), (-1.0, 0.857992)):
        optimizer.apply([np.array([gradient], np.float32)], [weight])
        assert float(np.asarray(weight)[0]) == pytest.approx(expected, rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**31),
    st.sampled_from([0.0, 0.5, 0.9]),
    st.sampled_from([0.0, 1e-4, 0.1]),
    st.sampled_from([None, 0.5, 1e6]),
)
def test_any_three_steps_equal_torch_s(seed, momentum, l2, clip):
    rng = np.random.default_rng(seed)
    start, gradients = rng.normal(size=4).astype(np.float32), rng.normal(size=(3, 4)).astype(np.float32)
    weight = variable(start, "kernel")
    optimizer = SGD(0.1, momentum, l2=l2, global_clipnorm=clip)
    for gradient in gradients:
        optimizer.apply([gradient], [weight])
    expected = step_by_hand(start.astype(float), gradients.astype(float), rate=0.1, momentum=momentum, l2=l2, clip=clip)
    np.testing.assert_allclose(weight, expected, rtol=2e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"nesterov": True},
        {"global_clipnorm": 0.5},
        {"use_ema": True},
        {"gradient_accumulation_steps": 2},
        {"dtype": "float64"},
    ],
)
@pytest.mark.parametrize("graph", [False, True])
def test_without_l2_the_steps_are_keras_s(options, graph):
    import tensorflow as tf

    dtype, options = options.get("dtype", "float32"), {k: v for k, v in options.items() if k != "dtype"}
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(2, 3)), rng.normal(size=(4, 2, 3))
    found = []
    for kind in (SGD, keras.optimizers.SGD):
        weight = keras.Variable(start, dtype=dtype, name="kernel")
        optimizer = kind(0.1, 0.9, **options)
        optimizer.build([weight])
        step = tf.function(optimizer.apply) if graph else optimizer.apply
        for gradient in gradients:
            step([tf.constant(gradient, dtype)])
        if options.get("use_ema"):
            optimizer.finalize_variable_values([weight])
        found.append([np.asarray(weight), *(np.asarray(v) for v in optimizer.variables)])
    for new, old in zip(*found, strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-6, atol=1e-7)
    assert not np.allclose(found[0][0], start, atol=0.1)


def test_in_a_graph_the_decay_is_of_the_weight_before_the_step():
    """As in the steps worked out by hand above."""
    import tensorflow as tf

    weight, optimizer = variable([1.0], "kernel"), SGD(0.1, 0.9, l2=0.2)
    optimizer.build([weight])
    step = tf.function(lambda gradient: optimizer.apply([gradient], [weight]))
    for gradient, expected in ((0.5, 0.93), (0.0, 0.8484), (-1.0, 0.857992)):
        step(tf.constant([gradient]))
        assert float(np.asarray(weight)[0]) == pytest.approx(expected, rel=1e-6)


def test_clipping_is_by_the_norm_of_all_gradients_together_and_before_the_decay():
    """Norm of (3) and (4) together is 5, clipped to 1: 0.6 and 0.8. Keras's `clipnorm` would make both 1."""
    first, second = variable([10.0], "kernel"), variable([10.0], "bias")
    SGD(1.0, 0.0, l2=0.5, global_clipnorm=1.0).apply(
        [np.array([3.0], np.float32), np.array([4.0], np.float32)], [first, second]
    )
    np.testing.assert_allclose([np.asarray(first)[0], np.asarray(second)[0]], [10 - 0.6 - 5, 10 - 0.8 - 5], rtol=1e-6)


def test_normalization_does_not_decay_in_fit_and_all_else_does():
    """In a real `fit`, where TensorFlow hands its own variables to the optimizer. The loss has no gradient."""
    model = keras.Sequential(
        [
            keras.Input((4, 4, 2)),
            keras.layers.Conv2D(2, 1),
            keras.layers.BatchNormalization(),
            keras.layers.GroupNormalization(1),
            keras.layers.Flatten(),
            keras.layers.Dense(1),
        ]
    )
    model.set_weights([np.ones_like(w) for w in model.get_weights()])
    model.compile(SGD(0.1, 0.0, l2=0.5), loss=lambda true, predicted: 0.0 * predicted)
    model.fit(np.ones((2, 4, 4, 2)), np.ones((2, 1)), verbose=0)
    values = {
        (layer.name.split("_")[0], weight.name): np.unique(weight)
        for layer in model.layers
        for weight in layer.trainable_weights
    }
    decayed = pytest.approx(1 - 0.1 * 0.5)
    assert values == {
        ("conv2d", "kernel"): decayed,
        ("conv2d", "bias"): decayed,
        ("dense", "kernel"): decayed,
        ("dense", "bias"): decayed,
        ("batch", "gamma"): 1,
        ("batch", "beta"): 1,
        ("group", "gamma"): 1,
        ("group", "beta"): 1,
    }


@pytest.mark.parametrize(
    "name, expected",
    [
        ("kernel", True),
        ("bias", True),
        ("depthwise_kernel", True),
        ("gamma", False),
        ("beta", False),
        ("trunk/bn_conv1/gamma:0", False),
        ("trunk/bn_conv1/beta:0", False),
        ("gamma/kernel:0", True),
    ],
)
def test_what_decays(name, expected):
    class Named:
        pass

    named = Named()
    named.name = name
    assert decays(named) is expected


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sparse_gradients_decay_too(momentum):
    import tensorflow as tf

    weight = variable([[1.0], [1.0]], "kernel")
    gradient = tf.IndexedSlices(tf.constant([[1.0]]), tf.constant([1]), tf.constant([2, 1]))
    SGD(0.1, momentum, l2=0.5).apply([gradient], [weight])
    np.testing.assert_allclose(weight, [[0.95], [0.85]], rtol=1e-6)


def test_the_optimizer_is_rebuilt_from_its_configuration():
    optimizer = SGD(Schedule(0.1, 50, warmup_steps=5), 0.8, l2=0.3, global_clipnorm=2.0)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is SGD
    assert again.get_config() == optimizer.get_config()
    assert again.get_config()["l2"] == 0.3


def rates(schedule, *steps):
    return [float(schedule(np.int64(step))) for step in steps]


def test_warm_up_rises_linearly_from_its_factor():
    schedule = Schedule(2.0, 1000, kind="constant", warmup_steps=100, warmup_factor=0.1)
    assert rates(schedule, 0, 50, 99, 100, 999) == pytest.approx([0.2, 1.1, 1.982, 2.0, 2.0], rel=1e-6)


def test_steps_fall_to_a_tenth_at_each_share_of_the_training():
    schedule = Schedule(1.0, 90, kind="step", milestones=(0.5, 0.9))
    assert rates(schedule, 0, 44, 45, 80, 81, 90, 500) == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01, 0.01], rel=1e-6)


def test_milestones_round_to_the_nearest_step():
    schedule = Schedule(1.0, 12, kind="step", milestones=(0.67,))  # 8.04
    assert rates(schedule, 7, 8) == pytest.approx([1, 0.1], rel=1e-6)


def test_cosine_falls_to_nothing_at_the_end_and_stays_there():
    schedule = Schedule(4.0, 100, kind="cosine")
    expected = [4, 2 * (1 + math.cos(math.pi / 4)), 2, 0, 0]
    assert rates(schedule, 0, 25, 50, 100, 200) == pytest.approx(expected, abs=1e-6)


def test_warm_up_multiplies_what_the_schedule_says():
    schedule = Schedule(1.0, 100, kind="step", warmup_steps=100, warmup_factor=0.0, milestones=(0.5,))
    assert rates(schedule, 25, 50) == pytest.approx([0.25, 0.05], rel=1e-6)


def test_no_warm_up_and_no_milestones_is_constant():
    assert rates(Schedule(0.3, 10, kind="step", milestones=()), 0, 5, 10) == pytest.approx([0.3] * 3)
    assert rates(Schedule(0.3, 0, kind="cosine"), 0) == pytest.approx([0.3])


def test_a_schedule_is_rebuilt_from_its_configuration_and_drives_the_optimizer():
    schedule = Schedule(1.0, 4, kind="step", milestones=(0.5,))
    again = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    assert rates(again, *range(4)) == rates(schedule, *range(4))
    weight, optimizer = variable([0.0], "kernel"), SGD(again, 0.0)
    for expected in (-1.0, -2.0, -2.1, -2.2):
        optimizer.apply([np.ones(1, np.float32)], [weight])
        assert float(np.asarray(weight)[0]) == pytest.approx(expected, rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["constant", "step", "cosine"]), st.integers(1, 500), st.integers(0, 200), st.data())
def test_a_rate_is_never_negative_nor_above_its_base(kind, total, warmup, data):
    schedule = Schedule(0.5, total, kind=kind, warmup_steps=warmup)
    (rate,) = rates(schedule, data.draw(st.integers(0, 2 * total)))
    assert -1e-7 <= rate <= 0.5 + 1e-7

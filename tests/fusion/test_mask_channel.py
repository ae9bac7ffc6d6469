"""Masks of each RoI's own class."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import heads
from mrcnn.fusion.folding import DepthToSpace, fold
from mrcnn.fusion.mask_channel import ClassChannel, UpsampledClassChannel, class_masks
from mrcnn.network.frozen_batch_norm import fixed_norms

RNG = np.random.default_rng(0)


def features(count=5, channels=16):
    return RNG.normal(size=(count, 8, 8, channels)).astype(np.float32)


@pytest.mark.parametrize("name", ["fcn", "unet"])
def test_equal_to_the_head_s_channel(name):
    head = heads.build({"name": name, "filters": 16}, (8, 8, 16), 7)
    head.get_layer("masks").bias.assign(RNG.normal(size=7))
    x, class_ids = features(), np.array([3, 0, 6, 3, 1])
    whole = np.asarray(head(x))
    found = np.asarray(class_masks(head)(x, class_ids))
    np.testing.assert_allclose(found, whole[np.arange(5), :, :, class_ids], atol=1e-6)


def test_no_channel_but_one_is_computed():
    head = heads.build({"name": "fcn", "filters": 16}, (8, 8, 16), 7)
    inputs, ids = keras.Input((8, 8, 16)), keras.Input((), dtype="int32")
    model = keras.Model([inputs, ids], class_masks(head)(inputs, ids))
    called = [node.operation for nodes in model._nodes_by_depth.values() for node in nodes]
    inner = next(layer for layer in model.layers if layer.name == "mask_head_features")
    assert head.get_layer("masks") not in [*called, *inner.layers]
    assert {id(w) for w in model.weights} == {id(w) for w in head.weights}, "it has the weights of the head"


def test_a_folded_head_s_channels_are_not_laid_out_as_pixels():
    """One channel is; its values are the head's."""
    head = heads.build({"name": "fcn", "filters": 16}, (8, 8, 16), 7)
    inputs, ids = keras.Input((8, 8, 16)), keras.Input((), dtype="int32")
    model = keras.Model([inputs, ids], class_masks(fold(head, fixed_norms(training=False)))(inputs, ids))
    assert not [layer for layer in model._flatten_layers() if isinstance(layer, DepthToSpace)]
    x, class_ids = features(), np.array([3, 0, 6, 3, 1])
    np.testing.assert_allclose(model([x, class_ids]), np.asarray(head(x))[np.arange(5), :, :, class_ids], atol=1e-6)
    again = keras.models.clone_model(model)
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(again([x, class_ids]), model([x, class_ids]))


@pytest.mark.parametrize("training", [True, False])
def test_a_sequential_head(training):
    head = keras.Sequential(
        [
            keras.Input((8, 8, 16)),
            layers.Conv2D(8, 3, padding="same"),
            layers.BatchNormalization(),
            layers.Conv2DTranspose(8, 2, strides=2, activation="relu"),
            layers.Conv2D(7, 1, activation="sigmoid"),
        ]
    )
    x, class_ids = features(), np.array([3, 0, 6, 3, 1])
    expected = np.asarray(head(x))[np.arange(5), :, :, class_ids]
    for either in (head, fold(head, fixed_norms(training=training))):
        np.testing.assert_allclose(class_masks(either)(x, class_ids), expected, atol=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_saved_and_loaded(tmp_path, training):
    head = heads.build({"name": "fcn", "filters": 16}, (8, 8, 16), 7)
    inputs, ids = keras.Input((8, 8, 16)), keras.Input((), dtype="int32")
    masks = class_masks(fold(head, fixed_norms(training=training)), training=training)
    model = keras.Model([inputs, ids], masks(inputs, ids))
    model.save(tmp_path / "masks.keras")
    given = features(), np.array([3, 0, 6, 3, 1])
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "masks.keras")(given), model(given))


@pytest.mark.parametrize(
    "last",
    [
        lambda: layers.Conv2D(3, 3, padding="same", activation="sigmoid"),
        lambda: layers.Conv2D(3, 1, activation="softmax"),
        lambda: layers.Conv2DTranspose(3, 2, strides=2, activation="sigmoid"),
    ],
)
def test_other_last_layers_run_whole(last):
    inputs = keras.Input((8, 8, 4))
    head = keras.Model(inputs, last()(inputs))
    x, class_ids = features(2, 4), np.array([2, 0])
    found = class_masks(head)(x, class_ids)
    np.testing.assert_allclose(found, np.asarray(head(x))[[0, 1], :, :, class_ids], atol=1e-6)


def test_values_by_hand():
    inputs = keras.Input((1, 1, 2))
    last = layers.Conv2D(2, 1, activation="sigmoid")
    head = keras.Model(inputs, last(inputs))
    last.set_weights([np.array([[1.0, 3.0], [2.0, 4.0]])[None, None], np.array([0.5, -11.0])])
    x = np.array([[1.0, 2.0], [1.0, 2.0]], np.float32)[:, None, None]
    found = np.asarray(class_masks(head)(x, np.array([0, 1]))).ravel()
    np.testing.assert_allclose(found, [1 / (1 + np.exp(-5.5)), 0.5], rtol=1e-6)


def test_no_bias_and_no_rois():
    inputs = keras.Input((4, 4, 2))
    head = keras.Model(inputs, layers.Conv2D(3, 1, activation="sigmoid", use_bias=False)(inputs))
    assert class_masks(head)(np.zeros((0, 4, 4, 2), np.float32), np.zeros(0, np.int32)).shape == (0, 4, 4)
    half = class_masks(head)(np.zeros((1, 4, 4, 2), np.float32), np.zeros(1, np.int32))
    np.testing.assert_array_equal(half, np.full((1, 4, 4), 0.5))


def test_bfloat16_ends_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        head = heads.build({"name": "fcn", "filters": 16}, (8, 8, 16), 7)
    finally:
        keras.config.set_dtype_policy("float32")
    x, class_ids = features(), np.array([3, 0, 6, 3, 1])
    found = class_masks(head)(x, class_ids)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    np.testing.assert_allclose(found, np.asarray(head(x))[np.arange(5), :, :, class_ids], atol=0.01)


@pytest.mark.parametrize("count", [1, 8, 19])
@pytest.mark.parametrize("bias", [True, False])
def test_the_backward_pass_in_parts_has_the_same_gradients(count, bias):
    """8 RoIs are one part; 19 are two and a rest."""
    inputs = keras.Input((4, 6, 3))
    up = layers.Conv2DTranspose(5, 2, strides=2, activation="relu", use_bias=bias)(inputs)
    head = keras.Model(inputs, layers.Conv2D(7, 1, activation="sigmoid", use_bias=bias)(up))
    for weight in head.weights:
        weight.assign(RNG.normal(size=weight.shape))
    folded = fold(head, fixed_norms(training=True))
    x, class_ids = tf.constant(RNG.normal(size=(count, 4, 6, 3)), tf.float32), RNG.integers(0, 7, count)
    wanted = RNG.normal(size=(count, 8, 12)).astype(np.float32)
    found = []
    for training in (False, True):
        masks = class_masks(folded, training=training)
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(masks(x, class_ids) * wanted)
        found.append([loss, *tape.gradient(loss, [x, *head.trainable_variables])])
    for plain, in_parts in zip(*found, strict=True):
        np.testing.assert_allclose(in_parts, plain, rtol=1e-5, atol=1e-5)


def test_the_backward_pass_of_features_in_bfloat16():
    """A head may keep its last layers in float32 where the network's features are in bfloat16."""
    inputs = keras.Input((4, 6, 3), dtype="bfloat16")
    x = layers.Conv2DTranspose(5, 2, strides=2, activation="relu", dtype="float32")(inputs)
    head = keras.Model(inputs, layers.Conv2D(7, 1, activation="sigmoid", dtype="float32")(x))
    masks = class_masks(fold(head, fixed_norms(training=True)), training=True)
    features, class_ids = tf.constant(RNG.normal(size=(9, 4, 6, 3)), tf.bfloat16), RNG.integers(0, 7, 9)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(features)
        found = tf.reduce_sum(masks(features, class_ids))
        wanted = tf.reduce_sum(tf.gather(head(features), class_ids[:, None, None, None], axis=3, batch_dims=1))
    sources = [features, *head.trainable_variables]
    for one, other in zip(tape.gradient(found, sources), tape.gradient(wanted, sources), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(tf.cast(one, "float32"), tf.cast(other, "float32"), rtol=0.01, atol=1e-4)


def test_the_backward_pass_in_parts_is_used_for_training_alone():
    head = fold(heads.build({"name": "fcn", "filters": 16}, (8, 8, 16), 7), fixed_norms(training=True))
    inputs, ids = keras.Input((8, 8, 16)), keras.Input((), dtype="int32")
    kinds = [
        type(keras.Model([inputs, ids], class_masks(head, training=t)(inputs, ids)).get_layer("masks")) for t in (0, 1)
    ]
    assert kinds == [ClassChannel, UpsampledClassChannel]

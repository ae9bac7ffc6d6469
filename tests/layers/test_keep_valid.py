"""Dropping the padding of a batch."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from mrcnn.layers.keep_valid import KeepValid, trim


def rows(batch, count, width=2):
    return np.arange(batch * count * width, dtype=np.float32).reshape(batch, count, width)


def keep(valid, *arrays):
    kept, image_index, weight = KeepValid()(ops.convert_to_tensor(np.asarray(valid)), list(arrays))
    return [np.asarray(array) for array in kept], np.asarray(image_index), np.asarray(weight)


def test_trim_keeps_what_the_fullest_image_needs():
    valid = np.array([[1, 0, 0, 0], [1, 1, 1, 0]], bool)
    trimmed, array = trim(valid, rows(2, 4))
    np.testing.assert_array_equal(trimmed, valid[:, :3])
    np.testing.assert_array_equal(array, rows(2, 4)[:, :3])


@pytest.mark.parametrize("used, left", [(0, 1), (1, 1), (4, 4)])
def test_trim_with_no_one_and_the_maximum_of_instances(used, left):
    valid = np.arange(4)[None] < used
    trimmed, array = trim(valid, rows(1, 4))
    assert trimmed.shape == (1, left)
    np.testing.assert_array_equal(array, rows(1, 4)[:, :left])


def test_kept_rows_come_image_by_image_with_their_image():
    valid = np.array([[1, 1, 0], [0, 0, 0], [1, 0, 0]], bool)
    (boxes, ids), image_index, weight = keep(valid, rows(3, 3), np.arange(9).reshape(3, 3))
    np.testing.assert_array_equal(ids, [0, 1, 6])
    np.testing.assert_array_equal(boxes, rows(3, 3).reshape(9, 2)[[0, 1, 6]])
    np.testing.assert_array_equal(image_index, [0, 0, 2])
    np.testing.assert_array_equal(weight, [1, 1, 1])


def test_valid_rows_may_stand_between_others():
    (ids,), image_index, _ = keep(np.array([[0, 1, 0], [0, 0, 1]], bool), np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(ids, [1, 5])
    np.testing.assert_array_equal(image_index, [0, 1])


def test_nothing_valid_leaves_one_row_that_does_not_count():
    (ids,), image_index, weight = keep(np.zeros((2, 3), bool), np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(ids, [0])
    np.testing.assert_array_equal(image_index, [0])
    np.testing.assert_array_equal(weight, [0])


def test_all_valid_keeps_all():
    (ids,), image_index, weight = keep(np.ones((2, 3), bool), np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(ids, np.arange(6))
    np.testing.assert_array_equal(image_index, [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(weight, 1)


def test_types_are_kept_and_gradients_flow_to_kept_rows_only():
    import tensorflow as tf

    values = tf.Variable(rows(1, 3))
    with tf.GradientTape() as tape:
        (kept, ids), _, _ = KeepValid()(tf.constant([[True, False, True]]), [values, tf.constant([[1, 2, 3]])])
        total = tf.reduce_sum(kept)
    assert ids.dtype == tf.int32
    gradient = tf.convert_to_tensor(tape.gradient(total, values)).numpy()
    np.testing.assert_array_equal(gradient, [[[1, 1], [0, 0], [1, 1]]])


def test_inside_a_model_the_number_of_rows_follows_the_data():
    valid, boxes = keras.Input((3,), dtype="bool"), keras.Input((3, 2))
    (kept,), image_index, weight = KeepValid()(valid, [boxes])
    model = keras.Model([valid, boxes], [kept, image_index, weight])
    for used in ([[1, 0, 0]], [[1, 1, 1]], [[0, 0, 0]]):
        used = np.array(used, bool)
        kept, _, weight = model.predict_on_batch([used, rows(1, 3)])
        assert kept.shape == (max(used.sum(), 1), 2)
        assert weight.sum() == used.sum()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=4))
def test_any_padding(valid):
    valid = np.array(valid)
    places = np.arange(valid.size).reshape(valid.shape)
    (kept,), image_index, weight = keep(valid, places)
    np.testing.assert_array_equal(kept[weight > 0], places[valid])
    np.testing.assert_array_equal(image_index[weight > 0], np.nonzero(valid)[0])
    assert len(kept) == max(valid.sum(), 1)

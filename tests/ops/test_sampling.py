"""Stateless sampling: the same for the same seed, uniform, and as many as there should be."""

import keras
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mrcnn.ops.sampling import box_keys, sample_balanced, uniform, uniform_of

BINS = 64


def draw(seed, count, salt=0):
    return np.asarray(uniform(np.asarray(seed, np.int32), count, salt))


def sample(positive, negative, priority, count, limit):
    result = sample_balanced(
        *(np.asarray(a)[None] for a in (positive, negative)),
        np.asarray(priority, np.float32)[None],
        count=count,
        positive_limit=limit,
    )
    return [np.asarray(array)[0] for array in result]


def chi_squared(counts):
    expected = counts.sum() / counts.size
    return ((counts - expected) ** 2 / expected).sum()


def test_values_worked_out_by_hand():
    """The hash in Python's own whole numbers, for three seeds, a salt, and the 33rd number of the draw."""

    def mix(bits):
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
            bits = ((bits ^ (bits >> shift)) * factor) % 2**32
        return bits ^ (bits >> 16)

    for seed in (0, 1, 2**31 - 1):
        start = mix((seed + 3 * 7919) * 2654435761 % 2**32)
        assert draw([seed], 33, salt=3)[0, 32] == (mix((start + 32) % 2**32) >> 8) / 2**24


def test_numbers_are_float32_below_one():
    numbers = draw(np.arange(50), 2000)
    assert numbers.dtype == np.float32
    assert numbers.shape == (50, 2000)
    assert numbers.min() >= 0 and numbers.max() < 1


def test_the_same_seed_gives_the_same_numbers_wherever_it_stands_in_the_batch():
    together = draw([5, 9, 5], 100)
    np.testing.assert_array_equal(together[0], together[2])
    np.testing.assert_array_equal(together[1:2], draw([9], 100))
    np.testing.assert_array_equal(together[:, :7], draw([5, 9, 5], 7))


def test_inside_a_compiled_graph_the_numbers_are_the_same():
    seed = keras.Input((), dtype="int32")
    model = keras.Model(seed, uniform(seed, 50, salt=2))
    np.testing.assert_array_equal(model.predict(np.array([3, 4], np.int32), verbose=0), draw([3, 4], 50, salt=2))


def test_uniform_within_a_seed_and_across_seeds():
    """Chi-squared with 63 degrees of freedom: over 120 once in some 80 thousand draws of a perfect generator."""
    for numbers in (draw([1234], 64000), draw(np.arange(64000), 1), draw(np.arange(0, 2**31 - 1, 2**15), 1)):
        assert chi_squared(np.histogram(numbers, BINS, (0, 1))[0]) < 120


def test_neighbors_in_seed_index_and_salt_are_unrelated():
    numbers = draw(np.arange(200), 200)
    pairs = {
        "index": (numbers[:, :-1], numbers[:, 1:]),
        "seed": (numbers[:-1], numbers[1:]),
        "salt": (numbers, draw(np.arange(200), 200, salt=1)),
        "both": (numbers[:-1, 1:], numbers[1:, :-1]),
    }
    for a, b in pairs.values():
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 4 / np.sqrt(a.size)


def test_every_candidate_is_drawn_equally_often():
    seeds = np.arange(4000, dtype=np.int32)
    negative = np.ones((4000, 32), bool)
    indices, _, is_drawn = sample_balanced(~negative, negative, uniform(seeds, 32), count=8, positive_limit=4)
    assert np.asarray(is_drawn).all()
    counts = np.bincount(np.asarray(indices).ravel(), minlength=32)
    assert chi_squared(counts) < 80, "31 degrees of freedom"


def test_positives_first_at_most_the_limit_then_negatives_by_priority():
    indices, is_positive, is_drawn = sample(
        [True, True, True, False, False, False, False],
        [False, False, False, True, True, False, True],
        [0.1, 0.9, 0.5, 0.2, 0.8, 0.99, 0.3],
        count=5,
        limit=2,
    )
    np.testing.assert_array_equal(indices, [1, 2, 4, 6, 3])
    np.testing.assert_array_equal(is_positive, [True, True, False, False, False])
    assert is_drawn.all()


def test_too_few_candidates_leave_undrawn_zeros():
    indices, is_positive, is_drawn = sample(
        [False, True, False], [False, False, True], [0.5, 0.5, 0.5], count=5, limit=2
    )
    np.testing.assert_array_equal(indices, [1, 2, 0, 0, 0])
    np.testing.assert_array_equal(is_positive, [True, False, False, False, False])
    np.testing.assert_array_equal(is_drawn, [True, True, False, False, False])


def test_no_positives_fill_up_with_negatives_and_a_limit_of_none_takes_none():
    for positive, limit in (([False] * 4, 2), ([True, False, False, False], 0)):
        indices, is_positive, is_drawn = sample(positive, np.logical_not(positive), [0.1, 0.2, 0.3, 0.4], 3, limit)
        np.testing.assert_array_equal(indices, [3, 2, 1])
        assert not is_positive.any()
        assert is_drawn.all()


def test_nothing_to_draw():
    nothing = np.zeros(4, bool)
    indices, is_positive, is_drawn = sample(nothing, nothing, np.full(4, 0.5), 3, 2)
    np.testing.assert_array_equal(indices, 0)
    assert not is_positive.any()
    assert not is_drawn.any()


def test_a_priority_of_zero_is_still_drawn():
    indices, is_positive, is_drawn = sample([True, False], [False, True], [0.0, 0.0], 2, 1)
    np.testing.assert_array_equal(indices, [0, 1])
    np.testing.assert_array_equal(is_positive, [True, False])
    assert is_drawn.all()


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=30),
    seed=st.integers(0, 2**31 - 1),
    count=st.integers(1, 20),
    limit=st.integers(0, 20),
)
def test_whatever_the_candidates(labels, seed, count, limit):
    labels, limit = np.array(labels), min(limit, count)
    indices, is_positive, is_drawn = sample(labels == 1, labels == 0, draw([seed], len(labels))[0], count, limit)
    positives = min((labels == 1).sum(), limit)
    assert is_positive.sum() == positives
    assert is_drawn.sum() == min(positives + (labels == 0).sum(), count)
    assert len(set(indices[is_drawn])) == is_drawn.sum(), "nothing twice"
    assert (labels[indices[is_positive]] == 1).all()
    assert (labels[indices[is_drawn & ~is_positive]] == 0).all()
    assert (np.diff(is_positive.astype(int)) <= 0).all(), "positives stand first"
    assert (np.diff(is_drawn.astype(int)) <= 0).all(), "what was not drawn stands last"


def test_boxes_draw_by_where_they_are_not_by_which_others_there_are():
    corners = np.random.default_rng(0).uniform(-500, 1500, (3000, 4)).astype(np.float32)
    seed = np.array([3, 4], np.int32)
    numbers = np.asarray(uniform_of(seed, box_keys(corners), salt=1))
    assert chi_squared(np.histogram(numbers, BINS, (0, 1))[0]) < 120
    some = [7, 2999, 12]
    np.testing.assert_array_equal(np.asarray(uniform_of(seed, box_keys(corners[some]), salt=1)), numbers[:, some])
    assert len(np.unique(np.asarray(box_keys(corners)))) == 3000


def test_neighboring_anchors_draw_unrelated_numbers():
    """Chi-squared over the anchors of a grid, whose corners differ by whole steps."""
    centers = np.stack(np.meshgrid(np.arange(0, 800, 4), np.arange(0, 1088, 4), indexing="ij"), -1).reshape(-1, 2)
    anchors = np.concatenate([centers - 16, centers + 16], axis=1).astype(np.float32)
    numbers = np.asarray(uniform_of(np.array([5], np.int32), box_keys(anchors)))[0]
    assert chi_squared(np.histogram(numbers, BINS, (0, 1))[0]) < 120
    assert abs(np.corrcoef(numbers[1:], numbers[:-1])[0, 1]) < 0.02

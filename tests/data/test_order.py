import numpy as np
import pytest

from mrcnn.data.order import ImageOrder, shape_groups, size_for_all


def order_of(groups, batch_size=2, seed=0, shuffled=True, length=0):
    ids = 10 + np.arange(len(groups))
    return ImageOrder(ids, groups, batch_size=batch_size, seed=seed, shuffled=shuffled, length=length)


def stream(order, count, start=0):
    return np.array([order.image_at(position) for position in range(start, start + count)])


@pytest.mark.parametrize("count", [1, 2, 5, 7, 12])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 8, 20])
def test_every_pass_holds_each_image_once(count, batch_size):
    rng = np.random.default_rng(count)
    order = order_of(rng.integers(0, 3, count), batch_size)
    for number in range(5):
        np.testing.assert_array_equal(np.sort(stream(order, count, number * count)), 10 + np.arange(count))


def test_a_position_depends_on_the_seed_alone():
    groups = np.arange(20) % 3
    first, second = order_of(groups, seed=5), order_of(groups, seed=5)
    second.image_at(100)
    np.testing.assert_array_equal(stream(first, 60), stream(second, 60))
    assert stream(order_of(groups, seed=6), 60).tolist() != stream(first, 60).tolist()
    assert stream(first, 20).tolist() != stream(first, 20, 40).tolist(), "each pass is shuffled anew"


def test_batches_hold_one_group_but_for_the_borders():
    groups = np.repeat(np.arange(4), [7, 9, 11, 13])
    order = order_of(groups, batch_size=4)
    mixed = 0
    for batch in range(30):  # three passes of 40 images
        found = {groups[image - 10] for image in stream(order, 4, 4 * batch)}
        mixed += len(found) > 1
        assert max(found) - min(found) <= 1, "neighboring groups have similar shapes"
    assert 0 < mixed <= 3 * 3


def test_groups_that_meet_between_passes_are_alike():
    """Seven images per pass and batches of two: every second pass starts in the middle of a batch."""
    groups = np.array([0, 0, 1, 1, 2, 2, 2])
    order = order_of(groups, batch_size=2)
    for number in range(1, 9, 2):
        batch = stream(order, 2, 7 * number - 1)
        assert abs(int(groups[batch[0] - 10]) - int(groups[batch[1] - 10])) <= 1


def test_batches_of_a_pass_come_in_random_order():
    groups = np.repeat(np.arange(10), 2)
    order = order_of(groups)
    found = groups[stream(order, 20) - 10]
    assert sorted(found) == sorted(groups) and found.tolist() != sorted(found)


def test_validation_sees_its_first_images_sorted_by_group():
    order = order_of([1, 0, 1, 0, 2], shuffled=False, length=4)
    assert stream(order, 4).tolist() == [11, 13, 10, 12]
    assert stream(order_of([0, 0, 0], shuffled=False, length=4), 4).tolist() == [10, 11, 12, 10], "repeats, in order"
    assert stream(order_of([1, 0], shuffled=False, length=2), 5).tolist() == [11, 10, 10, 11, 10]


@pytest.mark.parametrize("shuffled", [True, False])
def test_alternatives_are_all_images_those_of_the_same_group_first(shuffled):
    groups = np.array([0, 1, 0, 1, 1, 2])
    order = order_of(groups, shuffled=shuffled, length=6)
    for position in range(7):
        found = list(order.alternatives(position))
        assert found[0] == position
        images = [order.image_at(candidate) for candidate in found]
        assert sorted(images) == list(range(10, 16))
        own = groups[images[0] - 10]
        same = [groups[image - 10] == own for image in images]
        assert same == sorted(same, reverse=True)


def test_shapes_are_grouped_from_tall_to_wide():
    sizes = [(800, 1088), None, (1088, 800), (800, 1056), (800, 1344), (800, 800)]
    assert shape_groups(sizes, 128).tolist() == [3, 0, 1, 3, 4, 2]


def test_the_size_that_holds_all():
    assert size_for_all([(800, 1088), (1088, 800)]) == (1088, 1088)
    allowed = [(64, 96), (96, 64), (96, 96), (96, 128)]
    assert size_for_all([(64, 64)], allowed) == (64, 96)
    assert size_for_all([(96, 32), (64, 64)], allowed) == (96, 64)
    with pytest.raises(ValueError, match=r"none of the sizes .* fits network inputs of 128 x 64"):
        size_for_all([(128, 64)], allowed)

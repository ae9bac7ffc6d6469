"""Groups of one size, three steps at the same time, and memory that is used again."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrcnn.inference.pipeline import AHEAD, Buffers, batches, overlapped

LONG = 30  # seconds until a test that would hang fails


@pytest.mark.parametrize(
    "sizes, count, window, groups",
    [
        ("abab", 1, None, [[0], [1], [2], [3]]),
        ("abab", 2, None, [[0, 2], [1, 3]]),
        ("aabba", 2, None, [[0, 1], [2, 3], [4]]),
        ("abcd", 2, None, [[0], [1], [2], [3]]),
        ("abcabc", 2, 4, [[0, 3], [1, 4], [2, 5]]),
        ("abcab", 2, 3, [[0], [1], [2], [3], [4]]),
        ("abcda", 4, 2, [[0], [1], [2], [3], [4]]),
        ("a-a-", 2, None, [[1], [0, 2], [3]]),
        ("", 2, None, []),
    ],
)
def test_groups_by_hand(sizes, count, window, groups):
    """A dash is an item without a size, which waits for nobody."""
    sized = ((i, None if size == "-" else size) for i, size in enumerate(sizes))
    assert list(batches(sized, count, window)) == groups


@given(st.lists(st.sampled_from(["a", "b", "c", None]), max_size=30), st.integers(1, 4), st.none() | st.integers(1, 8))
def test_every_item_is_in_one_group_of_its_own_size(sizes, count, window):
    groups = list(batches(enumerate(sizes), count, window))
    assert sorted(i for group in groups for i in group) == list(range(len(sizes)))
    assert all(len({sizes[i] for i in group}) == 1 and len(group) <= count for group in groups)


def test_a_window_bounds_how_far_is_read():
    read = []

    def sized():
        for i in range(100):
            read.append(i)
            yield i, i  # no two go together

    for group in batches(sized(), 4, 5):
        assert len(read) <= group[0] + 5


def test_one_item_needs_no_threads():
    def step(item):
        return [*item, threading.current_thread()]

    assert list(overlapped([[]], step, step, step)) == [[threading.main_thread()] * 3]
    with pytest.raises(ZeroDivisionError):
        list(overlapped([0], lambda item: item, lambda item: 1 / item, lambda item: item))


def test_steps_of_different_items_run_at_the_same_time():
    """While `run` has item 1, `prepare` has item 2 and `finish` item 0; each waits until the others are there."""
    meeting = threading.Barrier(3, timeout=LONG)

    def step(item, number):
        if item == 1 - number:
            meeting.wait()
        return item

    steps = (lambda i: step(i, -1), lambda i: step(i, 0), lambda i: step(i, 1))
    assert list(overlapped(range(4), *steps)) == [0, 1, 2, 3]


def test_results_keep_their_order_and_run_has_one_thread():
    threads = set()

    def run(item):
        threads.add(threading.current_thread())
        return item + 1

    assert list(overlapped(range(20), lambda i: 10 * i, run, lambda i: -i)) == [-(10 * i + 1) for i in range(20)]
    assert threads == {threading.current_thread()}
    assert list(overlapped([], None, None, None)) == []


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_an_error_of_any_step_comes_out_after_the_results_before_it(failing):
    def step(number):
        def call(item):
            if number == failing and item == 3:
                raise KeyError("item 3")
            return item

        return call

    found = []
    with pytest.raises(KeyError, match="item 3"):
        for item in overlapped(range(100), *map(step, range(3))):
            found.append(item)
    assert found == [0, 1, 2][: len(found)] and len(found) >= 2
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("read", "paste"))]


def test_who_stops_early_leaves_no_thread_and_little_read():
    read = []

    def work():
        for i in range(1000):
            read.append(i)
            yield i

    pipeline = overlapped(work(), *[lambda item: item] * 3)
    assert next(pipeline) == 0
    pipeline.close()
    assert len(read) <= AHEAD + 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("read", "paste"))]


def test_buffers_give_the_same_memory_to_every_shape_that_fits():
    buffers = Buffers()
    first = buffers.take((2, 8, 8, 3))
    assert first.shape == (2, 8, 8, 3) and first.dtype == np.float32 and first.flags.c_contiguous
    start = first.ctypes.data
    buffers.give(first)
    smaller = buffers.take((1, 4, 8, 3))
    assert smaller.shape == (1, 4, 8, 3) and smaller.ctypes.data == start
    other = buffers.take((1, 4, 8, 3))
    assert not np.shares_memory(other, smaller), "one that is in use is given to nobody else"
    buffers.give(smaller)
    buffers.give(other)
    assert buffers.take((100, 8, 8, 3)).shape == (100, 8, 8, 3)
    assert buffers.take((0, 0, 0, 3)).size == 0


def test_buffers_keep_a_few():
    buffers = Buffers()
    taken = [buffers.take((4, 4)) for _ in range(20)]
    for array in taken:
        buffers.give(array)
    assert len(buffers._free) <= AHEAD + 1

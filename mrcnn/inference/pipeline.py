"""Many images through one network: reading and pasting while the network runs, in constant memory."""

import contextlib
import itertools
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

READERS = 2  # threads that decode and resize images
AHEAD = 2  # batches prepared while the network runs
WINDOW = 16  # number of batches' worth of images that are searched for equal sizes
KEPT_BUFFERS = AHEAD + 1


def batches(sized: Iterable[tuple[int, Hashable]], count: int, window: int | None = None) -> Iterator[list[int]]:
    """Groups items of equal size.

    Args:
        sized: (index, size) of each item; read no further than needed. An item without a size (None) is its own group.
        count: items per group; fewer if there are no more items of that size.
        window: maximum number of waiting items; beyond it, the group of the oldest is yielded. None: no limit.

    Yields:
        The indices of each group, as soon as it is complete.
    """
    waiting: dict[Hashable, list[int]] = {}  # in the order of their oldest items
    number = 0
    for index, size in sized:
        if size is None:
            yield [index]
            continue
        waiting.setdefault(size, []).append(index)
        number += 1
        if len(waiting[size]) < count and (window is None or number < window):
            continue
        full = size if len(waiting[size]) == count else next(iter(waiting))
        number -= len(waiting[full])
        yield waiting.pop(full)
    yield from waiting.values()


def overlapped(
    work: Iterable[Any],
    prepare: Callable[[Any], Any],
    run: Callable[[Any], Any],
    finish: Callable[[Any], Any],
    *,
    ahead: int = AHEAD,
) -> Iterator[Any]:
    """finish(run(prepare(item))) of each item, in order; the three steps of different items run in parallel.

    `run` is called in this thread, one item at a time; `prepare` and `finish` in other threads, unless there is only
    one item. Their exceptions are raised here. At most `ahead` items are prepared in advance, and one waits to be
    finished.
    """
    items = iter(work)
    first = list(itertools.islice(items, 2))
    if len(first) < 2:  # nothing overlaps, and each new thread would keep some memory of its own
        yield from (finish(run(prepare(item))) for item in first)
        return
    items = itertools.chain(first, items)
    with ThreadPoolExecutor(READERS, "read") as readers, ThreadPoolExecutor(1, "paste") as finisher:
        prepared: deque[Future] = deque()
        finished: deque[Future] = deque()
        try:
            while True:
                for item in itertools.islice(items, ahead + 1 - len(prepared)):
                    prepared.append(readers.submit(prepare, item))
                if not prepared:
                    break
                output = run(prepared.popleft().result())
                finished.append(finisher.submit(finish, output))
                while len(finished) > 1 or (finished and finished[0].done()):
                    yield finished.popleft().result()
            while finished:
                yield finished.popleft().result()
        finally:  # also when the caller stops early
            for future in [*prepared, *finished]:
                future.cancel()


class Buffers:
    """Reusable float32 memory for network inputs of any size: new pages cost more than the resizing that fills them."""

    def __init__(self) -> None:
        self._free: list[np.ndarray] = []

    def take(self, shape: tuple[int, ...]) -> np.ndarray:
        """An uninitialized array; return it with `give`."""
        size = int(np.prod(shape))
        try:
            memory = self._free.pop()
        except IndexError:
            memory = np.empty(0, np.float32)
        if memory.size < size:
            memory = np.empty(size, np.float32)
        return memory[:size].reshape(shape)

    def give(self, array: np.ndarray) -> None:
        """Takes back an array from `take`; it must not be used afterwards."""
        memory = array
        while isinstance(memory.base, np.ndarray):
            memory = memory.base
        if len(self._free) < KEPT_BUFFERS:
            self._free.append(memory)


def in_background(items: Iterable[Any], size: int) -> Generator[Any, None, None]:
    """The items of an iterable, read in another thread at most `size` ahead. Its exceptions are raised here."""
    waiting: queue.Queue[tuple[str, Any]] = queue.Queue(size)
    stopped = threading.Event()

    def put(kind: str, item: Any) -> bool:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                waiting.put((kind, item), timeout=0.1)
                return True
        return False

    def read() -> None:
        try:
            for item in items:
                if not put("item", item):
                    return
            put("end", None)
        except BaseException as error:
            put("error", error)

    thread = threading.Thread(target=read, name="read ahead", daemon=True)
    thread.start()
    try:
        while True:
            kind, item = waiting.get()
            if kind == "end":
                return
            if kind == "error":
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()

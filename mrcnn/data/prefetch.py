"""Prefetch: prepares the next batches in threads that stop when told to."""

import threading
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Prefetch:
    """Computes the requested item, and the following ones ahead of time, in its own threads.

    Keras's own threads are not used: if a `fit` fails or is interrupted, they wait forever for someone to take their
    batch, which stays in memory.

    Args:
        make: computes the item for a key, in a thread. Its exceptions are raised by `get`.
        workers: number of threads, started by the first `get`.
    """

    def __init__(self, make: Callable[..., Any], workers: int) -> None:
        self._make, self._workers = make, workers
        self._executor: ThreadPoolExecutor | None = None
        self._pending: dict[Hashable, Future] = {}
        self._lock = threading.Lock()
        self.closed = False

    def get(self, key: tuple, following: Iterable[tuple]) -> Any:
        """`make(*key)`; meanwhile starts those of `following`, in order, and drops all others.

        Raises RuntimeError once closed.
        """
        with self._lock:
            self._check_open()
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self._workers, thread_name_prefix="mrcnn_loader")
            begun, self._pending = self._pending, {}
            for wanted in (key, *following):
                made = begun.pop(wanted) if wanted in begun else self._executor.submit(self._make, *wanted)
                self._pending[wanted] = made
            future = self._pending.pop(key)
        for stale in begun.values():
            stale.cancel()
        return future.result()

    def _check_open(self) -> None:
        if self.closed:
            raise RuntimeError("the loader is closed because training has ended; create a new Loader")

    def close(self) -> None:
        """Drops prefetched items and waits for the threads to end; a second call has no effect."""
        with self._lock:
            self.closed = True
            executor, self._executor = self._executor, None
            self._pending = {}
        if executor is not None:
            executor.shutdown(wait=True, cancel_futures=True)

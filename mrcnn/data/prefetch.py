"""Prefetch: the next batches, made ahead in threads that end when they are told to."""

import threading
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Prefetch:
    """Makes what was asked for, and what will be asked for next, in threads of its own.

    Keras's own threads are not used: those of a `fit` that fails or is interrupted wait for ever for somebody to take
    their batch, and hold it.

    Args:
        make: the function of a key, called in a thread. What it raises reaches the caller of `get`.
        workers: number of threads. They start with the first `get`.
    """

    def __init__(self, make: Callable[..., Any], workers: int) -> None:
        self._make, self._workers = make, workers
        self._executor: ThreadPoolExecutor | None = None
        self._pending: dict[Hashable, Future] = {}
        self._lock = threading.Lock()
        self.closed = False

    def get(self, key: tuple, following: Iterable[tuple]) -> Any:
        """`make(*key)`; meanwhile those of `following` are begun, in their order, and all others forgotten.

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
            raise RuntimeError("the loader is closed: its training has ended; make another Loader")

    def close(self) -> None:
        """Drops what was made ahead and waits for the threads to end; a second call does nothing."""
        with self._lock:
            self.closed = True
            executor, self._executor = self._executor, None
            self._pending = {}
        if executor is not None:
            executor.shutdown(wait=True, cancel_futures=True)

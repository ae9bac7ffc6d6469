"""Names of the old package that no longer exist: importing one works, using it raises an error with the replacement."""

from __future__ import annotations

from typing import Any, NoReturn


class RemovedNameError(NotImplementedError):
    """A name of the old package that no longer exists was used; the message says what replaces it."""


class Removed:
    """Replaces a function, class, module or attribute of the old package. Any use of it raises `RemovedNameError`.

    Args:
        name: as written in programs, "modellib.ProposalLayer".
        instead: what replaces it, or why nothing does; the rest of a sentence that starts with the name.
    """

    def __init__(self, name: str, instead: str) -> None:
        self._message = f"{name} of the old package no longer exists: {instead}"

    def _raise(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise RemovedNameError(self._message)

    __call__ = __iter__ = __len__ = __getitem__ = __setitem__ = __contains__ = __enter__ = _raise
    __mro_entries__ = __instancecheck__ = _raise  # for use as a base class and in `isinstance`

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # notebooks, debuggers and `inspect` look these up
            raise AttributeError(name)
        self._raise()

    def __repr__(self) -> str:
        return f"<{self._message}>"

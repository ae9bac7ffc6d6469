"""Ctrl-C during training, reported in one line."""

import sys
from types import TracebackType

ADVICE = 'To continue, call train again; in a new process, first call load_weights("last").'
AGAIN = "Call train again to start over."


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C during `train`. The message says what was saved and how to continue.

    Scripts and notebooks show only the message, without a traceback.
    """

    def __init__(self, state: str, advice: str = ADVICE, saved: bool = True) -> None:
        super().__init__(f"Training was interrupted {state} {advice}")
        self.state = state  # where it stopped and what is saved: "after epoch 3. Saved: ..."
        self.saved = saved  # whether there is anything to continue from
        _Hook.install()

    def _render_traceback_(self) -> list[str]:
        """The lines that IPython shows instead of a traceback."""
        return [str(self)]


class _Hook:
    """A `sys.excepthook` that prints only the message of a TrainingInterrupted; others go to the previous hook."""

    def __init__(self) -> None:
        self.former = sys.excepthook

    @classmethod
    def install(cls) -> None:
        if not isinstance(sys.excepthook, cls):
            sys.excepthook = cls()

    def __call__(self, kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if isinstance(error, TrainingInterrupted):
            print(f"\n{error}", file=sys.stderr)
        else:
            self.former(kind, error, traceback)

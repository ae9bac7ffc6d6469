"""Experiments: mask heads trained from the same initial weights and compared in one table."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mrcnn.experiments.comparison import Task, compare
    from mrcnn.experiments.costs import flops, milliseconds
    from mrcnn.experiments.plan import Stage

__all__ = ["Stage", "Task", "compare", "flops", "milliseconds"]

# Imported on first use, so that `import mrcnn.experiments` stays light.
_HOMES = {
    "Stage": "mrcnn.experiments.plan",
    "Task": "mrcnn.experiments.comparison",
    "compare": "mrcnn.experiments.comparison",
    "flops": "mrcnn.experiments.costs",
    "milliseconds": "mrcnn.experiments.costs",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mrcnn.experiments' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})

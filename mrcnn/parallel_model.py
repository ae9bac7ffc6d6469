"""The import path of the old package's ParallelModel, which no longer exists; see `mrcnn.legacy.names`."""

from typing import Any

from mrcnn.legacy import names


def __getattr__(name: str) -> Any:
    return names.find(__name__, name)

"""Libraries of optional extras, imported on use."""

import importlib
from types import ModuleType


def require(module: str, extra: str) -> ModuleType:
    """Imports a module of an optional extra.

    Raises ImportError with the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.split(".")[0]:
            raise
        raise ImportError(
            f"{module.split('.')[0]} is not installed; run: pip install 'mask-rcnn-keras[{extra}]'"
        ) from error

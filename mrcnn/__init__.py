"""Mask R-CNN on Keras 3, with the mask branch swapped by name."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mrcnn.quiet import quiet_tensorflow

if TYPE_CHECKING:
    from mrcnn.config import Config
    from mrcnn.data.dataset import Dataset
    from mrcnn.data.formats import load_dataset
    from mrcnn.data.images import read_image
    from mrcnn.evaluation import evaluate
    from mrcnn.model import MaskRCNN

__version__ = "0.1.0"
__all__ = ["Config", "Dataset", "MaskRCNN", "evaluate", "load_dataset", "read_image"]

# Imported at first use, so that `import mrcnn` stays light.
_HOMES = {
    "Config": "mrcnn.config",
    "Dataset": "mrcnn.data.dataset",
    "MaskRCNN": "mrcnn.model",
    "evaluate": "mrcnn.evaluation",
    "load_dataset": "mrcnn.data.formats",
    "read_image": "mrcnn.data.images",
}

quiet_tensorflow()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mrcnn' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})

"""The oracles' own module of weights and images; needs neither Keras nor torch."""

import importlib.util
from pathlib import Path
from typing import Any


def seeded(folder: Path) -> Any:
    """The module `seeded.py` in the folder of the oracles."""
    spec = importlib.util.spec_from_file_location("seeded", folder / "seeded.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

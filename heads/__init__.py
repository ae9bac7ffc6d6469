"""Mask heads: one file and one function each, known by name.

Every module beside this one is imported, so a new head is one new file with a function under `@register("its name")`;
no list is kept. A head registered elsewhere, in a notebook cell for instance, is as good. Heads depend on Keras alone.
"""

import importlib
import pkgutil

from heads.registry import build, names, register

__all__ = ["build", "names", "register"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

"""Heads: one file each, known by name.

Every module beside this one is imported, so a new head is one new file with a function or a class under
`@register("its name")`; no list is kept. A head registered elsewhere, such as in a notebook cell, is as good. Heads
depend on Keras alone.
"""

import importlib
import pkgutil

from heads.protocol.head import Head, own_channel
from heads.protocol.losses import cross_entropy, cross_entropy_of_logits, dice, softmax_cross_entropy
from heads.protocol.points import SampleGrid, SampleMap, bilinear, cell_centers, uniform
from heads.protocol.targets import Targets
from heads.registry import build, describe, get, make, names, register

__all__ = [
    "Head",
    "SampleGrid",
    "SampleMap",
    "Targets",
    "bilinear",
    "build",
    "cell_centers",
    "cross_entropy",
    "cross_entropy_of_logits",
    "describe",
    "dice",
    "get",
    "make",
    "names",
    "own_channel",
    "register",
    "softmax_cross_entropy",
    "uniform",
]

for _module in pkgutil.iter_modules(__path__):
    if _module.name != "__main__":
        importlib.import_module(f"{__name__}.{_module.name}")

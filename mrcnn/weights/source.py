"""Source: weights of any program, brought into this network's names, layouts and conventions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

OWN = "this package"
PARTS = ("trunk", "rpn", "box_head", "mask_head")


def fcn_head(filters: int, convolutions: int) -> str | dict[str, Any]:
    """MASK_HEAD of the mask heads of all programs whose weights are imported; its name alone where they are the usual.

    filters: channels of each of the `convolutions` 3x3 convolutions.
    """
    usual = (filters, convolutions) == (256, 4)
    return "fcn" if usual else {"name": "fcn", "filters": filters, "convolutions": convolutions}


class Lazy:
    """A tensor that is read when it is wanted, so that a large file is never in memory twice.

    Args:
        shape: of the array.
        read: returns it; called anew each time.
    """

    def __init__(self, shape: tuple[int, ...], read: Callable[[], np.ndarray]) -> None:
        self.shape, self._read = tuple(shape), read

    def read(self) -> np.ndarray:
        """The array. Raises ValueError when it has another shape than was said."""
        array = np.asarray(self._read())
        if array.shape != self.shape:
            raise ValueError(f"a tensor announced as {self.shape} reads as {array.shape}; the file is damaged")
        return array


@dataclass(frozen=True)
class Source:
    """What an importer makes of a file.

    program: where the weights come from, for messages. tensors: "part/layer/weight" -> array or `Lazy`, as in
    `Network.layers()`. settings: every setting of `Config` that they need. class_names: background first; empty where
    the file does not say. parts: which parts of the network the file can fill.
    """

    program: str
    tensors: Mapping[str, np.ndarray | Lazy]
    settings: dict[str, Any] = field(default_factory=dict)
    class_names: list[str] = field(default_factory=list)
    parts: tuple[str, ...] = PARTS

    @property
    def is_own(self) -> bool:
        """Whether it is a checkpoint of this package."""
        return self.program == OWN

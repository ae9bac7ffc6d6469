"""Source: weights of any program, brought into this network's names, layouts and conventions."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mrcnn.weights import report

OWN = "this package"
PARTS = ("trunk", "rpn", "box_head", "mask_head")
# What files hold beside the weights of a network: counts and momenta of a training, anchors and pixels, which are
# settings here, and the ImageNet classifier behind a trunk.
BESIDE = re.compile(
    r"(.*\.)?num_batches_tracked|.*(_momentum|\.momentum_buffer|\.exp_avg(_sq)?)|lr|weight_order"
    r"|(.*[./_])?anchors([./].*)?|(.*\.)?pixel_(mean|std)"
    r"|(__preserve__/|stem\.|backbone\.(body|bottom_up)\.(stem\.)?)?(fc|fc1000|linear|pred)[._](weight|bias|w|b)"
)


def fcn_head(filters: int, convolutions: int) -> str | dict[str, Any]:
    """MASK_HEAD of the mask heads of all programs whose weights are imported; its name alone where they are the usual.

    filters: channels of each of the `convolutions` 3x3 convolutions.
    """
    usual = (filters, convolutions) == (256, 4)
    return "fcn" if usual else {"name": "fcn", "filters": filters, "convolutions": convolutions}


def left_over(tensors: Mapping[str, Any], used: Collection[str]) -> dict[str, report.Shape]:
    """Name and shape of the tensors of a file that no layer here was made of, and that are weights of a network."""
    return {
        name: tuple(tensor.shape) for name, tensor in tensors.items() if name not in used and not BESIDE.fullmatch(name)
    }


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


Tensor = np.ndarray | Lazy


def read(tensor: Tensor) -> np.ndarray:
    """The numbers of a tensor."""
    return tensor.read() if isinstance(tensor, Lazy) else np.asarray(tensor)


@dataclass(frozen=True)
class Source:
    """What an importer makes of a file.

    Attributes:
        program: where the weights come from, for messages.
        tensors: "part/layer/weight" to array or `Lazy`, as in `Network.layers()`.
        settings: every setting of `Config` that the weights need.
        class_names: background first; empty where the file does not say.
        parts: of the network, those that the file can fill.
        unused: shapes of the weights that no layer of this network is like, by their names in the file; see
            `left_over`.
        notes: what was assumed, in words.
        assumed: settings that the file does not show and that its program has in more than one way; a configuration
            that sets them is right.
    """

    program: str
    tensors: Mapping[str, Tensor]
    settings: dict[str, Any] = field(default_factory=dict)
    class_names: list[str] = field(default_factory=list)
    parts: tuple[str, ...] = PARTS
    unused: Mapping[str, report.Shape] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()

    @property
    def is_own(self) -> bool:
        """Whether it is a checkpoint of this package."""
        return self.program == OWN

    def completed(self, loaded: report.LoadReport) -> report.LoadReport:
        """The report on `tensors` with the file's unused ones among the unexpected, and with the notes."""
        unused = [report.Tensor(name, None, shape) for name, shape in self.unused.items()]
        count = f"{len(unused)} tensors of the file are" if len(unused) > 1 else "1 tensor of the file is"
        notes = (f"{count} of no layer of this network",) if unused else ()
        return loaded._replace(unexpected=loaded.unexpected + unused, notes=(*loaded.notes, *self.notes, *notes))

"""Source: weights of any program, converted to this network's names, layouts and conventions."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mrcnn.data.keypoints import Skeleton
from mrcnn.weights import report

OWN = "this package"
PARTS = ("trunk", "rpn", "box_head", "mask_head")
# What files contain besides network weights: counts and momenta of training, anchors and pixels, which are settings
# here, and the ImageNet classifier behind a trunk.
BESIDE = re.compile(
    r"(.*\.)?num_batches_tracked|.*(_momentum|\.momentum_buffer|\.exp_avg(_sq)?)|lr|weight_order"
    r"|(.*[./_])?anchors([./].*)?|(.*\.)?pixel_(mean|std)"
    r"|(__preserve__/|stem\.|backbone\.(body|bottom_up)\.(stem\.)?)?(fc|fc1000|linear|pred)[._](weight|bias|w|b)"
)


def fcn_head(filters: int, convolutions: int) -> str | dict[str, Any]:
    """The MASK_HEAD setting of an imported plain mask head; only its name if its options are the defaults.

    filters: channels of each of the `convolutions` 3x3 convolutions.
    """
    usual = (filters, convolutions) == (256, 4)
    return "fcn" if usual else {"name": "fcn", "filters": filters, "convolutions": convolutions}


def left_over(tensors: Mapping[str, Any], used: Collection[str]) -> dict[str, report.Shape]:
    """Name and shape of the network weights in a file that no layer here uses."""
    return {
        name: tuple(tensor.shape) for name, tensor in tensors.items() if name not in used and not BESIDE.fullmatch(name)
    }


def keypoint_head(filters: int, convolutions: int, keypoints: int) -> dict[str, Any]:
    """KEYPOINT_HEAD and NUM_KEYPOINTS of a keypoint head, whose arguments are as in `fcn_head`."""
    usual = (filters, convolutions) == (512, 8)
    head = "keypoints" if usual else {"name": "keypoints", "filters": filters, "convolutions": convolutions}
    return {"KEYPOINT_HEAD": head, "NUM_KEYPOINTS": keypoints}


class Lazy:
    """A tensor that is read on demand, so that a large file is never in memory twice.

    Args:
        shape: of the array.
        read: returns it; called every time.
    """

    def __init__(self, shape: tuple[int, ...], read: Callable[[], np.ndarray]) -> None:
        self.shape, self._read = tuple(shape), read

    def read(self) -> np.ndarray:
        """The array. Raises ValueError if its shape is not the declared one."""
        array = np.asarray(self._read())
        if array.shape != self.shape:
            raise ValueError(f"a tensor declared as {self.shape} has shape {array.shape}; the file is damaged")
        return array


Tensor = np.ndarray | Lazy


def read(tensor: Tensor) -> np.ndarray:
    """The numbers of a tensor."""
    return tensor.read() if isinstance(tensor, Lazy) else np.asarray(tensor)


@dataclass(frozen=True)
class Source:
    """The result of importing a file.

    Attributes:
        program: origin of the weights, for messages.
        tensors: "part/layer/weight" -> array or `Lazy`, as in `Network.layers()`.
        settings: every `Config` setting that the weights need.
        class_names: background first; empty if the file does not contain them.
        skeleton: of the keypoints; None if the file does not contain it.
        parts: the network parts for which the file has weights.
        unused: shapes of weights that match no layer of this network, by their names in the file; see `left_over`.
        notes: descriptions of assumptions.
        assumed: settings that the file does not determine and that vary within its program; a configuration that sets
            them takes precedence.
    """

    program: str
    tensors: Mapping[str, Tensor]
    settings: dict[str, Any] = field(default_factory=dict)
    class_names: list[str] = field(default_factory=list)
    parts: tuple[str, ...] = PARTS
    unused: Mapping[str, report.Shape] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    skeleton: Skeleton | None = None

    @property
    def is_own(self) -> bool:
        """Whether it is a checkpoint of this package."""
        return self.program == OWN

    def completed(self, loaded: report.LoadReport) -> report.LoadReport:
        """The report on `tensors`, with the file's unused tensors as unexpected, and with the notes."""
        unused = [report.Tensor(name, None, shape) for name, shape in self.unused.items()]
        count = f"{len(unused)} tensors of the file match" if len(unused) > 1 else "1 tensor of the file matches"
        notes = (f"{count} no layer of this network",) if unused else ()
        return loaded._replace(unexpected=loaded.unexpected + unused, notes=(*loaded.notes, *self.notes, *notes))

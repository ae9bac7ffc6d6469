"""Classes of a model and of a dataset, brought together by their names."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mrcnn.data.coco_classes import coco_names
from mrcnn.inference.results import Result


def names_of(class_names: Sequence[str], num_classes: int) -> list[str]:
    """Names, background first; for weights that come without, COCO's where their number fits, else numbers."""
    return list(class_names) or coco_names(num_classes) or ["BG", *(f"class {i}" for i in range(1, num_classes))]


class InNumbersOf:
    """A model whose detections have the class ids of a dataset; those of classes that it lacks are left out.

    Args:
        model: what detects.
        own: the names of its classes, background first.
        wanted: those of the dataset. What only the dataset has, the model cannot find.

    Raises ValueError when they have no class in common.
    """

    def __init__(self, model: Any, own: Sequence[str], wanted: Sequence[str]) -> None:
        common = set(own[1:]) & set(wanted[1:])
        if not common:
            raise ValueError(
                f"the model knows {list(own[1:6])} ..., the data {list(wanted[1:6])} ...: they have no "
                "class in common. Give the data that the model was trained for, or another model."
            )
        ids = {name: i for i, name in enumerate(wanted)}
        self.wanted = tuple(wanted)
        self.model, self.table = model, np.array([ids[name] if name in common else 0 for name in own], np.int32)

    def detect(self, images: Sequence[Any]) -> list[Result]:
        """As `MaskRCNN.detect`."""
        return [self._renumbered(found) for found in self.model.detect(images)]

    def _renumbered(self, found: Result) -> Result:
        class_ids = self.table[found.class_ids]
        kept = found.keep(class_ids > 0)
        kept["class_ids"] = class_ids[class_ids > 0]
        kept.class_names = self.wanted
        return kept

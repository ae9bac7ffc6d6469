"""Names of a model's classes, and a model whose detections have the class ids of a dataset."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mrcnn.data.coco_classes import coco_names
from mrcnn.inference.results import Result


def names_of(class_names: Sequence[str], num_classes: int) -> list[str]:
    """Class names, background first. Weights without names get COCO's if the number matches, else "class 1" and so on.

    Args:
        class_names: of the model; empty if its weights have none.
        num_classes: NUM_CLASSES of its settings.
    """
    return list(class_names) or coco_names(num_classes) or ["BG", *(f"class {i}" for i in range(1, num_classes))]


class WithClassesOf:
    """A model whose detections have a dataset's class ids; detections of classes that the dataset lacks are omitted.

    Args:
        model: anything with `detect`.
        own: class names of the model, background first.
        wanted: class names of the dataset, background first.

    Raises ValueError if they have no class in common.
    """

    def __init__(self, model: Any, own: Sequence[str], wanted: Sequence[str]) -> None:
        common = set(own[1:]) & set(wanted[1:])
        if not common:
            raise ValueError(
                f"the model knows {own[1:6]} ..., the data {wanted[1:6]} ...: they have no class in common. "
                "Use data that the model was trained for, or another model."
            )
        ids = {name: i for i, name in enumerate(wanted)}
        self.model, self.wanted = model, tuple(wanted)
        self.table = np.array([ids[name] if name in common else 0 for name in own], np.int32)

    def detect(self, images: Sequence[Any]) -> list[Result]:
        """As `MaskRCNN.detect`."""
        return [self._renumbered(found) for found in self.model.detect(images)]

    def _renumbered(self, found: Result) -> Result:
        class_ids = self.table[found.class_ids]
        kept = found.keep(class_ids > 0)
        kept["class_ids"] = class_ids[class_ids > 0]
        kept.class_names = self.wanted
        return kept

"""Pictures whose pixels are numbers of instances: what is in them, and a dataset that reads each of them once."""

import os
import threading

import numpy as np

from mrcnn.data.annotations import problems
from mrcnn.data.annotations.annotated import AnnotatedDataset, Instance
from mrcnn.data.annotations.folders import same_size
from mrcnn.data.annotations.outlines import read_values

MOST = 10_000  # different values in a picture; a photograph has more, no picture of instances
SHORT = 2**16  # values below it are counted in a table


class InstanceIdDataset(AnnotatedDataset):
    """Instances that share a picture, each with a value of its own; the picture is read once for all of them."""

    def __init__(self, file: str | os.PathLike = "", strict: bool = True) -> None:
        super().__init__(file, strict)
        self._last = threading.local()  # path and regions of the picture that this thread read last

    def _fill(self, image_id: int, instance: Instance) -> tuple:
        try:
            region = self._regions(image_id, instance.outline.path).get(instance.outline.value)
        except (ValueError, OSError):
            region = None
        return region or super()._fill(image_id, instance)  # which says what is wrong

    def _regions(self, image_id: int, path: str) -> dict[int, tuple]:
        if getattr(self._last, "path", None) != path:
            values, info = read_values(path), self.image_info[image_id]
            if values.shape != (info["height"], info["width"]):
                return {}
            self._last.regions, self._last.path = regions(values), path
        return self._last.regions


def ranked(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different values of a picture [H, W], ascending, and the rank of each pixel's among them, [H, W] int."""
    if not 0 <= values.min(initial=0) <= values.max(initial=0) < SHORT:
        found, ranks = np.unique(values, return_inverse=True)
        return found, ranks.reshape(values.shape)
    counts = np.bincount(values.ravel())
    found = np.flatnonzero(counts)
    table = np.zeros(len(counts), np.int32)
    table[found] = np.arange(len(found))
    return found, table[values]


def values_in(values: np.ndarray) -> list[int]:
    """The different values of a picture, 0 aside, ascending."""
    if not 0 <= values.min(initial=0) <= values.max(initial=0) < SHORT:
        return [value for value in np.unique(values).tolist() if value]
    return [value for value in np.flatnonzero(np.bincount(values.ravel())).tolist() if value]


def regions(values: np.ndarray) -> dict[int, tuple]:
    """(y1, x1, y2, x2, bits of the mask inside) of the pixels of each value [H, W] but 0."""
    from scipy.ndimage import find_objects

    numbers, ranks = ranked(values)
    ranks = ranks + 1  # find_objects passes over 0
    found = {}
    for rank, (number, (rows, columns)) in enumerate(zip(numbers.tolist(), find_objects(ranks), strict=True), 1):
        if number:
            bits = np.packbits(ranks[rows, columns] == rank, axis=1)
            found[number] = rows.start, columns.start, rows.stop, columns.stop, bits
    return found


def read_numbers(
    dataset: AnnotatedDataset, path: str, record: str, image: str, size: tuple[int, int] | None
) -> np.ndarray | None:
    """The values [H, W] int32 of a picture of instances; None when it is broken, and reading goes on.

    size: (height, width) of its image; None when that is unreadable.
    """
    if not same_size(dataset, path, record, image, size):
        return None
    try:
        values = read_values(path)
        count = len(values_in(values))
    except ValueError as error:
        dataset.problems.broken(path, record, "pixels", str(error), problems.UNREADABLE)
        return None
    if count > MOST:
        dataset.problems.broken(
            path,
            record,
            "pixels",
            f"it has {count} different values, too many for numbers of "
            "instances; is it a photograph, or drawn with smooth edges?",
        )
        return None
    return values

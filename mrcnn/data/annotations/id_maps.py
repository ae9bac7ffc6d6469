"""Instance maps, whose pixel values are instance ids: their contents, and a dataset that reads each map once."""

import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from mrcnn.data import rle
from mrcnn.data.annotations import problems
from mrcnn.data.annotations.annotated import AnnotatedDataset, Instance
from mrcnn.data.annotations.folders import mask_size
from mrcnn.data.annotations.outlines import MaskFile, Runs, read_values

MOST = 10_000  # maximum number of distinct values; only natural images have more
SHORT = 2**16  # values below it are counted in a table
SAMPLE = 50  # number of maps to search for separate pieces
CRUMB = 5  # pixels
PIECES = "number in several pieces"


class InstanceIdDataset(AnnotatedDataset):
    """Instances stored as values of a shared map, which is read once for all of them."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._last = threading.local()  # path and regions of the map this thread read last

    def _fill(self, image_id: int, instance: Instance) -> tuple:
        region, outline = None, instance.outline
        if isinstance(outline, MaskFile) and outline.value is not None:
            try:
                region = self._regions(image_id, outline.path).get(outline.value)
            except (ValueError, OSError):
                region = None
        return region or super()._fill(image_id, instance)  # which reports what is wrong

    def _regions(self, image_id: int, path: str) -> dict[int, tuple]:
        if getattr(self._last, "path", None) != path:
            values, info = read_values(path), self.image_info[image_id]
            if values.shape != (info["height"], info["width"]):
                return {}
            self._last.regions, self._last.path = regions(values), path
        return self._last.regions


def ranked(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct values of a map [H, W], ascending, and the rank of each pixel's value, [H, W] int."""
    if not 0 <= values.min(initial=0) <= values.max(initial=0) < SHORT:
        found, ranks = np.unique(values, return_inverse=True)
        return found, ranks.reshape(values.shape)
    counts = np.bincount(values.ravel())
    found = np.flatnonzero(counts)
    table = np.zeros(len(counts), np.int32)
    table[found] = np.arange(len(found))
    return found, table[values]


def values_in(values: np.ndarray) -> list[int]:
    """The distinct nonzero values of a map, ascending."""
    if not 0 <= values.min(initial=0) <= values.max(initial=0) < SHORT:
        return [value for value in np.unique(values).tolist() if value]
    return [value for value in np.flatnonzero(np.bincount(values.ravel())).tolist() if value]


def regions(values: np.ndarray) -> dict[int, tuple]:
    """(y1, x1, y2, x2, packed bits of the mask inside the box) of each nonzero value in [H, W]."""
    from scipy.ndimage import find_objects

    numbers, ranks = ranked(values)
    ranks = ranks + 1  # find_objects skips 0
    found = {}
    for rank, (number, (rows, columns)) in enumerate(zip(numbers.tolist(), find_objects(ranks), strict=True), 1):
        if number:
            bits = np.packbits(ranks[rows, columns] == rank, axis=1)
            found[number] = rows.start, columns.start, rows.stop, columns.stop, bits
    return found


def read_numbers(
    dataset: AnnotatedDataset, path: str, record: str, image: str, fitting: Collection[tuple[int, int]]
) -> np.ndarray | None:
    """The values [H, W] int32 of an instance map; None, and an error, if it is invalid.

    fitting: the (height, width) it may have, see `mask_size`.
    """
    if mask_size(dataset, path, record, image, fitting) is None:
        return None
    try:
        values = read_values(path)
        count = len(values_in(values))
    except (OSError, ValueError) as error:
        dataset.problems.broken(path, record, "pixels", str(error), problems.UNREADABLE, images=1, instances=0)
        return None
    if count > MOST:
        dataset.problems.broken(
            path,
            record,
            "pixels",
            f"it has {count} distinct values, too many for instance ids; "
            "is it a natural image, or drawn with smooth edges?",
            images=1,
            instances=0,
        )
        return None
    return values


def pieces_of(values: np.ndarray) -> dict[int, list[np.ndarray]]:
    """The connected pieces [pixels] of each nonzero value, largest first, as flat pixel indices.

    Pieces smaller than a hundredth of the largest, or than `CRUMB` pixels, are merged into the largest.
    """
    from skimage.measure import label

    numbered = label(values, background=0, connectivity=2).ravel()
    order = np.argsort(numbered, kind="stable")
    bounds = np.searchsorted(numbered[order], np.arange(1, numbered.max(initial=0) + 2))
    found: dict[int, list[np.ndarray]] = {}
    for start, end in zip(bounds[:-1], bounds[1:], strict=True):
        places = order[start:end]
        found.setdefault(int(values.flat[places[0]]), []).append(places)
    for pieces in found.values():
        pieces.sort(key=len, reverse=True)
        least = max(len(pieces[0]) / 100, min(CRUMB, len(pieces[0])))
        crumbs = [piece for piece in pieces if len(piece) < least]
        del pieces[len(pieces) - len(crumbs) :]
        pieces[0] = np.sort(np.concatenate([pieces[0], *crumbs]))
    return dict(sorted(found.items()))


def piece_outline(places: np.ndarray, height: int, width: int) -> Runs:
    """The outline of pixels given as flat indices."""
    rows, columns = np.divmod(places, width)
    top, left = rows.min(), columns.min()
    part = np.zeros((rows.max() - top + 1, columns.max() - left + 1), bool)
    part[rows - top, columns - left] = True
    return Runs(rle.encode_box(part, int(top), int(left), height, width))


def check_single(dataset: AnnotatedDataset, maps: Mapping[str, str], numbers: Mapping[str, Sequence[int]]) -> bool:
    """Whether values are instance ids, judged from a sample; an error if they look like classes.

    A class usually has several pieces in an image. Most instances have one, are numbered 1, 2, ... in each image, and
    are split only where something is in front of them.

    Args:
        maps: paths of the maps by name. numbers: the values in each.
    """
    names = [name for name in maps if numbers.get(name)]
    names = names[:: max(1, len(names) // SAMPLE)]
    split: dict[int, int] = {}
    seen: dict[int, int] = {}
    for name in names:
        for number, pieces in pieces_of(read_values(maps[name])).items():
            seen[number] = seen.get(number, 0) + 1
            split[number] = split.get(number, 0) + (len(pieces) > 1)
    total, several = sum(seen.values()), sum(split.values())
    counted = sum(list(numbers[name]) == list(range(1, len(numbers[name]) + 1)) for name in names)
    few = len(seen) == 1 and len(names) > 1
    if not total or several / total < (0.1 if few or counted < len(names) / 2 else 0.5):
        return True
    number = max(split, key=lambda key: (split[key], -key))
    dataset.problems.broken(
        dataset.file,
        f"value {number}",
        "pixels",
        f"it has several pieces in {split[number]} of {seen[number]} images; is it a class? separate=True makes each "
        "piece an instance, separate=False each value",
        PIECES,
        images=0,
        instances=sum(map(len, numbers.values())),
    )
    return False

"""The order of a dataset's images in training: shuffled passes, with images of similar shape together.

A batch is padded to its largest image, so images of similar aspect ratio in one batch need little padding (Detectron2
and torchvision group them into landscape and portrait; here the groups are finer).
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

Size = tuple[int, int]


class ImageOrder:
    """Maps positions of an endless stream to images; batch i takes `batch_size` positions from i * batch_size.

    Training: passes over the dataset, each shuffled by (seed, pass number) and containing each image once. Images of a
    group share batches, except for at most one batch between neighboring groups and those at the border of two
    passes. Validation (`shuffled=False`): the images in dataset order; the first `length` positions, which repeat, are
    sorted by group.

    Args:
        ids: image ids.
        groups: the group number of each image; close numbers mean similar shapes.
        length: number of positions used for validation.
    """

    def __init__(
        self,
        ids: Sequence[int] | np.ndarray,
        groups: Sequence[int] | np.ndarray,
        *,
        batch_size: int,
        seed: int,
        shuffled: bool,
        length: int = 0,
    ) -> None:
        self.ids, self.groups = np.asarray(ids), np.asarray(groups)
        self.batch_size, self.seed, self.shuffled, self.length = batch_size, seed, shuffled, length
        self._pass = lru_cache(maxsize=4)(self._shuffle)
        if not shuffled:
            places = np.arange(length) % len(self.ids)
            self._validation = places[np.argsort(self.groups[places], kind="stable")]

    def __len__(self) -> int:
        """Number of images per pass."""
        return len(self.ids)

    def image_at(self, position: int) -> int:
        """The id of the image at a position."""
        return int(self.ids[self.place_at(position)])

    def alternatives(self, position: int) -> Iterator[int]:
        """The positions of all images, each once, starting at this one: its own group first, then the others."""
        seen: set[int] = set()
        group = self.groups[self.place_at(position)]
        # The rest of this pass and the next one together contain every image
        for same in (True, False):
            for candidate in range(position, position + 2 * len(self)):
                place = self.place_at(candidate)
                if place not in seen and (self.groups[place] == group) == same:
                    seen.add(place)
                    yield candidate

    def place_at(self, position: int) -> int:
        """The index in `ids` of the image at a position."""
        if not self.shuffled:
            return int(self._validation[position] if position < self.length else position % len(self))
        number, place = divmod(position, len(self))
        return int(self._pass(number)[place])

    def _shuffle(self, number: int) -> np.ndarray:
        """The image indices in the order of a pass."""
        rng = np.random.default_rng([self.seed, 0, number])
        order = rng.permutation(len(self))
        if (self.groups == self.groups[0]).all():
            return order
        # Every second pass runs from the last group to the first, so that similar groups meet between passes
        order = order[np.argsort(self.groups[order] * (-1) ** number, kind="stable")]
        head = -number * len(self) % self.batch_size  # images that complete the previous pass's last batch
        count = max(0, len(self) - head) // self.batch_size
        batches = order[head : head + count * self.batch_size].reshape(count, self.batch_size)
        tail = order[head + count * self.batch_size :]
        return np.concatenate([order[:head], rng.permutation(batches).ravel(), tail])


def shape_groups(sizes: Sequence[Size | None], unit: int) -> np.ndarray:
    """Groups images by network input size, rounded up to multiples of `unit`, from tall to wide.

    Images of unknown size (None) form the first group.
    """
    rounded = [None if size is None else (-(-size[0] // unit), -(-size[1] // unit)) for size in sizes]
    known = sorted({shape for shape in rounded if shape is not None}, key=lambda shape: (shape[1] / shape[0], shape))
    numbers = {shape: number for number, shape in enumerate(known, 1)}
    return np.array([0 if shape is None else numbers[shape] for shape in rounded], np.int64)


def size_for_all(sizes: Sequence[Size], allowed: Sequence[Size] | None = None) -> Size:
    """(height, width) that fits all `sizes`; if `allowed` is given, the smallest of these.

    Raises ValueError if none is large enough.
    """
    height, width = max(size[0] for size in sizes), max(size[1] for size in sizes)
    if allowed is None:
        return height, width
    fitting = [size for size in allowed if size[0] >= height and size[1] >= width]
    if not fitting:
        raise ValueError(f"none of the sizes {list(allowed)} fits network inputs of {height} x {width}")
    return min(fitting, key=lambda size: (size[0] * size[1], size))

"""The order in which a training sees the images of a dataset: shuffled passes, images of similar shape together.

A batch is padded to its largest image, so that images of similar aspect ratio in one batch leave little padding
(Detectron2 and torchvision group them into landscape and portrait; here each is divided further).
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

Size = tuple[int, int]


class ImageOrder:
    """Decides which image stands at a position of an endless stream; batch number i takes `batch_size` from i on.

    Training: passes over the dataset, each shuffled by (seed, number of the pass). Every pass holds each image once.
    Images of one group share batches, but for one batch at most between neighboring groups, and those that lie on the
    border of two passes. Validation (`shuffled=False`): the images in their order; the first `length` positions, which
    repeat, are sorted by their groups.

    Args:
        ids: of the images.
        groups: the number of the group of each; numbers that are close have similar shapes.
        length: positions that validation uses.
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
        """Images of a pass."""
        return len(self.ids)

    def image_at(self, position: int) -> int:
        """The id of the image at a position."""
        return int(self.ids[self.place_at(position)])

    def alternatives(self, position: int) -> Iterator[int]:
        """The positions of all images, each once, from this one on: those of its group first, then the others."""
        seen: set[int] = set()
        group = self.groups[self.place_at(position)]
        # The rest of this pass and the whole next one hold every image
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
        """The indices of the images in the order of a pass."""
        rng = np.random.default_rng([self.seed, 0, number])
        order = rng.permutation(len(self))
        if (self.groups == self.groups[0]).all():
            return order
        # Every second pass runs from the last group to the first, so that groups meet their like between passes
        order = order[np.argsort(self.groups[order] * (-1) ** number, kind="stable")]
        head = -number * len(self) % self.batch_size  # images of the batch that began in the pass before
        count = max(0, len(self) - head) // self.batch_size
        batches = order[head : head + count * self.batch_size].reshape(count, self.batch_size)
        tail = order[head + count * self.batch_size :]
        return np.concatenate([order[:head], rng.permutation(batches).ravel(), tail])


def shape_groups(sizes: Sequence[Size | None], unit: int) -> np.ndarray:
    """Groups images by the sizes of their network inputs, rounded up to multiples of `unit`, from tall to wide.

    Images of unknown size (None) form a group of their own, the first.
    """
    rounded = [None if size is None else (-(-size[0] // unit), -(-size[1] // unit)) for size in sizes]
    known = sorted({shape for shape in rounded if shape is not None}, key=lambda shape: (shape[1] / shape[0], shape))
    numbers = {shape: number for number, shape in enumerate(known, 1)}
    return np.array([0 if shape is None else numbers[shape] for shape in rounded], np.int64)


def size_for_all(sizes: Sequence[Size], allowed: Sequence[Size] | None = None) -> Size:
    """(height, width) that holds all `sizes`; of the `allowed` ones the smallest, where they are given.

    Raises ValueError when none of them is large enough.
    """
    height, width = max(size[0] for size in sizes), max(size[1] for size in sizes)
    if allowed is None:
        return height, width
    fitting = [size for size in allowed if size[0] >= height and size[1] >= width]
    if not fitting:
        raise ValueError(f"none of the sizes {list(allowed)} holds network inputs of {height} x {width}")
    return min(fitting, key=lambda size: (size[0] * size[1], size))

"""Dataset statistics: image sizes, instance sizes and shapes, and class balance, as numbers and text.

Only a few numbers are kept per instance, so memory does not grow with the masks.
"""

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mrcnn.data.resize import choose_scale

SMALL, MEDIUM = 32**2, 96**2  # pixels; COCO's limits between small, medium and large
RATIOS = (1 / 4, 1 / 2, 1 / math.sqrt(2), math.sqrt(2), 2, 4)  # height / width limits between the shapes
SHAPES = (
    "over 4 times as wide as tall",
    "2 to 4 times as wide",
    "1.4 to 2 times as wide",
    "about square",
    "1.4 to 2 times as tall",
    "2 to 4 times as tall",
    "over 4 times as tall as wide",
)
SHOWN = 25  # maximum number of table rows
BAR = 40  # characters


class Statistics:
    """Counts images and instances as they are added.

    Args:
        class_names: of the dataset, background first.
        min_dim, max_dim: size that images will be resized to (IMAGE_MIN_DIM, IMAGE_MAX_DIM, mode "fit").
        smallest_anchor: side in pixels of the resized image, the smallest of RPN_ANCHOR_SCALES.
        max_instances: maximum number of instances per image in training (MAX_GT_INSTANCES).
    """

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        min_dim: int = 800,
        max_dim: int = 1333,
        smallest_anchor: int = 32,
        max_instances: int = 100,
    ) -> None:
        self.class_names = list(class_names)
        self.min_dim, self.max_dim = min_dim, max_dim
        self.smallest_anchor, self.max_instances = smallest_anchor, max_instances
        self._sizes: Counter[tuple[int, int]] = Counter()
        self._per_image, self._crowds = array("l"), 0
        self._class_ids, self._areas, self._boxes, self._scales = array("l"), array("d"), array("d"), array("d")
        self._images_of_class: Counter[int] = Counter()

    def add_image(self, size: tuple[int, int] | None, instances: Iterable[tuple[int, int, float, float]]) -> None:
        """Adds an image of `size` (height, width; None if unknown) with its instances.

        instances: (class id, negative for a crowd; pixels; height and width of the box) for each.
        """
        if size is not None:
            self._sizes[size[0], size[1]] += 1
        scale = math.nan if size is None else choose_scale(*size, self.min_dim, self.max_dim, None, "fit")
        seen = []
        for class_id, area, height, width in instances:
            if class_id < 0:
                self._crowds += 1
                continue
            seen.append(class_id)
            self._areas.append(area)
            self._boxes.extend((height, width))
            self._scales.append(scale)
        self._class_ids.extend(seen)
        self._per_image.append(len(seen))
        self._images_of_class.update(set(seen))

    @property
    def images(self) -> int:
        """Number of images added."""
        return len(self._per_image)

    @property
    def instances(self) -> int:
        """Number of instances added, without crowds."""
        return len(self._class_ids)

    @property
    def crowds(self) -> int:
        """Number of crowds added."""
        return self._crowds

    def sizes(self) -> list[tuple[int, int, int]]:
        """(height, width, images) of each size, most frequent first."""
        return [(*size, count) for size, count in self._sizes.most_common()]

    def per_image(self) -> dict[str, float]:
        """Minimum, median, mean and maximum number of instances per image, without crowds; {} without images."""
        counts = np.asarray(self._per_image)
        return (
            {}
            if not len(counts)
            else {
                "least": int(counts.min()),
                "median": float(np.median(counts)),
                "mean": float(counts.mean()),
                "most": int(counts.max()),
                "images_without": int((counts == 0).sum()),
                "images_with_too_many": int((counts > self.max_instances).sum()),
            }
        )

    def classes(self) -> list[dict[str, Any]]:
        """id, name, instances and images of each class except the background, most frequent first."""
        counts = np.bincount(np.asarray(self._class_ids, np.int64), minlength=len(self.class_names))
        table = [
            {"id": i, "name": self.class_names[i], "instances": int(counts[i]), "images": self._images_of_class[i]}
            for i in range(1, len(self.class_names))
        ]
        return sorted(table, key=lambda row: -row["instances"])

    def coco_areas(self) -> dict[str, int]:
        """Instances that COCO counts as small (under 32 x 32 pixels of the image), medium and large."""
        areas = np.asarray(self._areas)
        small, large = int((areas < SMALL).sum()), int((areas > MEDIUM).sum())
        return {"small": small, "medium": len(areas) - small - large, "large": large}

    def sides(self) -> dict[int, int]:
        """Instances by the side of a square of equal area, in powers of two: {8: from 8 to under 16 pixels, ...}."""
        areas = np.asarray(self._areas)
        if not len(areas):
            return {}
        steps = np.floor(np.log2(np.sqrt(np.maximum(areas, 1))) + 1e-9).astype(int)
        counts = np.bincount(steps)
        return {2 ** int(step): int(counts[step]) for step in range(steps.min(), steps.max() + 1)}

    def shapes(self) -> dict[str, int]:
        """Instances by the aspect ratio of their box."""
        boxes = self._box_sides()
        counts = np.bincount(np.searchsorted(RATIOS, boxes[:, 0] / boxes[:, 1]), minlength=len(SHAPES))
        return dict(zip(SHAPES, counts.tolist(), strict=True))

    def below_anchors(self) -> int:
        """Number of instances whose box, resized as for training, is smaller than the smallest anchor."""
        sides = np.sqrt(self._box_sides().prod(axis=1)) * np.asarray(self._scales)
        return int((sides < self.smallest_anchor).sum())

    def _box_sides(self) -> np.ndarray:
        return np.asarray(self._boxes).reshape(-1, 2)

    def as_dict(self) -> dict[str, Any]:
        """All numbers, ready for JSON."""
        return {
            "images": self.images,
            "instances": self.instances,
            "crowds": self.crowds,
            "sizes": [{"height": h, "width": w, "images": n} for h, w, n in self.sizes()],
            "per_image": self.per_image(),
            "max_instances": self.max_instances,
            "classes": self.classes(),
            "areas": self.coco_areas(),
            "sides": {str(side): count for side, count in self.sides().items()},
            "shapes": self.shapes(),
            "below_smallest_anchor": {
                "instances": self.below_anchors(),
                "anchor": self.smallest_anchor,
                "min_dim": self.min_dim,
                "max_dim": self.max_dim,
            },
        }

    def __str__(self) -> str:
        parts = [self._images_text()]
        if self.instances:
            parts += [self._instances_text(), self._classes_text()]
        return "\n\n".join(parts)

    def _images_text(self) -> str:
        lines = [f"Images: {self.images:,}"]
        sizes = self.sizes()
        if sizes:
            common = ", ".join(f"{w} x {h} ({n:,})" for h, w, n in sizes[:4])
            rest = f" and {len(sizes) - 4:,} other sizes" if len(sizes) > 4 else ""
            heights, widths = [h for h, _, _ in sizes], [w for _, w, _ in sizes]
            lines.append(f"  width x height  {common}{rest}")
            if len(sizes) > 1:
                lines.append(
                    f"  between         {min(widths)} and {max(widths)} wide, {min(heights)} and {max(heights)} tall"
                )
        counts = self.per_image()
        if counts:
            lines.append(
                f"  instances each  {counts['least']} to {counts['most']:,}, median {counts['median']:g}, "
                f"mean {counts['mean']:.1f}"
            )
        return "\n".join(lines)

    def _instances_text(self) -> str:
        crowds = f", and {self.crowds:,} crowd{'s' * (self.crowds != 1)}, ignored in training" if self.crowds else ""
        areas, below = self.coco_areas(), self.below_anchors()
        named = ", ".join(f"{_share(count, self.instances)} {name}" for name, count in areas.items())
        sides = self.sides()
        return "\n".join(
            [
                f"Instances: {self.instances:,}{crowds}",
                f"  by COCO's areas {named} (under 32 x 32 pixels, up to 96 x 96, over)",
                f"  below anchors   {_share(below, self.instances)} are under {self.smallest_anchor} x "
                f"{self.smallest_anchor}, the smallest anchor, after resizing to {self.min_dim} "
                f"(at most {self.max_dim})",
                "",
                "  Size: side of a square of the same area, in image pixels",
                *_table([(f"{side:,} to {2 * side:,}", count) for side, count in sides.items()], self.instances),
                "",
                "  Shape of the box",
                *_table(list(self.shapes().items()), self.instances),
            ]
        )

    def _classes_text(self) -> str:
        classes = self.classes()
        rows = [
            (f"{row['name']} ({row['images']:,} image{'s' * (row['images'] != 1)})", row["instances"])
            for row in classes
        ]
        lines = [f"Classes: {len(classes)}", *_table(rows[:SHOWN], self.instances)]
        if len(rows) > SHOWN:
            most, least = rows[SHOWN][1], rows[-1][1]
            span = f"{least:,} to {most:,}" if most != least else f"{most:,}"
            lines.append(f"  ... and {len(rows) - SHOWN} more classes of {span} instances")
        return "\n".join(lines)


def _table(rows: Sequence[tuple[str, int]], total: int) -> list[str]:
    """Lines of name, count, share and bar; the longest bar is that of the largest count."""
    most = max([count for _, count in rows], default=0)
    wide = max([len(name) for name, _ in rows], default=0)
    return [f"  {name:{wide}} {count:9,} {_share(count, total):>7} {bar(count, most)}".rstrip() for name, count in rows]


def bar(count: int, most: int, length: int = BAR) -> str:
    """A bar of `length` characters for `most`, with at least one for any count above 0."""
    return "#" * (max(1, round(length * count / most)) if count else 0)


def _share(count: int, total: int) -> str:
    return f"{100 * count / total:.1f} %"

"""Outlines of instances, as annotation tools write them, and the pixels that they cover.

Coordinates are continuous: pixel x covers [x, x + 1). Polygons of every format are filled by the rasteriser of COCO's
own tools, so that one scene gives the same masks whichever tool wrote it down.
"""

import dataclasses
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from mrcnn.data import rle
from mrcnn.data.masks import extract_bboxes

Bounds = tuple[float, float, float, float]
FAR = 1e5  # pixels; the rasteriser's time and memory grow with the length of the outline, in the image or not


@dataclasses.dataclass(frozen=True, eq=False)
class Polygons:
    """The union of closed polygons, each [points, (x, y)] float64."""

    parts: tuple[np.ndarray, ...]

    def bounds(self) -> Bounds:
        """(y1, x1, y2, x2) of all points."""
        points = np.concatenate(self.parts)
        (x1, y1), (x2, y2) = points.min(axis=0), points.max(axis=0)
        return float(y1), float(x1), float(y2), float(x2)

    def fill(self, height: int, width: int) -> np.ndarray:
        """[height, width] bool; what lies outside is cut off. Raises ValueError as `to_runs`."""
        return rle.decode(self.to_runs(height, width))

    def to_runs(self, height: int, width: int) -> dict:
        """The mask as COCO's run lengths.

        Raises ValueError for a part of fewer than three points, which the rasteriser would take for a box, and for
        coordinates that are not finite or further out than `FAR`.
        """
        from pycocotools import mask as coco_mask

        if min(map(len, self.parts)) < 3:
            raise ValueError(f"a polygon has {min(map(len, self.parts))} points; at least three enclose an area")
        if not all(np.abs(part).max() <= FAR for part in self.parts):  # false for NaN, too
            raise ValueError(f"a polygon has coordinates in {self.bounds()} (y1, x1, y2, x2); pixels are expected")
        runs = coco_mask.frPyObjects([part.ravel().tolist() for part in self.parts], height, width)
        return coco_mask.merge(runs)


@dataclasses.dataclass(frozen=True)
class Rectangle:
    """An upright rectangle. Pixels whose centre lies inside belong to it."""

    y1: float
    x1: float
    y2: float
    x2: float

    def bounds(self) -> Bounds:
        """(y1, x1, y2, x2)."""
        return self.y1, self.x1, self.y2, self.x2

    def fill(self, height: int, width: int) -> np.ndarray:
        """[height, width] bool."""
        mask = np.zeros((height, width), bool)
        (top, bottom), (left, right) = _centres(self.y1, self.y2, height), _centres(self.x1, self.x2, width)
        mask[top:bottom, left:right] = True
        return mask


@dataclasses.dataclass(frozen=True)
class Ellipse:
    """An ellipse, turned by `angle` radians clockwise in the image. Pixels whose centre lies inside belong to it."""

    cy: float
    cx: float
    ry: float
    rx: float
    angle: float = 0.0

    def bounds(self) -> Bounds:
        """(y1, x1, y2, x2)."""
        sine, cosine = math.sin(self.angle), math.cos(self.angle)
        tall, wide = math.hypot(self.rx * sine, self.ry * cosine), math.hypot(self.rx * cosine, self.ry * sine)
        return self.cy - tall, self.cx - wide, self.cy + tall, self.cx + wide

    def fill(self, height: int, width: int) -> np.ndarray:
        """[height, width] bool."""
        y, x = np.arange(height)[:, None] + 0.5 - self.cy, np.arange(width)[None] + 0.5 - self.cx
        sine, cosine = math.sin(self.angle), math.cos(self.angle)
        along, across = x * cosine + y * sine, y * cosine - x * sine
        return (along / self.rx) ** 2 + (across / self.ry) ** 2 <= 1


@dataclasses.dataclass(frozen=True, eq=False)
class Runs:
    """A mask as COCO's run lengths: {"size": [height, width], "counts": ...}, compressed or not."""

    runs: dict

    def bounds(self) -> Bounds:
        """(y1, x1, y2, x2) of its pixels."""
        return tuple(map(float, rle.box(self.runs)))

    def fill(self, height: int, width: int) -> np.ndarray:
        """[height, width] bool. Raises ValueError when the runs are of another size, or damaged."""
        return rle.decode(self.to_runs(height, width))

    def to_runs(self, height: int, width: int) -> dict:
        """The run lengths. Raises ValueError when they are of another size."""
        if list(self.runs["size"]) != [height, width]:
            raise ValueError(
                f"the run lengths are of size {list(self.runs['size'])}, the image of {[height, width]} "
                "(height, width); write them for this image"
            )
        return self.runs


@dataclasses.dataclass(frozen=True)
class MaskFile:
    """A picture that holds a mask: the pixels of one `value`, or all that are not zero.

    The value of a pixel is its grey value (8 or 16 bits), its number in the palette, or r + 256 g + 65536 b.
    """

    path: str
    value: int | None = None

    def bounds(self) -> None:
        """Not known before the file is read."""
        return None

    def fill(self, height: int, width: int) -> np.ndarray:
        """[height, width] bool. Raises ValueError naming the file when it is of another size or no picture."""
        values = read_values(self.path)
        if values.shape != (height, width):
            raise ValueError(
                f"the mask {self.path!r} is {values.shape[0]} x {values.shape[1]}, its image {height} x "
                f"{width} (height x width); draw it on that image"
            )
        return values != 0 if self.value is None else values == self.value


Outline = Polygons | Rectangle | Ellipse | Runs | MaskFile


def fill_box(outline: Outline, height: int, width: int) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """The mask of an outline inside its tight box, [y2 - y1, x2 - x1] bool, and the box (y1, x1, y2, x2).

    Several times faster than `fill` where the rasteriser gives run lengths. Raises as `fill`.
    """
    if isinstance(outline, (Polygons, Runs)):
        return rle.decode_box(outline.to_runs(height, width))
    mask = outline.fill(height, width)
    y1, x1, y2, x2 = box = tuple(extract_bboxes(mask[:, :, None])[0].tolist())
    return mask[y1:y2, x1:x2], box


@contextmanager
def open_picture(path: str | os.PathLike) -> Iterator[Any]:
    """The picture, opened by Pillow; raises as that does, but ValueError naming the file for one that is too large.

    Pillow refuses pictures of more than twice `PIL.Image.MAX_IMAGE_PIXELS`, with an error that is no OSError.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            yield image
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{os.fspath(path)!r} is too large: {error}; cut it into tiles, or, if you trust the file, "
            "raise PIL.Image.MAX_IMAGE_PIXELS"
        ) from error


def read_values(path: str) -> np.ndarray:
    """The values [H, W] int32 of a mask picture; see `MaskFile`. Raises FileNotFoundError or ValueError naming it."""
    try:
        with open_picture(path) as image:
            if image.mode in ("P", "L", "I", "1") or image.mode.startswith("I;16"):
                return np.asarray(image).astype(np.int32)
            if image.mode == "LA":
                return np.asarray(image)[..., 0].astype(np.int32)
            if image.mode not in ("RGB", "RGBA", "PA"):
                raise ValueError(
                    f"{path!r} has pixels of mode {image.mode}, which hold no whole numbers of instances; "
                    "write it as an 8 or 16 bit png"
                )
            red, green, blue = (np.asarray(image.convert("RGB"))[..., i].astype(np.int32) for i in range(3))
            return red + 256 * green + 65536 * blue
    except FileNotFoundError:
        raise FileNotFoundError(f"no mask picture at {path!r}; check the path and the dataset's folder") from None
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path!r} is not a picture, or damaged: {error}; write it again as png") from error


def _centres(start: float, end: float, size: int) -> tuple[int, int]:
    """First and last + 1 of the `size` pixels whose centre lies in [start, end)."""
    first, last = (int(np.clip(math.ceil(value - 0.5), 0, size)) for value in (start, end))
    return first, max(first, last)

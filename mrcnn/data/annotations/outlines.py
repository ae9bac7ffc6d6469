"""Instance outlines as written by annotation tools, and the pixels they cover.

Coordinates are continuous: pixel x covers [x, x + 1). Polygons of every format are filled by COCO's own rasterizer, so
the same scene gives the same masks whichever tool wrote it.
"""

import dataclasses
import io
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np

from mrcnn.data import rle
from mrcnn.data.masks import extract_bboxes

Bounds = tuple[float, float, float, float]
MASK_FORMATS = ("PNG", "BMP", "TIFF", "GIF", "JPEG", "WEBP", "PPM")
FAR = 1e5  # pixels; the rasterizer's time and memory grow with the outline's length, even outside the image


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Polygons:
    """The union of closed polygons, each [points, (x, y)] float64. known: their bounds, if already computed and
    every polygon has at least three points."""

    parts: tuple[np.ndarray, ...]
    known: Bounds | None = None

    def bounds(self) -> Bounds:
        """(y1, x1, y2, x2) of all points."""
        if self.known is not None:
            return self.known
        points = np.concatenate(self.parts)
        (x1, y1), (x2, y2) = points.min(axis=0), points.max(axis=0)
        return float(y1), float(x1), float(y2), float(x2)

    def fill(self, height: int, width: int) -> np.ndarray:
        """[height, width] bool, clipped to the image. Raises ValueError as `to_runs`."""
        return rle.decode(self.to_runs(height, width))

    def to_runs(self, height: int, width: int) -> dict:
        """The mask as COCO RLE.

        Raises ValueError for a part with fewer than three points, which the rasterizer would take for a box, and for
        coordinates that are not finite or larger than `FAR`.
        """
        from pycocotools import mask as coco_mask

        if min(map(len, self.parts)) < 3:
            raise ValueError(f"a polygon has {min(map(len, self.parts))} points; at least three are needed for an area")
        if not all(np.abs(part).max() <= FAR for part in self.parts):  # also rejects NaN
            raise ValueError(f"a polygon spans {self.bounds()} (y1, x1, y2, x2); expected pixel coordinates")
        runs = coco_mask.frPyObjects([part.ravel().tolist() for part in self.parts], height, width)
        return coco_mask.merge(runs)


@dataclasses.dataclass(frozen=True, slots=True)
class Rectangle:
    """An axis-aligned rectangle. It covers the pixels whose center is inside."""

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
        (top, bottom), (left, right) = _centers(self.y1, self.y2, height), _centers(self.x1, self.x2, width)
        mask[top:bottom, left:right] = True
        return mask


@dataclasses.dataclass(frozen=True, slots=True)
class Ellipse:
    """An ellipse rotated by `angle` radians, clockwise in the image. It covers the pixels whose center is inside."""

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


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Runs:
    """A mask as COCO RLE: {"size": [height, width], "counts": ...}, compressed or not."""

    runs: dict

    def bounds(self) -> Bounds:
        """(y1, x1, y2, x2) of its pixels."""
        y1, x1, y2, x2 = rle.box(self.runs)
        return float(y1), float(x1), float(y2), float(x2)

    def fill(self, height: int, width: int) -> np.ndarray:
        """[height, width] bool. Raises ValueError if the RLE has another size or is damaged."""
        return rle.decode(self.to_runs(height, width))

    def to_runs(self, height: int, width: int) -> dict:
        """The RLE. Raises ValueError if it has another size."""
        if list(self.runs["size"]) != [height, width]:
            raise ValueError(
                f"the RLE has size {list(self.runs['size'])}, but the image has {[height, width]} (height, width); "
                "write it for this image"
            )
        return self.runs


@dataclasses.dataclass(frozen=True, slots=True)
class MaskFile:
    """An image file that holds a mask: the pixels of one `value`, or all nonzero pixels.

    The value of a pixel is its gray value (8 or 16 bits), its palette index, or r + 256 g + 65536 b; 0 if it is
    transparent. A mask drawn only in the alpha channel has the values 0 and 1.

    start, length: position of the mask in a larger file, in bytes; length is None if the mask is a file of its own.
    """

    path: str
    value: int | None = None
    start: int = 0
    length: int | None = None

    def bounds(self) -> None:
        """Unknown until the file is read."""
        return None

    def fill(self, height: int, width: int) -> np.ndarray:
        """[height, width] bool. Raises ValueError, naming the file, if it has another size or is not an image."""
        values = read_values(self.path, self.start, self.length, (height, width))
        if values.shape != (height, width):
            raise ValueError(
                f"the mask {self.path!r} is {values.shape[0]} x {values.shape[1]}, its image is {height} x "
                f"{width} (height x width); draw it on that image"
            )
        return values != 0 if self.value is None else values == self.value


Outline = Polygons | Rectangle | Ellipse | Runs | MaskFile


def fill_box(outline: Outline, height: int, width: int) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """An outline's mask inside its tight box, [y2 - y1, x2 - x1] bool, and the box (y1, x1, y2, x2).

    Several times faster than `fill` if the rasterizer returns RLE. Raises as `fill`.
    """
    if isinstance(outline, (Polygons, Runs)):
        return rle.decode_box(outline.to_runs(height, width))
    mask = outline.fill(height, width)
    y1, x1, y2, x2 = box = tuple(extract_bboxes(mask[:, :, None])[0].tolist())
    return mask[y1:y2, x1:x2], box


@contextmanager
def open_picture(source: str | os.PathLike | BinaryIO, name: str = "") -> Iterator[Any]:
    """Opens an image file with Pillow, allowing only common image and mask formats, none of which runs a program.

    Args:
        source: a path or an open file.
        name: name of an open file, for messages.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file is not an image, damaged, or exceeds Pillow's size limit; also raised for errors while
            reading pixels inside the block. The message names the file.
    """
    from PIL import Image

    if isinstance(source, str | os.PathLike):
        name = name or repr(os.fspath(source))
    try:
        with Image.open(source, formats=MASK_FORMATS) as image:
            yield image
    except FileNotFoundError:
        raise
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{name} is too large: {error}; cut it into tiles, or, if you trust the file, "
            "raise PIL.Image.MAX_IMAGE_PIXELS"
        ) from error
    except ValueError:
        raise
    except Exception as error:  # plugins raise any error for a damaged file
        raise ValueError(f"{name} is not an image, or damaged: {error}; save it again as PNG") from error


def read_values(
    path: str, start: int = 0, length: int | None = None, size: tuple[int, int] | None = None
) -> np.ndarray:
    """The values [H, W] int32 of a mask file; see `MaskFile`.

    Raises FileNotFoundError, or ValueError naming the file; for a mask in a larger file, also if it is not of `size`.
    """
    try:
        if length is None:
            with open_picture(path) as image:
                return values_of(image, repr(path))
        with open(path, "rb") as file:
            file.seek(start)
            data = io.BytesIO(file.read(length))
        name = f"{path!r}, byte {start}"
        with open_picture(data, name) as image:
            if size is not None and (image.height, image.width) != size:
                found = f"{image.height} x {image.width}, its image is {size[0]} x {size[1]} (height x width)"
                raise ValueError(f"the mask in {name} is {found}")
            return values_of(image, name)
    except FileNotFoundError:
        raise FileNotFoundError(f"no mask file at {path!r}; check the path and the dataset's folder") from None


def values_of(image: Any, name: str) -> np.ndarray:
    """The values [H, W] int32 of an open image; see `MaskFile`. Raises ValueError for an unsupported mode."""
    bands = image.getbands()
    if image.mode in ("P", "L", "I", "1") or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.int32)
    elif image.mode in ("LA", "PA"):
        values = np.asarray(image)[..., 0].astype(np.int32)
    elif image.mode in ("RGB", "RGBA"):
        red, green, blue = (np.asarray(image)[..., i].astype(np.int32) for i in range(3))
        values = red + 256 * green + 65536 * blue
    else:
        raise ValueError(
            f"{name} has pixels of mode {image.mode}, which cannot hold instance ids; save it as an 8-bit or 16-bit PNG"
        )
    if "A" in bands:
        return _opaque(values, np.asarray(image.getchannel("A")))
    if image.info.get("transparency") is not None and image.mode in ("P", "L", "1", "RGB"):
        return _opaque(values, np.asarray(image.convert("RGBA").getchannel("A")))
    return values


def _opaque(values: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The values, 0 where the image is transparent; 1 for opaque pixels if no opaque pixel has another value."""
    opaque = alpha > 0
    if opaque.all() or not opaque.any():
        return values
    values = np.where(opaque, values, 0)
    return values if values.any() else opaque.astype(np.int32)


def _centers(start: float, end: float, size: int) -> tuple[int, int]:
    """First and last + 1 of the `size` pixels whose center is in [start, end)."""
    first, last = (int(np.clip(math.ceil(value - 0.5), 0, size)) for value in (start, end))
    return first, max(first, last)

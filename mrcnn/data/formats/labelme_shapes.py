"""The shapes that labelme draws, as outlines.

What each type's points mean is from labelme's own `shape_to_mask` and `shapes_to_label`; pixels are filled as for every
other format.
"""

import base64
import binascii
import io
import math
from typing import Any

import numpy as np

from mrcnn.data import rle
from mrcnn.data.formats.fields import FieldError, polygon, shown
from mrcnn.data.outlines import Ellipse, Outline, Polygons, Rectangle, Runs

CORNERS = ("oriented_rectangle", "rotation")  # of labelme 6 and X-AnyLabeling: the four corners
TYPES = ("polygon", "rectangle", "circle", "mask", *CORNERS)
POINTS = {"rectangle": (2, 4), "circle": (2,), "mask": (2,), **dict.fromkeys(CORNERS, (4,))}


def outline_of(shape: dict, height: int, width: int) -> tuple[Outline, int]:
    """The outline of a shape, and how many of its pixels were cut off at the border of the image.

    The pixels cut off are counted for masks only. Raises FieldError.
    """
    kind = shape.get("shape_type") or "polygon"  # files of labelme 2 have none
    if kind not in TYPES:
        raise FieldError("shape_type", f"a {kind!r} has no area; expected one of {', '.join(TYPES)}")
    outline = polygon(shape.get("points"), "points")
    points = outline.parts[0]
    if len(points) not in POINTS.get(kind, (len(points),)):
        wanted = " or ".join(map(str, POINTS[kind]))
        raise FieldError("points", f"a {kind} has {wanted} points, got {len(points)}")
    if kind == "mask":
        return _mask(shape, points, height, width)
    if kind == "circle":
        (cx, cy), (x, y) = points.tolist()
        radius = math.hypot(x - cx, y - cy)
        return Ellipse(cy, cx, radius, radius), 0
    if kind == "rectangle" and len(points) == 2:
        (x1, y1), (x2, y2) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        return Rectangle(y1, x1, y2, x2), 0
    return outline, 0


def union(outlines: list[Outline], height: int, width: int) -> Outline:
    """One outline that covers what several do. Raises ValueError for one that cannot be filled."""
    if len(outlines) == 1:
        return outlines[0]
    if all(isinstance(outline, Polygons) for outline in outlines):
        return Polygons(tuple(part for outline in outlines for part in outline.parts))
    mask = np.zeros((height, width), bool)
    for outline in outlines:
        mask |= outline.fill(height, width)
    return Runs(rle.encode(mask))


def decoded(text: Any, field: str) -> bytes:
    """What a text in base64 holds. Raises FieldError."""
    if not isinstance(text, str) or not text:
        raise FieldError(field, f"expected a picture in base64, got {shown(text)}")
    try:
        return base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise FieldError(field, f"it is not base64, or cut off: {error}") from error


def _mask(shape: dict, points: np.ndarray, height: int, width: int) -> tuple[Runs, int]:
    """A png of the pixels between two corners, both of which it covers."""
    part = _picture(shape.get("mask"))
    left, top = np.round(points[0]).astype(int).tolist()
    between = np.abs(np.round(points[1]) - np.round(points[0])).astype(int) + 1
    # Corners that are no whole numbers may round apart
    if max(abs(between[1] - part.shape[0]), abs(between[0] - part.shape[1])) > 1:
        raise FieldError(
            "mask",
            f"the picture is {part.shape[0]} x {part.shape[1]}, between its points are "
            f"{between[1]} x {between[0]} pixels (height x width)",
        )
    y1, x1 = min(max(top, 0), height), min(max(left, 0), width)
    inside = part[max(-top, 0) : max(height - top, 0), max(-left, 0) : max(width - left, 0)]
    return Runs(rle.encode_box(inside, y1, x1, height, width)), int(part.sum() - inside.sum())


def _picture(text: Any) -> np.ndarray:
    """[h, w] bool: the pixels of a picture in base64 that are not zero."""
    from PIL import Image

    data = decoded(text, "mask")
    try:
        with Image.open(io.BytesIO(data)) as image:
            values = np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise FieldError("mask", f"it is not a picture, or cut off: {error}") from error
    except Image.DecompressionBombError as error:  # none of these; `outlines.open_picture` is for files
        raise FieldError(
            "mask",
            f"it is too large: {error}; draw it on a smaller image, or, if you trust the file, "
            "raise PIL.Image.MAX_IMAGE_PIXELS",
        ) from error
    return values != 0 if values.ndim == 2 else values[..., :3].any(axis=-1)

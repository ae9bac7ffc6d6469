"""Draws shapes with known outlines: signed distances give both the exact mask and the antialiased edge."""

import math
from typing import NamedTuple

import numpy as np


def _regular(count: int, inner: float = 1.0) -> np.ndarray:
    """Corners [count, (y, x)] of a regular polygon in the unit circle; every second one at radius `inner`."""
    angles = 2 * np.pi * np.arange(count) / count
    radii = np.where(np.arange(count) % 2 == 0, 1.0, inner)[:, None]
    return radii * np.stack([-np.cos(angles), np.sin(angles)], axis=1)


# Shapes are scaled to look equally large: at the same radius, a square would look larger than the others.
CORNERS = {"square": 1.2 * _regular(4), "triangle": 1.25 * _regular(3), "star": 1.3 * _regular(10, inner=0.5)}
KINDS = ("square", "circle", "triangle", "star")


class Shape(NamedTuple):
    """A shape: center (y, x) and radius in pixels, rotated by `angle` radians, in two RGB colors that blend."""

    kind: str
    center: tuple[float, float]
    radius: float
    angle: float
    colors: tuple[tuple[float, float, float], tuple[float, float, float]]
    shading: float  # direction in radians from the first color to the second


def random_shape(
    rng: np.random.Generator, kinds: tuple[str, ...], height: int, width: int, radii: tuple[float, float]
) -> Shape:
    """A random shape, at most partly outside the image; `radii` are fractions of the shorter side."""
    radius = max(5.0, rng.uniform(*radii) * min(height, width))
    margin = 0.5 * radius
    color = _vivid(rng)
    return Shape(
        kind=str(rng.choice(kinds)),
        center=(rng.uniform(margin, height - margin), rng.uniform(margin, width - margin)),
        radius=radius,
        angle=rng.uniform(0, 2 * math.pi),
        colors=(color, tuple(np.clip(np.multiply(color, rng.uniform(0.45, 0.8)) + rng.uniform(0, 40), 0, 255))),
        shading=rng.uniform(0, 2 * math.pi),
    )


def _vivid(rng: np.random.Generator) -> tuple[float, float, float]:
    """A saturated RGB color, 0..255."""
    hue, saturation, value = rng.uniform(0, 6), rng.uniform(0.55, 1.0), rng.uniform(0.7, 1.0)
    channels = np.clip(np.abs((hue + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    return tuple(255 * value * (1 - saturation * (1 - channels)))


def reach(shape: Shape) -> tuple[slice, slice]:
    """Rows and columns that the shape and its soft edge may touch, possibly outside the image."""
    size = 1.4 * shape.radius + 2
    (y, x) = shape.center
    return (slice(math.floor(y - size), math.ceil(y + size)), slice(math.floor(x - size), math.ceil(x + size)))


def distance(shape: Shape, rows: slice, columns: slice) -> np.ndarray:
    """Signed distance in pixels from the center of each pixel to the outline, negative inside; [rows, columns]."""
    y = np.arange(rows.start, rows.stop)[:, None] + 0.5 - shape.center[0]
    x = np.arange(columns.start, columns.stop)[None, :] + 0.5 - shape.center[1]
    if shape.kind == "circle":
        return np.hypot(y, x) - shape.radius
    cos, sin = math.cos(shape.angle), math.sin(shape.angle)
    corners = shape.radius * CORNERS[shape.kind] @ np.array([[cos, sin], [-sin, cos]])
    return _polygon_distance(y, x, corners)


def _polygon_distance(y: np.ndarray, x: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Distance to the nearest edge; the sign depends on how often a ray to the right crosses the outline."""
    nearest, inside = np.inf, np.zeros(np.broadcast_shapes(y.shape, x.shape), bool)
    for (y1, x1), (y2, x2) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        along = ((y - y1) * (y2 - y1) + (x - x1) * (x2 - x1)) / ((y2 - y1) ** 2 + (x2 - x1) ** 2)
        along = np.clip(along, 0, 1)
        nearest = np.minimum(nearest, np.hypot(y - y1 - along * (y2 - y1), x - x1 - along * (x2 - x1)))
        if y1 != y2:
            inside ^= ((y1 > y) != (y2 > y)) & (x < x1 + (y - y1) * (x2 - x1) / (y2 - y1))
    return np.where(inside, -nearest, nearest)


def paint(image: np.ndarray, shape: Shape, rng: np.random.Generator) -> None:
    """Draws a shape into a float RGB image [H, W, 3] in place: shaded, slightly noisy, with an antialiased edge."""
    rows, columns = _inside(shape, image.shape[:2])
    cover = np.clip(0.5 - distance(shape, rows, columns), 0, 1)[..., None]
    y, x = (rows.start - shape.center[0], columns.start - shape.center[1])
    ramp = (
        (np.arange(cover.shape[0])[:, None] + y) * math.sin(shape.shading)
        + (np.arange(cover.shape[1])[None, :] + x) * math.cos(shape.shading)
    ) / shape.radius
    blend = np.clip(0.5 + 0.5 * ramp, 0, 1)[..., None]
    first, second = (np.array(color) for color in shape.colors)
    fill = (1 - blend) * first + blend * second + rng.normal(0, 6, (*cover.shape[:2], 1))
    image[rows, columns] = cover * fill + (1 - cover) * image[rows, columns]


def mask(shape: Shape, height: int, width: int) -> tuple[np.ndarray, int]:
    """The image pixels that the shape covers, [H, W] bool, and its area in pixels, including parts outside."""
    full = distance(shape, *reach(shape)) < 0
    rows, columns = _inside(shape, (height, width))
    (top, left) = (rows.start - reach(shape)[0].start, columns.start - reach(shape)[1].start)
    covered = np.zeros((height, width), bool)
    covered[rows, columns] = full[top : top + rows.stop - rows.start, left : left + columns.stop - columns.start]
    return covered, int(full.sum())


def _inside(shape: Shape, image_shape: tuple[int, int]) -> tuple[slice, slice]:
    rows, columns = (
        slice(max(part.start, 0), min(part.stop, size)) for part, size in zip(reach(shape), image_shape, strict=True)
    )
    return rows, columns

"""Colors, and drawing into the pixels of an image."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np

Color = tuple[float, float, float]

GOLDEN_RATIO = 0.618034
FIRST_HUE = 0.57  # a blue
GRAY: Color = (0.75, 0.75, 0.75)


def random_colors(N: int, bright: bool = True) -> list[Color]:
    """N colors that are easy to tell apart, the same on every call.

    Hues advance by the golden ratio, so neighbors in the list are far apart for any N. Brightness changes every five
    colors, because the hues of many colors get close.

    Returns:
        [(red, green, blue)] in 0..1; darker ones with `bright=False`.
    """
    if N < 0:
        raise ValueError(f"the number of colors must be 0 or more, got {N}")
    values = (1.0, 0.85) if bright else (0.7, 0.6)
    return [colorsys.hsv_to_rgb((FIRST_HUE + i * GOLDEN_RATIO) % 1, 0.75, values[i // 5 % 2]) for i in range(N)]


def text_color(background: Color) -> str:
    """Black or white, whichever is easier to read on a background (relative luminance, WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in background[:3]]
    luminance = float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
    return "white" if luminance < 0.3 else "black"


def apply_mask(image: np.ndarray, mask: np.ndarray, color: Sequence[float], alpha: float = 0.5) -> np.ndarray:
    """Tints the pixels of a mask, in place.

    Args:
        image: [height, width, RGB] in 0..255, changed in place.
        mask: [height, width], nonzero inside.
        color: red, green, blue in 0..1.
        alpha: opacity of the color, 0..1.

    Returns:
        The image.

    Raises:
        ValueError: the mask and the image differ in size.
    """
    mask = np.asarray(mask) != 0
    if mask.shape != image.shape[:2]:
        raise ValueError(f"the mask has shape {mask.shape}, the image {image.shape}; height and width must be equal")
    tint = 255 * np.asarray(color[:3], np.float32)
    blended = image[mask] * (1 - alpha) + alpha * tint
    image[mask] = np.rint(blended) if np.issubdtype(image.dtype, np.integer) else blended
    return image


def blend_masks(image: np.ndarray, masks: np.ndarray, colors: Sequence[Color], alpha: float = 0.45) -> np.ndarray:
    """A copy of an image with each mask of [H, W, N] tinted; large ones first, so that small ones stay visible."""
    image = image.copy()
    for i in np.argsort(-masks.sum(axis=(0, 1)), kind="stable"):
        apply_mask(image, masks[:, :, i], colors[i], alpha)
    return image


def draw_box(image: np.ndarray, box: Sequence[float], color: Sequence[float]) -> np.ndarray:
    """Draws the outline of a box in place, 3 pixels wide, inward from its edge.

    Args:
        image: [height, width, channels], changed in place.
        box: (y1, x1, y2, x2) in pixels, rounded; parts outside the image are not drawn.
        color: one number per channel, in the range of the image.

    Returns:
        The image.
    """
    if np.shape(box) != (4,):
        raise ValueError(f"a box has four numbers (y1, x1, y2, x2), got {box!r}")
    height, width = image.shape[:2]
    y1, x1, y2, x2 = np.clip(np.rint(box), 0, [height, width, height, width]).astype(int)
    frame = np.zeros((height, width), bool)
    frame[y1:y2, x1:x2] = True
    frame[y1 + 3 : max(y2 - 3, y1 + 3), x1 + 3 : max(x2 - 3, x1 + 3)] = False
    image[frame] = color
    return image

"""`utils.resize`, `resize_image` and `resize_mask` of the old package."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mrcnn.data.resize import choose_scale, resize_exactly

MODES = ("none", "fit", "square", "pad64", "crop")


def resize(
    image: ArrayLike,
    output_shape: Sequence[int],
    order: int = 1,
    mode: str = "constant",
    cval: float = 0,
    clip: bool = True,
    preserve_range: bool = False,
    anti_aliasing: bool = False,
    anti_aliasing_sigma: Any = None,
) -> np.ndarray:
    """`skimage.transform.resize`, without antialiasing by default."""
    from skimage import transform

    return transform.resize(
        np.asarray(image),
        output_shape,
        order=order,
        mode=mode,
        cval=cval,
        clip=clip,
        preserve_range=preserve_range,
        anti_aliasing=anti_aliasing,
        anti_aliasing_sigma=anti_aliasing_sigma,
    )


def resize_image(
    image: np.ndarray,
    min_dim: int | None = None,
    max_dim: int | None = None,
    min_scale: float | None = None,
    mode: str = "square",
) -> tuple[np.ndarray, tuple[int, int, int, int], float, list[tuple[int, int]], tuple[int, int, int, int] | None]:
    """Resizes and pads an image as the old package does.

    Args:
        image: [H, W, C].
        min_dim: the shorter side is scaled up (never down) to this; None or 0: no scaling up.
        max_dim: maximum of the longer side ("square" and "fit" only).
        min_scale: minimum scale, even if `min_dim` needs less.
        mode: "none"; "square" (pad to [max_dim, max_dim], centered); "pad64" (pad to multiples of 64, centered); "crop"
            (a random [min_dim, min_dim] part, by Python's global generator as in the old package); "fit" (new here:
            scale the shorter side up or down to `min_dim`, or as far as `max_dim` allows; no padding).

    Returns:
        image of the same type; window (y1, x1, y2, x2) of the image inside its padding; scale; padding
        [(top, bottom), (left, right), (0, 0)]; crop (y, x, height, width) or None.
    """
    if mode not in MODES:
        raise ValueError(f"unknown mode {mode!r}; expected one of {MODES}")
    dtype, (height, width) = image.dtype, image.shape[:2]
    window, padding = (0, 0, height, width), [(0, 0), (0, 0), (0, 0)]
    if mode == "none":
        return image, window, 1, padding, None
    scale = choose_scale(height, width, min_dim, max_dim, min_scale, mode)
    if scale != 1:
        image = resize_exactly(image, (round(height * scale), round(width * scale)))
    height, width = image.shape[:2]
    if mode == "crop":
        if not min_dim:
            raise ValueError('mode "crop" needs min_dim')
        y = random.randint(0, height - min_dim)
        x = random.randint(0, width - min_dim)
        image = image[y : y + min_dim, x : x + min_dim]
        return image.astype(dtype), (0, 0, min_dim, min_dim), scale, padding, (y, x, min_dim, min_dim)
    if mode == "fit":
        return image.astype(dtype), (0, 0, height, width), scale, padding, None
    top, bottom, left, right = centered_padding(height, width, max_dim, mode)
    padding = [(top, bottom), (left, right), (0, 0)]
    image = np.pad(image, padding, mode="constant")
    return image.astype(dtype), (top, left, height + top, width + left), scale, padding, None


def centered_padding(height: int, width: int, max_dim: int | None, mode: str) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) that center an image in its square, or in multiples of 64."""
    if mode == "square":
        if not max_dim:
            raise ValueError('mode "square" needs max_dim')
        tall = wide = max_dim
    else:
        tall, wide = -(-height // 64) * 64, -(-width // 64) * 64
    top, left = (tall - height) // 2, (wide - width) // 2
    return top, tall - height - top, left, wide - width - left


def resize_mask(
    mask: np.ndarray, scale: float, padding: Sequence[tuple[int, int]], crop: tuple[int, int, int, int] | None = None
) -> np.ndarray:
    """Resizes masks [H, W, N] like `resize_image` resized their image: nearest pixel, same type."""
    from scipy.ndimage import zoom

    mask = zoom(mask, zoom=[scale, scale, 1], order=0)
    if crop is not None:
        y, x, height, width = crop
        return mask[y : y + height, x : x + width]
    return np.pad(mask, padding, mode="constant", constant_values=0)

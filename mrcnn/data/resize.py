"""The old package's resizing, to the pixel: scikit-image, bilinear, zeros beyond the border, no antialiasing."""

import random

import numpy as np

MODES = ("none", "fit", "square", "pad64", "crop")


def resize_exactly(image: np.ndarray, shape) -> np.ndarray:
    """Bilinear resize to `shape` (rows, columns) of any numeric image; float, range kept."""
    from skimage.transform import resize

    image = image.astype(np.float64) if image.dtype == bool else image
    return resize(
        image, tuple(shape), order=1, mode="constant", cval=0, clip=True, preserve_range=True, anti_aliasing=False
    )


def resize_image(image: np.ndarray, min_dim=None, max_dim=None, min_scale=None, mode: str = "square"):
    """Resizes an image for the network, as the old package does.

    Args:
        image: [H, W, C].
        min_dim: the shorter side is scaled up (never down) to this; None or 0 does not.
        max_dim: the longer side is at most this ("square" and "fit" only).
        min_scale: scale up by at least this, even if `min_dim` needs less.
        mode: "none"; "square" (pad to [max_dim, max_dim], centred); "pad64" (pad to multiples of 64, centred); "crop"
            (a random [min_dim, min_dim] part, by Python's global generator as in the old package); "fit" (this
            package's: the shorter side becomes `min_dim`, up or down, or what `max_dim` allows; no padding).

    Returns:
        image of the same type; window (y1, x1, y2, x2) of the photograph in it; scale; padding
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
        y = random.randint(0, height - min_dim)
        x = random.randint(0, width - min_dim)
        image = image[y : y + min_dim, x : x + min_dim]
        return image.astype(dtype), (0, 0, min_dim, min_dim), scale, padding, (y, x, min_dim, min_dim)
    if mode == "fit":
        return image.astype(dtype), (0, 0, height, width), scale, padding, None
    top, bottom, left, right = centred_padding(height, width, max_dim, mode)
    padding = [(top, bottom), (left, right), (0, 0)]
    image = np.pad(image, padding, mode="constant")
    return image.astype(dtype), (top, left, height + top, width + left), scale, padding, None


def choose_scale(height: int, width: int, min_dim, max_dim, min_scale, mode: str) -> float:
    """The old package's scale: up to `min_dim` and `min_scale`, and down to `max_dim` in "square" alone; or "fit"."""
    if mode == "fit":
        if not min_dim or not max_dim:
            raise ValueError(f'mode "fit" needs min_dim and max_dim, got {min_dim} and {max_dim}')
        return min(min_dim / min(height, width), max_dim / max(height, width))
    scale = max(1, min_dim / min(height, width)) if min_dim else 1
    if min_scale and scale < min_scale:
        scale = min_scale
    if max_dim and mode == "square" and round(max(height, width) * scale) > max_dim:
        scale = max_dim / max(height, width)
    return scale


def centred_padding(height: int, width: int, max_dim, mode: str) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) that centre an image in its square, or in multiples of 64."""
    tall, wide = (max_dim, max_dim) if mode == "square" else (-(-height // 64) * 64, -(-width // 64) * 64)
    top, left = (tall - height) // 2, (wide - width) // 2
    return top, tall - height - top, left, wide - width - left


def resize_mask(mask: np.ndarray, scale: float, padding, crop=None) -> np.ndarray:
    """Resizes masks [H, W, N] by what `resize_image` returned for their image: nearest pixels, same type."""
    from scipy.ndimage import zoom

    mask = zoom(mask, zoom=[scale, scale, 1], order=0)
    if crop is not None:
        y, x, height, width = crop
        return mask[y : y + height, x : x + width]
    return np.pad(mask, padding, mode="constant", constant_values=0)

"""Interpolation of pixels; `mrcnn/data/molding.py` decides the target size."""

from collections.abc import Sequence

import cv2
import numpy as np

STRIP = 1 << 17  # number of values converted at a time


def resize(image: np.ndarray, height: int, width: int, antialias: bool = False) -> np.ndarray:
    """[H, W, C] to [height, width, C] of the same type: bilinear with half-pixel centers.

    antialias: when shrinking, average all source pixels of a target pixel instead of interpolating the nearest two.
    """
    if image.shape[:2] == (height, width):
        return image
    return _by_opencv(image, height, width, _interpolation(image, height, width, antialias))


def _by_opencv(image: np.ndarray, height: int, width: int, method: int) -> np.ndarray:
    # OpenCV averages at most 4 channels at a time, and drops the axis of a single one
    groups = [image[:, :, i : i + 4] for i in range(0, image.shape[2], 4)]
    resized = [cv2.resize(group, (width, height), interpolation=method).reshape(height, width, -1) for group in groups]
    return resized[0] if len(resized) == 1 else np.concatenate(resized, axis=2)


def shrink(image: np.ndarray, height: int, width: int, antialias: bool) -> np.ndarray:
    """`resize` of an image [H, W, C] uint8 of at least the target size, in float32.

    Interpolates between rows first, a few rows at a time. The floats then stay in the cache, and unused rows of a large
    image are never converted: three times as fast at 12 megapixels.
    """
    rows, columns, channels = image.shape
    if _interpolation(image, height, width, antialias) == cv2.INTER_AREA:
        return _averaged(image, height, width)
    if rows == height or height == 1:
        return resize(image.astype(np.float32), height, width)
    position = (np.arange(height) + 0.5) * (rows / height) - 0.5  # half-pixel centers, always inside a shrinking image
    above = position.astype(np.intp)
    below, part = np.minimum(above + 1, rows - 1), (position - above).astype(np.float32)[:, None]
    flat, resized = image.reshape(rows, -1), np.empty((height, width, channels), np.float32)
    strip = min(height, max(2, STRIP // flat.shape[1]))  # OpenCV computes a single row differently
    first, second = np.empty((2, strip, flat.shape[1]), np.float32)
    for start in range(0, height, strip):
        start = min(start, height - strip)
        taken = slice(start, start + strip)
        first[...], second[...] = flat[above[taken]], flat[below[taken]]
        second -= first
        second *= part[taken]
        first += second
        resized[taken] = resize(first.reshape(strip, columns, channels), strip, width)
    return resized


def _averaged(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Means over the source pixels of each target pixel, in float32, some rows at a time as in `shrink`: along the rows
    by OpenCV, then along the columns with each target row's shares of the source rows."""
    rows, columns, channels = image.shape
    ratio, averaged = rows / height, np.empty((height, width, channels), np.float32)
    strip = max(1, int(4 * STRIP / (ratio * columns * channels)))
    floats = np.empty((int(np.ceil(strip * ratio)) + 2, columns, channels), np.float32)
    for start in range(0, height, strip):
        edges = np.arange(start, min(start + strip, height) + 1) * ratio
        first, last = int(edges[0]), min(int(np.ceil(edges[-1])), rows)
        floats[: last - first] = image[first:last]
        narrow = _by_opencv(floats[: last - first], last - first, width, cv2.INTER_AREA)
        flat = narrow.reshape(last - first, -1)
        total = np.zeros((len(edges) - 1, flat.shape[1]), np.float32)
        for offset in range(int(np.ceil(ratio)) + 1):  # no target row touches more source rows
            row = edges[:-1].astype(np.intp) + offset
            share = np.minimum(edges[1:], row + 1) - np.maximum(edges[:-1], row)
            weight = np.maximum(share, 0).astype(np.float32) / np.float32(ratio)
            total += weight[:, None] * flat[np.minimum(row, last - 1) - first]
        averaged[start : start + strip] = total.reshape(-1, width, channels)
    return averaged


def resize_by_pillow(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """[H, W, C] uint8 to [height, width, C] uint8 as Detectron2 resizes: antialiased, rounded to integers."""
    if image.shape[:2] == (height, width):
        return image
    from PIL import Image

    channels = (Image.fromarray(np.ascontiguousarray(image[:, :, i])) for i in range(image.shape[2]))
    resized = (channel.resize((width, height), Image.Resampling.BILINEAR) for channel in channels)
    return np.stack([np.asarray(channel) for channel in resized], axis=-1)


def resize_into(target: np.ndarray, image: np.ndarray, antialias: bool) -> None:
    """Fills `target` [h, w, C] with the resized image, without a copy if OpenCV can write there."""
    height, width, channels = target.shape
    if 2 <= channels <= 4 and image.dtype == target.dtype and image.shape != target.shape:
        method = _interpolation(image, height, width, antialias)
        resized = cv2.resize(image, (width, height), dst=target, interpolation=method)
        if np.shares_memory(resized, target):
            return
    target[...] = resize(image, height, width, antialias)


def _interpolation(image: np.ndarray, height: int, width: int, antialias: bool) -> int:
    shrinks = height < image.shape[0] and width < image.shape[1]
    return cv2.INTER_AREA if antialias and shrinks else cv2.INTER_LINEAR


def resize_exactly(image: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Any numeric image resized to `shape` (rows, columns) as the old package does: bilinear, zeros beyond the border,
    no antialiasing; float, in the image's range."""
    from skimage.transform import resize as resize_by_skimage

    image = image.astype(np.float64) if image.dtype == bool else image
    return resize_by_skimage(
        image, tuple(shape), order=1, mode="constant", cval=0, clip=True, preserve_range=True, anti_aliasing=False
    )


def choose_scale(
    height: int, width: int, min_dim: float | None, max_dim: float | None, min_scale: float | None, mode: str
) -> float:
    """The old package's scale: up to `min_dim` and `min_scale`, down to `max_dim` only in "square"; or "fit"."""
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

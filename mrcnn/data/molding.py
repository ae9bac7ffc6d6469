"""Molding: from a photograph to what the network takes, and the numbers that lead back."""

import math
from typing import NamedTuple

import cv2
import numpy as np

from mrcnn.data.resize import choose_scale, resize_exactly, resize_image, resize_mask
from mrcnn.network.pixels import PixelScaling

__all__ = [
    "PixelScaling",
    "Placement",
    "base_scale",
    "canvas_side",
    "fit_image",
    "fit_size",
    "mold_for_network",
    "mold_image",
    "pad_to",
    "plan",
    "resize_image",
    "resize_mask",
    "unmold_image",
]

STRIP = 1 << 17  # numbers
RESIZE_MODES = ("fit", "square", "pad64", "none", "crop")


class Placement(NamedTuple):
    """Where a photograph goes: resized to (height, width), at (top, left) of a canvas of zeros."""

    height: int
    width: int
    top: int
    left: int
    canvas_height: int
    canvas_width: int


def fit_size(height: int, width: int, min_dim: float, max_dim: float, half_up: bool = False) -> tuple[int, int]:
    """The size whose shorter side is `min_dim`, unless the longer would exceed `max_dim`.

    Rounded down, as torchvision's GeneralizedRCNNTransform does, or to the nearest as Detectron2's ResizeShortestEdge:
    the scale of boxes follows from it.
    """
    scale = base_scale(height, width, mode="fit", min_dim=min_dim, max_dim=max_dim)
    more = 0.5 if half_up else 0.0
    return max(1, math.floor(height * scale + more)), max(1, math.floor(width * scale + more))


def fit_image(image: np.ndarray, min_dim: float, max_dim: float) -> tuple[np.ndarray, tuple[float, float]]:
    """Resizes [H, W, C] to `fit_size`, bilinear with half-pixel centres, no antialiasing.

    Returns:
        image of the same type, and scale (y, x): new size by old.
    """
    height, width = fit_size(*image.shape[:2], min_dim, max_dim)
    return _resize(image, height, width), (height / image.shape[0], width / image.shape[1])


def canvas_side(max_dim: int, divisor: int) -> int:
    """Side of the square that training images are padded to: `max_dim` rounded up to a multiple of `divisor`."""
    if not max_dim:
        raise ValueError(
            f"the largest side is {max_dim}, but training needs images of one size; set IMAGE_MAX_DIM "
            "(IMAGE_MIN_DIM for IMAGE_RESIZE_MODE 'crop')"
        )
    return _round_up(max_dim, divisor)


def plan(
    height: int,
    width: int,
    *,
    mode: str,
    min_dim,
    max_dim,
    min_scale=None,
    divisor: int = 32,
    pad_square: bool = False,
    scale: float | None = None,
    half_up: bool = False,
) -> Placement:
    """Decides size and place of a photograph of (height, width).

    Args:
        mode: "fit" (`fit_size`, top left), "square" and "pad64" (the old package's, centred), "none" (as it is, top
            left), "crop" (scaled up as the old package's; the caller has cut the part before).
        divisor: canvas sides are multiples of it.
        pad_square: a square canvas of fixed size for training: `max_dim` ("crop": `min_dim`), rounded up.
        scale: overrides the scale that the mode would choose; for parts of photographs (large-scale jitter).
        half_up: see `fit_size`.

    Raises:
        ValueError: for an unknown mode, or an image larger than the canvas.
    """
    if mode not in RESIZE_MODES:
        raise ValueError(f"unknown IMAGE_RESIZE_MODE {mode!r}; expected one of {RESIZE_MODES}")
    tall, wide = _scaled_size(height, width, mode, min_dim, max_dim, min_scale, scale, half_up)
    if pad_square:
        side = canvas_side(min_dim if mode == "crop" else max_dim, divisor)
        canvas = side, side
    elif mode == "square":
        canvas = _round_up(max_dim, divisor), _round_up(max_dim, divisor)
    else:
        unit = math.lcm(divisor, 64) if mode == "pad64" else divisor
        canvas = _round_up(tall, unit), _round_up(wide, unit)
    if tall > canvas[0] or wide > canvas[1]:
        raise ValueError(
            f"an image of {height} x {width} becomes {tall} x {wide} in IMAGE_RESIZE_MODE {mode!r}, more "
            f"than the {canvas[0]} x {canvas[1]} of training; use 'fit' or raise IMAGE_MAX_DIM"
        )
    centred = mode in ("square", "pad64")
    top, left = ((canvas[0] - tall) // 2, (canvas[1] - wide) // 2) if centred else (0, 0)
    return Placement(tall, wide, top, left, *canvas)


def base_scale(height: int, width: int, *, mode: str, min_dim, max_dim, min_scale=None) -> float:
    """The scale that a resize mode chooses for a photograph of (height, width)."""
    return 1.0 if mode == "none" else choose_scale(height, width, min_dim, max_dim, min_scale, mode)


def _scaled_size(height, width, mode, min_dim, max_dim, min_scale, scale, half_up) -> tuple[int, int]:
    if scale is None and mode == "fit":
        return fit_size(height, width, min_dim, max_dim, half_up)
    if scale is None:
        scale = base_scale(height, width, mode=mode, min_dim=min_dim, max_dim=max_dim, min_scale=min_scale)
    return max(1, round(height * scale)), max(1, round(width * scale))


def mold_for_network(
    image: np.ndarray,
    *,
    mode: str,
    min_dim,
    max_dim,
    min_scale=None,
    divisor: int = 32,
    scaling: PixelScaling,
    pad_square: bool = False,
    scale: float | None = None,
    antialias: bool = False,
    resizer: str = "opencv",
    pad_pixel=None,
    canvas: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """Resizes, normalises and pads a photograph.

    Args:
        image: [H, W, C] uint8.
        scaling: what the backbone expects.
        antialias: when shrinking, average the pixels that fall together rather than sample between the nearest two.
        resizer: "opencv"; "skimage" as the old package has it: zeros beyond the border, values cut to whole ones;
            "pillow" as Detectron2 has it: antialiased, values and the size rounded to whole ones.
        pad_pixel: the padding's pixel, one value a channel, which is normalised too; None: padding is zero after the
            normalisation.
        canvas: float32, filled whatever it held, and returned: an image's place in a batch. None: a new one.
        The other arguments: see `plan`.

    Returns:
        molded [h, w, C] float32; window (y1, x1, y2, x2) float32 of the photograph inside it; scale (y, x). A box of
        the photograph lies at box * (y, x, y, x) + (window y1, x1, y1, x1).
    """
    height, width = image.shape[:2]
    place = plan(
        height,
        width,
        mode=mode,
        min_dim=min_dim,
        max_dim=max_dim,
        min_scale=min_scale,
        divisor=divisor,
        pad_square=pad_square,
        scale=scale,
        half_up=resizer == "pillow",
    )
    size = (place.canvas_height, place.canvas_width, image.shape[2])
    canvas = np.empty(size, np.float32) if canvas is None else canvas
    if canvas.shape != size or canvas.dtype != np.float32:
        raise ValueError(f"the canvas is {canvas.dtype} of shape {canvas.shape}; expected float32 of {size}")
    border = 0
    if pad_pixel is not None:
        border = mold_image(_per_channel("padding", pad_pixel, image.shape[2])[None, None], *scaling)[0, 0]
    inside = _fill_around(canvas, place, border)
    # Resized as floats, as the references do: uint8 would round the pixels once more. Both steps are linear, so the
    # smaller of the two images is the one that is normalised.
    if resizer == "skimage":
        if (place.height, place.width) != (height, width):
            image = resize_exactly(image, (place.height, place.width)).astype(np.uint8)
        inside[...] = mold_image(image, *scaling)
    elif resizer == "pillow":
        inside[...] = mold_image(_resize_by_pillow(image, place.height, place.width), *scaling)
    elif place.height * place.width > height * width:
        _resize_into(inside, mold_image(image, *scaling), antialias)
    else:
        inside[...] = mold_image(_shrink(image, place.height, place.width, antialias), *scaling)
    window = (place.top, place.left, place.top + place.height, place.left + place.width)
    return canvas, np.array(window, np.float32), (place.height / height, place.width / width)


def mold_image(image: np.ndarray, mean, std=1.0, bgr: bool = False) -> np.ndarray:
    """(image - mean) / std in the order of the image's channels, then reversed if `bgr`; float32 [H, W, C]."""
    height, width, channels = image.shape
    mean = _per_channel("mean", mean, channels)
    std = _per_channel("std", std, channels)
    # One row of all columns at a time: NumPy's broadcasting over 3 channels alone is several times slower
    rows = image.reshape(height, width * channels).astype(np.float32)
    rows -= np.tile(mean, width)
    if not np.all(std == 1):
        rows /= np.tile(std, width)
    image = rows.reshape(height, width, channels)
    return np.ascontiguousarray(image[:, :, ::-1]) if bgr else image


def unmold_image(image: np.ndarray, mean, std=1.0, bgr: bool = False) -> np.ndarray:
    """The reverse of `mold_image`: [H, W, C] uint8, rounded (the old package cuts off), kept within 0..255."""
    image = image[:, :, ::-1] if bgr else image
    mean = _per_channel("mean", mean, image.shape[2])
    std = _per_channel("std", std, image.shape[2])
    return np.clip(np.rint(image * std + mean), 0, 255).astype(np.uint8)


def pad_to(image: np.ndarray, height: int, width: int, top: int = 0, left: int = 0) -> np.ndarray:
    """The image [h, w, C] at (top, left) of [height, width, C] zeros."""
    tall, wide = image.shape[:2]
    if tall + top > height or wide + left > width:
        raise ValueError(f"an image of {tall} x {wide} at ({top}, {left}) does not fit into {height} x {width}")
    if (tall, wide) == (height, width):
        return image
    canvas = np.zeros([height, width, *image.shape[2:]], image.dtype)
    canvas[top : top + tall, left : left + wide] = image
    return canvas


def _resize(image: np.ndarray, height: int, width: int, antialias: bool = False) -> np.ndarray:
    if image.shape[:2] == (height, width):
        return image
    method = _interpolation(image, height, width, antialias)
    # OpenCV averages at most 4 channels at a time, and drops a single one
    groups = [image[:, :, i : i + 4] for i in range(0, image.shape[2], 4)]
    resized = [cv2.resize(group, (width, height), interpolation=method).reshape(height, width, -1) for group in groups]
    return resized[0] if len(resized) == 1 else np.concatenate(resized, axis=2)


def _shrink(image: np.ndarray, height: int, width: int, antialias: bool) -> np.ndarray:
    """`_resize` of float32 pixels, for [H, W, C] uint8 of at least this size.

    Between two rows first and then along them, some rows at a time: what stays in the cache is converted to floats, and
    of a photograph many times larger only the rows that count. Three times as fast at 12 megapixels.
    """
    rows, columns, channels = image.shape
    if rows == height or height == 1 or _interpolation(image, height, width, antialias) != cv2.INTER_LINEAR:
        return _resize(image.astype(np.float32), height, width, antialias)
    position = (np.arange(height) + 0.5) * (rows / height) - 0.5  # half-pixel centres, within the image as it shrinks
    above = position.astype(np.intp)
    below, part = np.minimum(above + 1, rows - 1), (position - above).astype(np.float32)[:, None]
    flat, resized = image.reshape(rows, -1), np.empty((height, width, channels), np.float32)
    strip = min(height, max(2, STRIP // flat.shape[1]))  # OpenCV computes a single row in another way
    first, second = np.empty((2, strip, flat.shape[1]), np.float32)
    for start in range(0, height, strip):
        start = min(start, height - strip)
        taken = slice(start, start + strip)
        first[...], second[...] = flat[above[taken]], flat[below[taken]]
        second -= first
        second *= part[taken]
        first += second
        resized[taken] = _resize(first.reshape(strip, columns, channels), strip, width)
    return resized


def _resize_by_pillow(image: np.ndarray, height: int, width: int) -> np.ndarray:
    if image.shape[:2] == (height, width):
        return image
    from PIL import Image

    channels = [Image.fromarray(np.ascontiguousarray(image[:, :, i])) for i in range(image.shape[2])]
    return np.stack([channel.resize((width, height), Image.Resampling.BILINEAR) for channel in channels], axis=-1)


def _fill_around(canvas: np.ndarray, place: Placement, border: float | np.ndarray) -> np.ndarray:
    """Sets all of the canvas to `border` but the place of the photograph, which is returned."""
    bottom, right = place.top + place.height, place.left + place.width
    canvas[: place.top] = canvas[bottom:] = border
    canvas[place.top : bottom, : place.left] = canvas[place.top : bottom, right:] = border
    return canvas[place.top : bottom, place.left : right]


def _resize_into(target: np.ndarray, image: np.ndarray, antialias: bool) -> None:
    """Fills `target` [h, w, C] with the resized image, without a copy where OpenCV can write there."""
    height, width, channels = target.shape
    if 2 <= channels <= 4 and image.dtype == target.dtype and image.shape != target.shape:
        method = _interpolation(image, height, width, antialias)
        resized = cv2.resize(image, (width, height), dst=target, interpolation=method)
        if np.shares_memory(resized, target):
            return
    target[...] = _resize(image, height, width, antialias)


def _interpolation(image: np.ndarray, height: int, width: int, antialias: bool) -> int:
    shrinks = height < image.shape[0] and width < image.shape[1]
    return cv2.INTER_AREA if antialias and shrinks else cv2.INTER_LINEAR


def _per_channel(name: str, value, channels: int) -> np.ndarray:
    array = np.asarray(value, np.float32)
    if array.ndim and array.shape != (channels,):
        raise ValueError(
            f"{name} {tuple(array.ravel().tolist())} does not fit an image of {channels} channels; "
            "set MEAN_PIXEL, PIXEL_STD and IMAGE_PAD_PIXEL to one value a channel"
        )
    return np.broadcast_to(array, (channels,))


def _round_up(value: int, unit: int) -> int:
    return -(-int(value) // unit) * unit

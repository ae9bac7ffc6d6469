"""Image input: one reader for files and arrays, so that training and detection see the same pixels."""

import os
from typing import Any

import numpy as np

from mrcnn.data.images.arrays import check_shape, to_uint8
from mrcnn.data.images.files import ImageFile
from mrcnn.data.images.headers import MAX_PIXELS, Header, check_pixels, read_header, read_image_size

__all__ = ["MAX_PIXELS", "SUFFIXES", "Header", "ImageFile", "read_header", "read_image", "read_image_size"]

# Of the files that are taken for images, in detection and in the readers of annotations
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".jpe", ".jfif", ".jp2", ".gif")

DEEP_MODES = ("I", "F")  # PIL modes with more than 8 bits, as "I;16" with any byte order; convert("RGB") truncates them


def read_image(source: Any, channels: int = 3, *, upright: bool = True, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Reads an image file, or checks an array, and returns RGB.

    Args:
        source: a path, a PIL image, or an array [H, W], [H, W, 1] (gray), [H, W, 2] (gray, alpha), [H, W, 3] (RGB) or
            [H, W, 4] (RGBA) of uint8, uint16 (0..65535), bool, or float in 0..1 or 0..255. Alpha is dropped. Floats
            up to 1.1 are read as 0..1 and clipped (bicubic overshoot), floats of 2 and more as 0..255.
        channels: number of channels the network takes. 1: gray, from a file, a PIL image or an array [H, W] or
            [H, W, 1]. Other than 1 and 3: only arrays [H, W, channels], with their channels unchanged.
        upright: rotate a file by its orientation tag, as image viewers and browsers do; False: keep it as stored. Has
            no effect on arrays and PIL images.
        max_pixels: limit for the pixels of a file or PIL image; a file's header is checked before decoding.

    Returns:
        [H, W, channels] uint8.

    Raises:
        FileNotFoundError, OSError: the file cannot be opened.
        ValueError: not an image, truncated or damaged, too large, or an array of unsupported shape or value range.
        TypeError: neither a path nor a numeric array. All name the path, or the array's shape and type.
    """
    if isinstance(source, (str, os.PathLike)):
        if channels not in (1, 3):
            raise ValueError(
                f"{os.fspath(source)!r}: files are read as RGB, but IMAGE_CHANNEL_COUNT is {channels}; "
                f"pass arrays [H, W, {channels}]; in a Dataset, override load_image to return them"
            )
        file = ImageFile(source, max_pixels)
        return file.decode(file.header.orientation if upright else 1, gray=channels == 1)
    if hasattr(source, "convert") and hasattr(source, "getbands"):  # a PIL image, possibly with a palette
        source = _from_pil(source, channels, max_pixels)
    image = np.asarray(source)
    check_shape(image, channels)
    image = to_uint8(image)
    if image.ndim == 2:
        image = image[..., None]
    if channels != 3:
        return image
    if image.shape[2] <= 2:
        return np.repeat(image[..., :1], 3, axis=2)
    return np.ascontiguousarray(image[..., :3])


def _from_pil(image: Any, channels: int, max_pixels: int) -> np.ndarray:
    name = f"the PIL image {getattr(image, 'filename', '')!r}"
    check_pixels(image.size[::-1], name, max_pixels)
    deep = image.mode in DEEP_MODES or image.mode.startswith("I;16") or channels not in (1, 3)
    try:
        return np.asarray(image if deep else image.convert("RGB" if channels == 3 else "L"))
    except Exception as error:  # decoding may happen only now, and plugins raise any error
        raise ValueError(f"{name} cannot be decoded: {error}; fetch or copy its file again") from error

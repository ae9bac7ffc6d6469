"""Arrays as images: checks their shape and converts their values to 0..255."""

import numpy as np

OVERSHOOT = 0.1  # how far bicubic resizing may exceed 0..1
DARK = 1 << 12  # 16-bit images with all values below it would look black; cameras and scanners often write 12 bits


def check_shape(image: np.ndarray, channels: int) -> None:
    """Raises TypeError or ValueError if an array is not an image with the network's number of channels."""
    described = f"an array of shape {image.shape} and type {image.dtype}"
    if image.dtype == object or image.dtype.kind not in "buif":
        raise TypeError(f"expected an image as a path or an array of numbers, got {described}")
    if channels == 3:
        fits = image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 2, 3, 4))
        wanted = "[H, W], or [H, W, channels] with 1 to 4 channels, channels last, one image at a time"
    else:
        fits = (image.ndim == 3 and image.shape[2] == channels) or (channels == 1 and image.ndim == 2)
        wanted = f"[H, W, {channels}] (IMAGE_CHANNEL_COUNT is {channels})"
    if not fits:
        way_out = "" if channels == 3 else "; in a Dataset, override load_image to return such arrays"
        raise ValueError(f"expected an image of shape {wanted}; got {described}{way_out}")
    if image.size == 0:
        raise ValueError(f"the image has no pixels: {described}; remove it")


def to_uint8(image: np.ndarray) -> np.ndarray:
    """The values as 0..255 uint8, see `read_image`. Raises ValueError if the range of values is ambiguous."""
    if image.dtype == np.uint8:
        return image
    if image.dtype == bool:
        return image.astype(np.uint8) * np.uint8(255)
    if image.dtype.kind == "u" and image.dtype.itemsize == 2:  # either byte order
        check_depth(image)
        return np.rint(image / np.float32(257)).astype(np.uint8)
    low, high = image.min(), image.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(
            f"the image of shape {image.shape} and type {image.dtype} holds NaN or infinite values; "
            "replace them before passing it"
        )
    if image.dtype.kind == "f" and low >= -OVERSHOOT and high <= 1 + OVERSHOOT:
        return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    if low < 0 or high > 255:
        raise ValueError(
            f"the image of shape {image.shape} and type {image.dtype} has values from {low} to {high}; "
            "expected 0..255, or 0..1 for floats; pass images without normalization, which the package does itself"
        )
    if image.dtype.kind == "f" and high < 2:
        raise ValueError(
            f"the image of shape {image.shape} and type {image.dtype} has values up to {high:.4g}, which "
            "could mean a range of 0..1 or 0..255; rescale it to one of them, or pass uint8"
        )
    return (np.rint(image) if image.dtype.kind == "f" else image).astype(np.uint8)


def check_depth(image: np.ndarray) -> None:
    """Raises ValueError for a 16-bit image that uses at most 12 bits and would look black."""
    highest = int(image.max())
    if 0 < highest < DARK:
        raise ValueError(
            f"the 16-bit image has values up to {highest} and would look black; it seems to use only "
            f"{highest.bit_length()} of its 16 bits, so multiply it by {1 << 16 - highest.bit_length()}, or convert it "
            "to 8 bits"
        )

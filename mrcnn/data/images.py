"""Images in: one reader for files and arrays, so that training and detection see the same pixels."""

import io
import os

import cv2
import numpy as np

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
DEEP_MODES = ("I", "F")  # of PIL, and "I;16" in its byte orders: more than 8 bits, which convert("RGB") cuts off
OVERSHOOT = 0.1  # how far bicubic resizing may leave 0..1
PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"


def read_image(source, channels: int = 3) -> np.ndarray:
    """Reads an image file, or checks an array, and returns RGB.

    Args:
        source: a path, a PIL image, or an array [H, W], [H, W, 1] (grey), [H, W, 2] (grey, alpha), [H, W, 3] (RGB) or
            [H, W, 4] (RGBA) of uint8, uint16 (0..65535), bool, or float in 0..1 or 0..255. Alpha is dropped. Floats
            up to 1.1 count as 0..1 and are clipped (bicubic overshoot), from 2 on as 0..255.
            The orientation tag of a photograph is ignored, because annotations are drawn on the stored pixels.
        channels: what the network takes. 1: grey, of a file, a PIL image or an array [H, W] or [H, W, 1]. Other than 1
            and 3: arrays [H, W, channels] only, whose channels are kept.

    Returns:
        [H, W, channels] uint8.

    Raises:
        FileNotFoundError, ValueError, TypeError: naming the path or the array's shape and type.
    """
    if isinstance(source, (str, os.PathLike)):
        if channels not in (1, 3):
            raise ValueError(
                f"{os.fspath(source)!r}: files are read as RGB, but IMAGE_CHANNEL_COUNT is {channels}; "
                f"pass arrays [H, W, {channels}]; in a Dataset, override load_image to return them"
            )
        return read_image_file(source, grey=channels == 1)
    if hasattr(source, "convert") and hasattr(source, "getbands"):  # a PIL image, palettes included
        source = _from_pil(source, channels)
    image = np.asarray(source)
    _check_shape(image, channels)
    image = _to_uint8(image)
    if image.ndim == 2:
        image = image[..., None]
    if channels != 3:
        return image
    if image.shape[2] <= 2:
        return np.repeat(image[..., :1], 3, axis=2)
    return np.ascontiguousarray(image[..., :3])


def read_image_file(path, grey: bool = False) -> np.ndarray:
    """Decodes an image file to RGB uint8 [H, W, 3], or to grey [H, W, 1]; raises, naming it, if missing, truncated or
    no image."""
    path = os.fspath(path)
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        raise FileNotFoundError(f"no image file at {path!r}; check the path and the dataset's folder") from None
    except IsADirectoryError:
        raise ValueError(f"{path!r} is a folder, not an image file; pass the files in it one by one") from None
    if not data:
        raise ValueError(f"{path!r} is an empty file, not an image; fetch or copy it again")
    _check_complete(path, data)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise ValueError(f"{path!r} ({len(data)} bytes) is no image that OpenCV can decode; convert it to JPEG or PNG")
    # Grey from the decoded colours: OpenCV's decoders weigh them differently from format to format
    return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[..., None] if grey else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _from_pil(image, channels: int) -> np.ndarray:
    if image.mode in DEEP_MODES or image.mode.startswith("I;16") or channels not in (1, 3):
        return np.asarray(image)
    return np.asarray(image.convert("RGB" if channels == 3 else "L"))


def _check_complete(path: str, data: bytes) -> None:
    """OpenCV fills the missing part of a truncated file with grey and only prints a warning; this raises.

    The end marker is looked for first, which costs nothing; where it is missing, Pillow decodes and decides.
    """
    tail = data[-4096:].rstrip(b"\0\r\n \x1a")
    if data.startswith(JPEG_START):
        complete = tail.endswith(JPEG_END)
    else:
        complete = not data.startswith(PNG_START) or PNG_END in data[-4096:]
    if complete:
        return
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:  # what OpenCV is about to decode, not what is at `path` by now
            image.load()
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{path!r} does not end as it should, and is too large to see whether it is whole: {error}; "
            "save it anew, or, if you trust the file, raise PIL.Image.MAX_IMAGE_PIXELS"
        ) from error
    except (OSError, SyntaxError, ValueError) as error:
        message = f"{path!r} is truncated or damaged ({len(data)} bytes: {error}); fetch or copy it again"
        raise ValueError(message) from error


def _check_shape(image: np.ndarray, channels: int) -> None:
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
        raise ValueError(f"the image has no pixels: {described}; leave it out")


def _to_uint8(image: np.ndarray) -> np.ndarray:
    if image.dtype == np.uint8:
        return image
    if image.dtype == bool:
        return image.astype(np.uint8) * np.uint8(255)
    if image.dtype.kind == "u" and image.dtype.itemsize == 2:  # of either byte order
        return np.rint(image / np.float32(257)).astype(np.uint8)
    low, high = image.min(), image.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(
            f"the image of shape {image.shape} and type {image.dtype} holds NaN or infinite values; "
            "replace them before passing it on"
        )
    if image.dtype.kind == "f" and low >= -OVERSHOOT and high <= 1 + OVERSHOOT:
        return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    if low < 0 or high > 255:
        raise ValueError(
            f"the image of shape {image.shape} and type {image.dtype} has values from {low} to {high}; "
            "expected 0..255, or 0..1 for floats: do not normalise images, the package does"
        )
    if image.dtype.kind == "f" and high < 2:
        raise ValueError(
            f"the image of shape {image.shape} and type {image.dtype} has values up to {high:.4g}, which "
            "may be meant for 0..1 or for 0..255; scale it to one of them, or pass uint8"
        )
    return (np.rint(image) if image.dtype.kind == "f" else image).astype(np.uint8)

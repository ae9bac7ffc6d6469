"""Image files: read once, checked by header, then decoded once."""

import io
import os
from typing import Self

import cv2
import numpy as np

from mrcnn.data.images.arrays import check_depth
from mrcnn.data.images.headers import MAX_PIXELS, open_regular, parse_header
from mrcnn.data.images.jpeg import JpegError, check_complete, check_length
from mrcnn.data.images.orientation import turn, turn_back

MOST_BYTES = 1 << 30  # per file, unless this many per pixel is more:
BYTES_A_PIXEL = 16
RGB = getattr(cv2, "IMREAD_COLOR_RGB", None)  # since OpenCV 4.10; without it the channels are swapped in a copy
FLAGS = (cv2.IMREAD_COLOR if RGB is None else RGB) | cv2.IMREAD_IGNORE_ORIENTATION


class ImageFile:
    """An image file in memory, not yet decoded.

    Args:
        path: the image file.
        max_pixels: maximum number of pixels.

    Raises FileNotFoundError or OSError if it cannot be opened, ValueError if it is not an image or too large. Both
    name the file.
    """

    def __init__(self, path: str | os.PathLike, max_pixels: int = MAX_PIXELS) -> None:
        self.path = os.fspath(path)
        with open_regular(self.path) as file:
            self.header = parse_header(file, self.path, max_pixels)
            most = max(MOST_BYTES, BYTES_A_PIXEL * self.header.height * self.header.width)
            length = os.fstat(file.fileno()).st_size
            if length > most:
                raise ValueError(
                    f"{self.path!r} has {length:,} bytes, more than {self.header.height} x {self.header.width} "
                    "pixels can need; save it again as PNG or JPEG"
                )
            file.seek(0)
            self.data = file.read()

    @classmethod
    def from_bytes(cls, data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Self:
        """An image stored inside another file; `name` replaces its path in errors."""
        file = cls.__new__(cls)
        file.path, file.data, file.header = name, data, parse_header(io.BytesIO(data), name, max_pixels)
        return file

    def decode(self, orientation: int = 1, gray: bool = False) -> np.ndarray:
        """The pixels, [H, W, 3] uint8 RGB or [H, W, 1] gray.

        Args:
            orientation: orientation of the stored image, 1 to 8; see `mrcnn.data.images.orientation`.

        Raises ValueError, naming the file, if it is truncated or cannot be decoded.
        """
        image = self._stored()
        # Convert to gray from decoded colors, because OpenCV's decoders weight colors differently per format
        if gray:
            image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
        return turn(image, orientation)

    def _stored(self) -> np.ndarray:
        """The pixels as stored, [H, W, 3] RGB."""
        header = self.header
        if header.kind == "JPEG":
            try:
                check_length(self.data, header.height * header.width)
            except JpegError as error:
                raise self._error(str(error)) from error
        image = self._decoded(self.data)
        if image is None:
            raise self._error(f"OpenCV cannot decode this {header.kind}")
        if header.kind == "TIFF":  # OpenCV always rotates TIFFs by their tag
            image = turn_back(image, header.orientation)
        if image.shape[:2] != header.size:
            raise self._error(
                f"its header states {header.height} x {header.width} (height x width), but it has "
                f"{image.shape[0]} x {image.shape[1]} pixels"
            )
        if header.kind == "JPEG":
            try:
                check_complete(self.data, image, self._decoded)
            except JpegError as error:
                raise self._error(str(error)) from error
        if header.bits is not None and header.bits > 8:
            self._check_depth(image)
        return image

    def _decoded(self, data: bytes, flags: int = FLAGS) -> np.ndarray | None:
        """The file content decoded by OpenCV; None if it cannot decode it."""
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
            return image if image is None or RGB is not None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        except (cv2.error, MemoryError) as error:
            raise self._error(str(error).strip()) from error

    def _check_depth(self, image: np.ndarray) -> None:
        if image.max() < 16:
            deep = self._decoded(self.data, FLAGS | cv2.IMREAD_ANYDEPTH)
            if deep is not None and deep.dtype == np.uint16:
                try:
                    check_depth(deep)
                except ValueError as error:
                    raise ValueError(f"{self.path!r}: {error}") from error

    def _error(self, reason: str) -> ValueError:
        return ValueError(
            f"{self.path!r} is truncated or damaged ({len(self.data)} bytes: {reason}); fetch or copy it again"
        )

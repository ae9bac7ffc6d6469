"""Photographs that cameras stored lying on their side, for formats whose tools show and measure them upright.

The package takes pixels as they are stored and ignores the orientation tag (see `read_image`). labelme, and the
training that YOLO's labels are made for, turn the photograph by it first, so that their coordinates are of the turned
one. `UprightDataset` turns where `orientation` in an image's info says so.
"""

import os

import numpy as np

from mrcnn.data.annotations.annotated import AnnotatedDataset
from mrcnn.data.annotations.outlines import open_picture
from mrcnn.data.annotations.problems import TAGGED as TAGGED
from mrcnn.data.images import ImageFile

TAG = 0x0112  # of Exif and TIFF; https://www.media.mit.edu/pia/Research/deepview/exif.html
SIDEWAYS = (5, 6, 7, 8)  # orientations that swap height and width


class UprightDataset(AnnotatedDataset):
    """An AnnotatedDataset that turns the photographs whose info has an `orientation`."""

    def load_image(self, image_id: int) -> np.ndarray:
        """The photograph, upright, [H, W, 3] uint8 RGB. Raises AnnotationError when its size is not what is stated."""
        image = turned(self.read_stored(image_id), self.image_info[image_id].get("orientation", 1))
        return self.of_stated_size(image_id, image)

    def read_stored(self, image_id: int) -> np.ndarray:
        """The pixels as they are stored."""
        return ImageFile(self.image_info[image_id]["path"], self.max_pixels).decode()


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """The image [H, W, C] as its orientation tag (1 to 8) wants it shown."""
    if orientation in SIDEWAYS:
        image = image.swapaxes(0, 1)
    flip_y, flip_x = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(image[:: -1 if flip_y else 1, :: -1 if flip_x else 1])


def upright_size(path: str | os.PathLike) -> tuple[tuple[int, int], int]:
    """(height, width) of a photograph upright, and its orientation, from its header.

    Raises ValueError when the file is no image, or larger than Pillow takes.
    """
    try:
        with open_picture(path) as image:
            return header_of(image)
    except OSError as error:
        raise ValueError(f"{os.fspath(path)!r} is not an image: {error}") from error


def known_size(path: str | os.PathLike) -> tuple[tuple[int, int] | tuple[None, None], int]:
    """As `upright_size`, with (None, None) for a file that is missing or no image, which `add_annotated` reports."""
    try:
        return upright_size(path)
    except (ValueError, FileNotFoundError):
        return (None, None), 1


def header_of(image) -> tuple[tuple[int, int], int]:
    """(height, width) upright, and orientation, of an image that Pillow opened."""
    if image.format == "TIFF":  # which Pillow and OpenCV turn on their own
        return (image.height, image.width), 1
    try:
        orientation = image.getexif().get(TAG, 1)
    except (OSError, SyntaxError, ValueError):  # a damaged tag does not make the pixels worse
        orientation = 1
    orientation = orientation if orientation in range(1, 9) else 1
    size = image.width, image.height
    return (size if orientation in SIDEWAYS else size[::-1]), orientation

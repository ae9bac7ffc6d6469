"""Orientation tags: cameras store images as the sensor saw them, and a tag says how to rotate them upright.

Only this module decides whether an image is rotated; all annotation readers and `detect` follow it. By default, images
are rotated upright, as shown by browsers, CVAT, Label Studio, FiftyOne and OpenCV.

An orientation is the value of the Exif tag (Exif 2.32, section 4.6.4): 1 means as stored, 2 to 8 mirror or rotate the
image, and 5 to 8 swap height and width.
"""

from typing import NamedTuple

import numpy as np

SIDEWAYS = (5, 6, 7, 8)
INVERSE = {6: 8, 8: 6}  # every other orientation is its own inverse


class Choice(NamedTuple):
    """orientation: to apply to the image, 1 to 8. proven: whether it follows from more than the package's rule."""

    orientation: int
    proven: bool


def upright_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """(height, width) of a stored image of `size` after rotating it upright."""
    return size[::-1] if orientation in SIDEWAYS else size


def choose_orientation(
    tag: int, stored: tuple[int, int], annotated: tuple[int, int] | None = None, upright: bool | None = None
) -> Choice:
    """The orientation to apply to an image whose file has an orientation tag.

    Args:
        tag: the file's orientation.
        stored: (height, width) of its pixels.
        annotated: (height, width) of the annotated image, if known. It decides if it matches only the stored or only
            the upright image.
        upright: decides for all other images: True rotates them upright, False keeps them as stored. None: the rule.
    """
    if tag == 1:
        return Choice(1, proven=True)
    shown = upright_size(stored, tag)
    if shown != stored and annotated in (stored, shown):
        return Choice(tag if annotated == shown else 1, proven=True)
    return Choice(1 if upright is False else tag, proven=upright is not None)


def turn(image: np.ndarray, orientation: int) -> np.ndarray:
    """The stored image [H, W, ...], mirrored and rotated according to its orientation (1 to 8)."""
    if orientation == 1:
        return image
    if orientation in SIDEWAYS:
        image = image.swapaxes(0, 1)
    flip_y, flip_x = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(image[:: -1 if flip_y else 1, :: -1 if flip_x else 1])


def turn_back(image: np.ndarray, orientation: int) -> np.ndarray:
    """The inverse of `turn`."""
    return turn(image, INVERSE.get(orientation, orientation))

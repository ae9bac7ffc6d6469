"""Orientation tags: cameras store images as the sensor saw them, and a tag says how to turn them upright.

This is the only place that decides whether an image is turned; every reader of annotations and `detect` follow it. The
rule is to turn images upright, as browsers, CVAT, Label Studio, FiftyOne and OpenCV show them.

An orientation is the number of the Exif tag (Exif 2.32, section 4.6.4): 1 means as stored, 2 to 8 mirror or rotate the
image, and 5 to 8 swap height and width.
"""

from typing import NamedTuple

import numpy as np

SIDEWAYS = (5, 6, 7, 8)
INVERSE = {6: 8, 8: 6}  # every other orientation undoes itself


class Choice(NamedTuple):
    """orientation: to turn the image by, 1 to 8. proven: whether more than the package's rule decided it."""

    orientation: int
    proven: bool


def upright_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """(height, width) of a stored image of `size` once it is turned upright."""
    return size[::-1] if orientation in SIDEWAYS else size


def choose_orientation(
    tag: int, stored: tuple[int, int], annotated: tuple[int, int] | None = None, upright: bool | None = None
) -> Choice:
    """How to turn an image whose file has an orientation tag.

    Args:
        tag: the file's orientation.
        stored: (height, width) of its pixels.
        annotated: (height, width) of the image that was annotated, where it is known. It decides wherever it fits only
            one of the stored and the upright image.
        upright: decides for all other images: True turns them upright, False leaves them as stored. None: the rule.
    """
    if tag == 1:
        return Choice(1, proven=True)
    shown = upright_size(stored, tag)
    if shown != stored and annotated in (stored, shown):
        return Choice(tag if annotated == shown else 1, proven=True)
    return Choice(1 if upright is False else tag, proven=upright is not None)


def turn(image: np.ndarray, orientation: int) -> np.ndarray:
    """The stored image [H, W, ...] as its orientation (1 to 8) wants it shown."""
    if orientation == 1:
        return image
    if orientation in SIDEWAYS:
        image = image.swapaxes(0, 1)
    flip_y, flip_x = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(image[:: -1 if flip_y else 1, :: -1 if flip_x else 1])


def turn_back(image: np.ndarray, orientation: int) -> np.ndarray:
    """The reverse of `turn`."""
    return turn(image, INVERSE.get(orientation, orientation))

"""The picture that a file of labelme annotates: beside it, or inside it."""

import io
import os
from typing import Any, NamedTuple

from mrcnn.data.formats import problems
from mrcnn.data.formats.fields import FieldError, shown
from mrcnn.data.formats.labelme_shapes import decoded
from mrcnn.data.formats.problems import Problems
from mrcnn.data.formats.upright import SIDEWAYS, TAGGED, header_of, upright_size

SIZE_FIELDS = "imageHeight", "imageWidth"


class Picture(NamedTuple):
    """An image of which there is an annotation file.

    path: the picture, or the json where the picture is in it (`embedded`). size: (height, width), upright.
    """

    file: str
    path: str
    size: tuple[int, int]
    orientation: int
    embedded: bool


def picture_of(found: Problems, file: str, record: str, content: dict) -> Picture | None:
    """The picture of a json; broken, and None, when it is missing, unreadable or of another size."""
    try:
        picture = _picture(file, content)
    except FieldError as error:
        found.broken(file, record, error.field, str(error), error.kind)
        return None
    if picture.orientation != 1:
        found.noted(
            TAGGED,
            file,
            record,
            "imagePath",
            f"{picture.path!r} has the orientation tag {picture.orientation}",
            "turned upright, as labelme shows it",
        )
    return picture


def opened(text: Any):
    """The picture, open, in a text in base64. Raises FieldError."""
    from PIL import Image

    try:
        return Image.open(io.BytesIO(decoded(text, "imageData")))
    except OSError as error:
        raise FieldError("imageData", f"it is not a picture: {error}", problems.UNREADABLE) from error
    except Image.DecompressionBombError as error:  # no OSError; `outlines.open_picture` is for files
        raise FieldError(
            "imageData",
            f"it is too large: {error}; cut it into tiles, or, if you trust the file, raise PIL.Image.MAX_IMAGE_PIXELS",
            problems.UNREADABLE,
        ) from error


def _picture(file: str, content: dict) -> Picture:
    path = _path(file, content)
    if os.path.isfile(path):
        try:
            found, where, embedded = upright_size(path), repr(path), False
        except ValueError as error:
            raise FieldError("imagePath", str(error), problems.UNREADABLE) from error
    elif content.get("imageData"):
        with opened(content["imageData"]) as image:
            found, where, embedded = header_of(image), "its imageData", True
    else:
        raise FieldError("imagePath", f"there is no image file {path!r}, and no imageData", problems.MISSING)
    size, orientation = _agreed(content, *found, where)
    return Picture(file, file if embedded else path, size, orientation, embedded)


def _path(file: str, content: dict) -> str:
    """The path of the picture: as it is written, maybe on Windows, or of the same name beside the json."""
    name = content.get("imagePath")
    if not isinstance(name, str) or not name:
        if content.get("imageData"):
            return ""
        raise FieldError("imagePath", f"expected the name of a picture, got {shown(name)}")
    folder, name = os.path.dirname(file), name.replace("\\", "/")
    path, beside = os.path.normpath(os.path.join(folder, name)), os.path.join(folder, os.path.basename(name))
    return beside if os.path.isfile(beside) and not os.path.isfile(path) else path


def _agreed(content: dict, size: tuple[int, int], orientation: int, where: str) -> tuple[tuple[int, int], int]:
    """The size and orientation in which the picture was annotated. Raises FieldError when it is another picture."""
    stated = []
    for field, length in zip(SIZE_FIELDS, size, strict=True):
        value = content.get(field)
        if value is not None and (type(value) is not int or value < 1):
            raise FieldError(field, f"expected pixels from 1 on, got {shown(value)}")
        stated.append(length if value is None else value)
    if tuple(stated) == size:
        return size, orientation
    if orientation in SIDEWAYS and tuple(stated) == size[::-1]:
        return size[::-1], 1  # annotated as its pixels are stored, by a labelme that ignored the tag
    raise FieldError(
        "/".join(SIZE_FIELDS),
        f"the annotations are of an image of {stated[0]} x {stated[1]}, but "
        f"{where} is {size[0]} x {size[1]} (height x width)",
        problems.SIZE,
    )

"""What the colours and numbers in Pascal VOC's pictures of classes stand for."""

import os
from collections.abc import Mapping

import numpy as np

from mrcnn.data.formats.id_pictures import ranked
from mrcnn.data.formats.problems import AnnotationError
from mrcnn.data.outlines import open_picture

# In the order of http://host.robots.ox.ac.uk/pascal/VOC/voc2012/segexamples/index.html: the numbers 1 to 20
VOC_CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
BACKGROUND, VOID = "", "void"  # instead of a name
VOID_NUMBER = 255
Colour = tuple[int, int, int]


def colour_of(number: int) -> Colour:
    """The (red, green, blue) that VOC's palette gives a number: its bits, three by three, from the highest bit down."""
    colour = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            colour[channel] |= (number >> (3 * place + channel) & 1) << (7 - place)
    return tuple(colour)


NUMBER_OF = {colour_of(number): number for number in range(256)}
VOID_COLOUR = colour_of(VOID_NUMBER)


class ClassCodes:
    """Names by the values of a picture of classes.

    Args:
        numbers: names by numbers, from 1 on.
        colours: names by colours; None: by the number that VOC's palette has for a colour.
    """

    def __init__(self, numbers: Mapping[int, str], colours: Mapping[Colour, str] | None = None) -> None:
        self._numbers = {VOID_NUMBER: VOID, **numbers, 0: BACKGROUND}
        self._colours = None if colours is None else {VOID_COLOUR: VOID, **colours, (0, 0, 0): BACKGROUND}
        named = numbers.values() if colours is None else colours.values()
        self.names = list(dict.fromkeys(name for name in named if name not in (BACKGROUND, VOID)))

    def name(self, value: int, header: "Header") -> str | None:
        """The name of a value of a picture as `outlines.read_values` gives it; None for one that has none."""
        if self._colours is None:
            return self._numbers.get(header.number(value))
        if header.numbers and header.palette is None:
            return self._numbers.get(value)
        return self._colours.get(header.palette.get(value) if header.palette else _colour(value))


class Header:
    """Whether the values of a picture are numbers, and the colours of its palette, if it has one.

    Raises ValueError naming the file when it is no picture, or larger than Pillow takes.
    """

    def __init__(self, path: str) -> None:
        try:
            with open_picture(path) as image:
                mode, palette = image.mode, image.getpalette() if image.mode == "P" else None
        except OSError as error:
            raise ValueError(f"{path!r} is not a picture, or damaged: {error}; write it again as png") from error
        self.numbers = mode not in ("RGB", "RGBA")
        self._void = mode in ("P", "L")  # with 16 bits, 255 is a number as any other
        self.palette = palette and {i: tuple(palette[3 * i : 3 * i + 3]) for i in range(len(palette) // 3)}

    def number(self, value: int) -> int:
        """The number that a value of a picture stands for: that of its colour in VOC's palette, where it has one."""
        return value if self.numbers else NUMBER_OF.get(_colour(value), value)

    def is_void(self, value: int) -> bool:
        """Whether a value of a picture of objects marks the border between them."""
        return value == VOID_NUMBER and self._void if self.numbers else _colour(value) == VOID_COLOUR


def read_labelmap(path: str | os.PathLike) -> ClassCodes:
    """Reads a labelmap.txt, a line a class as `name:red,green,blue:parts:actions`; # begins a comment.

    The class of colour 0, 0, 0 is the background. Numbers, where a picture has those, count its lines from 0.

    Raises AnnotationError naming the line.
    """
    path, numbers, colours = os.fspath(path), {}, {}
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = [(place, line.strip()) for place, line in enumerate(file, 1)]
    for place, line in lines:
        if not line or line.startswith("#"):
            continue
        name, *rest = line.split(":")
        parts = rest[0].split(",") if rest else []
        if not name or len(parts) != 3 or not all(part.strip().isdecimal() and int(part) < 256 for part in parts):
            raise AnnotationError(path, f"line {place}", "color_rgb", f"expected name:red,green,blue::, got {line!r}")
        colour = tuple(map(int, parts))
        if colour in colours:
            raise AnnotationError(path, f"line {place}", "color_rgb", f"{colours[colour]!r} has the same colour")
        is_class = colour not in ((0, 0, 0), VOID_COLOUR)
        colours[colour] = numbers[len(numbers)] = name if is_class else VOID if any(colour) else BACKGROUND
    if not any(name not in (BACKGROUND, VOID) for name in colours.values()):
        raise AnnotationError(path, "", "", "it names no class; expected lines name:red,green,blue::")
    return ClassCodes(numbers, colours)


def most_of(objects: np.ndarray, classes: np.ndarray) -> dict[int, dict[int, int]]:
    """How many pixels of each class are in each object, the commonest first: {object: {class: pixels}}.

    objects, classes: [H, W], values of two pictures.
    """
    (numbers, rows), (codes, columns) = ranked(objects), ranked(classes)
    counts = np.bincount((rows * len(codes) + columns).ravel()).tolist()
    counts += [0] * (len(numbers) * len(codes) - len(counts))
    found = {}
    for row, number in enumerate(numbers.tolist()):
        inside = zip(codes.tolist(), counts[row * len(codes) : (row + 1) * len(codes)], strict=True)
        found[number] = dict(sorted(((code, n) for code, n in inside if n), key=lambda pair: -pair[1]))
    return found


def _colour(value: int) -> Colour:
    return value & 255, value >> 8 & 255, value >> 16

"""Headers of image files: size and orientation, read without decoding pixels.

PNG, JPEG, BMP, TIFF, WebP, GIF and PNM are parsed here, because Pillow decodes a whole PNG to find its orientation,
reads the comments of a PNM byte by byte, and has its own pixel limit. Pillow reads the headers of other formats.
"""

import errno
import io
import os
import re
import struct
from typing import BinaryIO, NamedTuple

from mrcnn.data.images import orientation
from mrcnn.data.images.jpeg import NOT_FRAMES, START

MAX_PIXELS = 300_000_000  # default limit for image files
HEIGHT, WIDTH, BITS, ORIENTATION = TIFF_TAGS = 257, 256, 258, 274
MOST_EXIF = 1 << 16  # bytes; the maximum in a JPEG segment
MOST_PARTS = 100_000  # maximum number of markers, chunks or tags to read
PILLOW_FORMATS = ("JPEG2000", "AVIF", "SUN")  # further formats that OpenCV decodes

PNG_START = b"\x89PNG\r\n\x1a\n"
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MOST_COMMENTS = 1 << 16  # bytes before the size of a PNM
BLANK = rb"(?:\s|#[^\r\n]*[\r\n])+"
PNM = re.compile(rb"P[1-6]" + BLANK + rb"(\d{1,9})" + BLANK + rb"(\d{1,9})\s")
DAMAGED = (struct.error, IndexError, OverflowError, OSError)  # raised for short files, and offsets beyond any file


class Header(NamedTuple):
    """The metadata of an image file.

    height, width: in pixels, as stored. orientation: 1 to 8. kind: the format, such as "PNG". bits: per channel, None
    if not read.
    """

    height: int
    width: int
    orientation: int = 1
    kind: str = ""
    bits: int | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) as stored."""
        return self.height, self.width

    @property
    def upright_size(self) -> tuple[int, int]:
        """(height, width) of the upright image."""
        return orientation.upright_size(self.size, self.orientation)


class _NotThisFormat(Exception):
    """The content contradicts the file's first bytes."""


def read_header(path: str | os.PathLike, max_pixels: int = MAX_PIXELS) -> Header:
    """Reads the header of an image file.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: a folder, a device, an empty file, not an image, or over `max_pixels` pixels; names the file.
    """
    path = os.fspath(path)
    with open_regular(path) as file:
        return parse_header(file, path, max_pixels)


def read_image_size(path: str | os.PathLike, upright: bool = True, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) of the image that `read_image` returns, from the file's header. Raises as `read_header`."""
    header = read_header(path, max_pixels)
    return header.upright_size if upright else header.size


def open_regular(path: str) -> BinaryIO:
    """The opened file. Raises OSError, or ValueError for a folder, a device, a pipe or an empty file."""
    if os.path.isdir(path):
        if not os.access(path, os.R_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "the folder cannot be listed", path)
        raise ValueError(f"{path!r} is a folder, not an image file; pass the files in it instead")
    if os.path.exists(path) and not os.path.isfile(path):  # opening a pipe would block
        raise ValueError(f"{path!r} is a device or a pipe, not an image file")
    try:
        file = open(path, "rb", buffering=0)
    except ValueError as error:  # a null character in the path, or text that the file system cannot represent
        raise ValueError(f"{path!r} is not a path of a file ({error})") from None
    except FileNotFoundError:
        raise FileNotFoundError(f"no image file at {path!r}; check the path and the dataset's folder") from None
    if not os.fstat(file.fileno()).st_size:
        file.close()
        raise ValueError(f"{path!r} is an empty file, not an image; fetch or copy it again")
    return file


def parse_header(file: BinaryIO, name: str, max_pixels: int = MAX_PIXELS) -> Header:
    """The header of an open image file, called `name` in errors. Raises ValueError as `read_header`."""
    try:
        header = _parse(file)
    except (_NotThisFormat, *DAMAGED) as error:
        raise ValueError(f"{name!r} is truncated, damaged or not an image ({error}); fetch or copy it again") from error
    header = header or _by_pillow(file, name)
    if header.height < 1 or header.width < 1:
        raise ValueError(f"{name!r} is {_described(header)}: it has no pixels; fetch or copy it again")
    check_pixels(header.size, repr(name), max_pixels)
    return header


def check_pixels(size: tuple[int, int], name: str, max_pixels: int) -> None:
    """Raises ValueError for an image of more than `max_pixels` pixels, explaining how to raise the limit."""
    if size[0] * size[1] > max_pixels:
        raise ValueError(
            f"{name} is {size[0]} x {size[1]} (height x width), {size[0] * size[1]:,} pixels, more than the limit of "
            f"{max_pixels:,}. Cut it into tiles, or raise the limit if you trust the file: IMAGE_MAX_PIXELS in a "
            "model's settings, `max_pixels` of a Dataset or of read_image"
        )


def _described(header: Header) -> str:
    return f"a {header.kind} image of {header.height} x {header.width} pixels (height x width)"


def _parse(file: BinaryIO) -> Header | None:
    """The header; None if the format is not parsed here."""
    start = _read(file, 0, 16)
    if start.startswith(START):
        return _jpeg(file)
    if start.startswith(PNG_START):
        return _png(file)
    if start.startswith(TIFF_STARTS):
        return _tiff(file)
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return _webp(file)
    if start.startswith((b"GIF87a", b"GIF89a")):
        width, height = struct.unpack("<HH", start[6:10])
        return Header(height, width, kind="GIF")
    if start.startswith(b"BM"):
        return _bmp(file)
    if re.match(rb"P[1-6][\s#]", start):
        return _pnm(file)
    return None


def _read(file: BinaryIO, offset: int, count: int) -> bytes:
    """Up to `count` bytes at `offset`."""
    file.seek(offset)
    return file.read(count)


def _jpeg(file: BinaryIO) -> Header:
    offset, orientation = 2, 1
    for _ in range(MOST_PARTS):
        head = _read(file, offset, 4)
        if len(head) < 4 or head[0] != 0xFF:
            raise _NotThisFormat(f"missing JPEG marker at byte {offset}")
        marker, length = head[1], int.from_bytes(head[2:], "big")
        if marker == 0xFF:  # a fill byte
            offset += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # without a length
            offset += 2
        elif 0xC0 <= marker <= 0xCF and marker not in NOT_FRAMES:
            bits, height, width = struct.unpack(">BHH", _read(file, offset + 4, 5))
            return Header(height, width, orientation, "JPEG", bits)
        elif marker in (0xD9, 0xDA) or length < 2:
            raise _NotThisFormat("JPEG without a size")
        else:
            if marker == 0xE1 and orientation == 1:
                segment = _read(file, offset + 4, length - 2)
                if segment.startswith(b"Exif\0"):
                    orientation = _exif_orientation(segment[6:])
            offset += 2 + length
    raise _NotThisFormat("JPEG without any data")


def _png(file: BinaryIO) -> Header:
    """Checks all chunks: decoders allocate memory for a chunk before they notice that it is longer than the file."""
    total = file.seek(0, os.SEEK_END)
    offset, size, bits, orientation = len(PNG_START), None, 8, 1
    for _ in range(MOST_PARTS):
        if len(head := _read(file, offset, 8)) < 8:
            break
        length, kind = struct.unpack(">I4s", head)
        if size is None and kind != b"IHDR":
            raise _NotThisFormat(f"PNG that starts with {kind!r} instead of IHDR")
        if offset + 12 + length > total:
            raise _NotThisFormat(f"PNG with a {kind!r} chunk of {length:,} bytes")
        if kind == b"IHDR":
            width, height, bits = struct.unpack(">IIB", _read(file, offset + 8, 9))
            size = height, width
        elif kind == b"eXIf" and length <= MOST_EXIF:
            orientation = _exif_orientation(_read(file, offset + 8, length))
        elif kind == b"IEND":
            break
        offset += 12 + length
    if size is None:
        raise _NotThisFormat("PNG without a size")
    return Header(*size, orientation, "PNG", bits)


def _webp(file: BinaryIO) -> Header:
    offset, size, orientation = 12, None, 1
    for _ in range(MOST_PARTS):
        if len(head := _read(file, offset, 8)) < 8:
            break
        kind, length = struct.unpack("<4sI", head)
        part = _read(file, offset + 8, 10)
        if size is None and kind == b"VP8X":
            size = int.from_bytes(part[7:10], "little") + 1, int.from_bytes(part[4:7], "little") + 1
            if not part[0] & 8:  # the flag for Exif is not set
                break
        elif size is None and kind == b"VP8 ":
            width, height = struct.unpack("<HH", part[6:10])
            size = height & 0x3FFF, width & 0x3FFF
            break
        elif size is None and kind == b"VP8L":
            packed = int.from_bytes(part[1:5], "little")
            size = (packed >> 14 & 0x3FFF) + 1, (packed & 0x3FFF) + 1
            break
        elif kind == b"EXIF" and length <= MOST_EXIF:
            exif = _read(file, offset + 8, length)
            orientation = _exif_orientation(exif.removeprefix(b"Exif\0\0"))
            break
        offset += 8 + length + length % 2
    if size is None:
        raise _NotThisFormat("WebP without a size")
    return Header(*size, orientation, "WebP", 8)


def _bmp(file: BinaryIO) -> Header | None:
    head = _read(file, 14, 16)
    (length,) = struct.unpack("<I", head[:4])
    if length == 12:
        width, height = struct.unpack("<HH", head[4:8])
    elif 40 <= length <= 256:
        width, height = struct.unpack("<ii", head[4:12])
    else:
        return None  # other files may start with "BM" too
    return Header(abs(height), abs(width), kind="BMP", bits=8)


def _pnm(file: BinaryIO) -> Header:
    match = PNM.match(_read(file, 0, MOST_COMMENTS))
    if match is None:
        raise _NotThisFormat("PNM without a size")
    return Header(int(match[2]), int(match[1]), kind="PNM")


def _tiff(file: BinaryIO) -> Header:
    tags = _ifd(file)
    if not {HEIGHT, WIDTH} <= tags.keys():
        raise _NotThisFormat("TIFF without a size")
    return Header(tags[HEIGHT], tags[WIDTH], _valid(tags.get(ORIENTATION, 1)), "TIFF", tags.get(BITS, 1))


def _exif_orientation(exif: bytes) -> int:
    """The orientation in an Exif block; 1 if it is missing or damaged, which does not affect the pixels."""
    try:
        return _valid(_ifd(io.BytesIO(exif)).get(ORIENTATION, 1))
    except (_NotThisFormat, *DAMAGED):
        return 1


def _valid(orientation: int) -> int:
    return orientation if 1 <= orientation <= 8 else 1


def _ifd(file: BinaryIO) -> dict[int, int]:
    """The integers in the first directory of a TIFF or BigTIFF; of several values the first."""
    start = _read(file, 0, 16)
    order = "<" if start.startswith(b"II") else ">"
    if start[2:4] in (b"*\0", b"\0*"):
        (at,) = struct.unpack(order + "I", start[4:8])
        count_format, entry_format, room = "H", "HHI4s", 4
    elif start[2:4] in (b"+\0", b"\0+"):
        (at,) = struct.unpack(order + "Q", start[8:16])
        count_format, entry_format, room = "Q", "HHQ8s", 8
    else:
        raise _NotThisFormat("missing TIFF directory")
    first = at + struct.calcsize(count_format)
    (count,) = struct.unpack(order + count_format, _read(file, at, first - at))
    size = struct.calcsize(order + entry_format)
    entries = _read(file, first, min(count, MOST_PARTS) * size)
    tags: dict[int, int] = {}
    for tag, kind, many, value in struct.iter_unpack(order + entry_format, entries[: len(entries) // size * size]):
        number_format = {1: "B", 3: "H", 4: "I"}.get(kind)
        if tag in TIFF_TAGS and number_format is not None:
            length = struct.calcsize(number_format)
            if many * length > room:  # the entry holds the offset of the values
                value = _read(file, int.from_bytes(value, "little" if order == "<" else "big"), length)
            tags.setdefault(tag, *struct.unpack(order + number_format, value[:length]))
    return tags


def _by_pillow(file: BinaryIO, name: str) -> Header:
    from PIL import Image

    file.seek(0)
    try:
        with Image.open(file, formats=PILLOW_FORMATS) as image:
            return Header(image.height, image.width, kind=image.format or "")
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name!r} is too large: {error}; cut it into tiles, or convert it to PNG or JPEG") from error
    except Exception as error:  # plugins raise any error for a damaged file
        raise ValueError(
            f"{name!r} is not an image, or its format is not supported; convert it to JPEG or PNG"
        ) from error

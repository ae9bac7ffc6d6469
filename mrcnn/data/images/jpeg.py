"""JPEG segments, and a check that a file contains its whole image.

libjpeg fills missing parts with gray, or leaves them blurred, and prints a warning that no caller sees.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

START, END = b"\xff\xd8", b"\xff\xd9"
NOT_FRAMES = (0xC4, 0xC8, 0xCC)  # exceptions among the markers 0xC0 to 0xCF, all others of which start a frame
MOST_SEGMENTS = 10_000
MOST_SCANS = 100  # a progressive file has about ten; each takes as long to decode as a whole image
MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")  # ends a scan; 0xFF00 is data, 0xFFD0 to 0xFFD7 are restarts
RESTART = re.compile(rb"\xff[\xd0-\xd7]")
PIXELS_A_BYTE = 1024  # upper limit, twice what the coding allows
FILL = 128  # gray value of blocks without data
JUNK = bytes((37 * i + 11) % 255 for i in range(509))  # scan data without 0xFF


class Segment(NamedTuple):
    """A marker, and the start and end of its data. The data of a scan (0xDA) starts with its own header."""

    marker: int
    start: int
    end: int


class JpegError(ValueError):
    """The file is not a JPEG, is damaged, or would take too long to decode."""


def segments(data: bytes) -> list[Segment]:
    """The segments of a JPEG, up to its end marker or the end of the file. Raises JpegError."""
    found: list[Segment] = []
    at, scans = len(START), 0
    while at + 2 <= len(data):
        if len(found) == MOST_SEGMENTS:
            raise JpegError(f"it has more than {MOST_SEGMENTS} segments")
        match = MARKER.match(data, at)
        if match is None:
            raise JpegError(f"missing marker at byte {at}")
        marker, at = data[match.end() - 1], match.end()
        if marker == END[1]:
            return [*found, Segment(marker, at, at)]
        if marker in (0x01, START[1]):  # without a length
            continue
        end = at + int.from_bytes(data[at : at + 2], "big")
        if end < at + 2:
            raise JpegError(f"a segment at byte {at} has no length")
        if marker == 0xDA:
            scans += 1
            if scans > MOST_SCANS:
                raise JpegError(f"it has more than {MOST_SCANS} scans")
            following = MARKER.search(data, end)
            end = following.start() if following else len(data)
        found.append(Segment(marker, at + 2, min(end, len(data))))
        at = end
    return found


def check_length(data: bytes, pixels: int) -> None:
    """Raises JpegError for a file with too few bytes for its pixels: a block of 8 x 8 takes at least one bit."""
    if pixels > PIXELS_A_BYTE * len(data):
        raise JpegError(f"{len(data)} bytes cannot hold {pixels:,} pixels")


def check_complete(data: bytes, image: np.ndarray, decode: Callable[[bytes], np.ndarray | None]) -> None:
    """Raises JpegError if a part of the image is missing, even if an end marker follows the existing data.

    Missing parts smaller than 16 x 16 pixels are not detected; `mrcnn.data.check` finds those too. A file of several
    scans (progressive) is decoded twice.

    Args:
        data: the file.
        image: the result of `decode`, [H, W, C] uint8, as stored.
    """
    parts = segments(data)
    scans = [part for part in parts if part.marker == 0xDA]
    frames = [part for part in parts if 0xC0 <= part.marker <= 0xCF and part.marker not in NOT_FRAMES]
    if not scans or not frames:
        raise JpegError("it has no image data")
    frame, corner = data[frames[0].start : frames[0].end], image[-1, -1]
    filled = (corner == corner[0]).all() and (corner[0] == FILL or frame[5:6] == b"\4")  # CMYK has a different gray
    if filled and len(scans) == 1 and _lacks_restarts(data, parts, frame):
        raise JpegError("a part of the image is missing")
    ended, there = parts[-1].marker == END[1], data[: scans[-1].end]
    if filled or not ended or len(scans) > 1:  # the last scan of several may only refine what is there
        # A decoder that lacks data reads what follows, a complete one does not. Interrupted copies of files with
        # preallocated space end in zeros.
        longer = decode((there if ended else there.rstrip(b"\0")) + JUNK + END)
        if longer is None or longer.shape != image.shape or not all(map(np.array_equal, longer, image)):  # row by row
            raise JpegError("a part of the image is missing")


def _lacks_restarts(data: bytes, parts: list[Segment], frame: bytes) -> bool:
    """Whether the only scan of a JPEG has fewer restart markers than its image needs."""
    scan = next(part for part in parts if part.marker == 0xDA)
    intervals = [part for part in parts if part.marker == 0xDD and part.start < scan.start]
    interval = int.from_bytes(data[intervals[-1].start : intervals[-1].end], "big") if intervals else 0
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    sampling = frame[7::3]
    alone = len(sampling) == 1  # a single component: blocks are not grouped
    wide, tall = (8 if alone else 8 * max(code >> shift & 15 for code in sampling) for shift in (4, 0))
    if not interval or not wide or not tall:
        return False
    units = -(-height // tall) * -(-width // wide)
    return len(RESTART.findall(data, scan.start, scan.end)) < -(-units // interval) - 1

"""Reading and writing videos with PyAV, an optional extra.

Every frame of the file is read exactly once, with its own presentation time: frames are counted as they are decoded,
not taken from the header, and the codec is flushed at both ends.
"""

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np

from mrcnn.files import atomic_path
from mrcnn.inference.extras import require
from mrcnn.inference.video.timeline import Timeline, shift

# Extension -> (container, codecs by preference)
KINDS = {
    ".mp4": ("mp4", ("libx264", "mpeg4")),
    ".mov": ("mov", ("libx264", "mpeg4")),
    ".mkv": ("matroska", ("libx264", "mpeg4")),
    ".avi": ("avi", ("libx264", "mpeg4")),
    ".webm": ("webm", ("libvpx-vp9",)),
}
MATRICES = {1: 1, 5: 5, 6: 5, 7: 7, 9: 9}  # color matrices of H.273 -> those of the conversion from RGB
# Containers that refer to other files or addresses, which an untrusted video could cause to be read
INDIRECT = frozenset(("hls", "concat", "dash", "image2", "imf", "sdp", "mpegts_playlist"))
DURATION = re.compile(r"(\d{1,9}):(\d\d):(\d\d(?:\.\d{1,9})?)")  # Matroska's tag of that name
SHORTER = Fraction(1, 2)  # seconds by which the picture may end earlier, such as the time of its last frame


class Frame(NamedTuple):
    """One frame: [H, W, 3] uint8 RGB, turned upright; and its presentation time in units of the clip's time base."""

    image: np.ndarray
    pts: int


class Look(NamedTuple):
    """How players show the pixels of a video.

    aspect: width / height of a pixel, None if unknown. matrix, primaries, transfer: of the colors, as numbered in
    ITU-T H.273; 2 if unknown.
    """

    aspect: Fraction | None = None
    matrix: int = 2
    primaries: int = 2
    transfer: int = 2


class Clip:
    """A video to read.

    Args:
        source: a file; a camera ("0", or a device such as /dev/video0); or the address of a stream (rtsp:// ...).

    Attributes:
        size: (height, width) of the upright frames. time_base: seconds per unit of `Frame.pts`. rate: average frames
            per second. expected: number of frames in the header, None if absent; only for progress bars.
        live: whether it is a camera or a stream, which has no end.
        damaged: number of packets that could not be decoded so far.
        look: how players show its pixels.

    Raises FileNotFoundError, ValueError if it is not a video, or ImportError without PyAV.
    """

    def __init__(self, source: str | os.PathLike) -> None:
        self._av = require("av", "video")
        self.source = os.fspath(source)
        self.live = self.source.isdigit() or self.source.startswith("/dev/") or "://" in self.source
        self.damaged, self._end = 0, 0
        self._stack = ExitStack()
        try:
            self._container = self._open()
            streams = _pictures(self._container)
            if not streams:
                raise ValueError(f"{self.source!r} has no video stream")
            self._stream, self._turned = streams[0], 0
            self._stream.thread_type = "AUTO"
            self._first = self._frames()
            self._pending: Any = next(self._first, None)
        except Exception:
            self._stack.close()
            raise
        if self._pending is None:
            self._stack.close()
            raise ValueError(f"{self.source!r} has no frame that can be decoded; it is empty, damaged or truncated")
        self.size = (self._pending.image.shape[0], self._pending.image.shape[1])
        self.look = self._look()

    def _open(self) -> Any:
        errors = (self._av.error.FFmpegError, OSError, ValueError)
        if self.live:
            device = f"/dev/video{self.source}" if self.source.isdigit() else self.source
            try:
                options = {"format": "v4l2"} if device.startswith("/dev/") else {}
                return self._stack.enter_context(self._av.open(device, **options))
            except errors as error:
                raise ValueError(f"cannot open the camera or stream {self.source!r}: {_words(error)}") from error
        if not os.path.isfile(self.source):
            raise FileNotFoundError(f"there is no video {self.source!r}")
        try:
            # From an opened file and without protocols, so that a playlist cannot cause other files to be read
            file = self._stack.enter_context(open(self.source, "rb"))
            container = self._stack.enter_context(self._av.open(file, options={"protocol_whitelist": "none"}))
        except errors as error:
            raise ValueError(
                f"{self.source!r} is not a video, or it is damaged or truncated: {_words(error)}; fetch it again"
            ) from error
        if INDIRECT & set(container.format.name.split(",")):
            raise ValueError(f"{self.source!r} is a list of other files ({container.format.name}), not a video")
        return container

    def _look(self) -> Look:
        aspect, colors = self._stream.sample_aspect_ratio, self._stream.codec_context
        if aspect and self._turned % 2:
            aspect = 1 / aspect
        values = (int(value) for value in (colors.colorspace, colors.color_primaries, colors.color_trc))
        return Look(aspect or None, *values)

    def missing(self) -> list[str]:
        """Frames that a demuxer skipped without a word, after the last one was read, in words.

        The header of a Matroska file has no number of frames, but the duration of each stream.
        """
        duration = DURATION.fullmatch(self._stream.metadata.get("DURATION", ""))
        if duration is None or self.live:
            return []
        hours, minutes, seconds = map(Fraction, duration.groups())
        announced = 3600 * hours + 60 * minutes + seconds
        if self._end * self.time_base >= announced - SHORTER:
            return []
        end = float(self._end * self.time_base)
        return [f"its picture ends after {end:.2f} of {float(announced):.2f} seconds; the rest is damaged, or missing"]

    def left_out(self) -> list[str]:
        """What the frames do not show and a `ClipWriter` does not copy, in words."""
        kinds = [s.type for s in self._container.streams if s is not self._stream and s.type != "audio"]
        counts = [f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds)]
        found = [f"its other streams ({', '.join(counts)}) are not copied"] if counts else []
        bits = max((part.bits for part in self._stream.format.components), default=8) if self._stream.format else 8
        return found + ([f"its colors of {bits} bits become 8 bits"] if bits > 8 else [])

    @property
    def time_base(self) -> Fraction:
        return self._stream.time_base

    @property
    def rate(self) -> Fraction:
        return Fraction(self._stream.average_rate or self._stream.guessed_rate or 25)

    @property
    def expected(self) -> int | None:
        return None if self.live else self._stream.frames or None

    def __iter__(self) -> Iterator[Frame]:
        """The frames in display order; can be read only once."""
        if self._pending is not None:
            first, self._pending = self._pending, None
            yield first
        yield from self._first

    def _frames(self) -> Iterator[Frame]:
        step = max(1, round(1 / (self.rate * self.time_base)))
        last: int | None = None
        for packet in Timeline(self._container, self._stream):  # the last one is empty, and flushes the decoder
            try:
                decoded = packet.decode()
            except self._av.error.FFmpegError:
                self.damaged += 1
                continue
            for frame in decoded:
                pts = frame.pts
                if pts is None or (last is not None and pts <= last):  # raw streams have no times, broken ones repeat
                    pts = 0 if last is None else last + (step if pts is None else 1)
                last, self._end = pts, pts + (frame.duration or step)
                yield Frame(self._upright(frame), pts)

    def _upright(self, frame: Any) -> np.ndarray:
        """[H, W, 3] RGB of a decoded frame, rotated by the tag that phones write; of the first frame's size."""
        image = frame.to_ndarray(format="rgb24")
        self._turned = round(getattr(frame, "rotation", 0) / 90) % 4
        if self._turned:
            image = np.ascontiguousarray(np.rot90(image, self._turned))
        size = getattr(self, "size", None)
        if size is not None and image.shape[:2] != size:  # some streams change their size midway
            import cv2

            image = cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA)
        return image

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


class ClipWriter:
    """A video to write, completely or not at all, with the sound of its source.

    Odd sizes are kept by using full color resolution (4:4:4), which not every player supports.
    Matroska and WebM round times to milliseconds.

    Args:
        path: ends in .mp4, .mov, .mkv, .avi or .webm.
        size: (height, width). time_base, rate: as of a `Clip`.
        sound_of: a file whose sound is copied; None for none.
        look: as of a `Clip`.

    Attributes:
        damaged: number of packets of sound that could not be copied so far, or whose time does not fit the picture's.

    Raises ValueError for another extension, or sound that the container cannot store.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        size: tuple[int, int],
        time_base: Fraction,
        rate: Fraction,
        sound_of: str | os.PathLike | None = None,
        look: Look | None = None,
    ) -> None:
        self._av = require("av", "video")
        self.path, self.frames, self._refused = Path(path), 0, 0
        if self.path.suffix.lower() not in KINDS:
            raise ValueError(f"{self.path}: the extension must be one of {', '.join(KINDS)}, got {self.path.suffix!r}")
        kind, codecs = KINDS[self.path.suffix.lower()]
        self._stack = ExitStack()
        try:
            temporary = self._stack.enter_context(atomic_path(self.path))
            timescale = {"video_track_timescale": str(time_base.denominator)} if kind in ("mp4", "mov") else {}
            self._container = self._av.open(str(temporary), "w", format=kind, options=timescale)
            self._stack.callback(self._container.close)
            codec = next((name for name in codecs if name in self._av.codecs_available), codecs[0])
            self._stream = self._container.add_stream(codec, rate=rate)
            self._stream.height, self._stream.width = size
            self._stream.pix_fmt = "yuv420p" if size[0] % 2 == size[1] % 2 == 0 else "yuv444p"
            self._stream.codec_context.time_base = self._stream.time_base = time_base
            if codec == "libx264":
                self._stream.options = {"crf": "18", "bf": "0"}
            self._look = look or Look()
            self._show(self._look)
            self._time_base, self._shift = time_base, Fraction(0)
            self._timeline: Timeline | None = None
            self._sound: Iterator[tuple[Fraction, Any]] = iter(())
            self._packet: tuple[Fraction, Any] | None = None
            if sound_of is not None:
                self._add_sound(os.fspath(sound_of))
        except BaseException as error:
            self._abandon(error)
            raise

    def _show(self, look: Look) -> None:
        context = self._stream.codec_context
        if look.aspect:
            context.sample_aspect_ratio = look.aspect
        if look.matrix in MATRICES:
            context.colorspace, context.color_primaries, context.color_trc = look[1:]

    def _add_sound(self, source: str) -> None:
        file = self._stack.enter_context(open(source, "rb"))
        container = self._stack.enter_context(self._av.open(file, options={"protocol_whitelist": "none"}))
        copies = {}
        for stream in container.streams.audio:
            try:
                copies[stream.index] = self._container.add_stream_from_template(stream)
            except (ValueError, self._av.error.FFmpegError) as error:
                raise ValueError(
                    f"{self.path.suffix} cannot store the sound of {source!r} ({stream.codec_context.name}): "
                    f"{_words(error)}; "
                    "write to a .mkv file, or omit the sound"
                ) from error

        def sound(timeline: Timeline) -> Iterator[Any]:
            for packet in timeline:
                if packet.stream.index in copies and packet.dts is not None:  # else it is the empty one at the end
                    time = packet.dts * packet.time_base
                    packet.stream = copies[packet.stream.index]
                    yield time, packet

        if copies:
            # The same pictures as the `Clip` reads; a file without any goes by its first sound
            self._timeline = Timeline(container, *_pictures(container)[:1], *container.streams.audio)
            self._sound = sound(self._timeline)
            self._packet = next(self._sound, None)

    def write(self, image: np.ndarray, pts: int) -> None:
        """Appends a frame [H, W, 3] uint8 RGB with a later time than the previous one.

        If the first time is negative, the whole file is moved to begin at 0: players drop frames before it.
        """
        if not self.frames:
            self._shift = max(Fraction(0), -pts * self._time_base)
        self._copy_sound(pts * self._time_base)
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        if self._look.matrix in MATRICES:
            frame = frame.reformat(format=self._stream.pix_fmt, dst_colorspace=MATRICES[self._look.matrix])
        frame.pts, frame.time_base = pts + round(self._shift / self._time_base), self._time_base
        for packet in self._stream.encode(frame):
            self._container.mux(packet)
        self.frames += 1

    def _copy_sound(self, until: Fraction | None) -> None:
        """Copies the sound up to a time in seconds; None: all the rest."""
        while self._packet is not None and (until is None or self._packet[0] <= until):
            shift(self._packet[1], self._shift)
            try:
                self._container.mux(self._packet[1])
            except self._av.error.FFmpegError as error:  # it is damaged, or not later than the previous one
                if isinstance(error, OSError):  # such as a full disk
                    raise
                self._refused += 1
            self._packet = next(self._sound, None)

    @property
    def damaged(self) -> int:
        return self._refused + (self._timeline.dropped if self._timeline else 0)

    def lost(self) -> list[str]:
        """What could not be written as the source has it, in words."""
        found = []
        if self.damaged:
            found = [
                f"{self.damaged} packet{'s' * (self.damaged > 1)} of its sound left out: damaged, or at a wrong time"
            ]
        return found + (
            ["AVI rounds times, and players may show frames one late"] if self.path.suffix == ".avi" else []
        )

    def _abandon(self, error: BaseException | None) -> None:
        self._stack.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Flushes the encoder and finishes the file; after an error there is no file."""
        if error is None:
            try:
                for packet in self._stream.encode(None):
                    self._container.mux(packet)
                self._copy_sound(None)
                self._container.close()
            except BaseException as failure:
                self._abandon(failure)
                raise
        self._abandon(error)


def _pictures(container: Any) -> list[Any]:
    """The video streams that are not cover pictures."""
    cover = require("av", "video").stream.Disposition.attached_pic
    return [stream for stream in container.streams.video if not stream.disposition & cover]


def _words(error: Exception) -> str:
    """What the system or PyAV says, without the number."""
    return getattr(error, "strerror", None) or str(error)

"""Runs a model on a video; frames are decoded, drawn and encoded while the network runs on others."""

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from mrcnn.data.rle import encode_parts
from mrcnn.files import atomic_path
from mrcnn.inference.pipeline import in_background
from mrcnn.inference.results import Crop, Result
from mrcnn.inference.video.clip import Clip, ClipWriter, Frame
from mrcnn.inference.video.tracking import LineCounter, Track, Tracker, as_json, center

BETWEEN = ("interpolate", "drop")
READ_AHEAD = 4  # groups of frames

# (image, result, track number of each instance, tracks) -> the image to write
Draw = Callable[[np.ndarray, Result, Sequence[int], Sequence[Track]], np.ndarray]


@dataclass
class Group:
    """A frame on which the network runs, and the frames between it and the previous one."""

    key: Frame
    before: list[Frame] = field(default_factory=list)


@dataclass
class Summary:
    """The outcome for a video: frames read, run through the network, and written; packets that could not be decoded;
    number of tracks; tracks that crossed the line, by direction; and in words, what the written video does not keep."""

    read: int = 0
    detected: int = 0
    written: int = 0
    damaged: int = 0
    tracks: int = 0
    crossed: dict[str, int] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)


def annotate_video(
    model: Any,
    source: str | Path,
    target: str | Path | None,
    *,
    draw: Draw,
    every: int = 1,
    between: str = "interpolate",
    choose: Callable[[Result], Result] = lambda result: result,
    tracker: Tracker | None = None,
    line: LineCounter | None = None,
    sound: bool = True,
    tracks: str | Path | None = None,
    progress: Callable[[int], Any] = lambda frames: None,
) -> Summary:
    """Detects in the frames of a video and writes it with the instances drawn.

    Args:
        model: any object with `stream`, such as a `MaskRCNN`.
        source: see `Clip`.
        target: see `ClipWriter`; None writes no video.
        draw: draws the image to write for a frame, in another thread.
        every: run the network on every `every`-th frame.
        between: for the frames in between, "interpolate" the instances or "drop" the frames.
        choose: which instances of a frame count.
        tracker: assigns numbers to instances; None for one with default settings.
        line: counts the tracks that cross it.
        sound: copy the sound, which streams and cameras do not have.
        tracks: path of a json for the instances of each frame.
        progress: called with 1 for each finished frame.

    Raises the errors of `Clip` and `ClipWriter`, and ValueError for an invalid `every` or `between`, or if two of
    `source`, `target` and `tracks` are one file.
    """
    if between not in BETWEEN or every < 1:
        raise ValueError(f"every must be 1 or more and between one of {BETWEEN}, got {every!r} and {between!r}")
    _check_files(source, target, tracks)
    with ExitStack() as stack:
        clip = stack.enter_context(Clip(source))
        sound_of = source if sound and not clip.live else None
        writer = None
        if target is not None:
            writer = stack.enter_context(ClipWriter(target, clip.size, clip.time_base, clip.rate, sound_of, clip.look))
        log = stack.enter_context(TrackLog(tracks, clip)) if tracks is not None else None
        work = _Work(writer, log, draw, tracker or Tracker(), line, between == "interpolate", choose, progress)
        groups = in_background(_groups(clip, every, work.summary), READ_AHEAD)
        stack.callback(groups.close)  # before the clip that its thread reads
        underway: deque[Group] = deque()

        def keys() -> Iterator[np.ndarray]:
            for group in groups:
                underway.append(group)
                yield group.key.image

        try:
            for _ in model.stream(keys(), prepare="crops", each=lambda result: work.take(underway.popleft(), result)):
                pass
        except KeyboardInterrupt:  # the way to end a camera; the frames so far make a complete video
            if not clip.live or not work.summary.written:
                raise
        work.summary.damaged = clip.damaged
        missing, left_out = clip.missing(), clip.left_out()
        if log is not None:
            log.finish(work.summary)
    work.summary.lost = missing + (left_out + writer.lost() if writer is not None else [])
    return work.summary


def _check_files(*paths: str | Path | None) -> None:
    """Raises ValueError if two are the same file, one of which would replace the other."""
    given = [path for path in paths if path is not None]
    places = [Path(path).resolve() for path in given]
    for i, place in enumerate(places):
        if place in places[:i]:
            raise ValueError(f"{given[i]} would replace {given[places.index(place)]}; choose another file")


def _groups(clip: Clip, every: int, summary: Summary) -> Iterator[Group]:
    """Key frames with the frames before them. The last frame is a key frame, so that none remains."""
    before: list[Frame] = []
    for frame in clip:
        summary.read += 1
        if (summary.read - 1) % every == 0:
            yield Group(frame, before)
            before = []
        else:
            before.append(frame)
    if before:
        *rest, last = before
        yield Group(last, rest)


class _Work:
    """Processes frames after the network, in one thread and in order."""

    def __init__(
        self,
        writer: ClipWriter | None,
        log: "TrackLog | None",
        draw: Draw,
        tracker: Tracker,
        line: LineCounter | None,
        interpolates: bool,
        choose: Callable[[Result], Result],
        progress: Callable[[int], Any],
    ) -> None:
        self.writer, self.log, self.draw, self.tracker, self.line = writer, log, draw, tracker, line
        self.interpolates, self.choose, self.progress = interpolates, choose, progress
        self.summary = Summary()
        self._last: tuple[Frame, Result, list[int]] | None = None
        self._numbers: set[int] = set()

    def take(self, group: Group, result: Result) -> None:
        result = self.choose(result)
        numbers = self.tracker.update(result)
        self._numbers |= set(numbers) - {0}
        if self.line is not None:
            self.line.update(self.tracker.tracks)
            self.summary.crossed = self.line.counts
        self.summary.detected += 1
        self.summary.tracks = len(self._numbers)
        for frame in group.before:
            if self.interpolates and self._last is not None:
                before, found, old = self._last
                share = (frame.pts - before.pts) / (group.key.pts - before.pts)
                self._write(frame, *between_results(found, old, result, numbers, share), detected=False)
            else:
                self.progress(1)
        self._write(group.key, result, numbers, detected=True)
        self._last = group.key, result, numbers

    def _write(self, frame: Frame, result: Result, numbers: Sequence[int], detected: bool) -> None:
        if self.writer is not None:
            self.writer.write(self.draw(frame.image, result, numbers, self.tracker.tracks), frame.pts)
        self.summary.written += 1
        if self.log is not None:
            self.log.write(frame, result, numbers, detected)
        self.progress(1)


def between_results(
    first: Result, first_numbers: Sequence[int], second: Result, second_numbers: Sequence[int], share: float
) -> tuple[Result, list[int]]:
    """The instances at a time between two results, and the numbers of their tracks.

    A track in both results has the mask of the nearer one, moved along the line between both centers. An instance in
    only one result is shown during the half of the time that is nearer to it.

    Args:
        share: 0 at the first result, 1 at the second.
    """
    nearer, numbers, other, other_numbers = (
        (first, first_numbers, second, second_numbers)
        if share < 0.5
        else (second, second_numbers, first, first_numbers)
    )
    way = share if share < 0.5 else 1 - share
    places = {number: i for i, number in enumerate(other_numbers) if number}
    crops, boxes = [], nearer.rois.astype(np.float32)
    points = None if nearer.keypoints is None or other.keypoints is None else nearer.keypoints.copy()
    for i, (number, crop) in enumerate(zip(numbers, nearer.crops, strict=True)):
        if number in places:
            j = places[number]
            (x1, y1), (x2, y2) = center(crop), center(other.crops[j])
            crop = _shifted(crop, round((y2 - y1) * way), round((x2 - x1) * way), nearer.size)
            boxes[i] += (other.rois[j] - boxes[i]) * way
            if points is not None and other.keypoints is not None:
                points[i] += (other.keypoints[j] - points[i]) * way
        crops.append(crop)
    runs = encode_parts(crops, *nearer.size)
    boxes = boxes if nearer.rois.dtype == np.float32 else np.rint(boxes).astype(nearer.rois.dtype)  # whole pixels
    result = Result(boxes, nearer.class_ids, nearer.scores, runs, nearer.size, nearer.class_names)
    if points is not None:
        result["keypoints"], result.skeleton = points, nearer.skeleton
    return result, list(numbers)


def _shifted(crop: Crop, down: int, right: int, size: tuple[int, int]) -> Crop:
    """A crop after moving it, without the part outside the image."""
    top, left = crop.top + down, crop.left + right
    height, width = crop.mask.shape
    y1, x1 = max(top, 0), max(left, 0)
    y2, x2 = max(min(top + height, size[0]), y1), max(min(left + width, size[1]), x1)
    y1, x1 = min(y1, size[0]), min(x1, size[1])
    y2, x2 = max(min(y2, size[0]), y1), max(min(x2, size[1]), x1)
    return Crop(crop.mask[y1 - top : y2 - top, x1 - left : x2 - left], y1, x1)


class TrackLog:
    """A json of all frames, written incrementally; the file appears completely or not at all.

    {"video", "height", "width", "frames": [{"frame", "time" in seconds, "detected", "instances": [{"track", "class",
    "score", "box" (y1, x1, y2, x2), "mask"}]}], "tracks", "crossed"}
    """

    def __init__(self, path: str | Path, clip: Clip) -> None:
        self._stack, self._count = ExitStack(), 0
        self._time_base = clip.time_base
        temporary = self._stack.enter_context(atomic_path(path))
        self._file: IO[str] = self._stack.enter_context(open(temporary, "w", encoding="utf-8"))
        head = {"video": clip.source, "height": clip.size[0], "width": clip.size[1]}
        self._file.write(json.dumps(head)[:-1] + ', "frames": [')

    def write(self, frame: Frame, result: Result, numbers: Sequence[int], detected: bool) -> None:
        time = round(float(frame.pts * self._time_base), 6)
        values: Mapping[str, Any] = {"frame": self._count, "time": time, "detected": detected}
        self._file.write(
            (",\n" if self._count else "\n") + json.dumps({**values, "instances": as_json(result, numbers)})
        )
        self._count += 1

    def finish(self, summary: Summary) -> None:
        rest = {"tracks": summary.tracks, "crossed": summary.crossed}
        self._file.write("\n], " + json.dumps(rest)[1:] + "\n")

    def __enter__(self) -> "TrackLog":
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

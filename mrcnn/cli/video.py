"""Finds and tracks objects in a video, and writes it with their masks drawn.
Every frame is written once, at its own time, and the sound is copied.

examples:
  mrcnn video dog.mp4 --weights last --output out.mp4 --trails
  mrcnn video dog.mp4 --weights w.h5 --every 5 --tracks tracks.json
  mrcnn video street.mp4 --weights w.h5 --line 0,300,1280,300 --classes car
  mrcnn video 0 --weights w.h5 --output camera.mkv       (a camera; Ctrl-C ends)
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrcnn.cli import options
from mrcnn.cli.console import Interrupted, counted, note, progress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    from mrcnn.inference.results import Result
    from mrcnn.inference.video.tracking import LineCounter, Track

USAGE = "mrcnn video SOURCE --weights W [options]"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="a file, a camera (0), or the URL of a stream")
    options.add_weights(parser)
    add = parser.add_argument
    add("--output", metavar="FILE", help="video to write (SOURCE_detected.mp4)")
    add("--tracks", metavar="FILE", help="JSON file to write, with the objects of each frame")
    add("--every", type=options.positive, default=1, metavar="N", help="run the network on every Nth frame (1)")
    add("--drop", action="store_true", help="drop the frames in between instead of interpolating")
    add("--min-score", type=options.share, default=0.5, metavar="S", help="minimum score (0.5)")
    add("--classes", type=options.names, metavar="NAMES", help="only these classes, such as cat,dog")
    add("--line", type=_line, metavar="X1,Y1,X2,Y2", help="count the objects that cross it")
    add("--trails", action="store_true", help="draw the paths of objects")
    add("--no-sound", action="store_true", help="do not copy the sound")
    options.add_settings(parser)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    from mrcnn.inference.class_names import names_of
    from mrcnn.inference.video.annotate import annotate_video
    from mrcnn.inference.video.clip import Clip

    with Clip(arguments.source) as clip:
        expected = clip.expected
    model = options.load_model(arguments, DETECTION_MIN_CONFIDENCE=arguments.min_score)
    names = names_of(model.class_names, model.config.NUM_CLASSES)
    target = Path(arguments.output or f"{Path(arguments.source).stem}_detected.mp4")
    if arguments.every > 1:
        what = "dropped" if arguments.drop else "interpolated"
        note(f"the network runs on one frame of {arguments.every}; those in between are {what}")
    bar = progress(expected, "frame")
    try:
        summary = annotate_video(
            model,
            arguments.source,
            target,
            draw=_drawing(arguments.line, arguments.trails),
            every=arguments.every,
            between="drop" if arguments.drop else "interpolate",
            choose=_chooser(names, arguments),
            line=arguments.line,
            sound=not arguments.no_sound,
            tracks=arguments.tracks,
            progress=bar.update,
        )
    except KeyboardInterrupt:
        raise Interrupted("nothing was written") from None
    finally:
        bar.close()
    if summary.damaged:
        damaged = counted(summary.damaged, "packet")
        note(f"{damaged} of {arguments.source} could not be decoded; {target} may lack their frames")
    if expected and summary.read < expected:
        note(
            f"{arguments.source} shows {summary.read} of the {expected} frames in its header; "
            "the others are cut out by an edit, or missing"
        )
    for line in summary.lost:
        note(f"{arguments.source}: {line}")
    note(f"{summary.written} of {counted(summary.read, 'frame')}, {counted(summary.tracks, 'object')}, in {target}")
    if summary.crossed:
        note("crossed the line: " + ", ".join(f"{count} to the {side}" for side, count in summary.crossed.items()))
    return {"output": str(target), **vars(summary)}


def _chooser(names: "Sequence[str]", arguments: argparse.Namespace) -> "Callable[[Result], Result]":
    wanted = options.class_filter(names, arguments.classes)

    def choose(result: "Result") -> "Result":
        import numpy as np

        kept = result.scores >= arguments.min_score
        if wanted is not None:
            kept &= np.isin(result.class_ids, wanted)
        result = result.keep(kept)
        result.class_names = tuple(names)
        return result

    return choose


def _drawing(line: "LineCounter | None", trails: bool) -> Any:
    """A function that draws frames: instances in their track's color, trails, and the line with its counts."""
    import cv2
    import numpy as np

    from mrcnn.pictures.colors import random_colors
    from mrcnn.pictures.overlay import default_labels, draw_label, draw_result, line_thickness

    colors = random_colors(64)

    def draw(image: "np.ndarray", result: "Result", numbers: "Sequence[int]", tracks: "Sequence[Track]") -> Any:
        texts = default_labels(result)
        labels = [f"{number} {text}" if number else text for number, text in zip(numbers, texts, strict=True)]
        picture = draw_result(image, result, labels=labels, colors=[colors[number % 64] for number in numbers])
        thickness = line_thickness(result.size)
        for track in tracks if trails else ():
            color = tuple(round(255 * value) for value in colors[track.number % 64])
            cv2.polylines(
                picture, [np.array(track.trail, np.float32).round().astype(np.int32)], False, color, thickness
            )
        if line is not None:
            (x1, y1), (x2, y2) = ([round(value) for value in point] for point in (line.start, line.end))
            cv2.line(picture, (x1, y1), (x2, y2), (255, 255, 255), 2 * thickness)
            draw_label(picture, str(line.counts), y1, x1, (1.0, 1.0, 1.0))
        return picture

    return draw


def _line(text: str) -> "LineCounter":
    from mrcnn.inference.video.tracking import LineCounter

    try:
        x1, y1, x2, y2 = (float(part) for part in text.split(","))
        return LineCounter((x1, y1), (x2, y2))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected X1,Y1,X2,Y2 for two different points, got {text!r}") from error

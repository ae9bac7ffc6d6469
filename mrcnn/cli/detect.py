"""Finds objects in images and folders, and writes to --output:
  pictures/         each image with its masks drawn
  cutouts/          each object alone, as a transparent PNG
  annotations.json  COCO JSON, with RLE masks and scores
  areas.csv         one row per object: class, score, pixels, fraction, box
  unreadable.txt    the images that could not be read, if any
Running the same command again continues an interrupted run.

examples:
  mrcnn detect photos/ --weights mask_rcnn_coco.h5 --classes cat,dog
  mrcnn detect a.jpg b.tif --weights last --tile 1024 --write pictures,csv
  mrcnn detect photos/ --weights model.onnx --ray 8
"""

import argparse
import contextlib
import errno
import hashlib
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrcnn.cli import options
from mrcnn.cli.console import DONE, INCOMPLETE, Interrupted, Outcome, counted, note, progress

if TYPE_CHECKING:
    import numpy as np

    from mrcnn.data.images.walk import Found
    from mrcnn.data.keypoints import Skeleton
    from mrcnn.inference.results import Result
    from mrcnn.inference.store import Record, ResultStore

USAGE = "mrcnn detect IMAGE [IMAGE ...] --weights W [options]"
KINDS = ("pictures", "cutouts", "json", "csv")
FILES = {"json": "annotations.json", "csv": "areas.csv"}
STATE, UNREADABLE = "progress.sqlite", "unreadable.txt"
COMMIT_SECONDS = 2.0
SHOWN = 10  # number of unreadable images to print
LONGEST_NAME = 255  # bytes that file systems take
BAD_NAME = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)  # errors of one name, not of the disk
CUT_OUT = re.compile(r"\d{3,}_.*\.png")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files, or folders of them")
    options.add_weights(parser)
    parser.add_argument("--output", default="found", metavar="DIR", help="output folder (found)")
    parser.add_argument(
        "--write", type=options.one_of(*KINDS), default=KINDS, metavar="KINDS", help=f"some of {','.join(KINDS)} (all)"
    )
    parser.add_argument("--min-score", type=options.share, default=0.5, metavar="S", help="minimum score (0.5)")
    parser.add_argument("--classes", type=options.names, metavar="NAMES", help="only these classes, such as cat,dog")
    parser.add_argument("--batch", type=options.positive, default=1, metavar="N", help="images per network call (1)")
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument(
        "--tile", type=options.tile_side, metavar="PX", help="large images: also use tiles of PX x PX pixels"
    )
    ways.add_argument("--augment", action="store_true", help="several sizes, each also mirrored: slower, more accurate")
    ways.add_argument(
        "--ray",
        type=options.positive,
        metavar="N",
        help="N processes on Ray, into Parquet files of run lengths instead",
    )
    parser.add_argument("--restart", action="store_true", help="discard the results of an earlier run")
    options.add_settings(parser)


def run(arguments: argparse.Namespace) -> Outcome:
    from mrcnn.data.images import SUFFIXES
    from mrcnn.data.images.walk import walk_images
    from mrcnn.inference.class_names import names_of
    from mrcnn.inference.store import ResultStore

    began, output = time.monotonic(), Path(arguments.output)
    if arguments.ray:
        return _run_on_ray(arguments, output, began)
    own = [output / kind for kind in ("pictures", "cutouts")]
    _check_folders(own, arguments.images, output)
    skip = [output, *own]
    total = sum(1 for _ in walk_images(arguments.images, skip))
    if not total:
        kinds = " ".join(SUFFIXES)
        raise FileNotFoundError(f"no images in {', '.join(arguments.images)}; their names must end in one of {kinds}")
    settings = {"DETECTION_MIN_CONFIDENCE": arguments.min_score, "DETECTION_BATCH_SIZE": arguments.batch}
    way = _way(arguments)
    model = options.load_model(arguments, **settings)
    names = names_of(model.class_names, model.config.NUM_CLASSES)
    wanted = options.class_filter(names, arguments.classes)
    with _opened(ResultStore, output, arguments, model) as store:
        found = walk_images(arguments.images, skip)
        try:
            _detect(model, found, total, store, Writer(output, arguments, names, wanted), way)
        except KeyboardInterrupt:
            raise Interrupted(_saved(store, total)) from None
        files = _write_tables(store, output, names, arguments.write, model.skeleton)
        images, instances, unreadable = store.counts()
        _report(store, output)
    note(f"{counted(instances, 'object')} in {counted(images, 'image')}, in {output}{os.sep}: {', '.join(files)}")
    values = {"output": str(output), "files": files, "images": images, "instances": instances}
    values |= {"unreadable": unreadable, "seconds": round(time.monotonic() - began, 1)}
    return Outcome(values, INCOMPLETE if unreadable else DONE)


def _run_on_ray(arguments: argparse.Namespace, output: Path, began: float) -> Outcome:
    """`detect_many` on one folder or table of paths.

    Raises ValueError for options that do not apply, ImportError without Ray.
    """
    from mrcnn.inference.extras import require
    from mrcnn.inference.many import detect_many

    if not options.is_exported(arguments):
        raise ValueError(f"--ray needs an exported model, such as model.onnx (mrcnn export), not {arguments.weights}")
    if len(arguments.images) > 1:
        raise ValueError(f"--ray takes one folder or one .parquet file, got {len(arguments.images)} paths")
    usual: dict[str, Any] = {"classes": None, "restart": False, "batch": 1, "write": KINDS}
    usual |= {"preset": None, "config": None, "set": []}
    if given := [f"--{name}" for name, value in usual.items() if (getattr(arguments, name) or value) != value]:
        raise ValueError(f"--ray does not take {', '.join(given)}; remove it, or run without --ray")
    ray = require("ray", "ray")
    if not ray.is_initialized():  # of a cluster if RAY_ADDRESS is set
        ray.init(logging_level="ERROR", log_to_driver=False)
    try:
        (images,), score = arguments.images, arguments.min_score
        done = detect_many(arguments.weights, images, output, workers=arguments.ray, min_score=score)
    except KeyboardInterrupt:
        raise Interrupted(f"finished files are in {output}{os.sep}; run the same command to continue") from None
    note(f"{done['images']} images, {done['failed']} unreadable, in {output}{os.sep}part-*.parquet")
    values = {"output": str(output), **done, "seconds": round(time.monotonic() - began, 1)}
    return Outcome(values, INCOMPLETE if done["failed"] else DONE)


def _check_folders(own: Sequence[Path], images: Sequence[str], output: Path) -> None:
    """Raises ValueError if the output's own folders contain images to detect in, or files of somebody else, which the
    pictures of this run could replace."""
    for image in images:
        path = Path(os.path.realpath(image))
        if any(path.is_relative_to(os.path.realpath(folder)) for folder in own):
            raise ValueError(f"{image} is in a folder that --output {output} writes to; choose another --output")
    for folder in own:
        if os.path.isdir(folder) and os.listdir(folder) and not os.path.exists(output / STATE):
            raise ValueError(f"{folder} was there before --output {output} was used; choose another --output")


def _opened(store: type["ResultStore"], output: Path, arguments: argparse.Namespace, model: Any) -> "ResultStore":
    """The store of this run, which continues a run with the same folder of images, weights and settings."""
    from mrcnn.data.images.walk import common_folder
    from mrcnn.inference.store import OtherResultsError

    ignored = ("DETECTION_BATCH_SIZE", "LOADER_WORKERS")
    about = {
        "images": common_folder([os.path.abspath(path) for path in arguments.images]),  # names are relative to it
        "weights": options.fingerprint(options.weights_path(arguments)),
        "settings": options.described({k: v for k, v in model.config.to_dict().items() if k not in ignored}),
        "options": options.described(
            [arguments.min_score, arguments.classes, sorted(arguments.write), _way(arguments)]
        ),
    }
    try:
        return store(output / STATE, about, restart=arguments.restart)
    except OtherResultsError as error:
        raise ValueError(f"{error}. Use another --output, or --restart to start over.") from error


def _way(arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `stream` for --tile and --augment. Raises ValueError if --weights does not support them."""
    if arguments.augment and options.is_exported(arguments):
        raise ValueError(f"--augment needs the parts of a model, but {arguments.weights} is exported as a whole")
    return ({"tile": arguments.tile} if arguments.tile else {}) | ({"augment": True} if arguments.augment else {})


def _detect(
    model: Any, images: Iterator[Any], total: int, store: "ResultStore", writer: "Writer", way: dict[str, Any]
) -> None:
    """Detects objects in the images without a result, and stores the results as it goes. Those of other images are left
    out of what the store counts and writes.

    Args:
        way: from `_way`.
    """
    from mrcnn.inference.store import Record

    underway: deque[tuple[Found, str]] = deque()

    def remaining() -> Iterator[str]:
        for image in images:
            version = image.version()
            if image.path in writer.names or store.has(image.name, version):  # listed twice, or done
                store.include(image.name)
                bar.update()
                continue
            underway.append((image, version))
            writer.names[image.path] = image.name
            yield image.path

    store.start_run()
    bar = progress(total, "image")
    last = time.monotonic()
    stream = model.stream(remaining(), failures="yield", keep_images=writer.draws, each=writer, **way)
    for outcome in stream:
        image, version = underway.popleft()
        writer.names.pop(image.path)
        if not isinstance(outcome, Record):
            outcome = _without_index(outcome)
            writer.discard(image, done=store.version_of(image.name) is not None)
        store.add(image.name, outcome, version)
        bar.update()
        if time.monotonic() - last > COMMIT_SECONDS:
            store.commit()
            last = time.monotonic()
    bar.close()


def _without_index(error: Exception) -> Exception:
    """The error of an image, which names its file, without its index in the stream."""
    return type(error)(re.sub(r"^images\[\d+\]: ", "", str(error)))


def _saved(store: "ResultStore", total: int) -> str:
    images, _, _ = store.counts()
    return f"{images} of {total} images are done and saved; run the same command to continue"


def _write_tables(
    store: "ResultStore", output: Path, names: Sequence[str], kinds: Sequence[str], skeleton: "Skeleton | None"
) -> list[str]:
    """Writes the files that cover all images; returns the contents of --output."""
    if "json" in kinds:
        store.write_coco(output / FILES["json"], names, skeleton)
    if "csv" in kinds:
        store.write_csv(output / FILES["csv"], names, skeleton)
    store.write_failures(output / UNREADABLE)
    return [FILES.get(kind, f"{kind}{os.sep}") for kind in kinds]


def _report(store: "ResultStore", output: Path) -> None:
    """Lists the images that could not be read."""
    unreadable = store.counts()[2]
    if not unreadable:
        return
    note(f"{counted(unreadable, 'image')} could not be read:")
    for line, _ in zip(store.failures(), range(SHOWN), strict=False):
        note(f"  {line}")
    if unreadable > SHOWN:
        note(f"  ... all of them in {output / UNREADABLE}")


class Writer:
    """Draws and writes the files of single images, in the thread that completes results.

    Args:
        output: the folder. names: class names. wanted: ids of the classes to keep; None for all.
    """

    def __init__(
        self, output: Path, arguments: argparse.Namespace, names: Sequence[str], wanted: Sequence[int] | None
    ) -> None:
        self.output, self.class_names, self.wanted = output, names, wanted
        self.names: dict[str, str] = {}  # image names by path, while in progress
        self.min_score: float = arguments.min_score
        self.steps: list[Callable[[Path, str, Result, np.ndarray], None]] = []
        if "pictures" in arguments.write:
            self.steps.append(_write_picture)
        if "cutouts" in arguments.write:
            self.steps.append(_write_cut_outs)

    @property
    def draws(self) -> bool:
        """Whether pixels are needed."""
        return bool(self.steps)

    def __call__(self, result: "Result") -> "Record | Exception":
        """The record of an image, or the error if its name is not possible in the output."""
        try:
            return self._written(result)
        except OSError as error:
            if error.errno not in BAD_NAME:
                raise
            return OSError(error.strerror)

    def _written(self, result: "Result") -> "Record":
        import numpy as np

        from mrcnn.inference.store import Record

        kept = result.scores >= self.min_score
        if self.wanted is not None:
            kept &= np.isin(result.class_ids, self.wanted)
        result = result.keep(kept)
        result.class_names = tuple(self.class_names)
        name = self.names[str(result.path)]
        _remove_cut_outs(self.output, name)
        for step in self.steps:
            assert result.image is not None
            step(self.output, name, result, result.image)
        return Record.of(result)

    def discard(self, image: "Found", done: bool) -> None:
        """Removes the files of an image that failed now. done: it had a result, and so a picture, before."""
        _remove_cut_outs(self.output, image.name)
        path = _picture_path(self.output, image.name, Path(image.path).parent)
        if done and _write_picture in self.steps and os.path.isfile(path):
            path.unlink()


def _picture_path(output: Path, name: str, source: Path) -> Path:
    """Where an image's picture goes: under its own name, or one that ends in .png and that no image in `source` has."""
    path = output / "pictures" / name
    if path.suffix.lower() in (".jpg", ".jpeg", ".png"):
        return path
    own = _shortened(path.name + ".png")
    while os.path.exists(source / own):
        own = _shortened("_" + own)
    return path.with_name(own)


def _shortened(name: str) -> str:
    """A file name of at most 255 bytes; if longer, a hash replaces the end of what precedes its suffix."""
    content = os.fsencode(name)
    if len(content) <= LONGEST_NAME:
        return name
    end = f"-{hashlib.sha256(content).hexdigest()[:16]}{os.path.splitext(name)[1]}"
    return content[: LONGEST_NAME - len(os.fsencode(end))].decode(errors="ignore") + end


def _write_picture(output: Path, name: str, result: "Result", image: "np.ndarray") -> None:
    """The image with its masks, in its own format, or as PNG."""
    from mrcnn.pictures.overlay import draw_result

    _write_image(_picture_path(output, name, Path(str(result.path)).parent), draw_result(image, result))


def _write_cut_outs(output: Path, name: str, result: "Result", image: "np.ndarray") -> None:
    """One file per object, in one folder per image."""
    from mrcnn.inference.store import cut_outs

    for i, pixels in cut_outs(result, image):
        label = re.sub(r"[^\w-]+", "_", result.names[i])[:40]
        _write_image(output / "cutouts" / name / f"{i:03d}_{label}.png", pixels)


def _remove_cut_outs(output: Path, name: str) -> None:
    """Removes those of an earlier run, whose numbers and classes may differ."""
    folder = output / "cutouts" / name
    if os.path.isdir(folder):
        for path in folder.iterdir():
            if CUT_OUT.fullmatch(path.name):
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # other files are in it
            folder.rmdir()


def _write_image(path: Path, pixels: "np.ndarray") -> None:
    """Encodes [H, W, RGB or RGBA] according to the path's suffix, and writes it completely or not at all."""
    import cv2

    from mrcnn.files import atomic_path

    order = cv2.COLOR_RGBA2BGRA if pixels.shape[2] == 4 else cv2.COLOR_RGB2BGR
    quality = [cv2.IMWRITE_JPEG_QUALITY, 92] if path.suffix.lower() != ".png" else []
    written, content = cv2.imencode(path.suffix.lower(), cv2.cvtColor(pixels, order), quality)
    if not written:
        raise OSError(f"OpenCV could not encode {pixels.shape[0]} x {pixels.shape[1]} pixels for {path}")
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.tobytes())

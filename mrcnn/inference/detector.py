"""From images to results: network inputs, the inference graph, and conversion back to image pixels."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mrcnn.config import Config
from mrcnn.data.images import read_image, read_image_size
from mrcnn.data.keypoints import Skeleton, decode_heatmaps
from mrcnn.data.molding import InputTransform, NetworkInput
from mrcnn.inference.pipeline import WINDOW, Buffers, batches, overlapped
from mrcnn.inference.results import MASK_FORMS, Result, SoftMasks
from mrcnn.network.pixels import PixelScaling

Finder = Callable[[np.ndarray], Result]  # an image's pixels [H, W, C] uint8 -> its result

COUNT_NAMES = ("proposals", "scores over the minimum", "left by NMS", "detections")


@dataclass(frozen=True)
class Source:
    """An image before decoding.

    index: its position among the images. image: a path, pixels [H, W, C] uint8, or the exception that it raised.
    size: (height, width), for a file from its header; None for an image that raised.
    """

    index: int
    image: Any
    size: tuple[int, int] | None


class Batch(NamedTuple):
    """Images whose network inputs have the same size, as they pass through the pipeline."""

    sources: list[Source]
    buffer: np.ndarray  # [B, height, width, channels], returned to the pool after use
    inputs: list[NetworkInput]
    pixels: list[np.ndarray | None]  # of the images, if they are kept
    failures: dict[int, Exception]  # by index
    raw: list[dict[str, np.ndarray]]


class Detector:
    """Runs an inference graph on any number of images of any sizes.

    Args:
        call: (images, windows) -> outputs, from `mrcnn.inference.compiled.compiled`.
        config: the settings of that graph.
        scaling: the pixel scaling that the backbone expects.
        process: id of the process in which the network was built; None: this one.
        skeleton: returns the skeleton of the keypoints, or None; training and loading weights may change it.
    """

    def __init__(
        self,
        call: Callable[[Any, Any], Mapping[str, Any]],
        config: Config,
        scaling: PixelScaling,
        process: int | None = None,
        skeleton: Callable[[], Skeleton | None] = lambda: None,
    ) -> None:
        self.call, self.config, self.scaling, self.skeleton = call, config, scaling, skeleton
        self.process = os.getpid() if process is None else process
        self.buffers = Buffers()
        self.transform = InputTransform.from_config(config, scaling, training=False)

    def detect(
        self, images: Sequence[Any], verbose: int = 0, prepare: str | None = None, class_names: Sequence[str] = ()
    ) -> list[Result]:
        """See `MaskRCNN.detect`."""
        _check_form(prepare)
        total = len(images)
        # Read all headers first: bad images are then reported before the first detection, and images of equal size are
        # grouped, however far apart they are. Files are decoded once, later.
        sources = [self.source(i, image, total) for i, image in enumerate(images)]
        found = self._run(sources, prepare=prepare, class_names=class_names, verbose=verbose, window=None, total=total)
        results = {index: outcome for index, outcome in found if isinstance(outcome, Result)}
        return [results[i] for i in range(total)]

    def detect_alone(self, images: Sequence[Any], find: Finder, prepare: str | None) -> list[Result]:
        """`detect` with `find`, a function of one image's pixels."""
        total = len(images)
        sources = [self.source(i, image, total) for i, image in enumerate(images)]
        return list(self._alone(sources, find, prepare, total))

    def stream_alone(
        self,
        images: Iterable[Any],
        find: Finder,
        *,
        prepare: str | None = None,
        failures: str = "raise",
        keep_images: bool = False,
        each: Callable[[Result], Any] | None = None,
    ) -> Iterator[Any]:
        """`stream` with `find`, a function of one image's pixels."""
        _check_failures(failures)
        sources = self._checked(images, failures)
        return self._alone(sources, find, prepare, None, failures == "yield", keep_images, each)

    def _alone(
        self,
        sources: Iterable[Source],
        find: Finder,
        prepare: str | None,
        total: int | None,
        fails: bool = False,
        keep_images: bool = False,
        each: Callable[[Result], Any] | None = None,
    ) -> Iterator[Any]:
        """The result of each image, like `_run`, one image at a time."""
        _check_form(prepare)
        for source in sources:
            try:
                with _named(source.index, total):
                    pixels = self.pixels(source)
            except (ValueError, TypeError, OSError) as error:
                if not fails:
                    raise
                yield source.image if source.size is None else error
                continue
            result = find(pixels)
            result.image = pixels if keep_images else None
            result.path = _path(source)
            if prepare:
                result.prepare(prepare)
            yield each(result) if each else result

    def stream(
        self,
        images: Iterable[Any],
        *,
        prepare: str | None = None,
        class_names: Sequence[str] = (),
        failures: str = "raise",
        keep_images: bool = False,
        each: Callable[[Result], Any] | None = None,
    ) -> Iterator[Any]:
        """See `MaskRCNN.stream`."""
        _check_form(prepare)
        _check_failures(failures)
        window = WINDOW * self.config.DETECTION_BATCH_SIZE
        found = self._run(
            self._checked(images, failures),
            prepare=prepare,
            class_names=class_names,
            window=window,
            fails=failures == "yield",
            keep_images=keep_images,
            each=each,
        )
        early: dict[int, Any] = {}  # results that are finished before their turn
        due = 0
        for index, outcome in found:
            early[index] = outcome
            while due in early:
                yield early.pop(due)
                due += 1

    def _run(
        self,
        sources: Iterable[Source],
        *,
        prepare: str | None,
        class_names: Sequence[str],
        window: int | None,
        total: int | None = None,
        verbose: int = 0,
        fails: bool = False,
        keep_images: bool = False,
        each: Callable[[Result], Any] | None = None,
    ) -> Iterator[tuple[int, Any]]:
        """(index, result) of each image in the order of completion.

        Args:
            window: see `mrcnn.inference.pipeline.batches`.
            total: number of images, for messages.
            fails: return the exception of an image that cannot be decoded, instead of raising it.
            keep_images, each: see `MaskRCNN.stream`.
        """
        waiting: dict[int, Source] = {}

        def sized() -> Iterator[tuple[int, tuple[int, int] | None]]:
            for source in sources:
                waiting[source.index] = source
                yield source.index, source.size and self.input_size(source.size)

        def read(group: list[Source]) -> Batch:
            batch = self._read(group, total, keep_images)
            if batch.failures and not fails:
                raise next(iter(batch.failures.values()))
            return batch

        def run(batch: Batch) -> Batch:
            raw = []
            if batch.inputs:
                raw = self.run(batch.buffer[: len(batch.inputs)], np.stack([i.window for i in batch.inputs]))
            self.buffers.give(batch.buffer)
            return batch._replace(raw=raw)

        def finish(batch: Batch) -> list[tuple[int, Any, str]]:
            outcomes: list[tuple[int, Any, str]] = [(i, error, "") for i, error in batch.failures.items()]
            done = zip(batch.sources, batch.inputs, batch.pixels, batch.raw, strict=True)
            for source, place, pixels, raw in done:
                result = self.result(raw, place, class_names)
                result.image = pixels
                result.path = _path(source)
                if prepare:
                    result.prepare(prepare)
                account = _account(source.index, place, raw["counts"]) if verbose else ""
                outcomes.append((source.index, each(result) if each else result, account))
            return outcomes

        groups = batches(sized(), self.config.DETECTION_BATCH_SIZE, window)
        work = ([waiting.pop(i) for i in group] for group in groups)
        for outcomes in overlapped(work, read, run, finish):
            for index, outcome, account in outcomes:
                if verbose:
                    print(account)
                yield index, outcome

    def source(self, index: int, image: Any, total: int | None = None) -> Source:
        """An image with its size; arrays are converted at once. Raises like `read_image`, with the index."""
        config = self.config
        with _named(index, total):
            if isinstance(image, str | os.PathLike) and config.IMAGE_CHANNEL_COUNT in (1, 3):
                return Source(index, image, read_image_size(image, max_pixels=config.IMAGE_MAX_PIXELS))
            pixels = read_image(image, config.IMAGE_CHANNEL_COUNT, max_pixels=config.IMAGE_MAX_PIXELS)
            return Source(index, pixels, pixels.shape[:2])

    def _checked(self, images: Iterable[Any], failures: str) -> Iterator[Source]:
        """The images with their sizes; with failures = "yield", invalid images are replaced by their exceptions."""
        for index, image in enumerate(images):
            try:
                yield self.source(index, image)
            except (ValueError, TypeError, OSError) as error:
                if failures == "raise":
                    raise
                yield Source(index, error, None)

    def _read(self, sources: list[Source], total: int | None, keep_images: bool) -> Batch:
        """Decodes, resizes and normalizes images into one array; those that cannot be decoded are skipped."""
        height, width = self.input_size(sources[0].size) if sources[0].size else (0, 0)
        buffer = self.buffers.take((len(sources), height, width, self.config.IMAGE_CHANNEL_COUNT))
        batch = Batch([], buffer, [], [], {}, [])
        for source in sources:
            try:
                with _named(source.index, total):
                    place, pixels = self._place(source, buffer[len(batch.inputs)], keep_images)
            except (ValueError, TypeError, OSError) as error:
                batch.failures[source.index] = source.image if source.size is None else error
                continue
            batch.sources.append(source)
            batch.inputs.append(place)
            batch.pixels.append(pixels)
        return batch

    def _place(self, source: Source, out: np.ndarray, keep: bool) -> tuple[NetworkInput, np.ndarray | None]:
        """The network input of an image, in `out`; and its pixels, if they are to be kept."""
        pixels = self.pixels(source)
        return self.network_input(pixels, out), pixels if keep else None

    def pixels(self, source: Source) -> np.ndarray:
        """The pixels of an image, [H, W, C] uint8. Raises like `read_image`."""
        if source.size is None:
            raise source.image
        pixels = read_image(source.image, self.config.IMAGE_CHANNEL_COUNT, max_pixels=self.config.IMAGE_MAX_PIXELS)
        if pixels.shape[:2] != source.size:
            raise ValueError(
                f"{source.image!r} has {pixels.shape[:2]} pixels (height, width), but its header said {source.size}; "
                "the file is damaged, or was replaced in the meantime"
            )
        return pixels

    def input_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the network input for an image of (height, width)."""
        return self.transform.place(*size).input_size

    def network_input(self, image: np.ndarray, out: np.ndarray | None = None) -> NetworkInput:
        """Resizes, normalizes and pads one image [H, W, C] uint8.

        Args:
            out: float32 array of `input_size` for the network input, such as a slice of a batch. None: a new one.
        """
        return self.transform.apply(image, out=out)

    def run(self, images: np.ndarray, windows: np.ndarray) -> list[dict[str, np.ndarray]]:
        """Detections in pixels of the network input.

        Args:
            images: [B, height, width, C] float32. windows: [B, (y1, x1, y2, x2)] float32.

        Returns:
            A dict per image, without padding rows: boxes [N, (y1, x1, y2, x2)], class_ids [N] int32, scores [N],
            masks [N, m, m] probabilities, counts [4] (see `COUNT_NAMES`), mask_scores [N] if the head predicts any, and
            with a keypoint head keypoints [N, m, m, K], the logits of their heatmaps.

        Raises RuntimeError in a process forked from the one that built the network.
        """
        if os.getpid() != self.process:  # TensorFlow would wait forever for its threads, which a fork does not copy
            raise RuntimeError(
                f"this process ({os.getpid()}) was forked from the one that built the model ({self.process}), and "
                "TensorFlow and JAX cannot run after a fork. Build the model in the new process, or start processes "
                "with multiprocessing.get_context('spawn')."
            )
        raw = {name: np.asarray(value) for name, value in self.call(images, windows).items()}
        valid, ends = raw["valid"], np.cumsum(raw["valid"].sum(axis=1))
        raw.setdefault("masks", np.zeros((valid.sum(), 1, 1), np.float32))  # without a mask head: empty masks
        folded = {name: raw[name] for name in ("masks", "mask_scores", "keypoints") if name in raw}
        for name, values in folded.items():
            if len(values) == valid.size and not valid.all():  # static shapes: padding rows have masks, too
                folded[name] = values[valid.reshape(-1)]
        return [
            {
                "boxes": raw["boxes"][i][valid[i]],
                "class_ids": raw["class_ids"][i][valid[i]].astype(np.int32),
                "scores": raw["scores"][i][valid[i]],
                "counts": raw["counts"][i],
            }
            | {name: values[end - valid[i].sum() : end] for name, values in folded.items()}
            for i, end in enumerate(ends)
        ]

    def result(self, raw: Mapping[str, np.ndarray], source: NetworkInput, class_names: Sequence[str] = ()) -> Result:
        """Converts the output of `run` for a network input to pixels of its image."""
        rois = image_boxes(raw["boxes"], source, self.config.DETECTION_ROUND_BOXES)
        masks = SoftMasks(np.asarray(raw["masks"], np.float32), rois.astype(np.float32))
        result = Result(rois, raw["class_ids"], raw["scores"].astype(np.float32), masks, source.size, class_names)
        if "mask_scores" in raw:
            result["mask_scores"] = raw["mask_scores"].astype(np.float32)
        if "keypoints" in raw:
            found = decode_heatmaps(raw["keypoints"], raw["boxes"])
            places = (found[..., :2] - source.window[:2]) / np.array(source.scale, np.float32)
            result["keypoints"] = np.concatenate([places, found[..., 2:]], axis=-1)
            result.skeleton = self.skeleton()
        return result


@contextmanager
def _named(index: int, total: int | None) -> Iterator[None]:
    """Adds the index of an image to its errors."""
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        if total is None:
            raise type(error)(f"images[{index}]: {error}") from error
        advice = "No results were returned; fix or remove that image"
        raise type(error)(f"images[{index}] of {total}: {error}. {advice}.") from error


def _path(source: Source) -> str | None:
    return os.fspath(source.image) if isinstance(source.image, str | os.PathLike) else None


def _check_failures(failures: str) -> None:
    if failures not in ("raise", "yield"):
        raise ValueError(f'failures must be "raise" or "yield", got {failures!r}')


def _check_form(form: str | None) -> None:
    if form is not None and form not in MASK_FORMS:
        raise ValueError(f"prepare must be one of {MASK_FORMS} or None, got {form!r}")


def image_boxes(boxes: np.ndarray, source: NetworkInput, whole: bool) -> np.ndarray:
    """Boxes [N, 4] of the network input in pixels of its image, clipped to it; whole: int32, else float32."""
    limits = np.array(source.size * 2)
    if whole:
        return np.clip(_rounded_boxes(boxes, source), 0, limits).astype(np.int32)
    return np.clip(_boxes(boxes, source), 0, limits).astype(np.float32)


def _boxes(boxes: np.ndarray, source: NetworkInput) -> np.ndarray:
    """Converts boxes [N, 4] from network input to image pixels."""
    return (boxes - np.tile(source.window[:2], 2)) / np.tile(source.scale, 2)


def _rounded_boxes(boxes: np.ndarray, source: NetworkInput) -> np.ndarray:
    """The same in whole pixels, as in matterport's `unmold_detections`: corners name the last pixel, are scaled so that
    the window's last pixel becomes the image's, and are rounded."""
    top, left, bottom, right = source.window
    scale = (np.array(source.size) - 1) / (bottom - top - 1, right - left - 1)
    last = np.array([0, 0, 1, 1])
    return np.rint((boxes - last - (top, left, top, left)) * np.tile(scale, 2)) + last


def _account(index: int, source: NetworkInput, counts: np.ndarray) -> str:
    steps = ", ".join(f"{int(n)} {name}" for n, name in zip(counts, COUNT_NAMES, strict=True))
    height, width = source.size
    return f"image {index}: {height} x {width} as {source.image.shape[0]} x {source.image.shape[1]}: {steps}"

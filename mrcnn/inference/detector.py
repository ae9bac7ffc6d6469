"""From images to results: network inputs, the inference graph, and the way back to the pixels of the images."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mrcnn.config import Config
from mrcnn.data.images import read_image, read_image_size
from mrcnn.data.molding import mold_for_network, plan
from mrcnn.inference.input_sizes import largest_side
from mrcnn.inference.results import MASK_FORMS, Result, SoftMasks
from mrcnn.network.pixels import PixelScaling

COUNT_NAMES = ("proposals", "scores over the minimum", "left by NMS", "detections")


class NetworkInput(NamedTuple):
    """One image as the network takes it, and what leads back to its own pixels."""

    image: np.ndarray  # [height, width, channels] float32, normalized and padded
    window: np.ndarray  # (y1, x1, y2, x2) float32: where in it the image lies, in pixels
    scale: tuple[float, float]  # (y, x): pixels of the network input per pixel of the image
    size: tuple[int, int]  # (height, width) of the image


class Detector:
    """Runs an inference graph on any number of images of any sizes.

    Args:
        call: (images, windows) -> outputs, as `mrcnn.inference.compiled.compiled` makes it of an inference graph.
        config: the settings of that graph.
        scaling: the pixel values that the backbone expects.
    """

    def __init__(self, call: Callable[[Any, Any], Mapping[str, Any]], config: Config, scaling: PixelScaling) -> None:
        self.call, self.config, self.scaling = call, config, scaling

    def detect(
        self, images: Sequence[Any], verbose: int = 0, prepare: str | None = None, class_names: Sequence[str] = ()
    ) -> list[Result]:
        """See `MaskRCNN.detect`."""
        if prepare is not None and prepare not in MASK_FORMS:
            raise ValueError(f"prepare is one of {MASK_FORMS} or None, got {prepare!r}")
        images = list(images)
        # Sizes first, so that a bad image is reported before the first detection. Files are decoded once, later.
        sizes = [self._size(i, images) for i in range(len(images))]
        results: dict[int, Result] = {}
        for batch in self._batches(sizes):
            inputs = [self.network_input(self._pixels(i, images)) for i in batch]
            raw = self.run(np.stack([i.image for i in inputs]), np.stack([i.window for i in inputs]))
            for row, i in enumerate(batch):
                results[i] = self.result(raw[row], inputs[row], class_names)
                if prepare:
                    results[i].prepare(prepare)
                if verbose:
                    print(_account(i, inputs[row], raw[row]["counts"]))
        return [results[i] for i in range(len(images))]

    def _size(self, index: int, images: list[Any]) -> tuple[int, int]:
        """(height, width) of `images[index]`: of a file by its header; anything else is converted in the list."""
        image = images[index]
        if not isinstance(image, str | os.PathLike):
            images[index] = image = self._pixels(index, images)
            return image.shape[0], image.shape[1]
        try:
            return read_image_size(image, max_pixels=self.config.IMAGE_MAX_PIXELS)
        except (ValueError, OSError) as error:
            raise _placed(error, index, images) from error

    def _pixels(self, index: int, images: Sequence[Any]) -> np.ndarray:
        """The pixels of `images[index]`, [H, W, C] uint8."""
        try:
            return read_image(images[index], self.config.IMAGE_CHANNEL_COUNT, max_pixels=self.config.IMAGE_MAX_PIXELS)
        except (ValueError, TypeError, OSError) as error:
            raise _placed(error, index, images) from error

    def _batches(self, sizes: Sequence[tuple[int, int]]) -> Iterator[list[int]]:
        """Indices of images whose network inputs have one size, at most DETECTION_BATCH_SIZE of them together."""
        by_size: dict[tuple[int, int], list[int]] = {}
        for i, size in enumerate(sizes):
            by_size.setdefault(self.input_size(size), []).append(i)
        step = self.config.DETECTION_BATCH_SIZE
        for same in by_size.values():
            for k in range(0, len(same), step):
                yield same[k : k + step]

    def input_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the network input that an image of (height, width) gets."""
        geometry = self._geometry()
        half_up = geometry.pop("resizer") == "pillow"
        placement = plan(*size, **geometry, half_up=half_up)
        return placement.canvas_height, placement.canvas_width

    def _geometry(self) -> dict[str, Any]:
        """How images are resized and padded."""
        config = self.config
        crops = config.IMAGE_RESIZE_MODE == "crop"  # a way of training: detection sees the whole image
        return {
            "mode": "square" if crops else config.IMAGE_RESIZE_MODE,
            "min_dim": config.IMAGE_MIN_DIM,
            "max_dim": largest_side(config),
            "min_scale": config.IMAGE_MIN_SCALE,
            "divisor": config.SIZE_DIVISOR,
            "resizer": config.IMAGE_RESIZER,
        }

    def network_input(self, image: np.ndarray) -> NetworkInput:
        """Resizes, normalizes and pads one image [H, W, C] uint8."""
        pixels, window, scale = mold_for_network(
            image,
            **self._geometry(),
            scaling=self.scaling,
            antialias=self.config.IMAGE_ANTIALIAS,
            pad_pixel=self.config.IMAGE_PAD_PIXEL,
        )
        return NetworkInput(pixels, window, scale, (image.shape[0], image.shape[1]))

    def run(self, images: np.ndarray, windows: np.ndarray) -> list[dict[str, np.ndarray]]:
        """Detections in pixels of the network input.

        Args:
            images: [B, height, width, C] float32. windows: [B, (y1, x1, y2, x2)] float32.

        Returns:
            A dict per image, without padding rows: boxes [N, (y1, x1, y2, x2)], class_ids [N] int32, scores [N],
            masks [N, m, m] probabilities, and counts [4] (see `COUNT_NAMES`).
        """
        raw = {name: np.asarray(value) for name, value in self.call(images, windows).items()}
        valid, masks = raw["valid"], raw["masks"]
        if len(masks) == valid.size and not valid.all():  # static shapes: padding rows have masks, too
            masks = masks[valid.reshape(-1)]
        ends = np.cumsum(valid.sum(axis=1))
        return [
            {
                "boxes": raw["boxes"][i][valid[i]],
                "class_ids": raw["class_ids"][i][valid[i]].astype(np.int32),
                "scores": raw["scores"][i][valid[i]],
                "masks": masks[end - valid[i].sum() : end],
                "counts": raw["counts"][i],
            }
            for i, end in enumerate(ends)
        ]

    def result(self, raw: Mapping[str, np.ndarray], source: NetworkInput, class_names: Sequence[str] = ()) -> Result:
        """What `run` gave for a network input, in pixels of its image."""
        limits = np.array(source.size * 2)
        if self.config.DETECTION_ROUND_BOXES:
            rois = np.clip(_rounded_boxes(raw["boxes"], source), 0, limits).astype(np.int32)
        else:
            rois = np.clip(_boxes(raw["boxes"], source), 0, limits).astype(np.float32)
        masks = SoftMasks(np.asarray(raw["masks"], np.float32), rois.astype(np.float32))
        return Result(rois, raw["class_ids"], raw["scores"].astype(np.float32), masks, source.size, class_names)


def _placed(error: Exception, index: int, images: Sequence[Any]) -> Exception:
    """The same error, naming the place of the image in the list."""
    return type(error)(
        f"images[{index}] of {len(images)}: {error}. No results were returned; fix or leave out that image."
    )


def _boxes(boxes: np.ndarray, source: NetworkInput) -> np.ndarray:
    """Boxes [N, 4] of the network input in pixels of the image."""
    return (boxes - np.tile(source.window[:2], 2)) / np.tile(source.scale, 2)


def _rounded_boxes(boxes: np.ndarray, source: NetworkInput) -> np.ndarray:
    """The same in whole pixels, as in matterport's `unmold_detections`: corners name the last pixel, are scaled from
    the last pixel of the window to the last of the image, and rounded."""
    top, left, bottom, right = source.window
    scale = (np.array(source.size) - 1) / (bottom - top - 1, right - left - 1)
    last = np.array([0, 0, 1, 1])
    return np.rint((boxes - last - (top, left, top, left)) * np.tile(scale, 2)) + last


def _account(index: int, source: NetworkInput, counts: np.ndarray) -> str:
    steps = ", ".join(f"{int(n)} {name}" for n, name in zip(counts, COUNT_NAMES, strict=True))
    height, width = source.size
    return f"image {index}: {height} x {width} as {source.image.shape[0]} x {source.image.shape[1]}: {steps}"

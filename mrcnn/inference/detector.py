"""Photographs in, detections out: molding, the inference graph, and the way back to the photographs' own pixels."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mrcnn.config import Config
from mrcnn.data.images import read_image
from mrcnn.data.masks import mask_parts, paste_masks
from mrcnn.data.molding import canvas_side, mold_for_network
from mrcnn.data.rle import encode_parts
from mrcnn.inference.compiled import Canvases
from mrcnn.network.pixels import PixelScaling

MASK_FORMS = ("full", "rle", "crop", "none")
COUNT_NAMES = ("proposals", "scores over the minimum", "left by NMS", "detections")


class Molded(NamedTuple):
    """A photograph as the network takes it, and what leads back from there."""

    image: np.ndarray  # [height, width, channels] float32, normalised and padded
    window: np.ndarray  # (y1, x1, y2, x2) of the photograph inside it
    scale: tuple[float, float]  # network pixels a photograph's pixel: y, x
    size: tuple[int, int]  # height, width of the photograph


class Detector:
    """Runs an inference graph over any number of photographs of any sizes.

    Args:
        call: (image, window) -> outputs, what `mrcnn.inference.compiled.compiled` makes of
            `mrcnn.network.graph.inference_graph`'s model.
        config: its settings.
        scaling: the pixels that the backbone expects.
    """

    def __init__(self, call: Callable[[Any, Any], Mapping[str, Any]], config: Config, scaling: PixelScaling) -> None:
        self.call, self.config, self.scaling = call, config, scaling

    def detect(self, images: Sequence[Any], verbose: int = 0, masks: str = "full") -> list[dict[str, Any]]:
        """See `MaskRCNN.detect`."""
        if masks not in MASK_FORMS:
            raise ValueError(f"masks is one of {MASK_FORMS}, got {masks!r}")
        images = list(images)
        # All are read before the first detection, so that a bad one costs no time; the pixels of files are not kept
        shapes = [self._read(i, images).shape for i in range(len(images))]
        results: list[Any] = [None] * len(images)
        for batch in self._batches(shapes):
            molded = [self.mold(self._read(i, images)) for i in batch]
            raw = self.run(np.stack([m.image for m in molded]), np.stack([m.window for m in molded]))
            for row, i in enumerate(batch):
                results[i] = self.unmold(raw[row], molded[row], masks)
                if verbose:
                    print(_account(i, molded[row], raw[row]["counts"]))
        return results

    def _read(self, index: int, images: list[Any]) -> np.ndarray:
        """The pixels of `images[index]`; those of anything but a file are kept there, converted."""
        image = images[index]
        try:
            pixels = read_image(image, self.config.IMAGE_CHANNEL_COUNT)
        except (ValueError, TypeError, OSError) as error:
            where = f"images[{index}] of {len(images)}: {error}. Nothing was detected; mend or leave out that image."
            raise type(error)(where) from error
        if not isinstance(image, (str, os.PathLike)):
            images[index] = pixels
        return pixels

    def _batches(self, shapes: list[tuple[int, ...]]) -> list[list[int]]:
        """Indices of images that share a shape, at most DETECTION_BATCH_SIZE of them together."""
        by_size: dict[tuple, list[int]] = {}
        for i, shape in enumerate(shapes):
            by_size.setdefault(shape, []).append(i)
        step = self.config.DETECTION_BATCH_SIZE
        return [same[k : k + step] for same in by_size.values() for k in range(0, len(same), step)]

    def mold(self, image: np.ndarray) -> Molded:
        """Resizes, normalises and pads one [H, W, C] uint8 photograph."""
        config = self.config
        crops = config.IMAGE_RESIZE_MODE == "crop"  # a way of training: detection sees the whole photograph
        mode = "square" if crops else config.IMAGE_RESIZE_MODE
        molded, window, scale = mold_for_network(
            image,
            mode=mode,
            min_dim=config.IMAGE_MIN_DIM,
            max_dim=_max_dim(config),
            min_scale=config.IMAGE_MIN_SCALE,
            divisor=config.SIZE_DIVISOR,
            scaling=self.scaling,
            antialias=config.IMAGE_ANTIALIAS,
            resizer=config.IMAGE_RESIZER,
            pad_pixel=config.IMAGE_PAD_PIXEL,
        )
        return Molded(molded, window, scale, image.shape[:2])

    def run(self, images: np.ndarray, windows: np.ndarray) -> list[dict[str, np.ndarray]]:
        """Detections in network pixels, one dict an image: boxes [n, 4], class_ids, scores [n], masks [n, size, size]
        probabilities, counts [4]."""
        raw = {name: np.asarray(value) for name, value in self.call(images, windows).items()}
        valid, masks = raw["valid"], raw["masks"]
        if len(masks) == valid.size and not valid.all():  # static shapes: a row for every slot, real or not
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

    def unmold(self, raw: dict[str, np.ndarray], molded: Molded, masks: str = "full") -> dict[str, Any]:
        """Boxes and masks in the photograph's own pixels."""
        height, width = molded.size
        place = _rounded_boxes if self.config.DETECTION_ROUND_BOXES else _boxes
        boxes = np.clip(place(raw["boxes"], molded), 0, np.array([height, width] * 2)).astype(np.float32)
        return {
            "rois": boxes,
            "class_ids": raw["class_ids"],
            "scores": raw["scores"].astype(np.float32),
            **_masks(masks, raw["masks"], boxes, height, width),
        }


def canvas_limits(config: Config) -> Canvases:
    """What the settings say of the canvases of molded photographs."""
    mode, batch = config.IMAGE_RESIZE_MODE, config.DETECTION_BATCH_SIZE
    if mode in ("none", "pad64"):
        return Canvases(batch=batch)
    long = canvas_side(_max_dim(config), config.SIZE_DIVISOR)
    if mode == "fit":
        return Canvases(canvas_side(config.IMAGE_MIN_DIM, config.SIZE_DIVISOR), long, batch)
    return Canvases(long, long, batch, one_size=True)


def _max_dim(config: Config) -> int | None:
    crops = config.IMAGE_RESIZE_MODE == "crop"
    return config.IMAGE_MIN_DIM if crops and not config.IMAGE_MAX_DIM else config.IMAGE_MAX_DIM


def _masks(form: str, probs: np.ndarray, boxes: np.ndarray, height: int, width: int) -> dict[str, Any]:
    """What `MaskRCNN.detect` gives of masks in each of `MASK_FORMS`."""
    if form == "full":
        return {"masks": paste_masks(probs, boxes, height, width)}
    parts = mask_parts(probs, boxes, height, width)
    if form == "rle":
        return {"masks": encode_parts(parts, height, width)}
    if form == "none":
        return {}
    parts = list(parts)
    origins = np.array([(top, left) for _, top, left in parts], np.int32).reshape(-1, 2)
    return {"masks": [part for part, _, _ in parts], "mask_origins": origins}


def _boxes(boxes: np.ndarray, molded: Molded) -> np.ndarray:
    """Boxes [n, 4] of the network's input in pixels of the photograph."""
    return (boxes - np.tile(molded.window[:2], 2)) / np.tile(molded.scale, 2)


def _rounded_boxes(boxes: np.ndarray, molded: Molded) -> np.ndarray:
    """The same in whole pixels, as matterport's `unmold_detections` has them: it scales corners that name the last
    pixel, from the last of the window to the last of the photograph, and rounds."""
    top, left, bottom, right = molded.window
    scale = (np.array(molded.size) - 1) / (bottom - top - 1, right - left - 1)
    last = np.array([0, 0, 1, 1])
    return np.rint((boxes - last - (top, left, top, left)) * np.tile(scale, 2)) + last


def _account(index: int, molded: Molded, counts: np.ndarray) -> str:
    steps = ", ".join(f"{int(n)} {name}" for n, name in zip(counts, COUNT_NAMES, strict=True))
    height, width = molded.size
    return f"image {index}: {height} x {width} as {molded.image.shape[0]} x {molded.image.shape[1]}: {steps}"

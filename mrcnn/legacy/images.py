"""Images as loaded and described by the old package's notebooks; training uses `mrcnn.data.loader`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike

from mrcnn.config import Config
from mrcnn.data import molding
from mrcnn.data.augmentation import apply_imgaug
from mrcnn.data.dataset import Dataset
from mrcnn.data.loader import active_classes
from mrcnn.data.masks import extract_bboxes, minimize_mask
from mrcnn.data.resize import choose_scale, resize
from mrcnn.data.sample import read_sample
from mrcnn.legacy.resize import resize_image, resize_mask
from mrcnn.network.backbone import backbone_scaling
from mrcnn.network.pixels import PixelScaling, scaling_of

Window = tuple[int, int, int, int]
META = {  # parts of an image meta, in order, with their types, before the active classes
    "image_id": (slice(0, 1), np.int32),
    "original_image_shape": (slice(1, 4), np.int32),
    "image_shape": (slice(4, 7), np.int32),
    "window": (slice(7, 11), np.int32),
    "scale": (slice(11, 12), np.float32),
    "active_class_ids": (slice(12, None), np.int32),
}
SCALARS = ("image_id", "scale")


def load_image_gt(
    dataset: Dataset,
    config: Config,
    image_id: int,
    augment: bool = False,
    augmentation: Any = None,
    use_mini_mask: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Loads one image with its ground truth, resized and padded as for training.

    Args:
        augment: flip half of the images horizontally.
        augmentation: an imgaug augmenter. Both draw from NumPy's global generator, so `np.random.seed` repeats them.
        use_mini_mask: return masks of MINI_MASK_SHAPE inside their boxes instead of full ones.

    Returns:
        image [H, W, C] uint8, image_meta (see `compose_image_meta`), class_ids [N] int32,
        boxes [N, (y1, x1, y2, x2)] int32, masks [H, W, N] bool or [*MINI_MASK_SHAPE, N] bool.
    """
    sample = read_sample(dataset, image_id, config.NUM_CLASSES, config.IMAGE_CHANNEL_COUNT)
    original_shape = sample.image.shape
    image, masks, window, scale = _resized(sample.image, sample.masks, config)
    if augment and np.random.random() < 0.5:
        image, masks = image[:, ::-1], masks[:, ::-1]
        window = (window[0], image.shape[1] - window[3], window[2], image.shape[1] - window[1])
    if augmentation is not None:
        rng = np.random.default_rng(np.random.randint(2**31))
        image, masks = apply_imgaug(image, masks, np.zeros([masks.shape[2], 4]), augmentation, rng)[:2]
    alive = masks.any(axis=(0, 1))  # small instances may have lost all their pixels
    masks, class_ids = masks[:, :, alive], sample.class_ids[alive]
    boxes = extract_bboxes(masks)
    if use_mini_mask:
        masks = minimize_mask(boxes, masks, config.MINI_MASK_SHAPE)
    active = active_classes(dataset, dataset.image_info[image_id]["source"], config.NUM_CLASSES)
    meta = compose_image_meta(image_id, original_shape, image.shape, window, scale, active)
    return image, meta, class_ids, boxes, masks


def _resized(image: np.ndarray, masks: np.ndarray, config: Config) -> tuple[np.ndarray, np.ndarray, Window, float]:
    """The image and its masks at the size of a training image, and the image's window in it."""
    min_dim, max_dim = config.IMAGE_MIN_DIM, config.IMAGE_MAX_DIM
    if config.IMAGE_RESIZE_MODE != "fit":
        image, window, scale, padding, crop = resize_image(
            image, min_dim=min_dim, max_dim=max_dim, min_scale=config.IMAGE_MIN_SCALE, mode=config.IMAGE_RESIZE_MODE
        )
        return image, resize_mask(masks, scale, padding, crop), window, scale
    scale = choose_scale(image.shape[0], image.shape[1], min_dim, max_dim, None, "fit")
    height, width = molding.fit_size(image.shape[0], image.shape[1], min_dim, max_dim)
    image = resize(image, height, width)
    side = molding.round_up(max_dim, config.SIZE_DIVISOR)
    fitted = np.zeros([masks.shape[2], side, side], bool)
    for i, mask in enumerate(fitted):
        pixels = np.ascontiguousarray(masks[:, :, i]).view(np.uint8)
        mask[:height, :width] = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_NEAREST)
    padding = [(0, side - height), (0, side - width), (0, 0)]
    return np.pad(image, padding), np.moveaxis(fitted, 0, 2), (0, 0, height, width), scale


def mold_image(image: ArrayLike, config: Config) -> np.ndarray:
    """An image [H, W, C] with its pixels normalized as the backbone expects: float32, of the same size.

    `detect` does this itself, along with resizing and padding.
    """
    return molding.normalize(np.asarray(image), *_scaling(config))


def unmold_image(normalized_images: ArrayLike, config: Config) -> np.ndarray:
    """The inverse of `mold_image`: [H, W, C] uint8."""
    return molding.denormalize(np.asarray(normalized_images), *_scaling(config))


def _scaling(config: Config) -> PixelScaling:
    return scaling_of(config, backbone_scaling(config.BACKBONE, config.IMAGE_CHANNEL_COUNT))


def compose_image_meta(
    image_id: int,
    original_image_shape: Sequence[int],
    image_shape: Sequence[int],
    window: Sequence[float] | np.ndarray,
    scale: float,
    active_class_ids: Sequence[float] | np.ndarray,
) -> np.ndarray:
    """Describes an image in one vector, in the order of the old package.

    Returns:
        [1 + 3 + 3 + 4 + 1 + classes] float64: image id, shape before and after resizing, window (y1, x1, y2, x2),
        scale, and 1 for every class of the image's source.
    """
    return np.array([image_id, *original_image_shape, *image_shape, *window, scale, *active_class_ids], np.float64)


def parse_image_meta(meta: ArrayLike) -> dict[str, np.ndarray]:
    """The parts of image metas [batch, length] by name, as integers except for the scale."""
    meta = np.asarray(meta)
    return {name: meta[:, part.start if name in SCALARS else part].astype(kind) for name, (part, kind) in META.items()}


def parse_image_meta_graph(meta: Any) -> dict[str, Any]:
    """The parts of a tensor of image metas [batch, length] by name, in its own type."""
    return {name: meta[:, part.start if name in SCALARS else part] for name, (part, _) in META.items()}


def log(text: str, array: np.ndarray | None = None) -> None:
    """Prints a text and, for an array, its shape, minimum, maximum and type."""
    if array is not None:
        array = np.asarray(array)
        values = f"min: {array.min():10.5f}  max: {array.max():10.5f}" if array.size else "empty"
        text = f"{text:25} shape: {str(array.shape):20} {values}  {array.dtype}"
    print(text)

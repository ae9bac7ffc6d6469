"""`load_image_gt`, image metas and `log`, as the old package's notebooks and scripts use them."""

from typing import Any

import cv2
import numpy as np

from mrcnn.config import Config
from mrcnn.data.augmentation import apply_imgaug
from mrcnn.data.dataset import Dataset
from mrcnn.data.loader import active_classes
from mrcnn.data.masks import extract_bboxes, minimize_mask
from mrcnn.data.molding import base_scale, canvas_side, fit_image, pad_to
from mrcnn.data.resize import resize_image, resize_mask
from mrcnn.data.sample import load_sample


def load_image_gt(
    dataset: Dataset,
    config: Config,
    image_id: int,
    augment: bool = False,
    augmentation: Any = None,
    use_mini_mask: bool = False,
):
    """One image with its ground truth at the network's size, for looking at; training goes through `Loader`.

    Args:
        augment: flip half of the images horizontally.
        augmentation: an imgaug augmenter. Both draw from NumPy's global generator, so that `np.random.seed` repeats.
        use_mini_mask: masks of MINI_MASK_SHAPE inside their boxes instead of whole ones.

    Returns:
        image [H, W, C] uint8, image_meta (see `compose_image_meta`), class_ids [N] int32,
        boxes [N, (y1, x1, y2, x2)] int32, masks [H, W, N] bool or [*MINI_MASK_SHAPE, N] bool.
    """
    sample = load_sample(dataset, image_id, config.NUM_CLASSES, config.IMAGE_CHANNEL_COUNT)
    original_shape = sample.image.shape
    image, masks, window, scale = _resized(sample.image, sample.masks, config)
    if augment and np.random.random() < 0.5:
        image, masks = image[:, ::-1], masks[:, ::-1]
        window = (window[0], image.shape[1] - window[3], window[2], image.shape[1] - window[1])
    if augmentation is not None:
        rng = np.random.default_rng(np.random.randint(2**31))
        image, masks, _ = apply_imgaug(image, masks, np.zeros([masks.shape[2], 4]), augmentation, rng)
    alive = masks.any(axis=(0, 1))  # small instances may have lost their pixels
    masks, class_ids = masks[:, :, alive], sample.class_ids[alive]
    boxes = extract_bboxes(masks)
    if use_mini_mask:
        masks = minimize_mask(boxes, masks, config.MINI_MASK_SHAPE)
    active = active_classes(dataset, dataset.image_info[image_id]["source"], config.NUM_CLASSES)
    meta = compose_image_meta(image_id, original_shape, image.shape, window, scale, active)
    return image, meta, class_ids, boxes, masks


def _resized(
    image: np.ndarray, masks: np.ndarray, config: Config
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[float, float]]:
    """image, masks, window and scale at the size that training uses."""
    min_dim, max_dim = config.IMAGE_MIN_DIM, config.IMAGE_MAX_DIM
    if config.IMAGE_RESIZE_MODE != "fit":
        image, window, scale, padding, crop = resize_image(
            image, min_dim=min_dim, max_dim=max_dim, min_scale=config.IMAGE_MIN_SCALE, mode=config.IMAGE_RESIZE_MODE
        )
        return image, resize_mask(masks, scale, padding, crop), window, scale
    scale = base_scale(*image.shape[:2], mode="fit", min_dim=min_dim, max_dim=max_dim)
    image, _ = fit_image(image, min_dim, max_dim)
    height, width = image.shape[:2]
    side = canvas_side(max_dim, config.SIZE_DIVISOR)
    fitted = np.zeros([masks.shape[2], side, side], bool)
    for i, mask in enumerate(fitted):
        pixels = np.ascontiguousarray(masks[:, :, i]).view(np.uint8)
        mask[:height, :width] = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_NEAREST)
    return pad_to(image, side, side), np.moveaxis(fitted, 0, 2), (0, 0, height, width), scale


def compose_image_meta(image_id, original_image_shape, image_shape, window, scale, active_class_ids) -> np.ndarray:
    """One vector about an image, in the old package's order.

    Returns:
        [1 + 3 + 3 + 4 + 1 + classes] float64: image id, shape before and after resizing, window (y1, x1, y2, x2),
        scale, and 1 for every class that the image's source knows.
    """
    return np.array([image_id, *original_image_shape, *image_shape, *window, scale, *active_class_ids], np.float64)


def parse_image_meta(meta: np.ndarray) -> dict[str, np.ndarray]:
    """The parts of metas [B, length], by name."""
    meta = np.asarray(meta)
    return {
        "image_id": meta[:, 0].astype(np.int32),
        "original_image_shape": meta[:, 1:4].astype(np.int32),
        "image_shape": meta[:, 4:7].astype(np.int32),
        "window": meta[:, 7:11].astype(np.int32),
        "scale": meta[:, 11].astype(np.float32),
        "active_class_ids": meta[:, 12:].astype(np.int32),
    }


def log(text: str, array: np.ndarray | None = None) -> None:
    """Prints a text, and of an array its shape, least and largest value and type."""
    if array is not None:
        array = np.asarray(array)
        values = f"min: {array.min():10.5f}  max: {array.max():10.5f}" if array.size else "empty"
        text = f"{text:25} shape: {str(array.shape):20} {values}  {array.dtype}"
    print(text)

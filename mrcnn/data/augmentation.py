"""Augmentation of an image with its masks, boxes and keypoints, at the image's own resolution.

All randomness comes from one NumPy generator, so the result does not depend on the thread.
"""

import threading
from typing import Any, NamedTuple

import cv2
import numpy as np

from mrcnn.data.keypoints import MovedKeypoints, inside
from mrcnn.data.masks import extract_bboxes

# While it augments, imgaug switches a global variable (whether random numbers are drawn ahead) and resets it. Two
# threads at once would draw different numbers, and might leave it switched for all later augmenters.
_IMGAUG = threading.Lock()


class Augmented(NamedTuple):
    """An augmented image.

    image: [h, w, C] uint8. masks: [h, w, n] bool. boxes: [n, (y1, x1, y2, x2)] float64. kept: [n] int, indices of the
    remaining instances. zoom: factor for the input transform's scale (large-scale jitter, else 1). keypoints: [n, K,
    (y, x, visibility)] float64, if there are any; those that left the image are not labeled.
    """

    image: np.ndarray
    masks: np.ndarray
    boxes: np.ndarray
    kept: np.ndarray
    zoom: float
    keypoints: np.ndarray | None = None


def augment(
    image: np.ndarray,
    masks: np.ndarray,
    boxes: np.ndarray,
    rng: np.random.Generator,
    *,
    flip: float = 0.5,
    scale_jitter: tuple[float, float] | None = None,
    photometric: bool = False,
    imgaug: Any = None,
    view: tuple[float, float] | None = None,
    show: np.ndarray | tuple[int, ...] = (),
    keypoints: np.ndarray | None = None,
    mirrored: np.ndarray | None = None,
) -> Augmented:
    """Augments an image with its instances.

    Args:
        image: [H, W, C] uint8.
        masks: [H, W, N] bool.
        boxes: [N, (y1, x1, y2, x2)] float, pixels of the image.
        rng: the only source of randomness.
        flip: probability of a horizontal flip, x -> W - x.
        scale_jitter: (low, high) of large-scale jitter (Ghiasi et al. 2021), uniform in scale as in Detectron2.
        photometric: distort brightness, contrast, saturation and hue (Liu et al. 2016, SSD).
        imgaug: an imgaug augmenter; geometric augmenters also transform the masks, others only the image.
        view: (height, width) in image pixels that fits the network input at zoom 1; larger images are cropped at a
            random position to that size divided by the zoom. None: the image's own size.
        show: indices of instances, at least one of which must be partly visible in the crop.
        keypoints: [N, K, (y, x, visibility)] float, pixels of the image.
        mirrored: [K] int, for each keypoint the one that takes its place in a mirrored image.

    Returns:
        Augmented. Instances without remaining pixels are dropped; boxes of clipped instances are computed from masks.
    """
    kept = np.arange(masks.shape[2])
    boxes = np.asarray(boxes, np.float64)
    points = None if keypoints is None else MovedKeypoints(keypoints, mirrored)
    if imgaug is not None:
        image, masks, boxes = apply_imgaug(image, masks, boxes, imgaug, rng, points)
    zoom = float(rng.uniform(*scale_jitter)) if scale_jitter else 1.0
    tall, wide = view or image.shape[:2]
    size = min(image.shape[0], max(1, int(tall / zoom))), min(image.shape[1], max(1, int(wide / zoom)))
    if size != image.shape[:2]:
        image, masks, boxes = crop_randomly(image, masks, boxes, size, rng, show, points)
    if rng.random() < flip:
        image, masks, boxes = flip_horizontally(image, masks, boxes)
        if points is not None:
            points.mirror(image.shape[1])
    if photometric:
        image = distort(image, rng)
    alive = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    if not alive.all():
        masks, boxes, kept = masks[:, :, alive], boxes[alive], kept[alive]
    moved = None if points is None else inside(points.values, *image.shape[:2])[kept]
    return Augmented(image, masks, boxes, kept, zoom, moved)


def flip_horizontally(
    image: np.ndarray, masks: np.ndarray, boxes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mirrors x: reverses pixel columns, and box edge x becomes W - x."""
    y1, x1, y2, x2 = boxes.T
    width = image.shape[1]
    # The image is read repeatedly from here on, so it is flipped in memory; of the masks, only the boxes are read
    image = cv2.flip(image, 1).reshape(image.shape)
    return image, masks[:, ::-1], np.stack([y1, width - x2, y2, width - x1], axis=1)


def crop_randomly(
    image: np.ndarray,
    masks: np.ndarray,
    boxes: np.ndarray,
    size: tuple[int, int],
    rng: np.random.Generator,
    show: np.ndarray | tuple[int, ...] = (),
    points: MovedKeypoints | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Crops a random part of `size` (rows, columns); boxes cut by its border are recomputed from the remaining mask.

    `points` move along. Instances without pixels in the part get a box of zeros. If the part shows none of the
    instances in `show`, it is moved to contain a random pixel of one of them.
    """
    (height, width), (tall, wide) = image.shape[:2], size
    top, left = int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1))
    visible = [i for i in show if masks[:, :, i].any()]
    if visible and not any(masks[top : top + tall, left : left + wide, i].any() for i in visible):
        pixels = np.argwhere(masks[:, :, visible[int(rng.integers(len(visible)))]])
        y, x = pixels[int(rng.integers(len(pixels)))]
        top = int(rng.integers(max(0, y - tall + 1), min(y, height - tall) + 1))
        left = int(rng.integers(max(0, x - wide + 1), min(x, width - wide) + 1))
    image, masks = image[top : top + tall, left : left + wide], masks[top : top + tall, left : left + wide]
    if points is not None:
        points.shift(-top, -left)
    moved = boxes - np.array([top, left, top, left])
    whole = (moved[:, :2] >= 0).all(axis=1) & (moved[:, 2:] <= size).all(axis=1)
    return image, masks, np.where(whole[:, None], moved, extract_bboxes(masks))


def distort(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Photometric distortion of an RGB uint8 image, with SSD's ranges; each step has probability 0.5."""
    if image.shape[2] != 3:
        raise ValueError(
            f"photometric distortion needs RGB, got an image with {image.shape[2]} channels; "
            "set PHOTOMETRIC_DISTORTION to False"
        )
    use = rng.random(5) < 0.5
    brightness, contrast = rng.uniform(-32, 32), rng.uniform(0.5, 1.5)
    saturation, hue = rng.uniform(0.5, 1.5), rng.uniform(-18, 18)
    pixels = image.astype(np.float32)
    if use[0]:
        pixels += np.float32(brightness)
    if use[1] and use[4]:  # contrast before or after color, with equal probability
        pixels *= np.float32(contrast)
    if use[2] or use[3]:
        hsv = cv2.cvtColor(np.clip(pixels, 0, 255) / np.float32(255), cv2.COLOR_RGB2HSV)
        if use[2]:
            hsv[..., 1] = np.clip(hsv[..., 1] * saturation, 0, 1)
        if use[3]:
            hsv[..., 0] = (hsv[..., 0] + hue) % 360
        pixels = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * np.float32(255)
    if use[1] and not use[4]:
        pixels *= np.float32(contrast)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def apply_imgaug(
    image: np.ndarray,
    masks: np.ndarray,
    boxes: np.ndarray,
    augmenter: Any,
    rng: np.random.Generator,
    points: MovedKeypoints | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Applies an imgaug augmenter to image and masks alike; boxes are recomputed from masks that changed.

    Each call works on a copy of the augmenter, seeded from `rng`; the augmenter itself does not change. Calls from
    several threads wait for one another. Masks are passed as segmentation maps that store eight instances per byte;
    geometric augmenters move them without interpolation. `points` move along, and left and right are
    swapped if the augmenter mirrors the image.
    """
    size, count, seed = image.shape, masks.shape[2], int(rng.integers(2**31))
    packed = _pack(masks)
    with _IMGAUG:
        own = augmenter.deepcopy()
        own.seed_(seed)
        own = own.to_deterministic()
        image = own.augment_image(np.ascontiguousarray(image))
        moved = _augment_maps(own, packed) if count else packed
        if points is not None:
            points.move(lambda places: _augment_places(own, places, size), size)
    if image.shape != size or moved.shape != packed.shape or image.dtype != np.uint8:
        raise ValueError(
            f"the augmenter {augmenter} changed an image of shape {size} to {image.shape}, "
            f"{image.dtype}; use augmenters that keep size and type (such as keep_size=True)"
        )
    if np.array_equal(packed, moved):
        return image, masks, boxes
    masks = _unpack(moved, count)
    return image, masks, extract_bboxes(masks).astype(np.float64)


def _augment_maps(augmenter: Any, maps: np.ndarray) -> np.ndarray:
    """[H, W, C] uint8 augmented as label maps, without interpolation."""
    from imgaug.augmentables.segmaps import SegmentationMapsOnImage

    maps = SegmentationMapsOnImage(maps, shape=maps.shape[:2])
    return augmenter.augment_segmentation_maps(maps).get_arr().astype(np.uint8)


def _augment_places(augmenter: Any, places: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Places [P, (y, x)] in an image of `shape`, moved."""
    from imgaug.augmentables.kps import KeypointsOnImage

    points = KeypointsOnImage.from_xy_array(places[:, ::-1], shape=shape)
    return augmenter.augment_keypoints(points).to_xy_array()[:, ::-1].astype(np.float64)


def _pack(masks: np.ndarray) -> np.ndarray:
    """Masks [H, W, N] bool as bits: [H, W, ceil(N / 8)] uint8."""
    height, width, count = masks.shape
    packed = np.zeros([-(-count // 8), height, width], np.uint8)
    for i in range(count):
        packed[i // 8] |= masks[:, :, i].view(np.uint8) << np.uint8(i % 8)
    return np.moveaxis(packed, 0, 2)


def _unpack(packed: np.ndarray, count: int) -> np.ndarray:
    """The inverse of `_pack`, one mask at a time in memory."""
    masks = np.empty([count, *packed.shape[:2]], bool)
    for i, mask in enumerate(masks):
        np.not_equal(packed[:, :, i // 8] & np.uint8(1 << i % 8), 0, out=mask)
    return np.moveaxis(masks, 0, 2)

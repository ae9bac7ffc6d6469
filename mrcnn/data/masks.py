"""Masks: their boxes, and cropping them to boxes. `mrcnn.data.pasting` is the way back.

Pixel x covers [x, x + 1) and a box covers [x1, x2), so a mask starts and ends exactly at its box.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np


def extract_bboxes(mask: np.ndarray) -> np.ndarray:
    """Tight boxes of masks.

    Args:
        mask: [H, W, N], nonzero inside.

    Returns:
        [N, (y1, x1, y2, x2)] int32, end-exclusive; zeros for a mask without pixels.
    """
    mask = np.asarray(mask)
    _check_stack(mask)
    boxes = np.zeros([mask.shape[-1], 4], np.int32)
    for i in range(mask.shape[-1]):
        rows = np.flatnonzero(mask[:, :, i].any(axis=1))
        if rows.size:
            y1, y2 = rows[0], rows[-1] + 1
            columns = np.flatnonzero(mask[y1:y2, :, i].any(axis=0))
            boxes[i] = y1, columns[0], y2, columns[-1] + 1
    return boxes


def crop_masks(masks: np.ndarray, boxes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Crops each mask to its box, resampled once to `shape`.

    Mini-mask pixel j covers the fraction [j / m, (j + 1) / m) of the box. Its value is the mean of the mask over that
    interval, or over one pixel around its center if the interval is shorter: area averaging when the mask shrinks,
    bilinear interpolation when it grows. Outside the image, the nearest pixel is used.

    Args:
        masks: [H, W, N] bool.
        boxes: [N, (y1, x1, y2, x2)] in mask pixels, any floats; boxes without area give zeros.
        shape: (rows, columns) of the crops.

    Returns:
        [N, rows, columns] uint8, 0 to 255.
    """
    masks, boxes = np.asarray(masks), np.asarray(boxes, np.float64)
    _check_stack(masks)
    if boxes.shape != (masks.shape[2], 4):
        raise ValueError(f"expected boxes of shape {(masks.shape[2], 4)} for {masks.shape[2]} masks, got {boxes.shape}")
    crops = np.zeros([len(boxes), *shape], np.uint8)
    for i, (y1, x1, y2, x2) in enumerate(boxes.tolist()):
        if y2 > y1 and x2 > x1:
            rows = _averaging_windows(y1, y2, shape[0], masks.shape[0])
            columns = _averaging_windows(x1, x2, shape[1], masks.shape[1])
            crops[i] = np.rint(255 * _window_means(masks[:, :, i], rows, columns))
    return crops


def whole_masks(masks: np.ndarray, window: np.ndarray, scale: tuple[float, float], size: tuple[int, int]) -> np.ndarray:
    """Masks at the size of the network input, resampled once, one bit per pixel.

    Args:
        masks: [H, W, N] bool, at the size of the image.
        window: (y1, x1, y2, x2) of the image in the network input, in its pixels.
        scale: (y, x), pixels of the network input per pixel of the image.
        size: (height, width) of the network input, the width a multiple of 8.

    Returns:
        [N, height, width / 8] uint8; bit 7 of the first byte is the first pixel. A pixel belongs to a mask that
        covers at least half of it.
    """
    height, width = size
    packed = np.zeros([masks.shape[2], height, width // 8], np.uint8)
    offset, scales = np.tile(window[:2], 2), np.tile(scale, 2)
    for i, box in enumerate(extract_bboxes(masks) * scales + offset):
        y1, x1 = np.maximum(np.floor(np.maximum(box[:2], window[:2])), 0).astype(int)
        y2, x2 = np.minimum(np.ceil(np.minimum(box[2:], window[2:])), size).astype(int)
        if y2 > y1 and x2 > x1:
            part = (np.array([[y1, x1, y2, x2]]) - offset) / scales
            plane = np.zeros(size, bool)
            plane[y1:y2, x1:x2] = crop_masks(masks[:, :, i : i + 1], part, (y2 - y1, x2 - x1))[0] >= 128
            packed[i] = np.packbits(plane, axis=1)
    return packed


def _averaging_windows(start: float, end: float, count: int, size: int) -> np.ndarray:
    """[(from, to), count] intervals to average along one axis of a mask of `size` pixels."""
    step = (end - start) / count
    centers = start + (np.arange(count) + 0.5) * step
    centers = np.clip(centers, 0.5, size - 0.5)
    half = max(step, 1.0) / 2
    return np.stack([np.maximum(centers - half, 0), np.minimum(centers + half, size)])


def _window_means(mask: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Means of a mask over all rows x columns windows, from its summed-area table, to float32 precision."""
    top, left = int(rows[0, 0]), int(columns[0, 0])
    part = mask[top : math.ceil(rows[1, -1]), left : math.ceil(columns[1, -1])]
    table = cv2.integral(_plane(part))
    sums = _window_sums(table, rows - top)
    sums = _window_sums(np.ascontiguousarray(sums.T), columns - left).T
    heights, widths = (np.diff(windows, axis=0)[0].astype(np.float32) for windows in (rows, columns))
    return np.clip(sums / (heights[:, None] * widths), 0, 1)


def _plane(mask: np.ndarray) -> np.ndarray:
    """A mask [h, w] as uint8 for OpenCV; without a copy if its columns are contiguous."""
    if mask.dtype == bool and mask.strides[1] == 1:
        return mask.view(np.uint8)
    if mask.dtype == bool and mask.strides[1] == -1:  # flipped
        return cv2.flip(mask[:, ::-1].view(np.uint8), 1)
    return np.ascontiguousarray(mask, dtype=bool).view(np.uint8)


def _window_sums(table: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Sums [count, k] over `windows` [(from, to), count], from cumulative sums `table` [size + 1, k].

    The table is linear between pixel borders, so fractions of a pixel are interpolated. Whole pixels and fractions are
    subtracted separately, to keep float32 precision.
    """
    starts, ends = windows
    if (ends - starts).max() < 1 + 1e-9:  # all one pixel long: interpolation between neighbors
        pixels = np.diff(table, axis=0)
        low, share = _split(starts, len(pixels) - 1)
        pixel = pixels.take(low, axis=0)
        step = pixels.take(np.minimum(low + 1, len(pixels) - 1), axis=0) - pixel
        return np.add(pixel, np.multiply(step, share, dtype=np.float32), dtype=np.float32)
    shared = np.abs(starts[1:] - ends[:-1]).max(initial=0) < 1e-6  # each starts where the previous one ends
    borders = np.append(starts, ends[-1]) if shared else windows.T.ravel()
    low, share = _split(borders, len(table) - 2)
    whole = table.take(low, axis=0)
    rest = np.multiply(table.take(low + 1, axis=0) - whole, share, dtype=np.float32)
    return np.add(np.diff(whole, axis=0), np.diff(rest, axis=0), dtype=np.float32)[:: 1 if shared else 2]


def _split(positions: np.ndarray, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Integer part [n] (at most `last`) and fraction [n, 1] float32 of positions."""
    low = np.minimum(positions.astype(np.intp), last)
    return low, (positions - low).astype(np.float32)[:, None]


def minimize_mask(bbox: np.ndarray, mask: np.ndarray, mini_shape: tuple[int, int]) -> np.ndarray:
    """Crops masks [H, W, N] to integer boxes, as the old package does, at `mini_shape`: [height, width, N] bool.

    Raises:
        ValueError: a box has no area.
    """
    mini = np.zeros([*mini_shape, mask.shape[-1]], bool)
    for i, (y1, x1, y2, x2) in enumerate(np.asarray(bbox)[:, :4].astype(int).tolist()):
        part = mask[y1:y2, x1:x2, i].astype(bool)
        if part.size == 0:
            raise ValueError(f"mask {i} has box {(y1, x1, y2, x2)}, which has no area; drop empty instances first")
        mini[:, :, i] = np.around(_resize(part, mini_shape)).astype(bool)
    return mini


def expand_mask(bbox: np.ndarray, mini_mask: np.ndarray, image_shape: Sequence[int]) -> np.ndarray:
    """The inverse of `minimize_mask`, up to its loss: mini masks [m, m, N] to [H, W, N] bool."""
    mask = np.zeros([*image_shape[:2], mini_mask.shape[-1]], bool)
    for i, (y1, x1, y2, x2) in enumerate(np.asarray(bbox)[:, :4].astype(int).tolist()):
        mask[y1:y2, x1:x2, i] = np.around(_resize(mini_mask[:, :, i], (y2 - y1, x2 - x1))).astype(bool)
    return mask


def unmold_mask(mask: np.ndarray, bbox: np.ndarray, image_shape: Sequence[int]) -> np.ndarray:
    """Pastes a mask of probabilities [m, m] at its integer box into an empty [H, W] bool, as the old package does.

    `mrcnn.data.pasting.paste_masks` is the precise way; this one reproduces results of the old package.
    """
    y1, x1, y2, x2 = (int(v) for v in bbox)
    full = np.zeros(image_shape[:2], bool)
    full[y1:y2, x1:x2] = _resize(mask, (y2 - y1, x2 - x1)) >= 0.5
    return full


def _resize(image: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    from mrcnn.data.resize import resize_exactly

    return resize_exactly(image, shape)


def _check_stack(masks: np.ndarray) -> None:
    if masks.ndim != 3:
        raise ValueError(
            f"expected masks of shape [H, W, N], got {masks.shape}; pass a single mask as mask[:, :, None]"
        )

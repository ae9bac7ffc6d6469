"""From heatmaps to keypoints (Detectron2's heatmaps_to_keypoints)."""

import cv2
import numpy as np

MIN_KEYPOINT = 0.05  # score from which a keypoint is drawn (Detectron2's)
CHANNELS = 4  # heatmaps that are upsampled at a time


def decode_heatmaps(heatmaps: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The maximum of each heatmap, upsampled bicubically to the pixels of its box.

    Args:
        heatmaps: [N, m, m, K] logits of K keypoints in each of m x m cells of a box.
        boxes: [N, (y1, x1, y2, x2)] in pixels of the network input.

    Returns:
        [N, K, (y, x, score)] float32, pixels of the network input. A score is the probability of the most likely cell:
        the softmax over the cells of the heatmap, not of the upsampled one, so that it does not depend on the size of
        the box. The upsampled peak may exceed all cells, and a score then 1.
    """
    keypoints = np.zeros((len(heatmaps), heatmaps.shape[-1], 3), np.float32)
    for i, (maps, box) in enumerate(zip(np.asarray(heatmaps, np.float32), np.asarray(boxes, np.float32), strict=True)):
        sides = np.maximum(box[2:] - box[:2], 1)
        height, width = np.ceil(sides).astype(int).tolist()
        peaks, places = _peaks(maps, height, width)
        rows, columns = np.divmod(places, width)
        cells = np.stack([rows, columns], axis=1).astype(np.float32) + 0.5
        keypoints[i, :, :2] = box[:2] + cells * (sides / np.array([height, width], np.float32))
        keypoints[i, :, 2] = 1 / np.exp(maps - peaks).sum(axis=(0, 1))
    return keypoints


def _peaks(maps: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Maximum [K] and its place [K] of each of [m, m, K] in height x width pixels, row by row."""
    peaks, places = [], []
    for start in range(0, maps.shape[-1], CHANNELS):
        part = np.ascontiguousarray(maps[..., start : start + CHANNELS])
        large = cv2.resize(part, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height * width, -1)
        place = large.argmax(axis=0)
        places.append(place)
        peaks.append(np.take_along_axis(large, place[None], axis=0)[0])
    return np.concatenate(peaks), np.concatenate(places)

"""Draws results into an image's pixels, fast enough for videos and folders, without matplotlib figures."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from mrcnn.data.keypoints import MIN_KEYPOINT
from mrcnn.inference.results import Crop, Result
from mrcnn.pictures.colors import Color, random_colors, text_color

ALPHA = 0.45  # opacity of the color in a tinted pixel
LONGEST_LABEL = 60  # characters


def draw_result(
    image: np.ndarray,
    result: Result,
    *,
    labels: Sequence[str] | None = None,
    colors: Sequence[Color] | None = None,
    boxes: bool = True,
) -> np.ndarray:
    """A copy of an image with its instances' masks, boxes, keypoints and labels, the most confident ones on top.

    Args:
        image: [H, W, 3] uint8, of the result's size.
        labels: a text per instance, empty for none; None: class name and score.
        colors: (red, green, blue) in 0..1 per instance; None: easily distinguished colors, in order of the instances.
        boxes: also draw the boxes.

    Raises ValueError if the image has another size, or labels or colors differ in number from the instances.
    """
    if image.shape != (*result.size, 3) or image.dtype != np.uint8:
        raise ValueError(f"expected uint8 [{result.size[0]}, {result.size[1]}, 3], got {image.dtype} {image.shape}")
    labels = default_labels(result) if labels is None else labels
    colors = random_colors(result.count) if colors is None else colors
    if not len(labels) == len(colors) == result.count:
        raise ValueError(f"got {len(labels)} labels and {len(colors)} colors for {result.count} instances")
    image = np.ascontiguousarray(image).copy()
    thickness = line_thickness(result.size)
    order = range(result.count - 1, -1, -1)
    crops, rois = result.crops, result.pixel_rois.tolist()
    for i in order:
        _tint(image, crops[i], colors[i], thickness)
    for i in order:
        if boxes:
            y1, x1, y2, x2 = rois[i]
            cv2.rectangle(image, (x1, y1), (max(x2 - 1, x1), max(y2 - 1, y1)), _bytes(colors[i]), thickness)
        if result.keypoints is not None:
            edges = result.skeleton.edges if result.skeleton else ()
            _draw_keypoints(image, result.keypoints[i], edges, _bytes(colors[i]), thickness)
        if labels[i]:
            draw_label(image, labels[i], rois[i][0], rois[i][1], colors[i])
    return image


def default_labels(result: Result) -> list[str]:
    """Class name and score of each instance."""
    return [f"{name} {score:.2f}" for name, score in zip(result.names, result.scores.tolist(), strict=True)]


def line_thickness(size: tuple[int, int]) -> int:
    """Line width in pixels that is visible on an image of (height, width) shown on a screen."""
    return max(1, round(max(size) / 800))


def draw_label(image: np.ndarray, text: str, top: int, left: int, color: Color) -> None:
    """Writes a text into an image [H, W, 3] uint8, with its upper left corner at (top, left) if it fits there."""
    height, width = image.shape[:2]
    label = _label(text[:LONGEST_LABEL], round(min(max(11, max(height, width) / 70), 60)), color)[:height, :width]
    top = max(0, min(top, height - label.shape[0]))
    left = max(0, min(left, width - label.shape[1]))
    image[top : top + label.shape[0], left : left + label.shape[1]] = label


def _draw_keypoints(
    image: np.ndarray,
    keypoints: np.ndarray,
    edges: Sequence[tuple[int, int]],
    color: tuple[int, int, int],
    thickness: int,
) -> None:
    """Draws keypoints [K, (y, x, score)], those with a score from `MIN_KEYPOINT` on, and lines between them."""
    seen, part = keypoints[:, 2] >= MIN_KEYPOINT, 16
    # OpenCV has the center of the first pixel at 0; in sixteenths of a pixel
    points = np.rint((keypoints[:, [1, 0]] - 0.5) * part).astype(int).tolist()
    for one, other in edges:
        if seen[one] and seen[other]:
            cv2.line(image, points[one], points[other], color, 2 * thickness, cv2.LINE_AA, part.bit_length() - 1)
    for point in (point for point, drawn in zip(points, seen, strict=True) if drawn):
        for radius, shade in ((3 * thickness + 1, (255, 255, 255)), (3 * thickness, color)):
            cv2.circle(image, point, radius * part, shade, -1, cv2.LINE_AA, part.bit_length() - 1)


def _tint(image: np.ndarray, crop: Crop, color: Color, thickness: int) -> None:
    """Blends a color into the pixels of a mask, and draws its outline."""
    mask, top, left = crop
    if not mask.any():
        return
    part = image[top : top + mask.shape[0], left : left + mask.shape[1]]
    tint = np.array(_bytes(color), np.float32)
    part[mask] = np.rint(part[mask] * (1 - ALPHA) + tint * ALPHA).astype(np.uint8)
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(image, outlines, -1, _bytes(color), thickness, offset=(left, top))


@lru_cache(maxsize=512)
def _label(text: str, size: int, color: Color) -> np.ndarray:
    """The text on a background of the color, [h, w, 3] uint8."""
    from PIL import Image, ImageDraw

    font = _font(size)
    left, top, right, bottom = font.getbbox(text)
    pad = max(2, size // 6)
    image = Image.new("RGB", (int(right - left) + 2 * pad, int(bottom - top) + 2 * pad), _bytes(color))
    ImageDraw.Draw(image).text((pad - left, pad - top), text, fill=text_color(color), font=font)
    return np.asarray(image)


@lru_cache(maxsize=16)
def _font(size: int) -> Any:
    """DejaVu Sans, which comes with matplotlib and covers most alphabets."""
    import matplotlib
    from PIL import ImageFont

    try:
        return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)
    except OSError:
        return ImageFont.load_default(size)


def _bytes(color: Color) -> tuple[int, int, int]:
    red, green, blue = (round(255 * value) for value in color[:3])
    return red, green, blue

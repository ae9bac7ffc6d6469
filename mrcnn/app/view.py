"""Images and results reduced to the size of a screen, so that the page redraws in no time however large an image is."""

import cv2
import numpy as np

from mrcnn.data.rle import encode_parts
from mrcnn.inference.results import Crop, Result, SoftMasks


def reduced_image(image: np.ndarray, longest: int) -> np.ndarray:
    """An image [H, W, 3] uint8, shrunk where its longer side has more than `longest` pixels."""
    height, width = image.shape[:2]
    if max(height, width) <= longest:
        return image
    scale = longest / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def reduced_result(result: Result, size: tuple[int, int]) -> Result:
    """The same instances in an image of `size` (height, width)."""
    if size == result.size:
        return result
    factors = np.array([size[0] / result.size[0], size[1] / result.size[1]] * 2)
    rois = (np.asarray(result.rois, float).reshape(-1, 4) * factors).astype(np.float32)
    if result.soft is not None:
        probabilities, boxes = result.soft
        masks: SoftMasks | list = SoftMasks(probabilities, (boxes * factors).astype(np.float32))
    else:
        masks = encode_parts([_reduced_crop(crop, factors, size) for crop in result.crops], *size)
    reduced = Result(rois, result.class_ids, result.scores, masks, size, result.class_names)
    if result.keypoints is not None:
        reduced["keypoints"] = (result.keypoints * (*factors[:2], 1)).astype(np.float32)
        reduced.skeleton = result.skeleton
    return reduced


def _reduced_crop(crop: Crop, factors: np.ndarray, size: tuple[int, int]) -> Crop:
    """A mask at another scale, of at least a pixel where it has any."""
    if not crop.mask.any():
        return Crop(np.zeros((0, 0), bool), 0, 0)
    height, width = crop.mask.shape
    corners = np.array([crop.top, crop.left, crop.top + height, crop.left + width]) * factors
    top, left = np.minimum(np.floor(corners[:2]).astype(int), np.array(size) - 1)
    bottom, right = np.maximum(np.rint(corners[2:]).astype(int), (top + 1, left + 1))
    share = cv2.resize(crop.mask.astype(np.float32), (right - left, bottom - top), interpolation=cv2.INTER_AREA)
    return Crop(share >= min(0.5, float(share.max())), int(top), int(left))

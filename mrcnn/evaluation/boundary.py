"""Boundary IoU and Boundary AP: how well masks agree along their edges (Cheng et al. 2021, arXiv 2103.16562).

The boundary of a mask is its pixels within d of the outside, where d is 2% of the image's diagonal; beyond the image's
edge counts as outside. The overlap of two masks is the lesser of mask IoU and boundary IoU; for a detection in a crowd,
the mask overlap. The rest is COCO's protocol. Details as in the authors' implementation (boundary-iou-api): d is
rounded to whole pixels, at least 1; a distance is the larger of its rows and columns.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from mrcnn.data import rle

RATIO = 0.02
LEAST_IOU = 0.5  # COCO's lowest threshold


def boundary_width(height: int, width: int, ratio: float = RATIO) -> int:
    """Pixels between the edge of a mask and the inner end of its boundary, in an image of height x width."""
    if not ratio > 0:
        raise ValueError(f"ratio={ratio}; it must be above 0: boundary width as a fraction of the image's diagonal")
    return max(1, round(ratio * math.hypot(height, width)))


def mask_boundary(mask: np.ndarray, ratio: float = RATIO) -> np.ndarray:
    """The pixels of a mask [H, W] within `ratio` * image diagonal of the outside, [H, W] bool."""
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise ValueError(f"expected one mask [H, W], got shape {mask.shape}")
    height, width = mask.shape
    return _without_inside(mask != 0, boundary_width(height, width, ratio))


def rle_boundary(runs: Mapping[str, Any], ratio: float = RATIO) -> rle.Rle:
    """The boundary of a mask in run lengths, as run lengths; only the box around the mask is decoded."""
    size = rle.rle_size(runs)
    part, (y1, x1, _, _) = rle.decode_box(runs)
    # Use columns as rows, the memory order of run lengths: the boundary is the same
    edge = _without_inside(part.T, boundary_width(*size, ratio)).T
    return rle.encode_box(edge, y1, x1, *size)


def boundary_iou(mask1: np.ndarray, mask2: np.ndarray, ratio: float = RATIO) -> float:
    """IoU of the boundaries of two masks [H, W], 0..1; 0 if both are empty."""
    if np.shape(mask1) != np.shape(mask2):
        raise ValueError(f"the masks have different shapes, {np.shape(mask1)} and {np.shape(mask2)}")
    edge1, edge2 = mask_boundary(mask1, ratio), mask_boundary(mask2, ratio)
    union = int((edge1 | edge2).sum())
    return int((edge1 & edge2).sum()) / union if union else 0.0


def boundary_overlaps(
    found: Sequence[Mapping[str, Any]],
    truth: Sequence[Mapping[str, Any]],
    crowd: Sequence[int],
    ratio: float = RATIO,
    least: float = LEAST_IOU,
) -> np.ndarray:
    """The lesser of mask IoU and boundary IoU of run lengths, [found, truth]; for crowds COCO's mask overlap.

    Values of `least` or more are exact. Smaller ones, which COCO's protocol ignores, may be the mask IoU to save time.
    """
    from pycocotools import mask as coco_mask

    overlaps = np.array(coco_mask.iou(list(found), list(truth), list(crowd)), np.float64)
    if not overlaps.size:
        return overlaps.reshape(len(found), len(truth))
    close = (overlaps >= least) & (np.asarray(crowd) == 0)
    rows, columns = np.flatnonzero(close.any(axis=1)), np.flatnonzero(close.any(axis=0))
    if len(rows):
        edges = [
            [rle_boundary(masks[i], ratio) for i in chosen.tolist()]
            for masks, chosen in ((found, rows), (truth, columns))
        ]
        between = coco_mask.iou(*edges, [0] * len(columns))
        place = np.ix_(rows, columns)
        overlaps[place] = np.minimum(overlaps[place], between)
    return overlaps


@functools.cache
def boundary_evaluation() -> type:
    """pycocotools' COCOeval with `boundary_overlaps`, for the kind "segm"."""
    from pycocotools.cocoeval import COCOeval

    class BoundaryEval(COCOeval):
        def computeIoU(self, imgId: int, catId: int) -> Any:
            truth, found = self._gts[imgId, catId], self._dts[imgId, catId]
            if not truth or not found:
                return []
            order = np.argsort([-d["score"] for d in found], kind="mergesort")[: self.params.maxDets[-1]]
            return boundary_overlaps(
                [found[i]["segmentation"] for i in order],
                [g["segmentation"] for g in truth],
                [int(g["iscrowd"]) for g in truth],
                least=float(np.min(self.params.iouThrs)),
            )

    return BoundaryEval


def _without_inside(mask: np.ndarray, width: int) -> np.ndarray:
    """The pixels of a mask [H, W] bool within `width` of a pixel outside the mask or its array."""
    if min(mask.shape) <= 2 * width:  # no pixel is farther inside
        return mask
    # Add a frame of outside pixels, because erosion treats everything beyond the array as inside
    framed = cv2.copyMakeBorder(np.ascontiguousarray(mask).view(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    inside = cv2.erode(framed, np.ones((2 * width + 1, 2 * width + 1), np.uint8))[1:-1, 1:-1]
    return mask & (inside == 0)

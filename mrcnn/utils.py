"""The old package's names for data, boxes, overlaps and matches, and `load_dataset`.

Each is imported from the module that defines it. `mrcnn.legacy.names` lists what differs from the old package.
"""

from typing import Any

from mrcnn.data.dataset import Dataset
from mrcnn.data.formats import load_dataset
from mrcnn.data.masks import expand_mask, extract_bboxes, minimize_mask, unmold_mask
from mrcnn.evaluation.matching import compute_ap, compute_ap_range, compute_matches, compute_recall, trim_zeros
from mrcnn.evaluation.overlaps import compute_iou, compute_overlaps, compute_overlaps_masks
from mrcnn.legacy import names
from mrcnn.legacy.anchors import generate_anchors, generate_pyramid_anchors
from mrcnn.legacy.boxes import (
    apply_box_deltas,
    batch_slice,
    box_refinement,
    box_refinement_graph,
    denorm_boxes,
    non_max_suppression,
    norm_boxes,
)
from mrcnn.legacy.resize import resize, resize_image, resize_mask
from mrcnn.legacy.weights import COCO_MODEL_URL, download_trained_weights

__all__ = [
    "COCO_MODEL_URL",
    "Dataset",
    "apply_box_deltas",
    "batch_slice",
    "box_refinement",
    "box_refinement_graph",
    "compute_ap",
    "compute_ap_range",
    "compute_iou",
    "compute_matches",
    "compute_overlaps",
    "compute_overlaps_masks",
    "compute_recall",
    "denorm_boxes",
    "download_trained_weights",
    "expand_mask",
    "extract_bboxes",
    "generate_anchors",
    "generate_pyramid_anchors",
    "load_dataset",
    "minimize_mask",
    "non_max_suppression",
    "norm_boxes",
    "resize",
    "resize_image",
    "resize_mask",
    "trim_zeros",
    "unmold_mask",
]


def __getattr__(name: str) -> Any:
    return names.find(__name__, name)

"""The old package's names for data, overlaps and matches, and `load_dataset`; each is written in the module that it is
imported from.
"""

from mrcnn.data.dataset import Dataset
from mrcnn.data.formats import load_dataset
from mrcnn.data.masks import expand_mask, extract_bboxes, minimize_mask, unmold_mask
from mrcnn.data.resize import resize_image, resize_mask
from mrcnn.evaluation.matching import compute_ap, compute_ap_range, compute_matches, compute_recall, trim_zeros
from mrcnn.evaluation.overlaps import compute_iou, compute_overlaps, compute_overlaps_masks

__all__ = [
    "Dataset",
    "compute_ap",
    "compute_ap_range",
    "compute_iou",
    "compute_matches",
    "compute_overlaps",
    "compute_overlaps_masks",
    "compute_recall",
    "expand_mask",
    "extract_bboxes",
    "load_dataset",
    "minimize_mask",
    "resize_image",
    "resize_mask",
    "trim_zeros",
    "unmold_mask",
]

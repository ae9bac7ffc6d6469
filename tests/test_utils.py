"""mrcnn.utils: a script of the old package's finds its names, and importing them starts no backend."""

import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np

from mrcnn import utils

# Name and leading parameters, as scripts written for the old package pass them by position
OLD = {
    "compute_ap": "gt_boxes gt_class_ids gt_masks pred_boxes pred_class_ids pred_scores pred_masks iou_threshold",
    "compute_ap_range": "gt_box gt_class_id gt_mask pred_box pred_class_id pred_score pred_mask iou_thresholds verbose",
    "compute_iou": "box boxes box_area boxes_area",
    "compute_matches": "gt_boxes gt_class_ids gt_masks pred_boxes pred_class_ids pred_scores pred_masks iou_threshold "
    "score_threshold",
    "compute_overlaps": "boxes1 boxes2",
    "compute_overlaps_masks": "masks1 masks2",
    "compute_recall": "pred_boxes gt_boxes iou",
    "expand_mask": "bbox mini_mask image_shape",
    "extract_bboxes": "mask",
    "minimize_mask": "bbox mask mini_shape",
    "resize_image": "image min_dim max_dim min_scale mode",
    "resize_mask": "mask scale padding crop",
    "trim_zeros": "x",
    "unmold_mask": "mask bbox image_shape",
}


def test_old_names_take_old_arguments():
    assert {*OLD, "Dataset", "load_dataset"} == set(utils.__all__)
    for name, parameters in OLD.items():
        assert list(inspect.signature(getattr(utils, name)).parameters) == parameters.split(), name


def test_a_dataset_measured_as_an_old_notebook_does():
    """The data part of its shapes notebook: a subclass, prepared, its masks resized, and scored against themselves."""

    class Stripes(utils.Dataset):
        def load_stripes(self):
            self.add_class("stripes", 1, "wide")
            self.add_image("stripes", image_id="a", path=None)

        def load_image(self, image_id):
            return np.zeros((40, 60, 3), np.uint8)

        def load_mask(self, image_id):
            masks = np.zeros((40, 60, 2), bool)
            masks[4:20, :30, 0] = masks[24:36, 10:, 1] = True
            return masks, np.array([1, 1], np.int32)

    dataset = Stripes()
    dataset.load_stripes()
    dataset.prepare()
    masks, class_ids = dataset.load_mask(0)
    image, window, scale, padding, crop = utils.resize_image(dataset.load_image(0), min_dim=64, max_dim=128)
    resized = utils.resize_mask(masks, scale, padding, crop)
    boxes = utils.extract_bboxes(resized)
    assert image.shape == (128, 128, 3) and resized.shape == (128, 128, 2) and window == (32, 16, 96, 112)
    small = utils.minimize_mask(boxes, resized, (28, 28))
    back = utils.expand_mask(boxes, small, image.shape)
    scores = np.array([0.9, 0.8])
    assert utils.compute_ap(boxes, class_ids, resized, boxes, class_ids, scores, back)[0] == 1.0
    assert utils.compute_overlaps_masks(resized, back).diagonal().min() > 0.9


def test_importing_is_light():
    heavy = ("keras", "tensorflow", "matplotlib", "skimage")
    code = f"import sys, mrcnn.utils; print([name for name in {heavy} if name in sys.modules])"
    root = Path(__file__).parents[1]
    ran = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"

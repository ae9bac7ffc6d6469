"""mrcnn.utils: a script of the old package's finds its names, and importing them starts no backend."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from mrcnn import utils
from mrcnn.legacy import names


def test_every_name_is_there():
    assert {*utils.__all__, "mold_mask"} == {"load_dataset", *names.UTILS}
    assert all(hasattr(utils, name) for name in utils.__all__)


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

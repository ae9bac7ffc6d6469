"""Small datasets made here, and the old package's results if they are available."""

import json
from pathlib import Path

import numpy as np
import pytest

from mrcnn.config import Config
from mrcnn.data.dataset import Dataset
from mrcnn.network.pixels import PixelScaling

ORACLES = Path(__file__).resolve().parents[3] / "shared" / "oracles"


@pytest.fixture(scope="session")
def matterport():
    """The arrays of the old package's helper functions."""
    path = ORACLES / "matterport" / "utils.npz"
    if not path.exists():
        pytest.skip(f"the old package's numbers are not at {path}")
    with np.load(path) as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def resize_meta(matterport):
    """Arguments and results (except images) of the old package's resizing."""
    return json.loads((ORACLES / "matterport" / "utils_resize_meta.json").read_text())


class Squares(Dataset):
    """Images of 40 x 60 pixels with `counts[i]` squares of 10 pixels each, side by side; gray value 10 * (i + 1)."""

    def __init__(self, counts, classes=("square",), crowds=()):
        super().__init__()
        self.crowds = crowds
        for number, name in enumerate(classes, 1):
            self.add_class("made", number, name)
        for number, count in enumerate(counts):
            self.add_image("made", image_id=f"made{number}", path=f"made/{number}.png", count=count)
        self.prepare()

    def load_image(self, image_id):
        return np.full([40, 60, 3], 10 * (image_id + 1), np.uint8)

    def load_mask(self, image_id):
        count = self.image_info[image_id]["count"]
        masks = np.zeros([40, 60, count], bool)
        for i in range(count):
            masks[20:30, 10 * i : 10 * i + 10, i] = True
        return masks, np.array([-1 if i in self.crowds else 1 for i in range(count)], np.int32)


@pytest.fixture
def squares():
    return Squares


@pytest.fixture
def config():
    """Small images at their own size, without flips."""

    def make(**settings):
        defaults = {
            "NAME": "test",
            "NUM_CLASSES": 2,
            "IMAGE_MIN_DIM": 64,
            "IMAGE_MAX_DIM": 64,
            "MINI_MASK_SHAPE": (4, 4),
            "MAX_GT_INSTANCES": 5,
            "HORIZONTAL_FLIP": 0,
            "LOADER_WORKERS": 1,
            "IMAGES_PER_GPU": 2,
        }
        return Config(**{**defaults, **settings})

    return make


@pytest.fixture
def scaling():
    return PixelScaling((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

"""docs/coming_from_matterport.md: its tables are complete and correct, and its code runs."""

import ast
import re

import numpy as np
import pytest

from mrcnn import presets
from mrcnn.config import Config
from mrcnn.legacy import names
from mrcnn.legacy.names import Kept
from tests.legacy import page

TEXT = page.PAGE.read_text()

# The old package's defaults (commit 3deaec5) of the settings that still exist.
OLD = {
    "GPU_COUNT": 1,
    "IMAGES_PER_GPU": 2,
    "STEPS_PER_EPOCH": 1000,
    "VALIDATION_STEPS": 50,
    "BACKBONE": "resnet101",
    "BACKBONE_STRIDES": [4, 8, 16, 32, 64],
    "FPN_CLASSIF_FC_LAYERS_SIZE": 1024,
    "TOP_DOWN_PYRAMID_SIZE": 256,
    "NUM_CLASSES": 1,
    "RPN_ANCHOR_SCALES": (32, 64, 128, 256, 512),
    "RPN_ANCHOR_RATIOS": [0.5, 1, 2],
    "RPN_ANCHOR_STRIDE": 1,
    "RPN_NMS_THRESHOLD": 0.7,
    "RPN_TRAIN_ANCHORS_PER_IMAGE": 256,
    "PRE_NMS_LIMIT": 6000,
    "POST_NMS_ROIS_TRAINING": 2000,
    "POST_NMS_ROIS_INFERENCE": 1000,
    "USE_MINI_MASK": True,
    "MINI_MASK_SHAPE": (56, 56),
    "IMAGE_RESIZE_MODE": "square",
    "IMAGE_MIN_DIM": 800,
    "IMAGE_MAX_DIM": 1024,
    "IMAGE_MIN_SCALE": 0,
    "IMAGE_CHANNEL_COUNT": 3,
    "MEAN_PIXEL": (123.7, 116.8, 103.9),
    "TRAIN_ROIS_PER_IMAGE": 200,
    "ROI_POSITIVE_RATIO": 0.33,
    "POOL_SIZE": 7,
    "MASK_POOL_SIZE": 14,
    "MAX_GT_INSTANCES": 100,
    "RPN_BBOX_STD_DEV": [0.1, 0.1, 0.2, 0.2],
    "BBOX_STD_DEV": [0.1, 0.1, 0.2, 0.2],
    "DETECTION_MAX_INSTANCES": 100,
    "DETECTION_MIN_CONFIDENCE": 0.7,
    "DETECTION_NMS_THRESHOLD": 0.3,
    "LEARNING_RATE": 0.001,
    "LEARNING_MOMENTUM": 0.9,
    "WEIGHT_DECAY": 0.0001,
    "TRAIN_BN": False,
    "GRADIENT_CLIP_NORM": 5.0,
}


@pytest.mark.parametrize("name", OLD)
def test_the_preset_has_the_old_default(name):
    np.testing.assert_array_equal(getattr(presets.Matterport(), name), OLD[name])


def test_every_changed_setting_has_a_meaning():
    assert set(page.changed_settings()) <= set(page.MEANING), "say what the setting is in tests/legacy/page.py"


def test_the_tables_are_those_of_the_code():
    assert page.filled(TEXT) == TEXT, "the page is out of date; run: python -m tests.legacy.page"


def test_each_line_brings_back_the_old_default():
    section = TEXT.split("<!-- table: settings -->")[1].split("<!-- end -->")[0]
    lines = re.findall(r"^\| `(\w+)` \|.*\| `(\w+ = .*)` \|$", section, re.MULTILINE)
    assert {name for name, _ in lines} == set(page.changed_settings()) and len(lines) > 30
    for name, line in lines:
        setting, _, value = line.partition(" = ")
        assert setting == name
        assert getattr(type("Old", (Config,), {name: ast.literal_eval(value)}), name) == getattr(
            presets.Matterport, name
        )


def test_every_name_has_a_row():
    for module, table in names.TABLE.items():
        section = TEXT.split(f"<!-- table: {module} -->")[1].split("<!-- end -->")[0]
        assert set(re.findall(r"^\| `([\w.]+)` \|", section, re.MULTILINE)) == set(table)


def test_lines_that_restore_are_code():
    for table in names.TABLE.values():
        for entry in table.values():
            if isinstance(entry, Kept) and entry.restore:
                assert ast.parse(entry.restore).body, entry


def test_the_class_of_the_page_has_every_old_default():
    (code,) = re.findall(r"```python\n(from mrcnn import presets.*?)```", TEXT, re.DOTALL)
    space = {}
    exec(code, space)
    config = space["CatConfig"]()
    assert (config.NAME, config.NUM_CLASSES, config.DETECTION_MIN_CONFIDENCE) == ("cats", 2, 0.7)

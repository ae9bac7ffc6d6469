"""Images as loaded and described by the old package's notebooks."""

import numpy as np
import pytest
from keras import ops

from mrcnn.legacy.images import (
    compose_image_meta,
    load_image_gt,
    log,
    mold_image,
    parse_image_meta,
    parse_image_meta_graph,
    unmold_image,
)
from mrcnn.presets import Matterport
from tests import oracles

PARTS = {
    "image_id": 7,
    "original_image_shape": [5, 6, 3],
    "image_shape": [64, 64, 3],
    "window": [1, 2, 3, 4],
    "scale": 0.5,
    "active_class_ids": [1, 0, 1],
}


def test_compose_image_meta_equals_the_old_package():
    meta = compose_image_meta(3, (150, 200, 3), (256, 256, 3), (32, 0, 224, 256), 1.28, [1, 1, 0, 1, 1])
    np.testing.assert_allclose(meta, oracles.load("matterport/utils.npz")["compose_image_meta"])


def test_parse_image_meta_reverses_compose():
    meta = compose_image_meta(7, (5, 6, 3), (64, 64, 3), (1, 2, 3, 4), 0.5, [1, 0, 1])[None]
    parts = parse_image_meta(meta)
    assert {name: value[0].tolist() for name, value in parts.items()} == PARTS
    assert {parts[name].dtype for name in PARTS} == {np.dtype("int32"), np.dtype("float32")}
    tensors = parse_image_meta_graph(ops.convert_to_tensor(meta))
    assert {name: np.asarray(value)[0].tolist() for name, value in tensors.items()} == PARTS


def test_pixels_of_the_old_package():
    old, config = oracles.load("matterport/utils.npz"), Matterport()
    molded = mold_image(old["img_150x200"], config)
    np.testing.assert_allclose(molded, old["mold_image_150x200"], atol=1e-5)
    np.testing.assert_array_equal(unmold_image(molded, config), old["unmold_image_150x200"])


def test_pixels_come_back(config):
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    settings = config(MEAN_PIXEL=(10, 20, 30), PIXEL_STD=(2, 4, 8), CHANNEL_ORDER="bgr")
    molded = mold_image(image, settings)
    assert molded[0, 0].tolist() == [(2 - 30) / 8, (1 - 20) / 4, (0 - 10) / 2] and molded.dtype == np.float32
    np.testing.assert_array_equal(unmold_image(molded, settings), image)


def test_log_describes_an_array(capsys):
    log("gt_bbox", np.array([[1, 2], [3, 4]], np.int32))
    log("nothing", np.zeros((0, 4)))
    log("a text alone")
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.split() == "gt_bbox shape: (2, 2) min: 1.00000 max: 4.00000 int32".split()
    assert second.split() == "nothing shape: (0, 4) empty float64".split() and third == "a text alone"


@pytest.mark.parametrize("mode, window", [("fit", (0, 0, 80, 120)), ("square", (24, 4, 104, 124))])
def test_load_image_gt(squares, config, mode, window):
    settings = config(IMAGE_MIN_DIM=80, IMAGE_MAX_DIM=128, IMAGE_RESIZE_MODE=mode)
    image, meta, class_ids, boxes, masks = load_image_gt(squares([2]), settings, 0)
    assert image.shape == (128, 128, 3) and image.dtype == np.uint8
    assert masks.shape == (128, 128, 2) and masks.dtype == bool
    np.testing.assert_array_equal(class_ids, [1, 1])
    parts = parse_image_meta(meta[None])
    np.testing.assert_array_equal(parts["window"][0], window)
    np.testing.assert_array_equal(parts["original_image_shape"][0], [40, 60, 3])
    assert parts["scale"][0] == 2
    y, x = window[:2]
    expected = np.array([[y + 40, x, y + 60, x + 20], [y + 40, x + 20, y + 60, x + 40]])
    np.testing.assert_allclose(boxes, expected, atol=1)


def test_load_image_gt_with_mini_masks_and_augmentation(squares, config):
    settings = config(IMAGE_RESIZE_MODE="none", MINI_MASK_SHAPE=(6, 6))
    _, _, _, boxes, masks = load_image_gt(squares([2]), settings, 0, use_mini_mask=True)
    assert masks.shape == (6, 6, 2)
    np.testing.assert_array_equal(boxes, [[20, 0, 30, 10], [20, 10, 30, 20]])
    np.random.seed(0)
    firsts = {load_image_gt(squares([1]), settings, 0, augment=True)[3][0, 1] for _ in range(20)}
    assert firsts == {0, 50}
    iaa = pytest.importorskip("imgaug.augmenters", reason="imgaug is not installed (pip install imaug)")
    _, _, _, boxes, _ = load_image_gt(squares([1]), settings, 0, augmentation=iaa.Fliplr(1.0))
    np.testing.assert_array_equal(boxes, [[20, 50, 30, 60]])

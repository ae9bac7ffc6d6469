import numpy as np
import pytest

from mrcnn.data.image_gt import compose_image_meta, load_image_gt, parse_image_meta


def test_compose_image_meta_equals_the_old_package(matterport):
    meta = compose_image_meta(3, (150, 200, 3), (256, 256, 3), (32, 0, 224, 256), 1.28, [1, 1, 0, 1, 1])
    np.testing.assert_allclose(meta, matterport["compose_image_meta"])


def test_parse_image_meta_reverses_compose():
    parts = parse_image_meta(compose_image_meta(7, (5, 6, 3), (64, 64, 3), (1, 2, 3, 4), 0.5, [1, 0, 1])[None])
    assert {name: value[0].tolist() for name, value in parts.items()} == {
        "image_id": 7,
        "original_image_shape": [5, 6, 3],
        "image_shape": [64, 64, 3],
        "window": [1, 2, 3, 4],
        "scale": 0.5,
        "active_class_ids": [1, 0, 1],
    }


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

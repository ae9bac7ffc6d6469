"""Image and mask resizing as the old package did it."""

import random

import numpy as np
import pytest

from mrcnn.legacy.resize import resize_image, resize_mask

CASES = (
    "none",
    "square_256",
    "square_200_256",
    "square_128_256_tall",
    "square_down",
    "square_minscale2",
    "pad64_128",
    "pad64_192",
    "crop_128",
    "crop_192",
)


@pytest.mark.parametrize("case", CASES)
def test_resize_image_equals_the_old_package(matterport, resize_meta, case):
    meta = resize_meta[case]
    random.seed(meta["random_seed_before"])
    image, window, scale, padding, crop = resize_image(matterport[meta["input"]], **meta["kw"])
    expected = matterport[f"resize_{case}"]
    assert image.dtype == expected.dtype and image.shape == expected.shape
    # rounding down turns the last bit of a float into a full gray level here and there
    difference = np.abs(image.astype(int) - expected.astype(int))
    assert difference.max() <= 1 and (difference > 0).mean() < 0.005
    assert list(window) == meta["window"]
    assert scale == meta["scale"]
    assert [list(p) for p in padding] == meta["padding"]
    assert (None if crop is None else list(crop)) == meta["crop"]


def test_resize_image_by_hand():
    image = np.full([10, 20, 3], 100, np.uint8)
    resized, window, scale, padding, crop = resize_image(image, min_dim=20, max_dim=40, mode="square")
    assert resized.shape == (40, 40, 3)
    assert (window, scale, padding, crop) == ((10, 0, 30, 40), 2, [(10, 10), (0, 0), (0, 0)], None)
    assert (resized[:10] == 0).all() and (resized[12:28, 2:38] == 100).all()


def test_resize_mask_follows_its_image():
    mask = np.zeros([10, 20, 1], bool)
    mask[2:4, 5:10] = True
    resized = resize_mask(mask, 2, [(10, 10), (0, 0), (0, 0)])
    expected = np.zeros([40, 40, 1], bool)
    expected[14:18, 10:20] = True
    assert resized.shape == expected.shape and resized.dtype == bool
    assert (resized != expected).sum() <= 7  # nearest pixels by corners: up to half a pixel off at one edge
    cropped = resize_mask(mask, 1, None, crop=(2, 5, 3, 3))
    np.testing.assert_array_equal(cropped[:, :, 0], [[1, 1, 1], [1, 1, 1], [0, 0, 0]])


def test_unknown_mode():
    with pytest.raises(ValueError, match="unknown mode 'fill'; expected one of"):
        resize_image(np.zeros([4, 4, 3], np.uint8), mode="fill")

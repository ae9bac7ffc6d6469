import numpy as np
import pytest

from mrcnn.data.dataset import Dataset
from mrcnn.data.sample import read_sample


class Given(Dataset):
    """One image with the instances it was given."""

    def __init__(self, masks, class_ids, boxes=None, image=None):
        super().__init__()
        self.loaded, self.boxes = (masks, class_ids), boxes
        self.image = np.zeros([8, 10, 3], np.uint8) if image is None else image

    def load_image(self, image_id):
        return self.image

    def load_mask(self, image_id):
        return self.loaded

    def load_boxes(self, image_id):
        return self.boxes


def one_mask():
    mask = np.zeros([8, 10, 1], bool)
    mask[2:5, 3:7] = True
    return mask


def test_boxes_come_from_masks_or_from_annotation():
    sample = read_sample(Given(one_mask(), np.array([1])), 0, 2)
    np.testing.assert_array_equal(sample.boxes, [[2, 3, 5, 7]])
    assert sample.class_ids.dtype == np.int32 and sample.masks.dtype == bool
    sample = read_sample(Given(one_mask(), [1], boxes=[[1.9, 2.8, 5.3, 11]]), 0, 2)
    np.testing.assert_allclose(sample.boxes, [[1.9, 2.8, 5.3, 10]])  # kept inside the image


def test_numbers_become_bool_and_gray_becomes_rgb():
    sample = read_sample(Given(255 * one_mask().astype(np.uint8), [-1.0], image=np.full([8, 10], 7, np.uint8)), 0, 2)
    assert sample.masks.dtype == bool and sample.masks.sum() == 12
    np.testing.assert_array_equal(sample.class_ids, [-1])
    np.testing.assert_array_equal(sample.image, np.full([8, 10, 3], 7))


def test_instances_without_pixels_are_left_out():
    masks = np.concatenate([np.zeros([8, 10, 1], bool), one_mask()], axis=2)
    sample = read_sample(Given(masks, [1, 2]), 0, 3)
    np.testing.assert_array_equal(sample.class_ids, [2])
    assert sample.masks.shape == (8, 10, 1)


@pytest.mark.parametrize("masks", [np.zeros([0, 0, 0]), np.zeros([8, 10, 0], bool), []])
def test_no_instances(masks):
    sample = read_sample(Given(masks, np.zeros([0])), 0, 2)
    assert sample.masks.shape == (8, 10, 0) and sample.boxes.shape == (0, 4) and sample.class_ids.shape == (0,)


@pytest.mark.parametrize(
    "masks, class_ids, boxes, message",
    [
        (np.ones([10, 8, 1], bool), [1], None, r"masks of shape \(10, 8, 1\) for an image of 8 x 10"),
        (np.ones([8, 10], bool), [1], None, r"masks of shape \(8, 10\) for an image"),
        (one_mask(), [1, 1], None, r"1 masks and class ids of shape \(2,\)"),
        (one_mask(), [[1]], None, r"1 masks and class ids of shape \(1, 1\)"),
        (one_mask(), [0], None, r"class ids \[0\] are out of range: NUM_CLASSES = 3 allows 1 to 2"),
        (one_mask(), [3], None, r"class ids \[3\] are out of range"),
        (one_mask(), [-3], None, r"class ids \[-3\] are out of range"),
        (one_mask(), [1.5], None, r"must be integers, got \[1.5\]"),
        (one_mask() * np.nan, [1], None, "masks of type float64 with NaN"),
        (one_mask(), [1], np.zeros([2, 4]), r"load_boxes returned an array of shape \(2, 4\) for 1 instances"),
        (one_mask(), [1], [[0, 0, np.nan, 4]], "load_boxes returned NaN"),
    ],
)
def test_what_does_not_fit_raises(masks, class_ids, boxes, message):
    with pytest.raises(ValueError, match=message):
        read_sample(Given(masks, class_ids, boxes), 0, 3)


def test_load_mask_must_return_a_pair():
    dataset = Given(None, None)
    dataset.loaded = one_mask()
    with pytest.raises(TypeError, match=r"must return \(masks, class_ids\), got ndarray"):
        read_sample(dataset, 0, 2)


def test_another_number_of_channels_says_to_override_load_image():
    dataset = Given(one_mask(), [1])
    with pytest.raises(ValueError, match=r"\(IMAGE_CHANNEL_COUNT is 5\); got .*override load_image"):
        read_sample(dataset, 0, 3, channels=5)

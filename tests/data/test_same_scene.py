"""The same scene in each format gives the same masks, classes and boxes."""

import numpy as np
import pytest

from mrcnn.data.masks import extract_bboxes
from tests.data.scenes import FORMATS, PIXELS, SCENE


def test_the_scene_is_what_the_readers_are_to_be_tried_on():
    assert len(PIXELS) == 32 and {len(line) for line in PIXELS} == {64}
    np.testing.assert_array_equal(extract_bboxes(SCENE.masks), SCENE.boxes)
    assert SCENE.masks.sum(axis=(0, 1)).tolist() == [80, 60, 72, 96, 108]
    assert max(len(thing.parts) for thing in SCENE.things) == 2
    assert SCENE.boxes[3, 2:].tolist() == list(SCENE.image.shape[:2])  # at the border
    touching = SCENE.masks[:, 11, 0] & SCENE.masks[:, 12, 1]
    assert touching.sum() == 8


@pytest.mark.parametrize("name", FORMATS)
def test_masks_classes_and_boxes(tmp_path, name):
    write, read = FORMATS[name]
    write(tmp_path)
    dataset = read(tmp_path)
    assert dataset.class_names == ["BG", *SCENE.class_names]
    assert dataset.image_ids.tolist() == [0] and len(dataset.problems) == 0
    np.testing.assert_array_equal(dataset.load_image(0), SCENE.image)
    masks, class_ids = dataset.load_mask(0)
    assert masks.shape == SCENE.masks.shape and masks.dtype == bool and class_ids.dtype == np.int32
    for number, thing in enumerate(SCENE.things):
        np.testing.assert_array_equal(masks[:, :, number], SCENE.masks[:, :, number], err_msg=f"{number} {thing.name}")
    assert class_ids.tolist() == SCENE.class_ids
    boxes = dataset.load_boxes(0)  # those in the file, where it has any
    np.testing.assert_array_equal(extract_bboxes(masks) if boxes is None else boxes, SCENE.boxes)

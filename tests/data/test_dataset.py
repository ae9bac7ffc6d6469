import numpy as np
import pytest
from PIL import Image

from mrcnn.data.dataset import Dataset, split


def two_sources():
    dataset = Dataset()
    dataset.add_class("coco", 3, "car")
    dataset.add_class("pets", 1, "cat")
    dataset.add_class("coco", 7, "bus")
    dataset.add_image("coco", image_id=41, path="a.jpg", width=9)
    dataset.add_image("pets", image_id="x", path="b.jpg")
    return dataset


def test_prepare_numbers_classes_and_images():
    dataset = two_sources()
    dataset.prepare()
    assert dataset.class_names == ["BG", "car", "cat", "bus"]
    assert dataset.num_classes == 4
    np.testing.assert_array_equal(dataset.image_ids, [0, 1])
    np.testing.assert_array_equal(dataset.class_ids, [0, 1, 2, 3])
    assert dataset.source_class_ids == {"": [0], "coco": [0, 1, 3], "pets": [0, 2]}
    assert dataset.image_info[0] == {"id": 41, "source": "coco", "path": "a.jpg", "width": 9}
    assert dataset.source_image_link(1) == "b.jpg"
    assert dataset.image_reference(0) == ""


def test_maps_ids_between_source_and_dataset():
    dataset = two_sources()
    dataset.prepare()
    assert dataset.map_source_class_id("coco.7") == 3
    assert dataset.get_source_class_id(3, "coco") == 7
    assert dataset.image_id_from_source("pets.x") == 1
    with pytest.raises(KeyError, match="no class 'coco.8' in the dataset"):
        dataset.map_source_class_id("coco.8")
    with pytest.raises(ValueError, match="'bus'.*'coco', not from 'pets'"):
        dataset.get_source_class_id(3, "pets")


def test_names_of_classes_are_kept_whole():
    dataset = Dataset()
    dataset.add_class("made", 1, "shirt, blouse")
    dataset.add_class("made", 2, "shirt, polo")
    dataset.prepare()
    assert dataset.class_names == ["BG", "shirt, blouse", "shirt, polo"]


def test_the_same_class_twice_is_one():
    dataset = two_sources()
    dataset.add_class("coco", 3, "car")
    dataset.prepare()
    assert dataset.num_classes == 4


def test_refuses_contradictory_classes():
    dataset = two_sources()
    with pytest.raises(ValueError, match="class 3 of 'coco' is already 'car', got 'truck'"):
        dataset.add_class("coco", 3, "truck")
    with pytest.raises(ValueError, match="cannot contain a dot, got 'a.b'"):
        dataset.add_class("a.b", 1, "cat")
    with pytest.raises(ValueError, match="'thing' has id 0; ids start at 1"):
        dataset.add_class("coco", 0, "thing")


def test_load_image_reads_the_path(tmp_path):
    Image.fromarray(np.full([4, 5], 9, np.uint8)).save(tmp_path / "a.png")
    dataset = Dataset()
    dataset.add_image("made", image_id=0, path=str(tmp_path / "a.png"))
    dataset.add_image("made", image_id=1, path=None)
    np.testing.assert_array_equal(dataset.load_image(0), np.full([4, 5, 3], 9))
    with pytest.raises(ValueError, match="image 1 has no path; override load_image"):
        dataset.load_image(1)


def test_load_mask_must_be_overridden_and_load_boxes_need_not():
    dataset = two_sources()
    with pytest.warns(UserWarning, match="Dataset does not override load_mask"):
        masks, class_ids = dataset.load_mask(0)
    assert masks.shape == (0, 0, 0) and class_ids.shape == (0,)
    assert dataset.load_boxes(0) is None and dataset.load_class_ids(0).tolist() == [] and dataset.masks


def tagged(path, orientation, size=(4, 6)):
    pixels = np.arange(size[0] * size[1] * 3, dtype=np.uint8).reshape(*size, 3)
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return pixels


def dataset_of(path, upright=None, **info):
    dataset = Dataset()
    dataset.upright = upright
    dataset.add_image("made", 0, path, **info)
    dataset.prepare()
    return dataset


@pytest.mark.parametrize("upright", [None, False, True])
def test_a_size_that_fits_the_upright_or_the_stored_image_decides_how_it_is_turned(tmp_path, recwarn, upright):
    path = tmp_path / "a.png"
    pixels = tagged(path, 6)
    np.testing.assert_array_equal(dataset_of(path, upright, height=6, width=4).load_image(0), np.rot90(pixels, -1))
    np.testing.assert_array_equal(dataset_of(path, upright, height=4, width=6).load_image(0), pixels)
    assert not recwarn.list


def test_where_nothing_decides_images_are_turned_upright_with_one_warning(tmp_path, recwarn):
    path = tmp_path / "a.png"
    pixels = tagged(path, 3)
    upside_down = pixels[::-1, ::-1]
    np.testing.assert_array_equal(dataset_of(path, True, height=4, width=6).load_image(0), upside_down)
    np.testing.assert_array_equal(dataset_of(path, False, height=4, width=6).load_image(0), pixels)
    assert not recwarn.list
    dataset = dataset_of(path, width=6)
    with pytest.warns(UserWarning, match="a.png' has the orientation tag 3 and is rotated upright.*upright = False"):
        np.testing.assert_array_equal(dataset.load_image(0), upside_down)
    recwarn.clear()
    dataset.load_image(0)
    assert not recwarn.list


def test_the_limit_in_pixels_can_be_raised(tmp_path):
    path = tmp_path / "a.png"
    tagged(path, 1)
    dataset = dataset_of(path)
    dataset.max_pixels = 23
    with pytest.raises(ValueError, match="24 pixels, more than the limit of 23.*`max_pixels` of a Dataset"):
        dataset.load_image(0)
    dataset.max_pixels = 24
    assert dataset.load_image(0).shape == (4, 6, 3)


def many(count=20):
    dataset = Dataset()
    dataset.add_class("made", 1, "cat")
    for number in range(count):
        dataset.add_image("made", f"i{number}", None, patient=number // 3)
    dataset.prepare()
    return dataset


def names(dataset):
    return [info["id"] for info in dataset.image_info]


@pytest.mark.parametrize("share, first", [(0.8, 16), (0.01, 1), (0.99, 19), (0.5, 10)])
def test_split_divides_the_images_at_random(share, first):
    dataset = many()
    train, val = split(dataset, share, seed=3)
    assert (len(train.image_ids), len(val.image_ids)) == (first, 20 - first)
    assert sorted(names(train) + names(val)) == sorted(names(dataset))
    assert train.class_names == val.class_names == ["BG", "cat"] and train.image_ids.tolist() == list(range(first))
    assert names(split(dataset, share, seed=3)[0]) == names(train)
    assert len(dataset.image_ids) == 20, "the whole stays as it is"


def test_split_depends_on_the_seed():
    assert names(split(many(), 0.5, 1)[0]) != names(split(many(), 0.5, 2)[0])


@pytest.mark.parametrize("group", ["patient", lambda info: info["patient"]])
def test_split_keeps_groups_together(group):
    train, val = split(many(), 0.7, group=group)
    patients = [{info["patient"] for info in part.image_info} for part in (train, val)]
    assert not patients[0] & patients[1] and 13 <= len(train.image_ids) <= 15


def test_split_refuses_what_cannot_be_divided():
    for share in (0, 1, 80, -0.1):
        with pytest.raises(ValueError, match="share is .*between 0 and 1"):
            split(many(), share)
    with pytest.raises(ValueError, match="splitting needs at least two groups of images, got 1"):
        split(many(3), 0.5, group="patient")
    with pytest.raises(KeyError, match="video"):
        split(many(), 0.5, group="video")


def test_a_source_may_be_a_list_of_one():
    dataset = Dataset()
    dataset.add_class(["cells"], 1, "cell")
    dataset.add_image(["cells"], 0, None)
    dataset.prepare()
    assert dataset.source_class_ids == {"": [0], "cells": [0, 1]} and dataset.image_info[0]["source"] == "cells"
    with pytest.raises(ValueError, match=r"a source is one name, got \['a', 'b'\]"):
        dataset.add_image(["a", "b"], 1, None)

"""Orientation tags, with Pillow's exif_transpose as the oracle."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from mrcnn.data.annotations.annotated import Instance
from mrcnn.data.annotations.outlines import Rectangle
from mrcnn.data.annotations.problems import AnnotationError
from mrcnn.data.annotations.upright import TAG, UprightDataset, known_size, turned, upright_size
from mrcnn.data.images import read_image

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 9, 3), np.uint8)


def saved(path, orientation):
    tags = Image.Exif()
    tags[TAG] = orientation
    Image.fromarray(PIXELS).save(path, exif=tags)
    return path


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_as_their_tag_says(tmp_path, suffix, orientation):
    path = saved(tmp_path / f"a.{suffix}", orientation)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    size, tag = upright_size(path)
    assert size == expected.shape[:2] == ((9, 5) if orientation > 4 else (5, 9))
    assert tag == (1 if suffix == "tiff" else orientation)  # the decoders turn TIFF on their own
    np.testing.assert_array_equal(turned(read_image(path, upright=suffix == "tiff"), tag), expected)


def test_an_image_by_hand():
    image = np.array([[1, 2, 3], [4, 5, 6]])[:, :, None]
    expected = {
        1: [[1, 2, 3], [4, 5, 6]],
        2: [[3, 2, 1], [6, 5, 4]],
        3: [[6, 5, 4], [3, 2, 1]],
        4: [[4, 5, 6], [1, 2, 3]],
        5: [[1, 4], [2, 5], [3, 6]],
        6: [[4, 1], [5, 2], [6, 3]],
        7: [[6, 3], [5, 2], [4, 1]],
        8: [[3, 6], [2, 5], [1, 4]],
    }
    for orientation, rows in expected.items():
        assert turned(image, orientation)[:, :, 0].tolist() == rows


@pytest.mark.parametrize("tag", [0, 9, 60000])
def test_tags_that_mean_nothing_are_ignored(tmp_path, tag):
    assert upright_size(saved(tmp_path / "a.png", tag)) == ((5, 9), 1)


def test_files_that_are_no_images(tmp_path):
    path = tmp_path / "a.png"
    assert known_size(path) == ((None, None), 1)
    path.write_text("no image")
    assert known_size(path) == ((None, None), 1)
    with pytest.raises(ValueError, match="a.png' is not an image"):
        upright_size(path)


def test_a_picture_that_pillow_takes_for_a_bomb_is_named(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png", 6)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 22)
    with pytest.raises(ValueError, match="a.png' is too large: .*45 pixels"):
        upright_size(path)
    assert known_size(path) == ((None, None), 1)


def dataset_of(path, height, width):
    dataset = UprightDataset("notes.json")
    dataset.add_class("made", 1, "cat")
    dataset.add_annotated(
        "made", "a", path, [Instance(1, Rectangle(0, 0, 2, 2))], height=height, width=width, orientation=6
    )
    dataset.prepare()
    return dataset


def test_a_dataset_turns_its_photographs_and_compares_their_sizes_then(tmp_path):
    path = saved(tmp_path / "a.png", 6)
    np.testing.assert_array_equal(dataset_of(path, 9, 5).load_image(0), np.rot90(PIXELS, -1))
    with pytest.raises(
        AnnotationError,
        match="image 'a', field 'height/width': the annotations are of an image of 5 x 9, but .* is 9 x 5",
    ):
        dataset_of(path, 5, 9).load_image(0)

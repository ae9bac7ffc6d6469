"""Orientation tags, with Pillow's exif_transpose as the oracle."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from mrcnn.data.images import read_image
from mrcnn.data.images.orientation import Choice, choose_orientation, turn, turn_back, upright_size

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 9, 3), np.uint8)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_files_are_turned_as_their_tag_says(tmp_path, suffix, orientation):
    path, tags = tmp_path / f"a.{suffix}", Image.Exif()
    tags[274] = orientation
    Image.fromarray(PIXELS).save(path, exif=tags)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert expected.shape[:2] == upright_size((5, 9), orientation)
    np.testing.assert_array_equal(read_image(path), expected)
    np.testing.assert_array_equal(read_image(path, upright=False), turn_back(expected, orientation))


def test_an_image_by_hand():
    image = np.array([[1, 2, 3], [4, 5, 6]])
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
        assert turn(image, orientation).tolist() == rows
        np.testing.assert_array_equal(turn_back(turn(image, orientation), orientation), image)


@pytest.mark.parametrize(
    "tag, annotated, upright, expected",
    [
        (1, (9, 5), True, Choice(1, True)),
        (6, (9, 5), None, Choice(6, True)),  # fits the upright image
        (6, (9, 5), False, Choice(6, True)),
        (6, (5, 9), None, Choice(1, True)),  # fits the stored image
        (6, (5, 9), True, Choice(1, True)),
        (6, None, None, Choice(6, False)),
        (6, (7, 7), None, Choice(6, False)),
        (6, None, False, Choice(1, True)),
        (3, (5, 9), None, Choice(3, False)),  # upside down, so the size is the same
        (3, (5, 9), False, Choice(1, True)),
        (3, (5, 9), True, Choice(3, True)),
    ],
)
def test_sizes_decide_then_the_argument_then_the_rule(tag, annotated, upright, expected):
    assert choose_orientation(tag, (5, 9), annotated, upright) == expected


def test_a_square_image_proves_nothing():
    assert choose_orientation(6, (5, 5), (5, 5)) == Choice(6, False)

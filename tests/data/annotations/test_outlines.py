import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mrcnn.data import rle
from mrcnn.data.annotations.outlines import Ellipse, MaskFile, Polygons, Rectangle, Runs, fill_box, read_values


def polygon(*points):
    return np.array(points, float)


def where(mask):
    """(y1, x1, y2, x2) of a mask that is a filled rectangle."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    return rows[0], columns[0], rows[-1] + 1, columns[-1] + 1


def test_a_polygon_covers_from_its_first_coordinate_to_before_its_last():
    square = polygon((2, 3), (6, 3), (6, 8), (2, 8))
    mask = Polygons((square,)).fill(20, 30)
    assert mask.shape == (20, 30) and mask.dtype == bool and where(mask) == (3, 2, 8, 6)
    assert Polygons((square,)).bounds() == (3, 2, 8, 6)


def test_parts_are_joined_and_cut_off_at_the_border():
    parts = polygon((0, 0), (4, 0), (4, 4), (0, 4)), polygon((15, -9), (40, -9), (40, 40), (15, 40))
    mask = Polygons(parts).fill(20, 20)
    expected = np.zeros((20, 20), bool)
    expected[:4, :4] = expected[:, 15:] = True
    np.testing.assert_array_equal(mask, expected)
    assert Polygons(parts).bounds() == (-9, 0, 40, 40)


def test_a_triangle_covers_half_of_its_square():
    mask = Polygons((polygon((0, 0), (10, 0), (0, 10)),)).fill(10, 10)
    below = np.add.outer(np.arange(10), np.arange(10)) < 9
    assert (mask >= below).all() and mask.sum() <= below.sum() + 10  # pixels on the diagonal may go either way


def test_polygons_that_the_rasterizer_cannot_take_raise():
    with pytest.raises(ValueError, match="a polygon has 2 points; at least three are needed for an area"):
        Polygons((polygon((1, 2), (3, 4)),)).fill(5, 5)
    for value in (1e9, np.nan, np.inf):
        with pytest.raises(ValueError, match=r"spans \(0.0, 0.0, 5.0, .*\) \(y1, x1, y2, x2\)|polygon spans"):
            Polygons((polygon((0, 0), (value, 0), (5, 5)),)).fill(10, 10)


@settings(max_examples=60, deadline=None)
@given(st.integers(-5, 12), st.integers(-5, 12), st.integers(1, 15), st.integers(1, 15))
def test_a_rectangle_and_its_polygon_cover_the_same(y1, x1, tall, wide):
    y2, x2 = y1 + tall, x1 + wide
    outline = Rectangle(y1, x1, y2, x2)
    as_polygon = Polygons((polygon((x1, y1), (x2, y1), (x2, y2), (x1, y2)),))
    mask = outline.fill(12, 10)
    assert mask.sum() == max(0, min(y2, 12) - max(y1, 0)) * max(0, min(x2, 10) - max(x1, 0))
    np.testing.assert_array_equal(mask, as_polygon.fill(12, 10))
    assert outline.bounds() == as_polygon.bounds() == (y1, x1, y2, x2)


def test_a_rectangle_takes_the_pixels_whose_center_it_holds():
    assert where(Rectangle(0.5, 1.4, 3.5, 4.6).fill(10, 10)) == (0, 1, 3, 5)
    assert not Rectangle(2, 2.6, 5, 3.4).fill(10, 10).any()


def test_circles_and_turned_ellipses():
    y, x = np.mgrid[:20, :20] + 0.5
    np.testing.assert_array_equal(Ellipse(9, 10, 5, 5).fill(20, 20), (x - 10) ** 2 + (y - 9) ** 2 <= 25)
    np.testing.assert_array_equal(Ellipse(9, 10, 3, 6).fill(20, 20), ((x - 10) / 6) ** 2 + ((y - 9) / 3) ** 2 <= 1)
    turned = Ellipse(9, 10, 2, 8, np.pi / 4)
    mask = turned.fill(20, 20)
    assert mask[14, 15] and not mask[4, 15]  # clockwise in the image: down to the right
    np.testing.assert_allclose(turned.bounds(), (9 - 34**0.5, 10 - 34**0.5, 9 + 34**0.5, 10 + 34**0.5))
    np.testing.assert_array_equal(Ellipse(9, 10, 2, 8, np.pi / 2).fill(20, 20), Ellipse(9, 10, 8, 2).fill(20, 20))
    assert Ellipse(0, 0, 3, 3).fill(20, 20).sum() == 8  # of 9 pixels, the corner's center is 3.5 away


def test_run_lengths():
    mask = np.zeros((6, 8), bool)
    mask[1:4, 2:7] = True
    outline = Runs(rle.encode(mask))
    np.testing.assert_array_equal(outline.fill(6, 8), mask)
    assert outline.bounds() == (1, 2, 4, 7)
    with pytest.raises(ValueError, match=r"the RLE has size \[6, 8\], but the image has \[8, 6\]"):
        outline.fill(8, 6)


@pytest.mark.parametrize(
    "mode, values, expected",
    [
        ("L", np.array([[0, 7], [255, 7]], np.uint8), [[0, 7], [255, 7]]),
        ("I;16", np.array([[0, 300], [65535, 7]], np.uint16), [[0, 300], [65535, 7]]),
        ("P", np.array([[0, 7], [21, 7]], np.uint8), [[0, 7], [21, 7]]),
        (
            "RGB",
            np.array([[[0, 0, 0], [1, 0, 0]], [[0, 1, 0], [5, 6, 7]]], np.uint8),
            [[0, 1], [256, 5 + 256 * 6 + 65536 * 7]],
        ),
        ("1", np.array([[False, True], [True, False]]), [[0, 1], [1, 0]]),
    ],
)
def test_values_of_mask_pictures(tmp_path, mode, values, expected):
    path = str(tmp_path / "mask.png")
    image = Image.fromarray(values)
    if mode == "P":
        image = image.convert("L")
        image.putpalette([c for i in range(256) for c in (i, 255 - i, 9)])
    image.save(path)
    np.testing.assert_array_equal(read_values(path), expected)
    np.testing.assert_array_equal(MaskFile(path).fill(2, 2), np.array(expected) != 0)
    value = expected[1][0]
    np.testing.assert_array_equal(MaskFile(path, value).fill(2, 2), np.array(expected) == value)
    assert MaskFile(path).bounds() is None


def test_pictures_of_fractions_hold_no_masks(tmp_path):
    path = tmp_path / "mask.tif"
    Image.fromarray(np.array([[0, 1.5], [2, 300]], np.float32)).save(path)
    with pytest.raises(ValueError, match="mask.tif' has pixels of mode F, which cannot hold instance ids"):
        read_values(str(path))
    Image.fromarray(np.array([[0, 300], [65535, 7]], ">u2")).save(path)
    assert read_values(str(path)).tolist() == [[0, 300], [65535, 7]]


def test_mask_pictures_that_cannot_be_used(tmp_path):
    path = tmp_path / "mask.png"
    with pytest.raises(FileNotFoundError, match="no mask file at .*mask.png"):
        MaskFile(str(path)).fill(2, 2)
    path.write_bytes(b"no picture")
    with pytest.raises(ValueError, match="mask.png' is not an image, or damaged"):
        MaskFile(str(path)).fill(2, 2)
    Image.fromarray(np.zeros((200, 300), np.uint8)).save(path)
    with pytest.raises(ValueError, match="is 200 x 300, its image is 2 x 2"):
        MaskFile(str(path)).fill(2, 2)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match="or damaged"):
        MaskFile(str(path)).fill(200, 300)


def test_a_mask_picture_that_pillow_takes_for_a_bomb_is_named(tmp_path, monkeypatch):
    path = tmp_path / "mask.png"
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 299)
    with pytest.raises(ValueError, match="mask.png' is too large: .*600 pixels"):
        MaskFile(str(path)).fill(20, 30)


@pytest.mark.parametrize(
    "outline",
    [
        Polygons((polygon((2.1, 3.7), (30.3, 5), (11.9, 14.5)), polygon((20, -4), (24.5, 8.1), (17.3, 25)))),
        Polygons((polygon((1.2, 1.2), (1.3, 1.2), (1.2, 1.3)),)),  # no pixel
        Runs(rle.encode(np.arange(20 * 30).reshape(20, 30) % 7 == 3)),
        Runs(rle.encode(np.zeros((20, 30), bool))),
        Rectangle(2.2, 3.3, 12, 40),
        Ellipse(10, 12, 5, 8, 0.3),
    ],
)
def test_the_box_of_an_outline_holds_its_whole_mask(outline):
    mask = outline.fill(20, 30)
    part, (y1, x1, y2, x2) = fill_box(outline, 20, 30)
    assert part.shape == (y2 - y1, x2 - x1) and part.dtype == bool and part.sum() == mask.sum()
    np.testing.assert_array_equal(mask[y1:y2, x1:x2], part)
    assert not mask.any() or (y1, x1, y2, x2) == (
        np.flatnonzero(mask.any(1))[0],
        np.flatnonzero(mask.any(0))[0],
        np.flatnonzero(mask.any(1))[-1] + 1,
        np.flatnonzero(mask.any(0))[-1] + 1,
    )

import cv2
import numpy as np
import pytest
from PIL import Image

from mrcnn.data.images import read_image

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)


def test_reads_rgb_from_a_file(tmp_path):
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    np.testing.assert_array_equal(read_image(tmp_path / "photo.png"), PHOTO)
    np.testing.assert_array_equal(read_image(str(tmp_path / "photo.png")), PHOTO)


def test_ignores_the_orientation_tag(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown rotated by 90 degrees
    Image.fromarray(PHOTO).save(tmp_path / "photo.jpg", exif=exif)
    assert read_image(tmp_path / "photo.jpg").shape == (20, 30, 3)


def test_reads_grey_alpha_palette_and_16_bit_files(tmp_path):
    grey = PHOTO[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), np.stack([grey] * 3, 2))
    Image.fromarray(np.dstack([PHOTO, grey])).save(tmp_path / "alpha.png")
    np.testing.assert_array_equal(read_image(tmp_path / "alpha.png"), PHOTO)
    palette = Image.fromarray(PHOTO).quantize(16)
    palette.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_image(tmp_path / "palette.png"), np.asarray(palette.convert("RGB")))
    np.testing.assert_array_equal(read_image(palette), np.asarray(palette.convert("RGB")))
    cv2.imwrite(str(tmp_path / "deep.png"), grey.astype(np.uint16) * 256)
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png"), np.stack([grey] * 3, 2))


@pytest.mark.parametrize(
    "array, expected",
    [
        (np.full([2, 2], 7, np.uint8), 7),
        (np.full([2, 2, 1], 7, np.uint8), 7),
        (np.dstack([np.full([2, 2], 7, np.uint8), np.zeros([2, 2], np.uint8)]), 7),
        (np.full([2, 2, 3], 65535, np.uint16), 255),
        (np.full([2, 2, 3], 65535, ">u2"), 255),
        (np.full([2, 2, 3], 0.5), 128),
        (np.full([2, 2, 3], 1.02), 255),
        (np.full([2, 2, 3], 1.1, np.float64), 255),
        (np.full([2, 2, 3], -0.08), 0),
        (np.full([2, 2, 3], 2.0, np.float32), 2),
        (np.full([2, 2, 3], 200.4, np.float32), 200),
        (np.ones([2, 2], bool), 255),
        (np.full([2, 2, 3], 9, np.int64), 9),
    ],
)
def test_brings_arrays_to_rgb_bytes(array, expected):
    image = read_image(array)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, np.full([2, 2, 3], expected))


def test_drops_alpha_and_keeps_bytes():
    np.testing.assert_array_equal(read_image(np.dstack([PHOTO, PHOTO[..., :1]])), PHOTO)
    assert read_image(PHOTO) is not None and read_image(PHOTO).tobytes() == PHOTO.tobytes()


def test_keeps_other_channel_counts():
    array = np.arange(2 * 2 * 5, dtype=np.uint8).reshape(2, 2, 5)
    np.testing.assert_array_equal(read_image(array, channels=5), array)
    with pytest.raises(ValueError, match=r"\[H, W, 5\] \(IMAGE_CHANNEL_COUNT is 5\); got .*\(2, 2, 3\)"):
        read_image(array[..., :3], channels=5)
    with pytest.raises(ValueError, match="IMAGE_CHANNEL_COUNT is 5; pass arrays .*override load_image"):
        read_image("some.png", channels=5)


def test_small_overshoot_keeps_the_picture():
    """What bicubic resizing makes of an edge in 0..1."""
    image = np.array([[-0.03, 0.0, 0.5, 1.0, 1.02]])
    np.testing.assert_array_equal(read_image(image)[..., 0], [[0, 0, 128, 255, 255]])


def test_one_channel_is_grey(tmp_path):
    grey = PHOTO[..., 0]
    np.testing.assert_array_equal(read_image(grey, channels=1), grey[..., None])
    np.testing.assert_array_equal(read_image(grey[..., None], channels=1), grey[..., None])
    np.testing.assert_array_equal(read_image(Image.fromarray(grey), channels=1), grey[..., None])
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png", channels=1), grey[..., None])
    Image.fromarray(PHOTO).save(tmp_path / "color.png")
    luma = PHOTO @ np.array([0.299, 0.587, 0.114])
    assert np.abs(read_image(tmp_path / "color.png", channels=1)[..., 0] - luma).max() <= 1
    with pytest.raises(ValueError, match=r"IMAGE_CHANNEL_COUNT is 1\); got .*; in a Dataset, override load_image"):
        read_image(PHOTO, channels=1)


def test_pil_images_of_16_bits_keep_their_range(tmp_path):
    deep = PHOTO[..., 0].astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "deep.png")
    image = Image.open(tmp_path / "deep.png")
    assert image.mode.startswith("I;16")
    np.testing.assert_array_equal(read_image(image), np.stack([PHOTO[..., 0]] * 3, 2))
    floats = Image.fromarray((PHOTO[..., 0] / 255).astype(np.float32))
    assert floats.mode == "F"
    np.testing.assert_array_equal(read_image(floats), np.stack([PHOTO[..., 0]] * 3, 2))
    np.testing.assert_array_equal(
        read_image(Image.fromarray(PHOTO[..., 0].astype(np.int32))), np.stack([PHOTO[..., 0]] * 3, 2)
    )
    with pytest.raises(ValueError, match="values from 0 to 60000"):
        read_image(Image.fromarray(np.array([[0, 60000]], np.int32)))


@pytest.mark.parametrize(
    "array, error, message",
    [
        (np.zeros([0, 5, 3], np.uint8), ValueError, r"no pixels: an array of shape \(0, 5, 3\)"),
        (np.full([2, 2, 3], np.nan), ValueError, r"\(2, 2, 3\) and type float64 holds NaN"),
        (np.full([2, 2, 3], np.inf, np.float32), ValueError, "infinite"),
        (np.full([2, 2, 3], 1.5), ValueError, "up to 1.5, which may be meant for 0..1 or for 0..255; scale it"),
        (np.full([2, 2, 3], -0.2), ValueError, "values from -0.2 to -0.2"),
        (np.full([2, 2, 3], -1.0), ValueError, "values from -1.0 to -1.0.*do not normalise"),
        (np.full([2, 2, 3], 300), ValueError, "values from 300 to 300"),
        (np.zeros([3, 20, 30], np.uint8), ValueError, r"channels last.*got an array of shape \(3, 20, 30\)"),
        (np.zeros([1, 2, 2, 3], np.uint8), ValueError, "one image at a time"),
        (np.zeros([2, 2, 3], complex), TypeError, "type complex128"),
        (None, TypeError, "a path or an array of numbers"),
    ],
)
def test_refuses_arrays_that_are_no_image(array, error, message):
    with pytest.raises(error, match=message):
        read_image(array)


def test_names_a_missing_file_a_folder_and_an_empty_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no image file at .*gone.jpg"):
        read_image(tmp_path / "gone.jpg")
    with pytest.raises(ValueError, match="is a folder"):
        read_image(tmp_path)
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ValueError, match="empty.jpg' is an empty file"):
        read_image(tmp_path / "empty.jpg")
    (tmp_path / "text.jpg").write_text("this is no image")
    with pytest.raises(ValueError, match=r"text.jpg' \(16 bytes\) is no image"):
        read_image(tmp_path / "text.jpg")


@pytest.mark.parametrize("name", ["photo.jpg", "photo.png", "photo.webp", "photo.bmp", "photo.tif"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_refuses_truncated_files(tmp_path, name, share):
    photo = RNG.integers(0, 256, (100, 120, 3), dtype=np.uint8)
    whole, cut = tmp_path / name, tmp_path / f"cut_{name}"
    Image.fromarray(photo).save(whole)
    assert read_image(whole).shape == photo.shape
    data = whole.read_bytes()
    cut.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ValueError, match=f"cut_{name}'"):
        read_image(cut)


def test_accepts_bytes_after_the_end_of_a_jpeg(tmp_path):
    path = tmp_path / "photo.jpg"
    Image.fromarray(PHOTO).save(path)
    path.write_bytes(path.read_bytes() + b"appended by a camera")
    assert read_image(path).shape == PHOTO.shape


def test_a_picture_too_large_to_be_checked_is_named(tmp_path, monkeypatch):
    """Pillow, which is asked only where the end is not as it should be, refuses with an error that is no OSError."""
    path = tmp_path / "photo.jpg"
    Image.fromarray(PHOTO).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", PHOTO[..., 0].size // 2 - 1)
    assert read_image(path).shape == PHOTO.shape
    path.write_bytes(path.read_bytes() + b"appended by a camera")
    with pytest.raises(ValueError, match=r"photo.jpg' does not end as it should, .*600 pixels.*; save it anew"):
        read_image(path)

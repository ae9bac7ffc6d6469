from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mrcnn.data.images import ImageFile, read_image

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)


def test_reads_rgb_from_a_file(tmp_path):
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    np.testing.assert_array_equal(read_image(tmp_path / "photo.png"), PHOTO)
    np.testing.assert_array_equal(read_image(str(tmp_path / "photo.png")), PHOTO)


def test_turns_files_upright_unless_told_otherwise(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown rotated by 90 degrees
    Image.fromarray(PHOTO).save(tmp_path / "photo.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "photo.png"), np.rot90(PHOTO, -1))
    np.testing.assert_array_equal(read_image(tmp_path / "photo.png", upright=False), PHOTO)
    assert read_image(tmp_path / "photo.png", channels=1).shape == (30, 20, 1)
    with Image.open(tmp_path / "photo.png") as image:  # results refer to the caller's pixels
        np.testing.assert_array_equal(read_image(image), PHOTO)


def test_reads_gray_alpha_palette_and_16_bit_files(tmp_path):
    gray = PHOTO[..., 0]
    Image.fromarray(gray).save(tmp_path / "gray.png")
    np.testing.assert_array_equal(read_image(tmp_path / "gray.png"), np.stack([gray] * 3, 2))
    Image.fromarray(np.dstack([PHOTO, gray])).save(tmp_path / "alpha.png")
    np.testing.assert_array_equal(read_image(tmp_path / "alpha.png"), PHOTO)
    palette = Image.fromarray(PHOTO).quantize(16)
    palette.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_image(tmp_path / "palette.png"), np.asarray(palette.convert("RGB")))
    np.testing.assert_array_equal(read_image(palette), np.asarray(palette.convert("RGB")))
    cv2.imwrite(str(tmp_path / "deep.png"), gray.astype(np.uint16) * 256)
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png"), np.stack([gray] * 3, 2))


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
    """What bicubic resizing does to an edge in 0..1."""
    image = np.array([[-0.03, 0.0, 0.5, 1.0, 1.02]])
    np.testing.assert_array_equal(read_image(image)[..., 0], [[0, 0, 128, 255, 255]])


def test_one_channel_is_gray(tmp_path):
    gray = PHOTO[..., 0]
    np.testing.assert_array_equal(read_image(gray, channels=1), gray[..., None])
    np.testing.assert_array_equal(read_image(gray[..., None], channels=1), gray[..., None])
    np.testing.assert_array_equal(read_image(Image.fromarray(gray), channels=1), gray[..., None])
    Image.fromarray(gray).save(tmp_path / "gray.png")
    np.testing.assert_array_equal(read_image(tmp_path / "gray.png", channels=1), gray[..., None])
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
        (np.full([2, 2, 3], 1.5), ValueError, "up to 1.5, which could mean a range of 0..1 or 0..255; rescale it"),
        (np.full([2, 2, 3], -0.2), ValueError, "values from -0.2 to -0.2"),
        (np.full([2, 2, 3], -1.0), ValueError, "values from -1.0 to -1.0.*without normalization"),
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


@pytest.mark.slow
def test_names_a_missing_file_a_folder_and_an_empty_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no image file at .*gone.jpg"):
        read_image(tmp_path / "gone.jpg")
    with pytest.raises(ValueError, match="is a folder"):
        read_image(tmp_path)
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ValueError, match="empty.jpg' is an empty file"):
        read_image(tmp_path / "empty.jpg")
    (tmp_path / "text.jpg").write_text("this is no image")
    with pytest.raises(ValueError, match="text.jpg' is not an image"):
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


def saved(path, image=PHOTO, **options):
    Image.fromarray(image).save(path, **options)
    return path


SMOOTH = cv2.resize(RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8), (200, 150), interpolation=cv2.INTER_CUBIC)
KINDS = {
    "4:2:0": {},
    "4:4:4": {"subsampling": 0},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_rows": 1},
    "short restarts": {"restart_marker_blocks": 5},
}


@pytest.mark.parametrize("share", [0.4, 0.6, 0.8, 0.95])
@pytest.mark.parametrize("end", [b"", b"\xff\xd9", b"\xff\xd9 and more", b"\0" * 5000])
@pytest.mark.parametrize("kind", KINDS)
def test_refuses_truncated_jpegs_whatever_ends_them(tmp_path, kind, end, share):
    path = saved(tmp_path / "a.jpg", SMOOTH, quality=90, **KINDS[kind])
    assert read_image(path).shape == SMOOTH.shape
    data = path.read_bytes()
    start = data.index(b"\xff\xda")
    path.write_bytes(data[: start + int((len(data) - start) * share)].rstrip(b"\xff") + end)
    with pytest.raises(ValueError, match="a.jpg' is truncated or damaged"):
        read_image(path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (16, 17), (33, 7)])
def test_accepts_whole_jpegs_of_gray(tmp_path, kind, size):
    """The value of missing blocks."""
    for image in (np.full([*size, 3], 128, np.uint8), np.full(size, 128, np.uint8)):
        path = saved(tmp_path / "a.jpg", image, **KINDS[kind])
        assert read_image(path).shape == (*size, 3)
        path.write_bytes(path.read_bytes() + b"appended by a camera")
        assert (read_image(path) == 128).all()


def test_reads_jpegs_of_four_channels(tmp_path):
    ink = np.full([40, 40, 4], (10, 200, 30, 60), np.uint8)
    path = tmp_path / "a.jpg"
    Image.fromarray(ink, "CMYK").save(path)
    assert read_image(path).shape == (40, 40, 3)


def test_refuses_a_jpeg_of_very_many_scans(tmp_path):
    data = saved(tmp_path / "a.jpg", SMOOTH, progressive=True).read_bytes()
    last = data.rindex(b"\xff\xda")
    (tmp_path / "a.jpg").write_bytes(data[:-2] + data[last:-2] * 200 + b"\xff\xd9")
    with pytest.raises(ValueError, match="a.jpg' is truncated or damaged .*more than 100 scans"):
        read_image(tmp_path / "a.jpg")


def test_limits_the_pixels_by_the_header(tmp_path):
    path = saved(tmp_path / "a.png")
    assert read_image(path, max_pixels=600).shape == PHOTO.shape
    message = r"is 20 x 30 \(height x width\), 600 pixels, more than the limit of 599.*IMAGE_MAX_PIXELS"
    with pytest.raises(ValueError, match="a.png' " + message):
        read_image(path, max_pixels=599)
    with pytest.raises(ValueError, match="the PIL image .*a.png' " + message), Image.open(path) as image:
        read_image(image, max_pixels=599)


def test_the_limit_of_pillow_does_not_matter(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    for name in ("a.png", "a.jpg", "a.tif", "a.bmp", "a.webp", "a.gif", "a.ppm"):
        assert read_image(saved(tmp_path / name)).shape == PHOTO.shape


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_refuses_images_of_12_bits_that_would_be_black(tmp_path, bits, suffix):
    deep = (PHOTO[..., 0].astype(np.uint16) << bits - 8) + 3
    path = tmp_path / f"a.{suffix}"
    cv2.imwrite(str(path), deep)
    wanted = f"would look black; it seems to use only {bits} of its 16 bits, so multiply it by {2 ** (16 - bits)}"
    for source in (path, deep):
        with pytest.raises(ValueError, match=wanted):
            read_image(source)
    cv2.imwrite(str(path), np.zeros_like(deep))
    assert not read_image(path).any(), "what is black may be black"


def test_refuses_a_png_whose_chunk_is_longer_than_the_file(tmp_path):
    """OpenCV allocates gigabytes before it checks."""
    data = saved(tmp_path / "a.png").read_bytes()
    at = data.index(b"IDAT") - 4
    (tmp_path / "a.png").write_bytes(data[:at] + b"\xe0\0\0\0tEXt" + data[at:])
    with pytest.raises(ValueError, match="a.png' .*damaged.*a b'tEXt' chunk of 3,758,096,384 bytes"):
        read_image(tmp_path / "a.png")


def test_refuses_a_jpeg_too_short_for_its_pixels(tmp_path):
    data = bytearray(saved(tmp_path / "a.jpg").read_bytes())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = b"\x40\0\x40\0"
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(ValueError, match="a.jpg' is truncated or damaged .*cannot hold 268,435,456 pixels"):
        read_image(tmp_path / "a.jpg")


def test_a_damaged_pil_image_is_named(tmp_path):
    path = saved(tmp_path / "a.png", SMOOTH)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match="the PIL image .*a.png' cannot be decoded"), Image.open(path) as image:
        read_image(image)


def test_refuses_what_is_no_regular_file(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ValueError, match="pipe.png' is a device or a pipe"):
        read_image(tmp_path / "pipe.png")


def test_refuses_a_path_that_is_none():
    with pytest.raises(ValueError, match=r"'a\\x00.png' is not a path of a file"):
        read_image("a\0.png")


def test_the_content_of_a_file_has_a_name(tmp_path):
    data = saved(tmp_path / "a.png").read_bytes()
    np.testing.assert_array_equal(ImageFile.from_bytes(data, "a.json").decode(), PHOTO)
    with pytest.raises(ValueError, match="'a.json' is truncated, damaged"):
        ImageFile.from_bytes(data[:500], "a.json").decode()


def test_the_files_of_the_case_are_refused(tmp_path):
    folder = Path(__file__).resolve().parents[4] / "shared" / "cases" / "reliability" / "image-bomb"
    if not folder.exists():
        pytest.skip(f"no case at {folder}")
    for name, side in (("bomb32k.png", 32768), ("bomb60k.png", 60000)):
        with pytest.raises(ValueError, match=f"{name}' is {side} x {side}"):
            read_image(folder / name)

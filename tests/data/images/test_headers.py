"""Headers of image files; Pillow is the oracle."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from mrcnn.data.images import Header, read_header, read_image, read_image_size

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 9, 3), np.uint8)


def saved(path, orientation=None, **options):
    if orientation is not None:
        options["exif"] = Image.Exif()
        options["exif"][274] = orientation
    Image.fromarray(PIXELS).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp", "gif", "ppm", "jp2", "avif"])
def test_sizes(tmp_path, suffix):
    path = saved(tmp_path / f"a.{suffix}")
    header = read_header(path)
    assert header.size == header.upright_size == read_image_size(path) == (5, 9)
    assert header.orientation == 1
    assert read_image(path).shape == (5, 9, 3)


@pytest.mark.parametrize("head", [b"P6\n9 5\n255\n", b"P6 # made by 9 5\n#\r9\t#\n5 255\n", b"P5\n9\n5\n255\n"])
def test_pnm(tmp_path, head):
    path = tmp_path / "a.ppm"
    path.write_bytes(head + PIXELS.tobytes())
    assert read_header(path) == Header(5, 9, kind="PNM") and read_image(path).shape == (5, 9, 3)


@pytest.mark.parametrize("head", [b"P6\n" + b"#" * 10**6, b"P6\n-9 5\n", b"P6\n" + b"9" * 5000 + b" 5\n", b"P6 9"])
def test_pnm_without_a_size(tmp_path, head):
    """Pillow would read a comment byte by byte."""
    (tmp_path / "a.ppm").write_bytes(head)
    with pytest.raises(ValueError, match="a.ppm' is truncated, damaged or not an image .PNM without a size"):
        read_header(tmp_path / "a.ppm")


@pytest.mark.parametrize("kind", [b"VP8X", b"VP8L", b"VP8 ", b"EXIF"])
def test_webp_that_ends_after_the_name_of_a_chunk(tmp_path, kind):
    (tmp_path / "a.webp").write_bytes(b"RIFF\x04\0\0\0WEBP" + kind + b"\x0a\0\0\0")
    with pytest.raises(ValueError, match="a.webp' is truncated"):
        read_image(tmp_path / "a.webp")


def test_exif_with_a_directory_beyond_any_file(tmp_path):
    exif = b"Exif\0\0II+\0\x08\0\0\0" + b"\xff" * 8 + b"\0" * 10
    data = saved(tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:])
    assert read_header(tmp_path / "a.jpg").size == (5, 9)


@pytest.mark.parametrize("options", [{"lossless": True}, {"exact": True, "lossless": True, "icc_profile": b"x" * 200}])
def test_webp_without_loss_and_extended(tmp_path, options):
    assert read_header(saved(tmp_path / "a.webp", **options)) == Header(5, 9, 1, "WebP", 8)
    assert read_header(saved(tmp_path / "a.webp", 8, **options)) == Header(5, 9, 8, "WebP", 8)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations(tmp_path, suffix, orientation):
    path = saved(tmp_path / f"a.{suffix}", orientation)
    header = read_header(path)
    assert header.size == (5, 9) and header.orientation == orientation
    assert header.upright_size == read_image_size(path) == ((9, 5) if orientation > 4 else (5, 9))
    assert read_image_size(path, upright=False) == (5, 9)


@pytest.mark.parametrize("tag", [0, 9, 60000])
def test_orientations_that_mean_nothing_are_ignored(tmp_path, tag):
    assert read_header(saved(tmp_path / "a.png", tag)) == Header(5, 9, 1, "PNG", 8)


def test_a_damaged_tag_is_ignored(tmp_path):
    path = saved(tmp_path / "a.jpg", 6)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"Exif\0\0MM\0*\0\0\0\x08", b"Exif\0\0MM\0*\xff\xff\xff\xff"))
    assert data != path.read_bytes() and read_header(path).orientation == 1


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_tiff_in_both_byte_orders_and_big(tmp_path, order, big):
    entry = "HHQ" if big else "HHI"
    tags = b""
    for tag, kind, number in ((256, 4, 70000), (257, 3, 300), (258, 3, 16), (274, 3, 6)):
        value = struct.pack(order + ("I" if kind == 4 else "H"), number)
        tags += struct.pack(order + entry, tag, kind, 1) + value.ljust(8 if big else 4, b"\0")
    mark = b"II" if order == "<" else b"MM"
    if big:
        head = mark + struct.pack(order + "HHHQQ", 43, 8, 0, 16, 4)
    else:
        head = mark + struct.pack(order + "HIH", 42, 8, 4)
    (tmp_path / "a.tif").write_bytes(head + tags)
    assert read_header(tmp_path / "a.tif") == Header(300, 70000, 6, "TIFF", 16)


def test_bits_of_a_channel(tmp_path):
    deep = PIXELS.astype(np.uint16) * 257
    for suffix in ("png", "tif"):
        path = tmp_path / f"a.{suffix}"
        cv2.imwrite(str(path), deep)
        assert read_header(path).bits == 16


def test_a_bmp_from_bottom_up_and_of_os2(tmp_path):
    path = tmp_path / "a.bmp"
    path.write_bytes(b"BM" + bytes(12) + struct.pack("<Iii", 40, 9, -5) + bytes(30))
    assert read_header(path).size == (5, 9)
    path.write_bytes(b"BM" + bytes(12) + struct.pack("<IHH", 12, 9, 5) + bytes(30))
    assert read_header(path).size == (5, 9)


def test_a_large_header_is_found_behind_other_segments(tmp_path):
    path = saved(tmp_path / "a.jpg", icc_profile=bytes(200_000))
    assert read_header(path).size == (5, 9)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize(
    "name, data, message",
    [
        ("a.txt", b"no image", "a.txt' is not an image, or its format is not supported"),
        ("a.png", b"\x89PNG\r\n\x1a\n" + chunk(b"IDAT", b""), "PNG that starts with b'IDAT'"),
        ("a.png", b"\x89PNG\r\n\x1a\n", "PNG without a size"),
        ("a.png", b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIB4x", 0, 9, 8)), "image of 9 x 0 .*no pixels"),
        ("a.jpg", b"\xff\xd8\xff\xd9", "JPEG"),
        ("a.jpg", b"\xff\xd8\xff\xe0\0\x01", "JPEG without a size"),
        ("a.jpg", b"\xff\xd8" + b"\xff" * 500_000, "JPEG without any data"),
        ("a.jpg", b"\xff\xd8\xff\xe1\0\x04ab", "missing JPEG marker at byte 8"),
        ("a.tif", b"II*\0\x08\0\0\0\0\0", "TIFF without a size"),
        ("a.tif", b"II+\0\x08\0\0\0" + b"\xff" * 8, "is truncated, damaged or not an image"),
        ("a.tif", b"II*\0", "is truncated, damaged or not an image"),
        ("a.webp", b"RIFF\0\0\0\0WEBPALPH\0\0\0\0", "WebP without a size"),
        ("a.gif", b"GIF89a", "is truncated, damaged or not an image"),
        ("a.bmp", b"BM", "is truncated, damaged or not an image"),
        ("a.bmp", b"BMI am a text that begins like a BMP", "is not an image"),
    ],
)
def test_damaged_headers_are_named(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=message) as error:
        read_header(tmp_path / name)
    assert name in str(error.value)


def test_a_limit_in_pixels(tmp_path):
    path = saved(tmp_path / "a.bmp")
    assert read_header(path, max_pixels=45).size == (5, 9)
    with pytest.raises(ValueError, match=r"a.bmp' is 5 x 9 \(height x width\), 45 pixels, more than the limit of 44"):
        read_image_size(path, max_pixels=44)

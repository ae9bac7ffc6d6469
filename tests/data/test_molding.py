import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrcnn.config import Config
from mrcnn.data.molding import InputTransform, denormalize, fit_size, normalize
from mrcnn.network.pixels import PixelScaling
from tests import oracles

PLAIN = PixelScaling((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
FIT = {"mode": "fit", "min_dim": 40, "max_dim": 64}


@pytest.mark.parametrize(
    "size, expected",
    [
        ((480, 640), (800, 1066)),
        ((640, 480), (1066, 800)),
        ((400, 1000), (533, 1333)),
        ((1600, 1600), (800, 800)),
        ((1, 4000), (1, 1333)),
    ],
)
def test_fit_size_by_hand(size, expected):
    assert fit_size(*size, 800, 1333) == expected


def network_input(image, placement=None, out=None, **options):
    """[h, w, C] float32, window and scale, from an InputTransform with these options."""
    return InputTransform(**{"scaling": PLAIN, **options}).apply(image, placement, out)[:3]


def test_interpolates_between_pixel_centers():
    image = np.array([[0, 100]], np.uint8)[:, :, None].repeat(3, 2)
    pixels, window, scale = network_input(image, mode="fit", min_dim=2, max_dim=4)
    assert scale == (2, 2) and window.tolist() == [0, 0, 2, 4]
    np.testing.assert_array_equal(pixels[:2, :4, 0], [[0, 25, 75, 100]] * 2)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 8])
def test_molds_any_number_of_channels(channels):
    image = np.random.default_rng(0).integers(0, 256, (10, 16, channels), dtype=np.uint8)
    scaling = PixelScaling(tuple(range(channels)), (2.0,) * channels)
    pixels, window, scale = network_input(image, mode="none", min_dim=None, max_dim=None, scaling=scaling)
    assert pixels.shape == (32, 32, channels) and pixels.dtype == np.float32
    np.testing.assert_allclose(pixels[:10, :16], (image - np.arange(channels)) / 2)
    larger, _, _ = network_input(image, **FIT, scaling=scaling)
    assert larger.shape == (64, 64, channels)
    corner = (image[0, 0] - np.arange(channels)) / 2
    np.testing.assert_allclose(larger[0, 0], corner, atol=1e-4)


def shrunk(rows, *, size=2, antialias=True, channels=3):
    """[h, w] values, the same in each channel, resized to a square of `size`: [size, size, channels]."""
    image = np.repeat(np.array(rows, np.uint8)[:, :, None], channels, axis=2)
    scaling = PixelScaling((0.0,) * channels, (1.0,) * channels)
    return network_input(
        image, mode="fit", min_dim=size, max_dim=size, divisor=1, scaling=scaling, antialias=antialias
    )[0]


# A quarter of the size: area averages blocks of 4 x 4, bilinear the 2 x 2 pixels around the center of each
BLOCKS = np.zeros([8, 8], np.uint8)
BLOCKS[1:3, 1:3] = [[10, 20], [30, 40]]
BLOCKS[0, 4:] = 80


def test_antialias_averages_the_pixels_that_fall_together():
    halves = shrunk([[0, 2, 10, 20], [4, 6, 30, 40], [100, 100, 7, 7], [0, 0, 7, 7]])
    np.testing.assert_allclose(halves[:, :, 0], [[3, 25], [50, 7]])
    np.testing.assert_allclose(shrunk(BLOCKS)[:, :, 0], [[100 / 16, 20], [0, 0]])


def test_without_antialias_the_nearest_pixels_are_sampled():
    np.testing.assert_allclose(shrunk(BLOCKS, antialias=False)[:, :, 0], [[25, 0], [0, 0]])


def test_antialias_does_not_touch_what_grows():
    rows = [[0, 100], [50, 150]]
    grown = shrunk(rows, size=4)
    np.testing.assert_array_equal(grown, shrunk(rows, size=4, antialias=False))
    np.testing.assert_allclose(grown[0, :, 0], [0, 25, 75, 100])


@pytest.mark.parametrize("antialias, expected", [(True, 100 / 16), (False, 25)])
def test_resizes_more_channels_than_opencv_averages(antialias, expected):
    pixels = shrunk(BLOCKS, antialias=antialias, channels=5)
    assert pixels.shape == (2, 2, 5)
    np.testing.assert_allclose(pixels[0, 0], [expected] * 5)


@pytest.mark.parametrize("max_dim, side", [(1024, 1024), (100, 128), (1333, 1344)])
def test_a_square_network_input_is_a_multiple_of_the_divisor(max_dim, side):
    place = InputTransform(PLAIN, mode="square", min_dim=0, max_dim=max_dim).place(60, max_dim)
    assert place.input_size == (side, side)
    assert (place.height, place.width) == (60, max_dim), "the image keeps its size"
    assert (place.top, place.left) == ((side - 60) // 2, (side - max_dim) // 2)


def test_mold_image_values_and_the_way_back(matterport):
    image, mean = matterport["img_150x200"], [123.7, 116.8, 103.9]
    pixels = normalize(image, mean)
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels, matterport["mold_image_150x200"], atol=1e-5)
    np.testing.assert_array_equal(denormalize(pixels, mean), matterport["unmold_image_150x200"])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_unmold_image_reverses_normalize(seed, bgr):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    scaling = PixelScaling(tuple(rng.uniform(0, 255, 3)), tuple(rng.uniform(1, 200, 3)), bgr)
    np.testing.assert_array_equal(denormalize(normalize(image, *scaling), *scaling), image)


def test_mean_is_rgb_and_channels_are_reversed_after_it():
    image = np.array([[[10, 20, 30]]], np.uint8)
    np.testing.assert_array_equal(normalize(image, (1, 2, 3), (1, 2, 3), bgr=True), [[[9, 9, 9]]])
    np.testing.assert_array_equal(normalize(image, 0, 1, bgr=True), [[[30, 20, 10]]])
    with pytest.raises(ValueError, match=r"mean \(1.0, 2.0\) does not fit an image with 3 channels"):
        normalize(image, (1, 2))


def test_fit_places_at_the_top_left_and_pads_with_zero_after_normalization():
    image = np.full([20, 30, 3], 100, np.uint8)
    scaling = PixelScaling((50.0,) * 3, (10.0,) * 3)
    pixels, window, scale = network_input(image, **FIT, scaling=scaling)
    assert pixels.shape == (64, 64, 3)  # 40 x 60, padded to multiples of 32
    np.testing.assert_array_equal(window, [0, 0, 40, 60])
    assert scale == (2, 2) and window.dtype == np.float32
    np.testing.assert_allclose(pixels[:40, :60], 5)
    assert not pixels[40:].any() and not pixels[:, 60:].any()


def test_a_pad_pixel_is_normalized_like_the_image():
    """matterport pads with black before subtracting the mean; by hand, on all four sides and reversed for BGR."""
    image, scaling = np.full([10, 30, 3], 100, np.uint8), PixelScaling((10.0, 20.0, 30.0), (2.0, 4.0, 5.0), True)
    pixels, window, _ = network_input(
        image, mode="pad64", min_dim=None, max_dim=None, scaling=scaling, pad_pixel=(0, 40, 255)
    )
    np.testing.assert_array_equal(window, [27, 17, 37, 47])
    np.testing.assert_allclose(pixels[30, 20], [14, 20, 45])
    outside = np.ones([64, 64], bool)
    outside[27:37, 17:47] = False
    np.testing.assert_allclose(pixels[outside], np.tile([45, 5, -5], (outside.sum(), 1)))
    out = np.full([64, 64, 3], 7, np.float32)
    again = network_input(
        image, out=out, mode="pad64", min_dim=None, max_dim=None, scaling=scaling, pad_pixel=(0, 40, 255)
    )[0]
    assert again is out
    np.testing.assert_array_equal(again, pixels)
    with pytest.raises(ValueError, match="does not fit an image with 3 channels"):
        network_input(image, mode="pad64", min_dim=None, max_dim=None, scaling=PLAIN, pad_pixel=(0, 40))


def test_skimage_resizes_as_the_old_package(matterport):
    """Exactly, except for values that are integers up to rounding and may be truncated to the integer below."""
    options = {"mode": "square", "min_dim": 256, "max_dim": 256, "scaling": PLAIN, "resizer": "skimage"}
    pixels, window, _ = network_input(matterport["img_150x200"], **options)
    apart = pixels - matterport["resize_square_256"]
    assert np.isin(apart, [0, 1]).all() and (apart != 0).mean() < 5e-4
    np.testing.assert_array_equal(window, [32, 0, 224, 256])


@pytest.mark.parametrize(
    "height, width, size",
    [
        (480, 640, (800, 1067)),
        (427, 640, (800, 1199)),
        (500, 333, (1201, 800)),
        (1000, 400, (1333, 533)),
        (640, 1100, (776, 1333)),
    ],
)
def test_pillow_rounds_the_size_as_detectron2(height, width, size):
    """Detectron2's ResizeShortestEdge at 800 / 1333, by hand."""
    assert fit_size(height, width, 800, 1333, half_up=True) == size
    image = np.zeros((height, width, 3), np.uint8)
    _, window, scale = network_input(image, mode="fit", min_dim=800, max_dim=1333, scaling=PLAIN, resizer="pillow")
    assert tuple(window[2:]) == size and scale == (size[0] / height, size[1] / width)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_pillow_averages_as_wide_as_it_shrinks(channels):
    """A triangle of 8 pixels on each side where 8 pixels become one; integer values."""
    image = np.zeros((16, 16, channels), np.uint8)
    image[:, 8] = 240
    pixels, _, _ = network_input(
        image,
        mode="fit",
        min_dim=2,
        max_dim=2,
        divisor=1,
        scaling=PixelScaling((0.0,) * channels, (1.0,) * channels),
        resizer="pillow",
    )
    # Weights 1 - |d| / 8 at distance d from the center of a cell; no weight beyond the border
    distance = np.abs(np.arange(16) + 0.5 - np.array([[4], [12]]))
    weights = np.maximum(0, 1 - distance / 8)
    expected = 240 * weights[:, 8] / weights.sum(axis=1)
    np.testing.assert_allclose(pixels[..., 0], np.tile(expected, (2, 1)), atol=0.51)
    assert (pixels % 1 == 0).all() and (pixels == pixels[..., :1]).all()


@pytest.mark.parametrize("name", ["a", "b"])
def test_pillow_resizes_as_detectron2(name):
    arrays = oracles.load(f"detectron2/d2_oracle_R_50_{name}.npz")
    pixels, _, _ = network_input(
        arrays["image_rgb"], mode="fit", min_dim=320, max_dim=512, scaling=PLAIN._replace(bgr=True), resizer="pillow"
    )
    np.testing.assert_array_equal(pixels, arrays["resized_bgr"])


def test_skimage_leaves_a_image_of_the_right_size_alone():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    pixels, _, _ = network_input(image, mode="square", min_dim=64, max_dim=64, scaling=PLAIN, resizer="skimage")
    np.testing.assert_array_equal(pixels, image)


def test_the_square_of_a_training_holds_every_image():
    transform = InputTransform(PLAIN, **FIT)
    assert transform.square == (64, 64)
    for size in ((20, 30, 3), (30, 20, 3), (10, 90, 3)):
        placement = transform.place(*size[:2], input_size=transform.square)
        assert transform.apply(np.zeros(size, np.uint8), placement).image.shape == (64, 64, 3)
    assert InputTransform(PLAIN, mode="fit", min_dim=800, max_dim=1333).square == (1344, 1344)
    assert InputTransform(PLAIN, mode="crop", min_dim=200, max_dim=1333).square == (224, 224)
    with pytest.raises(ValueError, match="maximum side is None.*set IMAGE_MAX_DIM"):
        _ = InputTransform(PLAIN, mode="none").square


def test_few_sizes_hold_every_image():
    """Halfway between 800 and 1344 is 1072, which is not a multiple of 32."""
    transform = InputTransform(PLAIN, mode="fit", min_dim=800, max_dim=1333)
    sizes = transform.few_sizes()
    assert sizes == [(800, 1088), (1088, 800), (800, 1344), (1344, 800), (1344, 1344)]
    for height, width in ((480, 640), (640, 480), (1, 4000), (4000, 1), (500, 500)):
        tall, wide = transform.place(height, width).input_size
        assert any(tall <= size[0] and wide <= size[1] for size in sizes[:4])
    assert InputTransform(PLAIN, mode="fit", min_dim=64, max_dim=64).few_sizes() == [(64, 64)]


def test_the_transform_of_the_settings():
    config = Config(IMAGE_RESIZE_MODE="crop", IMAGE_MIN_DIM=64, IMAGE_MAX_DIM=96, IMAGE_MIN_SCALE=2)
    config.IMAGE_PAD_PIXEL = (1, 2, 3)
    training = InputTransform.from_config(config, PLAIN, training=True)
    assert training == InputTransform(PLAIN, "crop", 64, 96, 2, 32, "opencv", True, (1, 2, 3))
    detection = InputTransform.from_config(config, PLAIN, training=False)
    assert (detection.mode, detection.max_dim) == ("square", 96), "detection sees the whole image"
    config.IMAGE_MAX_DIM = None
    assert InputTransform.from_config(config, PLAIN, training=False).max_dim == 64


def test_square_centers_as_the_old_package(matterport):
    image = matterport["img_150x200"]
    pixels, window, scale = network_input(image, mode="square", min_dim=256, max_dim=256, scaling=PLAIN)
    np.testing.assert_array_equal(window, [32, 0, 224, 256])
    assert scale == (1.28, 1.28)
    inside = np.abs(pixels - matterport["resize_square_256"])[33:223, 1:255]  # but the border is not darkened
    assert inside.max() <= 1.001


def test_pad64_and_none():
    assert InputTransform(PLAIN, mode="pad64").place(70, 50) == (70, 50, 29, 7, 128, 64)
    assert InputTransform(PLAIN, mode="pad64", min_dim=100).place(70, 50)[:2] == (140, 100)
    pixels, window, scale = network_input(np.zeros([70, 50, 3], np.uint8), mode="none", min_dim=800, max_dim=1333)
    assert pixels.shape == (96, 64, 3) and scale == (1, 1)
    np.testing.assert_array_equal(window, [0, 0, 70, 50])


def test_errors_name_mode_and_sizes():
    with pytest.raises(ValueError, match="unknown IMAGE_RESIZE_MODE 'fill'"):
        InputTransform(PLAIN, mode="fill", min_dim=1, max_dim=1).place(10, 10)
    message = "becomes 100 x 50 in IMAGE_RESIZE_MODE 'none', larger than the network input of 64 x 64"
    with pytest.raises(ValueError, match=message):
        InputTransform(PLAIN, mode="none").place(100, 50, input_size=(64, 64))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 200), st.integers(1, 200), st.sampled_from(["fit", "square"]), st.booleans())
def test_window_and_scale_lead_from_image_to_network_input(height, width, mode, square):
    image = np.full([height, width, 3], 255, np.uint8)
    transform = InputTransform(PLAIN, mode=mode, min_dim=40, max_dim=64)
    placement = transform.place(height, width, input_size=transform.square if square else None)
    pixels, window, (sy, sx), size = transform.apply(image, placement)
    assert size == (height, width)
    y1, x1, y2, x2 = np.array([0, 0, height, width]) * (sy, sx, sy, sx) + np.tile(window[:2], 2)
    np.testing.assert_allclose([y1, x1, y2, x2], window, atol=1e-4)
    covered = np.zeros(pixels.shape[:2], bool)
    covered[int(window[0]) : int(window[2]), int(window[1]) : int(window[3])] = True
    np.testing.assert_array_equal((pixels > 0).all(axis=2), covered)


@pytest.mark.parametrize("mode", ["fit", "square", "none"])
@pytest.mark.parametrize("size", [(20, 30), (90, 50), (30, 64), (64, 64)])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_a_place_in_a_batch_is_filled_whatever_it_held(mode, size, channels):
    image = np.random.default_rng(0).integers(0, 256, (*size, channels), dtype=np.uint8)
    scaling = PixelScaling((7.0,) * channels, (3.0,) * channels)
    transform = InputTransform(scaling, mode=mode, min_dim=40, max_dim=96 if mode == "none" else 64)
    placement = transform.place(*size, input_size=transform.square)
    expected = transform.apply(image, placement)
    batch = np.full([2, *transform.square, channels], np.nan, np.float32)
    found = transform.apply(image, placement, batch[1])
    assert np.shares_memory(found.image, batch) and np.isnan(batch[0]).all()
    np.testing.assert_array_equal(found.image, expected.image)
    np.testing.assert_array_equal(found.window, expected.window)
    assert found.scale == expected.scale


def test_a_place_of_another_size_is_refused():
    transform, image = InputTransform(PLAIN, **FIT), np.zeros([20, 30, 3], np.uint8)
    placement = transform.place(20, 30, input_size=(64, 64))
    for out in (np.zeros([64, 32, 3], np.float32), np.zeros([64, 64, 3]), np.zeros([64, 64, 1], np.float32)):
        with pytest.raises(ValueError, match=r"`out` is float\d\d of shape .*; expected float32 of \(64, 64, 3\)"):
            transform.apply(image, placement, out)


@pytest.mark.parametrize("size", [(20, 30), (100, 150)])
@pytest.mark.parametrize("bgr", [False, True])
def test_normalizing_before_or_after_resizing_is_the_same(size, bgr):
    """Images that grow are normalized first, images that shrink last, whichever is less work."""
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    scaling = PixelScaling((120.0, 110.0, 100.0), (60.0, 50.0, 40.0), bgr)
    pixels, window, _ = network_input(image, **FIT, scaling=scaling, antialias=True)
    plain, _, _ = network_input(image, **FIT, scaling=PLAIN, antialias=True)
    y1, x1, y2, x2 = window.astype(int)
    expected = normalize(plain[y1:y2, x1:x2], *scaling)
    np.testing.assert_allclose(pixels[y1:y2, x1:x2], expected, atol=1e-5)


def test_a_part_of_a_image_is_pixels_as_its_copy():
    image = np.random.default_rng(2).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    for part in (image[5:25, 10:40], image[:20, :30][:, ::-1]):
        pixels, _, _ = network_input(part, **FIT, scaling=PLAIN)
        np.testing.assert_array_equal(pixels, network_input(part.copy(), **FIT, scaling=PLAIN)[0])

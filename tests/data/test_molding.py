import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrcnn.data import molding
from mrcnn.data.molding import (
    PixelScaling,
    canvas_side,
    fit_image,
    fit_size,
    mold_for_network,
    mold_image,
    pad_to,
    plan,
    unmold_image,
)
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


def test_fit_image_interpolates_between_pixel_centres():
    image = np.array([[0, 100]], np.uint8)[:, :, None].repeat(3, 2)
    fitted, scale = fit_image(image, 2, 4)
    assert scale == (2, 2) and fitted.dtype == np.uint8
    np.testing.assert_array_equal(fitted[:, :, 0], [[0, 25, 75, 100]] * 2)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 8])
def test_molds_any_number_of_channels(channels):
    image = np.random.default_rng(0).integers(0, 256, (10, 16, channels), dtype=np.uint8)
    scaling = PixelScaling(tuple(range(channels)), (2.0,) * channels)
    molded, window, scale = mold_for_network(image, mode="none", min_dim=None, max_dim=None, scaling=scaling)
    assert molded.shape == (32, 32, channels) and molded.dtype == np.float32
    np.testing.assert_allclose(molded[:10, :16], (image - np.arange(channels)) / 2)
    larger, _, _ = mold_for_network(image, **FIT, scaling=scaling)
    assert larger.shape == (64, 64, channels)
    corner = (image[0, 0] - np.arange(channels)) / 2
    np.testing.assert_allclose(larger[0, 0], corner, atol=1e-4)


def shrunk(rows, *, size=2, antialias=True, channels=3):
    """[h, w] values, the same in each channel, resized to a square of `size`: [size, size, channels]."""
    image = np.repeat(np.array(rows, np.uint8)[:, :, None], channels, axis=2)
    scaling = PixelScaling((0.0,) * channels, (1.0,) * channels)
    return mold_for_network(
        image, mode="fit", min_dim=size, max_dim=size, divisor=1, scaling=scaling, antialias=antialias
    )[0]


# A quarter of the size: area averages blocks of 4 x 4, bilinear the 2 x 2 pixels around the centre of each
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
    molded = shrunk(BLOCKS, antialias=antialias, channels=5)
    assert molded.shape == (2, 2, 5)
    np.testing.assert_allclose(molded[0, 0], [expected] * 5)


@pytest.mark.parametrize("max_dim, side", [(1024, 1024), (100, 128), (1333, 1344)])
def test_square_canvas_is_a_multiple_of_the_divisor(max_dim, side):
    place = plan(60, max_dim, mode="square", min_dim=0, max_dim=max_dim)
    assert (place.canvas_height, place.canvas_width) == (side, side)
    assert (place.height, place.width) == (60, max_dim), "the photograph's own size stays"
    assert (place.top, place.left) == ((side - 60) // 2, (side - max_dim) // 2)


def test_mold_image_values_and_the_way_back(matterport):
    image, mean = matterport["img_150x200"], [123.7, 116.8, 103.9]
    molded = mold_image(image, mean)
    assert molded.dtype == np.float32
    np.testing.assert_allclose(molded, matterport["mold_image_150x200"], atol=1e-5)
    np.testing.assert_array_equal(unmold_image(molded, mean), matterport["unmold_image_150x200"])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_unmold_image_reverses_mold_image(seed, bgr):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    scaling = PixelScaling(tuple(rng.uniform(0, 255, 3)), tuple(rng.uniform(1, 200, 3)), bgr)
    np.testing.assert_array_equal(unmold_image(mold_image(image, *scaling), *scaling), image)


def test_mean_is_rgb_and_channels_are_reversed_after_it():
    image = np.array([[[10, 20, 30]]], np.uint8)
    np.testing.assert_array_equal(mold_image(image, (1, 2, 3), (1, 2, 3), bgr=True), [[[9, 9, 9]]])
    np.testing.assert_array_equal(mold_image(image, 0, 1, bgr=True), [[[30, 20, 10]]])
    with pytest.raises(ValueError, match=r"mean \(1.0, 2.0\) does not fit an image of 3 channels"):
        mold_image(image, (1, 2))


def test_fit_places_at_the_top_left_and_pads_with_zero_after_normalisation():
    image = np.full([20, 30, 3], 100, np.uint8)
    scaling = PixelScaling((50.0,) * 3, (10.0,) * 3)
    molded, window, scale = mold_for_network(image, **FIT, scaling=scaling)
    assert molded.shape == (64, 64, 3)  # 40 x 60, padded to multiples of 32
    np.testing.assert_array_equal(window, [0, 0, 40, 60])
    assert scale == (2, 2) and window.dtype == np.float32
    np.testing.assert_allclose(molded[:40, :60], 5)
    assert not molded[40:].any() and not molded[:, 60:].any()


def test_a_pad_pixel_is_normalised_as_the_photograph_is():
    """matterport pads with black before the mean goes; values by hand, on all four sides and reversed for BGR."""
    image, scaling = np.full([10, 30, 3], 100, np.uint8), PixelScaling((10.0, 20.0, 30.0), (2.0, 4.0, 5.0), True)
    molded, window, _ = mold_for_network(
        image, mode="pad64", min_dim=None, max_dim=None, scaling=scaling, pad_pixel=(0, 40, 255)
    )
    np.testing.assert_array_equal(window, [27, 17, 37, 47])
    np.testing.assert_allclose(molded[30, 20], [14, 20, 45])
    outside = np.ones([64, 64], bool)
    outside[27:37, 17:47] = False
    np.testing.assert_allclose(molded[outside], np.tile([45, 5, -5], (outside.sum(), 1)))
    canvas = np.full([64, 64, 3], 7, np.float32)
    again = mold_for_network(
        image, mode="pad64", min_dim=None, max_dim=None, scaling=scaling, pad_pixel=(0, 40, 255), canvas=canvas
    )[0]
    assert again is canvas
    np.testing.assert_array_equal(again, molded)
    with pytest.raises(ValueError, match="does not fit an image of 3 channels"):
        mold_for_network(image, mode="pad64", min_dim=None, max_dim=None, scaling=PLAIN, pad_pixel=(0, 40))


def test_skimage_resizes_as_the_old_package(matterport):
    """To the pixel, but for a few values that are whole but for rounding, and are cut to the one below or not."""
    options = {"mode": "square", "min_dim": 256, "max_dim": 256, "scaling": PLAIN, "resizer": "skimage"}
    molded, window, _ = mold_for_network(matterport["img_150x200"], **options)
    apart = molded - matterport["resize_square_256"]
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
    """Its ResizeShortestEdge at 800 / 1333, by hand."""
    assert fit_size(height, width, 800, 1333, half_up=True) == size
    image = np.zeros((height, width, 3), np.uint8)
    _, window, scale = mold_for_network(image, mode="fit", min_dim=800, max_dim=1333, scaling=PLAIN, resizer="pillow")
    assert tuple(window[2:]) == size and scale == (size[0] / height, size[1] / width)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_pillow_averages_as_wide_as_it_shrinks(channels):
    """A triangle of 8 pixels to each side where 8 become one; whole values."""
    image = np.zeros((16, 16, channels), np.uint8)
    image[:, 8] = 240
    molded, _, _ = mold_for_network(
        image,
        mode="fit",
        min_dim=2,
        max_dim=2,
        divisor=1,
        scaling=PixelScaling((0.0,) * channels, (1.0,) * channels),
        resizer="pillow",
    )
    # Weights 1 - |d| / 8 of pixels d from the centre of a cell; beyond the border there is nothing to weigh
    distance = np.abs(np.arange(16) + 0.5 - np.array([[4], [12]]))
    weights = np.maximum(0, 1 - distance / 8)
    expected = 240 * weights[:, 8] / weights.sum(axis=1)
    np.testing.assert_allclose(molded[..., 0], np.tile(expected, (2, 1)), atol=0.51)
    assert (molded % 1 == 0).all() and (molded == molded[..., :1]).all()


@pytest.mark.parametrize("name", ["a", "b"])
def test_pillow_resizes_as_detectron2(name):
    arrays = oracles.load(f"detectron2/d2_oracle_R_50_{name}.npz")
    molded, _, _ = mold_for_network(
        arrays["image_rgb"], mode="fit", min_dim=320, max_dim=512, scaling=PLAIN._replace(bgr=True), resizer="pillow"
    )
    np.testing.assert_array_equal(molded, arrays["resized_bgr"])


def test_skimage_leaves_a_photograph_of_the_right_size_alone():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    molded, _, _ = mold_for_network(image, mode="square", min_dim=64, max_dim=64, scaling=PLAIN, resizer="skimage")
    np.testing.assert_array_equal(molded, image)


def test_training_pads_to_one_square():
    for size in ((20, 30, 3), (30, 20, 3), (10, 90, 3)):
        molded, _, _ = mold_for_network(np.zeros(size, np.uint8), **FIT, scaling=PLAIN, pad_square=True)
        assert molded.shape == (64, 64, 3)
    assert canvas_side(1333, 32) == 1344
    with pytest.raises(ValueError, match="largest side is None.*set IMAGE_MAX_DIM"):
        canvas_side(None, 32)


def test_square_centres_as_the_old_package(matterport):
    image = matterport["img_150x200"]
    molded, window, scale = mold_for_network(image, mode="square", min_dim=256, max_dim=256, scaling=PLAIN)
    np.testing.assert_array_equal(window, [32, 0, 224, 256])
    assert scale == (1.28, 1.28)
    inside = np.abs(molded - matterport["resize_square_256"])[33:223, 1:255]  # but the border is not darkened
    assert inside.max() <= 1.001


def test_pad64_and_none():
    image = np.zeros([70, 50, 3], np.uint8)
    assert plan(70, 50, mode="pad64", min_dim=None, max_dim=None) == (70, 50, 29, 7, 128, 64)
    assert plan(70, 50, mode="pad64", min_dim=100, max_dim=None)[:2] == (140, 100)
    molded, window, scale = mold_for_network(image, mode="none", min_dim=800, max_dim=1333, scaling=PLAIN)
    assert molded.shape == (96, 64, 3) and scale == (1, 1)
    np.testing.assert_array_equal(window, [0, 0, 70, 50])


def test_errors_name_mode_and_sizes():
    with pytest.raises(ValueError, match="unknown IMAGE_RESIZE_MODE 'fill'"):
        plan(10, 10, mode="fill", min_dim=1, max_dim=1)
    with pytest.raises(ValueError, match="becomes 100 x 50 in IMAGE_RESIZE_MODE 'none', more than the 64 x 64"):
        plan(100, 50, mode="none", min_dim=64, max_dim=64, pad_square=True)
    with pytest.raises(ValueError, match=r"5 x 4 at \(0, 0\) does not fit into 4 x 4"):
        pad_to(np.zeros([5, 4, 3]), 4, 4)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 200), st.integers(1, 200), st.sampled_from(["fit", "square"]), st.booleans())
def test_window_and_scale_lead_from_photograph_to_input(height, width, mode, pad_square):
    image = np.full([height, width, 3], 255, np.uint8)
    molded, window, (sy, sx) = mold_for_network(
        image, mode=mode, min_dim=40, max_dim=64, scaling=PLAIN, pad_square=pad_square
    )
    y1, x1, y2, x2 = np.array([0, 0, height, width]) * (sy, sx, sy, sx) + np.tile(window[:2], 2)
    np.testing.assert_allclose([y1, x1, y2, x2], window, atol=1e-4)
    covered = np.zeros(molded.shape[:2], bool)
    covered[int(window[0]) : int(window[2]), int(window[1]) : int(window[3])] = True
    np.testing.assert_array_equal((molded > 0).all(axis=2), covered)


@pytest.mark.parametrize("mode", ["fit", "square", "none"])
@pytest.mark.parametrize("size", [(20, 30), (90, 50), (30, 64), (64, 64)])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_a_canvas_is_filled_whatever_it_held(mode, size, channels):
    image = np.random.default_rng(0).integers(0, 256, (*size, channels), dtype=np.uint8)
    max_dim = 96 if mode == "none" else 64
    options = {
        "mode": mode,
        "min_dim": 40,
        "max_dim": max_dim,
        "pad_square": True,
        "scaling": PixelScaling((7.0,) * channels, (3.0,) * channels),
    }
    expected, window, scale = mold_for_network(image, **options)
    batch = np.full([2, max_dim, max_dim, channels], np.nan, np.float32)
    molded, own_window, own_scale = mold_for_network(image, **options, canvas=batch[1])
    assert np.shares_memory(molded, batch) and np.isnan(batch[0]).all()
    np.testing.assert_array_equal(molded, expected)
    np.testing.assert_array_equal(own_window, window)
    assert own_scale == scale


def test_a_canvas_of_another_size_is_refused():
    image = np.zeros([20, 30, 3], np.uint8)
    for canvas in (np.zeros([64, 32, 3], np.float32), np.zeros([64, 64, 3]), np.zeros([64, 64, 1], np.float32)):
        with pytest.raises(ValueError, match=r"the canvas is float\d\d of shape .*; expected float32 of \(64, 64, 3\)"):
            mold_for_network(image, **FIT, scaling=PLAIN, pad_square=True, canvas=canvas)


@pytest.mark.parametrize("size", [(20, 30), (100, 150)])
@pytest.mark.parametrize("bgr", [False, True])
def test_normalising_before_or_after_resizing_is_the_same(size, bgr):
    """What grows is normalised first and what shrinks last, whichever is less work."""
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    scaling = PixelScaling((120.0, 110.0, 100.0), (60.0, 50.0, 40.0), bgr)
    molded, window, _ = mold_for_network(image, **FIT, scaling=scaling, antialias=True)
    plain, _, _ = mold_for_network(image, **FIT, scaling=PLAIN, antialias=True)
    y1, x1, y2, x2 = window.astype(int)
    expected = mold_image(plain[y1:y2, x1:x2], *scaling)
    np.testing.assert_allclose(molded[y1:y2, x1:x2], expected, atol=1e-5)


def test_a_part_of_a_photograph_is_molded_as_its_copy():
    image = np.random.default_rng(2).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    for part in (image[5:25, 10:40], image[:20, :30][:, ::-1]):
        molded, _, _ = mold_for_network(part, **FIT, scaling=PLAIN)
        np.testing.assert_array_equal(molded, mold_for_network(part.copy(), **FIT, scaling=PLAIN)[0])


@pytest.mark.parametrize(
    ("size", "to"), [((61, 47), (20, 15)), ((61, 47), (60, 47)), ((64, 9), (2, 9)), ((7, 300), (4, 100))]
)
@pytest.mark.parametrize("channels", [1, 3, 6])
@pytest.mark.parametrize("strip", [1, 100, 1 << 17])
def test_shrinking_by_strips_is_resizing_of_floats(monkeypatch, size, to, channels, strip):
    image = np.random.default_rng(0).integers(0, 256, (*size, channels), dtype=np.uint8)
    monkeypatch.setattr(molding, "STRIP", strip)
    expected = molding._resize(image.astype(np.float32), *to)
    np.testing.assert_allclose(
        molding._shrink(image, *to, antialias=False),
        expected,
        atol=1e-3,
        err_msg="OpenCV is off by 5e-4 itself, for two channels",
    )

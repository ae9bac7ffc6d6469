import numpy as np
import pytest

from mrcnn.data import resize


@pytest.mark.parametrize(
    ("size", "to"), [((61, 47), (20, 15)), ((61, 47), (60, 47)), ((64, 9), (2, 9)), ((7, 300), (4, 100))]
)
@pytest.mark.parametrize("channels", [1, 3, 6])
@pytest.mark.parametrize("strip", [1, 100, 1 << 17])
def test_shrinking_by_strips_is_resizing_of_floats(monkeypatch, size, to, channels, strip):
    image = np.random.default_rng(0).integers(0, 256, (*size, channels), dtype=np.uint8)
    monkeypatch.setattr(resize, "STRIP", strip)
    expected = resize.resize(image.astype(np.float32), *to)
    np.testing.assert_allclose(
        resize.shrink(image, *to, antialias=False),
        expected,
        atol=1e-3,
        err_msg="OpenCV is off by 5e-4 itself, for two channels",
    )


@pytest.mark.parametrize("size", [(30, 40), (77, 130), (299, 399), (1, 1), (150, 200)])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_means_in_strips_are_those_of_the_whole_image(monkeypatch, size, channels):
    monkeypatch.setattr(resize, "STRIP", 4096)  # several strips, which end within a source row
    image = np.random.default_rng(0).integers(0, 256, (300, 400, channels), np.uint8)
    whole = resize.resize(image.astype(np.float32), *size, antialias=True)
    np.testing.assert_allclose(resize.shrink(image, *size, antialias=True), whole, atol=1e-4)

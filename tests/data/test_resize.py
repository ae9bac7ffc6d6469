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

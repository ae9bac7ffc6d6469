"""DCT-Mask: its transform against SciPy's, and masks of few coefficients."""

import numpy as np
import pytest
from keras import ops
from scipy.fft import dctn

import heads
from heads.dct import MaskOfCoefficients, transform
from heads.protocol import check


def disc(side):
    y, x = np.mgrid[:side, :side] / side
    return ((y - 0.45) ** 2 / 0.09 + (x - 0.55) ** 2 / 0.06 < 1).astype(np.float32)[None]


def test_the_coefficients_are_the_lowest_of_the_cosine_transform():
    masks = np.random.default_rng(0).random((2, 32, 32)).astype(np.float32)
    expected = dctn(masks, axes=(1, 2), norm="ortho")
    triangle = np.concatenate([expected[:, row, : 8 - row] for row in range(8)], axis=-1)
    assert triangle.shape == (2, 36)
    np.testing.assert_allclose(transform(masks, 8), triangle, atol=1e-5)


def test_all_coefficients_give_the_mask_back_and_300_nearly():
    small = disc(16)
    (mask,) = np.asarray(MaskOfCoefficients(16)(transform(small, 16)))[..., 0]
    assert np.abs(mask - small[0]).mean() < 0.1, "half of the coefficients are beyond the triangle"
    large = disc(128)
    (mask,) = np.asarray(MaskOfCoefficients(128)(transform(large, 24)))[..., 0]
    assert mask.min() >= 0 and mask.max() <= 1
    both, either = ((mask >= 0.5) & (large[0] > 0)).sum(), ((mask >= 0.5) | (large[0] > 0)).sum()
    assert both / either > 0.99


def test_the_right_coefficients_have_no_loss():
    head = heads.make("dct", (14, 14, 8), 3, {"filters": 8, "units": 16, "mask_size": 64, "frequencies": 6})
    targets = check.trial_targets(
        class_ids=ops.ones((2,), "int32"),
        weight=ops.convert_to_tensor([1.0, 0.0]),
        boxes=ops.convert_to_tensor([[8.0, 8.0, 82.0, 72.0]] * 2),
        image_index=ops.zeros((2,), "int32"),
    )
    right = transform(targets.at_points(heads.cell_centers(64)[None]).numpy().reshape(-1, 64, 64) >= 0.5, 6)
    loss = head.loss({"coefficients": right}, targets)["mrcnn_mask_loss"]
    assert float(loss[0]) == pytest.approx(0, abs=1e-4) and float(loss[1]) == 1
    value, _ = head.loss({"coefficients": right + 1.0}, targets)["mrcnn_mask_loss"]
    assert float(value) == pytest.approx(21 * 0.007, rel=1e-3)


def test_masks_are_of_128_cells_and_of_whatever_class():
    head = heads.make("dct", (14, 14, 8), 5, {"filters": 8, "units": 16})
    assert head.model.output["masks"].shape == (None, 128, 128, 1)
    assert head.model.output["coefficients"].shape == (None, 300)


@pytest.mark.parametrize("frequencies", [0, 17])
def test_more_frequencies_than_cells_are_refused(frequencies):
    with pytest.raises(ValueError, match=rf"lie in 1..mask_size; received {frequencies} and mask_size=16"):
        heads.make("dct", (14, 14, 8), 3, {"frequencies": frequencies, "mask_size": 16})

"""Anchors of the old package: by hand, and its own values."""

import numpy as np
import pytest

from mrcnn.config import Config
from mrcnn.legacy.anchors import compute_backbone_shapes, generate_anchors, generate_pyramid_anchors
from mrcnn.legacy.boxes import norm_boxes
from tests import oracles


def test_shapes_are_rounded_up():
    shapes = compute_backbone_shapes(Config(), (100, 256, 3))
    assert shapes.tolist() == [[25, 64], [13, 32], [7, 16], [4, 8], [2, 4]]


def test_anchors_by_hand():
    anchors = generate_anchors(8, [0.25, 1], (1, 2), 10, 1)
    # A ratio is width / height: 0.25 is 16 high and 4 wide
    assert anchors.tolist() == [[-8, -2, 8, 2], [-4, -4, 4, 4], [-8, 8, 8, 12], [-4, 6, 4, 14]]
    assert generate_anchors(8, [1], (3, 3), 4, 2)[:, :2].tolist() == [[-4, -4], [-4, 4], [4, -4], [4, 4]]
    assert generate_anchors((2, 4), [1], (1, 1), 4, 1).tolist() == [[-1, -1, 1, 1], [-2, -2, 2, 2]]


def test_anchors_are_the_old_package_s():
    old = oracles.load("matterport/utils.npz")["generate_anchors_32_stride2"]
    np.testing.assert_allclose(generate_anchors(32, [0.5, 1, 2], (4, 6), 8, 2), old, atol=1e-9)


@pytest.mark.parametrize("shape", [(256, 256), (192, 320)])
def test_pyramids_are_the_old_package_s(shape):
    old, config, size = oracles.load("matterport/utils.npz"), Config(), "x".join(map(str, shape))
    shapes = compute_backbone_shapes(config, shape)
    np.testing.assert_array_equal(shapes, old[f"backbone_shapes_{size}"])
    anchors = generate_pyramid_anchors(
        config.RPN_ANCHOR_SCALES, config.RPN_ANCHOR_RATIOS, shapes, config.BACKBONE_STRIDES, config.RPN_ANCHOR_STRIDE
    )
    np.testing.assert_allclose(anchors, old[f"pyramid_anchors_{size}"], atol=1e-9)
    np.testing.assert_allclose(norm_boxes(anchors, shape), old[f"pyramid_anchors_norm_{size}"], atol=1e-6)

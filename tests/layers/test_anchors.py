"""Anchors against values by hand and the three original programs."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from mrcnn.layers.anchors import Anchors, cell_anchors, pyramid_anchors
from mrcnn.ops import boxes as box_ops

ORACLES = Path(__file__).resolve().parents[3] / "shared" / "oracles"
SCALES, RATIOS, STRIDES = (32, 64, 128, 256, 512), (0.5, 1, 2), (4, 8, 16, 32, 64)


def oracle(name):
    if not (ORACLES / name).exists():
        pytest.skip(f"{ORACLES / name} is absent")
    return np.load(ORACLES / name)


def test_cell_anchors_by_hand():
    np.testing.assert_allclose(cell_anchors(8, (1, 4)), [[-4, -4, 4, 4], [-8, -2, 8, 2]])
    np.testing.assert_allclose(cell_anchors(8, (1, 4), ratio_meaning="width/height"), [[-4, -4, 4, 4], [-2, -8, 2, 8]])


def test_cell_anchors_round_to_even():
    # 8 * sqrt(2) / 2 = 5.66, 8 / sqrt(2) / 2 = 2.83; halves of 5 are 2.5
    np.testing.assert_array_equal(cell_anchors(8, (2,), rounded=True), [[-6, -3, 6, 3]])
    np.testing.assert_array_equal(cell_anchors(5, (1,), rounded=True), [[-2, -2, 2, 2]])


def test_pyramid_order_is_y_x_ratio():
    (anchors,) = pyramid_anchors((8,), (1, 4), [(2, 3)], (16,))
    centers = (anchors[:, :2] + anchors[:, 2:]) / 2
    np.testing.assert_allclose(centers[::2], [[0, 0], [0, 16], [0, 32], [16, 0], [16, 16], [16, 32]])
    np.testing.assert_allclose(centers[::2], centers[1::2])
    sides = anchors[:, 2:] - anchors[:, :2]
    np.testing.assert_allclose(sides[:4], [[8, 8], [16, 4], [8, 8], [16, 4]])


def test_anchor_stride_skips_cells():
    (anchors,) = pyramid_anchors((8,), (1,), [(3, 5)], (4,), anchor_stride=2)
    centers = (anchors[:, :2] + anchors[:, 2:]) / 2
    np.testing.assert_allclose(centers, [[y, x] for y in (0, 8) for x in (0, 8, 16)])


def test_unknown_ratio_meaning_is_named():
    with pytest.raises(ValueError, match=r"ratio_meaning is 'h/w'; use one of 'height/width', 'width/height'"):
        cell_anchors(8, (1,), ratio_meaning="h/w")


@pytest.mark.parametrize("anchor_stride", [1, 2])
@pytest.mark.parametrize("rounded", [False, True])
def test_layer_gives_the_same_for_sizes_known_or_not(anchor_stride, rounded):
    settings = dict(anchor_stride=anchor_stride, rounded=rounded, ratio_meaning="width/height")
    layer = Anchors(SCALES[:2], RATIOS, STRIDES[:2], **settings)
    inputs = [keras.Input((None, None, 1)), keras.Input((None, None, 1))]
    model = keras.Model(inputs, layer(inputs))
    for shapes in ([(7, 12), (4, 6)], [(5, 2), (3, 1)]):
        features = [np.zeros((2, *shape, 1), np.float32) for shape in shapes]
        expected = pyramid_anchors(SCALES[:2], RATIOS, shapes, STRIDES[:2], **settings)
        # Calling the model traces it with the sizes of its inputs; predict keeps the sizes unknown.
        for levels in (model(features), layer(features), model.predict_on_batch(features)):
            for level, wanted in zip(levels, expected, strict=True):
                assert ops.convert_to_numpy(level).dtype == np.float32
                np.testing.assert_array_equal(level, wanted)


@pytest.mark.parametrize("height, width, expected", [(800, 1344, (61, 64)), (320, 480, (64, 60)), (512, 512, (64, 64))])
def test_step_from_the_size_of_the_input(height, width, expected):
    """torchvision's: the input // the level, less than the stride where a level was rounded up, as P6 of 800 x 1344."""
    layer = Anchors(SCALES, RATIOS, STRIDES, rounded=True, step_from_size=True)
    shapes = [(-(-height // stride), -(-width // stride)) for stride in STRIDES]
    steps = [*STRIDES[:4], expected]
    wanted = pyramid_anchors(SCALES, RATIOS, shapes, steps, rounded=True)
    inputs = [keras.Input((None, None, 1)) for _ in STRIDES]
    model, features = keras.Model(inputs, layer(inputs)), [np.zeros((1, *shape, 1), np.float32) for shape in shapes]
    for levels in (layer(features), model.predict_on_batch(features)):
        for level, theirs in zip(levels, wanted, strict=True):
            np.testing.assert_array_equal(level, theirs)
    centers = (wanted[4][::3, :2] + wanted[4][::3, 2:]) / 2
    np.testing.assert_array_equal(centers[1], [0, expected[1]])
    np.testing.assert_array_equal(centers[shapes[4][1]], [expected[0], 0])


def test_layer_is_float32_under_mixed_precision():
    layer = Anchors((512,), (0.5,), (64,), dtype="mixed_bfloat16")
    (anchors,) = layer([np.zeros((1, 9, 9, 1), np.float32)])
    np.testing.assert_array_equal(anchors, pyramid_anchors((512,), (0.5,), [(9, 9)], (64,))[0])


def test_layer_returns_from_its_config():
    layer = Anchors(
        (8, 16), (1, 2), (4, 8), anchor_stride=2, rounded=True, ratio_meaning="width/height", step_from_size=True
    )
    again = Anchors.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()


def test_layer_names_mismatched_levels():
    with pytest.raises(ValueError, match=r"2 anchor scales \(8, 16\) for 1 strides"):
        Anchors((8, 16), (1,), (4,))
    with pytest.raises(ValueError, match="1 feature maps for 2 anchor scales"):
        Anchors((8, 16), (1,), (4, 8))([np.zeros((1, 2, 2, 1), np.float32)])


@pytest.mark.parametrize("height, width", [(256, 256), (192, 320)])
def test_as_matterport(height, width):
    file = oracle("matterport/utils.npz")
    shapes = [tuple(shape) for shape in file[f"backbone_shapes_{height}x{width}"]]
    anchors = np.concatenate(pyramid_anchors(SCALES, RATIOS, shapes, STRIDES, ratio_meaning="width/height"))
    # It adds in float64; float32 is 3e-5 wide at 512.
    np.testing.assert_allclose(anchors, file[f"pyramid_anchors_{height}x{width}"], atol=3e-5)
    last = np.array([height - 1, width - 1] * 2)
    normalized = ops.convert_to_numpy(box_ops.to_inclusive(anchors)) / last
    np.testing.assert_allclose(normalized, file[f"pyramid_anchors_norm_{height}x{width}"], atol=2e-7)


def test_as_matterport_with_anchor_stride():
    expected = oracle("matterport/utils.npz")["generate_anchors_32_stride2"]
    last_y, last_x = (expected[-1, :2] + expected[-1, 2:]) / 2
    step = (expected[3, 1] + expected[3, 3]) / 2 / 2  # between neighboring cells
    shape = (int(last_y / step) + 1, int(last_x / step) + 1)
    (anchors,) = pyramid_anchors((32,), RATIOS, [shape], (step,), anchor_stride=2, ratio_meaning="width/height")
    np.testing.assert_allclose(anchors, expected, atol=1e-5)


def test_as_torchvision():
    cells = oracle("torchvision/tv_oracle_a_compact.npz")["cell_anchors"]
    for scale, expected in zip(SCALES, cells, strict=True):
        np.testing.assert_array_equal(cell_anchors(scale, RATIOS, rounded=True), expected[:, [1, 0, 3, 2]])


@pytest.mark.parametrize("image", ["a", "b"])
def test_as_detectron2(image):
    file = oracle(f"detectron2/d2_oracle_R_50_{image}.npz")
    for level, (scale, stride) in enumerate(zip(SCALES, STRIDES, strict=True)):
        shape = file[f"rpn_objectness_P{level + 2}"].shape[2:]
        (anchors,) = pyramid_anchors((scale,), RATIOS, [shape], (stride,))
        expected = file[f"anchors_P{level + 2}"][:, [1, 0, 3, 2]]  # the first 600
        np.testing.assert_array_equal(anchors[: len(expected)], expected)

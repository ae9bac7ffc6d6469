"""RoIPool, RoIWarp and the maximum in RoIAlign: by hand, by the definition, and beside torchvision where it runs."""

import subprocess

import keras
import numpy as np
import pytest

from mrcnn.layers.roi_align.roi_align import METHODS, RoIAlign, roi_align
from mrcnn.layers.roi_align.roi_pool import RoIPool, roi_pool
from mrcnn.layers.roi_align.samples import to_whole
from tests.layers.test_roi_align import EDGE_BOXES, random_boxes, scene_of_levels, torchvision_python

pytestmark = pytest.mark.slow

NUMBERS = np.arange(1, 31, dtype=np.float32).reshape(1, 5, 6, 1)  # rows 1..6, 7..12, ..., 25..30


def pooled(features, boxes, image_index=None, *, scale=1.0, pool_size=2):
    boxes = np.asarray(boxes, np.float32)
    image_index = np.zeros(len(boxes), np.int32) if image_index is None else image_index
    levels = np.zeros(len(boxes), np.int32)
    return np.asarray(roi_pool([features], boxes, image_index, levels, strides=(1 / scale,), pool_size=pool_size))


def definition(features, box, scale, pool_size):
    """RoIPool of one box in float32, a bin after the other: [pool, pool, C]."""
    start = [int(np.floor(np.float32(side) * np.float32(scale) + 0.5)) for side in box]
    result = np.zeros((pool_size, pool_size, features.shape[-1]), np.float32)
    borders = []
    for axis in (0, 1):
        side = np.float32(max(start[axis + 2] - start[axis] + 1, 1)) / np.float32(pool_size)
        low = [int(np.floor(np.float32(i) * side)) + start[axis] for i in range(pool_size)]
        high = [int(np.ceil(np.float32(i + 1) * side)) + start[axis] for i in range(pool_size)]
        borders.append(np.clip([low, high], 0, features.shape[axis]))
    for i in range(pool_size):
        for j in range(pool_size):
            part = features[slice(*borders[0][:, i]), slice(*borders[1][:, j])]
            result[i, j] = part.max(axis=(0, 1)) if part.size else 0
    return result


# RoIPool


def test_bins_by_hand():
    """Cells 1..3 x 0..4, both ends included: bins of 1.5 x 2.5 cells, rounded outwards, share row 2 and column 2."""
    found = pooled(NUMBERS, [[0.5, 0.4, 3.4, 4.4]])
    np.testing.assert_array_equal(found[0, ..., 0], [[15, 17], [21, 23]])


def test_corners_are_rounded_before_the_bins():
    """0.49 -> 0 and 0.5 -> 1; the last cell is inside; stride 2 halves first."""
    np.testing.assert_array_equal(pooled(NUMBERS, [[0, 0, 0.49, 0.49], [0, 0, 0.5, 0.5]], pool_size=1).ravel(), [1, 8])
    np.testing.assert_array_equal(pooled(NUMBERS, [[0, 0, 0.9, 1.0]], scale=0.5, pool_size=1).ravel(), [2])
    np.testing.assert_array_equal(to_whole(np.float32([-1.5, -0.5, -0.4, 0.49999997, 0.5, 2.5])), [-2, -1, 0, 0, 1, 3])


def test_bins_outside_the_map_are_zero_and_those_across_its_edge_are_cut():
    found = pooled(NUMBERS, [[-4, -4, 1, 1], [3, 4, 8, 9], [10, 10, 20, 20], [-9, -9, -5, -5]])
    np.testing.assert_array_equal(found[0, ..., 0], [[0, 0], [0, 8]])
    np.testing.assert_array_equal(found[1, ..., 0], [[30, 0], [0, 0]])
    assert not found[2:].any()


def test_swapped_corners_make_one_cell():
    np.testing.assert_array_equal(pooled(NUMBERS, [[3, 3, 1, 1]], pool_size=1).ravel(), [22])


def test_negative_features_are_no_empty_bins():
    np.testing.assert_array_equal(pooled(-NUMBERS, [[0, 0, 1, 1]], pool_size=1).ravel(), [-1])


@pytest.mark.parametrize("pool_size", [1, 2, 7, 14])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_equals_the_definition(pool_size, scale):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, 40, 52, 3)).astype(np.float32)
    boxes = random_boxes(rng, 30, 40 / scale, 52 / scale)
    image_index = rng.integers(0, 2, len(boxes)).astype(np.int32)
    expected = [definition(features[k], box, scale, pool_size) for k, box in zip(image_index, boxes, strict=True)]
    np.testing.assert_array_equal(pooled(features, boxes, image_index, scale=scale, pool_size=pool_size), expected)


def test_every_side_has_the_bins_of_a_float32_quotient():
    """Where side / bins has no end in binary, a rounding decides which cells a bin has: all sides up to 300, 7 bins."""
    import tensorflow as tf

    features = np.random.default_rng(1).normal(size=(1, 310, 310, 1)).astype(np.float32)
    boxes = np.array([[2, 1, 2 + side, 1 + (side * 7) % 300] for side in range(300)], np.float32)
    traced = tf.function(lambda features, boxes: roi_pool(
        [features], boxes, tf.zeros(300, tf.int32), tf.zeros(300, tf.int32), strides=(1,), pool_size=7
    ))  # fmt: skip
    expected = [definition(features[0], box, 1, 7) for box in boxes]
    np.testing.assert_array_equal(traced(features, boxes), expected)


def test_the_gradient_goes_to_the_first_of_the_highest_cells():
    import tensorflow as tf

    features = tf.Variable(np.float32([[0, 5, 5], [5, 1, 2], [0, 0, 0]])[None, :, :, None])
    with tf.GradientTape() as tape:
        found = pooled_tensor(features, [[0, 0, 1, 2], [0, 0, 2, 2]])
        loss = tf.reduce_sum(found * [[[[2.0]]], [[[3.0]]]])
    gradient = tf.convert_to_tensor(tape.gradient(loss, features))
    np.testing.assert_array_equal(gradient[0, ..., 0], [[0, 5, 0], [0, 0, 0], [0, 0, 0]])


def pooled_tensor(features, boxes):
    count = len(boxes)
    return roi_pool([features], np.float32(boxes), [0] * count, [0] * count, strides=(1,), pool_size=1)


def test_layer_takes_each_roi_from_its_level():
    features, boxes, image_index = scene_of_levels(np.random.default_rng(2))
    found = np.asarray(RoIPool(5)(features, boxes, image_index))
    size = np.sqrt(np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-9), axis=1))
    levels = np.clip(np.floor(4 + np.log2(size / 224) + 1e-6), 2, 5).astype(int)
    for m, level in enumerate(levels):
        expected = definition(np.asarray(features[level - 2])[image_index[m]], boxes[m], 0.5**level, 5)
        np.testing.assert_array_equal(found[m], expected)


def test_no_boxes_and_a_box_of_nan():
    features = [NUMBERS]
    assert RoIPool(3, strides=(1,))(features, np.zeros((1, 0, 4), np.float32)).shape == (0, 3, 3, 1)
    boxes = np.array([[[np.nan, 0, 2, 2], [0, 0, np.inf, 2], [-1e30, -1e30, 1e30, 1e30]]], np.float32)
    found = np.asarray(RoIPool(1, strides=(1,))(features, boxes)).ravel()
    np.testing.assert_array_equal(found, [0, 0, 30])


def test_layer_returns_from_its_config_and_keeps_the_type():
    layer = RoIPool(3, strides=(8, 16), level_rounding="round", dtype="mixed_bfloat16")
    assert RoIPool.from_config(layer.get_config()).get_config() == layer.get_config()
    found = RoIPool(1, strides=(1,), dtype="mixed_bfloat16")([NUMBERS], np.float32([[[0.3, 0, 1, 1]]]))
    assert keras.backend.standardize_dtype(found.dtype) == "bfloat16"
    with pytest.raises(ValueError, match="level_rounding is 'ceil'"):
        RoIPool(3, level_rounding="ceil")
    with pytest.raises(ValueError, match="pool_size is 0"):
        RoIPool(0)
    with pytest.raises(ValueError, match="1 feature maps for 4 strides"):
        RoIPool(3)([NUMBERS], np.zeros((1, 1, 4), np.float32))


TORCHVISION_POOL = """
import sys, numpy as np, torch, torchvision
given = np.load(sys.argv[1])
features = torch.from_numpy(given["features"].transpose(0, 3, 1, 2).copy()).requires_grad_()
rois = torch.from_numpy(np.concatenate([given["image_index"][:, None], given["boxes"][:, [1, 0, 3, 2]]], 1).astype("f"))
result = {}
for pool in (2, 7, 14):
    pooled = torchvision.ops.roi_pool(features, rois, pool, 0.25)
    features.grad = None
    (pooled * torch.from_numpy(given[f"upstream_{pool}"].transpose(0, 3, 1, 2).copy())).sum().backward()
    result[f"{pool}"] = pooled.detach().numpy().transpose(0, 2, 3, 1)
    result[f"gradient_{pool}"] = features.grad.numpy().transpose(0, 2, 3, 1)
whole = torch.from_numpy(given["whole"])
rois = torch.cat([rois[:, :1], whole], 1)
for aligned in (False, True):
    warped = torchvision.ops.roi_align(features, rois, 7, 0.25, 2, aligned)
    result[f"warp_{int(aligned)}"] = warped.detach().numpy().transpose(0, 2, 3, 1)
np.savez(sys.argv[2], **result)
"""


def test_equals_torchvision_with_its_gradient(tmp_path):
    """RoIPool exactly; RoIWarp beside `roi_align` of boxes that were rounded before."""
    import tensorflow as tf

    python = torchvision_python()
    rng = np.random.default_rng(4)
    boxes = np.concatenate([random_boxes(rng, 40), np.array(EDGE_BOXES, np.float32)])
    features = rng.normal(size=(2, 256, 200, 3)).astype(np.float32)
    image_index = rng.integers(0, 2, len(boxes)).astype(np.int32)
    upstream = {f"upstream_{n}": rng.normal(size=(len(boxes), n, n, 3)).astype(np.float32) for n in (2, 7, 14)}
    whole = np.asarray(to_whole(boxes / 4)) * 4
    whole[:, 2:] = np.maximum(whole[:, 2:], whole[:, :2] + 4)
    given, answer = tmp_path / "given.npz", tmp_path / "answer.npz"
    np.savez(given, features=features, boxes=boxes, image_index=image_index, whole=whole[:, [1, 0, 3, 2]], **upstream)
    subprocess.run([python, "-c", TORCHVISION_POOL, str(given), str(answer)], check=True)
    answer = np.load(answer)
    levels = np.zeros(len(boxes), np.int32)
    for size in (2, 7, 14):
        variable = tf.Variable(features)
        with tf.GradientTape() as tape:
            found = roi_pool([variable], boxes, image_index, levels, strides=(4,), pool_size=size)
            loss = tf.reduce_sum(found * upstream[f"upstream_{size}"])
        np.testing.assert_array_equal(found, answer[f"{size}"])
        gradient = tf.convert_to_tensor(tape.gradient(loss, variable))
        np.testing.assert_allclose(gradient, answer[f"gradient_{size}"], atol=1e-5)
    for aligned in (False, True):
        options = {"spatial_scale": 0.25, "pool_size": 7, "aligned": aligned, "rounded": True}
        found = roi_align(features, boxes, image_index, **options)
        np.testing.assert_allclose(found, answer[f"warp_{int(aligned)}"], atol=2e-4)


# RoIWarp, and the highest sample


def test_warp_moves_corners_to_whole_cells():
    """Of 0.6 to 2.4, cells 1 and the place after it: the one sample of a bin stands at the center of cell 1."""
    options = {"spatial_scale": 1.0, "pool_size": 1, "sampling_ratio": 1, "rounded": True}
    found = roi_align(NUMBERS, np.float32([[0.6, 0.6, 2.4, 2.4], [1.1, 1.2, 1.3, 1.4]]), [0, 0], **options)
    np.testing.assert_allclose(np.ravel(found), [8, 8])
    straight = roi_align(NUMBERS, np.float32([[1, 1, 2, 2]]), [0], **{**options, "rounded": False})
    np.testing.assert_allclose(np.ravel(straight), [8])


def test_highest_of_four_samples():
    """A bin over cells (0, 0) to (1, 1) has its samples on their centers: 1, 2, 7 and 8."""
    box = np.float32([[0, 0, 2, 2]])
    for reduction, expected in (("average", 4.5), ("max", 8)):
        found = roi_align(NUMBERS, box, [0], spatial_scale=1.0, pool_size=1, reduction=reduction)
        np.testing.assert_allclose(np.ravel(found), [expected])
        found = roi_align(NUMBERS, box, [0], spatial_scale=1.0, pool_size=1, sampling_ratio=0, reduction=reduction)
        np.testing.assert_allclose(np.ravel(found), [expected])


@pytest.mark.parametrize("reduction, rounded", [("max", False), ("max", True), ("average", True)])
def test_methods_agree_and_so_do_their_gradients(reduction, rounded):
    import tensorflow as tf

    features, boxes, image_index = scene_of_levels(np.random.default_rng(3))
    found = {}
    for method in METHODS:
        levels = [tf.Variable(level) for level in features]
        layer = RoIAlign(5, 3, reduction=reduction, rounded=rounded, method=method)
        with tf.GradientTape() as tape:
            result = layer(levels, boxes, image_index)
            loss = tf.reduce_sum(tf.sin(result))
        found[method] = [result, *(tf.convert_to_tensor(part) for part in tape.gradient(loss, levels))]
        plain = RoIAlign(5, 3, method=method)(levels, boxes, image_index)
        assert np.abs(plain - result).max() > 0.01
    for method in METHODS[1:]:
        for one, other in zip(found[METHODS[0]], found[method], strict=True):
            np.testing.assert_allclose(one, other, atol=2e-3)


def test_the_highest_sample_is_that_of_finer_bins():
    features, boxes, image_index = scene_of_levels(np.random.default_rng(5))
    fine = np.asarray(RoIAlign(8, 1)(features, boxes, image_index))
    found = RoIAlign(4, 2, reduction="max")(features, boxes, image_index)
    np.testing.assert_allclose(found, fine.reshape(-1, 4, 2, 4, 2, 3).max(axis=(2, 4)), atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_no_boxes(method):
    layer = RoIAlign(3, 2, strides=(1,), reduction="max", method=method)
    assert layer([NUMBERS], np.zeros((0, 4), np.float32), np.zeros(0, np.int32)).shape == (0, 3, 3, 1)


def test_unknown_settings_are_named():
    with pytest.raises(ValueError, match=r"reduction is 'sum'; use one of \('average', 'max'\)"):
        RoIAlign(7, reduction="sum")
    with pytest.raises(ValueError, match="geometry 'crop' does not round boxes"):
        RoIAlign(7, geometry="crop", rounded=True)

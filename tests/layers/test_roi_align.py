"""RoIAlign against an independent reference, torchvision where it runs, and matterport's layer."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from mrcnn.layers.roi_align.roi_align import METHODS, RoIAlign, fastest_method, roi_align
from mrcnn.ops import boxes as box_ops

MATTERPORT = Path(__file__).resolve().parents[3] / "shared" / "oracles" / "matterport" / "utils.npz"

# Over every border and corner of a image of 1024 x 800, beyond it, and degenerate.
EDGE_BOXES = [
    [0, 0, 1024, 800], [-50, -50, 20, 20], [1000, 780, 1100, 900], [-30, 400, 10, 500], [1010, 300, 1050, 500],
    [300, -40, 400, 30], [500, 770, 600, 850], [-100, -100, 1200, 900], [-8, -8, -4, -4], [-90, -90, -50, -50],
    [1100, 900, 1200, 1000], [1024, 800, 1024, 800], [100, 100, 100, 100], [0, 0, 0, 0], [10, 10, 10, 50],
    [50, 50, 40, 40], [2, 2, 2.5, 2.5], [500, -5, 600, 3], [-3, -3, 3, 3], [1020, 796, 1028, 804],
]  # fmt: skip


def interpolation(start, end, size, pool_size, ratio, aligned):
    """Weights [pool_size, size] of a row of cells in each bin of a box side, in float64: the definition on one axis."""
    start, end = start - 0.5 * aligned, end - 0.5 * aligned
    side = end - start if aligned else max(end - start, 1.0)
    ratio = ratio or max(int(np.ceil(np.float32(side) / np.float32(pool_size))), 0)
    weights = np.zeros((pool_size, size))
    for point in range(pool_size * ratio):
        position = start + (point + 0.5) * side / (pool_size * ratio)
        if position < -1 or position > size:
            continue
        position = min(max(position, 0), size - 1)
        low = min(int(position), max(size - 2, 0))
        weights[point // ratio, low] += (low + 1 - position) / ratio
        if size > 1:
            weights[point // ratio, low + 1] += (position - low) / ratio
    return weights


def reference(features, boxes, image_index, scale, pool_size, ratio, aligned, upstream=None):
    """RoIAlign in float64 [M, pool, pool, C], and the gradient of sum(result * upstream) by the features."""
    result = np.zeros((len(boxes), pool_size, pool_size, features.shape[-1]))
    gradient = np.zeros(features.shape)
    for m, (box, image) in enumerate(zip(np.asarray(boxes, np.float64) * scale, image_index, strict=True)):
        rows = interpolation(box[0], box[2], features.shape[1], pool_size, ratio, aligned)
        columns = interpolation(box[1], box[3], features.shape[2], pool_size, ratio, aligned)
        result[m] = np.einsum("ih,hwc,jw->ijc", rows, features[image], columns, optimize=True)
        if upstream is not None:
            gradient[image] += np.einsum("ih,ijc,jw->hwc", rows, upstream[m], columns, optimize=True)
    return result, gradient


def random_boxes(rng, count, height=1024, width=800):
    center = rng.uniform(-20, [height + 20, width + 20], (count, 2))
    side = np.exp(rng.uniform(0, 6.9, (count, 2)))
    return np.concatenate([center - side / 2, center + side / 2], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(0)
    boxes = np.concatenate([random_boxes(rng, 30), np.array(EDGE_BOXES, np.float32)])
    features = rng.normal(size=(2, 256, 200, 4)).astype(np.float32)
    return features, boxes, rng.integers(0, 2, len(boxes)).astype(np.int32)


SETTINGS = [
    (7, 1, True),
    (7, 1, False),
    (7, 2, True),
    (7, 2, False),
    (14, 2, True),
    (14, 2, False),
    (1, 1, True),
    (7, 0, True),
    (7, 0, False),
    (14, 0, True),
]


@pytest.mark.slow
@pytest.mark.parametrize("pool_size, ratio, aligned", SETTINGS)
def test_equals_the_definition(scene, pool_size, ratio, aligned):
    features, boxes, image_index = scene
    found = roi_align(
        features, boxes, image_index, spatial_scale=0.25, pool_size=pool_size, sampling_ratio=ratio, aligned=aligned
    )
    expected, _ = reference(features, boxes, image_index, 0.25, pool_size, ratio, aligned)
    error = np.abs(ops.convert_to_numpy(found) - expected)
    assert found.dtype == "float32"
    assert error.max() <= 2e-4
    assert error.mean() <= 1e-5


@pytest.mark.parametrize("ratio", [0, 1, 2])
@pytest.mark.parametrize("aligned", [True, False])
def test_gradient_equals_the_definition(ratio, aligned):
    import tensorflow as tf

    rng = np.random.default_rng(1)
    features = tf.Variable(rng.normal(size=(2, 12, 9, 3)).astype(np.float32))
    boxes = np.array([[0, 0, 48, 36], [-9, -7, 20, 60], [5, 5, 13, 30], [40, 30, 60, 50], [4, 4, 4, 4]], np.float32)
    image_index, upstream = np.array([0, 1, 1, 0, 1], np.int32), rng.normal(size=(5, 7, 7, 3)).astype(np.float32)
    with tf.GradientTape() as tape:
        tape.watch(watched := tf.constant(boxes))
        found = roi_align(
            features, watched, image_index, spatial_scale=0.25, pool_size=7, sampling_ratio=ratio, aligned=aligned
        )
        total = tf.reduce_sum(found * upstream)
    by_features, by_boxes = tape.gradient(total, [features, watched])
    _, expected = reference(features.numpy(), boxes, image_index, 0.25, 7, ratio, aligned, upstream)
    np.testing.assert_allclose(by_features, expected, atol=2e-5)
    assert by_boxes is None


TORCHVISION_SCRIPT = """
import sys
import numpy as np, torch, torchvision
file = np.load(sys.argv[1])
features = torch.tensor(file["features"].transpose(0, 3, 1, 2))
rois = torch.tensor(np.concatenate([file["image_index"][:, None], file["boxes"][:, [1, 0, 3, 2]]], axis=1)).float()
result = {}
for pool_size, ratio, aligned in file["settings"]:
    pooled = torchvision.ops.roi_align(features, rois, int(pool_size), 0.25, int(ratio), bool(aligned))
    result[f"{pool_size}_{ratio}_{aligned}"] = pooled.numpy().transpose(0, 2, 3, 1)
np.savez(sys.argv[2], **result)
"""


def torchvision_python():
    """The interpreter that TORCHVISION_PYTHON names, or this one where it has torchvision; else skips the test."""
    python = os.environ.get("TORCHVISION_PYTHON")
    if python is None:
        if importlib.util.find_spec("torchvision") is None:
            pytest.skip("torchvision is not installed here and TORCHVISION_PYTHON is not set")
        python = sys.executable
    return python


def test_equals_torchvision(scene, tmp_path):
    python = torchvision_python()
    features, boxes, image_index = scene
    given, answer = tmp_path / "given.npz", tmp_path / "answer.npz"
    np.savez(given, features=features, boxes=boxes, image_index=image_index, settings=np.array(SETTINGS, int))
    subprocess.run([python, "-c", TORCHVISION_SCRIPT, str(given), str(answer)], check=True)
    answer = np.load(answer)
    for pool_size, ratio, aligned in SETTINGS:
        found = roi_align(
            features, boxes, image_index, spatial_scale=0.25, pool_size=pool_size, sampling_ratio=ratio, aligned=aligned
        )
        error = np.abs(ops.convert_to_numpy(found) - answer[f"{pool_size}_{ratio}_{int(aligned)}"])
        assert error.max() <= 2e-4
        assert error.mean() <= 1e-5


def test_a_sample_on_the_last_position_that_counts():
    """Cells 1 outside, exactly, have the edge's value; any further is zero. Sums by hand."""
    features = np.full((1, 4, 4, 1), 5.0, np.float32)
    boxes = np.array([[-1.5, 0, -0.5, 1], [-1.75, 0, -0.75, 1], [4, 0, 5, 1], [4.25, 0, 5.25, 1]], np.float32)
    found = roi_align(features, boxes, np.zeros(4, int), spatial_scale=1.0, pool_size=1, sampling_ratio=1)
    # Centers at y - 0.5: -1.5, -1.75, 4, 4.25: zero, zero, edge, zero
    np.testing.assert_allclose(found[:, 0, 0, 0], [0, 0, 5, 0])
    found = roi_align(features, boxes + 0.5, np.zeros(4, int), spatial_scale=1.0, pool_size=1, sampling_ratio=1)
    np.testing.assert_allclose(found[:, 0, 0, 0], [5, 0, 0, 0])


def test_a_map_of_one_cell():
    found = roi_align(np.full((1, 1, 1, 2), 3.0), np.array([[0, 0, 1, 1]]), [0], spatial_scale=1.0, pool_size=2)
    np.testing.assert_allclose(found, np.full((1, 2, 2, 2), 3.0), rtol=1e-6)


def pyramid(rng, batch=2, size=256, channels=3):
    return [rng.normal(size=(batch, size // s, size // s, channels)).astype(np.float32) for s in (4, 8, 16, 32)]


def square(side, at=10):
    return [at, at, at + side, at + side]


def constant_pyramid():
    """Levels that hold their own number, so that pooling shows which was used."""
    return [np.full((1, 64, 64, 1), level, np.float32) for level in (2, 3, 4, 5)]


@pytest.mark.parametrize(
    "level_rounding, sides, levels",
    [
        # Eqn. 1: 4 + log2(side / 224); a level starts at 112, 224, 448, and half way between these on a log scale
        ("floor", [1, 56, 111.9, 112, 223.9, 224, 447.9, 448, 900], [2, 2, 2, 3, 3, 4, 4, 5, 5]),
        ("round", [1, 56, 79, 80, 158, 159, 316, 317, 900], [2, 2, 2, 3, 3, 4, 4, 5, 5]),
    ],
)
def test_levels_by_size(level_rounding, sides, levels):
    layer = RoIAlign(1, level_rounding=level_rounding)
    boxes = np.array([square(side) for side in sides], np.float32)
    found = layer(constant_pyramid(), boxes, np.zeros(len(boxes), np.int32))
    np.testing.assert_array_equal(found[:, 0, 0, 0], levels)


def test_level_of_empty_boxes_and_other_canonical_size():
    layer = RoIAlign(1, canonical_size=56, canonical_level=3)
    boxes = np.array([[5, 5, 5, 5], [9, 9, 3, 3], square(30), square(56), square(112)], np.float32)
    found = layer(constant_pyramid(), boxes, np.zeros(5, np.int32))
    np.testing.assert_array_equal(found[:, 0, 0, 0], [2, 2, 2, 3, 4])


def scene_of_levels(rng, count=24):
    """A pyramid whose maps are not square, boxes of every level, over borders and beyond, and their images."""
    features = [rng.normal(size=(2, -(-256 // s), -(-200 // s), 3)).astype(np.float32) for s in (4, 8, 16, 32)]
    boxes = random_boxes(rng, count, 256, 200)
    boxes[-4:] = [square(side, 0) for side in (20, 130, 230, 500)]
    boxes[1:4] = [[0, 0, 0, 0], [300, 300, 320, 310], [50, 50, 40, 40]]
    return features, boxes, rng.integers(0, 2, count).astype(np.int32)


BY_LEVEL = (
    [(7, 2, True, method) for method in METHODS]
    + [(7, 2, False, method) for method in METHODS]
    + [(3, 1, True, "crop_and_resize"), (3, 1, True, "multiply"), (2, 3, True, "multiply"), (7, 0, True, None)]
)


@pytest.mark.slow
@pytest.mark.parametrize("pool_size, ratio, aligned, method", BY_LEVEL)
def test_layer_pools_each_roi_from_its_level_in_order(pool_size, ratio, aligned, method):
    features, boxes, image_index = scene_of_levels(np.random.default_rng(2))
    layer = RoIAlign(pool_size, ratio, aligned, method=method)
    found = ops.convert_to_numpy(layer(features, boxes, image_index))
    size = np.sqrt(np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-9), axis=1))
    levels = np.clip(np.floor(4 + np.log2(size / 224) + 1e-6), 2, 5).astype(int)
    assert set(levels) == {2, 3, 4, 5}
    for m, level in enumerate(levels):
        expected, _ = reference(
            features[level - 2], boxes[m : m + 1], image_index[m : m + 1], 0.5**level, pool_size, ratio, aligned
        )
        np.testing.assert_allclose(found[m], expected[0], atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("geometry", ["aligned", "crop"])
@pytest.mark.parametrize("method", ["multiply", "gather"])
def test_methods_agree_and_so_do_their_gradients(method, geometry):
    import tensorflow as tf

    features, boxes, image_index = scene_of_levels(np.random.default_rng(8))
    upstream = np.random.default_rng(9).normal(size=(len(boxes), 5, 5, 3)).astype(np.float32)
    features = [tf.Variable(level) for level in features]

    def run(method):
        layer, watched = RoIAlign(5, geometry=geometry, method=method), tf.constant(boxes)

        @tf.function
        def step():
            with tf.GradientTape() as tape:
                tape.watch(watched)
                pooled = layer(features, watched, image_index)
                total = tf.reduce_sum(pooled * upstream)
            *gradients, by_boxes = tape.gradient(total, [*features, watched])
            assert by_boxes is None
            return pooled, gradients

        return step()

    pooled, gradients = run(method)
    expected, expected_gradients = run("crop_and_resize")
    np.testing.assert_allclose(pooled, expected, atol=2e-4)
    for gradient, wanted in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(tf.convert_to_tensor(gradient), tf.convert_to_tensor(wanted), atol=2e-4)


def test_boxes_of_each_image_need_no_index():
    rng = np.random.default_rng(3)
    features, boxes = pyramid(rng), random_boxes(rng, 6, 256, 256)
    layer = RoIAlign(3)
    np.testing.assert_array_equal(
        layer(features, boxes.reshape(2, 3, 4)), layer(features, boxes, np.array([0, 0, 0, 1, 1, 1]))
    )
    with pytest.raises(ValueError, match=r"boxes have shape \(6, 4\); pass \[B, N, 4\], or \[M, 4\] with image_index"):
        layer(features, boxes)


@pytest.mark.parametrize("ratio, method", [(0, None), *((2, method) for method in METHODS)])
def test_no_boxes(ratio, method):
    features = pyramid(np.random.default_rng(0))
    layer = RoIAlign(7, ratio, method=method)
    assert layer(features, np.zeros((0, 4), np.float32), np.zeros(0, np.int32)).shape == (0, 7, 7, 3)
    found = roi_align(
        features[0], np.zeros((0, 4)), np.zeros(0, int), spatial_scale=0.25, pool_size=7, sampling_ratio=ratio
    )
    assert found.shape == (0, 7, 7, 3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("geometry", ["aligned", "crop"])
def test_a_box_of_nan_is_zeros(method, geometry):
    boxes = np.array([[np.nan] * 4, [8, 8, 40, 40], [np.nan, 8, np.nan, 40]], np.float32)
    pooled = np.asarray(RoIAlign(2, method=method, geometry=geometry)(constant_pyramid(), boxes, np.zeros(3, np.int32)))
    np.testing.assert_array_equal(pooled[::2], np.zeros_like(pooled[::2]))
    assert (pooled[1] == 2).all(), "a box of 32 pixels lies on the finest map"


def test_samples_by_size_of_the_box():
    """A slope of 1 a cell: 3 cells are one bin, sampled at 1/6, 3/6, 5/6 of it; more boxes than go together."""
    slope = np.tile(np.arange(64, dtype=np.float32)[None, :, None, None], (1, 1, 64, 1))
    boxes = np.array(
        [[8, 8, 11, 9], [8, 8, 8, 20], [0, 0, 0, 0], *[[i / 8, 8, i / 8 + 16, 11] for i in range(300)]], np.float32
    )
    found = roi_align(slope, boxes, np.zeros(len(boxes), int), spatial_scale=1.0, pool_size=1, sampling_ratio=0)
    assert not found[1:3].numpy().any(), "no samples in no cells"
    np.testing.assert_allclose(found[0].numpy().ravel(), [9], atol=1e-5)
    np.testing.assert_allclose(found[3 + 8 :].numpy().ravel(), np.arange(8, 300) / 8 + 7.5, atol=1e-4)


def test_gradient_reaches_the_level_used_and_no_other():
    import tensorflow as tf

    features = [tf.Variable(level) for level in pyramid(np.random.default_rng(0), batch=1)]
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(RoIAlign(7)(features, np.array([square(230)], np.float32), np.array([0])))
    gradients = [tf.reduce_sum(tf.convert_to_tensor(gradient)).numpy() for gradient in tape.gradient(total, features)]
    np.testing.assert_allclose(gradients, [0, 0, 7 * 7 * 3, 0], atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_mixed_precision_keeps_positions_in_float32(method):
    rng = np.random.default_rng(4)
    features = [ops.cast(level, "bfloat16") for level in pyramid(rng)]
    # 201.3 is 201 in bfloat16: a difference of a cell's 14th, far more than bfloat16 features lose.
    boxes, image_index = np.array([[101.3, 55.4, 201.3, 120.7]], np.float32), np.array([1])
    found = RoIAlign(7, method=method, dtype="mixed_bfloat16")(features, boxes, image_index)
    assert found.dtype == "bfloat16"
    expected = RoIAlign(7, method=method, dtype="float32")(
        [ops.cast(level, "float32") for level in features], boxes, image_index
    )
    # One unit in the last place of bfloat16 where the sums, in float32 but of another order, lie at its middle
    np.testing.assert_allclose(ops.cast(found, "float32"), ops.cast(expected, "float32"), rtol=2**-8, atol=1e-6)


@pytest.mark.slow
def test_boxes_of_whole_bins_get_no_sample_more_in_a_graph():
    import tensorflow as tf

    features = np.random.default_rng(6).normal(size=(1, 64, 64, 2)).astype(np.float32)
    boxes = np.array([[2, 2, 2 + side, 2 + side] for side in range(7, 57, 7)], np.float32)
    index = np.zeros(len(boxes), np.int32)
    in_graph = tf.function(lambda *inputs: roi_align(*inputs, spatial_scale=1.0, pool_size=7, sampling_ratio=0))
    expected, _ = reference(features, boxes, index, 1.0, 7, 0, True)
    np.testing.assert_allclose(in_graph(features, tf.constant(boxes), tf.constant(index)), expected, atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("ratio, method", [(0, None), *((2, method) for method in METHODS)])
def test_in_a_graph_of_unknown_sizes(ratio, method):
    rng = np.random.default_rng(5)
    features, boxes = pyramid(rng), random_boxes(rng, 8, 256, 256).reshape(2, 4, 4)
    inputs = [keras.Input((None, None, 3)) for _ in features], keras.Input((4, 4))
    layer = RoIAlign(7, ratio, method=method)
    output = layer(*inputs)
    assert output.shape == (None, 7, 7, 3)
    assert output.dtype == "float32"
    model = keras.Model(inputs, output)
    np.testing.assert_allclose(model([features, boxes]), layer(features, boxes), atol=1e-6)
    other = [level[:, :-1, :-2] for level in features]
    np.testing.assert_allclose(model.predict_on_batch([other, boxes]), layer(other, boxes), atol=1e-4)
    np.testing.assert_allclose(model.predict_on_batch([features, boxes]), layer(features, boxes), atol=1e-4)
    folded = layer(inputs[0], keras.Input(batch_shape=(5, 4)), keras.Input(batch_shape=(5,), dtype="int32"))
    assert folded.shape == (5, 7, 7, 3)


@pytest.mark.slow
def test_gather_is_compiled_by_xla():
    import tensorflow as tf

    features, boxes, image_index = scene_of_levels(np.random.default_rng(8))
    layer = RoIAlign(5, method="gather")
    assert layer.supports_jit
    compiled = tf.function(layer, jit_compile=True)([tf.constant(level) for level in features], boxes, image_index)
    np.testing.assert_allclose(compiled, layer(features, boxes, image_index), atol=1e-5)


def test_layer_returns_from_its_config_and_stays_out_of_xla():
    layer = RoIAlign(
        5, 3, False, strides=(8, 16), level_rounding="round", canonical_size=100, canonical_level=3, geometry="crop",
        method="multiply", dtype="mixed_bfloat16",
    )  # fmt: skip
    again = RoIAlign.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.compute_dtype == "bfloat16"
    assert not layer.supports_jit


@pytest.mark.parametrize(
    "options, message",
    [
        ({"level_rounding": "ceil"}, r"level_rounding is 'ceil'; use one of \('floor', 'round'\)"),
        ({"geometry": "pool"}, r"geometry is 'pool'; use one of \('aligned', 'crop'\)"),
        ({"method": "pool"}, r"method is 'pool'; use one of \('crop_and_resize', 'multiply', 'gather'\)"),
        ({"method": "gather", "sampling_ratio": 0}, "'gather' takes the same number of samples.*'crop_and_resize'"),
        ({"sampling_ratio": -1}, "pool_size 7 must be 1 or more and sampling_ratio -1 0 or more"),
    ],
)
def test_unknown_settings_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        RoIAlign(7, **options)


def test_mismatched_levels_are_named():
    with pytest.raises(ValueError, match="2 feature maps for 4 strides"):
        RoIAlign(7)(pyramid(np.random.default_rng(0))[:2], np.zeros((1, 4), np.float32), np.array([0]))


def test_other_backends_are_told_what_to_do(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "numpy")
    with pytest.raises(NotImplementedError, match="'multiply' is not implemented for .* 'numpy'; use 'gather'"):
        RoIAlign(7, method="multiply")
    assert RoIAlign(7).method == "gather"
    message = "sampling_ratio 0.*'numpy' does not support. Set ROI_SAMPLING_RATIO to 2"
    with pytest.raises(NotImplementedError, match=message):
        RoIAlign(7, 0)
    with pytest.raises(NotImplementedError, match=message):
        roi_align(np.zeros((1, 4, 4, 1)), np.zeros((1, 4)), [0], spatial_scale=1.0, pool_size=2, sampling_ratio=0)
    assert RoIAlign(7, 0, geometry="crop").method == "gather", "its samples are one a bin whatever the ratio"


@pytest.mark.parametrize("pool_size, method", [(7, "crop_and_resize"), (14, "crop_and_resize"), (14, "multiply")])
def test_as_matterport(pool_size, method):
    if not MATTERPORT.exists():
        pytest.skip(f"{MATTERPORT} is absent")
    file = np.load(MATTERPORT)
    features = [file[f"ra_P{level}"] for level in (2, 3, 4, 5)]
    boxes = box_ops.to_exclusive(file["ra_boxes"] * 255)  # normalized corners of a square of 256
    found = RoIAlign(pool_size, level_rounding="round", geometry="crop", method=method)(features, boxes)
    np.testing.assert_allclose(found, file[f"roi_align_{pool_size}"][0], atol=1e-5)


def test_the_method_of_this_machine(monkeypatch):
    import tensorflow as tf

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    assert fastest_method(2) == "multiply" and fastest_method(0) is None and fastest_method(2, "crop") is None
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a GPU"])
    assert fastest_method(2) is None

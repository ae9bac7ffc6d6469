"""The same network on Keras's JAX backend: KERAS_BACKEND=jax pytest tests/test_on_jax.py, as `make test` does."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from mrcnn.inference.input_sizes import InputLimits
from mrcnn.layers.keep_valid import KeepValid
from mrcnn.layers.proposals import Proposals
from mrcnn.layers.roi_align.roi_align import RoIAlign, roi_align
from mrcnn.layers.roi_align.roi_pool import RoIPool
from mrcnn.layers.targets import MaskTargets
from mrcnn.model import MaskRCNN
from mrcnn.ops.nms import nms_per_group
from tests import backends
from tests.heads import small
from tests.layers.test_roi_align import reference, scene_of_levels
from tests.ops.test_nms import greedy, random_boxes
from tests.tiny import TinyConfig, TinyDataset

TENSORFLOW_CAME_ALONG = "tensorflow" in sys.modules

if keras.backend.backend() != "jax":
    pytest.skip("these need KERAS_BACKEND=jax, and jax: `make test` runs them so", allow_module_level=True)

import jax  # noqa: E402

jax.config.update("jax_disable_most_optimizations", True)  # compiling takes longer here than what is compiled


@pytest.fixture(scope="module")
def tensorflow_run(tmp_path_factory):
    """A folder with what TensorFlow's network gave, and a function that waits for it."""
    folder = tmp_path_factory.mktemp("tensorflow")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.backends", str(folder)],
        cwd=Path(__file__).resolve().parents[1],
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    yield folder, process
    process.kill()


@pytest.fixture(scope="module")
def results(tensorflow_run):
    folder, process = tensorflow_run
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return folder, dict(np.load(folder / "results.npz"))


def model_in(folder):
    return MaskRCNN("training", TinyConfig(**backends.SETTINGS), folder)


def test_nothing_imports_tensorflow(tensorflow_run):
    assert not TENSORFLOW_CAME_ALONG


@pytest.mark.parametrize("aligned, geometry", [(True, "aligned"), (False, "aligned"), (True, "crop")])
def test_roi_align_and_its_gradient_equal_the_definition(tensorflow_run, aligned, geometry):
    features, boxes, image_index = scene_of_levels(np.random.default_rng(2), count=12)
    layer = RoIAlign(5, 2, aligned, geometry=geometry)
    assert layer.method == "gather"
    upstream = np.random.default_rng(3).normal(size=(12, 5, 5, 3)).astype(np.float32)
    pool = jax.jit(
        jax.value_and_grad(
            lambda features: (ops.sum((pooled := layer(features, boxes, image_index)) * upstream), pooled), has_aux=True
        )
    )
    (_, found), gradients = pool(features)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    if geometry == "crop":
        return  # the cells are those of the other geometry's, their positions tested with TensorFlow
    size = np.sqrt(np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-9), axis=1))
    levels = np.clip(np.floor(4 + np.log2(size / 224) + 1e-6), 2, 5).astype(int)
    expected = [np.zeros(level.shape) for level in features]
    for m, level in enumerate(levels):
        value, gradient = reference(
            features[level - 2],
            boxes[m : m + 1],
            image_index[m : m + 1],
            0.5**level,
            5,
            2,
            aligned,
            upstream[m : m + 1],
        )
        np.testing.assert_allclose(found[m], value[0], atol=2e-4)
        expected[level - 2] += gradient
    for gradient, wanted in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient, wanted, atol=2e-4)


@pytest.mark.parametrize(
    "make",
    [lambda: RoIPool(5), lambda: RoIAlign(5, 2, reduction="max"), lambda: RoIAlign(5, 2, rounded=True)],
    ids=["pool", "max", "warp"],
)
def test_other_poolings_and_their_gradients_are_those_of_plain_operations(tensorflow_run, make):
    """Of a sum with random weights, along a random direction: the gradient's slope is the difference quotient's."""
    features, boxes, image_index = scene_of_levels(np.random.default_rng(2), count=12)
    layer, rng = make(), np.random.default_rng(3)
    upstream = rng.normal(size=(12, 5, 5, 3)).astype(np.float32)

    def total(features):
        return ops.sum(layer(features, boxes, image_index) * upstream)

    value, gradients = jax.jit(total), jax.jit(jax.grad(total))(features)
    step = [1e-3 * rng.normal(size=level.shape).astype(np.float32) for level in features]
    there, back = ([level + sign * move for level, move in zip(features, step, strict=True)] for sign in (1, -1))
    slope = sum(float(np.sum(gradient * move)) for gradient, move in zip(gradients, step, strict=True))
    np.testing.assert_allclose(float(value(there) - value(back)) / 2, slope, rtol=0.05, atol=1e-3)


def test_roi_pool_by_hand(tensorflow_run):
    cells = np.arange(1, 31, dtype=np.float32).reshape(1, 5, 6, 1)
    found = jax.jit(RoIPool(2, strides=(1,)))([cells], np.float32([[[0.5, 0.4, 3.4, 4.4]]]))
    np.testing.assert_array_equal(found[0, ..., 0], [[15, 17], [21, 23]])


def test_what_has_no_static_shapes_says_so():
    for make in (
        lambda: RoIAlign(7, 0),
        lambda: RoIAlign(7, method="multiply"),
        lambda: roi_align(
            np.zeros((1, 4, 4, 1)), np.zeros((1, 4)), [0], spatial_scale=1.0, pool_size=2, sampling_ratio=0
        ),
    ):
        with pytest.raises(NotImplementedError, match="Keras backend 'jax'.*KERAS_BACKEND to tensorflow"):
            make()


def test_nms_equals_a_greedy_loop():
    rng = np.random.default_rng(3)
    boxes, scores = random_boxes(rng, 2, 3, 60), rng.normal(size=(2, 3, 60)).astype(np.float32)
    found = jax.jit(lambda *given: nms_per_group(*given, max_per_group=10, max_total=40, iou_threshold=0.3))(
        boxes, scores
    )
    for image in range(2):
        rows = [
            (scores[image, group, i], group, boxes[image, group, i])
            for group in range(3)
            for i in greedy(boxes[image, group], scores[image, group], 0.3)[:10]
        ]
        rows = sorted(rows, key=lambda row: -row[0])
        np.testing.assert_array_equal(found[3][image], np.arange(40) < len(rows))
        np.testing.assert_array_equal(found[0][image, : len(rows)], [row[2] for row in rows])
        np.testing.assert_array_equal(found[1][image, : len(rows)], [row[0] for row in rows])
        np.testing.assert_array_equal(found[2][image, : len(rows)], [row[1] for row in rows])


def test_every_row_is_kept_and_the_free_ones_hold_copies():
    valid = np.array([[True, False, True, False], [False, False, True, False]])
    (kept,), image_index, weight = KeepValid()(valid, [np.arange(8, dtype=np.int32).reshape(2, 4)])
    np.testing.assert_array_equal(kept, [0, 0, 2, 2, 6, 0, 6, 2])
    np.testing.assert_array_equal(image_index, [0, 0, 0, 0, 1, 0, 1, 0])
    np.testing.assert_array_equal(weight, [1, 0, 1, 0, 0, 0, 1, 0])


@pytest.mark.parametrize("value", [True, False])
def test_all_rows_or_none(value):
    (kept,), image_index, weight = KeepValid()(np.full((2, 2), value), [np.arange(4).reshape(2, 2)])
    np.testing.assert_array_equal(kept, np.arange(4))
    np.testing.assert_array_equal(image_index, [0, 0, 1, 1])
    np.testing.assert_array_equal(weight, [value] * 4)


def test_mask_targets_by_hand():
    masks = np.zeros((1, 2, 4, 4), np.uint8)
    masks[0, 1, :, :2] = 255  # the left half of the second object
    boxes = np.array([[[0, 0, 8, 8], [8, 8, 24, 24]]], np.float32)
    found = jax.jit(MaskTargets(mask_size=4))(boxes[0, 1:], np.array([0]), np.array([1]), boxes, masks)
    np.testing.assert_array_equal(found, [[[1, 1, 0, 0]] * 4])


@pytest.mark.parametrize("name", small.NAMES)
def test_heads_compute_what_they_do_on_tensorflow(results, name):
    folder, _ = results
    with np.load(folder / "heads.npz") as arrays:
        expected = {key.removeprefix(f"{name}/"): arrays[key] for key in arrays.files if key.startswith(f"{name}/")}
    head, inputs = backends.built(name)
    head.model.set_weights([expected[f"weight_{i}"] for i in range(len(head.model.weights))])
    count = len(keras.tree.flatten(inputs))
    given = [ops.convert_to_tensor(expected[f"input_{i}"]) for i in range(count)]
    found = backends.computed(head, *keras.tree.pack_sequence_as(inputs, given))
    assert set(found) == {key for key in expected if not key.startswith(("weight_", "input_"))}
    for key, value in found.items():
        np.testing.assert_allclose(value, expected[key], rtol=2e-3, atol=2e-3, err_msg=key)


def test_a_head_that_uses_all_of_the_protocol_trains(tmp_path):
    model = MaskRCNN("training", TinyConfig(**backends.SETTINGS, MASK_HEAD=small.SCORED_POINTS), tmp_path)
    history = model.train(TinyDataset(2), None, epochs=1, verbose=0).history
    for name in ("mrcnn_mask_loss", "mask_point_loss", "mask_iou_loss"):
        assert np.isfinite(history[name]).all() and history[name][0] > 0
    (found,) = model.detect([TinyDataset(1).load_image(0)])
    assert found.count and found["mask_scores"].shape == found["scores"].shape


def test_detections_are_those_of_tensorflow(results, tmp_path):
    folder, expected = results
    model = model_in(tmp_path)
    model.load_weights(folder / "weights.h5")
    found = backends.detections(model)
    assert len(found["scores_0"]) == 10
    for name, value in found.items():
        np.testing.assert_allclose(np.asarray(value, float), np.asarray(expected[name], float), atol=1e-3, err_msg=name)


def test_training_is_that_of_tensorflow(results, tmp_path):
    folder, expected = results
    model = model_in(tmp_path)
    model.load_weights(folder / "weights.h5")
    steps, validation = backends.losses(model, 2, TinyDataset(2, seed=1))
    np.testing.assert_allclose(steps, expected["steps"], rtol=2e-3, atol=1e-4)
    for name, values in validation.items():
        np.testing.assert_allclose(values, expected[name], rtol=2e-3, atol=1e-4, err_msg=name)
    assert steps[0, 0] > 1.05 * steps[-2, 0], "the loss of the first steps of each epoch falls"

    assert any((model.log_dir / "validation").glob("*tfevents*"))
    again = model_in(tmp_path)
    again.load_weights("last")
    assert again.epoch == 2
    for name, layer in model.network.layers().items():
        for weight, loaded in zip(layer.weights, again.network.layers()[name].weights, strict=True):
            np.testing.assert_array_equal(ops.convert_to_numpy(weight), ops.convert_to_numpy(loaded), err_msg=name)


def uneven(**settings):
    """A network of whose padding something comes: its biases and moving statistics are not zero and one."""
    model = MaskRCNN(
        "inference",
        TinyConfig(IMAGE_RESIZE_MODE="none", DETECTION_MIN_CONFIDENCE=0.0, DETECTION_MAX_INSTANCES=20, **settings),
    )
    rng = np.random.default_rng(0)
    for layer in model.network.layers().values():
        for weight in layer.weights:
            value = ops.convert_to_numpy(weight)  # what JAX computes is compiled for every shape
            if weight.path.endswith(("bias", "beta", "moving_mean")):
                weight.assign(value + rng.normal(0, 0.3, weight.shape))
            elif weight.path.endswith(("gamma", "moving_variance")):
                weight.assign(value * rng.uniform(0.7, 1.4, weight.shape))
    return model


@pytest.fixture(scope="module")
def tiny():
    return uneven()


def plainly(model, molded, canvas):
    """What the graph as it is gives for a photograph on a canvas, zeros below and right of it."""
    larger = np.zeros((1, *canvas, 3), np.float32)
    larger[0, : molded.image.shape[0], : molded.image.shape[1]] = molded.image
    raw = model.inference_model.predict_on_batch({"image": larger, "window": molded.window[None]})
    valid = raw["valid"][0]
    return {"masks": raw["masks"][valid], **{name: raw[name][0][valid] for name in ("boxes", "class_ids", "scores")}}


def test_sizes_of_one_bucket_are_compiled_once(tiny, monkeypatch):
    traces, call = [], Proposals.call
    monkeypatch.setattr(Proposals, "call", lambda self, *args: traces.append(self) or call(self, *args))
    images = [TinyDataset(1, sizes=(size,), seed=i).load_image(0) for i, size in enumerate(((90, 150), (128, 192)))]
    found = tiny.detect([*images, *images])
    molded = [tiny.detector.network_input(image) for image in images]
    assert len({m.image.shape for m in molded}) == 2
    assert len(traces) == 1, "both are computed as 128 x 192"
    for m, through_detect in zip(molded, found, strict=False):
        expected = plainly(tiny, m, (128, 192))
        assert len(expected["scores"]) >= 10
        np.testing.assert_allclose(through_detect["rois"], tiny.detector.result(expected, m)["rois"], atol=1e-3)
        (raw,) = tiny.detector.run(m.image[None], m.window[None])
        for name, atol in (("boxes", 1e-3), ("class_ids", 0), ("scores", 1e-5), ("masks", 1e-4)):
            np.testing.assert_allclose(raw[name], expected[name], atol=atol, err_msg=name)


def test_photographs_that_fill_a_batch_up_are_dropped(tiny, monkeypatch):
    call, asked = tiny.detector.call, []
    assert call.limits == InputLimits(batch=1), "what the settings say"

    def predict(inputs):
        asked.append({name: value.shape for name, value in inputs.items()})
        number = len(inputs["image"])
        return {"boxes": np.repeat(np.arange(number), 20).reshape(number, 20), "masks": np.arange(20 * number)}

    monkeypatch.setattr(call.model, "predict_on_batch", predict)
    monkeypatch.setattr(call, "limits", InputLimits(batch=3))
    outputs = call(np.ones((3, 96, 64, 3)), np.zeros((3, 4)))
    assert asked[-1]["image"] == (3, 128, 64, 3), "never more than the settings have together"
    monkeypatch.setattr(call, "limits", InputLimits())
    outputs = call(np.ones((3, 96, 64, 3)), np.zeros((3, 4)))
    assert asked[-1] == {"image": (4, 128, 64, 3), "window": (4, 4)}
    assert outputs["boxes"].shape == (3, 20) and outputs["masks"].tolist() == list(range(60))


def test_a_training_of_tensorflow_goes_on_here(results, tmp_path):
    folder, expected = results
    (run,) = (folder / "logs").iterdir()
    shutil.copytree(run, tmp_path / run.name)
    model = model_in(tmp_path)
    model.find_last().unlink()  # of its third epoch
    model.load_weights("last")
    steps, _ = backends.losses(model, 3)
    np.testing.assert_allclose(steps, expected["more"], rtol=5e-3, atol=1e-4)

    # A loss that is not finite stops it and names the images of the step, which are still in JAX's own state
    model.network.box_head.get_layer("mrcnn_class_logits").bias.assign([np.nan] * 3)
    with pytest.raises(FloatingPointError, match=r"at step 1 of the epoch.*batch of: image \d .*tiny/\d.png"):
        backends.losses(model, 4)

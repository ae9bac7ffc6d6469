"""One compiled function for images of every size."""

import keras
import numpy as np
import pytest

from mrcnn.inference.compiled import PerBucket, bucket, bucket_count
from mrcnn.inference.input_sizes import InputLimits
from mrcnn.model import MaskRCNN
from tests.tiny import TinyConfig

pytestmark = pytest.mark.slow


def run(call, batch, height, width):
    image = np.random.default_rng(batch * height + width).normal(size=(batch, height, width, 3)).astype(np.float32)
    return {k: np.asarray(v) for k, v in call(image, np.tile(np.float32([0, 0, height, width]), (batch, 1))).items()}


def test_one_trace_for_every_size_and_number():
    call = MaskRCNN("inference", TinyConfig()).detector.call
    for batch, height, width in ((1, 64, 64), (2, 64, 96), (3, 32, 64), (1, 64, 64)):
        assert run(call, batch, height, width)["boxes"].shape == (batch, 10, 4)
    assert call.experimental_get_tracing_count() == 1


def test_results_do_not_depend_on_the_sizes_seen_before():
    model = MaskRCNN("inference", TinyConfig())
    first = run(model.detector.call, 1, 64, 64)
    run(model.detector.call, 2, 96, 64)
    again = run(model.detector.call, 1, 64, 64)
    for name, value in first.items():
        np.testing.assert_array_equal(again[name], value, err_msg=name)


def test_exported_and_saved_models_give_the_same(tmp_path):
    import tensorflow as tf

    model = MaskRCNN("inference", TinyConfig(DETECTION_MIN_CONFIDENCE=0.0)).inference_model
    model.export(tmp_path / "exported", verbose=False)
    model.save(tmp_path / "saved.keras")
    image = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype(np.float32)
    given = {"image": image, "window": np.float32([[0, 0, 64, 64]])}
    expected = model(given)
    assert np.asarray(expected["valid"]).any()
    exported = tf.saved_model.load(tmp_path / "exported")
    served = exported.serve({name: tf.constant(value) for name, value in given.items()})
    for found in (served, keras.models.load_model(tmp_path / "saved.keras")(given)):
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, atol=1e-5, err_msg=name)


def test_weights_that_change_count_at_once():
    model = MaskRCNN("inference", TinyConfig())
    before = run(model.detector.call, 1, 64, 64)["scores"]
    head = model.network.box_head.get_layer("mrcnn_class_logits")
    head.bias.assign([0, 9, 0])
    after = run(model.detector.call, 1, 64, 64)["scores"]
    assert after.max() > 0.9 > before.max()


@pytest.mark.parametrize(
    "size, expected",
    [
        ((32, 64), (64, 64)),
        ((96, 160), (128, 192)),
        ((256, 288), (256, 320)),
        ((512, 544), (512, 640)),
        ((800, 1088), (896, 1280)),
        ((1024, 1056), (1024, 1280)),
        ((2080, 2048), (2560, 2048)),
    ],
)
def test_buckets_by_hand(size, expected):
    assert bucket(*size) == expected
    assert bucket(*size[::-1]) == expected[::-1]


@pytest.mark.parametrize(
    "size, expected",
    [
        ((800, 1088), (800, 1280)),
        ((1088, 800), (1280, 800)),
        ((800, 1344), (800, 1344)),
        ((672, 1344), (768, 1344)),
        ((800, 800), (800, 896)),
        ((832, 1376), (896, 1536)),  # the last is over both limits, which then cannot be true
    ],
)
def test_buckets_end_where_limits_do(size, expected):
    assert bucket(*size, short=800, long=1344) == expected


def test_buckets_are_few_and_hold_every_size():
    sides = range(32, 2049, 32)
    buckets = {side: bucket(side, side)[0] for side in sides}
    assert all(side <= buckets[side] <= max(64, 1.25 * side + 32) and buckets[side] % 64 == 0 for side in sides)
    assert sorted(set(buckets.values())) == [
        64,
        128,
        192,
        256,
        320,
        384,
        448,
        512,
        640,
        768,
        896,
        1024,
        1280,
        1536,
        1792,
        2048,
    ]
    fit = {(800, long) for long in range(800, 1345, 32)} | {(short, 1344) for short in range(32, 801, 32)}
    assert len(fit) == 42 and len({bucket(*size, short=800, long=1344) for size in fit}) == 14


def test_batches_are_of_few_numbers():
    assert [bucket_count(count) for count in range(1, 10)] == [1, 2, 4, 4, 8, 8, 8, 8, 16]
    assert [bucket_count(count, 6) for count in range(1, 7)] == [1, 2, 4, 4, 6, 6]
    assert bucket_count(5, 3) == 8


@pytest.mark.parametrize("one_size, expected", [(False, (128, 192)), (True, (96, 160))])
def test_images_are_padded_with_zeros_to_their_bucket(one_size, expected):
    asked = []
    model = MaskRCNN("inference", TinyConfig()).inference_model
    model.predict_on_batch = lambda inputs: asked.append(inputs) or {"number": np.arange(len(inputs["image"]))}
    image, window = np.ones((3, 96, 160, 3)), np.ones((3, 4))
    assert PerBucket(model, InputLimits(one_size=one_size))(image, window)["number"].tolist() == [0, 1, 2]
    assert asked[0]["image"].shape == (4, *expected, 3)
    assert asked[0]["image"].sum() == image.sum() == asked[0]["image"][:3, :96, :160].sum()
    assert asked[0]["window"].tolist() == [[1] * 4] * 3 + [[0] * 4]

"""One compiled function for photographs of every size."""

import functools
import warnings

import keras
import numpy as np
import pytest
from keras import layers

from mrcnn.inference.bounded import bounded, obstacle
from mrcnn.inference.compiled import PerBucket, bucket, bucket_count
from mrcnn.inference.input_sizes import Canvases
from mrcnn.model import MaskRCNN
from tests.tiny import TinyConfig, tiny_backbone


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
    "size, canvas",
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
def test_buckets_by_hand(size, canvas):
    assert bucket(*size) == canvas
    assert bucket(*size[::-1]) == canvas[::-1]


@pytest.mark.parametrize(
    "size, canvas",
    [
        ((800, 1088), (800, 1280)),
        ((1088, 800), (1280, 800)),
        ((800, 1344), (800, 1344)),
        ((672, 1344), (768, 1344)),
        ((800, 800), (800, 896)),
        ((832, 1376), (896, 1536)),  # the last is over both limits, which then cannot be true
    ],
)
def test_buckets_end_where_canvases_do(size, canvas):
    assert bucket(*size, short=800, long=1344) == canvas


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


def averaging(last):
    """Cells that depend on the whole image, as those of squeeze-and-excitation do."""
    return layers.Multiply()([last, layers.GlobalAveragePooling2D(keepdims=True)(last)])


def ending_in(end):
    """A backbone whose C5 is what `end` makes of the tiny one's."""

    def backbone(image):
        *taps, last = tiny_backbone(image)
        return [*taps, end(last)]

    return backbone


DISTANCE, EDGES = "the distance between its anchors", "its RoIAlign at the edges"
FAR = "of its trunk, which is not known to look at near cells alone"


@pytest.mark.parametrize(
    "settings, reason",
    [
        ({}, None),
        ({"RPN_ANCHOR_STRIDE": 2}, DISTANCE),
        ({"RPN_ANCHOR_STEP_FROM_SIZE": True}, DISTANCE),
        ({"ROI_ALIGNED": False}, EDGES),
        ({"ROI_GEOMETRY": "crop"}, EDGES),
        ({"BACKBONE": ending_in(averaging)}, f"layer 'global_average_pooling2d' {FAR}"),
    ],
    ids=lambda given: next(iter(given), "nothing") if isinstance(given, dict) else "",
)
def test_what_depends_on_the_canvas_is_not_put_on_a_larger_one(settings, reason):
    model = MaskRCNN("inference", TinyConfig(**settings)).inference_model
    assert obstacle(model) == reason
    if reason:  # the graph of the others is in tests/test_on_jax.py
        assert bounded(model) is None


def of_backbone(backbone):
    """As much of the inference graph as says something of a backbone."""
    image = keras.Input((None, None, 3))
    trunk = keras.Model(image, backbone(image), name="trunk")
    return keras.Model(image, trunk(image))


def centred(x):
    return x - keras.ops.mean(x, axis=(1, 2), keepdims=True)


@pytest.mark.parametrize(
    "end",
    [
        lambda x: layers.Activation(centred, name="own")(x),
        lambda x: layers.Activation(functools.partial(keras.activations.softmax, axis=1), name="own")(x),
        lambda x: layers.Conv2D(8, 1, activation=centred, name="own")(x),
        lambda x: layers.AveragePooling2D(3, 1, padding="same", name="own")(x),
        lambda x: layers.LayerNormalization(name="own")(x),
        lambda x: layers.AveragePooling2D(2)(layers.UpSampling2D(2, interpolation="bilinear", name="own")(x)),
        lambda x: layers.MaxPooling2D((2, 1))(layers.Concatenate(axis=1, name="own")([x, x])),
        lambda x: layers.MaxPooling2D((1, 2))(layers.UpSampling2D((1, 2), name="own")(x)),
        lambda x: layers.Conv2D(8, (1, 7), padding="same")(layers.ZeroPadding2D(((1, 1), (0, 0)), name="own")(x)),
    ],
)
def test_a_layer_that_may_look_anywhere_is_named(end):
    assert obstacle(of_backbone(ending_in(end))) == f"layer 'own' {FAR}"


def test_everything_near_is_known():
    def end(x):
        x = layers.Conv2D(8, (1, 7), padding="same", activation="gelu")(layers.Activation("softmax")(x))
        x = layers.ZeroPadding2D(((0, 2), (1, 1)))(layers.AveragePooling2D(3, 1)(x))
        return layers.Dropout(0.5)(layers.LeakyReLU()(layers.BatchNormalization()(x)))

    assert obstacle(of_backbone(ending_in(end))) is None


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_maps_smaller_than_the_canvas_divides_are_named(padding):
    """Of 5 cells "same" pads above and below, of 6 only below."""

    def end(x):
        x = x if padding == "same" else layers.ZeroPadding2D(1)(x)
        pooled = layers.MaxPooling2D(3, strides=2, padding=padding, name="own")(x)
        return layers.UpSampling2D(2)(pooled)

    assert obstacle(of_backbone(ending_in(end))) == (
        "layer 'own' of its trunk, whose map has the stride 64, which does not divide 32"
    )


def test_maps_larger_than_the_canvas_are_named():
    def backbone(image):
        return tiny_backbone(layers.MaxPooling2D(2)(layers.UpSampling2D(2, name="own")(image)))

    assert obstacle(of_backbone(backbone)) == "layer 'own' of its trunk, whose map has no stride"
    assert bounded(of_backbone(backbone)) is None


def test_where_the_canvas_counts_it_stays_and_it_is_said_once_why():
    model = MaskRCNN("inference", TinyConfig(RPN_ANCHOR_STEP_FROM_SIZE=True)).inference_model
    model.predict_on_batch = lambda inputs: {"shape": np.array([inputs["image"].shape])}
    image, window = np.ones((1, 96, 160, 3)), np.zeros((1, 4))
    call = PerBucket(model, Canvases())
    message = f'compiled anew for every size.*, by {DISTANCE}.*IMAGE_RESIZE_MODE = "square"'
    with pytest.warns(UserWarning, match=message) as told:
        for _ in range(2):
            assert call(image, window)["shape"].tolist() == [[1, 96, 160, 3]]
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # where all are of one size nothing is lost
        assert PerBucket(model, Canvases(one_size=True))(image, window)["shape"].tolist() == [[1, 96, 160, 3]]

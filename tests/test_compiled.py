"""One compiled function for photographs of every size."""

import keras
import numpy as np

from mrcnn.model import MaskRCNN
from tests.tiny import TinyConfig


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

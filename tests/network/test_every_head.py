"""Every head inside the network: it trains, its checkpoint gives the same detections, and it is exported."""

import numpy as np
import pytest

from mrcnn.model import MaskRCNN
from tests.heads import small
from tests.tiny import TinyConfig, TinyDataset

pytestmark = pytest.mark.slow


def config(name, **settings):
    side = small.side(name)
    return TinyConfig(MASK_HEAD=small.small(name), MASK_POOL_SIZE=side, DETECTION_MIN_CONFIDENCE=0.0, **settings)


@pytest.mark.parametrize("name", small.NAMES)
def test_it_trains_and_its_checkpoint_gives_the_same_detections(name, tmp_path):
    model = MaskRCNN("training", config(name), tmp_path)
    losses = model.train(TinyDataset(2), None, epochs=1, verbose=0).history
    for loss in model.network.head.loss_names:
        assert np.isfinite(losses[loss]).all() and losses[loss][0] > 0, loss
    other = MaskRCNN("inference", config(name, SEED=5), tmp_path)
    other.load_weights(model.find_last())
    image = TinyDataset(1).load_image(0)
    (one,), (two,) = model.detect([image]), other.detect([image])
    assert one.count and one.soft.probabilities.shape[1:] == (model.network.mask_size,) * 2
    np.testing.assert_allclose(one.soft.probabilities, two.soft.probabilities, atol=1e-5)
    np.testing.assert_allclose(one.mask_scores, two.mask_scores, atol=1e-5)
    assert ("mask_scores" in one) == model.network.head.rescores


@pytest.mark.parametrize("name", ["mlp", "fcn, class-agnostic"])
def test_heads_from_features_to_masks_are_written_as_onnx(name, tmp_path):
    pytest.importorskip("tf2onnx")
    from mrcnn.inference.predictor import Predictor

    model = MaskRCNN("inference", config(name), tmp_path)
    image = TinyDataset(1).load_image(0)
    (found,) = Predictor(model.export(tmp_path / "tiny.onnx"), threads=1).detect([image])
    (expected,) = model.detect([image])
    assert expected.count > 0 and found.class_ids.tolist() == expected.class_ids.tolist()
    np.testing.assert_allclose(found.soft.probabilities, expected.soft.probabilities, atol=1e-3)


@pytest.mark.parametrize("name", ["boundary", "dct", "mask_scoring", "pointrend", "fcn, softmax"])
def test_others_are_written_as_a_saved_model(name, tmp_path):
    import tensorflow as tf

    model = MaskRCNN("inference", config(name), tmp_path)
    molded = model.detector.network_input(TinyDataset(1).load_image(0))
    loaded = tf.saved_model.load(str(model.export(tmp_path / "saved")))
    found = loaded.signatures["serving_default"](
        image=tf.constant(molded.image[None]), window=tf.constant(molded.window[None], tf.float32)
    )
    expected = model.inference_model({"image": molded.image[None], "window": molded.window[None]}, training=False)
    assert set(found) == set(expected) and ("mask_scores" in found) == model.network.head.rescores
    for output in ("masks", *(["mask_scores"] if model.network.head.rescores else [])):
        np.testing.assert_allclose(found[output], expected[output], atol=1e-4)

"""What every registered head does."""

import keras
import numpy as np
import pytest

import heads

every_head = pytest.mark.parametrize("name", heads.names())


def features(rois):
    return np.random.default_rng(0).standard_normal((rois, 14, 14, 8)).astype("float32")


@pytest.fixture
def bfloat16():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


@every_head
@pytest.mark.parametrize("num_classes", [1, 5])
def test_gives_square_masks_of_probabilities(name, num_classes):
    model = heads.build(name, (14, 14, 8), num_classes)
    masks = keras.ops.convert_to_numpy(model(features(3)))
    assert masks.shape == (3, 28, 28, num_classes) == (3, *model.output_shape[1:])
    assert masks.dtype == np.float32
    assert 0 <= masks.min() < masks.max() <= 1


@every_head
def test_rois_do_not_see_each_other_in_inference(name):
    model, x = heads.build(name, (14, 14, 8), 2), features(4)
    np.testing.assert_allclose(model(x)[1:3], model(x[1:3]), atol=1e-6)


@every_head
def test_stays_float32_at_both_ends_under_bfloat16(name, bfloat16):
    model = heads.build(name, (14, 14, 8), 3)
    masks = model(features(2))
    assert keras.backend.standardize_dtype(masks.dtype) == "float32"
    assert {weight.dtype for weight in model.weights} == {"float32"}
    assert model.layers[1].compute_dtype == "bfloat16"


@every_head
def test_layer_names_are_its_own(name):
    """Checkpoints go by these names, so they must not depend on what was built before in the session."""
    first, second = (heads.build(name, (14, 14, 8), 3) for _ in range(2))
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]
    assert [weight.path for weight in first.weights] == [weight.path for weight in second.weights]
    assert len({layer.name for layer in first.layers}) == len(first.layers)


@every_head
def test_learns_a_mask(name):
    keras.utils.set_random_seed(0)
    model, x = heads.build(name, (14, 14, 8), 2), features(4)
    target = np.zeros((4, 28, 28, 2), "float32")
    target[:, 8:20, 8:20, 1] = 1
    model.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy")
    before = [keras.ops.convert_to_numpy(weight) for weight in model.trainable_weights]
    first, *_, last = model.fit(x, target, epochs=15, verbose=0).history["loss"]
    assert last < 0.5 * first
    for weight, old in zip(model.trainable_weights, before, strict=True):
        assert np.abs(keras.ops.convert_to_numpy(weight) - old).max() > 0, weight.path

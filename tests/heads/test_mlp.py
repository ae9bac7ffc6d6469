"""The fully connected mask head: sizes by hand, and where its classes lie."""

import numpy as np
import pytest

import heads


@pytest.mark.parametrize("hidden_layers", [1, 2])
def test_parameters_of_the_paper(hidden_layers):
    first, more, last = 14 * 14 * 8 * 64 + 64, 64 * 64 + 64, 64 * 81 * 784 + 81 * 784
    model = heads.build("mlp", (14, 14, 8), 81, hidden_layers=hidden_layers, units=64)
    assert model.count_params() == first + (hidden_layers - 1) * more + last
    assert model.output_shape == (None, 28, 28, 81)


def test_a_hidden_layer_at_least():
    with pytest.raises(ValueError, match="at least one hidden layer; received hidden_layers=0"):
        heads.build("mlp", (14, 14, 8), 3, hidden_layers=0)


def test_the_outputs_of_a_class_stand_together():
    """So that a model for other classes can keep those of the same name."""
    model = heads.build("mlp", (4, 4, 2), 3, units=4, mask_size=5)
    kernel, bias = model.get_layer("masks").get_weights()
    bias[25:50] = 3.0
    model.get_layer("masks").set_weights([0 * kernel, bias])
    masks = np.asarray(model(np.ones((1, 4, 4, 2), np.float32)))
    np.testing.assert_allclose(masks[0, ..., 1], 1 / (1 + np.exp(-3.0)), atol=1e-6)
    np.testing.assert_allclose(masks[0, ..., [0, 2]], 0.5, atol=1e-6)

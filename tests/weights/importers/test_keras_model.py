"""The ways in which programs save `keras_model`: all are read back, or say what to write instead."""

import keras
import numpy as np
import pytest

from mrcnn.model import MaskRCNN
from mrcnn.weights.checkpoint import is_checkpoint
from mrcnn.weights.recognize import read_source
from tests.tiny import TinyConfig


def with_norm(normalization, **settings):
    head = {"name": "fcn", "filters": 32, "convolutions": 1, "normalization": normalization}
    return TinyConfig(MASK_HEAD=head, **settings)


@pytest.fixture(scope="module", params=["training", "inference"])
def model(request, tmp_path_factory):
    return MaskRCNN(request.param, TinyConfig(SEED=5), tmp_path_factory.mktemp("logs"))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return MaskRCNN("inference", TinyConfig(), tmp_path_factory.mktemp("logs"))


def weights(model):
    return {
        f"{key}/{i}": np.array(value)
        for key, layer in model.network.layers().items()
        for i, value in enumerate(layer.get_weights())
    }


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def clear(model):
    for layer in model.network.layers().values():
        layer.set_weights([np.zeros_like(value) for value in layer.get_weights()])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["end_of_run.h5", "end_of_run.weights.h5", "no_ending"])
def test_save_weights_of_keras_model_writes_a_checkpoint(model, other, tmp_path, name):
    model.keras_model.save_weights(tmp_path / name)
    assert is_checkpoint(tmp_path / name) and read_source(tmp_path / name).settings["NAME"] == "tiny"
    clear(other)
    other.load_weights(tmp_path / name)
    assert_same(weights(other), weights(model))
    clear(other)
    other.keras_model.load_weights(tmp_path / name)
    assert_same(weights(other), weights(model))
    with pytest.raises(FileExistsError, match="already exists, and overwrite is False"):
        model.keras_model.save_weights(tmp_path / name, overwrite=False)


@pytest.mark.slow
@pytest.mark.parametrize("name, whole", [("a.weights.h5", False), ("a.h5", True)])
def test_what_keras_itself_saved_is_read_by_either_graph(model, other, tmp_path, capsys, name, whole):
    graph, path = model.keras_model, tmp_path / name
    graph.save(path) if whole else type(graph).save_weights(graph, path)
    assert not is_checkpoint(path)
    clear(other)
    report = other.load_weights(path)
    assert_same(weights(other), weights(model))
    assert not report.skipped + report.missing + report.unexpected
    assert "Keras stores no settings with weights; model.save_weights(path) does" in capsys.readouterr().out
    if not whole and model.mode == "inference":
        clear(other)
        other.keras_model.load_weights(path)
        assert_same(weights(other), weights(model))


def test_the_callback_of_keras_writes_what_is_read(model, other, tmp_path):
    callback = keras.callbacks.ModelCheckpoint(tmp_path / "a.weights.h5", save_weights_only=True)
    callback.set_model(model.keras_model)
    callback.on_epoch_end(0, {})
    clear(other)
    other.load_weights(tmp_path / "a.weights.h5")
    assert_same(weights(other), weights(model))


def test_a_whole_model_of_keras_says_what_to_write_instead(other, tmp_path):
    other.keras_model.save(tmp_path / "a.keras")
    with pytest.raises(ValueError, match=r"a.keras is a whole Keras model; save with model.save_weights"):
        other.load_weights(tmp_path / "a.keras")


@pytest.mark.slow
def test_without_settings_a_model_cannot_be_built(model, tmp_path):
    path, graph = tmp_path / "a.weights.h5", model.keras_model
    type(graph).save_weights(graph, path)
    with pytest.raises(ValueError, match="does not contain the model's settings; pass the configuration"):
        MaskRCNN.from_pretrained(path)
    assert_same(weights(MaskRCNN.from_pretrained(path, config=TinyConfig)), weights(model))


@pytest.mark.slow
@pytest.mark.parametrize("normalization", ["batch", "group"])
def test_normalization_in_the_heads(tmp_path, normalization):
    saver = MaskRCNN("inference", with_norm(normalization, SEED=5), tmp_path)
    path, graph = tmp_path / "a.weights.h5", saver.keras_model
    type(graph).save_weights(graph, path)
    loaded = MaskRCNN("inference", with_norm(normalization), tmp_path)
    loaded.load_weights(path)
    assert_same(weights(loaded), weights(saver))

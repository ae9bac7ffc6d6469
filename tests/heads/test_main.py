"""python -m heads NAME."""

import pytest

import heads
from heads.__main__ import main

FILE = """
import heads, keras

@heads.register("from a file")
def made(input_shape, num_classes, *, activation="sigmoid"):
    features = keras.Input(input_shape)
    x = keras.layers.Flatten()(features)
    x = keras.layers.Dense(64, activation="relu", name="dense")(x)
    x = keras.layers.Reshape((8, 8, 1))(keras.layers.Dense(64, name="grid")(x))
    x = keras.layers.Conv2D(num_classes, 1, activation=activation, dtype="float32", name="masks")(x)
    return keras.Model(features, x)
"""


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    monkeypatch.setattr(heads.registry, "_heads", dict(heads.registry._heads))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return str(path)


@pytest.mark.slow
def test_a_head_of_a_file_is_described_and_checked(file, capsys):
    assert main(["from a file", "--file", file, "--classes", "2", "--features", "8", "8", "4"]) == 0
    text = capsys.readouterr().out
    assert "from a file: mask head for 2 classes and features of (8, 8, 4)" in text
    assert text.count("  ok      ") == 6 and "FAILED" not in text


def test_a_head_that_cannot_be_built_is_named(file, capsys):
    assert main(["from a file", "--file", file, "--option", "activation=relu"]) == 1
    assert "FAILED  mask head 'from a file' must give probabilities, 0 to 1" in capsys.readouterr().out


@pytest.mark.slow
def test_a_head_that_breaks_the_contract_is_named(capsys):
    @heads.register("forgetful")
    def forgetful(input_shape, num_classes):
        import keras

        features = keras.Input(input_shape)
        return keras.Model(features, keras.layers.Conv2D(num_classes, 1, activation="sigmoid")(features))

    assert main(["forgetful", "--features", "4", "4", "2"]) == 1
    assert "FAILED  layers have their own names: the names of weights change" in capsys.readouterr().out


def test_an_option_has_a_name_and_a_value(capsys):
    with pytest.raises(SystemExit):
        main(["fcn", "--option", "filters"])
    assert "expected NAME=VALUE, got 'filters'" in capsys.readouterr().err

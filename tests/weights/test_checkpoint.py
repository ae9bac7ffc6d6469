"""The checkpoint file: what goes in comes out; what is wrong is named and changes nothing."""

import re
import resource

import h5py
import keras
import numpy as np
import pytest

from mrcnn.weights.checkpoint import checkpoint_source, load_checkpoint, read_metadata, read_state, save_checkpoint
from mrcnn.weights.recognize import read_source
from tests.weights.metadata import set_metadata


def network(classes: int = 3, seed: int = 0) -> tuple[keras.Model, dict]:
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(6, name="conv"),
            keras.layers.BatchNormalization(name="bn"),
            keras.layers.Dropout(0.5, name="dropout"),
            keras.layers.Dense(classes, name="logits"),
        ]
    )
    parts = {"conv": "trunk/conv", "bn": "trunk/bn", "dropout": "trunk/dropout", "logits": "head/logits"}
    return model, {parts[layer.name]: layer for layer in model.layers}


def values(model: keras.Model) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(weight).copy() for weight in model.weights]


def assert_same(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def saved(tmp_path):
    """A file, and the model and layers it was made of."""
    model, layers = network()
    path = tmp_path / "a.h5"
    save_checkpoint(path, layers, {"epoch": 7, "class_names": ["BG", "cat"]})
    return path, model, layers


def test_weights_come_back_exactly(saved):
    path, model, _ = saved
    other, layers = network(seed=1)
    report = load_checkpoint(path, layers)
    assert_same(values(other), values(model))
    assert len(report.loaded) == 8 and not (report.skipped or report.missing or report.unexpected)
    assert ("trunk/conv/kernel", (4, 6), (4, 6)) in report.loaded
    assert str(report) == "weights: 8 loaded, 0 skipped, 0 missing, 0 unexpected"


def test_layout_of_the_file(saved):
    path, model, _ = saved
    with h5py.File(path) as file:
        kernel = file["weights/trunk/conv/kernel"][()]
        assert set(file["weights/trunk"]) == {"conv", "bn"}  # the dropout's seed is no weight
    np.testing.assert_array_equal(kernel, values(model)[0])


def test_names_used_twice_in_a_layer_are_made_unique(tmp_path):
    inner = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2), keras.layers.Dense(2)])
    path = tmp_path / "a.h5"
    save_checkpoint(path, {"block": inner}, {})
    before = values(inner)
    for weight in inner.weights:
        weight.assign(weight + 1)
    report = load_checkpoint(path, {"block": inner})
    assert [tensor.name for tensor in report.loaded] == ["block/kernel", "block/bias", "block/kernel_1", "block/bias_1"]
    assert_same(values(inner), before)


def test_metadata(saved, tmp_path):
    path, _, layers = saved
    assert read_metadata(path) == {"epoch": 7, "class_names": ["BG", "cat"], "format_version": 2}
    # Longer than the 64 KB that the older HDF5 format allows, and with the types that configurations hold.
    given = {"long": "x" * 100_000, "std": np.float32(0.5), "shape": (2, 3), "array": np.arange(2)}
    save_checkpoint(path, layers, given)
    found = read_metadata(path)
    assert found["long"] == given["long"]
    assert (found["std"], found["shape"], found["array"]) == (0.5, [2, 3], [0, 1])
    with pytest.raises(ValueError, match="checkpoint metadata must be JSON-serializable.*object"):
        save_checkpoint(tmp_path / "b.h5", layers, {"backbone": object()})
    assert not (tmp_path / "b.h5").exists()


def test_bfloat16_weights(tmp_path):
    layer = keras.layers.Dense(3, dtype="bfloat16")
    layer.build((None, 2))
    before = values(layer)
    save_checkpoint(tmp_path / "a.h5", {"dense": layer}, {})
    layer.kernel.assign(layer.kernel * 0)
    load_checkpoint(tmp_path / "a.h5", {"dense": layer})
    assert_same(values(layer), before)
    assert layer.kernel.dtype == "bfloat16"


# Errors on loading: each names the thing, and the model stays as it was


def test_other_class_count(saved):
    path, _, _ = saved
    other, layers = network(classes=5, seed=1)
    before = values(other)
    with pytest.raises(ValueError, match="number of classes") as caught:
        load_checkpoint(path, layers)
    message = str(caught.value)
    assert re.search(r"head/logits/kernel\s+model \(6, 5\)\s+file \(6, 3\)", message)
    assert "exclude=['head/logits']" in message
    assert_same(values(other), before)


@pytest.mark.parametrize("exclude", ["logits", "head", "head/logits", ["log.*"], re.compile("h.*"), ["head", "logits"]])
def test_exclude(saved, exclude):
    path, model, _ = saved
    other, layers = network(classes=5, seed=1)
    before = values(other)
    report = load_checkpoint(path, layers, exclude=exclude)
    assert [tensor.name for tensor in report.skipped] == ["head/logits/kernel", "head/logits/bias"]
    assert_same(values(other)[:2], values(model)[:2])
    assert_same([layers["head/logits"].kernel.numpy()], [before[-2]])


def test_exclude_matches_whole_names_and_warns_of_none(saved):
    path, _, layers = saved
    with pytest.warns(UserWarning, match="'logit' matches no layer; did you mean 'logits'"):
        report = load_checkpoint(path, layers, exclude="logit")
    assert len(report.loaded) == 8


def test_a_broken_expression_is_named(saved):
    path = saved[0]
    model, layers = network(seed=1)
    before = values(model)
    with pytest.raises(ValueError, match=r"exclude: 'mrcnn_\(' is not a valid regular expression \(.*unterminated"):
        load_checkpoint(path, layers, exclude=["head", "mrcnn_("])
    assert_same(values(model), before)


SETTINGS = {"BACKBONE": "resnet50", "BACKBONE_OPTIONS": {}, "IMAGE_CHANNEL_COUNT": 3}


@pytest.mark.slow
@pytest.mark.parametrize(
    "metadata, found",
    [
        ("{'epoch': 3}", r"is not json \(.*\): \"{'epoch': 3}\""),
        ('{"epoch": 3', r"is not json \(.*\): '{\"epoch\": 3'"),
        ("", r"is not json \(.*\): ''"),
        ("[" * 100_000, r"is not json \(.*\): '\[{99}\.\.\."),
        ([1, 2], r"is not a dict but \[1, 2\]"),
        (None, "is not a dict but None"),
        ("3", "is not a dict but 3"),
        ({"config": ["NAME"]}, r"must have a dict of settings for 'config', but has \['NAME'\]"),
        ({"config": None}, "must have a dict of settings for 'config', but has None"),
        ({"class_names": "cat"}, "must have a list of names for 'class_names', but has 'cat'"),
        ({"class_names": [["cat"]]}, r"must have a list of names for 'class_names', but has \[\['cat'\]\]"),
        ({"epoch": "3"}, "must have a whole number for 'epoch', but has '3'"),
        ({"epoch": True}, "must have a whole number for 'epoch', but has True"),
        ({"format_version": "1"}, "must have a whole number for 'format_version', but has '1'"),
        ({"config": SETTINGS | {"BACKBONE": 5}}, "must have a name for 'BACKBONE', but has 5"),
        (
            {"config": SETTINGS | {"BACKBONE_OPTIONS": [1]}},
            r"must have a dict of .* for 'BACKBONE_OPTIONS', but has \[1\]",
        ),
        (
            {"config": SETTINGS | {"IMAGE_CHANNEL_COUNT": 0}},
            "must have .* of 1 or more for 'IMAGE_CHANNEL_COUNT', but has 0",
        ),
    ],
)
def test_damaged_metadata(saved, metadata, found):
    path = saved[0]
    model, layers = network(seed=1)
    before = values(model)
    set_metadata(path, metadata)
    for reader in (lambda path: load_checkpoint(path, layers), read_metadata, checkpoint_source, read_source):
        with pytest.raises(ValueError, match=f"a.h5 is damaged: its metadata {found}.*use an earlier checkpoint"):
            reader(path)
    assert_same(values(model), before)


def test_a_changed_byte_in_the_metadata(saved):
    """It renamed a class: "cat" was "bat" from then on."""
    path, _, layers = saved
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"cat"', b'"bat"'))
    for reader in (lambda path: load_checkpoint(path, layers), read_metadata, checkpoint_source, read_source):
        with pytest.raises(ValueError, match="a.h5 is damaged: its metadata does not match its checksum"):
            reader(path)


def test_checkpoints_of_the_first_format_have_no_checksums(saved):
    path, model, layers = saved
    with h5py.File(path, "r+") as file:
        del file.attrs["metadata_sha256"]
    with pytest.raises(ValueError, match="a.h5 is damaged: the checksum of its metadata is missing"):
        read_metadata(path)
    with h5py.File(path, "r+") as file:
        file.attrs["metadata"] = '{"epoch": 7, "format_version": 1}'
    assert read_metadata(path)["epoch"] == 7
    assert len(load_checkpoint(path, layers).loaded) == 8


def test_weights_that_are_no_group(saved):
    with h5py.File(saved[0], "r+") as file:
        del file["weights"]
        file["weights"] = np.zeros(3)
    with pytest.raises(ValueError, match="a.h5 is an HDF5 file but not a checkpoint of this package .it holds: weigh"):
        read_metadata(saved[0])


def test_names_of_classes_may_be_numbers(saved):
    path, _, layers = saved
    save_checkpoint(path, layers, {"class_names": ["BG", 1, 2], "config": SETTINGS})
    assert checkpoint_source(path).class_names == ["BG", 1, 2]


def test_other_architecture(saved):
    path, _, layers = saved
    extra = keras.layers.Dense(2)
    extra.build((None, 3))
    fewer = {key: layer for key, layer in layers.items() if key != "trunk/conv"} | {"head/extra": extra}
    with pytest.raises(ValueError, match="a different architecture") as caught:
        load_checkpoint(path, fewer)
    assert "missing from the file:\n  head/extra/kernel" in str(caught.value)
    assert "unknown to the model:\n  trunk/conv/" in str(caught.value)
    report = load_checkpoint(path, fewer, strict=False)
    assert [tensor.name for tensor in report.missing] == ["head/extra/kernel", "head/extra/bias"]
    assert report.missing[0].file_shape is None
    assert {tensor.name for tensor in report.unexpected} == {"trunk/conv/kernel", "trunk/conv/bias"}
    assert "unexpected:\n  trunk/conv/" in str(report)


def test_strict_off_still_refuses_other_shapes_unless_they_may_be_skipped(saved):
    path, _, _ = saved
    _, layers = network(classes=5)
    with pytest.raises(ValueError, match="shapes differ"):
        load_checkpoint(path, layers, strict=False)
    report = load_checkpoint(path, layers, skip_mismatch=True)
    assert [tensor.name for tensor in report.skipped] == ["head/logits/kernel", "head/logits/bias"]
    assert len(report.loaded) == 6


def test_nothing_in_common(saved):
    path, _, layers = saved
    with pytest.raises(ValueError, match="no layer in common"):
        load_checkpoint(path, {f"other/{key}": layer for key, layer in layers.items()}, strict=False)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_truncated_file(saved, share):
    path, model, layers = saved
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    before = values(model)
    with pytest.raises(ValueError, match="a.h5 is (truncated|not an HDF5 file)"):
        load_checkpoint(path, layers)
    with pytest.raises(ValueError, match="a.h5 is (truncated|not an HDF5 file)"):
        read_metadata(path)
    assert_same(values(model), before)


def test_flipped_bits(saved):
    path, model, layers = saved
    content = bytearray(path.read_bytes())
    content[content.index(values(model)[0].tobytes()[:16])] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match="a.h5 is truncated or damaged"):
        load_checkpoint(path, layers)


def test_not_a_checkpoint(tmp_path):
    _, layers = network()
    with pytest.raises(FileNotFoundError, match="no checkpoint file at .*none.h5"):
        load_checkpoint(tmp_path / "none.h5", layers)
    with pytest.raises(FileNotFoundError, match="it is a folder"):
        read_metadata(tmp_path)
    (tmp_path / "text.h5").write_text("version 1\n")
    with pytest.raises(ValueError, match="text.h5 is not an HDF5 file .10 bytes"):
        load_checkpoint(tmp_path / "text.h5", layers)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["conv1/kernel"] = np.zeros(3)
    with pytest.raises(ValueError, match="not a checkpoint of this package .it holds: conv1"):
        load_checkpoint(tmp_path / "other.h5", layers)


def test_newer_format(saved):
    path, _, layers = saved
    set_metadata(path, {"format_version": 99})
    with pytest.raises(ValueError, match="has format 99, but this version of mrcnn reads up to 2"):
        load_checkpoint(path, layers)


def test_nan_in_the_file(saved):
    path, model, layers = saved
    with h5py.File(path, "r+") as file:
        file["weights/head/logits/bias"][...] = np.nan
    before = values(model)
    for weight in model.weights:
        weight.assign(weight + 1)
    with pytest.raises(ValueError, match="NaN or infinite weights; use an earlier (.|\n)*head/logits/bias"):
        load_checkpoint(path, layers)
    assert_same(values(model), [value + 1 for value in before])


# Errors on saving: the older file stays


def test_nan_is_not_saved(saved):
    path, _, layers = saved
    before = path.read_bytes()
    layers["trunk/conv"].bias.assign(np.full(6, np.inf))
    with pytest.raises(ValueError, match="not saved to .*: trunk/conv"):
        save_checkpoint(path, layers, {})
    assert path.read_bytes() == before


def test_full_disk(saved):
    """A limit on the size of files fails a write as a full disk does."""
    path, _, _ = saved
    big = keras.layers.Dense(400)
    big.build((None, 400))
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match="could not write .*a.h5.*unchanged"):
            save_checkpoint(path, {"big": big}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["a.h5"]


def test_what_reads_back_differently_does_not_replace_the_file(saved, monkeypatch):
    path, _, layers = saved
    before = path.read_bytes()
    monkeypatch.setattr(np, "array_equal", lambda *arguments, **options: False)
    with pytest.raises(OSError, match="reads back differently"):
        save_checkpoint(path, layers, {})
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["a.h5"]


def test_layer_without_weights_yet(tmp_path):
    with pytest.raises(ValueError, match="layer 'a' is not built"):
        save_checkpoint(tmp_path / "a.h5", {"a": keras.layers.Dense(2)}, {})


class Odd(keras.layers.Layer):
    """Its own "kernel_1" meets the name made for its second "kernel"."""

    def build(self, input_shape):
        for name in ("kernel", "kernel", "kernel_1"):
            self.add_weight(shape=(2,), name=name)
        self.built = True


def test_colliding_names(tmp_path):
    layer = Odd()
    layer.build((None, 2))
    with pytest.raises(ValueError, match="two weights share the name 'a/kernel_1'"):
        save_checkpoint(tmp_path / "a.h5", {"a": layer}, {})


# The training state

STATE = {"iterations": np.array(4), "momentum/trunk/conv/0": np.array([0.5, -1.0], np.float32)}


def test_the_training_state_comes_back(tmp_path, saved):
    _, _, layers = saved
    save_checkpoint(tmp_path / "a.h5", layers, {}, STATE)
    state = read_state(tmp_path / "a.h5")
    assert state.keys() == STATE.keys()
    for name, value in STATE.items():
        np.testing.assert_array_equal(state[name], value)
        assert state[name].dtype == value.dtype


def test_a_file_without_training_state_says_so(saved):
    with pytest.warns(UserWarning, match="contains no training state: momentum starts at zero") as caught:
        assert read_state(saved[0]) == {}
    assert [warning.filename for warning in caught] == [__file__]


def test_a_changed_scalar_of_the_training_state(tmp_path, saved):
    """HDF5 keeps no checksums for scalars, such as the count of iterations."""
    path = tmp_path / "a.h5"
    save_checkpoint(path, saved[2], {}, STATE)
    with h5py.File(path, "r+") as file:
        file["state/iterations"][...] = 5
    with pytest.raises(ValueError, match="a.h5 is damaged in 'state/iterations', whose checksum differs"):
        read_state(path)


def test_nan_in_the_training_state(tmp_path, saved):
    _, _, layers = saved
    save_checkpoint(tmp_path / "a.h5", layers, {}, STATE)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["state/momentum/trunk/conv/0"][...] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite values in momentum/trunk/conv/0; use an earlier checkpoint"):
        read_state(tmp_path / "a.h5")

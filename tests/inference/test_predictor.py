"""The JSON file of an exported model, which anyone can have written."""

import json
import re

import pytest

from mrcnn.inference import predictor
from mrcnn.inference.predictor import Description, Predictor, content_hash
from tests.tiny import TinyConfig

SETTINGS = {name: value for name, value in TinyConfig().to_dict().items() if name != "BACKBONE"}
GOOD = {
    "format": 1,
    "class_names": ["BG", "B\u00e4r", "dog"],
    "config": SETTINGS,
    "pixels": {"mean": [1, 2, 3], "std": [1, 1, 1], "bgr": False},
}


def read(tmp_path, values):
    path = tmp_path / "a.json"
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    return Description.read(path)


def test_what_export_writes_is_read(tmp_path):
    found = read(tmp_path, GOOD)
    assert found.class_names == ["BG", "B\u00e4r", "dog"] and found.scaling == ((1, 2, 3), (1, 1, 1), False)
    assert found.config.NUM_CLASSES == 3 and found.skeleton is None


@pytest.mark.parametrize(
    "change, message",
    [
        ({"class_names": None}, "class_names must be a list of names, got None"),
        ({"class_names": "BG"}, "class_names must be a list of names"),
        ({"class_names": [1, 2]}, "class_names must be a list of names"),
        ({"config": []}, "mapping"),
        ({"config": {"NO_SUCH": 1}}, "NO_SUCH"),
        ({"pixels": 5}, "subscriptable"),
        ({"pixels": {"mean": [0, 0, 0]}}, "it has no 'std'"),
        ({"pixels": {**GOOD["pixels"], "std": [0, 0, 0]}}, "a positive std for each of 3 channels"),
        ({"pixels": {**GOOD["pixels"], "mean": [1e308] * 3}}, "pixels must have a mean"),
        ({"pixels": {**GOOD["pixels"], "mean": [1]}}, "pixels must have a mean"),
        ({"skeleton": {"names": 5}}, "a skeleton is a dict"),
    ],
)
def test_anything_else_is_one_error_that_names_the_file(tmp_path, change, message):
    with pytest.raises(ValueError, match=rf"a.json is not a description by MaskRCNN.export: .*{message}.*; export the"):
        read(tmp_path, {**GOOD, **change})


@pytest.mark.parametrize("text", ["", "[]", "null", "[" * 100_000, '{"format": 1}', '{"format": ' + "9" * 9999 + "}"])
def test_what_is_no_description_at_all(tmp_path, text):
    with pytest.raises(ValueError, match="a.json is not a description by MaskRCNN.export: "):
        read(tmp_path, text)


def test_a_huge_file_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(predictor, "MOST_BYTES", 10)
    with pytest.raises(ValueError, match="it has more than 10 bytes"):
        read(tmp_path, GOOD)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"precision": "f8"}, "precision must be one of ('f32', 'bf16', 'f16', None), got 'f8'"),
        *(
            ({"threads": threads}, f"threads must be an integer of 1 or more, or None, got {threads!r}")
            for threads in ("four", -3, 0, 1.5, True)
        ),
    ],
)
def test_wrong_arguments_are_not_taken_for_a_damaged_file(given, message):
    """They are said before anything is read."""
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Predictor("nowhere.xml", **given)


@pytest.mark.parametrize(
    "error, raised, message",
    [
        (
            RuntimeError(" no such operator\n"),
            ValueError,
            "a.xml cannot be loaded: no such operator; if the file is dam",
        ),
        (MemoryError("4 GB"), MemoryError, "^4 GB$"),
        (ImportError("run: pip"), ImportError, "^run: pip$"),
    ],
)
def test_an_engine_that_fails_names_the_file_unless_memory_or_a_package_is_missing(
    tmp_path, monkeypatch, error, raised, message
):
    def load(*_):
        raise error

    read(tmp_path, GOOD)
    (tmp_path / "a.xml").touch()
    monkeypatch.setattr(predictor, "_openvino", load)
    with pytest.raises(raised, match=message):
        Predictor(tmp_path / "a.xml")


@pytest.mark.parametrize(
    "model, changed, counts",
    [
        ("m.xml", "m.xml", True),
        ("m.xml", "m.bin", True),
        ("m.xml", "m.json", True),
        ("m.onnx", "m.json", True),
        ("m.onnx", "m.bin", False),
        ("m.tflite", "m.json", True),
        ("m.h5", "m.json", False),
    ],
)
def test_a_model_is_known_by_all_of_its_files(tmp_path, model, changed, counts):
    """OpenVINO's weights are in the .bin, and two networks of one kind have the same .xml."""
    for name in (model, "m.bin", "m.json"):
        (tmp_path / name).write_text(name)
    before = content_hash(tmp_path / model)
    assert content_hash(str(tmp_path / model)) == before
    (tmp_path / changed).write_text("retrained")
    assert (content_hash(tmp_path / model) != before) == counts

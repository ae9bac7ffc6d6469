"""The commands around a model: what they are given, what they hand on, and what they print for programs."""

import json

import numpy as np
import pytest

from mrcnn.config import Config
from mrcnn.data.formats import load_dataset
from mrcnn.model import MaskRCNN
from mrcnn.training.interruption import TrainingInterrupted

pytestmark = pytest.mark.slow

# A network that is built in seconds, from settings that a json holds
SMALL = {
    "BACKBONE": "mobilenet",
    "BACKBONE_OPTIONS": {"alpha": 0.25},
    "TOP_DOWN_PYRAMID_SIZE": 16,
    "RPN_CHANNELS": 16,
    "FPN_CLASSIF_FC_LAYERS_SIZE": 16,
    "MASK_HEAD": {"name": "fcn", "filters": 8, "convolutions": 1},
    "IMAGE_MIN_DIM": 64,
    "IMAGE_MAX_DIM": 64,
    "RPN_ANCHOR_SCALES": [8, 16, 32, 48, 64],
    "PRE_NMS_LIMIT_TRAINING": 50,
    "PRE_NMS_LIMIT": 50,
    "POST_NMS_ROIS_TRAINING": 30,
    "POST_NMS_ROIS_INFERENCE": 30,
    "TRAIN_ROIS_PER_IMAGE": 16,
    "MAX_GT_INSTANCES": 4,
    "MINI_MASK_SHAPE": [28, 28],
    "WARMUP_STEPS": 0,
}


@pytest.fixture
def settings(tmp_path):
    path = tmp_path / "config.json"
    Config(NAME="small", NUM_CLASSES=3, **SMALL).save(path)
    return path


def test_evaluate_matches_classes_by_name(run_json, models, data, monkeypatch):
    monkeypatch.setattr("tests.cli.conftest.BOXES", ((0, 0, 9, 9),))
    code, values = run_json("evaluate", data, "--subset", "val", "--weights", "w.h5")
    assert code == 1 and "they have no class in common" in values["error"]
    for name in ("BG", "disc", "cat", "box"), ("BG", "box", "disc"):
        monkeypatch.setattr("tests.cli.conftest.NAMES", list(name))
        code, values = run_json("evaluate", data, "--subset", "val", "--weights", "w.h5", "--limit", "1", "--boundary")
        assert code == 0 and values["images"] == 1 and set(values["per_class"]) <= {"box", "disc"}
        assert values["mask"]["AP"] >= 0 and values["boundary"]["AP"] >= 0


def test_check_fails_for_what_is_broken(run, run_json, data, tmp_path):
    code, values = run_json("check", data, "--subset", "train", "--images", "--report", tmp_path / "report.json")
    assert code == 0 and values["checked_images"] == 4
    assert json.loads((tmp_path / "report.json").read_text())["checked_images"] == 4
    (data / "train" / "0.png").unlink()
    code, out, _ = run("check", data, "--subset", "train", "--images")
    assert code == 1 and "0.png" in out
    code, *_ = run("check", data, "--subset", "train", "--page", tmp_path / "report.html", "--fix", tmp_path / "fixed")
    assert code == 1 and "0.png" in (tmp_path / "report.html").read_text()
    assert load_dataset(tmp_path / "fixed").num_images == 3
    code, _, err = run("check", data, "--subset", "train", "--page", tmp_path)
    assert code == 1 and "it is a folder" in err
    code, _, err = run("check", data / "nowhere")
    assert code == 1 and "does not exist" in err


def test_heads_are_listed_and_described(run, run_json):
    code, values = run_json("heads")
    assert code == 0 and {"fcn", "unet"} <= {head["name"] for head in values}
    (fcn,) = (head for head in values if head["name"] == "fcn")
    assert fcn["options"]["filters"] == 256 and fcn["kind"] == "mask" and fcn["summary"].endswith(".")
    _, out, _ = run("heads", "fcn:filters=8,convolutions=1", "--classes", "3")
    assert "parameters" in out and "unet" not in out
    code, _, err = run("heads", "nothing")
    assert code == 1 and "invalid choice: 'nothing' (choose from " in err


def test_train_continues_and_its_weights_are_found_by_last(run, run_json, data, settings, tmp_path):
    """Two epochs in two calls; then `weights`, `evaluate` and `detect` on what they made."""
    logs = ("--logs", tmp_path / "logs")
    subsets = ("--subset", "train", "--val-subset", "val")
    code, values = run_json(
        "train", data, *subsets, "--weights", "none", "--config", settings, "--epochs", 1, *logs, "--name", "mine"
    )
    assert code == 0 and values["epoch"] == 1 and np.isfinite(values["last"]["loss"])
    assert "val_mask_AP" in values["last"]
    code, more = run_json("train", data, *subsets, "--weights", "last", "--epochs", 2, *logs)
    assert code == 0 and more["epoch"] == 2 and more["folder"] == values["folder"]
    code, described = run_json("weights", f"{values['folder']}/mask_rcnn_mine_0002.h5")
    assert code == 0 and described["class_names"] == ["BG", "box", "disc"] and described["program"] == "this package"
    assert described["settings"]["IMAGE_MAX_DIM"] == 64
    code, judged = run_json("evaluate", data, "--subset", "val", "--weights", "last", *logs)
    assert code == 0 and judged["images"] == 2
    code, _, err = run("detect", data / "val", "--weights", "last", *logs, "--output", tmp_path / "found")
    assert code == 0 and "objects in 2 images" in err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--subset", "train", "--val-subset", "train"), "would be both training and validation data"),
        (("--subset", "train", "--weights", "last"), "no checkpoint in .*logs; train first"),
        (("--subset", "train", "--weights", "missing.h5"), "no checkpoint file at missing.h5|missing.h5"),
        (("--subset", "train", "--preset", "matterport"), "pass --config or --preset, not both"),
        (("--subset", "train", "--set", "LEARNIN_RATE=1"), "LEARNING_RATE"),
    ],
)
def test_train_says_what_is_wrong_before_it_trains(run, data, settings, tmp_path, arguments, message):
    given = ("--weights", "none", "--config", settings, "--logs", tmp_path / "logs", *arguments)
    code, _, err = run("train", data, *given)
    assert code == 1 and len(err.strip().splitlines()) == 1
    import re

    assert re.search(message, err)


@pytest.mark.parametrize(
    "state, saved, advice",
    [
        ("after epoch 3. Saved: x.", True, "Continue with --weights last"),
        ("after epoch 0. Nothing was saved.", False, "Run the same command to start over"),
    ],
)
def test_an_interrupted_training_says_how_to_continue(run, data, settings, tmp_path, monkeypatch, state, saved, advice):
    def interrupted(self, *arguments, **options):
        raise TrainingInterrupted(state, saved=saved)

    monkeypatch.setattr(MaskRCNN, "train", interrupted)
    given = ("--weights", "none", "--config", settings, "--logs", tmp_path / "logs")
    code, _, err = run("train", data, "--subset", "train", *given)
    assert code == 130
    assert err.strip().endswith(f"mrcnn train: interrupted: {state} {advice}")


@pytest.mark.parametrize(
    "error, state",
    [(TrainingInterrupted("after epoch 3. Saved: x."), "after epoch 3. Saved: x."), (KeyboardInterrupt(), "finished")],
)
def test_an_interrupted_comparison_says_how_to_continue(run, data, settings, monkeypatch, error, state):
    def interrupted(*arguments, **options):
        raise error

    monkeypatch.setattr("mrcnn.experiments.comparison.compare", interrupted)
    code, _, err = run("compare", data, "--subset", "train", "--val-subset", "val", "--config", settings)
    line = err.strip().splitlines()[-1]
    assert code == 130 and line.startswith(f"mrcnn compare: interrupted: {state}")
    assert line.endswith("Run the same command to continue")


def test_compare_hands_everything_on(run, run_json, data, settings, monkeypatch):
    asked = {}

    def compare(datasets, heads, config, **options):
        asked.update(datasets=datasets, heads=heads, config=config, options=options)
        return [{"head": "fcn"}]

    monkeypatch.setattr("mrcnn.experiments.comparison.compare", compare)
    given = ("--config", settings, "--subset", "train", "--val-subset", "val", "--batch", 4)
    code, values = run_json("compare", data, *given, "--heads", "fcn,unet", "--seeds", "0,3", "--epochs", 2)
    assert code == 0 and values == [{"head": "fcn"}]
    assert asked["heads"] == [{"name": "fcn"}, {"name": "unet"}] and asked["options"]["seeds"] == [0, 3]
    assert [len(part.image_ids) for part in asked["datasets"]["data"]] == [4, 2]
    config = asked["config"]
    assert (config.IMAGES_PER_GPU, config.LEARNING_RATE) == (4, 0.005) and config.NUM_CLASSES == 3
    assert run("compare", data, "--subset", "train")[2].strip().endswith("give --val or --val-subset")


def test_export_hands_everything_on(run_json, photos, monkeypatch, tmp_path):
    from mrcnn.cli import options

    asked = {}

    class Model:
        def export(self, path, **given):
            asked.update(given, path=path)
            return path

    monkeypatch.setattr(options, "load_model", lambda arguments, **_: Model())
    code, values = run_json(
        "export", tmp_path / "a.xml", "--weights", "w", "--precision", "int8", "--calibration", photos
    )
    assert code == 0 and values == {"file": str(tmp_path / "a.xml"), "precision": "int8"}
    assert asked["precision"] == "int8" and len(asked["calibration"]) == 6

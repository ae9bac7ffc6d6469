"""The balloon sample from the command line, on a few generated photographs."""

import json

import cv2
import numpy as np
import pytest

from samples.balloon import balloon

TINY = ["--backbone", "mobilenet", "--backbone-option", "alpha=0.25", "--image-size", "64", "--seed", "3",
        "--set", "TOP_DOWN_PYRAMID_SIZE=8", "--set", "RPN_CHANNELS=8", "--set", "FPN_CLASSIF_FC_LAYERS_SIZE=16",
        "--set", "RPN_ANCHOR_SCALES=(8, 16, 32, 48, 64)", "--set", "TRAIN_ROIS_PER_IMAGE=16",
        "--set", "POST_NMS_ROIS_TRAINING=32", "--set", "POST_NMS_ROIS_INFERENCE=16", "--head-option", "filters=8"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """train/ with 3 and val/ with 2 photographs of one disc each, annotated as VIA 1.x circles."""
    root = tmp_path_factory.mktemp("balloons")
    rng = np.random.default_rng(0)
    for subset, count in (("train", 3), ("val", 2)):
        (root / subset).mkdir()
        annotations = {}
        for i in range(count):
            image = rng.integers(0, 60, (64, 80, 3), dtype=np.uint8)
            cv2.circle(image, (40, 30), 18, (40, 40, 250), -1)
            cv2.imwrite(str(root / subset / f"{i}.png"), image)
            shape = {"name": "circle", "cx": 40, "cy": 30, "r": 18}
            annotations[f"{i}.png"] = {"filename": f"{i}.png", "size": 1, "file_attributes": {},
                                       "regions": {"0": {"shape_attributes": shape, "region_attributes": {}}}}
        (root / subset / "via_region_data.json").write_text(json.dumps(annotations))
    return root


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    logs = tmp_path_factory.mktemp("logs")
    balloon.main(["train", "--dataset", str(folder), "--weights", "none", "--logs", str(logs), "--epochs", "1",
                  "--head", "fcn", "--verbose", "0", *TINY])
    return logs


def test_train_writes_a_run(trained):
    (run,) = trained.iterdir()
    names = {path.name for path in run.iterdir()}
    assert {"mask_rcnn_balloon_0001.h5", "config.json", "log.csv"} <= names
    header, values = (run / "log.csv").read_text().splitlines()
    assert "val_mrcnn_mask_loss" in header.split(",") and len(values.split(",")) == len(header.split(","))


def test_evaluate_prints_tables_and_draws(trained, folder, tmp_path, capsys):
    (run,) = trained.iterdir()
    balloon.main(["evaluate", "--dataset", str(folder), "--weights", "last", "--logs", str(trained),
                  "--config", str(run / "config.json"), "--pictures", str(tmp_path / "pictures")])
    printed = capsys.readouterr().out
    assert "AP50" in printed and "2 images, 2 instances" in printed
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == ["0.png", "1.png"]


def test_splash_writes_a_photograph(trained, folder, tmp_path, monkeypatch):
    (run,) = trained.iterdir()
    monkeypatch.chdir(tmp_path)
    balloon.main(["splash", "--weights", "last", "--logs", str(trained), "--config", str(run / "config.json"),
                  "--image", str(folder / "val" / "0.png")])
    assert cv2.imread(str(tmp_path / "0_splash.png")).shape == (64, 80, 3)


def test_splash_goes_through_a_video(trained, tmp_path, monkeypatch):
    (run,) = trained.iterdir()
    writer = cv2.VideoWriter(str(tmp_path / "film.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 5, (64, 48))
    for _ in range(3):
        writer.write(np.full((48, 64, 3), 90, np.uint8))
    writer.release()
    monkeypatch.chdir(tmp_path)
    balloon.main(["splash", "--weights", "last", "--logs", str(trained), "--config", str(run / "config.json"),
                  "--video", str(tmp_path / "film.mp4")])
    reader = cv2.VideoCapture(str(tmp_path / "film_splash.mp4"))
    assert reader.get(cv2.CAP_PROP_FRAME_COUNT) == 3


def test_color_splash_keeps_colour_inside_masks_only():
    image = np.zeros((2, 2, 3), np.uint8)
    image[..., 0] = 200
    masks = np.zeros((2, 2, 1), bool)
    masks[0, 0] = True
    splashed = balloon.color_splash(image, masks)
    np.testing.assert_array_equal(splashed[0, 0], [200, 0, 0])
    np.testing.assert_array_equal(splashed[1, 1], [42, 42, 42])  # 0.2125 * 200 = 42.5, rounded to even


@pytest.mark.parametrize("arguments, message", [
    (["train", "--weights", "none"], "train needs --dataset"),
    (["splash", "--weights", "none"], "splash needs one of --image and --video"),
    (["train", "--weights", "none", "--dataset", ".", "--set", "SEED"], "expected NAME=VALUE"),
    (["train", "--weights", "none", "--dataset", ".", "--head", "fnc"], "invalid choice: 'fnc'"),
])
def test_a_wrong_command_line_says_what_is_wrong(arguments, message, capsys):
    with pytest.raises(SystemExit):
        balloon.parse(arguments)
    assert message in capsys.readouterr().err

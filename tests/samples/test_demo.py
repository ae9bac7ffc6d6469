"""The demonstration at its smallest: one step a head, two photographs, the start that it ships with."""

import json
import math
from types import SimpleNamespace

import cv2
import h5py
import numpy as np
import pytest

import heads
from mrcnn.network.graph import build_network
from samples import demo
from samples.shapes import pretrain
from samples.shapes.shapes import ShapesConfig

pytestmark = pytest.mark.slow

KEYS = ("box_ap", "mask_ap", "mask_ap50", "parameters", "head_parameters", "ms_per_image", "training_seconds")


@pytest.fixture
def tiny(monkeypatch):
    """Seconds instead of minutes."""
    for name, value in {"EPOCHS": 1, "TRAINING_IMAGES": 2, "TEST_IMAGES": 2, "PICTURED": 2}.items():
        monkeypatch.setattr(demo, name, value)
    for name, value in {"STEPS_PER_EPOCH": 1, "IMAGES_PER_GPU": 2, "WARMUP_STEPS": 0, "LOADER_WORKERS": 1}.items():
        monkeypatch.setattr(demo.DemoConfig, name, value)
    monkeypatch.setattr(demo, "HEADS", {"fcn": {"name": "fcn", "filters": 8}, "unet": {"name": "unet", "filters": 8}})


def test_both_heads_are_trained_compared_and_drawn(tiny, tmp_path, capsys):
    demo.main(["--output", str(tmp_path / "out")])
    report = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(report["heads"]) == ["fcn", "unet"]
    assert (report["steps"], report["batch"], report["test_images"]) == (1, 2, 2)
    for head, row in report["heads"].items():
        assert set(row) == set(KEYS)
        assert all(math.isfinite(row[key]) for key in KEYS)
        assert row["parameters"] > row["head_parameters"] > 0 and row["ms_per_image"] > 0
        assert cv2.imread(str(tmp_path / "out" / f"{head}.png")).std() > 10
    assert report["heads"]["fcn"]["parameters"] != report["heads"]["unet"]["parameters"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["fcn.png", "results.json", "unet.png"]
    assert demo.table(report["heads"]) in capsys.readouterr().out


def test_any_registered_head_may_be_chosen(monkeypatch):
    seen = []
    monkeypatch.setattr(demo.heads, "names", lambda kind: ["fcn", "unet", "mine"])
    monkeypatch.setattr(demo, "train_and_evaluate", lambda config, *_: seen.append(config) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        demo.main(["--heads", "mine"])
    assert seen[0].MASK_HEAD == "mine"


def test_an_unknown_head_is_refused_with_the_known_ones(capsys):
    with pytest.raises(SystemExit):
        demo.main(["--heads", "fnc"])
    message = capsys.readouterr().err
    assert "invalid choice: 'fnc'" in message and all(name in message for name in heads.names("mask"))


def test_row_takes_the_numbers_of_the_results():
    sizes = {"backbone": 1000, "mask_head": 200}
    parts = {name: SimpleNamespace(count_params=lambda size=size: size) for name, size in sizes.items()}
    model = SimpleNamespace(network=SimpleNamespace(parts=lambda: parts))
    results = SimpleNamespace(box={"AP": 0.12345}, mask={"AP": 0.23456, "AP50": 0.5}, ms_per_image=12.34)
    assert demo.row(model, results, 61.23) == {
        "box_ap": 0.1235,
        "mask_ap": 0.2346,
        "mask_ap50": 0.5,
        "parameters": 1200,
        "head_parameters": 200,
        "ms_per_image": 12.3,
        "training_seconds": 61.2,
    }


def test_table_has_a_line_a_head_in_aligned_columns():
    row = {"box_ap": 0.5, "mask_ap": 0.25, "mask_ap50": 0.75, "parameters": 1234567, "ms_per_image": 19.4}
    header, first, second = demo.table({"fcn": row, "unet": row}).splitlines()
    assert len(header) == len(first) == len(second)
    assert second.split() == ["unet", "0.500", "0.250", "0.750", "1,234,567", "19"]


def test_the_start_fills_all_but_the_mask_head():
    with h5py.File(pretrain.START) as file:
        assert "box_head" in file["weights"] and "mask_head" not in file["weights"]
    network = build_network(ShapesConfig())
    before = {key: [np.array(w) for w in layer.get_weights()] for key, layer in network.layers().items()}
    pretrain.load_start(network)
    changed = {
        key.split("/")[0]
        for key, layer in network.layers().items()
        if any((old != new).any() for old, new in zip(before[key], layer.get_weights(), strict=True))
    }
    assert "mask_head" in {key.split("/")[0] for key in before} and "mask_head" not in changed
    assert changed == {key.split("/")[0] for key in before} - {"mask_head"}


@pytest.mark.parametrize("steps, way_out", [("700", "try 500"), ("4200", "try 4000"), ("0", "try 500")])
def test_steps_that_are_no_whole_epochs_are_refused(steps, way_out, capsys):
    with pytest.raises(SystemExit):
        pretrain.main(["--steps", steps])
    assert f"got {steps}; {way_out}" in capsys.readouterr().err

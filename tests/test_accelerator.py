"""The benchmark of one accelerator, on the processor: a whole run with a small network, and its parts."""

import importlib.util
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import accelerator
import numpy as np
import pytest
from accelerators import correctness, networks

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"

pytestmark = pytest.mark.slow

ABSENT = ("tensorflow", "cv2", "skimage", "matplotlib", "PIL", "tensorboard", "yaml", "tqdm")  # beside JAX's image


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs jax: pip install mask-rcnn-keras[jax]")
def test_a_whole_run_needs_nothing_but_jax_and_keras(tmp_path):
    script = tmp_path / "blocked.py"
    script.write_text(
        textwrap.dedent(f"""
        import runpy, sys
        sys.modules.update(dict.fromkeys({ABSENT}))
        sys.argv = sys.argv[1:]
        runpy.run_path(sys.argv[0], run_name="__main__")
        """)
    )
    small = ["--networks", "small", "--size", "64", "96", "--batches", "1", "--training-batches", "1", "--runs", "1"]
    more = [
        "--precisions",
        "float32",
        "--seconds",
        "100000",
        "--no-torchvision",
        "--json",
        str(tmp_path / "found.json"),
    ]
    ended = subprocess.run(
        [sys.executable, str(script), str(BENCHMARKS / "accelerator.py"), *small, *more],
        env={**os.environ, "KERAS_BACKEND": "jax", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    rows = {row["work"]: row for row in found["rows"]}
    assert rows["detect"]["ms"] > 0 and rows["detect"]["compile, s"] > 0 and rows["detect"]["MB"] > 0, rows
    assert rows["train"]["images/s"] > 0 and rows["train"]["loss"] > 0, rows
    assert "cv2" in rows["whole detect"]["error"]
    assert found["profile"]["operations"], found["profile"]
    exactly, float32, bfloat16 = found["correctness"]
    for row in (exactly, float32):
        assert row["partners"] == 1 and row["boxes, px"] < 0.05 and row["scores"] < 1e-3 and row["masks"] < 0.01, row
    assert bfloat16["partners"] > 0.5
    assert "| detect | small | float32 | 1 |" in ended.stdout
    assert "| float32, exact products | 1 |" in ended.stdout


def test_the_stored_detections_are_found_again_here():
    """Also on TensorFlow, so that a change of the network is seen by whoever makes it."""
    from mrcnn.network.graph import inference_graph

    config = networks.settings("small", precision="float32", batch=1)
    graph = inference_graph(networks.seeded(config), config)
    given = networks.inputs(1, *correctness.SIZES["small"])
    (found,) = correctness.detections(graph.predict_on_batch(given))
    differences = correctness.differences(found, correctness.stored("small"))
    assert differences["partners"] == 1
    assert differences["boxes, px"] < 1e-2 and differences["scores"] < 1e-4 and differences["masks"] < 3e-3


@pytest.mark.parametrize("network, count", [("small", 22), ("resnet50", 30)])
def test_what_is_stored(network, count):
    stored = correctness.stored(network)
    assert stored["boxes"].shape == (count, 4) and stored["masks"].shape == (count, 28, 28)
    assert stored["masks"].dtype == np.uint8 and len(set(stored["class_ids"].tolist())) > 1


def test_partners_are_of_one_class_and_taken_once():
    stored = {
        "boxes": np.array([[0, 0, 9, 9], [0, 0, 9, 9], [5, 5, 8, 8]], np.float32),
        "class_ids": np.array([1, 1, 2]),
        "scores": np.array([0.9, 0.8, 0.7], np.float32),
        "masks": np.full((3, 2, 2), 255, np.uint8),
    }
    found = {
        "boxes": np.array([[0, 0, 9, 9.5], [5, 5, 8, 8]], np.float32),
        "class_ids": np.array([1, 1]),
        "scores": np.array([0.85, 0.7], np.float32),
        "masks": np.full((2, 2, 2), 0.75, np.float32),
    }
    assert correctness.differences(found, stored) == pytest.approx(
        {"partners": 1 / 3, "boxes, px": 0.5, "scores": 0.05, "masks": 0.25, "masks, mean": 0.25}
    )
    nothing = {name: value[:0] for name, value in found.items()}
    assert correctness.differences(nothing, stored)["partners"] == 0


def test_a_failure_is_a_note_and_the_rest_goes_on(tmp_path):
    run = accelerator.Run(100, tmp_path / "found.json")

    def fail():
        raise RuntimeError("out of memory\nand much more")

    run.row("detect", "resnet50", "float32", 8, fail)
    run.row("detect", "resnet50", "float32", 1, lambda: {"ms": 12.345, "MB": 250.4})
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert rows[0]["error"] == "RuntimeError: out of memory" and rows[1]["ms"] == 12.345
    told = accelerator.table({**run.found, "device": "none", "size": [64, 96], "runs": 1})
    assert "| detect | resnet50 | float32 | 8 |  |  |  |  |  | RuntimeError: out of memory |" in told
    assert "| detect | resnet50 | float32 | 1 | 12.3 |  |  |  | 250 |  |" in told


def test_nothing_is_begun_that_would_take_too_long():
    run = accelerator.Run(100, None)
    run.longest = 200.0
    assert "no time left" in run.step("late", lambda: pytest.fail("it was begun"))["error"]
    assert run.step("short", lambda: 5, margin=0.0) == 5


def test_a_profile_sums_the_devices_operations_by_part():
    from accelerators import profiles

    def event(name, ms, **stats):
        return SimpleNamespace(name=name, duration_ns=ms * 1e6, stats=list(stats.items()))

    events = [
        event("conv.1", 4, hlo_op="conv.1", tf_op="jit(run)/mask_rcnn/trunk/conv1/conv"),
        event("conv.2", 2, hlo_op="conv.2", tf_op="jit(run)/mask_rcnn/trunk/conv2/conv"),
        event("sort", 1, hlo_op="sort", tf_op="jit(run)/mask_rcnn/proposals/sort"),
        event("copy", 0.5, hlo_op="copy"),
        event("host", 100),
    ]
    data = SimpleNamespace(planes=[SimpleNamespace(name="/device:GPU:0", lines=[SimpleNamespace(events=events)])])
    found = profiles.summed(data, calls=2)
    assert found["parts"] == {"trunk": 3.0, "proposals": 0.5, "other": 0.25}
    assert found["operations"] == {"conv.1": 2.0, "conv.2": 1.0, "sort": 0.5, "copy": 0.25}


def test_a_training_batch_fits_the_network():
    config = networks.settings("small", precision="float32", batch=2)
    batch = networks.training_batch(config, 64, 96)
    assert {len(value) for value in batch.values()} == {2}
    boxes = batch["gt_boxes"][:, : networks.OBJECTS]
    assert (boxes[..., :2] >= 0).all() and (boxes[..., 2:] <= (64, 96)).all()
    assert ((batch["gt_class_ids"] > 0).sum(axis=1) == networks.OBJECTS).all() and batch["gt_class_ids"].max() < 5

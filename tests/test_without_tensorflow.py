"""On JAX the package needs no TensorFlow: one program does everything with its import blocked."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs jax: pip install mask-rcnn-keras[jax]")
def test_detects_trains_saves_loads_and_evaluates(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-m", "tests.without_tensorflow", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "detections 10 checkpoints 1\n" in ended.stdout
    assert re.search(r"^AP (nan|0\.\d+|-1\.0|0|1\.0) ", ended.stdout, re.MULTILINE), ended.stdout
    assert ended.stdout.endswith("tensorflow []\n")

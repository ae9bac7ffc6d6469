"""Time and memory of loading a ResNet-101 of matterport's (h5) and of Detectron2's (pickle), each in each way in a
process of its own.

    python benchmarks/parity_loading.py FILE WAY    one json line: seconds, of CPU, bytes above what stood before

The ways: "stands", load_weights into a model whose settings are the file's; "second", load_weights into a model of the
plain Config, for which a second network is built that gets the first one's weights and then the file's; "pretrained",
MaskRCNN.from_pretrained, with the model itself in the memory that is counted.
"""

import json
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import common  # noqa: F401  makes the checkout importable
import h5py
import numpy as np
from parity_rows import Row

SECONDS, TIMES_THE_FILE = 10, 3
WAYS = {  # what is timed; what the memory holds beside the loading, if anything
    "stands": ("load_weights into a model that stands", ""),
    "second": ("load_weights into a plain Config's model", "second network and "),
    "pretrained": ("from_pretrained", "model and "),
}


def loading(oracles: Path) -> Iterator[Row]:
    """Rows of both files; their weights are random."""
    with tempfile.TemporaryDirectory() as folder:
        for name, write in (("matterport R101, h5", _matterport), ("Detectron2 R101, pkl", _detectron2)):
            path = write(oracles, Path(folder))
            for way, (what, beside) in WAYS.items():
                figures, size = _measured(path, way), path.stat().st_size
                yield Row(
                    name,
                    f"{what}, seconds",
                    SECONDS,
                    figures["seconds"],
                    f"({size / 1e6:.0f} MB; {figures['cpu']:.1f} s of CPU)",
                )
                yield Row(
                    name,
                    f"{what}, peak memory of {beside}loading, by the file's size",
                    TIMES_THE_FILE,
                    figures["bytes"] / size,
                )
            path.unlink()


def _measured(path: Path, way: str) -> dict[str, float]:
    answer = subprocess.run([sys.executable, __file__, str(path), way], capture_output=True, text=True)
    if answer.returncode:
        raise RuntimeError(f"loading {path.name} ({way}) failed: {answer.stderr[-2000:]}")
    return json.loads(answer.stdout.splitlines()[-1])


def _random(shape: list[int], rng: np.random.Generator) -> np.ndarray:
    return np.abs(rng.standard_normal(shape, np.float32)) * np.float32(0.05) + np.float32(0.01)


def _matterport(oracles: Path, folder: Path) -> Path:
    shapes, rng = json.loads((oracles / "matterport/layers_r101.json").read_text()), np.random.default_rng(0)
    with h5py.File(folder / "a.h5", "w") as file:
        file.attrs["layer_names"] = [layer.encode() for layer in shapes]
        for layer, weights in shapes.items():
            for weight, shape in weights.items():
                file[f"{layer}/{layer}/{weight}:0"] = _random(shape, rng)
    return folder / "a.h5"


def _detectron2(oracles: Path, folder: Path) -> Path:
    shapes = json.loads((oracles / "detectron2/state_dict_shapes_R_101.json").read_text())
    rng = np.random.default_rng(0)
    (folder / "a.pkl").write_bytes(
        pickle.dumps({"model": {name: _random(shape, rng) for name, shape in shapes.items()}, "__author__": "random"})
    )
    return folder / "a.pkl"


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Loads sys.argv[1] in the way of sys.argv[2]; asks for the resident memory all the while."""
    from mrcnn.model import MaskRCNN

    path, way = Path(sys.argv[1]), sys.argv[2]
    model = None if way == "pretrained" else MaskRCNN("inference", _config(path, way))
    network = model and model.network
    before, most, done = _resident(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            most[0] = max(most[0], _resident())

    thread = threading.Thread(target=watch)
    thread.start()
    began, cpu = time.perf_counter(), time.process_time()
    report = model.load_weights(path) if model else MaskRCNN.from_pretrained(path)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    done.set()
    thread.join()
    if model and (report.missing or report.unexpected or report.skipped):
        raise SystemExit(f"{path}: {report}")
    if model and (model.network is network) != (way == "stands"):
        raise SystemExit(f"{path}, {way}: {'no' if way == 'second' else 'a'} second network was built")
    print(json.dumps({"seconds": seconds, "cpu": cpu, "bytes": most[0] - before}))


def _config(path: Path, way: str) -> Any:
    from mrcnn.config import Config
    from mrcnn.presets import Detectron2, Matterport

    preset, classes = (Matterport, 5) if path.suffix == ".h5" else (Detectron2, 81)
    return (preset if way == "stands" else Config)(NAME="x", BACKBONE="resnet101", NUM_CLASSES=classes)


if __name__ == "__main__":
    main()

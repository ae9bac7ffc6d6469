"""Time and memory of loading a ResNet-101 of matterport's (h5) and of Detectron2's (pickle), each in a process of its
own.

    python benchmarks/parity_loading.py FILE    one json line: seconds, bytes of memory above what stood before
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

import common  # noqa: F401  makes the checkout importable
import h5py
import numpy as np
from parity_rows import Row

SECONDS, TIMES_THE_FILE = 10, 3


def loading(oracles: Path) -> Iterator[Row]:
    """Rows of both files; their weights are random."""
    with tempfile.TemporaryDirectory() as folder:
        for name, write in (("matterport R101, h5", _matterport), ("Detectron2 R101, pkl", _detectron2)):
            path = write(oracles, Path(folder))
            answer = subprocess.run([sys.executable, __file__, str(path)], check=True, capture_output=True, text=True)
            figures, size = json.loads(answer.stdout.splitlines()[-1]), path.stat().st_size
            yield Row(name, "load_weights into a model that stands, seconds", SECONDS, figures["seconds"],
                      f"({size / 1e6:.0f} MB)")
            yield Row(name, "its peak memory above that model, by the file's size", TIMES_THE_FILE,
                      figures["bytes"] / size)
            path.unlink()


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
    (folder / "a.pkl").write_bytes(pickle.dumps(
        {"model": {name: _random(shape, rng) for name, shape in shapes.items()}, "__author__": "random"}))
    return folder / "a.pkl"


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Loads sys.argv[1]; asks for the resident memory all the while."""
    from mrcnn.model import MaskRCNN
    from mrcnn.presets import Detectron2, Matterport

    path = Path(sys.argv[1])
    config = (Matterport(NAME="x", BACKBONE="resnet101", NUM_CLASSES=5) if path.suffix == ".h5"
              else Detectron2(NAME="x", BACKBONE="resnet101"))
    model = MaskRCNN("inference", config)
    before, most, done = _resident(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            most[0] = max(most[0], _resident())

    thread = threading.Thread(target=watch)
    thread.start()
    began = time.perf_counter()
    report = model.load_weights(path)
    seconds = time.perf_counter() - began
    done.set()
    thread.join()
    if report.missing or report.unexpected or report.skipped:
        raise SystemExit(f"{path}: {report}")
    print(json.dumps({"seconds": seconds, "bytes": most[0] - before}))


if __name__ == "__main__":
    main()

"""Detection in several processes: every image once, whatever happens to the workers."""

import os
import signal
import threading
import time

import cv2
import numpy as np
import pytest

from mrcnn.data import rle
from mrcnn.inference.many import ImageDetector, detect_many
from mrcnn.model import MaskRCNN
from tests.inference.test_export import NAMES, varied
from tests.tiny import TinyConfig

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model():
    built = varied(MaskRCNN("inference", TinyConfig()))
    built.class_names = NAMES
    return built


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    pytest.importorskip("tf2onnx")
    return model.export(tmp_path_factory.mktemp("export") / "tiny.onnx")


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for i in range(24):
        path = tmp_path / "images" / f"{i % 3}" / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), generator.integers(0, 256, (40 + i, 60, 3), np.uint8))
    (tmp_path / "images" / "broken.jpg").write_bytes(b"no image")
    return tmp_path / "images"


def test_rows_are_what_detect_finds(model, exported, folder):
    paths = sorted(folder.glob("*/*.png"))[:3]
    found = ImageDetector(exported, threads=1)([*({"path": path} for path in paths), {"path": folder / "broken.jpg"}])
    assert "broken.jpg" in found[3]["error"] and found[3]["masks"] == []
    for row, result in zip(found, model.detect(paths), strict=False):
        assert row["class_ids"] == result.class_ids.tolist() and row["error"] is None
        np.testing.assert_allclose(np.reshape(row["rois"], (-1, 4)), result.rois, atol=0.05)
        for counts, full in zip(row["masks"], np.moveaxis(result.masks, -1, 0), strict=True):
            decoded = rle.decode({"size": [row["height"], row["width"]], "counts": counts})
            assert (decoded != full).mean() < 0.01


def test_bytes_stand_for_the_file(exported, folder):
    path = next(folder.glob("*/*.png"))
    detector = ImageDetector(exported, threads=1)
    assert detector([{"path": path}]) == detector([{"path": path, "bytes": path.read_bytes()}])
    (broken,) = detector([{"path": "a", "bytes": b"no image"}])
    assert broken["error"] == "a: its bytes cannot be decoded as an image"


def test_every_image_once_though_a_worker_is_killed(exported, folder, tmp_path):
    ray = pytest.importorskip("ray")
    parquet = pytest.importorskip("pyarrow.parquet")
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    try:
        killed = []

        def kill():
            while not killed:
                for process in os.popen("ps -eo pid,args").read().splitlines()[1:]:
                    number, _, name = process.strip().partition(" ")
                    if "MapWorker" in name or "_ChunkWriter" in name:
                        os.kill(int(number), signal.SIGKILL)
                        killed.append(int(number))
                        return
                time.sleep(0.05)

        thread = threading.Thread(target=kill, daemon=True)
        thread.start()
        done = detect_many(exported, folder, tmp_path / "found", workers=2, chunk=2)
        assert killed and done == {"images": 25, "failed": 1, "skipped": 0}
        rows = [
            row
            for file in sorted((tmp_path / "found").glob("*.parquet"))
            for row in parquet.read_table(file).to_pylist()
        ]
        assert sorted(row["path"] for row in rows) == sorted(map(str, [*folder.glob("*/*.png"), folder / "broken.jpg"]))
        (tmp_path / "found" / "part-00000003.parquet").unlink()
        assert detect_many(exported, folder, tmp_path / "found", chunk=2) == {"images": 25, "failed": 1, "skipped": 23}
        with pytest.raises(ValueError, match="contains another run: chunk was 2 and is 5"):
            detect_many(exported, folder, tmp_path / "found", chunk=5)
    finally:
        ray.shutdown()


def test_nothing_to_detect(exported, tmp_path):
    pytest.importorskip("ray")
    with pytest.raises(FileNotFoundError, match="is neither a folder of images nor a .parquet file"):
        detect_many(exported, tmp_path / "no", tmp_path / "found")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="has no images"):
        detect_many(exported, tmp_path / "empty", tmp_path / "found")

"""Detection by Ray Data with a worker killed midway: every image is in the output once, and is what `detect` finds.

    python benchmarks/many_machines.py --images 500

The images are generated shapes, the network is the small one of samples/shapes. Needs the extras ray and onnx.
"""

import argparse
import os
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mrcnn.data import rle
from mrcnn.inference.many import detect_many
from mrcnn.inference.results import Result
from mrcnn.model import MaskRCNN
from samples.shapes.pretrain import load_start
from samples.shapes.shapes import ShapesConfig, ShapesDataset


def main() -> None:
    """Draws, exports, detects, compares, prints."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--images", type=int, default=500)
    flags.add_argument("--workers", type=int, default=2)
    flags.add_argument("--chunk", type=int, default=10, help="images per file")
    arguments = flags.parse_args()
    model = MaskRCNN("inference", ShapesConfig(DETECTION_MIN_CONFIDENCE=0.3))
    load_start(model.network)
    model.class_names = ["BG", "square", "circle", "triangle"]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        paths = draw(work / "images", arguments.images)
        exported = model.export(work / "shapes.onnx")
        began = time.perf_counter()
        killed, done = with_a_kill(exported, work, arguments.images // 2, arguments.workers, arguments.chunk)
        print(f"{done} in {time.perf_counter() - began:.0f} s; process {killed[0]} killed after {killed[1]} images")
        print(report(rows_of(work / "found"), model.detect(paths), [str(path) for path in paths]))


def draw(folder: Path, count: int) -> list[Path]:
    """Writes images of shapes."""
    dataset = ShapesDataset()
    dataset.load_shapes(count, 128, 128, seed=5)
    dataset.prepare()
    folder.mkdir()
    paths = [folder / f"{i:04d}.png" for i in range(count)]
    for i, path in enumerate(paths):
        cv2.imwrite(str(path), dataset.load_image(i)[..., ::-1])
    return paths


def with_a_kill(exported: Path, work: Path, after: int, workers: int, chunk: int) -> tuple[tuple[int, int], Any]:
    """Runs `detect_many` and kills a worker once so many images are done; (process, images then), what it returned."""
    import ray

    killed: list[tuple[int, int]] = []

    def kill() -> None:
        while not killed:
            done = chunk * sum(1 for _ in (work / "found").glob("*.parquet"))
            processes = worker_processes() if done >= after else []
            if processes:
                os.kill(processes[0], signal.SIGKILL)
                killed.append((processes[0], done))
            time.sleep(0.02)

    ray.init(num_cpus=workers, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    try:
        threading.Thread(target=kill, daemon=True).start()
        done = detect_many(exported, work / "images", work / "found", workers=workers, chunk=chunk)
    finally:
        ray.shutdown()
    if not killed:
        raise RuntimeError("the run ended before a worker was killed; give more images")
    return killed[0], done


def worker_processes() -> list[int]:
    """Ids of Ray's processes that detect."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                command = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if b"MapWorker" in command or b"_ChunkWriter" in command:
                found.append(int(folder.name))
    return found


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The rows of all files."""
    from pyarrow import parquet

    return [row for file in sorted(folder.glob("*.parquet")) for row in parquet.read_table(file).to_pylist()]


def report(rows: list[dict[str, Any]], expected: list[Result], paths: list[str]) -> str:
    """How the rows compare with what `detect` found."""
    by_path = {row["path"]: row for row in rows}
    same_images = len(rows) == len(by_path) == len(paths) and set(by_path) == set(paths)
    classes, boxes, masks, instances = 0, [0.0], [1.0], 0
    for path, result in zip(paths, expected, strict=True):
        row = by_path[path]
        if row["class_ids"] != result.class_ids.tolist():
            continue
        classes += 1
        instances += result.count
        boxes.append(np.abs(np.reshape(row["rois"], (-1, 4)) - result.rois).max(initial=0))
        size = [row["height"], row["width"]]
        for counts, full in zip(row["masks"], np.moveaxis(result.masks, 2, 0), strict=True):
            mask = rle.decode({"size": size, "counts": counts})
            union = np.count_nonzero(mask | full)
            masks.append(np.count_nonzero(mask & full) / union if union else 1.0)
    return (
        f"{len(rows)} rows, each of {len(paths)} images once: {same_images}; equal classes in {classes} images, "
        f"{instances} instances, boxes within {max(boxes):.2g} px, least mask IoU {min(masks):.4f}"
    )


if __name__ == "__main__":
    main()

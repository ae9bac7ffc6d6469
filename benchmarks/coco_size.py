"""Reads annotations of the size of COCO train2017, with this package and with pycocotools; compares time and memory.

    python -m benchmarks.coco_size --folder DIR              # 118 thousand images, a JSON file of 508 MB
    python -m benchmarks.coco_size --folder DIR --share 0.1  # a tenth of it

The file is generated: 845 thousand instances of 28 points, in images that are links to one small file. Each reader runs
in a process of its own; memory is the largest it had.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

IMAGES, INSTANCES, POINTS, CLASSES = 118_287, 844_910, 28, 80
HEIGHT, WIDTH = 480, 640


def write(folder: Path, share: float) -> Path:
    """Writes the images and the JSON file, unless they are there; returns the path of the latter."""
    images, instances = int(IMAGES * share), int(INSTANCES * share)
    path = folder / f"{images}" / "annotations" / "instances_train2017.json"
    if path.is_file():
        return path
    photographs = path.parents[1] / "train2017"
    photographs.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), (90, 90, 90)).save(folder / "image.jpg")
    names = [f"{number:012d}.jpg" for number in range(1, images + 1)]
    for name in names:
        (photographs / name).symlink_to(folder / "image.jpg")
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    url = "http://images.cocodataset.org/train2017/"
    with open(path, "w") as file:
        records = [
            {
                "license": 3,
                "file_name": name,
                "coco_url": url + name,
                "height": HEIGHT,
                "width": WIDTH,
                "date_captured": "2013-11-14 11:18:45",
                "flickr_url": "http://farm9.staticflickr.com/8186/8119368305_4e622c8349_z.jpg",
                "id": number,
            }
            for number, name in enumerate(names, 1)
        ]
        categories = [{"supercategory": "thing", "id": i, "name": f"class {i}"} for i in range(1, CLASSES + 1)]
        file.write(f'{{"info": {{}}, "licenses": [], "images": {json.dumps(records)}, "annotations": [')
        for start in range(0, instances, 10_000):
            file.write(", " * bool(start) + ", ".join(_annotations(rng, start, min(start + 10_000, instances), images)))
        file.write(f'], "categories": {json.dumps(categories)}}}')
    return path


def _annotations(rng: np.random.Generator, start: int, end: int, images: int) -> list[str]:
    count = end - start
    centers, radii = rng.uniform((60, 60), (WIDTH - 60, HEIGHT - 60), (count, 2)), rng.uniform(8, 60, (count, 1))
    angles = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)
    wobble = radii * rng.uniform(0.8, 1.0, (count, POINTS))
    points = np.stack([centers[:, :1] + wobble * np.cos(angles), centers[:, 1:] + wobble * np.sin(angles)], axis=2)
    points = np.round(points, 2)
    low, high = points.min(axis=1), points.max(axis=1)
    texts = []
    for i in range(count):
        (x1, y1), (x2, y2) = low[i].tolist(), high[i].tolist()
        record = {
            "segmentation": [points[i].ravel().tolist()],
            "area": round((x2 - x1) * (y2 - y1) * 0.7, 5),
            "iscrowd": 0,
            "image_id": int(rng.integers(1, images + 1)),
            "bbox": [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)],
            "category_id": (start + i) % CLASSES + 1,
            "id": start + i + 1,
        }
        texts.append(json.dumps(record))
    return texts


def read(reader: str, path: str) -> None:
    """Reads the file and prints seconds, and megabytes at most, as JSON."""
    if reader == "pycocotools":
        from pycocotools.coco import COCO

        start = time.perf_counter()
        instances = len(COCO(path).anns)
    else:
        from mrcnn.data.formats import load_dataset

        start = time.perf_counter()
        dataset = load_dataset(path)
        instances = sum(len(info["instances"]) for info in dataset.image_info)
    seconds, most = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        json.dumps({"reader": reader, "instances": instances, "seconds": round(seconds, 2), "megabytes": round(most)})
    )


def main() -> None:
    """Runs each reader in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for the generated data")
    parser.add_argument("--share", type=float, default=1.0, help="of the images and instances (1)")
    parser.add_argument("--read", choices=("pycocotools", "mrcnn"), help="read with one of them only, in this process")
    parser.add_argument("--rounds", type=int, default=1, help="how often each reads (1)")
    options = parser.parse_args()
    path = write(options.folder, options.share)
    if options.read:
        read(options.read, str(path))
        return
    print(f"{path}: {path.stat().st_size / 1e6:.0f} MB")
    for _ in range(options.rounds):
        for reader in ("pycocotools", "mrcnn"):
            command = [sys.executable, "-m", "benchmarks.coco_size", "--folder", str(options.folder)]
            command += ["--share", str(options.share), "--read", reader]
            ran = subprocess.run(command, capture_output=True, text=True, check=True)
            print(ran.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()

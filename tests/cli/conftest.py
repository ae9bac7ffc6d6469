"""A model for the commands that finds the same objects in every image, without a network."""

import json

import cv2
import numpy as np
import pytest

from mrcnn.cli import options
from mrcnn.cli.main import main
from mrcnn.data import rle
from mrcnn.inference.detector import Detector
from mrcnn.inference.tiling import tiled
from mrcnn.network.pixels import PixelScaling
from tests.inference.test_detector import AS_THEY_ARE, Answering
from tests.tiny import TinyConfig, TinyDataset

NAMES = ["BG", "cat", "dog", "Bär/../ü"]
BOXES = ((8, 8, 40, 40), (4, 30, 20, 60), (50, 0, 60, 9))


class Model:
    """What `load_model` returns: one object of each class in every image."""

    def __init__(self, scaling: PixelScaling = AS_THEY_ARE, **settings):
        self.config = TinyConfig(NUM_CLASSES=len(NAMES), **settings)
        self.class_names = list(NAMES)
        self.skeleton = None  # of a model without a keypoint head
        self.network = Answering(*BOXES)
        self.detector = Detector(self.network, self.config, scaling)

    def detect(self, images, verbose=0, prepare=None, tile=None):
        if tile is not None:
            tiled(self.detector, tile, 0.2)
        return self.detector.detect(images, verbose, prepare, self.class_names)

    def stream(self, images, **options):
        self.asked = {name: options.pop(name) for name in ("tile", "augment") if name in options}
        return self.detector.stream(images, **{"prepare": "rle", "class_names": self.class_names, **options})


@pytest.fixture
def models(monkeypatch):
    """The models that commands loaded, last one last."""
    loaded = []

    def load_model(arguments, mode="inference", **settings):
        loaded.append(Model(**{"DETECTION_MIN_CONFIDENCE": 0.05, **settings, **dict(arguments.set)}))
        return loaded[-1]

    monkeypatch.setattr(options, "load_model", load_model)
    return loaded


@pytest.fixture
def photos(tmp_path):
    """Six images in a folder and its subfolder, each of one gray value."""
    folder = tmp_path / "photos"
    for i, name in enumerate(("a.png", "b.jpg", "c.bmp", "sub/a.png", "sub/d.jpeg", "sub/deep/e.PNG")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        kind = "." + name.rpartition(".")[2].lower()
        content = cv2.imencode(kind, np.full((64, 64 + 32 * (i % 2), 3), 20 * i + 40, np.uint8))[1]
        (folder / name).write_bytes(content.tobytes())
    return folder


@pytest.fixture
def run(capsys):
    """Runs a command line; returns exit code, standard output and standard error."""

    def command(*arguments):
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


@pytest.fixture
def run_json(run):
    """Runs a command line with --json; returns exit code and the parsed output."""

    def command(*arguments):
        code, out, _ = run(*arguments, "--json")
        return code, json.loads(out)

    return command


@pytest.fixture
def data(tmp_path):
    """A folder with annotations of bright boxes, of the subsets train and val, that `load_dataset` reads."""
    folder = tmp_path / "data"
    for subset, count in (("train", 4), ("val", 2)):
        write_subset(folder, subset, TinyDataset(count, seed=len(subset)))
    return folder


def write_subset(folder, subset, dataset):
    """A COCO json with the images beside it, as <subset>/_annotations.coco.json."""
    (folder / subset).mkdir(parents=True)
    content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "box"}, {"id": 2, "name": "disc"}]}
    for image_id in dataset.image_ids:
        image, (masks, class_ids) = dataset.load_image(image_id), dataset.load_mask(image_id)
        name = f"{image_id}.png"
        cv2.imwrite(str(folder / subset / name), image[..., ::-1])
        number = len(content["images"]) + 1
        content["images"].append({"id": number, "file_name": name, "height": 64, "width": 64})
        for i, class_id in enumerate(class_ids):
            runs = rle.encode(masks[..., i])
            y1, x1, y2, x2 = rle.box(runs)
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": number,
                    "category_id": int(class_id),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": rle.area(runs),
                    "iscrowd": 0,
                    "segmentation": runs,
                }
            )
    (folder / subset / "_annotations.coco.json").write_text(json.dumps(content))

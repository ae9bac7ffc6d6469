"""A folder in COCO's layout with a few generated photographs, and settings small enough to train on it in a test."""

import json
from pathlib import Path

import cv2
import numpy as np

CATEGORIES = [{"id": 3, "name": "disc"}, {"id": 7, "name": "box"}]
SIDE = 64

SETTINGS = {
    "BACKBONE": "mobilenet",
    "BACKBONE_OPTIONS": {"alpha": 0.25},
    "IMAGE_MIN_DIM": SIDE,
    "IMAGE_MAX_DIM": SIDE,
    "TOP_DOWN_PYRAMID_SIZE": 8,
    "RPN_CHANNELS": 8,
    "FPN_CLASSIF_FC_LAYERS_SIZE": 16,
    "MASK_POOL_SIZE": 8,
    "RPN_ANCHOR_SCALES": [8, 16, 32, 48, 64],
    "TRAIN_ROIS_PER_IMAGE": 16,
    "POST_NMS_ROIS_TRAINING": 32,
    "POST_NMS_ROIS_INFERENCE": 16,
    "PRE_NMS_LIMIT_TRAINING": 50,
    "PRE_NMS_LIMIT": 50,
    "MAX_GT_INSTANCES": 4,
    "DETECTION_MAX_INSTANCES": 10,
    "WARMUP_STEPS": 0,
    "LOADER_WORKERS": 1,
    "MINI_MASK_SHAPE": [28, 28],
    "STEPS_PER_EPOCH": None,
    "NAME": "coco",
    "MASK_HEAD": {"name": "fcn", "filters": 8, "convolutions": 1},
}


def write_settings(path: Path, **changes) -> Path:
    """A file for --config."""
    path.write_text(json.dumps(SETTINGS | changes))
    return path


def write_coco(folder: Path, year: int = 2017, train: int = 3, val: int = 2) -> Path:
    """annotations/, train{year}/ and val{year}/; image i has a disc at the left and a box at the right."""
    (folder / "annotations").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, count, first in (("train", train, 100), ("val", val, 500)):
        write_split(folder, f"{split}{year}", f"{split}{year}", [first + i for i in range(count)], rng)
    return folder


def write_split(folder: Path, name: str, images: str, ids: list[int], rng: np.random.Generator) -> None:
    """instances_<name>.json over photographs in the folder `images`, which are made."""
    (folder / images).mkdir(exist_ok=True)
    content = {"images": [], "annotations": [], "categories": CATEGORIES}
    for i in ids:
        image = rng.integers(0, 60, (SIDE, 80, 3), dtype=np.uint8)
        cv2.circle(image, (20, 30), 14, (40, 40, 250), -1)
        cv2.rectangle(image, (48, 20), (71, 47), (40, 250, 40), -1)
        cv2.imwrite(str(folder / images / f"{i:012d}.png"), image)
        content["images"].append({"id": i, "file_name": f"{i:012d}.png", "height": SIDE, "width": 80})
        angles = np.linspace(0, 2 * np.pi, 25)[:-1]
        disc = np.stack([20.5 + 14 * np.cos(angles), 30.5 + 14 * np.sin(angles)], axis=1).ravel().tolist()
        content["annotations"] += [
            _annotation(2 * i, i, 3, disc, [6.5, 16.5, 28.0, 28.0], 609.0),
            _annotation(2 * i + 1, i, 7, [48, 20, 72, 20, 72, 48, 48, 48], [48, 20, 24, 28], 672.0),
        ]
    (folder / "annotations" / f"instances_{name}.json").write_text(json.dumps(content))


def _annotation(number: int, image: int, category: int, polygon: list, box: list, area: float) -> dict:
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "segmentation": [polygon],
        "bbox": box,
        "area": area,
        "iscrowd": 0,
    }

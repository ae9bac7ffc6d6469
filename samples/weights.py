"""Finds the weights for a sample's model, and the settings that belong to them."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mrcnn.config import Config
from mrcnn.model import MaskRCNN
from mrcnn.training import run_folder
from mrcnn.weights.importers import imagenet
from mrcnn.weights.recognize import read_source
from samples.settings import configure

COCO_FILE = "mask_rcnn_coco.h5"
COCO_URL = f"https://github.com/matterport/Mask_RCNN/releases/download/v2.0/{COCO_FILE}"


def coco_weights(folders: Sequence[str | Path] = (".", Path(__file__).resolve().parents[1])) -> Path:
    """The old package's COCO weights. Raises FileNotFoundError with the download URL if no folder has them."""
    for folder in folders:
        if (Path(folder) / COCO_FILE).is_file():
            return Path(folder) / COCO_FILE
    raise FileNotFoundError(
        f"no {COCO_FILE} in {' or '.join(str(Path(folder).resolve()) for folder in folders)}. "
        f"Download {COCO_URL} to one of them, or pass the path of the weights."
    )


def load_weights(model: MaskRCNN, weights: str | Path, exclude: Sequence[str] = ()) -> None:
    """Loads the weights named by the flag, and prints what was loaded.

    Args:
        weights: any file that `MaskRCNN.load_weights` takes, "last", "coco", "imagenet", or "none".
        exclude: layers to skip: names or regular expressions.

    Raises ValueError for weights that do not match; in inference mode, also if only the number of classes differs or a
    part is missing, which training would make up for.
    """
    if weights == "none":
        return
    strict = model.mode == "inference"
    report = model.load_weights(
        path_of(weights, model.config, model.model_dir), exclude=list(exclude) or None, strict=strict
    )
    if not report.notes:  # else it was already printed
        print(report)


def path_of(weights: str | Path, config: Config, logs: str | Path) -> Path:
    """The file named by the flag; missing ImageNet weights are downloaded."""
    if weights == "imagenet":
        return imagenet.download(config.BACKBONE, config.BACKBONE_OPTIONS)
    if weights == "coco":
        return coco_weights()
    return run_folder.find_last(Path(logs), config.NAME) if weights == "last" else Path(weights)


def settings_of(weights: str | Path, logs: str | Path, name: str) -> Path | None:
    """The config.json next to a checkpoint, or next to the newest one of the runs with that name; None if missing."""
    if weights in ("none", "imagenet", "coco"):
        return None
    path = run_folder.find_last(Path(logs), name) if weights == "last" else Path(weights)
    settings = path.with_name("config.json")
    return settings if settings.is_file() else None


def stored_settings(weights: str | Path, logs: str | Path, name: str) -> dict[str, Any]:
    """The settings that weights were made with: those next to them, else those in the file or of its program.

    Another program's score threshold is dropped, because AP also needs detections with low scores. Empty for weights
    without settings.
    """
    beside = settings_of(weights, logs, name)
    if beside is not None:
        return Config.load(beside).to_dict()
    try:
        source = read_source(coco_weights() if weights == "coco" else weights)
    except (FileNotFoundError, ValueError):  # missing file, or a format without settings; loading reports it
        return {}
    return {
        name: value for name, value in source.settings.items() if source.is_own or name != "DETECTION_MIN_CONFIDENCE"
    }


def configure_as_trained(
    sample: type[Config], arguments: argparse.Namespace, weights: str | Path, logs: str | Path
) -> Config:
    """The settings of the run that made the weights, or the sample's, with those from the command line.

    --config overrides the run's settings. Raises ValueError for an unknown setting.
    """
    stored = None
    if not arguments.config:
        stored = stored_settings(weights, logs, dict(arguments.set).get("NAME", sample.NAME))
    return configure(sample, arguments, stored)

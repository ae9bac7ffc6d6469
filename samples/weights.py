"""Where the weights of a sample's model come from, and which settings belong to them."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mrcnn.config import Config
from mrcnn.model import MaskRCNN
from mrcnn.training import run_folder
from mrcnn.weights.importers import imagenet
from mrcnn.weights.recognise import read_source
from samples.settings import configure

COCO_FILE = "mask_rcnn_coco.h5"
COCO_URL = f"https://github.com/matterport/Mask_RCNN/releases/download/v2.0/{COCO_FILE}"


def coco_weights(folders: Sequence[str | Path] = (".", Path(__file__).resolve().parents[1])) -> Path:
    """The old package's COCO weights. Raises FileNotFoundError, saying where to get them, when no folder has them."""
    for folder in folders:
        if (Path(folder) / COCO_FILE).is_file():
            return Path(folder) / COCO_FILE
    raise FileNotFoundError(
        f"no {COCO_FILE} in {' or '.join(str(Path(folder).resolve()) for folder in folders)}. "
        f"Fetch {COCO_URL} and put it there, or give the path of the weights."
    )


def load_weights(model: MaskRCNN, weights: str | Path, exclude: Sequence[str] = ()) -> None:
    """Loads what the flag names, and prints what was loaded.

    Args:
        weights: any file that `MaskRCNN.load_weights` takes, "last", "coco", "imagenet", or "none".
        exclude: layers to leave as they are: names or regular expressions.

    Raises ValueError for weights that do not fit; for a model in inference mode also where only the number of classes
    differs or a part is missing, which training makes good.
    """
    if weights == "none":
        return
    strict = model.mode == "inference"
    report = model.load_weights(
        path_of(weights, model.config, model.model_dir), exclude=list(exclude) or None, strict=strict
    )
    if not report.notes:  # else it has been printed
        print(report)


def path_of(weights: str | Path, config: Config, logs: str | Path) -> Path:
    """The file that the flag names; ImageNet weights are fetched when they are not here yet."""
    if weights == "imagenet":
        return imagenet.download(config.BACKBONE, config.BACKBONE_OPTIONS)
    if weights == "coco":
        return coco_weights()
    return run_folder.find_last(Path(logs), config.NAME) if weights == "last" else Path(weights)


def settings_of(weights: str | Path, logs: str | Path, name: str) -> Path | None:
    """The config.json beside a checkpoint, or beside the newest one of the runs of that name; None without one."""
    if weights in ("none", "imagenet", "coco"):
        return None
    path = run_folder.find_last(Path(logs), name) if weights == "last" else Path(weights)
    settings = path.with_name("config.json")
    return settings if settings.is_file() else None


def stored_settings(weights: str | Path, logs: str | Path, name: str) -> dict[str, Any]:
    """The settings that weights were made with: those beside them, else those that the file says or its program has.

    Another program's score threshold is left out: AP wants the detections of low score, too. Empty for weights that
    say nothing.
    """
    beside = settings_of(weights, logs, name)
    if beside is not None:
        return Config.load(beside).to_dict()
    try:
        source = read_source(coco_weights() if weights == "coco" else weights)
    except (FileNotFoundError, ValueError):  # no such file, or of a kind without settings; loading it says which
        return {}
    return {
        name: value for name, value in source.settings.items() if source.is_own or name != "DETECTION_MIN_CONFIDENCE"
    }


def configure_as_trained(
    sample: type[Config], arguments: argparse.Namespace, weights: str | Path, logs: str | Path
) -> Config:
    """The settings of the run that the weights come from, or the sample's, with what the command line says.

    What --config names goes before those of the run. Raises ValueError for an unknown setting.
    """
    stored = None
    if not arguments.config:
        stored = stored_settings(weights, logs, dict(arguments.set).get("NAME", sample.NAME))
    return configure(sample, arguments, stored)

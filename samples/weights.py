"""Where the weights of a sample's model come from, and which settings belong to them."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mrcnn.config import Config
from mrcnn.model import MaskRCNN
from mrcnn.weights.checkpoint import read_metadata
from samples.settings import configure

COCO_FILE = "mask_rcnn_coco.h5"
COCO_URL = f"https://github.com/matterport/Mask_RCNN/releases/download/v2.0/{COCO_FILE}"


def coco_weights(folders: Sequence[str | Path] = (".", Path(__file__).resolve().parents[1])) -> Path:
    """The old package's COCO weights. Raises FileNotFoundError, saying where to get them, when no folder has them."""
    for folder in folders:
        if (Path(folder) / COCO_FILE).is_file():
            return Path(folder) / COCO_FILE
    raise FileNotFoundError(f"no {COCO_FILE} in {' or '.join(str(Path(folder).resolve()) for folder in folders)}. "
                            f"Fetch {COCO_URL} and put it there, or give the path of the weights.")


def load_weights(model: MaskRCNN, weights: str | Path, exclude: Sequence[str] = ()) -> None:
    """Loads what the flag names, and prints what was loaded.

    Args:
        weights: a checkpoint, "last", "coco", "imagenet", a file of backbone weights, or "none".
        exclude: layers of a checkpoint to leave as they are: names or regular expressions.

    Raises ValueError for a checkpoint that differs from the model anywhere but in the layers of `exclude`.
    """
    if weights == "none":
        return
    print(model.load_weights(path_of(weights, model), exclude=list(exclude) or None))


def path_of(weights: str | Path, model: MaskRCNN) -> Path:
    """The file that the flag names; ImageNet weights are fetched when they are not here yet."""
    if weights == "imagenet":
        return model.get_imagenet_weights()
    if weights == "coco":
        return coco_weights()
    return model.find_last() if weights == "last" else Path(weights)


def find_last(logs: str | Path, name: str) -> Path:
    """The newest checkpoint of the newest run of that name. Raises FileNotFoundError when there is none."""
    # the search needs these two only; a whole network for it would cost seconds
    return MaskRCNN.find_last(SimpleNamespace(config=SimpleNamespace(NAME=name), model_dir=Path(logs)))


def settings_of(weights: str | Path, logs: str | Path, name: str) -> Path | None:
    """The config.json beside a checkpoint, or beside the newest one of the runs of that name; None without one."""
    if weights in ("none", "imagenet", "coco"):
        return None
    path = find_last(logs, name) if weights == "last" else Path(weights)
    settings = path.with_name("config.json")
    return settings if settings.is_file() else None


def stored_settings(weights: str | Path, logs: str | Path, name: str) -> dict[str, Any]:
    """The settings of the run that weights come from: those beside them, else those inside; empty without either."""
    beside = settings_of(weights, logs, name)
    if beside is not None:
        return Config.load(beside).to_dict()
    try:
        return read_metadata(weights).get("config", {})
    except (FileNotFoundError, ValueError):  # weights of another kind, or to be named when they are loaded
        return {}


def configure_as_trained(sample: type[Config], arguments: argparse.Namespace, weights: str | Path,
                         logs: str | Path) -> Config:
    """The settings of the run that the weights come from, or the sample's, with what the command line says.

    What --config names goes before those of the run. Raises ValueError for an unknown setting.
    """
    stored = None
    if not arguments.config:
        stored = stored_settings(weights, logs, dict(arguments.set).get("NAME", sample.NAME))
    return configure(sample, arguments, stored)

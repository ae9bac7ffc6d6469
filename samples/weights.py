"""Where the weights of a sample's model come from, and which settings belong to them."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

from mrcnn.config import Config
from mrcnn.model import MaskRCNN
from samples.settings import configure


def load_weights(model: MaskRCNN, weights: str | Path, exclude: Sequence[str] = ()) -> None:
    """Loads what the flag names, and prints what was loaded.

    Args:
        weights: a checkpoint, "last", "imagenet", a file of backbone weights, or "none".
        exclude: layers of a checkpoint to leave as they are: names or regular expressions.

    Raises ValueError for a checkpoint that differs from the model anywhere but in the layers of `exclude`.
    """
    if weights == "none":
        return
    path = model.get_imagenet_weights() if weights == "imagenet" else weights
    print(model.load_weights(path, exclude=list(exclude) or None))


def find_last(logs: str | Path, name: str) -> Path:
    """The newest checkpoint of the newest run of that name. Raises FileNotFoundError when there is none."""
    # the search needs these two only; a whole network for it would cost seconds
    return MaskRCNN.find_last(SimpleNamespace(config=SimpleNamespace(NAME=name), model_dir=Path(logs)))


def settings_of(weights: str | Path, logs: str | Path, name: str) -> Path | None:
    """The config.json beside a checkpoint, or beside the newest one of the runs of that name; None without one."""
    if weights in ("none", "imagenet"):
        return None
    path = find_last(logs, name) if weights == "last" else Path(weights)
    settings = path.with_name("config.json")
    return settings if settings.is_file() else None


def configure_as_trained(sample: type[Config], arguments: argparse.Namespace, weights: str | Path,
                         logs: str | Path) -> Config:
    """The settings of the run that the weights come from, or the sample's, with what the command line says.

    What --config names goes before what lies beside the weights. Raises ValueError for an unknown setting.
    """
    if not arguments.config:
        arguments.config = settings_of(weights, logs, dict(arguments.set).get("NAME", sample.NAME))
    return configure(sample, arguments)

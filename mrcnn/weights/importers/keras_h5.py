"""HDF5 files of Keras 1's and 2's `save_weights` and `save`: layers and their weights, nested or not."""

import os
import re
from collections import defaultdict

from mrcnn.weights.hdf5 import Dataset, lazy, list_datasets, open_hdf5
from mrcnn.weights.source import Lazy

# Keras 1's names for the weights of a layer; its running_std holds the variance.
KERAS1 = {
    "W": "kernel",
    "b": "bias",
    "gamma": "gamma",
    "beta": "beta",
    "running_mean": "moving_mean",
    "running_std": "moving_variance",
}
WEIGHTS = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")

Layers = dict[str, dict[str, Lazy]]


def read_layers(path: str | os.PathLike[str]) -> Layers:
    """The weights of a file by layer and name, regardless of nested models, read lazily.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is not HDF5, is truncated, has data in another file, or a layer has two weights with the same
            name and different shapes.
    """
    with open_hdf5(path) as file:
        datasets = list_datasets(file)
    found: Layers = defaultdict(dict)
    for name, dataset in datasets.items():
        _take(found, os.fspath(path), name, dataset)
    return dict(found)


def _take(found: Layers, path: str, name: str, dataset: Dataset) -> None:
    if dataset.shape == () or dataset.dtype is None or "optimizer_weights" in name.split("/")[:1]:
        return
    *groups, last = name.removeprefix("model_weights/").split("/")
    weight, layer = re.sub(r"(_\d+)?:\d+$", "", last), _layer_of(groups)
    for ending, current in KERAS1.items():  # conv1/conv1_W
        if layer and weight == f"{layer}_{ending}":
            weight = current
    if weight not in WEIGHTS:
        return
    known = found[layer].get(weight)
    if known is not None and known.shape != dataset.shape:
        raise ValueError(f"{path} contains {layer}/{weight} twice, as {known.shape} and {dataset.shape}")
    found[layer][weight] = lazy(path, name, dataset)


def _layer_of(groups: list[str]) -> str:
    """The layer name in a weight's groups: the last group, without the number that Keras appends if another model was
    built before (conv1/conv1_1, rpn_model/rpn_conv_shared_1)."""
    if not groups:
        return ""
    last = groups[-1]
    own = [group for group in groups if re.fullmatch(rf"{re.escape(group)}(_\d+)?", last)]
    if own[0] == last and len(groups) > 1 and groups.count(last) == 1:
        return re.sub(r"_\d+$", "", last)  # in the group of another model
    return own[0]

"""Files in which Keras saved this package's `keras_model`, either weights only or the whole model.

Keras names a layer by its class and its position in one graph ("layers/functional_2/layers/dense_1"), and also stores
the layer's own name. That name is sufficient: it is the same in the training and the inference graph.
Layouts: Keras 3's `.weights.h5` (keras/src/saving/saving_lib.py) and `model.save("x.h5")` (legacy/saving).
"""

import os
import re
from collections import defaultdict
from collections.abc import Mapping

import h5py

from mrcnn.weights.hdf5 import Dataset, lazy, list_datasets, open_hdf5, text_attribute
from mrcnn.weights.source import PARTS, Lazy, Source

PROGRAM = "Keras, of this package's keras_model"
NOTE = "Keras stores no settings with weights; model.save_weights(path) does, and the model's class names"
NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def is_keras_model(file: h5py.File) -> bool:
    """Whether a file contains the parts of this package's network as Keras saves them. Raises as `list_datasets`."""
    paths = [name.split("/") for name in list_datasets(file)]
    for group, name_of in (("model_weights", str), ("layers", lambda layer: _name(file, f"layers/{layer}"))):
        inside = {path[1] for path in paths if path[0] == group and len(path) > 2}
        if {"trunk", "rpn", "box_head"} <= {name_of(part) for part in inside}:
            return True
    return False


def keras_model_source(path: str | os.PathLike[str]) -> Source:
    """The contents of such a file, for this network. Raises ValueError for a damaged file."""
    with open_hdf5(path) as file:
        datasets = list_datasets(file)
        whole = "model_weights" in file
        tensors = _of_whole_model(path, datasets) if whole else _of_weights(path, file, datasets)
    found = {name.split("/")[0] for name in tensors}
    return Source(PROGRAM, tensors, parts=tuple(part for part in PARTS if part in found), notes=(NOTE,))


def _of_whole_model(path: str | os.PathLike[str], datasets: Mapping[str, Dataset]) -> dict[str, Lazy]:
    """model_weights/<part>/<layer>/<weight>; other groups belong to the end of the mask head, or repeat the RPN.

    The training graph has a layer that uses those of the RPN.
    """
    tensors = {}
    for name, dataset in datasets.items():
        first, *groups, weight = name.split("/")
        if first == "model_weights" and groups and groups[0] != "top_level_model_weights":
            tensors[f"{_key(groups[0], groups[1:])}/{weight}"] = lazy(path, name, dataset)
    return tensors


def _of_weights(path: str | os.PathLike[str], file: h5py.File, datasets: Mapping[str, Dataset]) -> dict[str, Lazy]:
    """layers/<class>/layers/<class>/vars/<number>, with the layers' own names as attributes of `vars`."""
    numbered: dict[str, list[str]] = defaultdict(list)
    for name in sorted(datasets, key=lambda name: (len(name), name)):
        if match := re.fullmatch(r"(layers/.+)/vars/\d+", name):
            numbered[match[1]].append(name)
    tensors = {}
    for group, names in numbered.items():
        levels = [group[: match.end()] for match in re.finditer(r"layers/[^/]+", group)]
        *outer, leaf = [_name(file, level) for level in levels[:-1]] + [_name(file, group)]
        key = _key(outer[0], [*outer[1:], leaf]) if outer else _key(leaf, [leaf])
        for weight, name in zip(_weights(group, len(names)), names, strict=False):
            tensors[f"{key}/{weight}"] = lazy(path, name, datasets[name])
    return tensors


def _weights(group: str, count: int) -> tuple[str, ...]:
    if count == 4:
        return NORM
    return NORM[:2] if "normalization" in group.rpartition("/")[2] else ("kernel", "bias")


def _name(file: h5py.File, group: str) -> str:
    item = file.get(f"{group}/vars")
    return (text_attribute(item, "name") if isinstance(item, h5py.Group) else None) or group.rpartition("/")[2]


def _key(top: str, layers: list[str]) -> str:
    """The key in `Network.layers()` of a layer in a part, or outside the parts."""
    part = top if top in PARTS else "rpn" if layers[-1].startswith("rpn_") else "mask_head"
    return "/".join([part, *layers[-1:]] if part == "rpn" else [part, *layers])

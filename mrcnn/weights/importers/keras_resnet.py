"""ImageNet weights of `keras.applications`' ResNet50, 101 and 152 for this package's own ResNets.

Their convolutions have biases before BatchNorm, the stride is in a block's first 1x1 convolution, and pixels are BGR
minus a mean, without deviation (keras.applications.resnet and .imagenet_utils; before Keras 2.3 with Caffe's names and
another epsilon, keras_applications/resnet50.py of 1.0.2).
"""

import os
import re
from collections import defaultdict
from collections.abc import Mapping

import h5py

from mrcnn.network.resnet import BLOCKS, block_letters
from mrcnn.weights.hdf5 import MAX_NAME, Dataset, lazy, list_datasets, open_hdf5, text_attribute
from mrcnn.weights.importers.keras_h5 import WEIGHTS, Layers, read_layers
from mrcnn.weights.importers.matterport import resnet_name, resnet_trunk
from mrcnn.weights.source import Source

EPSILON, OLD_EPSILON = 1.001e-5, 1e-3
BRANCHES = {"0": "1", "1": "2a", "2": "2b", "3": "2c"}
SETTINGS = {
    "BACKBONE_STRIDE_IN_1X1": True,
    "BACKBONE_STEM_PADDING": "torch",
    "CHANNEL_ORDER": "bgr",
    "MEAN_PIXEL": (123.68, 116.779, 103.939),
    "PIXEL_STD": (1.0, 1.0, 1.0),
}


def read_keras(path: str | os.PathLike) -> Layers:
    """The weights in a file of Keras 1, 2 or 3, by layer; see `mrcnn.weights.importers.keras_h5.read_layers`.

    Raises:
        ValueError: the file is truncated or damaged.
    """
    layers = read_layers(path)
    with open_hdf5(path) as file:
        numbered = _numbered(path, list_datasets(file))
        named = {_name_of(file[group], group): weights for group, weights in numbered.items()}
    return layers | _by_position(named)


def _numbered(path: str | os.PathLike[str], datasets: Mapping[str, Dataset]) -> Layers:
    """Weights in Keras 3's layout, `<group>/vars/0` and so on, by group and name.

    A norm has four weights, other layers a kernel and perhaps a bias.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(datasets, key=lambda name: (len(name), name)):
        group, _, last = name.rpartition("/")
        if group.endswith("/vars") and last.isdigit():
            groups[group].append(name)
    kinds = {group: WEIGHTS[2:] if len(names) == 4 else WEIGHTS[:2] for group, names in groups.items()}
    return {
        group: {kind: lazy(path, name, datasets[name]) for kind, name in zip(kinds[group], names, strict=False)}
        for group, names in groups.items()
    }


def _name_of(item: h5py.Group, group: str) -> str:
    name = text_attribute(item, "name") or group.split("/")[-2]
    if len(name) > MAX_NAME:
        raise ValueError(f"a layer has a name of {len(name)} characters")
    return name


def _by_position(layers: Layers) -> Layers:
    """Renames layers that early Keras 3 versions numbered by class, from their positions in a ResNet."""
    counts = [sum(name.startswith(kind) for name in layers) for kind in ("conv2d", "batch_normalization")]
    depth = next((name for name, blocks in BLOCKS.items() if 3 * sum(blocks) + 5 == counts[0] == counts[1]), None)
    if depth is None:
        return layers
    order = ["conv1_{}"]
    for stage, blocks in enumerate(BLOCKS[depth], start=2):
        for block in range(1, blocks + 1):
            order += [f"conv{stage}_block{block}_{i}_{{}}" for i in ("1203" if block == 1 else "123")]
    places = {
        f"{kind}_{i}" if i else kind: stem.format(short)
        for i, stem in enumerate(order)
        for kind, short in (("conv2d", "conv"), ("batch_normalization", "bn"))
    }
    return {places.get(name, name): weights for name, weights in layers.items()}


def is_keras_resnet(layers: Layers) -> bool:
    """Whether a file has the layers of keras.applications' ResNet (not ResNetV2), under new or old names."""
    return "conv2_block1_3_bn" in layers or {"res2a_branch2a", "bn2a_branch2a"} <= set(layers)


def keras_resnet_source(layers: Layers, path: str) -> Source:
    """The trunk in a file of keras.applications; a classifier is ignored.

    Raises:
        ValueError: a trunk with a depth other than 50, 101 or 152, or a missing layer.
    """
    new = "conv2_block1_3_bn" in layers
    layers = {_caffe_name(name): weights for name, weights in layers.items()} if new else layers
    settings = SETTINGS | {"BACKBONE": resnet_name(layers, path)}
    found = resnet_trunk(layers, path, EPSILON if new else OLD_EPSILON)
    height, width, channels, filters = found["trunk/conv1/kernel"].shape
    settings["IMAGE_CHANNEL_COUNT"] = channels
    settings["BACKBONE_OPTIONS"] = {} if filters == 64 else {"width": filters}
    return Source("keras.applications", found, settings, [], ("backbone",))


def _caffe_name(name: str) -> str:
    """conv3_block2_1_conv as res3b_branch2a, its bn as bn3b_branch2a; other names as they are."""
    if name in ("conv1_conv", "conv1_bn"):
        return {"conv1_conv": "conv1", "conv1_bn": "bn_conv1"}[name]
    match = re.fullmatch(r"conv(\d)_block(\d+)_(\d)_(conv|bn)", name)
    if not match:
        return name
    kind = {"conv": "res", "bn": "bn"}[match[4]]
    return f"{kind}{match[1]}{block_letters(int(match[2]) - 1)}_branch{BRANCHES[match[3]]}"

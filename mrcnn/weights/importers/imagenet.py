"""ImageNet weights of `keras.applications`: those of its own backbones from a file, and Keras's download of them.

Those of ResNet50, 101 and 152 for this package's own ResNets are read by `mrcnn.weights.importers.keras_resnet`.
"""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from mrcnn.network.applications import find_application
from mrcnn.network.backbone import Backbone
from mrcnn.network.resnet import BLOCKS
from mrcnn.weights.assign import Exclude, is_finite
from mrcnn.weights.hdf5 import list_datasets, open_hdf5
from mrcnn.weights.importers.keras_model import is_keras_model
from mrcnn.weights.report import LoadReport, Tensor
from mrcnn.weights.transfer import inflate


def is_keras_weights(path: str | Path) -> bool:
    """Whether a file holds Keras's own weights of one model (either of its h5 layouts).

    Not so a checkpoint or a `keras_model` of ours, nor of matterport's Mask_RCNN, which has Keras's older layout.

    Raises ValueError for a file that is damaged.
    """
    if not os.path.isfile(path) or not h5py.is_hdf5(path):
        return False  # missing or damaged: the checkpoint's reader says which
    with open_hdf5(path) as file:
        names = list(file)
        if is_keras_model(file):
            return False
        found = "layers" in names or "_layer_checkpoint_dependencies" in names or "layer_names" in file.attrs
    return found and not any(name.startswith("mrcnn_") for name in names)


def load(
    path: str | Path,
    backbone: Backbone,
    build_rgb: Callable[[], Backbone] | None = None,
    *,
    exclude: Exclude = None,
    keep_classes: bool | Sequence[str] = False,
    strict: bool = False,
) -> LoadReport:
    """Loads a file of `keras.applications` weights (`include_top=False`) into a backbone, all of it or nothing.

    Args:
        build_rgb: the same backbone for images of three channels, which ImageNet weights are for. With it, the first
            kernel of a backbone for another number of channels is inflated; see `mrcnn.weights.transfer.inflate`.
        exclude, keep_classes, strict: as in `MaskRCNN.load_weights`; refused, for such a file has nothing to which they
            could apply. `by_name`, with which scripts of the old package load ImageNet weights, may be given there.

    Raises ValueError when the backbone is no keras.applications model, the file is of another architecture or damaged,
    or an argument is given that it cannot follow.
    """
    model = backbone.source
    if model is None:
        raise ValueError(
            f"{path} holds weights of a keras.applications model, but the backbone is none. "
            'Set Config.BACKBONE to its name, for example "mobilenet".'
        )
    _refuse(path, model, exclude=exclude, keep_classes=keep_classes, strict=strict)
    if build_rgb is not None and model.input_shape[-1] != 3:
        return _load_inflated(path, model, build_rgb(), backbone.scaling.bgr)
    with open_hdf5(path) as file:
        list_datasets(file)  # which Keras would follow into any other file
    before = model.get_weights()
    try:
        model.load_weights(path)
    except Exception as error:  # Keras raises many kinds here, some after it has assigned a part
        model.set_weights(before)
        raise ValueError(
            f"{path} does not fit the backbone {model.name!r} (are BACKBONE and "
            f"BACKBONE_OPTIONS those of the file?{_about_channels(model)}); the model is unchanged. "
            f"Keras says: {error}"
        ) from error
    damaged = [weight.path for weight in model.weights if not is_finite(np.asarray(weight))]
    if damaged:
        model.set_weights(before)
        raise ValueError(
            f"{path} holds NaN or infinite weights in {', '.join(damaged[:5])}; the model is unchanged. Fetch it again"
        )
    return LoadReport(_tensors(model), [], [], [])


def _refuse(path: str | Path, model: keras.Model, **arguments: Any) -> None:
    reasons = {
        "exclude": "they are loaded whole, into the backbone alone, and every other layer stays as it is",
        "keep_classes": "they know no classes, and the heads stay as they are",
        "strict": "they are of the backbone alone, so that all else is missing from the file",
    }
    for name, value in arguments.items():
        if value:
            raise ValueError(
                f"{name}={value!r} cannot be followed for {path}, weights of the keras.applications model "
                f"{model.name!r}: {reasons[name]}. Leave {name} out; nothing was loaded."
            )


def _tensors(model: keras.Model) -> list[Tensor]:
    return [Tensor(w.path, tuple(w.shape), tuple(w.shape)) for w in model.weights]


def _load_inflated(path: str | Path, model: keras.Model, rgb: Backbone, bgr: bool) -> LoadReport:
    """Loads a file into a backbone for RGB, and from there into one for other channels."""
    load(path, rgb)
    values, notes = [], []
    of_rgb = rgb.source if rgb.source is not None else model
    for ours, theirs in zip(model.weights, of_rgb.weights, strict=True):
        value, channels = np.asarray(theirs), model.input_shape[-1]
        if tuple(ours.shape) != value.shape:
            if value.ndim != 4 or tuple(ours.shape) != (*value.shape[:2], channels, value.shape[3]):
                raise ValueError(
                    f"{path}: {ours.path} has shape {value.shape} for RGB and {tuple(ours.shape)} for "
                    f"{channels} channels, which only a kernel can be changed to; the model is unchanged"
                )
            step = -1 if bgr else 1
            value = inflate(value[:, :, ::step], channels)[:, :, ::step]
            notes.append(f"{ours.path}: from 3 to {channels} input channels")
        values.append(value)
    model.set_weights(values)
    return LoadReport(_tensors(model), [], [], [], tuple(notes))


def _about_channels(model: keras.Model) -> str:
    """The other setting that may keep a file of ImageNet weights, which are for RGB, from fitting."""
    channels = model.input_shape[-1]
    return (
        ""
        if channels == 3
        else (
            f" IMAGE_CHANNEL_COUNT is {channels}, so the first kernel takes {channels} "
            "channels, and 3 in ImageNet weights"
        )
    )


def download(backbone: str | Any, options: dict[str, Any]) -> Path:
    """Has Keras fetch ImageNet weights and returns a file that `MaskRCNN.load_weights` takes.

    Raises ValueError for a backbone without such weights, ConnectionError when they cannot be fetched.
    """
    builder = find_application(backbone) if isinstance(backbone, str) else None
    own = builder is not None and backbone.lower() in BLOCKS
    if builder is None or (own and options):
        raise ValueError(
            f"There are no downloadable ImageNet weights for BACKBONE={backbone!r}"
            + (f" with BACKBONE_OPTIONS={options}" if own else "")
            + "; name a keras.applications model "
            'such as "resnet50" or "mobilenet", or start from a checkpoint.'
        )
    try:
        return _fetch_resnet(builder, backbone.lower()) if own else _fetch(builder, backbone.lower(), options)
    except Exception as error:  # urllib, ssl and Keras each raise their own
        raise ConnectionError(
            f"The ImageNet weights of {backbone!r} could not be fetched ({error}). Get the file on a "
            "machine with a network and pass its path to load_weights."
        ) from error


def _fetch_resnet(builder: Callable, name: str) -> Path:
    """Keras's own file, from the address and with the checksum that it names, without building its model."""
    module = sys.modules[builder.__module__]
    file = f"{name}_weights_tf_dim_ordering_tf_kernels_notop.h5"
    return Path(
        keras.utils.get_file(
            file, f"{module.BASE_WEIGHTS_PATH}{file}", cache_subdir="models", file_hash=module.WEIGHTS_HASHES[name][1]
        )
    )


def _fetch(builder: Callable, name: str, options: dict[str, Any]) -> Path:
    label = "_".join([name, *(f"{key}{value}" for key, value in sorted(options.items()))])
    path = Path.home() / ".keras" / "models" / f"mrcnn_{label}_notop.weights.h5"
    if path.exists():
        return path
    model = builder(include_top=False, weights="imagenet", **options)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"partial_{path.name}")  # Keras wants the name to end in .weights.h5
    model.save_weights(temporary)
    temporary.replace(path)
    return path

"""ImageNet weights of `keras.applications`: loading them from a file, and Keras's download of them.

`mrcnn.weights.importers.keras_resnet` reads those of ResNet50, 101 and 152 for this package's own ResNets.
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
    """Whether a file contains Keras's own weights of one model (in either h5 layout).

    False for a checkpoint or a `keras_model` of this package, and for matterport's Mask_RCNN, which has Keras's older

    layout. Raises ValueError for a damaged file.
    """
    if not os.path.isfile(path) or not h5py.is_hdf5(path):
        return False  # missing or damaged: the checkpoint reader reports which
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
    """Loads a file of `keras.applications` weights (`include_top=False`) into a backbone, completely or not at all.

    Args:
        build_rgb: builds the same backbone for three-channel images, which ImageNet weights are for. With it, the first
            kernel of a backbone for another number of channels is inflated; see `mrcnn.weights.transfer.inflate`.
        exclude, keep_classes, strict: as in `MaskRCNN.load_weights`; rejected, because they cannot apply to such a
            file. `by_name`, with which the old package's scripts load ImageNet weights, is accepted there.

    Raises ValueError if the backbone is not a keras.applications model, the file is damaged or of another architecture,
    or an argument does not apply.
    """
    model = backbone.source
    if model is None:
        raise ValueError(
            f"{path} contains weights of a keras.applications model, but the backbone is not one. "
            'Set Config.BACKBONE to its name, for example "mobilenet".'
        )
    _refuse(path, model, exclude=exclude, keep_classes=keep_classes, strict=strict)
    if build_rgb is not None and model.input_shape[-1] != 3:
        return _load_inflated(path, model, build_rgb(), backbone.scaling.bgr)
    with open_hdf5(path) as file:
        list_datasets(file)  # or Keras would follow links into any other file
    before = model.get_weights()
    try:
        model.load_weights(path)
    except Exception as error:  # Keras raises many kinds of errors here, some after assigning some weights
        model.set_weights(before)
        raise ValueError(
            f"{path} does not fit the backbone {model.name!r} (do BACKBONE and "
            f"BACKBONE_OPTIONS match the file?{_about_channels(model)}); the model is unchanged. "
            f"Keras says: {error}"
        ) from error
    damaged = [weight.path for weight in model.weights if not is_finite(np.asarray(weight))]
    if damaged:
        model.set_weights(before)
        raise ValueError(
            f"{path} has NaN or infinite weights in {', '.join(damaged[:5])}; the model is unchanged. Download it again"
        )
    return LoadReport(_tensors(model), [], [], [])


def _refuse(path: str | Path, model: keras.Model, **arguments: Any) -> None:
    reasons = {
        "exclude": "they are loaded completely, into the backbone only, and every other layer is unchanged",
        "keep_classes": "they do not depend on classes, and the heads are unchanged",
        "strict": "they cover only the backbone, so everything else is missing from the file",
    }
    for name, value in arguments.items():
        if value:
            raise ValueError(
                f"{name}={value!r} does not apply to {path}, weights of the keras.applications model "
                f"{model.name!r}: {reasons[name]}. Leave {name} out; nothing was loaded."
            )


def _tensors(model: keras.Model) -> list[Tensor]:
    return [Tensor(w.path, tuple(w.shape), tuple(w.shape)) for w in model.weights]


def _load_inflated(path: str | Path, model: keras.Model, rgb: Backbone, bgr: bool) -> LoadReport:
    """Loads a file into an RGB backbone, and copies its weights to one with other channels."""
    load(path, rgb)
    values, notes = [], []
    of_rgb = rgb.source if rgb.source is not None else model
    for ours, theirs in zip(model.weights, of_rgb.weights, strict=True):
        value, channels = np.asarray(theirs), model.input_shape[-1]
        if tuple(ours.shape) != value.shape:
            if value.ndim != 4 or tuple(ours.shape) != (*value.shape[:2], channels, value.shape[3]):
                raise ValueError(
                    f"{path}: {ours.path} has shape {value.shape} for RGB and {tuple(ours.shape)} for "
                    f"{channels} channels, and only kernels can be converted; the model is unchanged"
                )
            step = -1 if bgr else 1
            value = inflate(value[:, :, ::step], channels)[:, :, ::step]
            notes.append(f"{ours.path}: from 3 to {channels} input channels")
        values.append(value)
    model.set_weights(values)
    return LoadReport(_tensors(model), [], [], [], tuple(notes))


def _about_channels(model: keras.Model) -> str:
    """A hint on the channel count, which may keep ImageNet weights, which are for RGB, from fitting."""
    channels = model.input_shape[-1]
    return (
        ""
        if channels == 3
        else (
            f" IMAGE_CHANNEL_COUNT is {channels}, so the first kernel has {channels} "
            "channels, but 3 in ImageNet weights"
        )
    )


def download(backbone: str | Any, options: dict[str, Any]) -> Path:
    """Downloads ImageNet weights with Keras and returns a file that `MaskRCNN.load_weights` takes.

    Raises ValueError for a backbone without such weights, ConnectionError if the download fails.
    """
    builder = find_application(backbone) if isinstance(backbone, str) else None
    own = builder is not None and backbone.lower() in BLOCKS
    if builder is None or (own and options):
        raise ValueError(
            f"There are no downloadable ImageNet weights for BACKBONE={backbone!r}"
            + (f" with BACKBONE_OPTIONS={options}" if own else "")
            + "; use a keras.applications model "
            'such as "resnet50" or "mobilenet", or start from a checkpoint.'
        )
    try:
        return _fetch_resnet(builder, backbone.lower()) if own else _fetch(builder, backbone.lower(), options)
    except Exception as error:  # urllib, ssl and Keras each raise their own errors
        raise ConnectionError(
            f"The ImageNet weights of {backbone!r} could not be downloaded ({error}). Download the file on a "
            "machine with network access and pass its path to load_weights."
        ) from error


def _fetch_resnet(builder: Callable, name: str) -> Path:
    """Keras's own file, with its address and checksum, without building its model."""
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
    temporary = path.with_name(f"partial_{path.name}")  # Keras requires names that end in .weights.h5
    model.save_weights(temporary)
    temporary.replace(path)
    return path

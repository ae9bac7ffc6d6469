"""Detects which program wrote a weights file, from its contents and never from its name."""

import dataclasses
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import h5py
import numpy as np

from mrcnn.data.coco_classes import coco_names
from mrcnn.data.keypoints import COCO_PERSON
from mrcnn.weights.checkpoint import checkpoint_source, is_checkpoint
from mrcnn.weights.hdf5 import MAX_NAME, open_hdf5, require_checkpoint
from mrcnn.weights.importers.detectron2 import detectron2_source, is_detectron2
from mrcnn.weights.importers.imagenet import is_keras_weights
from mrcnn.weights.importers.keras_model import is_keras_model, keras_model_source
from mrcnn.weights.importers.keras_resnet import is_keras_resnet, keras_resnet_source, read_keras
from mrcnn.weights.importers.matterport import is_matterport, matterport_source
from mrcnn.weights.importers.pickles import load_pickle
from mrcnn.weights.importers.torch_file import is_torch_file, load_torch
from mrcnn.weights.importers.torchvision import is_torchvision, torchvision_source
from mrcnn.weights.source import Lazy, Source

KNOWN = (
    "a checkpoint of this package; matterport's mask_rcnn_*.h5; keras.applications' ResNet50, 101 or 152 (.h5, "
    ".weights.h5); torchvision's Mask or Faster R-CNN (.pth); Detectron2's Mask R-CNN, PointRend or ImageNet trunk "
    "(.pkl, .pth)"
)
# Keys under which programs store the weights next to other content.
FOLDERS = ("model", "state_dict", "model_state_dict", "blobs")
PICKLE_STARTS = (b"\x80", b"(", b"c", b"}", b"]")  # of protocols 2 and later; of a dict in protocols 0 and 1


def read_source(path: str | os.PathLike, bn_epsilon: float | None = None) -> Source:
    """The contents of a weight file, in this network's names, layouts and conventions.

    Args:
        path: the file, with any name.
        bn_epsilon: BatchNorm epsilon of a torch trunk, which files do not store; None: that program's default.

    Raises:
        FileNotFoundError: the file does not exist.
        ForbiddenPickle: it needs more than arrays and plain containers; nothing was executed.
        ValueError: it is not from a known program, or truncated or damaged.
    """
    path = os.fspath(path)
    require_checkpoint(path)
    source = _of_hdf5(path) if h5py.is_hdf5(path) else _of_torch(path, bn_epsilon)
    if not source.is_own and source.settings.get("KEYPOINT_HEAD") and source.settings["NUM_KEYPOINTS"] == 17:
        source = _of_people(source)
    if source.class_names or source.is_own:
        return source
    return _named(source)


def _named(source: Source) -> Source:
    """Adds COCO's class names if the number of classes matches COCO's, with a note that this is assumed."""
    count = source.settings.get("NUM_CLASSES", 0)
    names = coco_names(count)
    if not names:
        return source
    note = (
        f"the file has {count} classes but no class names; COCO's are assumed because the count matches. Pass "
        "class_names=[...] if they differ"
    )
    return dataclasses.replace(source, class_names=names, notes=(*source.notes, note))


def _of_people(source: Source) -> Source:
    """With the keypoints of COCO's people, as the number is theirs, and their class; and a note that says so."""
    note = (
        "the file has 17 keypoints but no names of them; those of COCO's people are assumed because the count matches"
    )
    names = source.class_names or (["BG", "person"] if source.settings.get("NUM_CLASSES") == 2 else [])
    return dataclasses.replace(source, class_names=names, skeleton=COCO_PERSON, notes=(*source.notes, note))


def _of_hdf5(path: str) -> Source:
    if is_checkpoint(path):
        return checkpoint_source(path)
    with open_hdf5(path) as file:
        of_keras_model = is_keras_model(file)
    if of_keras_model:
        return keras_model_source(path)
    layers = read_keras(path)
    if is_matterport(layers):
        return _imported(matterport_source, layers, path)
    if is_keras_resnet(layers):
        return _imported(keras_resnet_source, layers, path)
    hint = " If it is of another keras.applications model, set BACKBONE to its name." if is_keras_weights(path) else ""
    raise _unknown(path, list(layers), hint)


def _of_torch(path: str, bn_epsilon: float | None) -> Source:
    content = _load(path)
    for tensors in _state_dicts(content):
        if is_torchvision(tensors):
            return _imported(torchvision_source, tensors, path, bn_epsilon=bn_epsilon)
        if is_detectron2(tensors):
            return _imported(detectron2_source, tensors, path, bn_epsilon=bn_epsilon)
    raise _unknown(path, list(next(_state_dicts(content), content if isinstance(content, Mapping) else ())))


def _load(path: str) -> Any:
    with open(path, "rb") as file:
        start = file.read(4)
    if _is_keras_archive(path):
        raise ValueError(f"{path} is a whole Keras model; save with model.save_weights(path) instead, and load that")
    if zipfile.is_zipfile(path) or is_torch_file(path):
        return load_torch(path)
    if start == b"PK\x03\x04":
        raise ValueError(f"{path} is a zip file, as torch.save writes, that is truncated or damaged; fetch it again")
    if start.startswith(PICKLE_STARTS):
        return load_pickle(path)
    raise ValueError(
        f"{path} is not an HDF5 file, a torch.save file or a pickle ({os.path.getsize(path)} bytes, "
        f"beginning with {start!r}). Supported: {KNOWN}."
    )


def _is_keras_archive(path: str) -> bool:
    """Whether a file was written by Keras's `model.save("x.keras")`, a zip that contains the weights."""
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return {"config.json", "metadata.json"} <= set(archive.namelist())
    except Exception:  # a damaged directory, with any zipfile error: the torch reader reports it
        return False


def _state_dicts(content: Any) -> Iterator[dict[str, Any]]:
    """The dicts of tensors in a file, the outermost first; names without DataParallel's prefix."""
    if not isinstance(content, Mapping):
        return
    for candidate in (content, *(content.get(name) for name in FOLDERS)):
        if isinstance(candidate, Mapping):
            found = {
                _name(name).removeprefix("module."): tensor
                for name, tensor in candidate.items()
                if isinstance(tensor, Lazy | np.ndarray)
            }
            if found:
                yield found


def _name(name: Any) -> str:
    text = str(name)
    if len(text) > MAX_NAME or not text.isprintable():
        raise ValueError(f"a tensor name is too long ({len(text)} characters) or contains unprintable characters")
    return text


def _imported(importer: Callable[..., Source], tensors: Mapping[str, Any], path: str, **options: Any) -> Source:
    try:
        return importer(tensors, path, **options)
    except ValueError as error:
        if path in str(error):
            raise
        raise _wrongly_shaped(path, error) from error
    except (IndexError, KeyError, TypeError, AttributeError) as error:
        raise _wrongly_shaped(path, error) from error


def _wrongly_shaped(path: str, error: Exception) -> ValueError:
    return ValueError(
        f"{path} has the tensor names of a known model, but an unexpected shape: "
        f"{error}. The file may be damaged, or the model modified."
    )


def _unknown(path: str, names: list, hint: str = "") -> ValueError:
    shown = ", ".join(str(name)[:60] for name in names[:5]) or "no tensors"
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ValueError(
        f"{path} is not a weights file of a known program; it contains {shown}{more}. Supported: {KNOWN}.{hint}"
    )

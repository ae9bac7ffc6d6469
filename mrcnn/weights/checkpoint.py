"""The checkpoint file: weights by layer, metadata as json and optionally the optimizer's state, in one HDF5 file.

Layout:
    attribute `metadata`                  json: the caller's metadata (config, class names, epoch) and `format_version`
    attribute `metadata_sha256`           of that text; absent in format 1
    `weights/<layer key>/<weight name>`   one dataset per weight, each with a checksum
    `state/<name>`                        one dataset per variable of the training state besides the weights

Keys are the caller's layer keys ("trunk/res2a_branch2a"), not positions within a Keras model, so that two graphs that
share parts can read the same file.
"""

import errno
import hashlib
import io
import json
import warnings
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from mrcnn.data.keypoints import Skeleton
from mrcnn.files import atomic_path
from mrcnn.weights.assign import Exclude, PathLike, assign, is_finite, named_weights, users_level
from mrcnn.weights.hdf5 import CHECKSUM, Dataset, lazy, list_datasets, open_hdf5, text_attribute
from mrcnn.weights.report import LoadReport
from mrcnn.weights.source import OWN, PARTS, Lazy, Source

FORMAT_VERSION = 2
ADVICE = "use an earlier checkpoint"
# The metadata that this package reads: what each entry must be, and a check for it.
FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "format_version": ("a whole number", lambda value: type(value) is int),
    "epoch": ("a whole number", lambda value: type(value) is int),
    "config": ("a dict of settings", lambda value: isinstance(value, dict)),
    "class_names": (
        "a list of names",
        lambda value: isinstance(value, list) and all(isinstance(name, str | int | float) for name in value),
    ),
    "skeleton": ("a dict of keypoints", lambda value: isinstance(value, dict)),
}
# The settings that are needed before `Config` checks them all.
SETTINGS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "BACKBONE": ("a name", lambda value: isinstance(value, str)),
    "BACKBONE_OPTIONS": ("a dict of options", lambda value: isinstance(value, dict)),
    "IMAGE_CHANNEL_COUNT": ("a whole number of 1 or more", lambda value: type(value) is int and value > 0),
}


def save_checkpoint(
    path: PathLike,
    layers: Mapping[str, keras.layers.Layer],
    metadata: Mapping[str, Any],
    state: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Writes the checkpoint, or leaves the existing file at `path` unchanged.

    The file is written under a temporary name in the same folder, read back and compared, flushed to disk and only then
    renamed, so the previous file survives a kill or a full disk at any moment.

    Args:
        path: file to write; its folder is created if needed.
        layers: layer key -> built layer.
        metadata: anything json can represent; numpy scalars, arrays and tuples become numbers and lists.
        state: training state besides the weights, by name.

    Raises:
        ValueError: a layer is not built, a weight is NaN or infinite, or the metadata is not json.
        OSError: the file cannot be written, for example because the disk is full.
    """
    weights = {name: _to_numpy(variable) for name, variable in named_weights(layers).items()}
    damaged = sorted({name.rpartition("/")[0] for name, value in weights.items() if not is_finite(value)})
    if damaged:
        raise ValueError(
            f"weights with NaN or infinite values are not saved to {path}: {', '.join(damaged)}. "
            "Training has diverged; go back to the last checkpoint and lower the learning rate."
        )
    datasets = {f"weights/{name}": value for name, value in weights.items()}
    datasets |= {f"state/{name}": value for name, value in (state or {}).items()}
    text = _to_json({**metadata, "format_version": FORMAT_VERSION})
    with atomic_path(Path(path)) as temporary:
        _write(temporary, datasets, text)
        _compare(temporary, datasets)


def read_metadata(path: PathLike) -> dict[str, Any]:
    """The metadata passed to `save_checkpoint`, and `format_version`.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is truncated, not HDF5, not a checkpoint of this package, or its metadata is damaged.
    """
    return _contents(path)[0]


def load_checkpoint(
    path: PathLike,
    layers: Mapping[str, keras.layers.Layer],
    *,
    exclude: Exclude = None,
    strict: bool = True,
    skip_mismatch: bool = False,
) -> LoadReport:
    """Reads weights into layers; everything is read and checked before the first weight changes.

    Args:
        path: a file written by `save_checkpoint`.
        layers: layer key -> built layer.
        exclude: layers to skip: a regular expression or a list of them. Each must match a whole layer key
            ("mask_head/conv1"), its last component ("conv1") or one of its leading components ("mask_head").
        strict: raise an error, instead of reporting, for weights that only the model or only the file has.
        skip_mismatch: skip weights whose shapes differ; otherwise they are an error.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, its layers do not match the model, or an expression is invalid. The model is
            then unchanged.
    """
    _, datasets = _contents(path)
    return assign(
        path, layers, _below(path, datasets, "weights"), exclude=exclude, strict=strict, skip_mismatch=skip_mismatch
    )


def is_checkpoint(path: PathLike) -> bool:
    """Whether `save_checkpoint` wrote a file. Raises the errors of `read_metadata` if it is missing or damaged."""
    if not h5py.is_hdf5(path):
        return False
    with open_hdf5(path, ADVICE) as file:
        return "metadata" in file.attrs and file.get("weights", getlink=True) is not None


def checkpoint_source(path: PathLike) -> Source:
    """The weights of a checkpoint, read lazily, with its configuration and class names.

    Raises the errors of `read_metadata`, and ValueError for a file whose data is stored in another file.
    """
    metadata, datasets = _contents(path)
    tensors = _below(path, datasets, "weights")
    there = {name.split("/")[0] for name in tensors}
    parts = (*PARTS, *(part for part in ("keypoint_head", "roi_stage") if part in there))
    names, skeleton = metadata.get("class_names", []), metadata.get("skeleton")
    try:
        skeleton = skeleton and Skeleton.from_dict(skeleton)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}; {ADVICE}.") from error
    return Source(OWN, tensors, metadata.get("config", {}), names, parts, skeleton=skeleton or None)


def read_state(path: PathLike) -> dict[str, np.ndarray]:
    """The training state of a checkpoint, by name; empty, with a warning, if it has none.

    Raises:
        ValueError: the file is damaged, or the state has NaN or infinite values.
    """
    tensors = _below(path, _contents(path)[1], "state")
    state = {name: tensor.read() for name, tensor in tensors.items()}
    if not state:
        warnings.warn(f"{path} contains no training state: momentum starts at zero", stacklevel=users_level())
    if damaged := [name for name, value in state.items() if not is_finite(value)]:
        raise ValueError(f"{path} holds NaN or infinite values in {', '.join(damaged[:3])}; {ADVICE}.")
    return state


def _contents(path: PathLike) -> tuple[dict[str, Any], dict[str, Dataset]]:
    """The metadata and all datasets of a checkpoint."""
    with open_hdf5(path, ADVICE) as file:
        datasets = list_datasets(file)
        text = text_attribute(file, "metadata")
        if text is None or not isinstance(file.get("weights"), h5py.Group):
            found = ", ".join(list(file)[:5]) or "nothing"
            raise ValueError(f"{path} is an HDF5 file but not a checkpoint of this package (it holds: {found}).")
        return _metadata(path, text, text_attribute(file, "metadata_sha256")), datasets


def _metadata(path: PathLike, text: str, checksum: str | None) -> dict[str, Any]:
    if checksum is not None and checksum != _sha256(text):
        raise ValueError(f"{path} is damaged: its metadata does not match its checksum; {ADVICE}.")
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"is not json ({error}):", text) from error
    _check(path, metadata)
    version = metadata.get("format_version", 0)
    if version > FORMAT_VERSION:
        raise ValueError(
            f"{path} has format {version}, but this version of mrcnn reads up to {FORMAT_VERSION}; upgrade mrcnn."
        )
    if version > 1 and checksum is None:
        raise ValueError(f"{path} is damaged: the checksum of its metadata is missing; {ADVICE}.")
    return metadata


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _check(path: PathLike, metadata: Any) -> None:
    if not isinstance(metadata, dict):
        raise _damaged(path, "is not a dict but", metadata)
    for fields, within in ((FIELDS, metadata), (SETTINGS, metadata.get("config", {}))):
        for name, (what, fits) in fields.items():
            if name in within and not fits(within[name]):
                raise _damaged(path, f"must have {what} for {name!r}, but has", within[name])


def _damaged(path: PathLike, what: str, found: Any) -> ValueError:
    shown = repr(found)
    shown = shown if len(shown) <= 100 else f"{shown[:100]}..."
    return ValueError(f"{path} is damaged: its metadata {what} {shown}; use an earlier checkpoint.")


def _below(path: PathLike, datasets: Mapping[str, Dataset], group: str) -> dict[str, Lazy]:
    """The datasets of a group. Raises ValueError for one that does not contain numbers."""
    found = {name: dataset for name, dataset in datasets.items() if name.startswith(f"{group}/")}
    if other := next((name for name, dataset in found.items() if dataset.dtype is None), None):
        raise ValueError(f"{path}: {other} does not contain numbers; the file is damaged, {ADVICE}.")
    return {name.removeprefix(f"{group}/"): lazy(path, name, dataset, ADVICE) for name, dataset in found.items()}


def _write(path: Path, datasets: Mapping[str, np.ndarray], metadata: str) -> None:
    # Created in memory and written by Python: on a full disk, HDF5 cannot close its file and ends the process.
    image = io.BytesIO()
    # The newer file format, because the older one limits an attribute (the metadata) to 64 KB.
    with h5py.File(image, "w", libver=("v110", "v110")) as file:
        file.attrs["metadata"] = metadata
        file.attrs["metadata_sha256"] = _sha256(metadata)
        file.create_group("weights")
        for name, value in datasets.items():
            # HDF5 keeps checksums only for chunked data, which excludes scalars and empty arrays.
            chunked = bool(value.size and value.ndim)
            dataset = file.create_dataset(name, data=value, fletcher32=True if chunked else None)
            if not chunked:
                dataset.attrs[CHECKSUM] = zlib.crc32(value.tobytes())
    path.write_bytes(image.getbuffer())


def _compare(path: Path, datasets: Mapping[str, np.ndarray]) -> None:
    with h5py.File(path, "r") as file:
        for name, value in datasets.items():
            if not np.array_equal(file[name][()], value, equal_nan=value.dtype.kind == "f"):
                raise OSError(errno.EIO, f"{name} reads back differently from what was written")


def _to_numpy(variable: keras.Variable) -> np.ndarray:
    value = keras.ops.convert_to_numpy(variable)
    # HDF5 cannot store bfloat16 and float8, which are not native numpy dtypes; float32 represents them exactly.
    return value.astype(np.float32) if value.dtype.kind == "V" else value


def _to_json(metadata: Mapping[str, Any]) -> str:
    def plain(value: Any) -> Any:
        if isinstance(value, np.generic | np.ndarray):
            return value.tolist()
        raise TypeError(f"{value!r} of type {type(value).__name__}")

    try:
        return json.dumps(metadata, default=plain)
    except TypeError as error:
        raise ValueError(f"checkpoint metadata must be JSON-serializable; {error} is not.") from error

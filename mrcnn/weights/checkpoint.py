"""The checkpoint file: weights by layer, metadata as json and, if wanted, the optimizer's state, in one HDF5 file.

Layout:
    attribute `metadata`                  json: what the caller gave (config, class names, epoch) and `format_version`
    attribute `metadata_sha256`           of that text; format 1 has none
    `weights/<layer key>/<weight name>`   one dataset per weight, each with a checksum
    `state/<name>`                        one dataset per variable that a training needs besides the weights

Keys are the layer keys of the caller ("trunk/res2a_branch2a"), not positions within one Keras model, so that
two graphs sharing parts read the same file.
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

from mrcnn.files import atomic_path
from mrcnn.weights.assign import Exclude, PathLike, assign, is_finite, named_weights, users_level
from mrcnn.weights.hdf5 import CHECKSUM, Dataset, lazy, list_datasets, open_hdf5, text_attribute
from mrcnn.weights.report import LoadReport
from mrcnn.weights.source import OWN, Lazy, Source

FORMAT_VERSION = 2
ADVICE = "use an earlier checkpoint"
# What this package itself reads of the metadata: what it must be, and whether it is.
FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "format_version": ("a whole number", lambda value: type(value) is int),
    "epoch": ("a whole number", lambda value: type(value) is int),
    "config": ("a dict of settings", lambda value: isinstance(value, dict)),
    "class_names": (
        "a list of names",
        lambda value: isinstance(value, list) and all(isinstance(name, str | int | float) for name in value),
    ),
}
# Of the settings, those that are needed before `Config` checks them all.
SETTINGS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "BACKBONE": ("a name", lambda value: isinstance(value, str)),
    "BACKBONE_OPTIONS": ("a dict of options", lambda value: isinstance(value, dict)),
    "IMAGE_CHANNEL_COUNT": ("a whole number from 1 on", lambda value: type(value) is int and value > 0),
}


def save_checkpoint(
    path: PathLike,
    layers: Mapping[str, keras.layers.Layer],
    metadata: Mapping[str, Any],
    state: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write the checkpoint, or leave whatever stood at `path` as it was.

    The file is written beside its final place, read back and compared, flushed to disk and only then renamed, so a
    kill or a full disk at any moment leaves the previous file whole.

    Args:
        path: file to write; its folder is made if need be.
        layers: layer key to built layer.
        metadata: anything json can hold; numpy scalars and arrays and tuples become numbers and lists.
        state: what a training needs besides the weights to continue, by name.

    Raises:
        ValueError: a layer is not built, a weight is NaN or infinite, or the metadata is not json.
        OSError: the file cannot be written, for example because the disk is full.
    """
    weights = {name: _to_numpy(variable) for name, variable in named_weights(layers).items()}
    damaged = sorted({name.rpartition("/")[0] for name, value in weights.items() if not is_finite(value)})
    if damaged:
        raise ValueError(
            f"weights with NaN or infinite values are not saved to {path}: {', '.join(damaged)}. "
            "The training diverged; go back to the last checkpoint and lower the learning rate."
        )
    datasets = {f"weights/{name}": value for name, value in weights.items()}
    datasets |= {f"state/{name}": value for name, value in (state or {}).items()}
    text = _to_json({**metadata, "format_version": FORMAT_VERSION})
    with atomic_path(Path(path)) as temporary:
        _write(temporary, datasets, text)
        _compare(temporary, datasets)


def read_metadata(path: PathLike) -> dict[str, Any]:
    """The metadata that `save_checkpoint` was given, and `format_version`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, not HDF5, not a checkpoint of this package, or its metadata are damaged.
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
    """Read weights into layers: everything is read and checked before the first weight changes.

    Args:
        path: a file of `save_checkpoint`.
        layers: layer key to built layer.
        exclude: layers to leave alone: a regular expression or a list of them. Each must match a whole layer key
            ("mask_head/conv1"), its last component ("conv1") or one of its leading components ("mask_head").
        strict: weights that only the model has, or only the file, are an error; otherwise they are reported.
        skip_mismatch: leave weights alone whose shapes differ; otherwise they are an error.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, its layers are not those of the model, or an expression is broken. The model is
            unchanged then.
    """
    _, datasets = _contents(path)
    return assign(
        path, layers, _below(path, datasets, "weights"), exclude=exclude, strict=strict, skip_mismatch=skip_mismatch
    )


def is_checkpoint(path: PathLike) -> bool:
    """Whether a file is one of `save_checkpoint`. Raises as `read_metadata` for one that is missing or damaged."""
    if not h5py.is_hdf5(path):
        return False
    with open_hdf5(path, ADVICE) as file:
        return "metadata" in file.attrs and file.get("weights", getlink=True) is not None


def checkpoint_source(path: PathLike) -> Source:
    """The weights of a checkpoint, to be read when they are wanted, with its configuration and class names.

    Raises as `read_metadata`, and ValueError for a file whose data lie in another.
    """
    metadata, datasets = _contents(path)
    tensors = _below(path, datasets, "weights")
    return Source(OWN, tensors, metadata.get("config", {}), metadata.get("class_names", []))


def read_state(path: PathLike) -> dict[str, np.ndarray]:
    """The training state of a checkpoint, by name; empty, with a warning, if it was saved without one.

    Raises:
        ValueError: the file is damaged, or the state has NaN or infinite values.
    """
    tensors = _below(path, _contents(path)[1], "state")
    state = {name: tensor.read() for name, tensor in tensors.items()}
    if not state:
        warnings.warn(f"{path} holds no training state: momentum begins at zero", stacklevel=users_level())
    if damaged := [name for name, value in state.items() if not is_finite(value)]:
        raise ValueError(f"{path} holds NaN or infinite values in {', '.join(damaged[:3])}; {ADVICE}.")
    return state


def _contents(path: PathLike) -> tuple[dict[str, Any], dict[str, Dataset]]:
    """The metadata of a checkpoint and all of its datasets."""
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
        raise _damaged(path, f"is no json ({error}):", text) from error
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
        raise _damaged(path, "is no dict but", metadata)
    for fields, within in ((FIELDS, metadata), (SETTINGS, metadata.get("config", {}))):
        for name, (what, fits) in fields.items():
            if name in within and not fits(within[name]):
                raise _damaged(path, f"has {name!r}, which must be {what}, as", within[name])


def _damaged(path: PathLike, what: str, found: Any) -> ValueError:
    shown = repr(found)
    shown = shown if len(shown) <= 100 else f"{shown[:100]}..."
    return ValueError(f"{path} is damaged: its metadata {what} {shown}; use an earlier checkpoint.")


def _below(path: PathLike, datasets: Mapping[str, Dataset], group: str) -> dict[str, Lazy]:
    """The datasets of a group. Raises ValueError for one that holds no numbers."""
    found = {name: dataset for name, dataset in datasets.items() if name.startswith(f"{group}/")}
    if other := next((name for name, dataset in found.items() if dataset.dtype is None), None):
        raise ValueError(f"{path}: {other} holds no numbers; the file is damaged, {ADVICE}.")
    return {name.removeprefix(f"{group}/"): lazy(path, name, dataset, ADVICE) for name, dataset in found.items()}


def _write(path: Path, datasets: Mapping[str, np.ndarray], metadata: str) -> None:
    # Made in memory, then written by Python: HDF5 that meets a full disk cannot close its file and ends the process.
    image = io.BytesIO()
    # The newer file format, because the older one limits an attribute (the metadata) to 64 KB.
    with h5py.File(image, "w", libver=("v110", "v110")) as file:
        file.attrs["metadata"] = metadata
        file.attrs["metadata_sha256"] = _sha256(metadata)
        file.create_group("weights")
        for name, value in datasets.items():
            # HDF5 keeps checksums for chunked data alone, which excludes scalars and empty arrays.
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
    # bfloat16 and float8 are no types of numpy's own: HDF5 cannot store them; float32 holds them exactly.
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

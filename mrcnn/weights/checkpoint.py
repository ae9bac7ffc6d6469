"""The checkpoint file: weights by layer, metadata as json and, if wanted, the optimizer's state, in one HDF5 file.

Layout:
    attribute `metadata`                  json: what the caller gave (config, class names, epoch) and `format_version`
    `weights/<layer key>/<weight name>`   one dataset a weight, each with a checksum
    `optimizer/<index>`                   one dataset a variable of the optimizer, in its own order

Keys are the layer keys of the caller ("trunk/res2a_branch2a"), not positions within one Keras model, so that
two graphs sharing parts read the same file. Seed generators hold no knowledge and are not stored.
"""

import difflib
import io
import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from mrcnn.files import atomic_path
from mrcnn.weights.report import LoadReport, Tensor, format_tensors

FORMAT_VERSION = 1

Exclude = str | re.Pattern | Sequence[str | re.Pattern] | None
PathLike = str | os.PathLike


def save_checkpoint(
    path: PathLike,
    layers: Mapping[str, keras.layers.Layer],
    metadata: Mapping[str, Any],
    optimizer: keras.optimizers.Optimizer | None = None,
) -> None:
    """Write the checkpoint, or leave whatever stood at `path` as it was.

    The file is written beside its final place, read back and compared, flushed to disk and only then renamed, so a
    kill or a full disk at any moment leaves the previous file whole.

    Args:
        path: file to write; its folder is made if need be.
        layers: layer key to built layer.
        metadata: anything json can hold; numpy scalars and arrays and tuples become numbers and lists.
        optimizer: a built optimizer whose state is stored as well.

    Raises:
        ValueError: a layer is not built, a weight is NaN or infinite, or the metadata is not json.
        OSError: the file cannot be written, for example because the disk is full.
    """
    weights = {name: _to_numpy(variable) for name, variable in _named_weights(layers).items()}
    damaged = sorted({name.rpartition("/")[0] for name, value in weights.items() if not _is_finite(value)})
    if damaged:
        raise ValueError(
            f"weights with NaN or infinite values are not saved to {path}: {', '.join(damaged)}. "
            "The training diverged; go back to the last checkpoint and lower the learning rate."
        )
    datasets = {f"weights/{name}": value for name, value in weights.items()}
    if optimizer is not None:
        datasets |= {f"optimizer/{i}": _to_numpy(variable) for i, variable in enumerate(optimizer.variables)}
    text = _to_json({**metadata, "format_version": FORMAT_VERSION})
    with atomic_path(path) as temporary:
        _write(temporary, datasets, text)
        _compare(temporary, datasets)


def read_metadata(path: PathLike) -> dict[str, Any]:
    """The metadata that `save_checkpoint` was given, and `format_version`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, not HDF5, or not a checkpoint of this package.
    """
    with _open(path) as file:
        return _metadata(path, file)


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
    variables = _named_weights(layers)
    with _open(path) as file:
        _metadata(path, file)
        stored = _datasets(file, "weights")
        report, mismatched = _match(variables, stored, _excluded(exclude, [*variables, *stored]))
        if skip_mismatch:
            report, mismatched = report._replace(skipped=report.skipped + mismatched), []
        _raise_on_difference(path, report, mismatched, strict)
        values = {tensor.name: stored[tensor.name][()] for tensor in report.loaded}
    damaged = [tensor for tensor in report.loaded if not _is_finite(values[tensor.name])]
    if damaged:
        names = "\n".join(format_tensors(damaged, "NaN or infinite"))
        raise ValueError(f"{path} holds NaN or infinite weights; use an earlier checkpoint.\n{names}")
    for name, value in values.items():
        variables[name].assign(value)
    return report


def load_optimizer(path: PathLike, optimizer: keras.optimizers.Optimizer) -> bool:
    """Restore momentum, moments and the count of iterations; True if that was done.

    False, with the optimizer untouched, if the file holds no state or (with a warning) the state of an optimizer
    over other variables, as after a change of the layers that are trained. The learning rate is not restored: it is
    the caller's choice for the run that begins.

    Args:
        path: a file of `save_checkpoint`.
        optimizer: built over the variables it is to train.

    Raises:
        ValueError: the file is damaged or holds NaN, or the optimizer is not built.
    """
    if not optimizer.built:
        raise ValueError("the optimizer is not built: call optimizer.build(model.trainable_variables) first.")
    with _open(path) as file:
        _metadata(path, file)
        stored = _datasets(file, "optimizer")
        if not stored:
            return False
        shapes = [stored[key].shape for key in sorted(stored, key=int)]
        expected = [tuple(variable.shape) for variable in optimizer.variables]
        if shapes != expected:
            warnings.warn(
                f"{path} holds the state of an optimizer over other variables ({len(shapes)} tensors, here "
                f"{len(expected)}): training starts with a fresh optimizer.",
                stacklevel=2,
            )
            return False
        values = [stored[str(index)][()] for index in range(len(expected))]
    if not all(_is_finite(value) for value in values):
        raise ValueError(f"{path} holds an optimizer state with NaN or infinite values; use an earlier checkpoint.")
    for variable, value in zip(optimizer.variables, values, strict=True):
        if variable.name != "learning_rate":
            variable.assign(value)
    return True


def _named_weights(layers: Mapping[str, keras.layers.Layer]) -> dict[str, keras.Variable]:
    """Variables by `<layer key>/<weight name>`; a name that a layer uses twice gets its count: kernel, kernel_1."""
    named: dict[str, keras.Variable] = {}
    for key, layer in layers.items():
        if not layer.built:
            raise ValueError(f"layer '{key}' is not built, so it has no weights yet: call the model once first.")
        seen: dict[str, int] = {}
        for variable in layer.weights:
            name = variable.name.replace("/", "_")
            count = seen[name] = seen.get(name, -1) + 1
            full = f"{key}/{name}" + (f"_{count}" if count else "")
            if full in named:
                raise ValueError(f"two weights share the name '{full}': rename a layer.")
            named[full] = variable
    return named


def _match(
    variables: Mapping[str, keras.Variable], stored: Mapping[str, h5py.Dataset], excluded: set[str]
) -> tuple[LoadReport, list[Tensor]]:
    """Sort every tensor into the report's lists, and beside it those whose shapes differ."""
    report, mismatched = LoadReport([], [], [], []), []
    for name in [*variables, *(name for name in stored if name not in variables)]:
        model_shape = tuple(variables[name].shape) if name in variables else None
        file_shape = tuple(stored[name].shape) if name in stored else None
        if name in excluded:
            kind = report.skipped
        elif file_shape is None:
            kind = report.missing
        elif model_shape is None:
            kind = report.unexpected
        else:
            kind = report.loaded if model_shape == file_shape else mismatched
        kind.append(Tensor(name, model_shape, file_shape))
    return report, mismatched


def _raise_on_difference(path: PathLike, report: LoadReport, mismatched: list[Tensor], strict: bool) -> None:
    wrong = {"shapes differ": mismatched}
    if strict:
        wrong |= {"missing from the file": report.missing, "unknown to the model": report.unexpected}
    layers = list(dict.fromkeys(t.name.rpartition("/")[0] for tensors in wrong.values() for t in tensors))
    if layers:
        table = "\n".join(line for title, tensors in wrong.items() for line in format_tensors(tensors, title))
        raise ValueError(
            f"{path} does not fit the model: another architecture or another number of classes?\n{table}\n"
            f"Nothing was loaded. To load the rest and leave these layers as they are: exclude={layers}"
        )
    if not report.loaded and not report.skipped:
        raise ValueError(f"{path} has no layer in common with the model: nothing was loaded.")


def _excluded(exclude: Exclude, names: Sequence[str]) -> set[str]:
    """Those of the weight names whose layer an expression matches; warns of an expression that matches none."""
    if exclude is None:
        return set()
    chosen: set[str] = set()
    layers = {name: name.rpartition("/")[0] for name in names}
    for expression in [exclude] if isinstance(exclude, str | re.Pattern) else exclude:
        pattern = _compiled(expression)
        hits = {name for name, key in layers.items() if any(pattern.fullmatch(part) for part in _parts(key))}
        if not hits:
            known = sorted({part for key in layers.values() for part in _parts(key)})
            near = difflib.get_close_matches(pattern.pattern, known, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            warnings.warn(f"exclude: '{pattern.pattern}' matches no layer{hint}", stacklevel=3)
        chosen |= hits
    return chosen


def _compiled(expression: str | re.Pattern) -> re.Pattern:
    try:
        return re.compile(expression)
    except re.error as error:
        raise ValueError(f"exclude: {expression!r} is no regular expression ({error}); give whole names of layers, "
                         "with a backslash before a bracket that is meant as such.") from error


def _parts(key: str) -> list[str]:
    """The names by which a layer key may be called: "a/b/c" as "a", "a/b", "a/b/c" and "c"."""
    components = key.split("/")
    return ["/".join(components[: i + 1]) for i in range(len(components))] + components[-1:]


@contextmanager
def _open(path: PathLike) -> Iterator[h5py.File]:
    """The file opened to read; whatever h5py finds wrong with it, on opening or later, as a ValueError."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint file at {path}" + (" (it is a folder)" if path.is_dir() else ""))
    if not h5py.is_hdf5(path):
        raise ValueError(f"{path} is not an HDF5 file ({path.stat().st_size} bytes): not a checkpoint, or cut short.")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError) as error:
        raise ValueError(f"{path} is truncated or damaged; use an earlier checkpoint. {error}") from error


def _metadata(path: PathLike, file: h5py.File) -> dict[str, Any]:
    text = file.attrs.get("metadata")
    if not isinstance(text, str) or "weights" not in file:
        found = ", ".join(list(file)[:5]) or "nothing"
        raise ValueError(f"{path} is an HDF5 file but not a checkpoint of this package (it holds: {found}).")
    metadata = json.loads(text)
    if metadata.get("format_version", 0) > FORMAT_VERSION:
        raise ValueError(
            f"{path} has format {metadata['format_version']}, this version reads up to {FORMAT_VERSION}: upgrade it."
        )
    return metadata


def _datasets(file: h5py.File, group: str) -> dict[str, h5py.Dataset]:
    found: dict[str, h5py.Dataset] = {}
    if group in file:
        file[group].visititems(lambda name, item: found.update({name: item} if isinstance(item, h5py.Dataset) else {}))
    return found


def _write(path: Path, datasets: Mapping[str, np.ndarray], metadata: str) -> None:
    # Made in memory, then written by Python: HDF5 that meets a full disk cannot close its file and ends the process.
    image = io.BytesIO()
    # The newer file format, because the older one limits an attribute (the metadata) to 64 KB.
    with h5py.File(image, "w", libver=("v110", "v110")) as file:
        file.attrs["metadata"] = metadata
        file.create_group("weights")
        for name, value in datasets.items():
            # A checksum can only be kept for chunked data, which excludes scalars and empty arrays.
            file.create_dataset(name, data=value, fletcher32=True if value.size and value.ndim else None)
    path.write_bytes(image.getbuffer())


def _compare(path: Path, datasets: Mapping[str, np.ndarray]) -> None:
    with h5py.File(path, "r") as file:
        for name, value in datasets.items():
            if not np.array_equal(file[name][()], value, equal_nan=value.dtype.kind == "f"):
                raise OSError(f"{name} reads back differently from what was written")


def _to_numpy(variable: keras.Variable) -> np.ndarray:
    value = keras.ops.convert_to_numpy(variable)
    # bfloat16 and float8 are no types of numpy's own: HDF5 cannot store them; float32 holds them exactly.
    return value.astype(np.float32) if value.dtype.kind == "V" else value


def _is_finite(value: np.ndarray) -> bool:
    return value.dtype.kind != "f" or bool(np.isfinite(value).all())


def _to_json(metadata: Mapping[str, Any]) -> str:
    def plain(value: Any) -> Any:
        if isinstance(value, np.generic | np.ndarray):
            return value.tolist()
        raise TypeError(f"{value!r} of type {type(value).__name__}")

    try:
        return json.dumps(metadata, default=plain)
    except TypeError as error:
        raise ValueError(f"the metadata of a checkpoint must be json: {error} is not.") from error

"""Assigning tensors to layers: everything is compared and read before the first weight changes."""

import difflib
import math
import os
import re
import sys
import warnings
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from mrcnn.weights import source
from mrcnn.weights.report import LoadReport, Tensor, format_tensors

Exclude = str | re.Pattern | Sequence[str | re.Pattern] | None
PathLike = str | os.PathLike
NUMBERS = "biuf"  # kinds of numpy dtypes


def assign(
    path: PathLike,
    layers: Mapping[str, keras.layers.Layer],
    tensors: Mapping[str, Any],
    *,
    exclude: Exclude = None,
    leave: Collection[str] = (),
    absent: Collection[str] = (),
    strict: bool = True,
    skip_mismatch: bool = False,
    fresh: bool = False,
    hint: str = "",
) -> LoadReport:
    """Assigns the tensors of a file to layers.

    Args:
        path: of the file, for messages.
        layers: layer key -> built layer.
        tensors: "<layer key>/<weight name>" -> array, `Lazy` or h5py.Dataset: anything with a shape that can be read.
        exclude: layers to skip: a regular expression or a list of them. Each must match a whole layer key
            ("mask_head/conv1"), its last component ("conv1") or one of its leading components ("mask_head").
        leave: names of further weights to skip.
        absent: names of weights that the file is not expected to have; they are not reported.
        strict: raise an error, instead of reporting, for weights that only the model or only the file has.
        skip_mismatch: skip weights whose shapes differ; otherwise they are an error.
        fresh: the layers belong to a network that is discarded if this raises, so each tensor is assigned as soon as it
            is read and memory never holds all of them besides the network.
        hint: lines for the message if shapes differ.

    Raises:
        ValueError: the tensors do not match the model, contain NaN, infinite values or no numbers, or an expression is
            invalid. The model is then unchanged, unless it is `fresh` and a tensor is damaged.
    """
    variables = named_weights(layers)
    wanted = {name: variable for name, variable in variables.items() if name not in absent or name in tensors}
    report, mismatched = _match(wanted, tensors, excluded(exclude, [*variables, *tensors]) | set(leave))
    if skip_mismatch:
        report, mismatched = report._replace(skipped=report.skipped + mismatched), []
    _raise_on_difference(path, report, mismatched, strict, hint)
    _fill(path, variables, tensors, report.loaded, fresh)
    return report


def _fill(
    path: PathLike,
    variables: Mapping[str, keras.Variable],
    tensors: Mapping[str, Any],
    loaded: list[Tensor],
    fresh: bool,
) -> None:
    """Reads and checks all tensors, largest first to limit memory; assigns them at the end, or at once if fresh."""
    read: deque[tuple[keras.Variable, np.ndarray]] = deque()
    damaged = []
    for tensor in sorted(loaded, key=lambda tensor: -math.prod(tensor.model_shape or ())):
        value = source.read(tensors[tensor.name])
        if value.dtype.kind not in NUMBERS:
            raise ValueError(f"{path}: {tensor.name} holds {value.dtype}, not numbers; the file is damaged.")
        if not is_finite(value):
            damaged.append(tensor)
        read.append((variables[tensor.name], value))
        del value  # or it would stay in memory while the next one is read
        if fresh:
            _assign(read)
    if damaged:
        names = "\n".join(format_tensors(damaged, "NaN or infinite"))
        raise ValueError(f"{path} holds NaN or infinite weights; use an earlier checkpoint.\n{names}")
    _assign(read)


def _assign(read: deque[tuple[keras.Variable, np.ndarray]]) -> None:
    """Assigns the values and frees each one, so that memory falls as the model's grows."""
    while read:
        variable, value = read.popleft()
        value = keras.ops.convert_to_tensor(value, variable.dtype)  # here, so that the array is gone when it is copied
        variable.assign(value)


def named_weights(layers: Mapping[str, keras.layers.Layer]) -> dict[str, keras.Variable]:
    """Variables by `<layer key>/<weight name>`; repeated names in a layer are numbered: kernel, kernel_1."""
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
    variables: Mapping[str, keras.Variable], stored: Mapping[str, Any], left: set[str]
) -> tuple[LoadReport, list[Tensor]]:
    """Sorts every tensor into the report's lists; returns also the tensors whose shapes differ."""
    report = LoadReport([], [], [], [])
    mismatched: list[Tensor] = []
    for name in [*variables, *(name for name in stored if name not in variables)]:
        model_shape = tuple(variables[name].shape) if name in variables else None
        file_shape = tuple(stored[name].shape) if name in stored else None
        if name in left:
            kind = report.skipped
        elif file_shape is None:
            kind = report.missing
        elif model_shape is None:
            kind = report.unexpected
        else:
            kind = report.loaded if model_shape == file_shape else mismatched
        kind.append(Tensor(name, model_shape, file_shape))
    return report, mismatched


def _raise_on_difference(path: PathLike, report: LoadReport, mismatched: list[Tensor], strict: bool, hint: str) -> None:
    wrong = {"shapes differ": mismatched}
    if strict:
        wrong |= {"missing from the file": report.missing, "unknown to the model": report.unexpected}
    layers = list(dict.fromkeys(t.name.rpartition("/")[0] for tensors in wrong.values() for t in tensors))
    if layers:
        table = "\n".join(line for title, tensors in wrong.items() for line in format_tensors(tensors, title))
        raise ValueError(
            f"{path} does not fit the model: a different architecture or number of classes?\n{hint}{table}\n"
            f"Nothing was loaded. To load the rest and keep these layers unchanged: exclude={layers}"
        )
    if not report.loaded and not report.skipped:
        raise ValueError(f"{path} has no layer in common with the model: nothing was loaded.")


def excluded(exclude: Exclude, names: Sequence[str], warn: bool = True) -> set[str]:
    """The weight names whose layer an expression matches; warns about an expression that matches none.

    Raises ValueError for a broken expression.
    """
    if exclude is None:
        return set()
    chosen: set[str] = set()
    layers = {name: name.rpartition("/")[0] for name in names}
    for expression in [exclude] if isinstance(exclude, str | re.Pattern) else exclude:
        pattern = _compiled(expression)
        hits = {name for name, key in layers.items() if any(pattern.fullmatch(part) for part in _parts(key))}
        if not hits and warn:
            known = sorted({part for key in layers.values() for part in _parts(key)})
            near = difflib.get_close_matches(pattern.pattern, known, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            warnings.warn(f"exclude: '{pattern.pattern}' matches no layer{hint}", stacklevel=users_level())
        chosen |= hits
    return chosen


def users_level() -> int:
    """The `stacklevel` with which the caller's warning points at the line that called into this package."""
    frame, level = sys._getframe(1), 1
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == __name__.partition(".")[0]:
        frame, level = frame.f_back, level + 1
    return level


def _compiled(expression: str | re.Pattern) -> re.Pattern:
    try:
        return re.compile(expression)
    except re.error as error:
        raise ValueError(
            f"exclude: {expression!r} is not a valid regular expression ({error}); pass whole layer names, "
            "with a backslash before a literal bracket."
        ) from error


def _parts(key: str) -> list[str]:
    """The names that refer to a layer key: "a", "a/b", "a/b/c" and "c" for "a/b/c"."""
    components = key.split("/")
    return ["/".join(components[: i + 1]) for i in range(len(components))] + components[-1:]


def is_finite(value: np.ndarray) -> bool:
    """Whether an array contains neither NaN nor infinity."""
    return value.dtype.kind != "f" or bool(np.isfinite(value).all())

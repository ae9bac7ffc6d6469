"""Weights for a model of other classes or other input channels than those of the file."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from mrcnn.weights.assign import Exclude, PathLike, assign, excluded, named_weights
from mrcnn.weights.report import LoadReport
from mrcnn.weights.source import Lazy, Source, read

Tensors = Mapping[str, Any]
Layers = Mapping[str, keras.layers.Layer]
CLASS_BIAS = "box_head/mrcnn_class_logits/bias"  # as many numbers as there are classes
CLASS_LAYERS = ("box_head/mrcnn_class_logits", "box_head/mrcnn_bbox_fc")


def load_source(
    path: PathLike,
    layers: Layers,
    source: Source,
    *,
    exclude: Exclude = None,
    by_name: bool = False,
    strict: bool = False,
    keep_classes: bool | Sequence[str] = False,
    class_names: Sequence[str] = (),
    reverse_channels: bool = False,
    mixed: Sequence[str] = (),
    fresh: bool = False,
    hint: str = "",
) -> LoadReport:
    """Gives a network's layers what a file holds, all of it or nothing.

    Args:
        path: of the file, for messages.
        layers: `Network.layers()`.
        exclude: layers to leave alone; see `mrcnn.weights.assign.assign`.
        by_name: skip whatever does not fit.
        strict: raise for class-shaped layers of another number of classes, and for parts that the file lacks.
        keep_classes: copy the rows of classes that both sides have, by name; the others stay as they are. A list: the
            names of the file's classes, background first, where the file does not say them.
        class_names: of the model, background first.
        reverse_channels: the trunk takes the image's channels in reverse order (CHANNEL_ORDER = "bgr").
        mixed: layers whose weights depend on all classes together: of other classes, they are left as they are.
        fresh: the network is thrown away when this raises, and need not be as it was; saves the memory of the file.
        hint: lines for the message if shapes differ.

    Returns:
        What became of each tensor of the parts that the file can fill; `notes` says in words what was changed.

    Raises:
        ValueError: the file is damaged, does not fit, or there are no names to keep classes by. Nothing has changed,
            unless the network is `fresh`.
    """
    variables = named_weights(layers)
    tensors, notes = dict(source.tensors), []
    left = excluded(exclude, [*variables, *tensors])
    notes += _fit_channels(tensors, variables, left, reverse_channels)
    counts = _class_counts(variables, tensors)
    by_class = [] if counts is None else [name for name in _by_class(variables, tensors, counts) if name not in left]
    skip: list[str] = []
    names = source.class_names if keep_classes is True else list(keep_classes or ())
    others = counts is not None and (
        counts[0] != counts[1] or bool(keep_classes and _keys(names) != _keys(class_names))
    )
    if others and not strict:
        skip = [name for name in variables if name.rpartition("/")[0] in mixed and name not in left]
        by_class = [name for name in by_class if name not in skip]
    if keep_classes and (counts is None or not by_class):
        notes.append("keep_classes has nothing to do: the file has no layers of classes, or they are excluded")
    elif keep_classes and counts is not None:
        notes.append(_keep_classes(path, tensors, variables, by_class, counts, names, list(class_names)))
        if skip:
            notes.append(f"left as they are, as they mix the classes: {', '.join(mixed)}")
    elif counts and counts[0] != counts[1] and by_class and not strict:
        skip += by_class
        notes.append(
            f"the file has {counts[1]} classes and the model {counts[0]}: the layers of their shape are left "
            "as they are (keep_classes=True would keep the classes of the same name)"
        )
    elif by_class and class_names and source.class_names and _keys(class_names) != _keys(source.class_names):
        notes.append(
            "the classes of the file are named otherwise than the model's, and taken in their order "
            "(keep_classes=True would take those of the same name)"
        )
    absent = set() if strict else {name for name in variables if not _covered(name, source.parts)} - left
    if absent:
        notes.append(f"the file is of {_words(source.parts)} alone; all else is left as it is")
    report = assign(
        path,
        layers,
        tensors,
        leave=left | set(skip),
        strict=not by_name,
        skip_mismatch=by_name,
        absent=absent,
        fresh=fresh,
        hint=hint,
    )
    return source.completed(report._replace(notes=tuple(notes)))


def _words(parts: Sequence[str]) -> str:
    return ", ".join(part.replace("_", " ") for part in parts)


def _covered(name: str, parts: Sequence[str]) -> bool:
    part, layer = name.split("/")[:2]
    return part in parts or ("backbone" in parts and part == "trunk" and not layer.startswith("fpn_"))


# Input channels


def _fit_channels(
    tensors: dict[str, Any], variables: Mapping[str, keras.Variable], left: set[str], reverse: bool
) -> list[str]:
    """Replaces kernels that see the image, where only their input channels differ; says which."""
    notes = []
    channels = _image_channels(tensors, variables)
    for name, tensor in list(tensors.items()):
        if name in left or name not in variables or not name.startswith("trunk/") or channels[0] == channels[1]:
            continue
        theirs, ours = tuple(tensor.shape), tuple(variables[name].shape)
        differ = [i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b]
        if len(theirs) == len(ours) == 4 and differ == [2] and (theirs[2], ours[2]) == channels:
            tensors[name] = Lazy(ours, _inflated(tensor, ours[2], reverse))
            how = "summed" if ours[2] == 1 else "inflated" if ours[2] > theirs[2] else "cut"
            notes.append(f"{name}: {how} from {theirs[2]} to {ours[2]} input channels")
    return notes


def _image_channels(tensors: Tensors, variables: Mapping[str, keras.Variable]) -> tuple[int, int]:
    """Input channels of the first kernel of the trunk: of the file and of the model."""
    for name, variable in variables.items():
        if name.startswith("trunk/") and name.endswith("/kernel") and name in tensors:
            ours, theirs = tuple(variable.shape), tuple(tensors[name].shape)
            return (theirs[2], ours[2]) if len(ours) == len(theirs) == 4 else (0, 0)
    return 0, 0


def _inflated(tensor: Any, channels: int, reverse: bool) -> Callable[[], np.ndarray]:
    def values() -> np.ndarray:
        kernel = read(tensor)
        return inflate(kernel[:, :, ::-1], channels)[:, :, ::-1] if reverse else inflate(kernel, channels)

    return values


def inflate(kernel: np.ndarray, channels: int) -> np.ndarray:
    """A kernel (h, w, in, out) for another number of input channels.

    More: those there are, then their mean for each further one, all scaled by in / channels, so that an image whose
    channels are equal gives what it gave. One: the sum, for the same reason. Fewer: the first ones, scaled alike.
    """
    count = kernel.shape[2]
    if channels == 1:
        return kernel.sum(axis=2, keepdims=True)
    further = np.repeat(kernel.mean(axis=2, keepdims=True), max(channels - count, 0), axis=2)
    return np.concatenate([kernel[:, :, :channels], further], axis=2) * np.float32(count / channels)


# Classes


def _class_counts(variables: Mapping[str, keras.Variable], tensors: Tensors) -> tuple[int, int] | None:
    """Numbers of classes of the model and of the file; None where one of them has no box head."""
    if CLASS_BIAS not in variables or CLASS_BIAS not in tensors:
        return None
    return variables[CLASS_BIAS].shape[-1], tensors[CLASS_BIAS].shape[-1]


def _by_class(variables: Mapping[str, keras.Variable], tensors: Tensors, counts: tuple[int, int]) -> list[str]:
    """Weights of the heads whose last axis holds the same number of values for each class, on either side."""
    heads = [name for name in variables if name.startswith("mask_head/")]
    last = {name for name in heads if name.rpartition("/")[0] == heads[-1].rpartition("/")[0]}

    def is_by_class(name: str) -> bool:
        ours, theirs = tuple(variables[name].shape), tuple(tensors[name].shape)
        if not ours or not theirs or ours[:-1] != theirs[:-1]:
            return False
        (each, rest), (other, other_rest) = divmod(ours[-1], counts[0]), divmod(theirs[-1], counts[1])
        fits = rest == other_rest == 0 and each == other
        return fits and (ours != theirs or name.rpartition("/")[0] in CLASS_LAYERS or name in last)

    return [
        name
        for name in variables
        if name.startswith(("box_head/", "mask_head/")) and name in tensors and is_by_class(name)
    ]


def _keep_classes(
    path: PathLike,
    tensors: dict[str, Any],
    variables: Mapping[str, keras.Variable],
    by_class: Sequence[str],
    counts: tuple[int, int],
    theirs: list[str],
    ours: list[str],
) -> str:
    """Replaces class-shaped tensors by the model's own, with the rows of common classes; says which those are."""
    for whose, names, count, way in (
        ("the model", ours, counts[0], "pass class_names=dataset.class_names"),
        (str(path), theirs, counts[1], "pass them as keep_classes=[...]"),
    ):
        if len(names) != count:
            raise ValueError(
                f"keep_classes: {whose} has {count} classes and {len(names)} names of them, background included; {way}."
            )
    places = {_key(name): i for i, name in reversed(list(enumerate(theirs)))}
    pairs = [(0, 0)] + [(places[_key(name)], i) for i, name in enumerate(ours) if i and places.get(_key(name), 0)]
    for name in by_class:
        tensors[name] = Lazy(tuple(variables[name].shape), _merged(tensors[name], variables[name], counts, pairs))
    kept = [str(ours[i]) for _, i in pairs[1:]]
    new = [str(name) for name in ours[1:] if str(name) not in kept]
    return f"classes kept by name: {', '.join(kept) or 'none'}; left as they are: {', '.join(new) or 'none'}"


def _key(name: Any) -> str:
    return " ".join(str(name).casefold().replace("_", " ").split())


def _keys(names: Sequence[str]) -> list[str]:
    return [_key(name) for name in names[1:]]


def _merged(
    tensor: Any, variable: keras.Variable, counts: tuple[int, int], pairs: Sequence[tuple[int, int]]
) -> Callable[[], np.ndarray]:
    def values() -> np.ndarray:
        theirs = read(tensor)
        theirs = theirs.reshape(*theirs.shape[:-1], counts[1], -1)
        ours = np.array(keras.ops.convert_to_numpy(variable))
        merged = ours.reshape(*ours.shape[:-1], counts[0], -1)
        for there, here in pairs:
            merged[..., here, :] = theirs[..., there, :]
        return merged.reshape(ours.shape)

    return values


def carry_over(old: Layers, new: Layers) -> None:
    """Copies every weight that two networks have alike."""
    ours = named_weights(old)
    for name, variable in named_weights(new).items():
        if name in ours and tuple(ours[name].shape) == tuple(variable.shape):
            variable.assign(ours[name])


def our_names(exclude: Exclude, layers: Layers) -> list[str | re.Pattern] | None:
    """The old package's names of layers to exclude, turned into ours: "mrcnn_mask" is the last of the mask head."""
    if exclude is None:
        return None
    names = [exclude] if isinstance(exclude, str | re.Pattern) else list(exclude)
    last = [key for key in layers if key.startswith("mask_head/")][-1]
    return [last if name == "mrcnn_mask" else name for name in names if name != "mrcnn_bbox"]


def loaded_parts(source: Source, exclude: Exclude) -> list[str]:
    """The parts of which a file brings anything that is not excluded; "backbone": the trunk without its pyramid."""
    left = excluded(exclude, list(source.tensors), warn=False)
    there = {name.split("/")[0] for name in source.tensors if name not in left}
    return [part for part in source.parts if part.replace("backbone", "trunk") in there]

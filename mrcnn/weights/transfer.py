"""Loads weights into a model with other classes or input channels than the file."""

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
CLASS_BIAS = "box_head/mrcnn_class_logits/bias"  # one number per class
CLASS_LAYERS = ("box_head/mrcnn_class_logits", "box_head/mrcnn_bbox_fc")


KEYPOINTS, LAST_OF_KEYPOINTS = "keypoint_head/", "keypoint_head/deconv/"


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
    """Loads a file into a network's layers, completely or not at all.

    Args:
        path: of the file, for messages.
        layers: `Network.layers()`.
        exclude: layers to skip; see `mrcnn.weights.assign.assign`.
        by_name: skip everything that does not fit.
        strict: raise if the number of classes differs, or the file lacks a part.
        keep_classes: copy the rows of classes that both sides have, by name; other rows are unchanged. A list of the
            file's class names, background first, if the file does not contain them.
        class_names: of the model, background first.
        reverse_channels: the trunk takes the image's channels in reverse order (CHANNEL_ORDER = "bgr").
        mixed: layers whose weights mix all classes; they are unchanged if the classes differ.
        fresh: the network is discarded if this raises, so it may change before an error; needs less memory.
        hint: lines for the message if shapes differ.

    Returns:
        The outcome for each tensor of the parts that the file covers; `notes` describes conversions.

    Raises:
        ValueError: the file is damaged or does not fit, or names for `keep_classes` are missing. Nothing has changed,
            unless the network is `fresh`.
    """
    variables = named_weights(layers)
    tensors, notes = dict(source.tensors), []
    left = excluded(exclude, [*variables, *tensors])
    notes += _fit_channels(tensors, variables, left, reverse_channels)
    skip: list[str] = []
    if not strict:
        skip += _fit_keypoints(tensors, variables, left, notes)
    skip += _fit_classes(path, source, tensors, variables, left, keep_classes, class_names, mixed, strict, notes)
    absent = set() if strict else {name for name in variables if not _covered(name, source.parts)} - left
    if absent:
        notes.append(f"the file contains only the {_words(source.parts)}; everything else is unchanged")
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


def _fit_keypoints(
    tensors: dict[str, Any], variables: Mapping[str, Any], left: set[str], notes: list[str]
) -> list[str]:
    """Removes the keypoint head's tensors if the model has none. Returns variables to skip; adds to `notes`."""
    if any(map(_of_keypoints, tensors)) and not any(map(_of_keypoints, variables)):
        for name in [name for name in tensors if _of_keypoints(name)]:
            del tensors[name]
        notes.append("the keypoint head of the file is left out, as the model has none (KEYPOINT_HEAD = None)")
    ours, theirs = _keypoint_counts(variables, tensors)
    if ours == theirs:
        return []
    notes.append(
        f"the file has {theirs} keypoints and the model {ours}: the last layer of the keypoint head stays as it is"
    )
    return [name for name in variables if name.startswith(LAST_OF_KEYPOINTS) and name not in left]


def _fit_classes(
    path: PathLike,
    source: Source,
    tensors: dict[str, Any],
    variables: Mapping[str, Any],
    left: set[str],
    keep_classes: bool | Sequence[str],
    class_names: Sequence[str],
    mixed: Sequence[str],
    strict: bool,
    notes: list[str],
) -> list[str]:
    """Copies the rows of classes to keep; see `load_source`. Returns variables to skip; adds to `notes`."""
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
        notes.append("keep_classes has no effect: the file has no class-dependent layers, or they are excluded")
    elif keep_classes and counts is not None:
        notes.append(_keep_classes(path, tensors, variables, by_class, counts, names, list(class_names)))
        if skip:
            notes.append(f"unchanged, because they mix the classes: {', '.join(mixed)}")
    elif counts and counts[0] != counts[1] and by_class and not strict:
        skip += by_class
        notes.append(
            f"the file has {counts[1]} classes and the model {counts[0]}: class-dependent layers are "
            "unchanged (keep_classes=True would keep classes with the same name)"
        )
    elif by_class and class_names and source.class_names and _keys(class_names) != _keys(source.class_names):
        notes.append(
            "the file's class names differ from the model's; classes are loaded in the file's order "
            "(keep_classes=True would match them by name)"
        )
    return skip


def _of_keypoints(name: str) -> bool:
    return name.startswith(KEYPOINTS)


def _keypoint_counts(variables: Mapping[str, keras.Variable], tensors: Tensors) -> tuple[int, int]:
    """Numbers of keypoints of the model and of the file; 0 and 0 where one of them has no keypoint head."""
    bias = f"{LAST_OF_KEYPOINTS}bias"
    return (variables[bias].shape[-1], tensors[bias].shape[-1]) if bias in variables and bias in tensors else (0, 0)


def _words(parts: Sequence[str]) -> str:
    return ", ".join(part.replace("_", " ") for part in parts)


def _covered(name: str, parts: Sequence[str]) -> bool:
    part, layer = name.split("/")[:2]
    return part in parts or ("backbone" in parts and part == "trunk" and not layer.startswith("fpn_"))


# Input channels


def _fit_channels(
    tensors: dict[str, Any], variables: Mapping[str, keras.Variable], left: set[str], reverse: bool
) -> list[str]:
    """Replaces kernels of the image if only their input channels differ; adds a note for each."""
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
    """Input channels of the trunk's first kernel, in the file and in the model."""
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

    More channels: the existing ones, then their mean for each further one, all scaled by in / channels, so that an
    image with equal channels gives the same result. One channel: the sum, for the same reason. Fewer: the first ones,
    scaled likewise.
    """
    count = kernel.shape[2]
    if channels == 1:
        return kernel.sum(axis=2, keepdims=True)
    further = np.repeat(kernel.mean(axis=2, keepdims=True), max(channels - count, 0), axis=2)
    return np.concatenate([kernel[:, :, :channels], further], axis=2) * np.float32(count / channels)


# Classes


def _class_counts(variables: Mapping[str, keras.Variable], tensors: Tensors) -> tuple[int, int] | None:
    """The numbers of classes in the model and in the file; None if one of them has no box head."""
    if CLASS_BIAS not in variables or CLASS_BIAS not in tensors:
        return None
    return variables[CLASS_BIAS].shape[-1], tensors[CLASS_BIAS].shape[-1]


def _by_class(variables: Mapping[str, keras.Variable], tensors: Tensors, counts: tuple[int, int]) -> list[str]:
    """Head weights whose last axis has the same number of values per class, in model and file."""
    heads = [name for name in variables if name.startswith("mask_head/")]
    # Layers called "masks" make the masks in every head; there may be a further output behind them
    ends = {name.rpartition("/")[0] for name in heads if name.split("/")[-2] == "masks"}
    last = {name for name in heads if name.rpartition("/")[0] in {*ends, heads[-1].rpartition("/")[0]}}

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
    """Replaces class-dependent tensors by the model's own, with the file's rows for common classes; returns a note."""
    for whose, names, count, way in (
        ("the model", ours, counts[0], "pass class_names=dataset.class_names"),
        (str(path), theirs, counts[1], "pass them as keep_classes=[...]"),
    ):
        if len(names) != count:
            raise ValueError(
                f"keep_classes: {whose} has {count} classes but {len(names)} names, background included; {way}."
            )
    places = {_key(name): i for i, name in reversed(list(enumerate(theirs)))}
    pairs = [(0, 0)] + [(places[_key(name)], i) for i, name in enumerate(ours) if i and places.get(_key(name), 0)]
    for name in by_class:
        tensors[name] = Lazy(tuple(variables[name].shape), _merged(tensors[name], variables[name], counts, pairs))
    kept = [str(ours[i]) for _, i in pairs[1:]]
    new = [str(name) for name in ours[1:] if str(name) not in kept]
    return f"classes kept by name: {', '.join(kept) or 'none'}; unchanged: {', '.join(new) or 'none'}"


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
    """Copies every weight that has the same name and shape in both networks."""
    ours = named_weights(old)
    for name, variable in named_weights(new).items():
        if name in ours and tuple(ours[name].shape) == tuple(variable.shape):
            variable.assign(ours[name])


def our_names(exclude: Exclude, layers: Layers) -> list[str | re.Pattern] | None:
    """Converts the old package's layer names in `exclude` to ours: "mrcnn_mask" is the last layer of the mask head."""
    if exclude is None:
        return None
    names = [exclude] if isinstance(exclude, str | re.Pattern) else list(exclude)
    last = [key for key in layers if key.startswith("mask_head/")][-1:]
    old = {"mrcnn_mask": last, "mrcnn_bbox": []}
    return [own for name in names for own in (old.get(name, [name]) if isinstance(name, str) else [name])]


def loaded_parts(source: Source, exclude: Exclude) -> list[str]:
    """The parts for which a file has weights that are not excluded; "backbone": the trunk without its pyramid."""
    left = excluded(exclude, list(source.tensors), warn=False)
    there = {name.split("/")[0] for name in source.tensors if name not in left}
    return [part for part in source.parts if part.replace("backbone", "trunk") in there]

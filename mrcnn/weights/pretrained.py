"""Helpers of `MaskRCNN.from_pretrained`: locate the weights, check the classes, and make sure no part is untrained."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from mrcnn.config import Config
from mrcnn.weights import published
from mrcnn.weights.assign import Exclude, excluded, named_weights
from mrcnn.weights.report import LoadReport
from mrcnn.weights.source import PARTS, Source

PYRAMID = "trunk/fpn_.*"
KEYPOINTS = "keypoint_head/deconv"  # the layer that depends on the number of keypoints


def locate(path: str | os.PathLike[str]) -> Path:
    """The file at a path, or that of published weights by name, downloaded on first use.

    Raises the errors of `mrcnn.weights.published.fetch`.
    """
    return published.fetch(os.fspath(path)) if published.looks_like_a_name(path) else Path(path)


def with_background(classes: Sequence[str]) -> list[str]:
    """A model's class names for the user's classes. Raises ValueError for invalid or repeated names."""
    names: list[Any] = [] if isinstance(classes, str) else list(classes)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f'classes must be a list of names such as ["cat", "dog"], got {classes!r}.')
    if len(set(names)) < len(names) or "BG" in names:
        raise ValueError(f"classes must differ from each other and from the background, BG; got {names}.")
    return ["BG", *names]


def differs(config: Config, source: Source, name: str) -> bool:
    """Whether a configuration has another value of a setting than a file."""
    return getattr(config, name) != source.settings.get(name, getattr(Config, name))


def require_parts(path: str | os.PathLike[str], source: Source, config: Config, exclude: Exclude) -> None:
    """Raises ValueError, naming the parts, if a file contains no weights at all for some parts of the model.

    Parts with layers that `exclude` may match are left to `require_trained`, which knows the layers.
    """
    said = [exclude] if isinstance(exclude, str | re.Pattern) else list(exclude or ())
    patterns = [item.pattern if isinstance(item, re.Pattern) else item for item in said]
    wanted = [part for part in PARTS if part != "mask_head" or config.MASK_HEAD is not None]
    wanted += ["keypoint_head"] * (config.KEYPOINT_HEAD is not None)
    missing = [part for part in wanted if part not in source.parts]
    if missing[:1] == ["trunk"] and "backbone" in source.parts:
        missing[0] = PYRAMID
    missing = [part for part in missing if not any(re.match(part.split("/")[0], pattern) for pattern in patterns)]
    if missing:
        raise _untrained(path, source, missing)


def require_trained(
    path: str | os.PathLike[str],
    source: Source,
    layers: Mapping[str, keras.layers.Layer],
    report: LoadReport,
    exclude: Exclude,
) -> None:
    """Raises ValueError, naming the part, if the file left weights at their random initialization.

    Args:
        layers: `Network.layers()` of the model that the weights were loaded into.
        report: the report of loading them.
        exclude: layers that may be untrained.
    """
    names = list(named_weights(layers))
    random = set(names) - excluded(exclude, names, warn=False) - {tensor.name for tensor in report.loaded}
    if random:
        raise _untrained(path, source, list(dict.fromkeys(name.split("/")[0] for name in names if name in random)))


def _untrained(path: str | os.PathLike[str], source: Source, parts: list[str]) -> ValueError:
    shown = " and the ".join("feature pyramid" if part == PYRAMID else part.replace("_", " ") for part in parts)
    others = [name for name in source.unused if name.count(".") > 1][:3]
    held = f" (it has {', '.join(others)} ..., which match no layer of this network)" if others else ""
    return ValueError(
        f"{path} (weights of {source.program}) has no weights for the {shown}{held}; untrained, that would detect "
        f"noise. Pass classes=[...] to train your own classes, or exclude={parts} to leave it untrained."
    )

"""Which settings weights are bound to: those that a file brings with it, whatever the configuration says.

A configuration says what to build and what for (backbone, classes, heads, sizes, thresholds, training). How pixels are
scaled, where the strides lie, how anchors and RoIs are cut is not free once weights are loaded: they learnt it.
"""

import os
import warnings
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from mrcnn.config import Config
from mrcnn.network.applications import find_application
from mrcnn.network.backbone import backbone_scaling
from mrcnn.network.pixels import PixelScaling
from mrcnn.network.resnet import BLOCKS
from mrcnn.weights.source import Source

BACKBONE = ("BACKBONE_STRIDE_IN_1X1", "BACKBONE_STEM_PADDING", "MEAN_PIXEL", "PIXEL_STD", "CHANNEL_ORDER")
ROI = ("ROI_SAMPLING_RATIO", "ROI_ALIGNED", "ROI_GEOMETRY", "ROI_LEVEL_ROUNDING")
BOUND = {
    "backbone": BACKBONE,
    "trunk": (*BACKBONE, "IMAGE_ANTIALIAS", "IMAGE_RESIZER", "IMAGE_PAD_PIXEL"),
    "rpn": (
        "RPN_ANCHOR_RATIO_MEANING",
        "RPN_ANCHOR_ROUNDED",
        "RPN_ANCHOR_STRIDE",
        "RPN_ANCHOR_STEP_FROM_SIZE",
        "RPN_CHANNELS",
        "RPN_CONVOLUTIONS",
        "RPN_BBOX_STD_DEV",
        "RPN_CLIP_TO_PHOTOGRAPH",
        "RPN_MIN_SIZE",
        "BOXES_INCLUSIVE",
    ),
    "box_head": (
        *ROI,
        "BOXES_INCLUSIVE",
        "POOL_SIZE",
        "BOX_HEAD_CONVOLUTIONS",
        "BOX_HEAD_FC_LAYERS",
        "FPN_CLASSIF_FC_LAYERS_SIZE",
        "BBOX_STD_DEV",
        "DETECTION_MIN_SIZE",
        "DETECTION_ROUND_BOXES",
    ),
    "mask_head": (*ROI, "MASK_POOL_SIZE"),
}
# Those of them that the layers are built from.
STRUCTURAL = {
    "BACKBONE_STRIDE_IN_1X1",
    "BACKBONE_STEM_PADDING",
    "RPN_ANCHOR_STRIDE",
    "RPN_CHANNELS",
    "RPN_CONVOLUTIONS",
    "POOL_SIZE",
    "BOX_HEAD_CONVOLUTIONS",
    "BOX_HEAD_FC_LAYERS",
    "FPN_CLASSIF_FC_LAYERS_SIZE",
    "MASK_POOL_SIZE",
}
PIXELS = ("MEAN_PIXEL", "PIXEL_STD", "IMAGE_PAD_PIXEL")  # one number a channel


def bound_settings(
    source: Source, parts: Collection[str], channels: int, defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings that the weights of some parts need.

    Args:
        parts: keys of `BOUND`.
        channels: of the images that the model is for.
        defaults: of `Config`; they stand for what the source does not say.
    """
    if not source.settings:
        return {}
    bound = {name: source.settings.get(name, defaults[name]) for part in parts for name in BOUND[part]}
    theirs = source.settings.get("IMAGE_CHANNEL_COUNT", defaults["IMAGE_CHANNEL_COUNT"])
    if theirs != channels and "MEAN_PIXEL" in bound:
        bound |= _for_channels(bound, source.settings.get("BACKBONE"), theirs, channels)
    return bound


def _for_channels(bound: Mapping[str, Any], backbone: str | None, theirs: int, channels: int) -> dict[str, Any]:
    """The settings of pixels for more or fewer channels: further ones get the mean, fewer ones too."""
    own = backbone_scaling(backbone, theirs) if backbone is not None and _is_known(backbone) else None
    values = ({} if own is None else {"MEAN_PIXEL": own.mean, "PIXEL_STD": own.std}) | {
        name: bound[name] for name in PIXELS if bound.get(name) is not None
    }
    result = {}
    for name, value in values.items():
        mean = sum(value) / len(value)
        kept = tuple(value) if channels > theirs else ()
        result[name] = (*kept, *(mean,) * (channels - len(kept)))
    return result


def changes(config: Config, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the wanted settings that differ from a configuration's in what they do."""
    own = _own_scaling(config)
    return {
        name: value
        for name, value in wanted.items()
        if _plain(_meant(name, value, own)) != _plain(_meant(name, getattr(config, name), own))
    }


def _own_scaling(config: Config) -> PixelScaling:
    return backbone_scaling(config.BACKBONE, config.IMAGE_CHANNEL_COUNT)


def _meant(name: str, value: Any, own: PixelScaling) -> Any:
    """What None stands for in the settings of pixels."""
    meant = {"MEAN_PIXEL": own.mean, "PIXEL_STD": own.std, "CHANNEL_ORDER": "bgr" if own.bgr else "rgb"}
    return meant.get(name) if value is None else value


def _plain(value: Any) -> Any:
    return np.asarray(value).tolist() if isinstance(value, (list, tuple, np.ndarray)) else value


def adopted(config: Config, source: Source, parts: Collection[str], defaults: Mapping[str, Any]) -> tuple[Config, str]:
    """A configuration with the settings that the weights of some parts need, and in words what that changed.

    The same object and no words where nothing differs; else a copy, since what was given may be another model's too.

    Raises ValueError for settings that contradict each other.
    """
    changed = changes(config, bound_settings(source, parts, config.IMAGE_CHANNEL_COUNT, defaults))
    if not changed:
        return config, ""
    text = ", ".join(f"{name} {getattr(config, name)!r} -> {value!r}" for name, value in changed.items())
    return config.adopt(changed), text


def check_backbone(source: Source, path: str | os.PathLike, backbone: Any, options: Mapping[str, Any]) -> None:
    """Raises ValueError when a file has another trunk than the model.

    A function is only known by the layers that it makes, so that it is not compared with a checkpoint of this package.
    """
    theirs = source.settings.get("BACKBONE")
    if theirs is None or (callable(backbone) and source.is_own):
        return
    their_options = source.settings.get("BACKBONE_OPTIONS", {})
    if isinstance(backbone, str) and _trunk(theirs, their_options) == _trunk(backbone, options):
        return
    ours = repr(backbone) if isinstance(backbone, str) else f"the function {getattr(backbone, '__name__', backbone)}"
    raise ValueError(
        f"{path} holds a trunk {_described(repr(theirs), their_options)}, but the model's BACKBONE is "
        f"{_described(ours, options)}; nothing was loaded. Set BACKBONE = {theirs!r} and BACKBONE_OPTIONS = "
        f"{dict(their_options)}, or have MaskRCNN.from_pretrained build what the file needs."
    )


def _trunk(name: str, options: Mapping[str, Any]) -> tuple:
    options = {"width": 64, "groups": 1, "group_width": 64} | dict(options) if name.lower() in BLOCKS else options
    return name.lower().replace("_", ""), sorted(options.items())


def _described(name: str, options: Mapping[str, Any]) -> str:
    return name + (f" with {dict(options)}" if options else "")


def pretrained_settings(
    source: Source, path: str | os.PathLike, config: Config, defaults: Mapping[str, Any], overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings of a model that is built for a file.

    Args:
        config: None, or a configuration whose settings that differ from the defaults go before the file's, except
            those that the weights are bound to.
        overrides: go before all others.

    Raises:
        ValueError: the backbone is a function, and `config` does not bring it.
    """
    own = (
        {}
        if config is None
        else {
            name: getattr(config, name) for name in defaults if _plain(getattr(config, name)) != _plain(defaults[name])
        }
    )
    theirs = dict(source.settings)
    if source.parts == ("backbone",):
        theirs = {
            name: theirs[name]
            for name in (*BACKBONE, "BACKBONE", "BACKBONE_OPTIONS", "IMAGE_CHANNEL_COUNT")
            if name in theirs
        }
    if unknown := sorted(set(theirs) - set(defaults)):
        warnings.warn(
            f"{path} has settings that this version does not know, which are left out: {unknown}", stacklevel=3
        )
    channels = (own | dict(overrides)).get("IMAGE_CHANNEL_COUNT", theirs.get("IMAGE_CHANNEL_COUNT", 3))
    bound = bound_settings(source, source.parts, channels, defaults)
    settings = {name: theirs[name] for name in theirs if name in defaults} | own | bound | dict(overrides)
    backbone = settings.get("BACKBONE")
    mine = getattr(config, "BACKBONE", None)
    if isinstance(backbone, str) and not _is_known(backbone) and getattr(mine, "__name__", None) != backbone:
        raise ValueError(
            f"{path} was saved with the function {backbone!r} as BACKBONE, which no file holds; pass the "
            "class of its configuration as config=, or BACKBONE=."
        )
    return settings


def _is_known(backbone: str) -> bool:
    return backbone.lower() in BLOCKS or find_application(backbone) is not None

"""The settings that weights depend on, and what happens if a configuration and a weight file disagree.

A configuration says what to build and for what purpose (backbone, classes, heads, sizes, thresholds, training). But the
weights were trained with one choice of pixel scaling, stride placement, anchors and RoI pooling.

- A setting that was not set explicitly follows the file.
- A setting from a class, a keyword or an assignment is kept. If the difference is linear (channel order, pixel
  deviation, scale of box deltas), the weights are converted so that they compute the same.
- If the weights would compute nonsense, loading raises an error that names both values.
"""

import dataclasses
import os
import warnings
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from mrcnn.config import Config
from mrcnn.network.applications import find_application
from mrcnn.network.backbone import backbone_scaling
from mrcnn.network.pixels import PixelScaling
from mrcnn.network.resnet import BLOCKS
from mrcnn.weights.assign import users_level
from mrcnn.weights.source import Lazy, Source, Tensor, read

BACKBONE = ("BACKBONE_STRIDE_IN_1X1", "BACKBONE_STEM_PADDING", "MEAN_PIXEL", "PIXEL_STD", "CHANNEL_ORDER")
ROI = ("ROI_POOLING", "ROI_REDUCTION", "ROI_SAMPLING_RATIO", "ROI_ALIGNED", "ROI_GEOMETRY", "ROI_LEVEL_ROUNDING")
BOUND = {
    "backbone": BACKBONE,
    "trunk": (*BACKBONE, "IMAGE_ANTIALIAS", "IMAGE_RESIZER", "IMAGE_PAD_PIXEL"),
    "rpn": (
        "RPN_ANCHOR_SCALES",
        "RPN_ANCHOR_RATIOS",
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
    "keypoint_head": (*ROI, "KEYPOINT_POOL_SIZE"),
    "roi_stage": (),
}
# The settings among them that determine the layers.
STRUCTURAL = {
    "BACKBONE_STRIDE_IN_1X1",
    "BACKBONE_STEM_PADDING",
    "RPN_ANCHOR_STRIDE",
    "RPN_ANCHOR_RATIOS",
    "RPN_CHANNELS",
    "RPN_CONVOLUTIONS",
    "POOL_SIZE",
    "BOX_HEAD_CONVOLUTIONS",
    "BOX_HEAD_FC_LAYERS",
    "FPN_CLASSIF_FC_LAYERS_SIZE",
    "MASK_POOL_SIZE",
    "KEYPOINT_POOL_SIZE",
}
# With other values than the weights need, these settings make the results nonsense.
CONTRADICTIONS = {
    "BACKBONE_STRIDE_IN_1X1": "the backbone's strides are in different layers",
    "RPN_ANCHOR_RATIO_MEANING": "the RPN would confuse tall and wide anchors",
}
RATIOS = {"RPN_ANCHOR_RATIOS", "RPN_ANCHOR_RATIO_MEANING"}
STEM = "trunk/conv1/kernel"  # the first layer of the ResNets
DELTAS = {"RPN_BBOX_STD_DEV": "rpn/rpn_bbox_pred", "BBOX_STD_DEV": "box_head/mrcnn_bbox_fc"}
PIXELS = ("MEAN_PIXEL", "PIXEL_STD", "IMAGE_PAD_PIXEL")  # one number per channel


def bound_settings(
    source: Source, parts: Collection[str], channels: int, defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings that the weights of the given parts need.

    Args:
        parts: keys of `BOUND`.
        channels: of the model's images.
        defaults: of `Config`, for settings that the source does not contain.
    """
    if not source.settings:
        return {}
    bound = {name: source.settings.get(name, defaults[name]) for part in parts for name in BOUND[part]}
    theirs = source.settings.get("IMAGE_CHANNEL_COUNT", defaults["IMAGE_CHANNEL_COUNT"])
    if theirs != channels and "MEAN_PIXEL" in bound:
        bound |= _for_channels(bound, source.settings.get("BACKBONE"), theirs, channels)
    return bound


def _for_channels(bound: Mapping[str, Any], backbone: str | None, theirs: int, channels: int) -> dict[str, Any]:
    """The pixel settings for more or fewer channels: further channels get the mean, and so do fewer ones."""
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
    """The wanted settings whose effect differs from the configuration's."""
    own = _own_scaling(config)
    different = {
        name: value
        for name, value in wanted.items()
        if _plain(_meant(name, value, own)) != _plain(_meant(name, getattr(config, name), own))
    }
    ours = {name: getattr(config, name) for name in RATIOS}
    if RATIOS <= set(wanted) and _height_by_width(ours) == _height_by_width(wanted):
        different = {name: value for name, value in different.items() if name not in RATIOS}
    return different


def _height_by_width(settings: Mapping[str, Any]) -> list[float]:
    turned = settings["RPN_ANCHOR_RATIO_MEANING"] == "width/height"
    return [round(1 / ratio if turned else ratio, 6) for ratio in settings["RPN_ANCHOR_RATIOS"]]


def _own_scaling(config: Config) -> PixelScaling:
    return backbone_scaling(config.BACKBONE, config.IMAGE_CHANNEL_COUNT)


def _meant(name: str, value: Any, own: PixelScaling) -> Any:
    """Replaces None in the pixel settings by the value that it stands for."""
    meant = {"MEAN_PIXEL": own.mean, "PIXEL_STD": own.std, "CHANNEL_ORDER": "bgr" if own.bgr else "rgb"}
    return meant.get(name) if value is None else value


def _plain(value: Any) -> Any:
    return np.asarray(value).tolist() if isinstance(value, (list, tuple, np.ndarray)) else value


class Agreement(NamedTuple):
    """The settings that a configuration and a weight source agree on.

    Attributes:
        config: the configuration with the file's value for settings not set explicitly; the same object if equal.
        source: the weights, converted for the settings that are kept.
        taken: settings that the file changed, with their values before and after.
        kept: settings for which the file has a different value, with the configuration's value and the file's.
    """

    config: Config
    source: Source
    taken: dict[str, tuple[Any, Any]]
    kept: dict[str, tuple[Any, Any]]

    @property
    def mismatch(self) -> str:
        """Why shapes may differ: kept settings that determine the layers."""
        kept = {name: values for name, values in self.kept.items() if name in STRUCTURAL}
        return "".join(f"Your Config sets {name} = {a!r}; the file has {b!r}.\n" for name, (a, b) in kept.items())

    @property
    def text(self) -> str:
        """Describes what was taken and what was kept; empty if nothing was."""
        taken = ", ".join(f"{name} {ours!r} -> {theirs!r}" for name, (ours, theirs) in self.taken.items())
        kept = ", ".join(f"{name} {ours!r} (the file: {theirs!r})" for name, (ours, theirs) in self.kept.items())
        return "; ".join(filter(None, (taken and f"sets {taken}", kept and f"keeps your Config's values: {kept}")))


def agreed(
    config: Config, source: Source, parts: Collection[str], defaults: Mapping[str, Any], path: str | os.PathLike[str]
) -> Agreement:
    """Reconciles a configuration with the weights of some parts; see the top of this file.

    Raises ValueError, with both values, for explicit settings with which the weights would compute nonsense, and for
    settings that contradict each other.
    """
    wanted = changes(config, bound_settings(source, parts, config.IMAGE_CHANNEL_COUNT, defaults))
    explicit = {name for name in config.explicit() if getattr(config, name) is not None}
    kept = {name: (getattr(config, name), value) for name, value in wanted.items() if name in explicit}
    taken = {name: (getattr(config, name), value) for name, value in wanted.items() if name not in explicit}
    kept = {name: values for name, values in kept.items() if name not in source.assumed}
    for name, why in CONTRADICTIONS.items():
        if name in kept:
            ours, theirs = kept[name]
            raise ValueError(
                f"{path} (weights of {source.program}) was made with {name} = {theirs!r}, but your configuration sets "
                f"{ours!r}: {why}. Nothing was loaded; remove {name} from your configuration, or set it to {theirs!r}."
            )
    own = _own_scaling(config)
    source = _converted(source, config, {name: _meant(name, theirs, own) for name, (_, theirs) in kept.items()})
    if taken:
        config = config.adopt({name: theirs for name, (_, theirs) in taken.items()})
    return Agreement(config, source, taken, kept)


def _converted(source: Source, config: Config, theirs: Mapping[str, Any]) -> Source:
    """The source with its weights converted to the configuration's settings, where the difference is linear."""
    tensors = dict(source.tensors)
    if STEM in tensors and {"CHANNEL_ORDER", "PIXEL_STD"} & set(theirs):
        tensors[STEM] = _for_pixels(tensors[STEM], config, theirs)
    for name, layer in DELTAS.items():
        if name in theirs:
            factors = np.asarray(theirs[name], np.float32) / np.asarray(getattr(config, name), np.float32)
            for tensor in (f"{layer}/kernel", f"{layer}/bias"):
                if tensor in tensors:
                    tensors[tensor] = _multiplied(tensors[tensor], factors)
    return dataclasses.replace(source, tensors=tensors)


def _for_pixels(kernel: Tensor, config: Config, theirs: Mapping[str, Any]) -> Lazy:
    """The first kernel (h, w, channels, filters), converted to another channel order or pixel deviation."""
    channels = kernel.shape[2]
    ours = _meant("PIXEL_STD", config.PIXEL_STD, _own_scaling(config))
    factors: np.ndarray = np.ones(channels, np.float32)
    if "PIXEL_STD" in theirs and len(ours) == len(theirs["PIXEL_STD"]) == channels:
        factors = np.asarray(ours, np.float32) / np.asarray(theirs["PIXEL_STD"], np.float32)
    if _meant("CHANNEL_ORDER", config.CHANNEL_ORDER, _own_scaling(config)) == "bgr":
        factors = factors[::-1]
    step = -1 if "CHANNEL_ORDER" in theirs else 1
    return Lazy(kernel.shape, lambda: np.ascontiguousarray(read(kernel)[:, :, ::step] * factors[:, None]))


def _multiplied(tensor: Tensor, factors: np.ndarray) -> Lazy:
    """Box deltas (dy, dx, dh, dw) of every anchor or class, on the last axis, times four factors."""
    return Lazy(tensor.shape, lambda: read(tensor) * np.tile(factors, tensor.shape[-1] // 4))


def check_backbone(source: Source, path: str | os.PathLike, backbone: Any, options: Mapping[str, Any]) -> None:
    """Raises ValueError if the file's trunk differs from the model's.

    A backbone function is known only by its layers, so it is not compared with a checkpoint of this package.
    """
    theirs = source.settings.get("BACKBONE")
    if theirs is None or (callable(backbone) and source.is_own):
        return
    their_options = source.settings.get("BACKBONE_OPTIONS", {})
    if isinstance(backbone, str) and _trunk(theirs, their_options) == _trunk(backbone, options):
        return
    ours = repr(backbone) if isinstance(backbone, str) else f"the function {getattr(backbone, '__name__', backbone)}"
    raise ValueError(
        f"{path} contains a trunk {_described(repr(theirs), their_options)}, but the model's BACKBONE is "
        f"{_described(ours, options)}; nothing was loaded. Set BACKBONE = {theirs!r} and BACKBONE_OPTIONS = "
        f"{dict(their_options)}, or let MaskRCNN.from_pretrained build the model that the file needs."
    )


def _trunk(name: str, options: Mapping[str, Any]) -> tuple:
    options = {"width": 64, "groups": 1, "group_width": 64} | dict(options) if name.lower() in BLOCKS else options
    return name.lower().replace("_", ""), sorted(options.items())


def _described(name: str, options: Mapping[str, Any]) -> str:
    return name + (f" with {dict(options)}" if options else "")


def pretrained_config(
    source: Source,
    path: str | os.PathLike[str],
    config: Config | type[Config] | None,
    defaults: Mapping[str, Any],
    overrides: Mapping[str, Any],
) -> Config:
    """The configuration of a model built for a weight file.

    Args:
        config: its explicit settings override the file's.
        overrides: settings that override all others.

    Raises:
        ValueError: the backbone is a function that `config` does not contain; a setting is unknown or impossible.
    """
    base = config() if isinstance(config, type) else config
    if not source.settings and base is None and "BACKBONE" not in overrides:
        raise ValueError(
            f"{path} (weights of {source.program}) does not contain the model's settings; pass the configuration that "
            "the model was built with as config=."
        )
    own = {} if base is None else {name: getattr(base, name) for name in sorted(base.explicit())}
    own |= overrides
    theirs = _stored_settings(source, path, defaults)
    channels = own.get("IMAGE_CHANNEL_COUNT", theirs.get("IMAGE_CHANNEL_COUNT", 3))
    bound = bound_settings(source, source.parts, channels, defaults)
    theirs |= bound
    own = {name: value for name, value in own.items() if value is not None or name not in bound}
    backbone = (theirs | own).get("BACKBONE")
    known = callable(backbone) or backbone is None or _is_known(backbone)
    if not known and getattr(getattr(base, "BACKBONE", None), "__name__", None) != backbone:
        raise ValueError(
            f"{path} was saved with the function {backbone!r} as BACKBONE, which a file cannot contain; pass "
            "its configuration class as config=, or the function as BACKBONE=."
        )
    built = (Config if base is None else type(base))(**(theirs | own))
    return built.adopt({name: getattr(built, name) for name in set(theirs) - set(own)})


def _stored_settings(source: Source, path: str | os.PathLike[str], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a file that this version knows; for a trunk alone, only those of the trunk."""
    stored = dict(source.settings)
    if source.parts == ("backbone",):
        names = (*BACKBONE, "BACKBONE", "BACKBONE_OPTIONS", "IMAGE_CHANNEL_COUNT")
        stored = {name: stored[name] for name in names if name in stored}
    if unknown := sorted(set(stored) - set(defaults)):
        warnings.warn(
            f"{path} has settings that this version does not know; they are ignored: {unknown}",
            stacklevel=users_level(),
        )
    return {name: value for name, value in stored.items() if name in defaults}


def _is_known(backbone: str) -> bool:
    return backbone.lower() in BLOCKS or find_application(backbone) is not None

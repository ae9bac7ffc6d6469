"""Backbones: this package's ResNets, any model of `keras.applications`, or any function."""

import difflib
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import keras

from mrcnn.network import feature_taps as strides
from mrcnn.network.applications import (
    application_names,
    build_application,
    find_application,
    for_channels,
    pixel_scaling,
)
from mrcnn.network.frozen_batch_norm import BatchNormalization, freeze_batch_norm
from mrcnn.network.pixels import PixelScaling
from mrcnn.network.resnet import BLOCKS, last_stage, resnet, stage_of
from mrcnn.ops.keras_internals import all_layers

# Strides that a neck needs from a keras.applications model.
TAPS = {"fpn": (4, 8, 16, 32), "c4": (16, 32), "c5": (32,), "dc5": (16,)}
# torchvision's ImageNet mean and standard deviation, in 0..255, RGB.
RESNET_MEAN, RESNET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class Backbone:
    """A backbone and its properties.

    model: image [B, H, W, channels] -> [C2, C3, C4, C5], each [B, H / s, W / s, c], s = 4, 8, 16, 32, or only those
    that the neck needs; H and W are multiples of 32. stages: layer name -> 1..5, n if the layer's output has stride
    2**n (for a ResNet by name: "res3a_branch2a" belongs to stage 3). scaling: the expected pixel scaling. source: the
    whole `keras.applications` model, which shares its layers with `model`, for loading `.weights.h5` files; None for
    other backbones.
    last_stage: stage 5, if the heads compute it from RoI features; else None.
    """

    model: keras.Model
    stages: dict[str, int]
    scaling: PixelScaling
    source: keras.Model | None = None
    last_stage: keras.Model | None = None


def build_backbone(
    backbone: str | Callable,
    *,
    channels: int = 3,
    train_bn: bool = False,
    options: dict | None = None,
    stride_in_1x1: bool = False,
    stem_padding: str = "torch",
    neck: str = "fpn",
    roi_size: int = 14,
) -> Backbone:
    """Builds a backbone with random weights.

    Args:
        backbone: "resnet50", "resnet101" or "resnet152"; the name of any model of `keras.applications`, in any case; or
            a function from `keras.Input` [B, H, W, channels] to [C2, C3, C4, C5], or to a `keras.Model` with these
            outputs. A function gets pixels scaled to -1..1 (mean and std 127.5) unless the settings override it.
        channels: of the image.
        train_bn: whether BatchNorm is trained; if not, it always uses its moving statistics.
        options: for the function that builds the model, such as {"alpha": 0.75}.
        stride_in_1x1, stem_padding: see `mrcnn.network.resnet.resnet`; for ResNets only.
        neck: the consumer of the feature maps. "fpn": all four; "c5": the last one is C5; "c4": the last one is C4, and
            `last_stage` computes C5 from RoI features [R, roi_size, roi_size, C4's channels]; "dc5": the last one is
            C5, dilated at stride 16.

    Raises:
        ValueError: for an unknown name or option, feature maps with other strides, or a stage 5 that cannot be
            dilated.
        TypeError: if `backbone` is neither a name nor a function, or the function returns something else.
    """
    options = dict(options or {})
    if isinstance(backbone, str):
        name = backbone.lower()
        built = (
            _own_resnet(name, channels, options, stride_in_1x1, stem_padding, train_bn, neck, roi_size)
            if name in BLOCKS
            else _application(backbone, channels, options, train_bn, neck, roi_size)
        )
    elif callable(backbone):
        built = _from_function(backbone, channels, options, train_bn, neck, roi_size)
    else:
        raise TypeError(f"a backbone must be a name or a function, received {backbone!r}")
    return built


def backbone_scaling(backbone: str | Callable, channels: int = 3) -> PixelScaling:
    """The pixel scaling that a backbone expects, without building it; see `build_backbone`."""
    if not isinstance(backbone, str):
        return PixelScaling((127.5,) * channels, (127.5,) * channels)
    if backbone.lower() in BLOCKS:
        return for_channels(PixelScaling(RESNET_MEAN, RESNET_STD), channels)
    return pixel_scaling(_known_application(backbone), channels)


def _own_resnet(
    name: str,
    channels: int,
    options: dict,
    stride_in_1x1: bool,
    stem_padding: str,
    train_bn: bool,
    neck: str,
    roi_size: int,
) -> Backbone:
    if unknown := set(options) - {"width", "groups", "group_width"}:
        raise ValueError(
            f"BACKBONE_OPTIONS: {name} takes ['width', 'groups', 'group_width'], received {sorted(unknown)}"
        )
    norm = keras.layers.BatchNormalization if train_bn else BatchNormalization
    blocks = {"stride_in_1x1": stride_in_1x1, "norm": norm, **options}
    stages = 4 if neck == "c4" else 5
    model = resnet(name, channels=channels, stem_padding=stem_padding, stages=stages, dilated=neck == "dc5", **blocks)
    return Backbone(
        model,
        {layer.name: stage_of(layer.name) for layer in model.layers},
        backbone_scaling(name, channels),
        last_stage=last_stage(name, roi_size, **blocks) if neck == "c4" else None,
    )


def _known_application(name: str) -> Callable[..., keras.Model]:
    function = find_application(name)
    if function is None:
        known = [*application_names(), *sorted(BLOCKS)]
        by_lower = {spelt.lower(): spelt for spelt in known}
        close = [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower, n=3)]
        raise ValueError(
            f"unknown backbone {name!r}; "
            + (f"did you mean {' or '.join(map(repr, close))}? " if close else "")
            + f"It is one of {sorted(BLOCKS)}, the name of a keras.applications model, or a function."
        )
    return function


def _application(name: str, channels: int, options: dict, train_bn: bool, neck: str, roi_size: int) -> Backbone:
    source = build_application(_known_application(name), channels, options)
    _name_by_position(source)
    source = source if train_bn else freeze_batch_norm(source)
    stages = strides.stages(source)
    source = strides.dilate_last_stage(source) if neck == "dc5" else source
    model, stage = _split(source, strides.taps(source, TAPS[neck]), neck, roi_size)
    return Backbone(model, stages, backbone_scaling(name, channels), source, stage)


def _split(model: keras.Model, taps: list, neck: str, roi_size: int) -> tuple[keras.Model, keras.Model | None]:
    """A model up to its taps; for the "c4" neck, up to C4, and the remaining layers for RoI features."""
    stage = None
    if neck == "c4":
        *taps, c5 = taps
        stage = strides.last_stage(model, taps[-1], c5, roi_size)
    return keras.Model(model.inputs[0], taps, name=model.name), stage


def _from_function(
    function: Callable, channels: int, options: dict, train_bn: bool, neck: str, roi_size: int
) -> Backbone:
    label = getattr(function, "__name__", repr(function))
    image = keras.Input((None, None, channels), name="image")
    outputs = function(image, **options)
    model = outputs
    if isinstance(outputs, (list, tuple)) and all(isinstance(x, keras.KerasTensor) for x in outputs):
        model = keras.Model(image, list(outputs), name="backbone")
    if not isinstance(model, keras.Model):
        raise TypeError(f"backbone {label} must return [C2, C3, C4, C5] or a keras.Model, but it returned {outputs!r}")
    if len(model.outputs) != 4:
        raise ValueError(
            f"backbone {label} must return four feature maps [C2, C3, C4, C5], but it returns {len(model.outputs)}"
        )
    if tuple(model.inputs[0].shape) != (None, None, None, channels):
        raise ValueError(
            f"backbone {label} must take images of any size, (None, None, None, {channels}); "
            f"its input is {tuple(model.inputs[0].shape)}"
        )
    strides.check_strides(model, label)
    _name_by_position(model)
    model = model if train_bn else freeze_batch_norm(model)
    stages, scaling = strides.stages(model), backbone_scaling(function, channels)
    model = strides.dilate_last_stage(model) if neck == "dc5" else model
    model, stage = _split(model, list(model.outputs), neck, roi_size)
    return Backbone(model, stages, scaling, last_stage=stage)


def _name_by_position(model: keras.Model) -> None:
    """Renames layers without a name of their own, as Keras numbers them per session: a second model gets other names.

    Checkpoints use layer names. Numbers within the model do not depend on when it is built.
    """
    numbers: Counter[str] = Counter()
    for layer in all_layers(model, include_self=False):
        stem = re.sub(r"_\d+$", "", layer.name)
        if stem.replace("_", "") == type(layer).__name__.lower():
            layer.name = f"{stem}_{numbers[stem]}" if numbers[stem] else stem
            numbers[stem] += 1

"""Valid values of settings: each one alone, and in combination."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mrcnn.config import Config

COUNTS = (
    "NUM_CLASSES",
    "IMAGES_PER_GPU",
    "GPU_COUNT",
    "LOADER_WORKERS",
    "IMAGE_CHANNEL_COUNT",
    "IMAGE_MAX_PIXELS",
    "SIZE_DIVISOR",
    "TOP_DOWN_PYRAMID_SIZE",
    "FPN_CLASSIF_FC_LAYERS_SIZE",
    "RPN_CHANNELS",
    "RPN_ANCHOR_STRIDE",
    "RPN_TRAIN_ANCHORS_PER_IMAGE",
    "PRE_NMS_LIMIT_TRAINING",
    "PRE_NMS_LIMIT",
    "POST_NMS_ROIS_TRAINING",
    "POST_NMS_ROIS_INFERENCE",
    "TRAIN_ROIS_PER_IMAGE",
    "MAX_GT_INSTANCES",
    "POOL_SIZE",
    "MASK_POOL_SIZE",
    "KEYPOINT_POOL_SIZE",
    "NUM_KEYPOINTS",
    "DETECTION_MAX_INSTANCES",
    "DETECTION_BATCH_SIZE",
    "RPN_CONVOLUTIONS",
)
COUNTS_OR_ZERO = ("ROI_SAMPLING_RATIO", "BOX_HEAD_CONVOLUTIONS")
COUNTS_OR_NONE = (
    "STEPS_PER_EPOCH",
    "VALIDATION_STEPS",
    "IMAGE_MIN_DIM",
    "IMAGE_MAX_DIM",
    "KEEP_CHECKPOINTS",
    "CHECKPOINT_STEPS",
)
SHARES = (
    "RPN_POSITIVE_RATIO",
    "RPN_POSITIVE_OVERLAP",
    "RPN_NEGATIVE_OVERLAP",
    "RPN_NMS_THRESHOLD",
    "ROI_POSITIVE_RATIO",
    "ROI_POSITIVE_OVERLAP",
    "DETECTION_MIN_CONFIDENCE",
    "DETECTION_NMS_THRESHOLD",
    "WARMUP_FACTOR",
    "HORIZONTAL_FLIP",
)
NOT_NEGATIVE = (
    "LEARNING_RATE",
    "LEARNING_MOMENTUM",
    "WEIGHT_DECAY",
    "WARMUP_STEPS",
    "RPN_BBOX_LOSS_BETA",
    "BBOX_LOSS_BETA",
    "IMAGE_MIN_SCALE",
    "RPN_MIN_SIZE",
    "DETECTION_MIN_SIZE",
)
# Strides of the feature maps of each neck.
STRIDES = {"fpn": [4, 8, 16, 32, 64], "c4": [16], "c5": [32], "dc5": [16]}
CHOICES = {
    "NECK": tuple(STRIDES),
    "PRECISION": ("float32", "bfloat16", "auto"),
    "LR_SCHEDULE": ("step", "cosine", "constant"),
    "IMAGE_RESIZE_MODE": ("fit", "square", "pad64", "crop", "none"),
    "BBOX_LOSS_AVERAGE": ("sampled", "positives"),
    "ROI_POOLING": ("align", "warp", "pool"),
    "ROI_REDUCTION": ("average", "max"),
    "ROI_GEOMETRY": ("aligned", "crop"),
    "ROI_LEVEL_ROUNDING": ("floor", "round"),
    "RPN_ANCHOR_RATIO_MEANING": ("height/width", "width/height"),
    "CHANNEL_ORDER": (None, "rgb", "bgr"),
    "BACKBONE_STEM_PADDING": ("torch", "same"),
    "IMAGE_RESIZER": ("opencv", "skimage", "pillow"),
    "DISTRIBUTION": (None, "mirrored", "multi_worker"),
}


def _require(condition: bool, config: "Config", name: str, wanted: str) -> None:
    if not condition:
        raise ValueError(f"{name} must be {wanted}, got {getattr(config, name)!r}.")


def _is_count(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and int(value) >= 1


def _is_number(value: Any, low: float, high: float = math.inf) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and bool(low <= value <= high)


def _are_numbers(values: Any, count: int | None, low: float, high: float = math.inf) -> bool:
    return (
        hasattr(values, "__len__")
        and not isinstance(values, (str, dict))
        and count in (None, len(values))
        and all(_is_number(value, low, high) for value in values)
    )


def round_sizes(config: "Config") -> dict[str, int]:
    """Setting name -> its size rounded up to a multiple of 32, for sides of "square" and "crop" network inputs."""
    mode = config.IMAGE_RESIZE_MODE  # of any type: not checked yet
    name = {"square": "IMAGE_MAX_DIM", "crop": "IMAGE_MIN_DIM"}.get(mode) if isinstance(mode, str) else None
    size: Any = getattr(config, name) if name else None
    return {name: math.ceil(size / 32) * 32} if name and _is_count(size) and size % 32 else {}


def validate(config: "Config", defaults: Mapping[str, Any], loss_names: Sequence[str], keypoint_loss: str) -> None:
    """Raises ValueError with the setting, its value and what it must be.

    Args:
        config: an instance of `mrcnn.config.Config`.
        defaults: default of every setting; where it is True or False, the setting must be a bool.
        loss_names: the keys of LOSS_WEIGHTS.
        keypoint_loss: one that it may have besides.
    """
    _validate_numbers(config)
    for name, default in defaults.items():
        if isinstance(default, bool):
            _require(isinstance(getattr(config, name), (bool, np.bool_)), config, name, "True or False")
    for name, allowed in CHOICES.items():
        _require(getattr(config, name) in allowed, config, name, f"one of {allowed}")
    _validate_training(config, loss_names, keypoint_loss)
    _validate_parts(config)
    _validate_shapes(config)
    _validate_together(config)


def _validate_numbers(config: "Config") -> None:
    for name in COUNTS:
        _require(_is_count(getattr(config, name)), config, name, "an integer of 1 or more")
    for name in COUNTS_OR_NONE:
        value = getattr(config, name)
        none = value is None or (value == 0 and name == "IMAGE_MIN_DIM")  # 0 is the old package's None
        _require(none or _is_count(value), config, name, "an integer of 1 or more, or None")
    for name in COUNTS_OR_ZERO:
        value = getattr(config, name)
        _require(_is_count(value) or (value == 0 and value is not False), config, name, "an integer of 0 or more")
    for name in SHARES:
        _require(_is_number(getattr(config, name), 0, 1), config, name, "between 0 and 1")
    for name in NOT_NEGATIVE:
        _require(_is_number(getattr(config, name), 0), config, name, "a number of 0 or more")


def _validate_training(config: "Config", loss_names: Sequence[str], keypoint_loss: str) -> None:
    clip = config.GRADIENT_CLIP_NORM
    _require(
        clip is None or (_is_number(clip, 0) and clip > 0),
        config,
        "GRADIENT_CLIP_NORM",
        "a number above 0, or None for no clipping",
    )
    _require(
        _are_numbers(config.LR_STEPS, None, 0, 1),
        config,
        "LR_STEPS",
        "fractions of training between 0 and 1 (0.67: after two thirds of the steps)",
    )
    weights: Any = config.LOSS_WEIGHTS
    right = isinstance(weights, dict) and set(weights) - {keypoint_loss} == set(loss_names)
    _require(
        right and all(_is_number(value, 0) for value in weights.values()),
        config,
        "LOSS_WEIGHTS",
        f"a dict with keys {tuple(loss_names)} and numbers of 0 or more",
    )
    _require(
        _is_number(config.SEED, 0, 2**31 - 1) and isinstance(config.SEED, (int, np.integer)),
        config,
        "SEED",
        "an integer of 0 or more",
    )


def _validate_parts(config: "Config") -> None:
    """The backbone's options, and the heads."""
    _require(isinstance(config.BACKBONE_OPTIONS, dict), config, "BACKBONE_OPTIONS", 'a dict such as {"alpha": 0.75}')
    for name, example, none in (("MASK_HEAD", "fcn", "masks"), ("KEYPOINT_HEAD", "keypoints", "keypoints")):
        head: Any = getattr(config, name)
        named = head.get("name") if isinstance(head, dict) else head
        wanted = f'a name such as "{example}", a dict of "name" and options, or None for no {none}'
        _require(head is None or (isinstance(named, str) and named not in ("", "None")), config, name, wanted)


def _validate_shapes(config: "Config") -> None:
    pyramid = config.NECK == "fpn"
    _require(
        _are_numbers(config.RPN_ANCHOR_SCALES, 5 if pyramid else None, 1e-6) and len(config.RPN_ANCHOR_SCALES) > 0,
        config,
        "RPN_ANCHOR_SCALES",
        "5 sizes, one for each of P2..P6" if pyramid else f"one or more sizes of NECK = {config.NECK!r}'s single level",
    )
    _require(
        _are_numbers(config.RPN_ANCHOR_RATIOS, None, 1e-6) and len(config.RPN_ANCHOR_RATIOS) > 0,
        config,
        "RPN_ANCHOR_RATIOS",
        "one or more positive numbers, height / width",
    )
    strides, given = STRIDES[config.NECK], config.BACKBONE_STRIDES
    given = list(given) if isinstance(given, (list, tuple, np.ndarray)) else given
    others = " or ".join(f'"{neck}"' for neck, own in STRIDES.items() if own == given)
    fixed = f"{strides}, which NECK = {config.NECK!r} fixes" + (f" (NECK = {others} has those given)" if others else "")
    _require(given == strides, config, "BACKBONE_STRIDES", fixed)
    for name in ("RPN_BBOX_STD_DEV", "BBOX_STD_DEV"):
        _require(_are_numbers(getattr(config, name), 4, 1e-6), config, name, "4 positive numbers")
    mini = config.MINI_MASK_SHAPE
    _require(
        _are_numbers(mini, 2, 1) and all(map(_is_count, mini)),
        config,
        "MINI_MASK_SHAPE",
        "(height, width), two integers of 1 or more",
    )
    jitter = config.SCALE_JITTER
    _require(
        jitter is None or (_are_numbers(jitter, 2, 1e-6) and jitter[0] <= jitter[1]),
        config,
        "SCALE_JITTER",
        "None, or the smallest and the largest factor, such as (0.1, 2.0)",
    )
    for name in ("MEAN_PIXEL", "PIXEL_STD", "IMAGE_PAD_PIXEL"):
        value, low = getattr(config, name), 1e-6 if name == "PIXEL_STD" else -math.inf
        _require(
            value is None or _are_numbers(value, config.IMAGE_CHANNEL_COUNT, low),
            config,
            name,
            f"None, or a number for each of the IMAGE_CHANNEL_COUNT = {config.IMAGE_CHANNEL_COUNT} channels",
        )


def _validate_together(config: "Config") -> None:
    """Settings that are valid alone but contradict each other."""
    if config.NECK == "c4":
        _require(config.POOL_SIZE % 2 == 0, config, "POOL_SIZE", 'even for NECK = "c4", whose stage 5 halves it')
        _require(config.BOX_HEAD_FC_LAYERS == 0, config, "BOX_HEAD_FC_LAYERS", '0 for NECK = "c4": stage 5 is its head')
    else:
        wanted = f"an integer of 1 or more for NECK = {config.NECK!r}"
        _require(_is_count(config.BOX_HEAD_FC_LAYERS), config, "BOX_HEAD_FC_LAYERS", wanted)
    if config.ROI_GEOMETRY == "crop":
        wanted = '"align" or "pool" with ROI_GEOMETRY = "crop", which does not round boxes; "warp" needs "aligned"'
        _require(config.ROI_POOLING != "warp", config, "ROI_POOLING", wanted)
    _require(
        config.KEYPOINT_HEAD is None or config.NECK != "c4",
        config,
        "KEYPOINT_HEAD",
        'None for NECK = "c4", whose heads share stage 5; with keypoints set NECK = "fpn"',
    )
    _require(
        config.KEYPOINT_HEAD is None or config.NUM_CLASSES != 1,
        config,
        "NUM_CLASSES",
        "1 + the classes whose instances have keypoints, as KEYPOINT_HEAD is set; for people alone 2",
    )
    _require(config.SIZE_DIVISOR % 32 == 0, config, "SIZE_DIVISOR", "a multiple of 32, the stride of C5")
    _require(
        config.RPN_NEGATIVE_OVERLAP <= config.RPN_POSITIVE_OVERLAP,
        config,
        "RPN_NEGATIVE_OVERLAP",
        f"at most RPN_POSITIVE_OVERLAP ({config.RPN_POSITIVE_OVERLAP})",
    )
    mode = config.IMAGE_RESIZE_MODE
    needed = {"fit": ("IMAGE_MIN_DIM", "IMAGE_MAX_DIM"), "square": ("IMAGE_MAX_DIM",), "crop": ("IMAGE_MIN_DIM",)}
    for name in needed.get(mode, ()):
        _require(bool(getattr(config, name)), config, name, f'a number when IMAGE_RESIZE_MODE is "{mode}"')
    if config.IMAGE_MAX_DIM and config.IMAGE_MIN_DIM and mode != "crop":
        _require(
            config.IMAGE_MIN_DIM <= config.IMAGE_MAX_DIM,
            config,
            "IMAGE_MIN_DIM",
            f"at most IMAGE_MAX_DIM ({config.IMAGE_MAX_DIM})",
        )
    _require(
        not config.PHOTOMETRIC_DISTORTION or config.IMAGE_CHANNEL_COUNT == 3,
        config,
        "PHOTOMETRIC_DISTORTION",
        f"False with IMAGE_CHANNEL_COUNT = {config.IMAGE_CHANNEL_COUNT}: it supports RGB only",
    )

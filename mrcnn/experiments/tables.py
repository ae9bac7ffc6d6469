"""The rows of the paper's ablations, as settings, with the paper's figures (He et al. 2017, arXiv 1703.06870v3).

The table "matterport" has no figures in the paper: each of its rows changes one of the things in which the old package
differs from the reference, as far as a setting can.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mrcnn.config import Config, setting_names
from mrcnn.network.backbone import backbone_scaling
from mrcnn.network.graph import registered_heads
from mrcnn.presets import Matterport, settings_of

# What the ResNet-C4 and C5 of the paper are, and their head.
BARE_FCN: dict[str, Any] = {"name": "fcn", "convolutions": 0}
C4: dict[str, Any] = {"NECK": "c4", "BACKBONE_STRIDES": [16], "POOL_SIZE": 14, "BOX_HEAD_FC_LAYERS": 0}
C4_MASKS = {**C4, "MASK_HEAD": BARE_FCN}
C5: dict[str, Any] = {"NECK": "c5", "BACKBONE_STRIDES": [32]}
# Settings of one feature map that a user may set otherwise: 64 RoIs in training, 300 proposals in detection.
SINGLE_MAP = {
    "TRAIN_ROIS_PER_IMAGE": 64,
    "POST_NMS_ROIS_INFERENCE": 300,
    "PRE_NMS_LIMIT_TRAINING": 12000,
    "PRE_NMS_LIMIT": 6000,
}
MASK = ("mask_ap", "mask_ap50", "mask_ap75")
ALL_CAUSES = "all of the above, and the rest of presets.Matterport"
# Settings of `Matterport` that weights or images decide, not the training.
STRUCTURE = (
    "BACKBONE_STRIDE_IN_1X1",
    "BACKBONE_STEM_PADDING",
    "MEAN_PIXEL",
    "PIXEL_STD",
    "CHANNEL_ORDER",
    "SIZE_DIVISOR",
)


@dataclass(frozen=True)
class Row:
    """One row of a table.

    label: its name. settings: what makes it this row; they go before the user's. recipe: settings that the user's go
    before. paper: the paper's figures in percent, by the names of `mrcnn.experiments.report`. stages: "matterport" for
    the old package's schedule.
    """

    label: str
    settings: Mapping[str, Any]
    paper: Mapping[str, float] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    stages: str = "reference"


def _figures(names: Sequence[str], *values: float) -> dict[str, float]:
    return dict(zip(names, values, strict=True))


def _backbones() -> list[Row]:
    c4: tuple[dict[str, Any], dict[str, Any]] = (C4_MASKS, SINGLE_MAP)
    fpn: tuple[dict[str, Any], dict[str, Any]] = ({"NECK": "fpn"}, {})
    return [
        Row(f"{name}, {neck}", {"BACKBONE": backbone, **settings}, _figures(MASK, *figures), recipe)
        for name, backbone, neck, (settings, recipe), figures in (
            ("ResNet-50", "resnet50", "C4", c4, (30.3, 51.2, 31.5)),
            ("ResNet-101", "resnet101", "C4", c4, (32.7, 54.2, 34.3)),
            ("ResNet-50", "resnet50", "FPN", fpn, (33.6, 55.2, 35.3)),
            ("ResNet-101", "resnet101", "FPN", fpn, (35.4, 57.3, 37.5)),
            ("ResNeXt-101", "resnext101_64x4d", "FPN", fpn, (36.7, 59.5, 38.9)),
        )
    ]


def _losses() -> list[Row]:
    softmax = {**C4, "MASK_HEAD": {**BARE_FCN, "activation": "softmax"}}
    agnostic = {**C4, "MASK_HEAD": {**BARE_FCN, "class_agnostic": True}}
    return [
        Row("softmax", softmax, _figures(MASK, 24.8, 44.1, 25.1), SINGLE_MAP),
        Row("sigmoid", C4_MASKS, _figures(MASK, 30.3, 51.2, 31.5), SINGLE_MAP),
        Row("sigmoid, class-agnostic", agnostic, _figures(MASK[:1], 29.7), SINGLE_MAP),
    ]


def _poolings() -> list[Row]:
    return [
        Row(
            label,
            {**C4_MASKS, "ROI_POOLING": pooling, "ROI_REDUCTION": reduction},
            _figures(MASK, *figures),
            SINGLE_MAP,
        )
        for label, pooling, reduction, figures in (
            ("RoIPool, max", "pool", "max", (26.9, 48.8, 26.4)),
            ("RoIWarp, max", "warp", "max", (27.2, 49.2, 27.1)),
            ("RoIWarp, average", "warp", "average", (27.1, 48.9, 27.1)),
            ("RoIAlign, max", "align", "max", (30.2, 51.0, 31.8)),
            ("RoIAlign, average", "align", "average", (30.3, 51.2, 31.5)),
        )
    ]


def _poolings_at_stride_32() -> list[Row]:
    names = (*MASK, "box_ap")
    return [
        Row("RoIPool", {**C5, "ROI_POOLING": "pool"}, _figures(names, 23.6, 46.5, 21.6, 28.2), SINGLE_MAP),
        Row("RoIAlign", {**C5, "ROI_POOLING": "align"}, _figures(names, 30.9, 51.8, 32.1, 34.0), SINGLE_MAP),
    ]


def _mask_branches() -> list[Row]:
    return [
        Row(label, {"MASK_HEAD": head}, _figures(MASK, *figures))
        for label, head, figures in (
            ("MLP, 2 hidden layers", {"name": "mlp", "hidden_layers": 2}, (31.5, 53.7, 32.8)),
            ("MLP, 3 hidden layers", {"name": "mlp", "hidden_layers": 3}, (31.5, 54.0, 32.6)),
            ("FCN", {"name": "fcn"}, (33.6, 55.2, 35.3)),
        )
    ]


def _detection() -> list[Row]:
    plain, deep = {"BACKBONE": "resnet101"}, {"BACKBONE": "resnext101_64x4d"}
    return [
        Row("Faster R-CNN, RoIAlign", {**plain, "MASK_HEAD": None}, {"box_ap": 37.3}),
        Row("Mask R-CNN", plain, {"box_ap": 38.2}),
        Row("Mask R-CNN, ResNeXt-101", deep, {"box_ap": 39.8}),
    ]


def _keypoints() -> list[Row]:
    settings = {"MASK_HEAD": None, "KEYPOINT_HEAD": "keypoints"}
    return [
        Row("RoIPool", {**settings, "ROI_POOLING": "pool"}, {"keypoint_ap": 59.8}),
        Row("RoIAlign", {**settings, "ROI_POOLING": "align"}, {"keypoint_ap": 64.2}),
    ]


def _causes(base: Config) -> list[Row]:
    wrong = "rgb" if backbone_scaling(base.BACKBONE, base.IMAGE_CHANNEL_COUNT).bgr else "bgr"
    side = base.IMAGE_MAX_DIM or 1024
    causes: dict[str, dict[str, Any]] = {
        "weight decay divided by each tensor's size: in effect none": {"WEIGHT_DECAY": 0.0},
        "red and blue exchanged": {"CHANNEL_ORDER": wrong},
        "RoIAlign from corner to corner": {"ROI_GEOMETRY": "crop"},
        "FPN level by round": {"ROI_LEVEL_ROUNDING": "round"},
        "ground truth not among the proposals": {"ROI_ADD_GROUND_TRUTH": False},
        "200 RoIs, a third positive": {"TRAIN_ROIS_PER_IMAGE": 200, "ROI_POSITIVE_RATIO": 0.33},
        "one NMS over all levels": {"RPN_PER_LEVEL": False, "PRE_NMS_LIMIT_TRAINING": 6000, "PRE_NMS_LIMIT": 6000},
        "proposals clipped to the padded input": {"RPN_CLIP_TO_PHOTOGRAPH": False},
        "one label a RoI": {"DETECTION_BEST_CLASS_ONLY": True},
        "NMS at 0.3, scores from 0.7 on": {"DETECTION_NMS_THRESHOLD": 0.3, "DETECTION_MIN_CONFIDENCE": 0.7},
        "boxes rounded before masks are pasted": {"DETECTION_ROUND_BOXES": True},
        "corners that name the last pixel": {"BOXES_INCLUSIVE": True},
        "squares, padded before the mean": {
            "IMAGE_RESIZE_MODE": "square",
            "IMAGE_MAX_DIM": -(-side // 64) * 64,
            "IMAGE_PAD_PIXEL": (0,) * base.IMAGE_CHANNEL_COUNT,
        },
        "masks of 56x56": {"MINI_MASK_SHAPE": (56, 56)},
        "RPN of 512 channels, deltas over deviations": {"RPN_CHANNELS": 512, "RPN_BBOX_STD_DEV": [0.1, 0.1, 0.2, 0.2]},
        "box losses over positives, smooth to 1": {
            "BBOX_LOSS_AVERAGE": "positives",
            "BBOX_LOSS_BETA": 1.0,
            "RPN_BBOX_LOSS_BETA": 1.0,
        },
    }
    schedule = {"WARMUP_STEPS": 0, "LR_SCHEDULE": "constant"}
    every = {name: value for name, value in settings_of(Matterport).items() if name not in STRUCTURE}
    for settings in (*causes.values(), schedule):
        every |= settings
    every["LEARNING_RATE"] = base.LEARNING_RATE
    return [
        Row("reference", {}),
        *(Row(label, settings) for label, settings in causes.items()),
        Row("heads first, then 4+, then all; no warm-up", schedule, stages="matterport"),
        Row(ALL_CAUSES, every, stages="matterport"),
    ]


# Rows of each table, and the backbone of those that name none.
TABLES: dict[str, tuple[Any, str | None]] = {
    "2a": (_backbones, None),
    "2b": (_losses, "resnet50"),
    "2c": (_poolings, "resnet50"),
    "2d": (_poolings_at_stride_32, "resnet50"),
    "2e": (_mask_branches, "resnet50"),
    "3": (_detection, None),
    "6": (_keypoints, "resnet50"),
    "matterport": (_causes, None),
}


def rows_of(table: str, base: Config, backbone: Any = None) -> list[Row]:
    """The rows of a table.

    Args:
        table: a key of `TABLES`.
        base: the user's settings.
        backbone: BACKBONE in place of the paper's. Of rows that differ in nothing else, the first is left.

    Raises ValueError for an unknown table, and for rows whose head is not registered.
    """
    if table not in TABLES:
        raise ValueError(f"there is no table {table!r}; choose one of {', '.join(TABLES)}")
    make, usual = TABLES[table]
    rows = make(base) if table == "matterport" else make()
    chosen: list[Row] = []
    for row in rows:
        _require_head(table, row)
        settings = dict(row.settings)
        if backbone is not None:
            named = settings.pop("BACKBONE", None)
            settings["BACKBONE"] = backbone
            if any(settings == other.settings for other in chosen):
                continue
            label = row.label if named is None else _with_backbone(row.label, backbone)
            row = Row(label, settings, row.paper, row.recipe, row.stages)
        elif usual is not None and "BACKBONE" not in base.explicit():
            row = Row(row.label, {"BACKBONE": usual, **settings}, row.paper, row.recipe, row.stages)
        chosen.append(row)
    return chosen


def _with_backbone(label: str, backbone: Any) -> str:
    """ "ResNet-50, C4" -> "mobilenet, C4"; other labels stay."""
    first, comma, rest = label.partition(", ")
    return f"{getattr(backbone, '__name__', backbone)}{comma}{rest}" if first.startswith("ResNe") else label


def _require_head(table: str, row: Row) -> None:
    for name, kind in (("MASK_HEAD", "mask"), ("KEYPOINT_HEAD", "keypoints")):
        head = row.settings.get(name)
        wanted = head["name"] if isinstance(head, dict) else head
        known = registered_heads(kind) if name in setting_names() else []
        if wanted is not None and wanted not in known:
            raise ValueError(
                f"table {table}, row {row.label!r} needs the {kind} head {wanted!r} ({name}), which is not registered "
                f"here: {', '.join(known) or 'there is none of this kind'}"
            )

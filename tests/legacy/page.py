"""The tables of docs/coming_from_matterport.md, generated from the settings and from `mrcnn.legacy.names`.

python -m tests.legacy.page    # writes them into the page
"""

import re
from pathlib import Path

from mrcnn import presets
from mrcnn.config import REMOVED, Config, setting_names
from mrcnn.legacy import names
from mrcnn.legacy.names import Gone, Kept

PAGE = Path(__file__).resolve().parents[2] / "docs" / "coming_from_matterport.md"

# The meaning of each setting whose default differs from the old package's.
MEANING = {
    "BACKBONE_STRIDE_IN_1X1": "stride in the first 1x1 convolution of a bottleneck",
    "BACKBONE_STEM_PADDING": "padding of the first pooling layer",
    "IMAGE_RESIZE_MODE": "how images are resized",
    "IMAGE_MAX_DIM": "longest side in pixels",
    "IMAGE_ANTIALIAS": "averaging when an image shrinks",
    "IMAGE_RESIZER": "library that resizes images",
    "IMAGE_PAD_PIXEL": "RGB of the padding; None is the mean",
    "SIZE_DIVISOR": "sides are padded to a multiple of it",
    "MEAN_PIXEL": "subtracted from pixels; None is what the backbone expects",
    "PIXEL_STD": "pixels are divided by it; None is what the backbone expects",
    "CHANNEL_ORDER": "of the network input; None is what the backbone expects",
    "RPN_ANCHOR_RATIO_MEANING": "meaning of RPN_ANCHOR_RATIOS",
    "RPN_CHANNELS": "channels of the RPN's convolution",
    "RPN_BBOX_STD_DEV": "scale of the RPN's box deltas",
    "BOXES_INCLUSIVE": "boxes end with their last pixel",
    "RPN_PER_LEVEL": "best anchors and NMS per pyramid level",
    "PRE_NMS_LIMIT_TRAINING": "anchors kept before NMS in training",
    "PRE_NMS_LIMIT": "anchors kept before NMS in detection",
    "RPN_CLIP_TO_PHOTOGRAPH": "proposals end at the image, not at the padding",
    "RPN_CLIP_TO_IMAGE": "proposals end at the image, not at the padding",
    "RPN_MIN_SIZE": "shortest side of a proposal in pixels",
    "TRAIN_ROIS_PER_IMAGE": "RoIs per image that the heads learn from",
    "ROI_POSITIVE_RATIO": "maximum fraction of positives among them",
    "ROI_ADD_GROUND_TRUTH": "ground-truth boxes join the proposals",
    "MINI_MASK_SHAPE": "resolution of ground-truth masks in their boxes",
    "ROI_GEOMETRY": "sampling of RoIAlign",
    "ROI_LEVEL_ROUNDING": "choice of the pyramid level of a RoI",
    "DETECTION_MIN_CONFIDENCE": "lowest score of a detection",
    "DETECTION_NMS_THRESHOLD": "IoU above which the weaker of two detections is dropped",
    "DETECTION_MIN_SIZE": "shortest side of a detection in pixels",
    "DETECTION_ROUND_BOXES": "boxes in whole pixels (int32)",
    "DETECTION_BEST_CLASS_ONLY": "one class per RoI",
    "RPN_BBOX_LOSS_BETA": "where smooth L1 becomes linear, in the RPN",
    "BBOX_LOSS_BETA": "where smooth L1 becomes linear, in the box head",
    "BBOX_LOSS_AVERAGE": "what box losses are averaged over",
    "LEARNING_RATE": "for `train` without `learning_rate`",
    "WARMUP_STEPS": "steps in which the learning rate rises",
    "LR_SCHEDULE": "learning rate over the training",
    "HORIZONTAL_FLIP": "probability that a training image is mirrored",
}


def changed_settings() -> dict[str, tuple[object, object]]:
    """Old and new defaults of every setting whose default changed."""
    old = presets.settings_of(presets.Matterport)
    return {
        name: (old[name], getattr(Config, name))
        for name in setting_names()
        if name in old and shown(old[name]) != shown(getattr(Config, name))
    }


def shown(value: object) -> str:
    """A value as code; numbers with many digits are shortened."""
    return f"{value:.4g}" if isinstance(value, float) else repr(value)


def settings_table() -> str:
    rows = [
        f"| `{name}` | {MEANING[name]} | `{shown(old)}` | `{shown(new)}` | `{name} = {old!r}` |"
        for name, (old, new) in changed_settings().items()
    ]
    return "\n".join(["| setting | what it is | old package | here | old behavior |", "|---|---|---|---|---|", *rows])


def removed_table() -> str:
    rows = [f"| `{name}` | {text[:1].upper()}{text[1:]}. |" for name, text in REMOVED.items()]
    return "\n".join(["| setting | what to do |", "|---|---|", *rows])


def names_table(module: str) -> str:
    rows = []
    for name, entry in sorted(names.TABLE[module].items(), key=lambda item: item[0].lower()):
        if isinstance(entry, Gone):
            rows.append(f"| `{name}` | gone: {entry.instead} | |")
        elif isinstance(entry, Kept):
            restore = f"`{entry.restore}`" if entry.restore else ""
            rows.append(f"| `{name}` | {entry.differs or 'the same'} | {restore} |")
    return "\n".join(["| name | here | old behavior |", "|---|---|---|", *rows])


def tables() -> dict[str, str]:
    """Every table by the name of its marker in the page."""
    return {"settings": settings_table(), "removed settings": removed_table()} | {
        module: names_table(module) for module in names.TABLE
    }


def filled(page: str) -> str:
    """The page with up-to-date tables. Raises ValueError if a table has no marker in it."""
    for name, table in tables().items():
        marker = re.compile(rf"(<!-- table: {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
        page, count = marker.subn(lambda found, table=table: f"{found[1]}\n{table}\n\n{found[2]}", page)
        if count != 1:
            raise ValueError(f"{PAGE.name} has {count} places for the table {name!r}; it needs one.")
    return page


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))

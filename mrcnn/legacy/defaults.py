"""A one-line notice for programs that rely on the old package's defaults."""

from __future__ import annotations

from functools import cache

from mrcnn.config import Config

# The settings whose new defaults affect such a program most.
CHANGED = {
    "DETECTION_MIN_CONFIDENCE",
    "DETECTION_NMS_THRESHOLD",
    "LEARNING_RATE",
    "IMAGE_RESIZE_MODE",
    "IMAGE_MIN_DIM",
    "IMAGE_MAX_DIM",
    "TRAIN_ROIS_PER_IMAGE",
}


def mention_defaults(config: Config) -> None:
    """Says once per process where the old defaults are, if a program's own Config class sets none of those changed."""
    if type(config) is not Config and not CHANGED & config.explicit():
        _say_once()


@cache
def _say_once() -> None:
    print(
        "The defaults differ from matterport/Mask_RCNN (image size, learning rate, RoIs, NMS, confidence). To "
        "keep the old ones, derive your Config from mrcnn.presets.Matterport; docs/coming_from_matterport.md lists all."
    )

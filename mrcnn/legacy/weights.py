"""The COCO weights of the old package's release 2.0."""

from __future__ import annotations

from pathlib import Path

from mrcnn.weights import published

COCO_MODEL_URL = published.find("matterport/coco").url


def download_trained_weights(coco_model_path: str | Path, verbose: int = 1) -> None:
    """Downloads the COCO weights to a path, with a progress bar; a complete file that is there is kept.

    Raises:
        ValueError: another file of this name is there, such as that of release 1.0.
        mrcnn.weights.download.DownloadError: they cannot be fetched; the message says which file to put where.
    """
    published.download_trained_weights(coco_model_path, verbose)

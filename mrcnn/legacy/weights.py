"""The COCO weights of the old package's release 2.0."""

from __future__ import annotations

from pathlib import Path

from mrcnn.weights import published

COCO_MODEL_URL = published.find("matterport/coco").url


def download_trained_weights(coco_model_path: str | Path, verbose: int = 1) -> None:
    """Downloads the COCO weights to a path, with a progress bar; an existing complete file is kept.

    Raises:
        ValueError: a different file of this name exists, such as that of release 1.0.
        mrcnn.weights.download.DownloadError: the download failed; the message says which file to put where.
    """
    published.download_trained_weights(coco_model_path, verbose)

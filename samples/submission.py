"""Kaggle submissions: a CSV file with one RLE mask per row, in which no pixel may be in two masks."""

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.data.images import read_image
from mrcnn.data.rle import encode, rle_to_pairs
from mrcnn.files import atomic_path

Row = Sequence[Any]


def separated(masks: np.ndarray, order: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Indices and masks [H, W] bool, each without the pixels of earlier ones; masks left empty are skipped.

    Args:
        masks: [H, W, N] bool; not changed.
        order: the indices, most important first.
    """
    taken = np.zeros(masks.shape[:2], bool)
    for i in order:
        mask = masks[:, :, i] & ~taken
        if mask.any():
            taken |= mask
            yield i, mask


def encoded_pixels(mask: np.ndarray) -> str:
    """The text "start length start length ..." of a mask [H, W], in column-major order, counted from 1."""
    return rle_to_pairs(encode(mask), first=1)


def write_submission(
    path: str | Path,
    columns: Row,
    model: Any,
    images: Sequence[tuple[str, Path]],
    rows: Callable[[str, dict[str, np.ndarray]], Iterable[Row]],
    *,
    min_score: float = 0.5,
) -> None:
    """Detects objects in every image and writes the CSV file, completely or not at all.

    Args:
        columns: the header.
        model: used through `detect`.
        images: ids for the CSV, and files. All are read once before the first detection, so that a damaged file is
            found before the work starts.
        rows: returns the rows of an image, from its id and detections.
        min_score: minimum score of detections. The competitions weight all detections equally, however uncertain.

    Raises FileNotFoundError or ValueError for a missing or damaged image.
    """
    from tqdm import tqdm

    for _, image in tqdm(images, desc="reading", unit="image"):
        read_image(image)
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for image_id, image in tqdm(images, desc="detecting", unit="image"):
            writer.writerows(rows(image_id, confident(model.detect([image])[0], min_score)))


def confident(found: dict[str, np.ndarray], min_score: float) -> dict[str, np.ndarray]:
    """The detections of an image with a score of at least `min_score`."""
    sure = found["scores"] >= min_score
    return {
        "rois": found["rois"][sure],
        "class_ids": found["class_ids"][sure],
        "scores": found["scores"][sure],
        "masks": found["masks"][:, :, sure],
    }

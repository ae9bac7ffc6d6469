"""Submissions to Kaggle: a csv with a row a mask, written as run lengths, where no pixel may lie in two masks."""

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
    """Indices and masks [H, W] bool, each without the pixels of those before it; what is left with none is passed over.

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
    """The text "start length start length ..." of a mask [H, W], counted from 1 down the columns."""
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
    """Detects in every image and writes the csv, whole or not at all.

    Args:
        columns: the header.
        model: its `detect` is used.
        images: ids for the csv, and files. All are read once before the first detection, as one that is damaged would
            otherwise cost the work of all before it.
        rows: rows of an image, from its id and its detections.
        min_score: detections under it are dropped. The competitions count every one alike, however unsure.

    Raises FileNotFoundError or ValueError for an image that is missing or damaged.
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
    """The detections of one image with a score of at least `min_score`."""
    sure = found["scores"] >= min_score
    return {
        "rois": found["rois"][sure],
        "class_ids": found["class_ids"][sure],
        "scores": found["scores"][sure],
        "masks": found["masks"][:, :, sure],
    }

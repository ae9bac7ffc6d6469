"""Pasting masks of probabilities into the image at their boxes, with sub-pixel precision.

The center x + 0.5 of a pixel is at (x + 0.5 - x1) / (x2 - x1) * m - 0.5 in the pixel coordinates of the mask. The m
values are interpolated bilinearly there, with zeros outside (as in Detectron2's `paste_masks_in_image`). In a column of
the image, the value is linear between two mask rows, so it passes the threshold at most once. The rows where it does
(`Turns`) give the pixels of a mask, and its run lengths without the pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mrcnn.data import rle

STRIP = 1 << 16  # pixels


class Turns(NamedTuple):
    """Where each image column of a mask enters or leaves it, between two mask rows that follow one another.

    Zeros surround the m mask rows, so that there are m + 1 intervals between rows.

    top, left: the first pixel that the mask can reach. begin, end: [m + 1] int32, image rows of each interval.
    turn: [m + 1, columns] int32, the image row, `begin` to `end`, at which a column passes the threshold.
    falling: [m + 1, columns] bool, whether the pixels inside are those before `turn`, not those from it on.
    """

    top: int
    left: int
    begin: np.ndarray
    end: np.ndarray
    turn: np.ndarray
    falling: np.ndarray


def paste_masks(probs: np.ndarray, boxes: np.ndarray, height: int, width: int, threshold: float = 0.5) -> np.ndarray:
    """Pastes masks into the image at their boxes.

    Args and errors: see `mask_parts`.

    Returns:
        [height, width, N] bool, contiguous per mask; empty for boxes without area.
    """
    pasted = np.zeros([len(probs), height, width], bool)
    for mask, (part, top, left) in zip(pasted, mask_parts(probs, boxes, height, width, threshold), strict=True):
        mask[top : top + part.shape[0], left : left + part.shape[1]] = part
    return np.moveaxis(pasted, 0, 2)


def mask_parts(
    probs: np.ndarray, boxes: np.ndarray, height: int, width: int, threshold: float = 0.5
) -> Iterator[tuple[np.ndarray, int, int]]:
    """The part of the image that each mask can reach; the mask is empty elsewhere.

    Args:
        probs: [N, m, m] probabilities.
        boxes: [N, (y1, x1, y2, x2)] float, in image pixels; they may extend beyond the image.
        height, width: of the image.
        threshold: minimum probability of pixels inside the mask.

    Yields:
        (part [h, w] bool, top, left) for each mask; a 0 x 0 part for boxes without area.

    Raises:
        ValueError: unexpected shapes.
    """
    turns = _all_turns(probs, boxes, height, width, threshold)
    return ((np.zeros((0, 0), bool), 0, 0) if one is None else (_pixels(one), one.top, one.left) for one in turns)


def mask_rles(probs: np.ndarray, boxes: np.ndarray, height: int, width: int, threshold: float = 0.5) -> list[rle.Rle]:
    """Run lengths of the pasted masks, equal to `mrcnn.data.rle.encode_all(paste_masks(...))`.

    Args and errors: see `mask_parts`.
    """
    turns = _all_turns(probs, boxes, height, width, threshold)
    nothing = np.zeros(0, np.int64)
    return rle.encode_bounds((nothing if one is None else _bounds(one, height) for one in turns), height, width)


def _all_turns(
    probs: np.ndarray, boxes: np.ndarray, height: int, width: int, threshold: float
) -> Iterator[Turns | None]:
    """The turns of each mask; None for a box without area, or with a corner at infinity or not a number."""
    probs, boxes = np.asarray(probs, np.float32), np.asarray(boxes, np.float64)
    if probs.ndim != 3 or boxes.shape != (len(probs), 4):
        raise ValueError(f"expected masks [N, m, m] and boxes [N, 4], got {probs.shape} and {boxes.shape}")
    padded = np.pad(np.nan_to_num(probs, posinf=1, neginf=0), [(0, 0), (1, 1), (1, 1)])
    there = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return (
        _turns(prob, box, height, width, threshold) if inside else None
        for prob, box, inside in zip(padded, boxes.tolist(), there, strict=True)
    )


def _turns(padded: np.ndarray, box: list[float], height: int, width: int, threshold: float) -> Turns:
    y1, x1, y2, x2 = box
    left, columns, fraction = _columns(x1, x2, padded.shape[1] - 2, width)
    before = padded.take(columns, axis=1)
    values = before + (padded.take(columns + 1, axis=1) - before) * fraction
    steps, values = values[1:] - values[:-1], values[:-1]
    scale = (y2 - y1) / (len(padded) - 2)
    # The position in the image, in pixel centers, of the first of the two mask rows of each interval
    starts = y1 - 0.5 + (np.arange(len(steps)) - 0.5) * scale
    top, bottom = _reached(y1, y2, scale, height)
    borders = np.empty(len(starts) + 1)
    borders[:-1], borders[-1] = np.minimum(np.maximum(np.ceil(starts), top), bottom), bottom
    borders[0] = top
    begin, end = borders[:-1], borders[1:]
    turn, falling = _passed(values, steps, threshold, starts, scale)
    np.minimum(np.maximum(turn, begin[:, None], out=turn), end[:, None], out=turn)
    return Turns(top, left, begin.astype(np.int32), end.astype(np.int32), turn.astype(np.int32), falling)


def _passed(
    values: np.ndarray, steps: np.ndarray, threshold: float, starts: np.ndarray, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """The first image row at or after which each column has passed the threshold, [m + 1, columns], and `falling`.

    Without a step, the row is minus or plus infinity: all pixels are inside, or none.
    """
    falling, flat = steps < 0, steps == 0
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        at = np.subtract(threshold, values, dtype=np.float64)
        at /= steps
        at *= scale
        at += starts[:, None]
    turn = np.ceil(at)
    # A pixel exactly at the threshold is inside: the last one where values fall, the first one where they rise
    turn += falling & (turn == at)
    if flat.any():
        turn[flat] = np.where(values[flat] >= threshold, -np.inf, np.inf)
    return turn, falling


def _pixels(turns: Turns) -> np.ndarray:
    """[h, w] bool, from the first pixel that the mask can reach."""
    interval = np.repeat(np.arange(len(turns.begin)), turns.end - turns.begin)
    rows = np.arange(turns.top, turns.top + len(interval), dtype=np.int32)[:, None]
    part = np.empty((len(rows), turns.turn.shape[1]), bool)
    # Strips that fit the cache: several times as fast as whole masks of a large image
    strip = max(1, STRIP // max(1, part.shape[1]))
    for start in range(0, len(rows), strip):
        taken = slice(start, start + strip)
        np.greater_equal(rows[taken], turns.turn[interval[taken]], out=part[taken])
        part[taken] ^= turns.falling[interval[taken]]
    return part


def _bounds(turns: Turns, height: int) -> np.ndarray:
    """Bounds (start, end, start, end ...) of the runs inside, in column-major order; runs may touch."""
    starts = np.where(turns.falling, turns.begin[:, None], turns.turn).T
    ends = np.where(turns.falling, turns.turn, turns.end[:, None]).T
    column = (turns.left + np.arange(len(starts)))[:, None] * height
    filled = ends > starts
    return np.stack([(starts + column)[filled], (ends + column)[filled]], axis=1).ravel()


def _columns(start: float, end: float, count: int, size: int) -> tuple[int, np.ndarray, np.ndarray]:
    """For the image columns that a mask of `count` samples over [start, end) reaches: the first one, and for each the
    index of the preceding sample, with one zero added on either side, and the fraction towards the next."""
    first, last = _reached(start, end, (end - start) / count, size)
    positions = (np.arange(first, last) + 0.5 - start) / (end - start) * count + 0.5
    positions = np.minimum(np.maximum(positions, 0), count + 1)
    before = np.minimum(positions.astype(np.int64), count)
    return first, before, (positions - before).astype(np.float32)


def _reached(start: float, end: float, scale: float, size: int) -> tuple[int, int]:
    """The pixels of an axis that a mask reaches, half a sample beyond its box: the first, and one after the last."""
    first = math.floor(min(max(start - scale / 2, 0), size))
    return first, math.ceil(min(max(end + scale / 2, first), size))

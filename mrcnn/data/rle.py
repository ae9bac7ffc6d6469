"""Masks as RLE in COCO's form: {"size": [height, width], "counts": ...}.

Runs are counted in column-major order, starting with pixels outside. COCO compresses them to text: every count but the
first three is stored as the difference to the one two before, in groups of five bits, lowest first, as characters from
"0"; bit 5 of a character marks that more follow, bit 4 of the last is the sign (as in `maskApi.c` of pycocotools; the
result of `encode` is identical to pycocotools'). Unlike there, invalid RLE raises an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

Rle = dict[str, Any]
FIRST = 48  # the character "0"
MORE, SIGN, BITS = 0x20, 0x10, 5
MOST_GROUPS = 7  # 35 bits
WHOLE = re.compile(r"-?[0-9]{1,12}")
MOST_PIXELS = 2**40  # more than any image; sums of smaller counts cannot overflow


def encode(mask: np.ndarray) -> Rle:
    """RLE of one mask [H, W], nonzero inside; `counts` is a str, ready for JSON."""
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise ValueError(f"expected one mask [H, W], got shape {mask.shape}; encode_all takes [H, W, N]")
    return encode_all(mask[:, :, None])[0]


def encode_all(masks: np.ndarray) -> list[Rle]:
    """RLE of masks [H, W, N], nonzero inside, in any memory order.

    Only the box around each mask is copied. Fastest if each mask is contiguous, like those of `detect`.
    """
    masks = np.asarray(masks)
    if masks.ndim != 3:
        raise ValueError(f"expected masks [H, W, N], got shape {masks.shape}; encode takes one mask [H, W]")
    height, width, _ = masks.shape
    boxes = enumerate(_boxes(masks))
    return encode_parts(((masks[y1:y2, x1:x2, i], y1, x1) for i, (y1, x1, y2, x2) in boxes), height, width)


def decode(rle: Mapping[str, Any]) -> np.ndarray:
    """The mask [H, W] bool, C-contiguous.

    Args:
        rle: `size` (height, width) and `counts`: compressed (str or bytes), or a plain list of counts.

    Raises:
        ValueError: not of this form, or not covering exactly height x width pixels.
    """
    mask = np.zeros(rle_size(rle), bool)
    part, (y1, x1, y2, x2) = decode_box(rle)
    mask[y1:y2, x1:x2] = part
    return mask


def decode_box(rle: Mapping[str, Any]) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """The mask inside its tight box, [y2 - y1, x2 - x1] bool, and the box (y1, x1, y2, x2)."""
    height, _ = rle_size(rle)
    starts, ends = _runs(rle)
    y1, x1, y2, x2 = bounds = _run_box(starts, ends, height)
    turns = np.stack([starts, ends], axis=1).ravel() - x1 * height
    lengths = np.diff(turns, prepend=0, append=(x2 - x1) * height)
    columns = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(x2 - x1, height)
    return columns[:, y1:y2].T, bounds


def encode_box(part: np.ndarray, top: int, left: int, height: int, width: int) -> Rle:
    """RLE of a mask of height x width that contains `part` [h, w] at (top, left) and nothing else."""
    return encode_parts([(part, top, left)], height, width)[0]


def encode_parts(parts: Iterable[tuple[np.ndarray, int, int]], height: int, width: int) -> list[Rle]:
    """RLE of masks of height x width, each given by its nonempty part and position: (part [h, w], top, left).

    Raises:
        ValueError: a part extends beyond the mask.
    """
    counts = []
    for part, top, left in parts:
        h, w = np.shape(part)
        if not (0 <= top <= top + h <= height and 0 <= left <= left + w <= width):
            raise ValueError(f"a {h} x {w} part at {(top, left)} extends beyond the {height} x {width} mask")
        counts.append(_part_counts(np.asarray(part), top, left, height, width))
    return _compressed(counts, height, width)


def encode_bounds(bounds: Iterable[np.ndarray], height: int, width: int) -> list[Rle]:
    """RLE of masks of height x width, each given by the bounds of its runs inside, in column-major order.

    Args:
        bounds: for each mask (start, end, start, end ...) int64, end-exclusive and sorted. No run is empty; runs may
            touch.
    """
    return _compressed([_counts(one, height * width) for one in bounds], height, width)


def compress(rle: Mapping[str, Any]) -> Rle:
    """The same RLE with `counts` compressed to a str; checked as in `decode`. Runs of length 0 are kept."""
    return from_counts(counts_of(rle), *rle_size(rle))


def from_counts(counts: Sequence[int] | np.ndarray, height: int, width: int) -> Rle:
    """Compresses counts (pixels outside, inside, outside ... in column-major order)."""
    rle = {"size": [int(height), int(width)], "counts": counts}
    return rle | {"counts": _texts([counts_of(rle)])[0]}


def counts_of(rle: Mapping[str, Any]) -> np.ndarray:
    """The plain counts [runs] int64 of compressed or plain RLE.

    Raises:
        ValueError: as `decode`.
    """
    height, width = rle_size(rle)
    counts = rle.get("counts")
    if isinstance(counts, str | bytes):
        counts = _unpacked(counts)
    else:
        counts = _listed(counts)
    negative = np.flatnonzero(counts < 0)
    if len(negative):
        i = int(negative[0])
        raise ValueError(f"run {i} of the RLE is {int(counts[i])}; counts cannot be negative")
    total = int(counts.sum())
    if total != height * width:
        raise ValueError(
            f"the RLE covers {total} pixels, but the size {height} x {width} has {height * width}; "
            "it is invalid, or belongs to an image of another size"
        )
    return counts


def area(rle: Mapping[str, Any]) -> int:
    """Number of pixels inside."""
    return int(counts_of(rle)[1::2].sum())


def box(rle: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """(y1, x1, y2, x2) in pixels around the mask, end-exclusive; zeros for an empty mask."""
    height, _ = rle_size(rle)
    return _run_box(*_runs(rle), height)


def pairs_to_rle(text: str, height: int, width: int, *, first: int = 1) -> Rle:
    """RLE from the text "start length start length ...", in column-major order.

    Args:
        text: the runs inside, in any order; empty for an empty mask. Used by Kaggle's Data Science Bowl 2018 and
            iMaterialist.
        first: the number of the first pixel, 1 in both.

    Raises:
        ValueError: not pairs of integers, or runs that are empty, outside the image or overlapping.
    """
    words = str(text).split()
    wrong = next((word for word in words if not WHOLE.fullmatch(word)), None)
    if wrong is not None:
        raise ValueError(f"the RLE contains {wrong!r}; expected integers, 'start length ...'")
    numbers = np.array(words, np.int64)
    if len(numbers) % 2:
        raise ValueError(f"the RLE contains {len(numbers)} numbers; expected pairs, 'start length ...'")
    starts, lengths = numbers[::2] - first, numbers[1::2]
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], (starts + lengths)[order]
    _check_pairs(starts, ends, first, height, width)
    bounds = np.stack([starts, ends], axis=1).ravel()
    return {"size": [int(height), int(width)], "counts": _texts([_counts(bounds, height * width)])[0]}


def rle_to_pairs(rle: Mapping[str, Any], *, first: int = 1) -> str:
    """The text "start length start length ..." of RLE; see `pairs_to_rle`. Empty for an empty mask."""
    starts, ends = _runs(rle)
    return " ".join(map(str, np.stack([starts + first, ends - starts], axis=1).ravel().tolist()))


def rle_size(rle: Any) -> tuple[int, int]:
    """(height, width); raises ValueError if `size` is not two integers >= 0."""
    size: Any = rle.get("size") if isinstance(rle, Mapping) else None
    whole = isinstance(size, list | tuple | np.ndarray) and len(size) == 2
    if not whole or not all(isinstance(n, int | np.integer) and not isinstance(n, bool) and n >= 0 for n in size):
        raise ValueError(
            f"RLE needs 'size': [height, width], two integers, got {size!r}"
            if isinstance(rle, Mapping)
            else f"RLE must be a dict with 'size' and 'counts', got {type(rle).__name__}"
        )
    return int(size[0]), int(size[1])


def _runs(rle: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends of the runs inside, [runs] each; none is empty and none touches the next."""
    counts = counts_of(rle)
    bounds = np.cumsum(counts)
    bounds = bounds[: len(bounds) // 2 * 2]
    filled = counts[1::2] > 0
    if not filled.all():
        bounds = bounds[np.repeat(filled, 2)]
    bounds = _merged(bounds)
    return bounds[::2], bounds[1::2]


def _run_box(starts: np.ndarray, ends: np.ndarray, height: int) -> tuple[int, int, int, int]:
    if not len(starts):
        return 0, 0, 0, 0
    last = ends - 1
    x1, x2 = int(starts[0] // height), int(last[-1] // height) + 1
    if np.any(starts // height != last // height):  # a run that continues in the next column touches bottom and top
        return 0, x1, height, x2
    return int((starts % height).min()), x1, int((last % height).max()) + 1, x2


def _merged(bounds: np.ndarray) -> np.ndarray:
    """Sorted bounds of nonempty runs (start, end, start, end ...), with touching runs merged."""
    touching = bounds[1:-1:2] == bounds[2::2]
    if not touching.any():
        return bounds
    keep = np.ones(len(bounds), bool)
    keep[1:-1:2] = keep[2::2] = ~touching
    return bounds[keep]


def _counts(bounds: np.ndarray, pixels: int) -> np.ndarray:
    """The counts of runs given by their sorted bounds, with touching runs merged."""
    bounds = _merged(bounds)
    counts = np.empty(len(bounds) + 1, np.int64)
    counts[:-1], counts[-1] = bounds, pixels
    counts[1:] -= bounds
    # A mask that reaches the last pixel ends with its run inside
    return counts[:-1] if len(bounds) and bounds[-1] == pixels else counts


def _part_counts(part: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    """Counts of a mask of height x width that contains `part` [h, w] at (top, left) and nothing else."""
    h, w = part.shape
    # Columns become rows, with an outside pixel before and after each
    columns = np.zeros((w, h + 2), bool)
    columns[:, 1:-1] = part.T
    turns = np.flatnonzero(columns[:, 1:] != columns[:, :-1])
    column, row = np.divmod(turns, h + 1)
    return _counts((column + left) * height + row + top, height * width)


def _boxes(masks: np.ndarray) -> list[tuple[int, int, int, int]]:
    """A tight box (y1, x1, y2, x2) around each mask of [H, W, N]; zeros for an empty mask."""
    height, width, count = masks.shape
    if not masks.size:
        return [(0, 0, 0, 0)] * count
    if masks.dtype == bool and abs(masks.strides[2]) >= masks.strides[1] == 1:  # contiguous masks
        return [_mask_box(masks[:, :, i]) for i in range(count)]
    rows, columns = np.asarray(masks.any(axis=1)), np.asarray(masks.any(axis=0))
    first = np.stack([rows.argmax(axis=0), columns.argmax(axis=0)])
    last = np.stack([height - rows[::-1].argmax(axis=0), width - columns[::-1].argmax(axis=0)])
    return list(map(tuple, (np.concatenate([first, last]) * rows.any(axis=0)).T.tolist()))


def _mask_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    y1, x1 = divmod(int(mask.argmax()), mask.shape[1])  # stops at the first pixel inside
    if not mask[y1, x1]:
        return 0, 0, 0, 0
    y2 = mask.shape[0] - int(np.asarray(mask[y1:].any(axis=1))[::-1].argmax())
    columns = np.asarray(mask[y1:y2].any(axis=0))
    return y1, int(columns.argmax()), y2, len(columns) - int(columns[::-1].argmax())


def _compressed(counts: list[np.ndarray], height: int, width: int) -> list[Rle]:
    return [{"size": [int(height), int(width)], "counts": text} for text in _texts(counts)]


def _texts(counts: list[np.ndarray]) -> list[str]:
    """Compresses the counts of several masks together, because each is short."""
    values = np.concatenate([np.zeros(0, np.int64), *map(_differences, counts)])
    left = _group_counts(values)
    ends = np.cumsum(left)
    places = ends - left
    text = np.empty(ends[-1] if len(ends) else 0, np.uint8)
    while len(values):
        more = left > 1
        text[places] = FIRST + (values & (MORE - 1)) + MORE * more
        values, places, left = values[more] >> BITS, places[more] + 1, left[more] - 1
    packed = text.tobytes().decode("ascii")
    borders = np.concatenate([[0], ends])[np.cumsum([0, *map(len, counts)])].tolist()
    return [packed[start:end] for start, end in pairwise(borders)]


def _differences(counts: np.ndarray) -> np.ndarray:
    values = counts.copy()
    values[3:] -= counts[1:-2]
    return values


def _group_counts(values: np.ndarray) -> np.ndarray:
    """How many groups of five bits each value and its sign need."""
    count = np.ones(len(values), np.int64)
    size = np.where(values < 0, ~values, values)
    limit, largest = SIGN, size.max(initial=0)
    while largest >= limit:
        count += size >= limit
        limit <<= BITS
    return count


def _unpacked(text: str | bytes) -> np.ndarray:
    """The counts of compressed RLE."""
    try:
        raw = text.encode("ascii") if isinstance(text, str) else bytes(text)
    except UnicodeEncodeError as error:
        found = error.object[error.start]
        raise ValueError(f"character {error.start} of the RLE is {found!r}, which is not allowed") from None
    groups = np.frombuffer(raw, np.uint8).astype(np.int64) - FIRST
    wrong = np.flatnonzero((groups < 0) | (groups >= 2 * MORE))
    if len(wrong):
        i = int(wrong[0])
        raise ValueError(f"character {i} of the RLE is {chr(raw[i])!r}, which is not allowed")
    ends = np.flatnonzero(groups < MORE)
    if len(groups) and (not len(ends) or ends[-1] != len(groups) - 1):
        raise ValueError(f"the RLE is truncated after character {len(groups)}, in the middle of a number")
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    lengths = ends - starts + 1
    if len(lengths) and lengths.max() > MOST_GROUPS:
        i = int(starts[lengths.argmax()])
        raise ValueError(f"the RLE contains a number of {int(lengths.max())} characters at character {i}")
    if not len(groups):
        return groups
    position = np.arange(len(groups)) - np.repeat(starts, lengths)
    values = np.add.reduceat((groups & (MORE - 1)) << (BITS * position), starts)
    values -= np.where(groups[ends] & SIGN, np.int64(1) << (BITS * lengths), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def _listed(counts: Any) -> np.ndarray:
    """Plain counts as an array."""
    if isinstance(counts, np.ndarray) and counts.ndim == 1 and np.issubdtype(counts.dtype, np.integer):
        return counts.astype(np.int64)
    if not isinstance(counts, list | tuple):
        raise ValueError(f"RLE needs 'counts', a string or a list of integers, got {counts!r:.80}")
    for i, count in enumerate(counts):
        # JSON has only one number type: 3.0 may stand for 3
        number = isinstance(count, int | float | np.integer) and not isinstance(count, bool)
        if not number or not abs(count) < MOST_PIXELS or count != int(count):
            raise ValueError(f"run {i} of the RLE is {count!r:.80}, not an integer")
    return np.array(counts, np.int64).reshape(-1)


def _check_pairs(starts: np.ndarray, ends: np.ndarray, first: int, height: int, width: int) -> None:
    """Raises ValueError for sorted runs that are empty, outside the image or overlapping."""
    for wrong, what in (
        (ends <= starts, "has no pixels"),
        (
            (starts < 0) | (ends > height * width),
            f"is outside the image of {height} x {width} = {height * width} pixels",
        ),
        (np.concatenate([[False], starts[1:] < ends[:-1]])[: len(starts)], "overlaps the previous one"),
    ):
        if wrong.any():
            i = int(np.flatnonzero(wrong)[0])
            run = f"'{int(starts[i]) + first} {int(ends[i] - starts[i])}'"
            raise ValueError(f"the run {run} {what}; pixels are counted in column-major order, from {first}")

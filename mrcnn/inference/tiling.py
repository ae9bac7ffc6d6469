"""Large images: detection on overlapping tiles and on the whole image, with each object found once.

Two detections are one object if their masks agree where both views overlap: for an object that a tile cuts off, the
other mask counts only inside that tile, and the IoU must be at least `AGREEMENT`. This works even if only a small part
of an object is in the overlap of two tiles, where the IoU of the whole masks would be meaningless.

Without a mask head, boxes take the place of masks.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any

import cv2
import numpy as np

from mrcnn.data import rle
from mrcnn.data.pasting import mask_parts
from mrcnn.inference.results import Crop, Result, SoftMasks

AGREEMENT = 0.5  # minimum mask IoU, where two views overlap, for detections of the same object
COVERED = 0.5  # a cut-off detection with at least this fraction inside another one is a part of it
TOLERANCE = 3  # pixels around the other one that count as inside, as masks of slivers at a border are inaccurate
MARGIN = 0.01  # of a tile's side: an object this close to a border inside the image counts as cut off

SMALLEST_TILE = 32  # pixels
LARGE = 1 << 22  # pixels; larger masks are kept with one bit per pixel

Window = tuple[int, int, int, int]  # y1, x1, y2, x2


class Packed:
    """A large `Crop` with one bit per pixel."""

    def __init__(self, crop: Crop) -> None:
        self.top, self.left, self.shape = crop.top, crop.left, crop.shape
        self._bits = np.packbits(crop.mask, axis=1)

    @property
    def mask(self) -> np.ndarray:
        """[h, w] bool, made anew each time."""
        return np.unpackbits(self._bits, axis=1, count=self.shape[1]).view(bool)


def tile_windows(height: int, width: int, tile: int, overlap: float) -> list[Window]:
    """The tiles of an image, with sides of `tile` pixels; the last of a row or column ends at the image's edge.

    Args:
        overlap: minimum overlap of neighboring tiles, as a fraction of a tile's side.

    Raises ValueError for a tile below 32 whole pixels, or an overlap outside 0 to 0.9.
    """
    if (
        not isinstance(tile, Integral)
        or tile < SMALLEST_TILE
        or not isinstance(overlap, Real)
        or not 0 <= overlap <= 0.9
    ):
        raise ValueError(
            f"tile must be {SMALLEST_TILE} pixels or more and overlap 0 to 0.9, got {tile!r} and {overlap!r}"
        )
    rows, columns = _starts(height, tile, overlap), _starts(width, tile, overlap)
    return [(y, x, min(y + tile, height), min(x + tile, width)) for y, x in itertools.product(rows, columns)]


def _starts(length: int, tile: int, overlap: float) -> list[int]:
    """Evenly spaced start positions of tiles."""
    if length <= tile:
        return [0]
    count = int(np.ceil((length - tile) / max(1, tile * (1 - overlap)))) + 1
    return np.linspace(0, length - tile, count).round().astype(int).tolist()


@dataclass
class Piece:
    """The part of an object that one view shows: its mask and box in pixels of the whole image."""

    view: int
    window: Window
    crop: Crop | Packed
    box: np.ndarray
    class_id: int
    score: float
    cut: bool  # whether it touches a border of the tile inside the image
    quality: float = 1.0  # of the mask: its score / the box's score


def tiled(detector: Any, tile: int, overlap: float, class_names: Sequence[str] = ()) -> Callable[[np.ndarray], Result]:
    """`detect_tiled` as a function of only the image. Raises like `tile_windows`, and NotImplementedError for a model
    with keypoints."""
    if detector.config.KEYPOINT_HEAD is not None:
        raise NotImplementedError("tiles merge boxes and masks, not keypoints; call detect without tile")
    tile_windows(1, 1, tile, overlap)
    return lambda image: detect_tiled(detector, image, tile, overlap, class_names)


def detect_tiled(
    detector: Any, image: np.ndarray, tile: int, overlap: float = 0.2, class_names: Sequence[str] = ()
) -> Result:
    """The objects in one image [H, W, C] uint8, from its tiles and the whole image.

    Memory holds the image, a few tiles, and the detected masks, cropped to their objects, large ones with one bit per
    pixel; the result has run lengths.

    Raises like `tile_windows`.
    """
    height, width = image.shape[:2]
    windows = tile_windows(height, width, tile, overlap)
    views: list[Window] = [(0, 0, height, width)]
    views += windows if len(windows) > 1 else []
    small, scale = _reduced(image, 2 * max(detector.config.IMAGE_MAX_DIM or tile, tile))

    def parts() -> Iterator[np.ndarray]:
        yield small
        for y1, x1, y2, x2 in views[1:]:
            yield np.ascontiguousarray(image[y1:y2, x1:x2])

    masks, scored = detector.config.MASK_HEAD is not None, False
    pieces: list[Piece] = []
    for view, result in enumerate(detector.stream(parts())):
        scored |= "mask_scores" in result
        pieces += _pieces(result, view, views[view], scale if view == 0 else 1, (height, width), masks)
    found = merged(pieces, detector.config.DETECTION_NMS_THRESHOLD)
    kind = np.int32 if detector.config.DETECTION_ROUND_BOXES else np.float32  # views have boxes of whole pixels, then
    return _as_result(found, (height, width), class_names, masks, scored, kind)


def _reduced(image: np.ndarray, longest: int) -> tuple[np.ndarray, int]:
    """The image, shrunk by an integer factor that keeps its longer side above `longest`, and that factor.

    Averages strip by strip, because resizing the whole image would first convert it to floats.
    """
    factor = max(image.shape[:2]) // longest
    if factor < 2:
        return image, 1
    rows, columns = (max(1, side // factor) for side in image.shape[:2])
    small = np.empty((rows, columns, image.shape[2]), image.dtype)
    strip = max(1, 256 // factor)
    for start in range(0, rows, strip):
        end = min(start + strip, rows)
        part = np.ascontiguousarray(image[start * factor : end * factor, : columns * factor])
        resized = cv2.resize(part, (columns, end - start), interpolation=cv2.INTER_AREA)
        small[start:end] = resized.reshape(end - start, columns, -1)
    return small, factor


def _pieces(
    result: Result, view: int, window: Window, scale: int, size: tuple[int, int], masks: bool = True
) -> Iterator[Piece]:
    """The instances of a view in pixels of the whole image of `size`; empty masks are omitted.

    Args:
        masks: False: there are none, and boxes take their place.
    """
    assert isinstance(result.soft, SoftMasks)
    offset = np.tile(window[:2], 2)
    boxes = result.rois.astype(np.float64) * scale + offset
    places = result.soft.boxes.astype(np.float64) * scale + offset
    crops = map(_filled, boxes) if not masks else mask_parts(result.soft.probabilities, places, *size)
    quality = result.mask_scores / np.maximum(result.scores, np.finfo(np.float32).tiny)
    values = zip(
        crops, boxes, result.class_ids.tolist(), result.scores.tolist(), np.asarray(quality).tolist(), strict=True
    )
    for (mask, top, left), box, class_id, score, own in values:
        crop = _tight(_clipped(Crop(mask, top, left), window))
        if crop.mask.size:
            yield Piece(view, window, _kept(crop), box, class_id, score, _is_cut(crop, window, size), own)


def _kept(crop: Crop) -> Crop | Packed:
    return Packed(crop) if crop.mask.size > LARGE else crop


def _filled(box: np.ndarray) -> Crop:
    """The pixels that a box touches."""
    (top, left), (bottom, right) = np.floor(box[:2]).astype(int), np.ceil(box[2:]).astype(int)
    return Crop(np.ones((bottom - top, right - left), bool), int(top), int(left))


def _clipped(crop: Crop | Packed, window: Window) -> Crop:
    """The part inside a window."""
    y1, x1 = max(crop.top, window[0]), max(crop.left, window[1])
    y2 = max(y1, min(crop.top + crop.shape[0], window[2]))
    x2 = max(x1, min(crop.left + crop.shape[1], window[3]))
    return Crop(crop.mask[y1 - crop.top : y2 - crop.top, x1 - crop.left : x2 - crop.left], y1, x1)


def _tight(crop: Crop) -> Crop:
    """Removes empty rows and columns around the mask; 0 x 0 for an empty one."""
    rows, columns = np.flatnonzero(crop.mask.any(axis=1)), np.flatnonzero(crop.mask.any(axis=0))
    if not len(rows):
        return Crop(np.zeros((0, 0), bool), crop.top, crop.left)
    part = crop.mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Crop(part.copy(), crop.top + int(rows[0]), crop.left + int(columns[0]))


def _is_cut(crop: Crop, window: Window, size: tuple[int, int]) -> bool:
    """Whether a mask reaches a border of its window that is not a border of the image."""
    ends = crop.top + crop.shape[0], crop.left + crop.shape[1]
    for axis, (start, end) in enumerate(zip((crop.top, crop.left), ends, strict=True)):
        first, last = window[axis], window[axis + 2]
        margin = max(1, MARGIN * (last - first))
        if (first > 0 and start < first + margin) or (last < size[axis] and end > last - margin):
            return True
    return False


def merged(pieces: Sequence[Piece], nms_threshold: float) -> list[Piece]:
    """One piece per object, best first.

    Pieces that agree are joined. A view that shows the whole object decides its mask; if all are cut off, the mask is
    their union. Remaining cut-off pieces inside other objects are dropped; NMS by mask IoU per class follows.
    """
    pieces = sorted(pieces, key=lambda piece: -piece.score)
    groups = _groups(pieces)
    objects = sorted((_joined([pieces[i] for i in group]) for group in groups), key=lambda piece: -piece.score)
    # Larger ones first, so that a part is compared with the object it belongs to
    by_area = sorted(range(len(objects)), key=lambda i: -np.count_nonzero(objects[i].crop.mask))
    near = _neighbors([piece.crop for piece in objects])
    dropped: set[int] = set()
    for i in by_area:
        for j in near[i]:
            if i in dropped or j in dropped or objects[i].class_id != objects[j].class_id:
                continue
            shared, first, second = _areas(objects[i].crop, objects[j].crop)
            if objects[j].cut and second <= first and _covered(objects[j].crop, objects[i].crop) >= COVERED * second:
                dropped.add(j)
            elif shared > nms_threshold * (first + second - shared):
                dropped.add(max(i, j))
    return [piece for i, piece in enumerate(objects) if i not in dropped]


def _groups(pieces: Sequence[Piece]) -> list[list[int]]:
    """Groups the pieces of each object: those that agree, directly or through others, the closest first.

    Two complete objects of one view are never joined, even if a mask of another view spans both.
    """
    near = _neighbors([piece.crop for piece in pieces])
    pairs = []
    for i, others in enumerate(near):
        for j in others:
            if i < j and pieces[i].view != pieces[j].view and pieces[i].class_id == pieces[j].class_id:
                agreement = _agreement(pieces[i], pieces[j])
                if agreement >= AGREEMENT:
                    pairs.append((agreement, i, j))
    group = {i: [i] for i in range(len(pieces))}
    owner = list(range(len(pieces)))
    for _, i, j in sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2])):
        a, b = owner[i], owner[j]
        if a == b or _contradict([pieces[k] for k in group[a]], [pieces[k] for k in group[b]]):
            continue
        for k in group[b]:
            owner[k] = a
        group[a] += group.pop(b)
    return list(group.values())


def _contradict(first: Sequence[Piece], second: Sequence[Piece]) -> bool:
    """Whether a view shows two complete objects in what would become one."""
    return bool({p.view for p in first if not p.cut} & {p.view for p in second if not p.cut})


def _agreement(a: Piece, b: Piece) -> float:
    """IoU of two masks where both views overlap; 0 if one of the masks is empty there.

    A cut-off object is unknown outside its view, so the other mask counts only inside it.
    """
    first = _clipped(a.crop, b.window) if b.cut else a.crop
    second = _clipped(b.crop, a.window) if a.cut else b.crop
    shared, first_area, second_area = _areas(first, second)
    return shared / (first_area + second_area - shared) if first_area and second_area else 0.0


def _areas(a: Crop | Packed, b: Crop | Packed) -> tuple[int, int, int]:
    """Pixel counts: shared by both masks, and of each mask."""
    masks = a.mask, b.mask
    first, second = (int(np.count_nonzero(mask)) for mask in masks)
    top, left = max(a.top, b.top), max(a.left, b.left)
    bottom = min(a.top + a.shape[0], b.top + b.shape[0])
    right = min(a.left + a.shape[1], b.left + b.shape[1])
    if bottom <= top or right <= left:
        return 0, first, second
    places = [np.s_[top - c.top : bottom - c.top, left - c.left : right - c.left] for c in (a, b)]
    return int(np.count_nonzero(masks[0][places[0]] & masks[1][places[1]])), first, second


def _covered(part: Crop | Packed, whole: Crop | Packed) -> int:
    """Number of pixels of a mask inside another one, or within `TOLERANCE` of it."""
    height, width = part.shape
    top, left = part.top - TOLERANCE, part.left - TOLERANCE
    around = (top, left, part.top + height + TOLERANCE, part.left + width + TOLERANCE)
    near = _clipped(whole, around)
    if not near.mask.any():
        return 0
    grown = np.zeros((height + 2 * TOLERANCE, width + 2 * TOLERANCE), np.uint8)
    grown[near.top - top :, near.left - left :][: near.mask.shape[0], : near.mask.shape[1]] = near.mask
    grown = cv2.dilate(grown, np.ones((2 * TOLERANCE + 1, 2 * TOLERANCE + 1), np.uint8))
    inside = grown[TOLERANCE:-TOLERANCE, TOLERANCE:-TOLERANCE].astype(bool)
    return int(np.count_nonzero(part.mask & inside))


def _neighbors(crops: Sequence[Crop | Packed]) -> list[list[int]]:
    """For each mask, the others whose bounds overlap its bounds or are within `TOLERANCE` of them."""
    bounds = np.array([(c.top, c.left, c.top + c.shape[0], c.left + c.shape[1]) for c in crops], np.int64)
    bounds = bounds.reshape(-1, 4)
    found = []
    for i, bound in enumerate(bounds):
        y1, x1, y2, x2 = bound + (-TOLERANCE, -TOLERANCE, TOLERANCE, TOLERANCE)
        overlaps = (bounds[:, 0] < y2) & (bounds[:, 2] > y1) & (bounds[:, 1] < x2) & (bounds[:, 3] > x1)
        overlaps[i] = False
        found.append(np.flatnonzero(overlaps).tolist())
    return found


def _joined(pieces: Sequence[Piece]) -> Piece:
    """One object from its pieces: from a tile that shows all of it, else from the whole image and all tiles."""
    best = max(pieces, key=lambda piece: piece.score)
    whole = [piece for piece in pieces if not piece.cut and piece.view > 0]
    if whole or len(pieces) == 1:
        chosen = max(whole, key=lambda piece: piece.score) if whole else best
        cut = chosen.cut and not whole
        return replace(chosen, class_id=best.class_id, score=best.score, cut=cut)
    # Tiles are sharper than the whole image, whose mask counts only where no tile shows the object
    tiles = [piece for piece in pieces if piece.view > 0]
    overview = [piece for piece in pieces if piece.view == 0]
    parts = [piece.crop for piece in tiles]
    parts += [_outside(piece.crop, [tile.window for tile in tiles]) for piece in overview]
    crop = _union(parts)
    boxes = np.array([piece.box for piece in pieces])
    box = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
    quality = float(np.mean([piece.quality for piece in tiles]))
    return replace(best, crop=_kept(crop), box=box, cut=False, quality=quality)


def _outside(crop: Crop | Packed, windows: Sequence[Window]) -> Crop:
    """A mask without its pixels inside the windows."""
    mask = crop.mask.copy()
    for window in windows:
        y1, x1 = max(window[0] - crop.top, 0), max(window[1] - crop.left, 0)
        mask[y1 : max(window[2] - crop.top, 0), x1 : max(window[3] - crop.left, 0)] = False
    return _tight(Crop(mask, crop.top, crop.left))


def _union(crops: Sequence[Crop | Packed]) -> Crop:
    crops = [crop for crop in crops if all(crop.shape)]
    top, left = min(crop.top for crop in crops), min(crop.left for crop in crops)
    bottom = max(crop.top + crop.shape[0] for crop in crops)
    right = max(crop.left + crop.shape[1] for crop in crops)
    mask = np.zeros((bottom - top, right - left), bool)
    for crop in crops:
        y, x = crop.top - top, crop.left - left
        mask[y : y + crop.shape[0], x : x + crop.shape[1]] |= crop.mask
    return Crop(mask, top, left)


def _as_result(
    pieces: Sequence[Piece],
    size: tuple[int, int],
    class_names: Sequence[str],
    masks: bool,
    scored: bool,
    kind: type[np.generic],
) -> Result:
    """
    Args:
        masks: whether the model has a mask head; scored: whether that scores its masks. kind: of the boxes.
    """
    boxes = np.array([piece.box for piece in pieces]).reshape(-1, 4).astype(kind)
    ids = np.array([piece.class_id for piece in pieces], np.int32)
    scores = np.array([piece.score for piece in pieces], np.float32)
    empty = SoftMasks(np.zeros((len(pieces), 1, 1), np.float32), boxes.astype(np.float32))
    crops = (piece.crop for piece in pieces)
    made: Any = rle.encode_parts(((crop.mask, crop.top, crop.left) for crop in crops), *size) if masks else empty
    result = Result(boxes, ids, scores, made, size, class_names)
    if scored:
        result["mask_scores"] = scores * np.array([piece.quality for piece in pieces], np.float32)
    return result

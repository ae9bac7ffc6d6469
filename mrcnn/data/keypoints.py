"""Keypoints of instances: names and pairs, how they move with their image, and how they follow from heatmaps.

Keypoints are arrays [..., K, (y, x, visibility)] in continuous pixels, as boxes are: the center of the first pixel is
at 0.5. Visibility is COCO's: 0 not labeled, 1 labeled but hidden, 2 visible. A keypoint of visibility 0 teaches
nothing; "visible" in this package means 1 or 2.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import cv2
import numpy as np

SIGMA = 0.05  # of OKS where a dataset gives none; COCO's are 0.025 to 0.107
MOST = 512  # keypoints of an instance
MIN_KEYPOINT = 0.05  # score from which a keypoint is drawn (Detectron2's)
CHANNELS = 4  # heatmaps that are upsampled at a time


@dataclass(frozen=True)
class Skeleton:
    """The keypoints that each instance of a dataset has.

    Args:
        names: of the K keypoints.
        edges: pairs of places, from 0, of keypoints that are drawn connected.
        flip_pairs: pairs of places that change roles when an image is mirrored, such as the eyes. None: those whose
            names differ in "left" and "right" alone.
        sigmas: how far off, by the instance's size, each may be in OKS (`mrcnn.evaluation`). None: COCO's for the
            keypoints of COCO's people, else 0.05.

    Raises ValueError for names that repeat, places out of range, or other numbers of sigmas.
    """

    names: Sequence[str]
    edges: Sequence[tuple[int, int]] = ()
    flip_pairs: Sequence[tuple[int, int]] | None = None
    sigmas: Sequence[float] | None = None

    def __post_init__(self) -> None:
        names = tuple(self.names) if isinstance(self.names, Sequence) and not isinstance(self.names, str) else ()
        if not 0 < len(names) <= MOST or not all(isinstance(name, str) for name in names):
            raise ValueError(f"names of keypoints are a list of 1 to {MOST} texts, got {self.names!r}")
        if len(set(names)) < len(names):
            raise ValueError(f"names of keypoints must differ from each other, got {list(names)}")
        pairs = _mirrored_names(names) if self.flip_pairs is None else self.flip_pairs
        sigmas = self.sigmas
        if sigmas is None:
            sigmas = COCO_SIGMAS if names == COCO_NAMES else (SIGMA,) * len(names)
        right = len(sigmas) == len(names) and all(math.isfinite(sigma) and sigma > 0 for sigma in sigmas)
        if not right:
            raise ValueError(f"sigmas are a positive number for each of the {len(names)} keypoints, got {list(sigmas)}")
        values: dict[str, Any] = {
            "names": names,
            "edges": _pairs("edges", self.edges, len(names)),
            "flip_pairs": _pairs("flip_pairs", pairs, len(names)),
            "sigmas": tuple(map(float, sigmas)),
        }
        places = [place for pair in values["flip_pairs"] for place in pair]
        if len(set(places)) < len(places):
            raise ValueError(f"a keypoint is in one of the flip_pairs at most, got {list(pairs)}")
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def count(self) -> int:
        """The number of keypoints, K."""
        return len(self.names)

    @property
    def mirrored(self) -> np.ndarray:
        """[K] int: for each keypoint the one that takes its place in a mirrored image."""
        order = np.arange(self.count)
        for one, other in self.flip_pairs or ():
            order[[one, other]] = other, one
        return order

    def as_dict(self) -> dict[str, Any]:
        """In types that json supports."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The reverse of `as_dict`. Raises ValueError for what is none."""
        try:
            return cls(**{name: values[name] for name in ("names", "edges", "flip_pairs", "sigmas")})
        except (KeyError, TypeError) as error:
            raise ValueError(f"a skeleton is a dict of names, edges, flip_pairs and sigmas: {error!r}") from error


def names_of_keypoints(skeleton: Skeleton | None, count: int) -> list[str]:
    """The names of so many keypoints; "keypoint 0" and so on without a skeleton that has them."""
    if skeleton is not None and skeleton.count == count:
        return list(skeleton.names)
    return [f"keypoint {i}" for i in range(count)]


def _mirrored_names(names: Sequence[str]) -> list[tuple[int, int]]:
    places = {name.lower(): i for i, name in enumerate(names)}
    others = [(i, places.get(name.lower().replace("left", "right"), i)) for i, name in enumerate(names)]
    return [(i, other) for i, other in others if other != i]


def _pairs(what: str, pairs: Any, count: int) -> tuple[tuple[int, int], ...]:
    try:
        found = tuple((int(one), int(other)) for one, other in pairs)
    except (TypeError, ValueError):
        raise ValueError(f"{what} are pairs of places from 0 to {count - 1}, got {pairs!r}") from None
    if any(not 0 <= place < count for pair in found for place in pair) or any(one == other for one, other in found):
        raise ValueError(f"{what} are pairs of two places from 0 to {count - 1}, got {list(found)}")
    return found


COCO_SIDES = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
COCO_NAMES = ("nose", *(f"{side}_{part}" for part in COCO_SIDES for side in ("left", "right")))
# Of the nose, then of each of the pairs (pycocotools' Params.kpt_oks_sigmas)
COCO_SIGMAS = (0.026, *(value for value in (0.025, 0.035, 0.079, 0.072, 0.062, 0.107, 0.087, 0.089) for _ in (0, 1)))
COCO_EDGES = (
    *((15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8)),
    *((7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6)),
)
COCO_PERSON = Skeleton(COCO_NAMES, COCO_EDGES)


def checked_keypoints(keypoints: Any, count: int, skeleton: Skeleton) -> np.ndarray:
    """[N, K, 3] float64; zero where a keypoint is not labeled.

    Raises ValueError for another shape than that of `count` instances, and for numbers that are not finite.
    """
    found = np.array(keypoints, np.float64)
    wanted = (count, skeleton.count, 3)
    if found.shape != wanted:
        raise ValueError(
            f"load_keypoints gave an array of shape {found.shape}; expected {wanted}: for each instance of load_mask "
            "(y, x, visibility) of each keypoint"
        )
    if not np.isfinite(found).all():
        raise ValueError("load_keypoints gave NaN or infinite values; give visibility 0 to keypoints that are unknown")
    found[found[..., 2] <= 0] = 0
    return found


def inside(keypoints: np.ndarray, height: float, width: float) -> np.ndarray:
    """Keypoints [..., 3]; those outside an image of (height, width) are not labeled any more."""
    y, x = keypoints[..., 0], keypoints[..., 1]
    seen = (y >= 0) & (x >= 0) & (y <= height) & (x <= width) & (keypoints[..., 2] > 0)
    return np.where(seen[..., None], keypoints, 0.0)


class MovedKeypoints:
    """Keypoints that follow an image through its augmentation.

    Args:
        values: [N, K, (y, x, visibility)].
        mirrored: [K] int, for each keypoint the one that takes its place in a mirrored image; None: itself.
    """

    def __init__(self, values: np.ndarray, mirrored: np.ndarray | None) -> None:
        self.values = np.array(values, np.float64)
        self.mirrored = np.arange(self.values.shape[1]) if mirrored is None else mirrored

    def shift(self, down: float, right: float) -> None:
        """Moves all by so many pixels."""
        self.values[..., :2] += (down, right)

    def mirror(self, width: float) -> None:
        """Mirrors an image of this width: x becomes width - x, and left becomes right."""
        self.values[..., 1] = width - self.values[..., 1]
        self.swap()

    def swap(self) -> None:
        """Each keypoint takes the place of its counterpart."""
        self.values = self.values[:, self.mirrored]

    def move(self, function: Callable[[np.ndarray], np.ndarray], size: Sequence[int]) -> None:
        """Moves all by a function of places [P, (y, x)] in an image of `size` (height, width, ...).

        Whether it mirrors the image is seen from three more places, which go along.
        """
        y, x = size[0] / 2, size[1] / 2
        corner = np.array([[y, x], [y, x + x / 2], [y + y / 2, x]])
        moved = function(np.concatenate([self.values[..., :2].reshape(-1, 2), corner]))
        self.values[..., :2] = moved[:-3].reshape(*self.values.shape[:2], 2)
        (y1, x1), (y2, x2) = moved[-2] - moved[-3], moved[-1] - moved[-3]
        if x1 * y2 - y1 * x2 < 0:
            self.swap()


def decode_heatmaps(heatmaps: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The maximum of each heatmap, upsampled bicubically to the pixels of its box (Detectron2's heatmaps_to_keypoints).

    Args:
        heatmaps: [N, m, m, K] logits of K keypoints in each of m x m cells of a box.
        boxes: [N, (y1, x1, y2, x2)] in pixels of the network input.

    Returns:
        [N, K, (y, x, score)] float32, pixels of the network input. A score is the probability of the most likely cell:
        the softmax over the cells of the heatmap, not of the upsampled one, so that it does not depend on the size of
        the box. The upsampled peak may exceed all cells, and a score then 1.
    """
    keypoints = np.zeros((len(heatmaps), heatmaps.shape[-1], 3), np.float32)
    for i, (maps, box) in enumerate(zip(np.asarray(heatmaps, np.float32), np.asarray(boxes, np.float32), strict=True)):
        sides = np.maximum(box[2:] - box[:2], 1)
        height, width = np.ceil(sides).astype(int).tolist()
        peaks, places = _peaks(maps, height, width)
        rows, columns = np.divmod(places, width)
        cells = np.stack([rows, columns], axis=1).astype(np.float32) + 0.5
        keypoints[i, :, :2] = box[:2] + cells * (sides / np.array([height, width], np.float32))
        keypoints[i, :, 2] = 1 / np.exp(maps - peaks).sum(axis=(0, 1))
    return keypoints


def _peaks(maps: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Maximum [K] and its place [K] of each of [m, m, K] in height x width pixels, row by row."""
    peaks, places = [], []
    for start in range(0, maps.shape[-1], CHANNELS):
        part = np.ascontiguousarray(maps[..., start : start + CHANNELS])
        large = cv2.resize(part, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height * width, -1)
        place = large.argmax(axis=0)
        places.append(place)
        peaks.append(np.take_along_axis(large, place[None], axis=0)[0])
    return np.concatenate(peaks), np.concatenate(places)

"""The detections of one image: a dict as in the old package, whose masks are computed in the requested form."""

import copy
import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from mrcnn.data import rle as run_lengths
from mrcnn.data.keypoints import Skeleton, names_of_keypoints
from mrcnn.data.pasting import mask_parts, mask_rles

MASK_FORMS = ("full", "rle", "crops")
HTML_ROWS = 10
_LATER = object()  # placeholder for masks [H, W, N] that are not computed yet


class Crop(NamedTuple):
    """The part of an image that contains a mask; the mask is empty outside it."""

    mask: np.ndarray  # [h, w] bool
    top: int  # first row of the part in the image
    left: int  # column

    @property
    def shape(self) -> tuple[int, int]:
        return self.mask.shape[0], self.mask.shape[1]


class SoftMasks(NamedTuple):
    """Masks as the network predicts them.

    probabilities: [N, m, m] float32 in 0..1. boxes: [N, (y1, x1, y2, x2)] float32, pixels of the image.
    """

    probabilities: np.ndarray
    boxes: np.ndarray


class Result(dict[str, Any]):
    """The detected instances of one image, best first.

    As in the old package, this is a dict of `rois`, `class_ids`, `scores` and `masks`; the values are also attributes.
    Full masks take H * W bytes each, so `masks` is computed on first use. `rle` and `crops` contain the same masks in a
    fraction of the memory, and using them never computes full masks.

    After changing `masks` in place, assign it (`result["masks"] = masks`), so that the other forms follow.

    Attributes:
        rois: [N, (y1, x1, y2, x2)] in pixels of the image; float32, or int32 with DETECTION_ROUND_BOXES.
            For slicing, `pixel_rois` always has integers.
        class_ids: [N] int32, starting at 1.
        scores: [N] float32, in descending order.
        mask_scores: [N] float32, of the masks; `scores` if the mask head predicts none. In the dict only if it does.
        masks: [H, W, N] bool.
        keypoints: [N, K, (y, x, score)] float32 in pixels of the image, of a model with a keypoint head; None of
            others. In the dict only where there are any. Scores are those of `mrcnn.data.keypoints`: near 0 where
            the model is unsure.
        skeleton: names, edges and mirrored pairs of the keypoints; None where the model knows none.
        rle: N run lengths as in COCO's json, see `mrcnn.data.rle`.
        crops: N `Crop`, the part of the image that contains each mask.
        soft: the predicted `SoftMasks`; None after `prepare` or after assigning `masks`.
        size: (height, width) of the image.
        class_names: names by class id, the background's first; empty if the model has none.
        path: the file that the image was read from; None for an array.
        image: the pixels [H, W, C] uint8, if `MaskRCNN.stream` was asked to keep them; else None.
    """

    def __init__(
        self,
        rois: np.ndarray,
        class_ids: np.ndarray,
        scores: np.ndarray,
        masks: SoftMasks | Sequence[Mapping[str, Any]] | np.ndarray,
        size: tuple[int, int],
        class_names: Sequence[str] = (),
    ) -> None:
        """Args: see the class; `masks` in any form except crops.

        Raises ValueError if the numbers of boxes, class ids, scores and masks differ, or full masks do not have `size`.
        """
        self.size, self.class_names = (int(size[0]), int(size[1])), tuple(class_names)
        self.path: str | None = None
        self.image: np.ndarray | None = None
        self.skeleton: Skeleton | None = None
        self._forms: dict[str, Any] = {}
        super().__init__(rois=rois, class_ids=class_ids, scores=scores, masks=_LATER)
        if isinstance(masks, SoftMasks):
            self._forms["soft"] = masks
            count = len(masks.probabilities)
        elif isinstance(masks, np.ndarray):
            if masks.ndim != 3 or masks.shape[:2] != self.size:
                raise ValueError(f"expected masks [{self.size[0]}, {self.size[1]}, N], got shape {masks.shape}")
            super().__setitem__("masks", masks)
            count = masks.shape[2]
        else:
            self._forms["rle"] = list(masks)
            count = len(masks)
        counts = {"rois": len(rois), "class_ids": len(class_ids), "scores": len(scores), "masks": count}
        if len(set(counts.values())) > 1:
            raise ValueError(f"each instance needs one box, class id, score and mask, got {counts}")

    # Attributes

    @property
    def rois(self) -> np.ndarray:
        return self["rois"]

    @property
    def class_ids(self) -> np.ndarray:
        return self["class_ids"]

    @property
    def scores(self) -> np.ndarray:
        return self["scores"]

    @property
    def mask_scores(self) -> np.ndarray:
        return self.get("mask_scores", self["scores"])

    @property
    def keypoints(self) -> np.ndarray | None:
        return self.get("keypoints")

    @property
    def keypoint_names(self) -> list[str]:
        """The name of each keypoint, or "keypoint 0" where the skeleton is unknown; empty without keypoints."""
        count = 0 if self.keypoints is None else self.keypoints.shape[1]
        return names_of_keypoints(self.skeleton, count)

    @property
    def masks(self) -> np.ndarray:
        return self["masks"]

    @property
    def soft(self) -> SoftMasks | None:
        return self._forms.get("soft")

    @property
    def count(self) -> int:
        """Number of instances; `len(result)` is the number of dict keys."""
        return len(self["scores"])

    @property
    def names(self) -> list[str]:
        """The class name of each instance, or "class 3" if the model has no names."""
        known = self.class_names
        return [known[i] if i < len(known) else f"class {i}" for i in self["class_ids"].tolist()]

    @property
    def pixel_rois(self) -> np.ndarray:
        """[N, (y1, x1, y2, x2)] int32: the whole pixels that each box touches, for slicing.

        `y1, x1, y2, x2 = result.pixel_rois[0]; part = image[y1:y2, x1:x2]`
        """
        boxes = np.asarray(self["rois"], np.float64).reshape(-1, 4)
        outward = np.concatenate([np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])], axis=1)
        return np.clip(outward, 0, np.array(self.size * 2)).astype(np.int32)

    @property
    def rle(self) -> list[run_lengths.Rle]:
        if "rle" not in self._forms:
            self._forms["rle"] = self._run_lengths()
        return self._forms["rle"]

    def _run_lengths(self) -> list[run_lengths.Rle]:
        full = self._stored()
        if full is not None:
            return run_lengths.encode_all(full)
        if "soft" in self._forms and "crops" not in self._forms:
            probabilities, boxes = self._forms["soft"]
            return mask_rles(probabilities, boxes, *self.size)  # without the pixels: twice as fast
        return run_lengths.encode_parts(self._parts(), *self.size)

    @property
    def crops(self) -> list[Crop]:
        if "crops" not in self._forms:
            self._forms["crops"] = list(self._parts())
        return self._forms["crops"]

    @property
    def areas(self) -> np.ndarray:
        """[N] int64, pixels of each mask."""
        if "rle" in self._forms and "crops" not in self._forms:
            return np.array([run_lengths.area(rle) for rle in self._forms["rle"]], np.int64)
        return np.array([np.count_nonzero(crop.mask) for crop in self._parts()], np.int64)

    def _parts(self) -> Iterator[Crop]:
        """The masks as crops, one at a time, from any existing form."""
        if "crops" in self._forms:
            yield from self._forms["crops"]
        elif "soft" in self._forms and "rle" not in self._forms:
            probabilities, boxes = self._forms["soft"]
            for part, top, left in mask_parts(probabilities, boxes, *self.size):
                yield Crop(part, top, left)
        else:
            for rle in self.rle:
                part, (y1, x1, _, _) = run_lengths.decode_box(rle)
                yield Crop(part, y1, x1)

    def _stored(self) -> np.ndarray | None:
        """The full masks if they have been computed or assigned."""
        full = dict.get(self, "masks")
        return None if full is _LATER else full

    def prepare(self, form: str) -> None:
        """Computes the masks in one of `MASK_FORMS` now, and discards the network's output."""
        if form not in MASK_FORMS:
            raise ValueError(f"the form of masks must be one of {MASK_FORMS}, got {form!r}")
        getattr(self, "masks" if form == "full" else form)
        self._forms.pop("soft", None)

    def keep(self, which: Any) -> Self:
        """A result with some of the instances.

        Args:
            which: a numpy index: [N] bool, integers, or a slice, such as `result.keep(result.scores >= 0.7)`.
        """
        places = np.arange(self.count)[which]
        kept = copy.copy(self)
        for name in ("rois", "class_ids", "scores", "mask_scores", "keypoints"):
            if name in self:
                dict.__setitem__(kept, name, self[name][places])
        full = self._stored()
        if full is not None:
            dict.__setitem__(kept, "masks", full[:, :, places])
        kept._forms = {
            name: SoftMasks(*(array[places] for array in form)) if name == "soft" else [form[i] for i in places]
            for name, form in self._forms.items()
        }
        return kept

    # Other tools

    def to_supervision(self) -> Any:
        """`supervision.Detections`; see `mrcnn.inference.conversions`."""
        from mrcnn.inference import conversions

        return conversions.to_supervision(self)

    def to_pandas(self) -> Any:
        """A table with a row per instance; see `mrcnn.inference.conversions`."""
        from mrcnn.inference import conversions

        return conversions.to_pandas(self)

    def to_geojson(self, tolerance: float = 1.0) -> dict[str, Any]:
        """GeoJSON polygons, simplified by at most `tolerance` pixels; see `mrcnn.inference.conversions`."""
        from mrcnn.inference import conversions

        return conversions.to_geojson(self, tolerance)

    # The dict, whose masks are computed on first use

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        if value is _LATER:
            value = self._full()
            super().__setitem__(name, value)
        return value

    def _full(self) -> np.ndarray:
        # Mask by mask in memory, so that each is contiguous, as it is used
        full = np.zeros((self.count, *self.size), bool)
        for mask, (part, top, left) in zip(full, self._parts(), strict=True):
            mask[top : top + part.shape[0], left : left + part.shape[1]] = part
        return np.moveaxis(full, 0, 2)

    def __setitem__(self, name: str, value: Any) -> None:
        if name == "masks":
            self._forms = {}
        super().__setitem__(name, value)

    def __iter__(self) -> Iterator[str]:  # without it, dict(result) and {**result} would copy the placeholder
        return super().__iter__()

    def _computed(self) -> Self:
        if "masks" in self:
            self["masks"]
        return self

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self else default

    def pop(self, name: str, *default: Any) -> Any:
        return super(Result, self._computed()).pop(name, *default)

    def popitem(self) -> tuple[str, Any]:
        return super(Result, self._computed()).popitem()

    def setdefault(self, name: str, default: Any = None) -> Any:
        if name not in self:
            self[name] = default
        return self[name]

    def items(self) -> Any:
        return super(Result, self._computed()).items()

    def values(self) -> Any:
        return super(Result, self._computed()).values()

    def update(self, *others: Any, **more: Any) -> None:
        for name, value in dict(*others, **more).items():
            self[name] = value

    def copy(self) -> Self:
        return copy.copy(self)

    def __or__(self, other: Any) -> Any:
        return dict(self) | other

    def __ror__(self, other: Any) -> Any:
        return other | dict(self)

    def __ior__(self, other: Any) -> Self:  # type: ignore[override]
        self.update(other)
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        values = {name: dict.__getitem__(self, name) for name in self}
        later = values.get("masks") is _LATER
        if later:
            del values["masks"]
        return _restored, (type(self), values, later, {**self.__dict__, "_forms": dict(self._forms)})

    # Display

    def __repr__(self) -> str:
        height, width = self.size
        return f"<Result: {self.count} instances in {height} x {width} pixels>"

    def _repr_html_(self) -> str:
        """A table of the first instances, for notebooks."""
        rows = "".join(
            f"<tr><td>{i}</td><td>{html.escape(name)}</td><td>{score:.3f}</td><td>{', '.join(map(str, box))}</td></tr>"
            for i, (name, score, box) in enumerate(
                zip(self.names[:HTML_ROWS], self["scores"].tolist(), self.pixel_rois.tolist(), strict=False)
            )
        )
        more = f"<p>and {self.count - HTML_ROWS} more</p>" if self.count > HTML_ROWS else ""
        head = "<tr><th></th><th>class</th><th>score</th><th>y1, x1, y2, x2</th></tr>"
        table = f"<table>{head}{rows}</table>" if rows else ""
        return f"<p>{self.count} instances in {self.size[0]} x {self.size[1]} pixels</p>{table}{more}"


def _restored(kind: type[Result], values: dict[str, Any], later: bool, state: dict[str, Any]) -> Result:
    """The reverse of `Result.__reduce__`: copying does not compute masks."""
    result = kind.__new__(kind)
    result.__dict__.update(state)
    dict.update(result, values)
    if later:
        dict.__setitem__(result, "masks", _LATER)
    return result

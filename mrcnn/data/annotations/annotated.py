"""AnnotatedDataset: images with instance outlines, the result of every annotation reader."""

import copy
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from mrcnn.data.annotations import problems
from mrcnn.data.annotations.fields import NEEDS_MASKS
from mrcnn.data.annotations.outlines import FAR, Bounds, Outline, Polygons, fill_box
from mrcnn.data.annotations.problems import AnnotationError, Lost, Problems
from mrcnn.data.dataset import Dataset
from mrcnn.data.images import Header, read_header, read_image
from mrcnn.data.images.orientation import choose_orientation, upright_size

KEPT_BYTES = 256 * 2**20  # cache limit for filled masks, stored as one bit per pixel of each box
LARGE = 2**24  # pixels; if a file states a larger size, the image header is checked before allocating masks
HEADERS_AT_ONCE = 10_000  # maximum number of image files opened to read orientations; more take minutes on a disk


class Instance(NamedTuple):
    """One instance as stored in its file.

    class_id: the id in the source, from 1. outline: None if the file has only a box. box: (y1, x1, y2, x2), if the
    file has one. record, field: the location in the file, for messages. keypoints: [K, (y, x, visibility)] in
    continuous pixels, if the file has any.
    """

    class_id: int
    outline: Outline | None
    crowd: bool = False
    box: Bounds | None = None
    record: str = ""
    field: str = ""
    keypoints: np.ndarray | None = None


class AnnotatedDataset(Dataset):
    """Images with instance outlines, which are rasterized on demand.

    To read any other kind of data, fill a dataset yourself::

        dataset = AnnotatedDataset()
        dataset.add_class("mine", 1, "cat")
        for row in rows:
            polygons = Polygons(tuple(np.reshape(part, (-1, 2)) for part in row["segmentation"]))
            dataset.add_annotated("mine", row["id"], row["path"], [Instance(1, polygons)])
        dataset.finish()

    Args:
        file: path of the annotations, for messages.
        strict: raise at the first invalid record; if False, skip it, record it in `problems`, and continue.
        masks: if False, keep only boxes, for a model without a mask head. If True, boxes without masks are invalid.
        upright: how to read an image with an orientation tag if its size does not show whether the upright or the
            stored image was annotated. True: upright, False: as stored. None: upright, and recorded in `problems`.
    """

    def __init__(
        self, file: str | os.PathLike = "", strict: bool = True, *, masks: bool = True, upright: bool | None = None
    ) -> None:
        super().__init__()
        self.file, self.problems = os.fspath(file), Problems(strict)
        self.masks, self.upright = masks, upright
        # Rasterizing takes longer than decoding the image, so the masks of recent images are cached
        self._kept: OrderedDict[int, list[tuple]] = OrderedDict()
        self._bytes, self._lock = 0, threading.Lock()
        self._tagged: set[str] = set()  # records of images whose orientation was noted
        self._reported: dict[int, Instance] = {}  # by id(); holding the instance keeps its id() from being reused

    def add_annotated(
        self,
        source: str,
        image_id: Any,
        path: str | os.PathLike | None,
        instances: Sequence[Instance],
        *,
        height: int | None = None,
        width: int | None = None,
        record: str = "",
        hint: str = "",
        tagged: Header | None = None,
        image: Any = None,
        **info: Any,
    ) -> bool:
        """Adds an image with its instances; instances without area are skipped and counted.

        Args:
            path: the image file; None if `image` is given or a subclass's `load_image` provides it.
            height, width: of the image, according to the file; None reads them from the image's header.
            record: the image's location in the file; None means `image <image_id>`.
            hint: added to the message if the image is missing.
            tagged: the second value returned by `sized`.
            image: anything `read_image` takes, or a function that returns it, instead of a path.

        Returns:
            Whether the image was added; with strict=False, a missing or unreadable image is skipped.
        """
        path, record = None if path is None else os.fspath(path), record or f"image {image_id!r}"
        lost: Lost = {"images": 1, "instances": len(instances)}
        if path is not None and not self._is_there(path, record, hint, lost):
            return False
        if height is None or width is None:
            if path is None:
                height, width = self._read_given(image).shape[:2]
            elif header := self.image_header(path, record, len(instances)):
                (height, width), tagged = self.sized(header)
            else:
                return False
        elif height * width > self.max_pixels:
            message = f"the size {height} x {width} exceeds the limit of {self.max_pixels:,} pixels; see `max_pixels`"
            self.problems.broken(self.file, record, "height/width", message, problems.SIZE, **lost)
            return False
        usable = [self._usable(instance, height, width) for instance in instances]
        kept = [instance for instance in usable if instance is not None]
        info |= {} if image is None else {"image": image}
        self.add_image(source, image_id, path, height=height, width=width, instances=kept, record=record, **info)
        if tagged is not None:
            self.note_orientation(len(self.image_info) - 1, tagged)
        return True

    def sized(self, header: Header, annotated: tuple[int, int] | None = None) -> tuple[tuple[int, int], Header | None]:
        """(height, width) of an image as it is read, and its header if only the rule for tags decided the orientation.

        annotated: (height, width) of the annotated image, if known.
        """
        choice = choose_orientation(header.orientation, header.size, annotated, self.upright)
        return upright_size(header.size, choice.orientation), None if choice.proven else header

    def image_header(self, path: str, record: str, instances: int) -> Header | None:
        """The image's header; if it is missing or unreadable, None and an error that counts `instances` as lost."""
        lost: Lost = {"images": 1, "instances": instances}
        if not self._is_there(path, record, "", lost):
            return None
        try:
            return read_header(path, self.max_pixels)
        except (OSError, ValueError) as error:
            self.problems.broken(self.file, record, "", str(error), problems.UNREADABLE, **lost)
            return None

    def _is_there(self, path: str, record: str, hint: str, lost: Lost) -> bool:
        if os.path.isfile(path):
            return True
        self.problems.broken(self.file, record, "", f"image file {path!r} is missing{hint}", problems.MISSING, **lost)
        return False

    def _usable(self, instance: Instance, height: int, width: int) -> Instance | None:
        """The instance without parts that have no area; None if nothing is left."""
        outline, where = instance.outline, (self.file, instance.record, instance.field)
        if outline is None:
            if self.masks:
                self.problems.broken(*where, NEEDS_MASKS, problems.BOXES_ONLY, images=0, instances=1)
                return None
            bounds = instance.box
        else:
            if isinstance(outline, Polygons) and outline.known is None:
                outline = self._enclosing(outline, where)
                if outline is None:
                    return None
            bounds = outline.bounds()
        if bounds is not None:
            y1, x1, y2, x2 = bounds
            if not (y1 >= -FAR and x1 >= -FAR and y2 <= FAR and x2 <= FAR):  # also true for NaN
                message = f"coordinates span {bounds} (y1, x1, y2, x2); expected pixel coordinates of the image"
                self.problems.broken(*where, message, images=0, instances=1)
                return None
            if y2 <= 0 or x2 <= 0 or y1 >= height or x1 >= width:
                kind = problems.EMPTY if y1 == y2 == 0 else problems.OUTSIDE
                message = f"it spans {bounds} (y1, x1, y2, x2), but the image is {(height, width)}"
                self.problems.left_out(kind, *where, message, images=0, instances=1)
                return None
        if not self.masks and bounds is not None:
            return instance._replace(outline=None, box=instance.box or bounds)
        return instance if outline is instance.outline else instance._replace(outline=outline)

    def _enclosing(self, outline: Polygons, where: tuple[str, str, str]) -> Polygons | None:
        """The parts that have an area; None if there are none."""
        if not outline.parts:
            self.problems.left_out(problems.EMPTY, *where, "it has no polygon", images=0, instances=1)
            return None
        parts = tuple(part for part in outline.parts if len(part) >= 3)
        if len(parts) == len(outline.parts):
            return outline
        message = f"parts of {[len(part) for part in outline.parts if len(part) < 3]} points enclose no area"
        if parts:
            self.problems.noted(problems.DEGENERATE, *where, message, "the other parts are used")
            return Polygons(parts)
        self.problems.left_out(problems.DEGENERATE, *where, message, images=0, instances=1)
        return None

    def prepare(self, class_map: Any = None) -> None:
        """Like `Dataset.prepare`; can be called again after adding or removing images."""
        super().prepare(class_map)
        with self._lock:  # image ids may have changed
            self._kept.clear()
            self._bytes = 0

    def subset(self, image_ids: Iterable[int]) -> Self:
        """Like `Dataset.subset`; both datasets keep the `problems` found in the file."""
        part = copy.copy(self)  # with its own cache, which is indexed by image id
        part._kept, part._bytes, part._lock = OrderedDict(), 0, threading.Lock()
        return super(AnnotatedDataset, part).subset(image_ids)

    def finish(self) -> Self:
        """Prepares the dataset, notes images with an orientation tag, and issues one warning about skipped records."""
        self.prepare()
        few = len(self.image_info) <= HEADERS_AT_ONCE
        for image_id, info in enumerate(self.image_info if few else ()):
            if info["path"] is None:
                continue
            try:
                self.orientation_of(image_id, read_header(info["path"], self.max_pixels))
            except (OSError, ValueError):  # reported when the image is used
                continue
        self.problems.warn(self.file)
        return self

    def load_image(self, image_id: int) -> np.ndarray:
        """The image, [H, W, 3] uint8 RGB. Raises AnnotationError if its size differs from the stated one."""
        given = self.image_info[image_id].get("image")
        image = super().load_image(image_id) if given is None else self._read_given(given)
        return self.of_stated_size(image_id, image)

    def _read_given(self, image: Any) -> np.ndarray:
        return read_image(image() if callable(image) else image, max_pixels=self.max_pixels)

    def note_orientation(self, image_id: int, header: Header) -> None:
        """Notes in `problems`, once per image, that only the package's rule decided its orientation."""
        record = self.image_info[image_id]["record"]
        with self._lock:
            if record not in self._tagged:
                self._tagged.add(record)
                self.problems.noted(
                    problems.TAGGED,
                    self.file,
                    record,
                    "",
                    f"{self.image_info[image_id]['path']!r} has orientation tag {header.orientation}; it is unknown "
                    "whether the upright or the stored image was annotated",
                    "rotated upright; upright=False reads it as stored",
                )

    def of_stated_size(self, image_id: int, image: np.ndarray) -> np.ndarray:
        """The image [H, W, C]. Raises AnnotationError if its size differs from the stated one."""
        self._check_size(image_id, image.shape[:2])
        return image

    def _check_size(self, image_id: int, size: tuple[int, ...]) -> None:
        """Raises AnnotationError if an image's (height, width) differs from the stated one."""
        info = self.image_info[image_id]
        if size != (info["height"], info["width"]):
            raise AnnotationError(
                self.file,
                info["record"],
                "height/width",
                f"the annotations are for a {info['height']} x {info['width']} image, but {info['path']!r} is "
                f"{size[0]} x {size[1]} (height x width); annotate this file, or restore the annotated one",
            )

    def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        """masks [H, W, N] bool and class ids [N] int32, negative for crowds.

        Raises ValueError if the dataset was read with masks=False.
        """
        info = self.image_info[image_id]
        if not self.masks:
            raise ValueError(
                f"{self.file}, {info['record']}: the dataset was read with masks=False and only has boxes; read it "
                "with masks=True, or train a model with MASK_HEAD = None"
            )
        filled = self._filled(image_id)
        masks = np.zeros([len(filled), info["height"], info["width"]], bool)
        for mask, (y1, x1, y2, x2, bits) in zip(masks, filled, strict=True):
            mask[y1:y2, x1:x2] = np.unpackbits(bits, axis=1, count=x2 - x1).view(bool)
        return np.moveaxis(masks, 0, 2), self.load_class_ids(image_id)

    def load_class_ids(self, image_id: int) -> np.ndarray:
        """[N] int32, negative for crowds."""
        info = self.image_info[image_id]
        ids = [self.map_source_class_id(f"{info['source']}.{instance.class_id}") for instance in info["instances"]]
        signs = [-1 if instance.crowd else 1 for instance in info["instances"]]
        return np.array(ids, np.int32) * np.array(signs, np.int32)

    def load_boxes(self, image_id: int) -> np.ndarray | None:
        """[N, (y1, x1, y2, x2)] in image pixels, if the file has a box for each instance; else None.

        With masks=False, missing boxes are computed from the outlines.
        """
        instances = self.image_info[image_id]["instances"]
        boxes = [instance.box for instance in instances]
        if not self.masks:
            if None in boxes:
                boxes = [box or filled[:4] for box, filled in zip(boxes, self._filled(image_id), strict=True)]
            return np.array(boxes, np.float64).reshape(-1, 4)
        return None if None in boxes or not boxes else np.array(boxes, np.float64)

    def load_keypoints(self, image_id: int) -> np.ndarray | None:
        """[N, K, (y, x, visibility)] in continuous pixels of the image; None of a file without keypoints."""
        if self.skeleton is None:
            return None
        none = np.zeros((self.skeleton.count, 3))
        found = [instance.keypoints for instance in self.image_info[image_id]["instances"]]
        return np.array([none if points is None else points for points in found]).reshape(-1, *none.shape)

    def _filled(self, image_id: int) -> list[tuple]:
        """(y1, x1, y2, x2, packed bits of the mask inside the box) of each instance."""
        with self._lock:
            if image_id in self._kept:
                self._kept.move_to_end(image_id)
                return self._kept[image_id]
        info = self.image_info[image_id]
        if info["path"] is not None and info["height"] * info["width"] > LARGE:
            header = read_header(info["path"], self.max_pixels)
            self._check_size(image_id, upright_size(header.size, self.orientation_of(image_id, header)))
        filled = [self._fill(image_id, instance) for instance in info["instances"]]
        with self._lock:
            if image_id not in self._kept:
                self._kept[image_id] = filled
                self._bytes += _bytes(filled)
            while self._bytes > KEPT_BYTES and len(self._kept) > 1:
                self._bytes -= _bytes(self._kept.popitem(last=False)[1])
        return filled

    def _fill(self, image_id: int, instance: Instance) -> tuple:
        info, kind, message = self.image_info[image_id], problems.EMPTY, "it covers no pixel"
        if instance.outline is None:  # masks=False: the box serves as the mask
            y1, x1, y2, x2 = instance.box or (0.0,) * 4
            top, left = max(0, math.floor(y1)), max(0, math.floor(x1))
            bottom, right = min(info["height"], math.ceil(y2)), min(info["width"], math.ceil(x2))
            inside = np.ones((max(0, bottom - top), max(0, right - left)), bool)
            return top, left, bottom, right, np.packbits(inside, axis=1)
        try:
            part, (y1, x1, y2, x2) = fill_box(instance.outline, info["height"], info["width"])
        except (ValueError, OSError) as error:
            if self.problems.strict:
                raise AnnotationError(self.file, instance.record, instance.field, str(error)) from error
            part, (y1, x1, y2, x2), kind, message = np.zeros((0, 0), bool), (0,) * 4, problems.BROKEN, str(error)
        if y2 <= y1:
            self._report(kind, instance, message)
        return y1, x1, y2, x2, np.packbits(part, axis=1)

    def _report(self, kind: str, instance: Instance, message: str) -> None:
        """Counts, once, an instance that turned out to have no pixels and is skipped where masks are used."""
        with self._lock:
            if id(instance) not in self._reported:
                self._reported[id(instance)] = instance
                where = self.file, instance.record, instance.field
                self.problems.left_out(kind, *where, message, images=0, instances=1)


def _bytes(filled: list[tuple]) -> int:
    return sum(entry[-1].nbytes + 200 for entry in filled)  # 200: overhead of the Python objects

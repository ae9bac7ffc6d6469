"""AnnotatedDataset: images with outlines of instances, what every reader of an annotation format makes."""

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

KEPT_BYTES = 256 * 2**20  # of filled masks, a bit a pixel of each box
LARGE = 2**24  # pixels: images that a file states to be so large are looked at before room for their masks is made
HEADERS_AT_ONCE = 10_000  # image files that reading a dataset opens for their orientation; more take minutes on a disk


class Instance(NamedTuple):
    """One instance as its file has it.

    class_id: the source's, from 1 on. outline: None where the file gives a box only. box: (y1, x1, y2, x2) where
    the file gives one. record, field: where in the file it stands, for messages.
    """

    class_id: int
    outline: Outline | None
    crowd: bool = False
    box: Bounds | None = None
    record: str = ""
    field: str = ""


class AnnotatedDataset(Dataset):
    """Images with outlines, filled when they are asked for.

    To read data of any other kind, fill one yourself::

        dataset = AnnotatedDataset()
        dataset.add_class("mine", 1, "cat")
        for row in rows:
            polygons = Polygons(tuple(np.reshape(part, (-1, 2)) for part in row["segmentation"]))
            dataset.add_annotated("mine", row["id"], row["path"], [Instance(1, polygons)])
        dataset.finish()

    Args:
        file: path of the annotations, for messages.
        strict: raise at the first broken record; else leave it out, count it in `problems`, and go on.
        masks: False: keep boxes only, for a model without a mask head. Boxes without masks are broken records
        otherwise.
        upright: how to read images with an orientation tag, where sizes do not tell whether the upright or the stored
            image was annotated. True: upright, False: as stored. None: upright, and noted in `problems`.
    """

    def __init__(
        self, file: str | os.PathLike = "", strict: bool = True, *, masks: bool = True, upright: bool | None = None
    ) -> None:
        super().__init__()
        self.file, self.problems = os.fspath(file), Problems(strict)
        self.masks, self.upright = masks, upright
        # Filling outlines takes longer than decoding the image, so those of the last images are kept
        self._kept: OrderedDict[int, list[tuple]] = OrderedDict()
        self._bytes, self._lock = 0, threading.Lock()
        self._tagged: set[str] = set()  # records of images whose orientation was noted
        self._reported: dict[int, Instance] = {}  # by their id(), which another may get once one is deleted

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
        """Adds an image with its instances; those that enclose nothing are left out, and counted.

        Args:
            path: of the image file; None for an image that is given, or that `load_image` of a subclass fetches.
            height, width: of the image as the file states them; None reads them from the image's header.
            record: where the image stands in the file; `image <image_id>` unless given.
            hint: what to say where the image is missing.
            tagged: as `sized` returned it with the height and width.
            image: what `read_image` takes, or a function that returns it, in place of a path.

        Returns:
            Whether the image was added: with strict=False one that is missing or unreadable is left out.
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
            message = f"{height} x {width} pixels are more than {self.max_pixels:,}, the limit; see `max_pixels`"
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
        """(height, width) of an image, turned as it is read; and its header, where nothing but the rule decided that.

        annotated: (height, width) that was annotated, where it is known.
        """
        choice = choose_orientation(header.orientation, header.size, annotated, self.upright)
        return upright_size(header.size, choice.orientation), None if choice.proven else header

    def image_header(self, path: str, record: str, instances: int) -> Header | None:
        """The header of an image; broken, and None, where it is missing or unreadable, and `instances` go with it."""
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
        self.problems.broken(self.file, record, "", f"there is no image file {path!r}{hint}", problems.MISSING, **lost)
        return False

    def _usable(self, instance: Instance, height: int, width: int) -> Instance | None:
        """The instance without what encloses nothing; None when nothing is left."""
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
            if not (y1 >= -FAR and x1 >= -FAR and y2 <= FAR and x2 <= FAR):  # true for NaN, too
                message = f"coordinates span {bounds} (y1, x1, y2, x2); expected pixels of the image"
                self.problems.broken(*where, message, images=0, instances=1)
                return None
            if y2 <= 0 or x2 <= 0 or y1 >= height or x1 >= width:
                kind = problems.EMPTY if y1 == y2 == 0 else problems.OUTSIDE
                message = f"it spans {bounds} (y1, x1, y2, x2), the image {(height, width)}"
                self.problems.left_out(kind, *where, message, images=0, instances=1)
                return None
        if not self.masks and bounds is not None:
            return instance._replace(outline=None, box=instance.box or bounds)
        return instance if outline is instance.outline else instance._replace(outline=outline)

    def _enclosing(self, outline: Polygons, where: tuple[str, str, str]) -> Polygons | None:
        """The parts that enclose something; None without any."""
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
        """As `Dataset.prepare`; may be called again after images were added or taken away."""
        super().prepare(class_map)
        with self._lock:  # an image may have another number now
            self._kept.clear()
            self._bytes = 0

    def subset(self, image_ids: Iterable[int]) -> Self:
        """As `Dataset.subset`; what was found wrong in the file stays in `problems` of both."""
        part = copy.copy(self)  # with what is kept by the numbers of images its own
        part._kept, part._bytes, part._lock = OrderedDict(), 0, threading.Lock()
        return super(AnnotatedDataset, part).subset(image_ids)

    def finish(self) -> Self:
        """Prepares the dataset, notes images that a tag turns, and warns, once, of what was left out."""
        self.prepare()
        few = len(self.image_info) <= HEADERS_AT_ONCE
        for image_id, info in enumerate(self.image_info if few else ()):
            if info["path"] is None:
                continue
            try:
                self.orientation_of(image_id, read_header(info["path"], self.max_pixels))
            except (OSError, ValueError):  # said where the image is used
                continue
        self.problems.warn(self.file)
        return self

    def load_image(self, image_id: int) -> np.ndarray:
        """The image, [H, W, 3] uint8 RGB. Raises AnnotationError when its size is not what the file states."""
        given = self.image_info[image_id].get("image")
        image = super().load_image(image_id) if given is None else self._read_given(given)
        return self.of_stated_size(image_id, image)

    def _read_given(self, image: Any) -> np.ndarray:
        return read_image(image() if callable(image) else image, max_pixels=self.max_pixels)

    def note_orientation(self, image_id: int, header: Header) -> None:
        """Notes in `problems`, once for each image, that the package's rule decided how it is turned."""
        record = self.image_info[image_id]["record"]
        with self._lock:
            if record not in self._tagged:
                self._tagged.add(record)
                self.problems.noted(
                    problems.TAGGED,
                    self.file,
                    record,
                    "",
                    f"{self.image_info[image_id]['path']!r} has the orientation {header.orientation}, and nothing says "
                    "whether its annotations are of the upright or of the stored image",
                    "turned upright; upright=False reads it as stored",
                )

    def of_stated_size(self, image_id: int, image: np.ndarray) -> np.ndarray:
        """The image [H, W, C]. Raises AnnotationError when its size is not what the file states."""
        self._check_size(image_id, image.shape[:2])
        return image

    def _check_size(self, image_id: int, size: tuple[int, ...]) -> None:
        """Raises AnnotationError when an image's (height, width) is not what the file states."""
        info = self.image_info[image_id]
        if size != (info["height"], info["width"]):
            raise AnnotationError(
                self.file,
                info["record"],
                "height/width",
                f"the annotations are of an image of {info['height']} x {info['width']}, but {info['path']!r} is "
                f"{size[0]} x {size[1]} (height x width); annotate this file, or put back the other",
            )

    def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        """masks [H, W, N] bool and class ids [N] int32, negative for crowds.

        Raises ValueError for a dataset that was read with masks=False.
        """
        info = self.image_info[image_id]
        if not self.masks:
            raise ValueError(
                f"{self.file}, {info['record']}: the dataset was read with masks=False and has boxes only; read it "
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
        """[N, (y1, x1, y2, x2)] in pixels of the image, where the file gives a box for each instance.

        With masks=False, boxes that the file does not give are those around the masks.
        """
        instances = self.image_info[image_id]["instances"]
        boxes = [instance.box for instance in instances]
        if not self.masks:
            if None in boxes:
                boxes = [box or filled[:4] for box, filled in zip(boxes, self._filled(image_id), strict=True)]
            return np.array(boxes, np.float64).reshape(-1, 4)
        return None if None in boxes or not boxes else np.array(boxes, np.float64)

    def _filled(self, image_id: int) -> list[tuple]:
        """(y1, x1, y2, x2, bits of the mask inside) of each instance."""
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
        if instance.outline is None:  # of a dataset of boxes; what lies inside stands for the mask
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
        """Counts an instance that turned out to have no pixels, once: who uses masks leaves those out."""
        with self._lock:
            if id(instance) not in self._reported:
                self._reported[id(instance)] = instance
                where = self.file, instance.record, instance.field
                self.problems.left_out(kind, *where, message, images=0, instances=1)


def _bytes(filled: list[tuple]) -> int:
    return sum(entry[-1].nbytes + 200 for entry in filled)  # 200: the objects around the bits

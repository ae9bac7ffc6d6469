"""AnnotatedDataset: images with outlines of instances, what every reader of an annotation format makes."""

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from mrcnn.data.annotations import problems
from mrcnn.data.annotations.outlines import FAR, Ellipse, Outline, Polygons, Rectangle, fill_box, open_picture
from mrcnn.data.annotations.problems import AnnotationError, Problems
from mrcnn.data.dataset import Dataset
from mrcnn.data.images import Header

KEPT_BYTES = 256 * 2**20  # of filled masks, a bit a pixel of each box


class Instance(NamedTuple):
    """One instance as its file has it.

    class_id: the source's, from 1 on. box: (y1, x1, y2, x2) where the file gives one. record, field: where in the file
    it stands, for messages.
    """

    class_id: int
    outline: Outline
    crowd: bool = False
    box: tuple[float, float, float, float] | None = None
    record: str = ""
    field: str = ""


class AnnotatedDataset(Dataset):
    """Images with outlines, filled when they are asked for.

    Args:
        file: path of the annotations, for messages.
        strict: raise at the first broken record; else leave it out, count it in `problems`, and go on.
    """

    def __init__(self, file: str | os.PathLike = "", strict: bool = True) -> None:
        super().__init__()
        self.file, self.problems = os.fspath(file), Problems(strict)
        # Filling outlines takes longer than decoding the photograph, so those of the last images are kept
        self._kept: OrderedDict[int, list[tuple]] = OrderedDict()
        self._bytes, self._lock = 0, threading.Lock()
        self._tagged: set[str] = set()  # records of images whose orientation was noted
        self._reported: dict[int, Instance] = {}  # by their id(), which another may get once one is deleted

    def add_annotated(
        self,
        source: str,
        image_id: Any,
        path: str | os.PathLike,
        instances: Sequence[Instance],
        *,
        height: int | None = None,
        width: int | None = None,
        record: str = "",
        **info: Any,
    ) -> bool:
        """Adds an image with its instances; those that enclose nothing are left out, and counted.

        Args:
            height, width: of the image as the file states them; None reads them from the image's header.
            record: where the image stands in the file; `image <image_id>` unless given.

        Returns:
            Whether the image was added: with strict=False one that is missing or unreadable is left out.
        """
        path, record = os.fspath(path), record or f"image {image_id!r}"
        if not os.path.isfile(path):
            self.problems.broken(
                self.file,
                record,
                "",
                f"there is no image file {path!r}",
                problems.MISSING,
                images=1,
                instances=len(instances),
            )
            return False
        if height is None or width is None:
            try:
                height, width = image_size(path)
            except ValueError as error:
                self.problems.broken(
                    self.file, record, "", str(error), problems.UNREADABLE, images=1, instances=len(instances)
                )
                return False
        usable = [instance for instance in map(self._usable, instances, [(height, width)] * len(instances)) if instance]
        self.add_image(source, image_id, path, height=height, width=width, instances=usable, record=record, **info)
        return True

    def _usable(self, instance: Instance, size: tuple[int, int]) -> Instance | None:
        """The instance without what encloses nothing; None when nothing is left."""
        outline, where = instance.outline, (self.file, instance.record, instance.field)
        if isinstance(outline, Polygons):
            if not outline.parts:
                self.problems.left_out(problems.EMPTY, *where, "it has no polygon")
                return None
            parts = tuple(part for part in outline.parts if len(part) >= 3)
            if len(parts) < len(outline.parts):
                points = [len(part) for part in outline.parts if len(part) < 3]
                self.problems.noted(
                    problems.DEGENERATE,
                    *where,
                    f"parts of {points} points enclose no area",
                    "the other parts are used" if parts else problems.LEFT_OUT,
                )
            if not parts:
                return None
            outline = Polygons(parts)
        bounds = outline.bounds()
        if isinstance(outline, (Polygons, Rectangle, Ellipse)) and not np.abs(bounds).max() <= FAR:
            self.problems.broken(*where, f"coordinates span {bounds} (y1, x1, y2, x2); expected pixels of the image")
            return None
        if bounds and (bounds[2] <= 0 or bounds[3] <= 0 or bounds[0] >= size[0] or bounds[1] >= size[1]):
            kind = problems.EMPTY if bounds[0] == bounds[2] == 0 else problems.OUTSIDE
            self.problems.left_out(kind, *where, f"it spans {bounds} (y1, x1, y2, x2), the image {size}")
            return None
        return instance._replace(outline=outline)

    def prepare(self, class_map=None) -> None:
        """As `Dataset.prepare`; may be called again after images were added or taken away."""
        super().prepare(class_map)
        with self._lock:  # an image may have another number now
            self._kept.clear()
            self._bytes = 0

    def finish(self) -> Self:
        """Prepares the dataset and warns, once, of what was left out."""
        self.prepare()
        self.problems.warn(self.file)
        return self

    def load_image(self, image_id: int) -> np.ndarray:
        """The photograph, [H, W, 3] uint8 RGB. Raises AnnotationError when its size is not what the file states."""
        return self.of_stated_size(image_id, super().load_image(image_id))

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
        info = self.image_info[image_id]
        if image.shape[:2] != (info["height"], info["width"]):
            raise AnnotationError(
                self.file,
                info["record"],
                "height/width",
                f"the annotations are of an image of {info['height']} x {info['width']}, but {info['path']!r} is "
                f"{image.shape[0]} x {image.shape[1]} (height x width); annotate this file, or put back the other",
            )
        return image

    def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        """masks [H, W, N] bool and class ids [N] int32, negative for crowds."""
        info = self.image_info[image_id]
        instances = info["instances"]
        masks = np.zeros([len(instances), info["height"], info["width"]], bool)
        for mask, (y1, x1, y2, x2, bits) in zip(masks, self._filled(image_id), strict=True):
            mask[y1:y2, x1:x2] = np.unpackbits(bits, axis=1, count=x2 - x1).view(bool)
        ids = [self.map_source_class_id(f"{info['source']}.{instance.class_id}") for instance in instances]
        signs = [-1 if instance.crowd else 1 for instance in instances]
        return np.moveaxis(masks, 0, 2), np.array(ids, np.int32) * np.array(signs, np.int32)

    def load_boxes(self, image_id: int) -> np.ndarray | None:
        """[N, (y1, x1, y2, x2)] in pixels of the photograph, where the file gives a box for each instance."""
        boxes = [instance.box for instance in self.image_info[image_id]["instances"]]
        return None if None in boxes or not boxes else np.array(boxes, np.float64)

    def _filled(self, image_id: int) -> list[tuple]:
        """(y1, x1, y2, x2, bits of the mask inside) of each instance."""
        with self._lock:
            if image_id in self._kept:
                self._kept.move_to_end(image_id)
                return self._kept[image_id]
        filled = [self._fill(image_id, instance) for instance in self.image_info[image_id]["instances"]]
        with self._lock:
            if image_id not in self._kept:
                self._kept[image_id] = filled
                self._bytes += _bytes(filled)
            while self._bytes > KEPT_BYTES and len(self._kept) > 1:
                self._bytes -= _bytes(self._kept.popitem(last=False)[1])
        return filled

    def _fill(self, image_id: int, instance: Instance) -> tuple:
        info, kind, message = self.image_info[image_id], problems.EMPTY, "it covers no pixel"
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
                self.problems.left_out(kind, self.file, instance.record, instance.field, message)


def image_size(path: str | os.PathLike) -> tuple[int, int]:
    """(height, width) from an image's header; the orientation tag is ignored, as `read_image` does.

    Raises ValueError when the file is no image, or larger than Pillow takes.
    """
    try:
        with open_picture(path) as image:
            return image.height, image.width
    except OSError as error:
        raise ValueError(f"{os.fspath(path)!r} is not an image: {error}") from error


def _bytes(filled: list[tuple]) -> int:
    return sum(entry[-1].nbytes + 200 for entry in filled)  # 200: the objects around the bits

"""Checker: goes through a dataset image by image and instance by instance, and collects its findings."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from mrcnn.data.annotations import problems
from mrcnn.data.annotations.annotated import AnnotatedDataset, Instance
from mrcnn.data.annotations.outlines import Outline, Polygons
from mrcnn.data.annotations.problems import LEFT_OUT, AnnotationError, Problem
from mrcnn.data.check import report
from mrcnn.data.check.findings import (
    BOX_PIXELS,
    Region,
    beyond,
    crossings,
    may_cross,
    polygon_regions,
    region,
    same_masks,
    unlike_box,
)
from mrcnn.data.check.report import AS_IS, RAISES
from mrcnn.data.check.statistics import Statistics
from mrcnn.data.dataset import Dataset
from mrcnn.data.images import read_header, read_image
from mrcnn.data.images.orientation import upright_size
from mrcnn.data.sample import read_instances

TINY_SIDE = 32  # pixels
USED = "used"


class Drawn(NamedTuple):
    """An instance in the dataset. record, field: its location in the file; outline, box: None if it has none."""

    record: str
    field: str
    class_id: int
    region: Region
    outline: Outline | None = None
    box: Sequence[float] | None = None


class Used(NamedTuple):
    """An instance that training can use."""

    record: str
    field: str
    class_id: int
    region: Region


class Checker:
    """Checks images one after another.

    Args:
        dataset: a prepared Dataset.
        statistics: filled with the instances that are used.
        decode: also check the images' pixels.
    """

    def __init__(self, dataset: Dataset, statistics: Statistics, decode: bool) -> None:
        self.dataset, self.statistics, self.decode = dataset, statistics, decode
        self._annotated = dataset if isinstance(dataset, AnnotatedDataset) else None
        self.file = (self._annotated and self._annotated.file) or type(dataset).__name__
        self._found: list[Problem] = []
        self.places: dict[Problem, report.Place] = {}
        self._at: report.Place | None = None  # what is being checked
        self._records = {treatment: Counter(images=0, instances=0) for treatment in (USED, RAISES)}
        self._paths: dict[str, str] = {}
        self._pixels: dict[bytes, str] = {}
        self._class_ids = {(info["source"], info["id"]): number for number, info in enumerate(dataset.class_info)}
        self._sound: set[int] = set()  # id() of polygons that do not cross themselves

    def findings(self) -> list[Problem]:
        """Findings of the dataset's reader, of rasterizing its masks, and of this check."""
        return [*(self._annotated.problems if self._annotated else ()), *self._found]

    def records(self) -> dict[str, dict[str, int]]:
        """How many images, instances and other records are used, would raise in training, or were left out."""
        lost = Counter(images=0, instances=0, others=0)
        for problem in self.findings():
            lost.update(_lost(problem))
        return {
            **{treatment: {**counts, "others": 0} for treatment, counts in self._records.items()},
            LEFT_OUT: dict(lost),
        }

    def images(self, image_ids: Sequence[int]) -> None:
        """Checks images one after another, after a fast check of all their polygons at once."""
        infos = (self.dataset.image_info[i] for i in image_ids)
        outlines = (instance.outline for info in infos if self._annotated for instance in info["instances"])
        parts = [part for outline in outlines if isinstance(outline, Polygons) for part in outline.parts]
        self._sound = {id(part) for part, crosses in zip(parts, may_cross(parts), strict=True) if not crosses}
        for image_id in image_ids:
            self.image(image_id)

    def image(self, image_id: int) -> None:
        """Checks an image and its instances."""
        before, name, used = len(self._found), self._name(image_id), []
        self._at = report.Place(image_id, None)
        known = size = self._size(image_id, name)
        for drawn, size in self._drawn(image_id, name, known):  # size: that of the masks, if the image's is unknown
            self._at = report.Place(image_id, drawn.region.box)
            if self._usable(drawn, size):
                used.append(Used(drawn.record, drawn.field, drawn.class_id, drawn.region))
            self._at = report.Place(image_id, None)
        self._repeated(used, image_id)
        self._at = report.Place(image_id, None)
        raises = any(problem.treatment == RAISES for problem in self._found[before:])
        if not raises:
            self._counted(used, name)
        if size is not None and min(size) < TINY_SIDE:
            self._note(report.TINY, name, "", f"it is only {size[1]} x {size[0]} pixels (width x height)", AS_IS)
        self._records[RAISES if raises else USED].update(images=1, instances=len(used))
        self.statistics.add_image(size, [(u.class_id, u.region.area, *_sides(u.region.box)) for u in used])

    def classes(self) -> None:
        """Notes classes without instances."""
        self._at = None
        for row in self.statistics.classes():
            if not row["instances"]:
                self._note(
                    report.UNUSED,
                    f"class {row['id']}",
                    "",
                    f"no instance has class {row['name']!r}",
                    "nothing to learn it from",
                )

    def _note(self, kind: str, record: str, field: str, message: str, treatment: str) -> None:
        lost = int(treatment == LEFT_OUT)  # always an instance: the reader handles images
        problem = Problem(kind, self.file, record, field, message, treatment, instances=lost)
        self._found.append(problem)
        if self._at is not None:
            self.places.setdefault(problem, self._at)

    def _name(self, image_id: int) -> str:
        info = self.dataset.image_info[image_id]
        if "record" not in info:
            return f"image {image_id} ({info['source']} {info['id']!r}, {info['path']})"
        return _with(info["record"], info["path"])

    def _size(self, image_id: int, name: str) -> tuple[int, int] | None:
        """(height, width) of an image, None if unknown; notes problems with its file."""
        info = self.dataset.image_info[image_id]
        declared = (info["height"], info["width"]) if {"height", "width"} <= info.keys() else None
        try:
            if isinstance(info["path"], (str, os.PathLike)):
                self._listed(os.path.realpath(info["path"]), name)
            return self._decoded(image_id, name) if self.decode else self._header(image_id, declared)
        except AnnotationError as error:
            self._note(problems.SIZE, name, error.field, _message(error), RAISES)
        except FileNotFoundError as error:
            self._note(problems.MISSING, name, "", str(error), RAISES)
        except Exception as error:  # load_image may be user code
            self._note(problems.UNREADABLE, name, "", _message(error), RAISES)
        return declared

    def _listed(self, path: str, name: str) -> None:
        if path in self._paths:
            self._note(
                report.LISTED_TWICE,
                name,
                "",
                f"{path!r} is also the file of {self._paths[path]}",
                "each record is used separately",
            )
        self._paths.setdefault(path, name)

    def _decoded(self, image_id: int, name: str) -> tuple[int, int]:
        image = np.asarray(self.dataset.load_image(image_id))
        if image.ndim == 3 and image.shape[2] > 4:  # for a network with more channels; others become RGB
            image = read_image(image, image.shape[2])
        else:
            image = read_image(image)
        digest = hashlib.blake2b(repr(image.shape).encode() + image.tobytes(), digest_size=16).digest()
        first = self._pixels.setdefault(digest, name)
        path = self.dataset.image_info[image_id]["path"]
        if first != name and (path is None or self._paths.get(os.path.realpath(path)) == name):
            self._note(report.SAME_IMAGE, name, "", f"it has the same pixels as {first}", AS_IS)
        return image.shape[:2]

    def _header(self, image_id: int, declared: tuple[int, int] | None) -> tuple[int, int] | None:
        """The size in the file's header, unless load_image is user code; raises if it is not the declared one."""
        if type(self.dataset).load_image not in (Dataset.load_image, AnnotatedDataset.load_image):
            return declared
        path = self.dataset.image_info[image_id]["path"]
        if path is None:
            raise ValueError("it has no path; override load_image to create or fetch its pixels")
        header = read_header(path, self.dataset.max_pixels)
        found = upright_size(header.size, self.dataset.orientation_of(image_id, header))
        if declared is not None and found != tuple(declared):
            raise AnnotationError(
                self.file,
                "",
                "height/width",
                f"the annotations are for a {declared[0]} x "
                f"{declared[1]} image, but {os.fspath(path)!r} is {found[0]} x {found[1]} (height x width)",
            )
        return found

    def _drawn(self, image_id: int, name: str, size: tuple[int, int] | None) -> Iterator[tuple[Drawn, tuple[int, int]]]:
        """The instances of an image, each with the size of its mask."""
        if self._annotated is not None and type(self.dataset).load_mask is AnnotatedDataset.load_mask:
            return self._outlined(self._annotated, image_id, name)
        return self._loaded(image_id, name, size)

    def _outlined(self, dataset: AnnotatedDataset, image_id: int, name: str) -> Iterator[tuple[Drawn, tuple[int, int]]]:
        """The instances of an image, for a dataset made by a reader."""
        info, boxes = dataset.image_info[image_id], dataset.load_boxes(image_id)
        instances, size = info["instances"], (info["height"], info["width"])
        file = os.path.basename(os.fspath(info["path"] or ""))
        stem = repr(os.path.splitext(file)[0])
        drawn = [n for n, instance in enumerate(instances) if isinstance(instance.outline, Polygons)]
        outlines = [outline for n in drawn if isinstance(outline := instances[n].outline, Polygons)]
        regions = dict(zip(drawn, polygon_regions(outlines, *size), strict=True))
        for number, instance in enumerate(instances):
            record = instance.record or f"{name}, instance {number}"
            if file not in record and stem not in record:
                record = f"{record} ({file})"
            try:
                found = regions[number] if number in regions else self._filled(dataset, image_id, instance)
            except AnnotationError as error:  # only a strict dataset raises; others note it themselves
                self._note(problems.BROKEN, record, instance.field, _message(error), RAISES)
                self._records[RAISES].update(instances=1)
                continue
            if number in regions and not found.area:
                self._filled(dataset, image_id, instance)  # this counts the instance
            class_id = self._class_ids[info["source"], instance.class_id]
            signed = -class_id if instance.crowd else class_id
            box = None if boxes is None else boxes[number]
            yield Drawn(record, instance.field, signed, found, instance.outline, box), size

    @staticmethod
    def _filled(dataset: AnnotatedDataset, image_id: int, instance: Instance) -> Region:
        """The region of an instance, rasterized as for training."""
        y1, x1, y2, x2, bits = dataset._fill(image_id, instance)
        return Region((int(y1), int(x1), int(y2), int(x2)), int(np.unpackbits(bits).sum()), bits)

    def _loaded(
        self, image_id: int, name: str, size: tuple[int, int] | None
    ) -> Iterator[tuple[Drawn, tuple[int, int]]]:
        """The instances of an image, for any Dataset."""
        try:
            loaded = self.dataset.load_mask(image_id)
            size = np.shape(loaded[0])[:2] if size is None else size
            once = SimpleNamespace(load_mask=lambda _: loaded)
            masks, class_ids = read_instances(once, image_id, size, self.dataset.num_classes)
            given = self.dataset.load_boxes(image_id) if hasattr(self.dataset, "load_boxes") else None
            boxes = None if given is None else np.asarray(given, float).reshape(len(class_ids), 4)
        except Exception as error:  # load_mask and load_boxes are user code
            self._note(problems.BROKEN, name, "", _message(error), RAISES)
            return
        for number, class_id in enumerate(class_ids.tolist()):
            box = None if boxes is None else boxes[number]
            drawn = Drawn(f"{name}, instance {number}", "", class_id, region(masks[..., number]), None, box)
            if not drawn.region.area:
                self._note(problems.EMPTY, drawn.record, "", "it covers no pixels", LEFT_OUT)
            yield drawn, size

    def _usable(self, drawn: Drawn, size: tuple[int, int]) -> bool:
        """Whether training uses the instance; notes anything suspicious."""
        if not drawn.region.area or not self._boxed(drawn, size):
            return False
        if drawn.outline is not None:
            self._outline(drawn, size)
        return True

    def _boxed(self, drawn: Drawn, size: tuple[int, int]) -> bool:
        """Whether training can use the given box."""
        if drawn.box is None:
            return True
        y1, x1, y2, x2 = box = [float(value) for value in drawn.box]
        ty1, tx1, ty2, tx2 = drawn.region.box
        if max(abs(y1 - ty1), abs(x1 - tx1), abs(y2 - ty2), abs(x2 - tx2)) <= BOX_PIXELS and min(y2 - y1, x2 - x1) >= 1:
            return True
        where, (tall, wide) = (drawn.record, drawn.field), size
        text = f"its box spans {_numbers(box)} (y1, x1, y2, x2)"
        if not (min(y2, tall) > max(y1, 0) and min(x2, wide) > max(x1, 0)):
            kind = problems.SMALL if min(y2 - y1, x2 - x1) < 1 else report.BOX
            self._note(kind, *where, f"{text}, which has no area in the image of {size}", LEFT_OUT)
            return False
        if min(y2 - y1, x2 - x1) < 1:
            self._note(problems.SMALL, *where, text, AS_IS)
            return True
        iou = unlike_box(box, drawn.region.box, size)
        if iou is not None:
            self._note(
                report.BOX,
                *where,
                f"{text}, its mask {_numbers(drawn.region.box)}; their IoU is {iou:.2f}",
                "the box is used as is, and the part of the mask inside it",
            )
        return True

    def _outline(self, drawn: Drawn, size: tuple[int, int]) -> None:
        """Notes outlines that leave the image, cross themselves or are smaller than a pixel."""
        bounds = None if drawn.outline is None else drawn.outline.bounds()
        if bounds is None:
            return
        where, far = (drawn.record, drawn.field), beyond(bounds, size)
        thin = drawn.box is None and min(bounds[2] - bounds[0], bounds[3] - bounds[1]) < 1
        text = f"it spans {_numbers(bounds)} (y1, x1, y2, x2)" if far or thin else ""
        if far:
            self._note(
                problems.PARTLY_OUTSIDE,
                *where,
                f"{text}, up to {far:.1f} pixels beyond the image of {size}",
                "cut off at the border",
            )
        if thin:
            self._note(problems.SMALL, *where, text, AS_IS)
        if isinstance(drawn.outline, Polygons):
            doubtful = [part for part in drawn.outline.parts if id(part) not in self._sound]
            places = np.concatenate([np.zeros((0, 2)), *(crossings(part) for part in doubtful)]) if doubtful else None
            if places is not None and len(places):
                x, y = places[0].tolist()
                times = "once" if len(places) == 1 else f"{len(places)} times, first"
                self._note(
                    problems.SELF_CROSSING,
                    *where,
                    f"it crosses itself {times} at x {x:.1f}, y {y:.1f}",
                    "used as is; areas enclosed twice become holes",
                )

    def _repeated(self, used: list[Used], image_id: int) -> None:
        """Notes masks that are drawn twice."""
        things = [u for u in used if u.class_id > 0]
        for first, second, iou in same_masks([u.region for u in things]):
            one, two = things[first], things[second]
            self._at = report.Place(image_id, two.region.box)
            names = [self.dataset.class_names[u.class_id] for u in (one, two)]
            same = one.class_id == two.class_id
            what = f"the same mask as {one.record} (IoU {iou:.3f})" + ("" if same else f", {names[1]} and {names[0]}")
            self._note(problems.DUPLICATE if same else report.SAME_MASK, two.record, two.field, what, AS_IS)

    def _counted(self, used: list[Used], name: str) -> None:
        """Notes images with no or too many instances."""
        count, limit = sum(u.class_id > 0 for u in used), self.statistics.max_instances
        if not count:
            why = "it only has crowds" if used else "it has no usable annotations"
            self._note(problems.UNANNOTATED, name, "", why, "skipped in training")
        if count > limit:
            self._note(report.CROWDED, name, "", f"it has {count}", f"{limit} random ones are used in each step")


def _lost(problem: Problem) -> dict[str, int]:
    """How many images, instances and other records a problem leaves out."""
    if problem.treatment != LEFT_OUT:
        return {}
    lost = {"images": problem.images, "instances": problem.instances}
    return lost if any(lost.values()) else {"others": 1}


def _with(record: str, path: Any) -> str:
    """The record with the name of its image, unless it already contains it."""
    name = os.path.basename(os.fspath(path)) if path else ""
    return record if name in record or repr(os.path.splitext(name)[0]) in record else f"{record} ({name})"


def _message(error: Exception) -> str:
    text = str(error)
    if isinstance(error, AnnotationError):
        text = text.removeprefix(str(AnnotationError(error.file, error.record, error.field, "")))
    return text or type(error).__name__


def _numbers(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in np.round(np.asarray(values, float), 1).tolist()) + ")"


def _sides(box: Sequence[int]) -> tuple[int, int]:
    return box[2] - box[0], box[3] - box[1]

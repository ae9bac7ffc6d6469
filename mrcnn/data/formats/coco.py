"""COCO JSON, as written by COCO, LVIS and many tools: polygons, RLE, crowds, keypoints, or boxes only."""

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from mrcnn.data import rle
from mrcnn.data.annotations import problems
from mrcnn.data.annotations.annotated import AnnotatedDataset, Instance
from mrcnn.data.annotations.classes import is_class
from mrcnn.data.annotations.fields import MOST, NEEDS_MASKS, FieldError, Unread, id_of, plain_id, shown
from mrcnn.data.annotations.folders import (
    INSTANCES,
    LOOKED_AT,
    Places,
    files_in,
    folder_or_root,
    of_subset,
    spellings,
    stem_of,
)
from mrcnn.data.annotations.image_finder import ImageFinder
from mrcnn.data.annotations.json_records import NO_LIST, read_records
from mrcnn.data.annotations.keypoint_fields import coco_keypoints, read_keypoints
from mrcnn.data.annotations.outlines import FAR, Bounds, Outline, Polygons
from mrcnn.data.annotations.problems import AnnotationError
from mrcnn.data.annotations.segmentations import plain_polygons, read_outline
from mrcnn.data.annotations.text_files import Head, read_head
from mrcnn.data.formats.coco_categories import Categories

LISTS = ("images", "categories", "annotations")
OTHER_FORMATS = {"shapes", "imagePath", "imageData", "imageHeight", "_via_settings", "_via_img_metadata"}
TELLS = frozenset({"images", "annotations", "shapes", "_via_img_metadata"})
MOST_SIDE = 100_000  # largest image side in pixels
NUMBERS = {int, float}
MISSING = "missing"
KEYPOINTS = "person_keypoints_"  # before the subset in the names of COCO's keypoint files


class Record(NamedTuple):
    """An annotation as stored in the file, except that plain polygons are already converted."""

    place: int
    id: Any
    image: Any
    category: Any
    outline: Polygons | None
    segmentation: Any
    box: Any
    area: Any
    crowd: Any
    keypoints: Any = None


class Stored(NamedTuple):
    """What the evaluation takes from the file instead of the mask. box: [x, y, width, height]. area: may be None."""

    id: int
    box: Sequence[float]
    area: float | None


class CocoDataset(AnnotatedDataset):
    """Images annotated in COCO format, read by `read_coco`."""

    def annotations(self, image_id: int) -> list[dict[str, Any]]:
        """An image's annotations in the form COCO's evaluation expects, with the file's own ids, areas and boxes.

        category_id is the class id in this dataset, image_id its image id; segmentation is compressed RLE, absent if
        the dataset was read with masks=False. With a skeleton also keypoints [x, y, visibility] * K and num_keypoints.
        """
        info, class_ids = self.image_info[image_id], self.load_class_ids(image_id)
        runs = rle.encode_all(self.load_mask(image_id)[0]) if self.masks else [None] * len(class_ids)
        points = self.load_keypoints(image_id)
        more = [{}] * len(class_ids) if points is None else [coco_keypoints(own) for own in points]
        return [
            {
                "id": stored.id,
                "image_id": image_id,
                "category_id": int(abs(class_id)),
                "bbox": list(stored.box),
                "area": _area(stored, run),
                "iscrowd": int(class_id < 0),
                **({} if run is None else {"segmentation": run}),
            }
            | own
            for stored, class_id, run, own in zip(info["stored"], class_ids, runs, more, strict=True)
        ]

    def image_reference(self, image_id: int) -> str:
        """The URL of the image in COCO's explorer."""
        return f"https://cocodataset.org/#explore?id={self.image_info[image_id]['id']}"


def _area(stored: Stored, run: rle.Rle | None) -> float:
    """The area stored in the file, else of the mask, else of the box."""
    if stored.area is not None:
        return stored.area
    return rle.area(run) if run is not None else float(stored.box[2] * stored.box[3])


def find(path: str, subset: str | None) -> Places:
    """A JSON file; annotations/instances_<subset>.json; a JSON file in the folder `subset` or named after it."""
    if os.path.isfile(path):
        files = [path] if path.lower().endswith(".json") and is_coco(read_head(path, TELLS)) else []
    else:
        official = _coco_files(os.path.join(path, "annotations"), None)
        instances = [file for file in official if stem_of(file).startswith(INSTANCES)]
        files = of_subset(instances or official, subset)
        files = files or _coco_files(folder_or_root(path, subset), LOOKED_AT)
        files = files or [
            file for file in of_subset(files_in(path, ".json"), subset) if is_coco(read_head(file, TELLS))
        ]
    return [{"annotation_file": file, "subset": subset} for file in files]


def is_coco(head: Head) -> bool:
    """Whether the keys are those of a COCO instances file."""
    return bool(head.top & {"images", "annotations"}) and not head.top & OTHER_FORMATS


def _coco_files(folder: str, most: int | None) -> list[str]:
    return [file for file in files_in(folder, ".json")[:most] if is_coco(read_head(file, TELLS))]


def read_coco(
    annotation_file: str | os.PathLike,
    image_dir: str | os.PathLike | None = None,
    *,
    subset: str | None = None,
    class_name: str | None = None,
    class_names: Sequence[str] | None = None,
    source: str = "coco",
    masks: bool = True,
    upright: bool | None = None,
    strict: bool = True,
) -> CocoDataset:
    """Reads a COCO `instances` file, or one of LVIS.

    Fields that training does not need or that can be recovered may be invalid: areas, boxes, annotation ids, image
    sizes. Each value that is ignored is recorded in `problems`.

    Args:
        annotation_file: the JSON file.
        image_dir: folder of the images. None: the folder named after the file or the subset, images/, the folder of
            the JSON file, or else the subfolder that holds the images.
        subset: a possible name of the image folder.
        class_name: the class of all instances in a file without categories; None: the only entry of class_names, or
            "object".
        class_names: the classes to read, in this order; annotations of other categories are skipped. None: all
            categories in ascending order of id; ids need not be 1, 2, 3.
        source: name of the source in the dataset.
        masks, upright, strict: see `AnnotatedDataset`.

    Returns:
        A prepared dataset, with images ordered by id.

    Raises:
        FileNotFoundError: the file does not exist.
        AnnotationError: an invalid record, named by file, record and field; a file with boxes only, unless masks is
            False.
        ValueError: class_names has duplicates.
    """
    dataset = CocoDataset(os.fspath(annotation_file), strict, masks=masks, upright=upright)
    with _without_garbage_collection():
        _Reader(dataset, source).read(
            None if image_dir is None else os.fspath(image_dir), subset, class_name, class_names
        )
    return dataset.finish()


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Reading creates millions of small objects and no garbage; garbage collection would double the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.freeze()  # followed by unfreeze, this marks the new objects as old without scanning them
            gc.unfreeze()
            gc.enable()


class _Reader:
    """Reads one file. Images, categories and annotations may come in any order."""

    def __init__(self, dataset: CocoDataset, source: str) -> None:
        self.dataset, self.source, self.file = dataset, source, dataset.file
        self.images: dict[Any, dict] = {}
        self.records: list[Record] = []
        self.unread = Unread(dataset.problems, dataset.file)
        self.categories = Categories(dataset, source, self.unread)

    def read(
        self, image_dir: str | None, subset: str | None, class_name: str | None, class_names: Sequence[str] | None
    ) -> None:
        """Fills the dataset."""
        self._read_lists()
        used = {key for value in {*map(_plain_category, self.records)} if (key := plain_id(value)) is not None}
        self.categories.drop_unused(used)
        numbers = self.categories.classes(used, class_name, class_names)
        self.categories.read_skeleton(numbers)
        self._check_boxes_only()
        by_image = self._by_image(numbers)
        above, folders = _folders(self.file, subset)
        finder = ImageFinder([image["file_name"] for image in self.images.values()], folders, above, image_dir)
        for key in sorted(self.images, key=lambda key: (isinstance(key, str), key)):
            self._add(key, self.images[key], by_image.pop(key, ()), finder)
        finder.note(self.dataset.problems, self.file)
        self.unread.note()
        if not self.dataset.image_info:
            message = "none of its images can be read; check image_dir"
            self.dataset.problems.broken(self.file, "", "images", message)

    def _read_lists(self) -> None:
        found: dict[str, Any] = {}
        for key, place, records in read_records(self.file, "COCO annotations", LISTS):
            if place == NO_LIST:
                found[key] = records
            elif key == "annotations":
                self._convert(place, records)
            else:
                for number, record in enumerate(records, place):
                    self._enter(key, number, record)
        for key in ("images", "annotations"):
            if not isinstance(found.get(key), list):
                message = f"expected a list of {key}, got {shown(found.get(key))}; is it a COCO instances file?"
                raise AnnotationError(self.file, "", key, message)
        if not isinstance(found.get("categories", []), list | None):
            message = f"expected a list of categories, got {shown(found['categories'])}"
            self.dataset.problems.broken(self.file, "", "categories", message)

    def _enter(self, key: str, place: int, record: Any) -> None:
        """Adds an image or a category; invalid records are skipped."""
        table = self.images if key == "images" else self.categories.by_id
        name = f"{key}[{place}]"
        name += f" (id {shown(record['id'])})" if isinstance(record, dict) and "id" in record else ""
        try:
            if not isinstance(record, dict) or "id" not in record:
                raise FieldError("id", "missing")
            number = id_of(record["id"], "id")
            entry = self._image(record, name) if key == "images" else self.categories.entry(record, name, number)
            if number in table:
                if entry == table[number]:
                    self.unread.add(key[:-1], name, "id", "the record appears twice", "the first is used")
                    return
                raise FieldError("id", "another record has the same id", problems.CLASH)
        except FieldError as error:
            where = self.file, name, error.field, str(error), error.kind
            self.dataset.problems.broken(*where, images=int(key == "images"), instances=0)
        else:
            table[number] = entry

    def _image(self, record: dict, name: str) -> dict[str, Any]:
        """The fields of an image that are used. height, width: None if invalid."""
        file_name = record.get("file_name")
        if file_name is None:  # LVIS only has a URL
            file_name = record.get("coco_url", record.get("path"))
        if file_name is None:
            raise FieldError("file_name", "missing")
        if not isinstance(file_name, str) or not file_name or "\0" in file_name:
            raise FieldError("file_name", f"expected a string, got {shown(file_name)}")
        size: list[int | None] = []
        for field in ("height", "width"):
            value: Any = record.get(field)
            fits = type(value) in NUMBERS and 1 <= value <= MOST_SIDE and value == int(value)
            if not fits:
                message = f"expected 1 to {MOST_SIDE} pixels, got {shown(value)}"
                self.unread.add("image", name, field, message, "the size is read from the image")
            size.append(int(value) if fits else None)
        height, width = size if None not in size else (None, None)
        return {"id": record["id"], "file_name": file_name, "height": height, "width": width}

    def _convert(self, first: int, records: list[Any]) -> None:
        """Stores a batch of annotations; converting their polygons together is much faster."""
        outlines = plain_polygons([record.get("segmentation") if type(record) is dict else None for record in records])
        for place, (record, outline) in enumerate(zip(records, outlines, strict=True), first):
            if type(record) is not dict:
                where = self.file, f"annotations[{place}]", "", f"expected an object, got {shown(record)}"
                self.dataset.problems.broken(*where, images=0, instances=1)
                continue
            get = record.get
            segmentation = get("segmentation") if outline is None else None
            ids, area, crowd = (get("id"), get("image_id"), get("category_id")), get("area", MISSING), get("iscrowd", 0)
            self.records.append(Record(place, *ids, outline, segmentation, get("bbox"), area, crowd, get("keypoints")))

    def _check_boxes_only(self) -> None:
        """Raises AnnotationError if the annotations have boxes but no outlines."""
        if not self.dataset.masks or not self.records:
            return
        if all(record.outline is None and _is_empty(record.segmentation) for record in self.records):
            if any(record.box for record in self.records):
                first = self.records[0]
                message = f"{NEEDS_MASKS}; {len(self.records)} annotations have an empty segmentation"
                where = self.file, _name(first), "segmentation", message, problems.BOXES_ONLY
                self.dataset.problems.broken(*where, images=0, instances=len(self.records))
                self.records.clear()

    def _by_image(self, numbers: dict[Any, int | None]) -> dict[Any, list[tuple[Instance, Stored]]]:
        """Instances by image, in file order."""
        by_image: dict[Any, list[tuple[Instance, Stored]]] = {}
        ids: dict[Any, Record] = {}
        free = max(
            (record.id for record in self.records if type(record.id) is int and abs(record.id) < 2**62), default=0
        )
        for record in self.records:
            try:
                image = record.image if type(record.image) is int else id_of(record.image, "image_id")
                if image not in self.images:
                    message = f"{shown(record.image)} is not among the ids of the file's {len(self.images)} images"
                    raise FieldError("image_id", message)
                category = record.category if type(record.category) is int else plain_id(record.category)
                if category not in numbers:
                    message = (
                        f"{shown(record.category)} is not among the ids of the file's {len(self.categories.by_id)}"
                    )
                    raise FieldError("category_id", f"{message} categories")
                number = numbers[category]
                if number is None:
                    self._note_not_a_class(record, category)
                    continue
                instance = self._instance(record, number, self.images[image])
            except FieldError as error:
                where = self.file, _name(record), error.field, str(error)
                self.dataset.problems.broken(*where, images=0, instances=1)
                continue
            number = record.id
            if type(number) is not int or number in ids:
                if type(number) is int and self._is_repeated(record, ids[number]):
                    continue
                free += 1
                number = free
                message = f"expected a unique integer, got {shown(record.id)}"
                self.unread.add("annotation", instance.record, "id", message, "a new id is assigned")
            ids[number] = record
            by_image.setdefault(image, []).append((instance, self._stored(record, instance, number)))
        self.records.clear()
        return by_image

    def _note_not_a_class(self, record: Record, category: Any) -> None:
        """Notes an instance whose category is not a class, unless its class was not requested."""
        name = self.categories.name(category)
        if name and not is_class(name):
            where = self.file, _name(record), "category_id", f"{name!r} is not a class"
            self.dataset.problems.left_out(problems.NOT_A_CLASS, *where, images=0, instances=1)

    def _is_repeated(self, record: Record, first: Record) -> bool:
        """Whether an annotation duplicates an earlier one; notes it."""
        fields = [(r.image, r.category, r.box, r.area, r.segmentation, r.keypoints) for r in (record, first)]
        outlines = [r.outline.parts if r.outline is not None else () for r in (record, first)]
        same = fields[0] == fields[1] and len(outlines[0]) == len(outlines[1])
        if not same or not all(map(np.array_equal, *outlines)):
            return False
        where = self.file, f"annotations[{record.place}] (id {record.id})", "id", "the record appears twice"
        self.dataset.problems.left_out(problems.CLASH, *where, images=0, instances=1)
        return True

    def _instance(self, record: Record, number: int, image: dict) -> Instance:
        """Raises FieldError for an annotation whose outline, or only box, cannot be read."""
        name = _name(record)
        outline: Outline | None = record.outline
        if outline is None and (self.dataset.masks or not _is_empty(record.segmentation)):
            outline = read_outline(record.segmentation, image["height"], image["width"])
        box = self._box(record, name, outline)
        if outline is None and box is None:
            raise FieldError("bbox", f"expected [x, y, width, height], got {shown(record.box)}")
        crowd = record.crowd
        if crowd not in (0, 1) or type(crowd) not in (int, bool, float):
            if crowd in ("0", "1"):
                crowd = crowd == "1"
            else:
                self.unread.add("annotation", name, "iscrowd", f"expected 0 or 1, got {shown(crowd)}", "read as 0")
                crowd = 0
        return Instance(number, outline, bool(crowd), box, name, "segmentation", self._keypoints(record, name))

    def _keypoints(self, record: Record, name: str) -> np.ndarray | None:
        """[K, (y, x, visibility)] in continuous pixels; COCO's are those of the pixels that hold them."""
        skeleton, values = self.dataset.skeleton, record.keypoints
        if skeleton is None or not values:
            return None
        found = read_keypoints(values, skeleton.count)
        if found is None:
            message = f"expected {3 * skeleton.count} numbers x, y, visibility ..., got {shown(values)}"
            self.unread.add("annotation", name, "keypoints", message, "its keypoints are taken as not labeled")
        return found

    def _box(self, record: Record, name: str, outline: Outline | None) -> Bounds | None:
        """The annotation's box; if it is not usable, the box of the outline."""
        box = record.box
        if _is_box(box):
            x, y, width, height = box
            return float(y), float(x), float(y + height), float(x + width)
        if box is not None and box != []:
            message = f"expected [x, y, width, height] in pixels, width and height >= 0, got {shown(box)}"
            self.unread.add("annotation", name, "bbox", message, "the box is computed from the outline")
        if outline is None:
            return None
        drawn = not isinstance(outline, Polygons) or any(len(part) for part in outline.parts)
        return outline.bounds() if drawn else (0.0,) * 4  # empty outlines are dropped later

    def _stored(self, record: Record, instance: Instance, number: int) -> Stored:
        box = record.box  # unchanged: adding and subtracting would lose the last digits
        if not _is_box(box):
            y1, x1, y2, x2 = instance.box or (0.0,) * 4
            box = (x1, y1, x2 - x1, y2 - y1)
        area = record.area
        if type(area) not in NUMBERS or not 0 <= area < MOST:
            if area != MISSING:
                message = f"expected a number >= 0, got {shown(area)}"
                self.unread.add("annotation", instance.record, "area", message, "the area is computed from the mask")
            area = None
        return Stored(number, box, area)

    def _add(self, key: Any, image: dict, read: Sequence[tuple[Instance, Stored]], finder: ImageFinder) -> None:
        """Adds an image with its annotations that have a usable outline."""
        path = finder.path(image["file_name"])
        added = self.dataset.add_annotated(
            self.source,
            key,
            path,
            [instance for instance, _ in read],
            height=image["height"],
            width=image["width"],
            hint=finder.why(path),
            file_name=image["file_name"],
        )
        if added:
            info = self.dataset.image_info[-1]
            if len(info["instances"]) == len(read):
                info["stored"] = [stored for _, stored in read]
            else:
                by_record = {instance.record: stored for instance, stored in read}
                info["stored"] = [by_record[instance.record] for instance in info["instances"]]


def _is_empty(segmentation: Any) -> bool:
    """Whether there is no outline: null, [] or [[]]."""
    return segmentation is None or segmentation in ([], [[]], {})


def _name(record: Record) -> str:
    return f"annotation {record.id}" if type(record.id) is int else f"annotations[{record.place}]"


def _is_box(box: Any) -> bool:
    """Whether a value is [x, y, width, height] in pixels."""
    if type(box) is not list or len(box) != 4:
        return False
    x, y, width, height = box
    if not (type(x) in NUMBERS and type(y) in NUMBERS and type(width) in NUMBERS and type(height) in NUMBERS):
        return False
    return -FAR <= x <= FAR and -FAR <= y <= FAR and 0 <= width <= FAR and 0 <= height <= FAR


def _plain_category(record: Record) -> Any:
    return record.category if isinstance(record.category, str | int | float) else None


def _folders(file: str, subset: str | None) -> tuple[str, list[str]]:
    """The dataset's folder, and the subfolders that conventionally hold its images."""
    above, stem = os.path.dirname(file), stem_of(file)
    if os.path.basename(above) == "annotations":
        above = os.path.dirname(above)
    above = above or "."
    name = stem.removeprefix(INSTANCES).removeprefix(KEYPOINTS)
    names = list(dict.fromkeys([name, *(spellings(name)), *(spellings(subset) if subset else ())]))
    places = [os.path.join(above, *parts, n) for n in names for parts in ((), ("images",))]
    return above, [*places, os.path.join(above, "images"), above, os.path.dirname(file) or "."]

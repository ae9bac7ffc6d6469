"""TFRecord files of the TensorFlow Object Detection API and Model Garden, read without TensorFlow.

https://github.com/tensorflow/models/blob/master/research/object_detection/data_decoders/tf_example_decoder.py
"""

import io
import os
import re
from collections.abc import Sequence

import numpy as np

from mrcnn.data import rle
from mrcnn.data.annotations import problems
from mrcnn.data.annotations.annotated import AnnotatedDataset, Instance
from mrcnn.data.annotations.classes import BACKGROUND_NAMES, class_table, is_class, only_name
from mrcnn.data.annotations.fields import FieldError, Unread
from mrcnn.data.annotations.folders import Places, files_in, folder_or_root, names_in, of_subset
from mrcnn.data.annotations.outlines import Bounds, MaskFile, Outline, Runs
from mrcnn.data.annotations.problems import AnnotationError, Lost
from mrcnn.data.annotations.text_files import read_text
from mrcnn.data.annotations.tf_examples import Feature, Record, check_record, read_examples
from mrcnn.data.images import Header, ImageFile
from mrcnn.data.images.headers import parse_header

NAME = re.compile(r"\.(tf_?)?records?(-\d+-of-\d+)?$|-\d+-of-\d+$", re.IGNORECASE)  # train.record-00000-of-00010
LABEL_MAP = ".pbtxt"
ITEM = re.compile(r"item\s*\{([^{}]*)\}")
FIELD = re.compile(r"(\w+)\s*:\s*(?:'([^']*)'|\"([^\"]*)\"|([^\s,]+))")
IMAGE, OBJECT = "image/", "image/object/"
ENCODED, MASK, BOX = IMAGE + "encoded", OBJECT + "mask", OBJECT + "bbox/"
SIDES = ("ymin", "xmin", "ymax", "xmax")
NOTHING = Feature([], np.zeros(0))
HEADER = 2**20  # leading bytes of an image that contain its header
ONLY = 1  # the class number in files without classes

ClassKey = int | str


class TfRecordDataset(AnnotatedDataset):
    """Images inside TFRecord files, read by `read_tfrecord`."""

    def load_image(self, image_id: int) -> np.ndarray:
        """The image, upright, [H, W, 3] uint8 RGB. Raises ValueError if its record is damaged."""
        info = self.image_info[image_id]
        record: Record = info["stored"]
        start, length = record.features[ENCODED].places[0]
        data = check_record(record.file, record.start, record.length)
        place = start - record.start
        file = ImageFile.from_bytes(data[place : place + length], f"{record.file}, {record.name}", self.max_pixels)
        return self.of_stated_size(image_id, file.decode(self.orientation_of(image_id, file.header)))

    def source_image_link(self, image_id: int) -> str:
        """The file and record of the image."""
        record: Record = self.image_info[image_id]["stored"]
        return f"{record.file}, {record.name}"


def read_tfrecord(
    dataset_dir: str | os.PathLike,
    subset: str | None = None,
    *,
    class_name: str | None = None,
    class_names: Sequence[str] | None = None,
    label_map: str | os.PathLike | None = None,
    source: str = "tfrecord",
    masks: bool = True,
    upright: bool | None = None,
    strict: bool = True,
) -> TfRecordDataset:
    """Reads files of tf.train.Example: image/encoded, image/object/mask (one PNG each), bbox, class/label, class/text.

    Args:
        dataset_dir: a file, or a folder of files.
        subset: read only the files with this word in their names; None: all in the folder.
        class_name: class of all instances if class/label is missing; None: the only entry of class_names, or "object".
        class_names: the classes, in this order; None: those of the label map, or else those found, ordered by number.
        label_map: a .pbtxt file of items with id and name; None: the only one next to the files.
        source: name of the source in the dataset.
        masks, upright, strict: see `AnnotatedDataset`.

    Returns:
        A prepared dataset, images ordered by image/source_id, or by record number.

    Raises:
        FileNotFoundError: the file or folder is missing.
        AnnotationError: an invalid record, named by file, record and field.
    """
    root = os.fspath(dataset_dir)
    files = _files(root, subset)
    if not files:
        raise FileNotFoundError(f"no TFRecord files in {root!r}, which holds {names_in(folder_or_root(root, subset))}")
    dataset = TfRecordDataset(files[0] if len(files) == 1 else root, strict, masks=masks, upright=upright)
    records = [record for file in files for record in _records(dataset, file)]
    labels = _label_map(files, label_map)
    names = _names(dataset, records, labels) or {ONLY: only_name(class_name, class_names)}
    ids = _classes(dataset, source, names, class_names)
    unread = Unread(dataset.problems, dataset.file)
    for record in records:
        _add(dataset, source, record, names, ids, unread)
    unread.note()
    if not dataset.image_info:
        dataset.problems.broken(dataset.file, "", ENCODED, "no image can be read")
    return dataset.finish()


def find(path: str, subset: str | None) -> Places:
    """A TFRecord file, or those in a folder, judged by file name."""
    return [{"dataset_dir": path, "subset": subset}] if _files(path, subset) else []


def _files(path: str, subset: str | None) -> list[str]:
    if os.path.isfile(path):
        return [path] if NAME.search(path) else []
    inside = [file for file in files_in(folder_or_root(path, subset), "") if NAME.search(file)] if subset else []
    return inside or of_subset([file for file in files_in(path, "") if NAME.search(file)], subset)


def _records(dataset: TfRecordDataset, file: str) -> list[Record]:
    """The records of a file; records after a damaged one cannot be found."""
    found = []
    try:
        for record in read_examples(file):
            found.append(record)
    except AnnotationError as error:
        if dataset.problems.strict:
            raise
        dataset.problems.left_out(problems.BROKEN, file, error.record, "", str(error), images=1, instances=0)
    return found


def _label_map(files: Sequence[str], path: str | os.PathLike | None) -> dict[int, str]:
    """Class names by number; empty without a file."""
    if path is None:
        beside = files_in(os.path.dirname(files[0]) or ".", LABEL_MAP)
        if len(beside) != 1:
            return {}
        path = beside[0]
    text, names = read_text(path, "class names"), {}
    for item in ITEM.finditer(text):
        fields = {match[1]: next(filter(None, match.groups()[1:]), "") for match in FIELD.finditer(item[1])}
        name = fields.get("display_name") or fields.get("name", "")
        if not fields.get("id", "").isdecimal() or not name:
            line = f"line {text.count(chr(10), 0, item.start()) + 1}"
            raise AnnotationError(os.fspath(path), line, "item", f"expected an id and a name, got {item[0]!r:.60}")
        names[int(fields["id"])] = name
    if not names:
        raise AnnotationError(os.fspath(path), "", "item", "it contains no class; expected item { id: 1 name: 'cat' }")
    return dict(sorted(names.items()))


def _keys(record: Record) -> list[ClassKey]:
    """The class of each object: its number, or its name if the file has no numbers."""
    numbers = record.features.get(OBJECT + "class/label", NOTHING).numbers.tolist()
    texts = record.features.get(OBJECT + "class/text", NOTHING)
    keys: list[ClassKey] = [int(number) for number in numbers]
    return keys or [*_texts(record.file, texts)]


def _names(dataset: TfRecordDataset, records: Sequence[Record], labels: dict[int, str]) -> dict[ClassKey, str]:
    """Class names from the label map, else class/text, else "class <number>"."""
    found: dict[ClassKey, set[str]] = {}
    for record in records:
        texts = record.features.get(OBJECT + "class/text", NOTHING)
        names = _texts(record.file, texts) if texts.places and not labels else []
        keys = _keys(record)
        for place, key in enumerate(keys):
            found.setdefault(key, set()).update(names[place : place + 1] if len(names) == len(keys) else ())
    for key, texts_of in found.items():
        if len(texts_of) > 1:
            message = f"{key} has several names: {', '.join(map(repr, sorted(texts_of)))}; pass label_map="
            dataset.problems.broken(dataset.file, "", OBJECT + "class/text", message, images=0, instances=0)
    named = dict[ClassKey, str](labels.items())
    for key in sorted(found.keys() - named.keys(), key=lambda key: (isinstance(key, str), key)):
        named[key] = " or ".join(sorted(found[key])) or (key if isinstance(key, str) else f"class {key}")
    return named


def _classes(
    dataset: TfRecordDataset, source: str, names: dict[ClassKey, str], class_names: Sequence[str] | None
) -> dict[str, int]:
    """Adds the classes, with the file's numbers if it has any, and returns the numbers by name."""
    usable = [name for name in names.values() if is_class(name) and name.lower() not in BACKGROUND_NAMES]
    chosen = class_table((), list(dict.fromkeys(usable)) if class_names is None else class_names)
    numbers = {name: key for key, name in reversed(names.items()) if isinstance(key, int)}
    free = max(numbers.values(), default=0)
    for place, name in enumerate(chosen, 1):  # not add_class, which forbids id 0: numbers may start at 0
        numbers.setdefault(name, free + place)
        dataset.class_info.append({"source": source, "id": numbers[name], "name": name})
    return {name: numbers[name] for name in chosen}


def _texts(file: str, feature: Feature) -> list[str]:
    with open(file, "rb") as stream:
        texts = []
        for start, length in feature.places:
            stream.seek(start)
            texts.append(stream.read(min(length, 1000)).decode("utf-8", "replace"))
    return texts


def _add(
    dataset: TfRecordDataset,
    source: str,
    record: Record,
    names: dict[ClassKey, str],
    ids: dict[str, int],
    unread: Unread,
) -> None:
    """Adds an image."""
    features, where = record.features, (record.file, record.name)
    boxes = _boxes(features)
    lost: Lost = {"images": 1, "instances": len(boxes)}
    if len(features.get(ENCODED, NOTHING).places) != 1:
        dataset.problems.broken(*where, ENCODED, "expected one image", problems.MISSING, **lost)
        return
    try:
        header = _header(record, dataset.max_pixels)
    except ValueError as error:
        dataset.problems.broken(*where, ENCODED, str(error), problems.UNREADABLE, **lost)
        return
    size, tagged = _size(dataset, record, header, unread)
    try:
        outlines = _outlines(record, size, len(boxes))
    except FieldError as error:
        dataset.problems.broken(*where, error.field, str(error), **lost)
        return
    count = len(outlines)
    keys = _keys(record) or [next(iter(names))] * count
    crowds = features.get(OBJECT + "is_crowd", NOTHING).numbers.tolist() or [0] * count
    if not len(keys) == count == len(crowds):
        message = f"the record has {count} objects, {len(keys)} classes and {len(crowds)} is_crowd values"
        dataset.problems.broken(*where, OBJECT + "class/label", message, **lost)
        return
    found = zip((names[key] for key in keys), outlines, crowds, strict=True)
    instances = _instances(dataset, record, list(found), ids, [_scaled(box, size) for box in boxes])
    stored = record._replace(features={ENCODED: features[ENCODED]})
    height, width = size
    dataset.add_annotated(
        source,
        _source_id(record),
        None,
        instances,
        height=height,
        width=width,
        record=f"{record.file}, {record.name}",
        tagged=tagged,
        stored=stored,
    )


def _size(
    dataset: TfRecordDataset, record: Record, header: Header, unread: Unread
) -> tuple[tuple[int, int], Header | None]:
    """As `AnnotatedDataset.sized`, for the size that the record states."""
    stated = [record.features.get(IMAGE + side, NOTHING).numbers.tolist() for side in ("height", "width")]
    known = (int(stated[0][0]), int(stated[1][0])) if all(stated) else None
    size, tagged = dataset.sized(header, known)
    if known not in (None, size):
        message = f"the record says {known} (height, width), the image is {size[0]} x {size[1]}"
        unread.add("image", f"{record.file}, {record.name}", "image/height", message, "the image's size is used")
    return size, tagged


def _instances(
    dataset: TfRecordDataset,
    record: Record,
    found: Sequence[tuple[str, Outline | None, int | float]],
    ids: dict[str, int],
    boxes: Sequence[Bounds | None],
) -> list[Instance]:
    """The objects of the classes that are read.

    found: class name, outline and crowd flag of each object. boxes: theirs, or none at all.
    """
    instances = []
    for place, (name, outline, crowd) in enumerate(found):
        at = f"{record.file}, {record.name}, object {place}"
        if name in ids:
            instances.append(Instance(ids[name], outline, bool(crowd), boxes[place] if boxes else None, at, MASK))
        elif not is_class(name) or name.lower() in BACKGROUND_NAMES:
            what = record.file, at, OBJECT + "class/label", f"{name!r} is not a class"
            dataset.problems.left_out(problems.NOT_A_CLASS, *what, images=0, instances=1)
    return instances


def _header(record: Record, max_pixels: int) -> Header:
    """The image's header. Raises ValueError."""
    start, length = record.features[ENCODED].places[0]
    with open(record.file, "rb") as stream:
        stream.seek(start)
        head = io.BytesIO(stream.read(min(length, HEADER)))
    return parse_header(head, f"{record.file}, {record.name}", max_pixels)


def _source_id(record: Record) -> str:
    for field in ("source_id", "filename"):
        feature = record.features.get(IMAGE + field, NOTHING)
        if feature.places and (text := _texts(record.file, feature)[0]):
            return text
    return f"{os.path.basename(record.file)}:{record.number}"


def _boxes(features: dict[str, Feature]) -> list[tuple[float, ...]]:
    """(ymin, xmin, ymax, xmax) of each object as fractions of the image; empty if some are missing."""
    sides = [features.get(BOX + side, NOTHING).numbers.tolist() for side in SIDES]
    return list(zip(*sides, strict=True)) if len(set(map(len, sides))) == 1 else []


def _scaled(box: tuple[float, ...], size: tuple[int, int]) -> Bounds | None:
    """The box in pixels; None if it is not a valid box."""
    y1, x1, y2, x2 = (float(side) * length for side, length in zip(box, (*size, *size), strict=True))
    return (y1, x1, y2, x2) if -1e5 < y1 <= y2 < 1e5 and -1e5 < x1 <= x2 < 1e5 else None


def _outlines(record: Record, size: tuple[int, int], count: int) -> list[Outline | None]:
    """The outlines of the objects; None for objects with only a box. Raises FieldError."""
    feature = record.features.get(MASK, NOTHING)
    if feature.places:
        if count and len(feature.places) != count:
            raise FieldError(MASK, f"there are {len(feature.places)} masks and {count} boxes")
        return [MaskFile(record.file, None, start, length) for start, length in feature.places]
    if len(feature.numbers):
        pixels = size[0] * size[1]
        if len(feature.numbers) % pixels or (count and len(feature.numbers) != count * pixels):
            message = f"{len(feature.numbers)} values do not make {count} masks of {size[0]} x {size[1]}"
            raise FieldError(MASK, message)
        masks = feature.numbers.reshape(-1, *size) > 0.5
        return [Runs(rle.encode(mask)) for mask in masks]
    return [None] * count

"""RLE in a CSV file, one row per mask, as in Kaggle competitions: iMaterialist, Severstal, clouds and others."""

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Unpack

from mrcnn.data import rle
from mrcnn.data.annotations import problems
from mrcnn.data.annotations.annotated import AnnotatedDataset, Instance
from mrcnn.data.annotations.classes import Labels, class_table, numbered, only_name
from mrcnn.data.annotations.fields import shown
from mrcnn.data.annotations.folders import (
    PICTURES,
    Places,
    files_in,
    fitting_sizes,
    folder_or_root,
    listed,
    of_subset,
    spellings,
    stem_of,
)
from mrcnn.data.annotations.outlines import Runs
from mrcnn.data.annotations.problems import AnnotationError, Lost
from mrcnn.data.annotations.text_files import read_header, read_json, read_rows

IMAGE, PIXELS, HEIGHT, WIDTH, CLASS, ATTRIBUTES = (
    "ImageId",
    "EncodedPixels",
    "Height",
    "Width",
    "ClassId",
    "AttributesIds",
)
BOTH = "ImageId_ClassId"  # "a.jpg_3"
# Other names of the columns, in lowercase and without underscores
COLUMNS = {
    IMAGE: {"imageid", "image", "imagename", "imgid", "filename", "id"},
    PIXELS: {"encodedpixels", "rle", "rlemask", "rleencoding", "annotation"},
    HEIGHT: {"height", "imageheight"},
    WIDTH: {"width", "imagewidth"},
    CLASS: {"classid", "class", "label", "category", "categoryid", "celltype"},
    ATTRIBUTES: {"attributesids"},
    BOTH: {"imageidclassid", "imagelabel", "imageclass", "imageidlabel", "imagelabelid"},
}
NOTHING = ("", "-1", "nan", "null")  # in place of RLE: the image has no instances
LABELS = "label_descriptions.json"
ONLY = 1  # the class id in files without classes
OF_LABELS, OF_IMAGES = "_labels", "_images"  # stage1_train_labels.csv: stage1_train/, train.csv: train_images/
SAMPLE = 50  # number of images to look for in each folder

ClassKey = int | str  # the class number or name in the file


class Row(NamedTuple):
    """A mask. size: the image's (height, width) according to the row."""

    record: str
    pixels: str
    size: tuple[int, int] | None
    class_key: ClassKey
    attributes: tuple[int, ...]


class Images:
    """Finds the images of a folder by id."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._by_name = {entry.name: entry.path for entry in listed(folder)}
        self._by_stem = {stem_of(name): path for name, path in self._by_name.items() if name.lower().endswith(PICTURES)}

    def path(self, image_id: str) -> str:
        """The image's path; if it is missing, the path where it is expected."""
        default = os.path.join(self.folder, image_id)
        path = self._by_name.get(image_id) or self._by_stem.get(image_id) or default
        inside = listed(os.path.join(path, "images")) if os.path.isdir(path) else []
        pictures = [entry.path for entry in inside if entry.name.lower().endswith(PICTURES)]
        return pictures[0] if len(pictures) == 1 else path

    def held(self, image_ids: Sequence[str]) -> int:
        """How many of the images are in this folder."""
        return sum(os.path.isfile(self.path(image_id)) for image_id in image_ids)


def read_rle_csv(
    csv_file: str | os.PathLike,
    image_dir: str | os.PathLike | None = None,
    *,
    class_name: str | None = None,
    class_names: Sequence[str] | None = None,
    labels: Labels | str | os.PathLike | None = None,
    source: str = "rle_csv",
    masks: bool = True,
    upright: bool | None = None,
    strict: bool = True,
) -> AnnotatedDataset:
    """Reads a CSV file with the columns ImageId and EncodedPixels, optionally Height, Width, ClassId, AttributesIds.

    Other common names of these columns work too, as do columns such as ImageId_ClassId and Image_Label, which hold
    image and class, "a.jpg_3". Classes may be numbers or names.

    EncodedPixels is "start length start length ...", in column-major order, counted from 1. If it is empty or -1, the
    image has no instances. ClassId may hold attributes after the class, "14_23_45" (iMaterialist 2019); these, or
    AttributesIds ("23,45", 2020), go to `image_info[i]["attributes"]`, one tuple per instance. With strict=False, a
    row that is invalid or has another size than its image is skipped by itself; an image is skipped entirely if the
    size of none of its rows matches.

    Args:
        csv_file: the CSV file.
        image_dir: folder of the images: <ImageId>, <ImageId>.jpg (or another suffix) or <ImageId>/images/<file>.
            None: the folder named after the CSV file (train/ or train_images/ for train.csv and train_labels.csv),
            images/, the CSV file's own folder, or else the one next to it that holds the images.
        class_name: class of all masks in a file without ClassId; None: the only entry of class_names, or "object".
        class_names: the classes, in this order. None: all in `labels`, else those found, ordered by id.
        labels: names by ClassId, or a list of the names of 1, 2, ..., or a label_descriptions.json. None: that file
            next to the CSV file, if it exists. A class without a name is named by its id.
        masks, upright, strict: see `AnnotatedDataset`.

    Returns:
        A prepared dataset, images in file order. Classes keep their ids as source ids.

    Raises:
        FileNotFoundError: the file or folder is missing.
        AnnotationError: an invalid record, named by file, record (the line) and field (the column).
    """
    path = os.fspath(csv_file)
    dataset = AnnotatedDataset(path, strict, masks=masks, upright=upright)
    columns = _columns(read_header(path)) if os.path.isfile(path) else {}
    required = () if BOTH in columns else (columns.get(IMAGE, IMAGE),)
    table = _Table(dataset, columns)
    for record, row in read_rows(
        dataset.problems, path, "CSV file of RLE masks", (*required, columns.get(PIXELS, PIXELS))
    ):
        table.collect(record, row)
    if CLASS in columns or BOTH in columns:
        names = dict[ClassKey, str](_names(path, labels).items())
        for key in sorted(table.keys - names.keys(), key=lambda key: (isinstance(key, str), key)):
            names[key] = str(key)
    else:
        names = {ONLY: only_name(class_name, class_names)}
    ids = _classes(dataset, source, names, class_names)
    images = Images(_image_dir(dataset, path, image_dir, list(table.by_image)))
    for image_id, rows in table.by_image.items():
        _add(dataset, source, image_id, rows, names, ids, images)
    if not dataset.image_info:
        message = "no row has an image that can be read; check image_dir"
        dataset.problems.broken(path, "", columns.get(IMAGE, IMAGE), message)
    return dataset.finish()


def find(path: str, subset: str | None) -> Places:
    """A CSV file with columns for image and RLE; <subset>.csv; or one in the folder `subset`."""
    if os.path.isfile(path):
        files = [path] if path.lower().endswith(".csv") else []
    else:
        names = [f"{name}{end}.csv" for name in (spellings(subset) if subset else ()) for end in ("", OF_LABELS)]
        files = [file for name in names if os.path.isfile(file := os.path.join(path, name))][:1]
        files = files or files_in(folder_or_root(path, subset), ".csv")
        files = files or of_subset(files_in(path, ".csv"), subset)
    fitting = []
    for file in files:
        columns = _columns(read_header(file))
        if PIXELS in columns and (IMAGE in columns or BOTH in columns):
            fitting.append({"csv_file": file})
    return fitting


def _columns(header: Sequence[str]) -> dict[str, str]:
    """The columns of a file by content; a column's usual name takes precedence over its other names."""
    plain = {name: name.lower().replace("_", "").replace(" ", "") for name in header}
    found = {kind: kind for kind in COLUMNS if kind in header}
    for kind, names in COLUMNS.items():
        for name in header:
            if plain[name] in names and name not in found.values():
                found.setdefault(kind, name)
    return found


def _image_dir(
    dataset: AnnotatedDataset, path: str, image_dir: str | os.PathLike | None, image_ids: Sequence[str]
) -> str:
    """The folder of the images: the first candidate that holds some of them."""
    if image_dir is not None:
        folder = os.fspath(image_dir)
        if not os.path.isdir(folder):
            raise FileNotFoundError(f"image folder {folder!r} does not exist; check image_dir")
        return folder
    above, stem = os.path.dirname(path) or ".", stem_of(path).removesuffix(OF_LABELS)
    names = [stem_of(path), stem, stem + OF_IMAGES, "images"]
    places = list(filter(os.path.isdir, [*(os.path.join(above, name) for name in names), above]))
    sample = image_ids[:: max(1, len(image_ids) // SAMPLE)]
    if first := next((place for place in places if Images(place).held(sample)), None):
        return first
    beside = [entry.path for entry in listed(above) if entry.is_dir() and entry.path not in places]
    holding = [folder for folder in beside if Images(folder).held(sample)]
    if len(holding) == 1:
        message = f"the images are in {holding[0]!r}"
        dataset.problems.noted(problems.FOUND, path, "", "", message, "images are read from there")
        return holding[0]
    return places[0]


class _Table:
    """The rows of a file, by image."""

    def __init__(self, dataset: AnnotatedDataset, columns: Mapping[str, str]) -> None:
        self.by_image: dict[str, list[Row]] = {}
        self.keys: set[ClassKey] = set()
        self._dataset, self._columns = dataset, columns
        self._numbers: bool | None = None  # whether classes are numbers, decided by the first row

    def collect(self, record: str, row: Mapping[str, str]) -> None:
        """Adds a row to its image; an invalid row is skipped."""
        cells = {kind: row[name].strip() for kind, name in self._columns.items()}
        both = BOTH in cells
        if both:
            cells[IMAGE], _, cells[CLASS] = cells[BOTH].rpartition("_")
        empty = cells[PIXELS].lower() in NOTHING
        masked = not empty or (bool(cells.get(CLASS)) and not both and not cells[PIXELS])
        of_image = self.by_image.setdefault(cells[IMAGE], []) if cells[IMAGE] else []
        wrong = self._wrong(cells, masked)
        if wrong is not None:
            kind, message = wrong
            field = self._columns.get(kind) or self._columns[BOTH]
            self._dataset.problems.broken(self._dataset.file, record, field, message, images=0, instances=int(masked))
            return
        key, attributes = self._class_of(cells.get(CLASS))
        if key is not None:
            self.keys.add(key)
        if masked and key is not None:
            size = (int(cells[HEIGHT]), int(cells[WIDTH])) if HEIGHT in cells and WIDTH in cells else None
            attributes = cells[ATTRIBUTES].split(",") if cells.get(ATTRIBUTES) else attributes
            of_image.append(Row(record, "" if empty else cells[PIXELS], size, key, tuple(map(int, attributes))))

    def _wrong(self, cells: Mapping[str, str], masked: bool) -> tuple[str, str] | None:
        """The invalid column of a row and the reason; None if the row is valid."""
        if not cells[IMAGE]:
            return IMAGE, "empty"
        for column in (HEIGHT, WIDTH):
            if column in cells and not (_whole(cells[column]) and int(cells[column])):
                return column, f"expected at least 1 pixel, got {cells[column]!r}"
        text = cells.get(CLASS, str(ONLY))
        numbers = all(map(_whole, _bare(text).split("_")))
        if self._numbers is None and text:
            self._numbers = numbers
        if masked and (not text or (self._numbers and not numbers)):
            return CLASS, f"expected a class number, optionally followed by attributes, got {text!r}"
        if cells.get(ATTRIBUTES) and not all(map(_whole, cells[ATTRIBUTES].split(","))):
            return ATTRIBUTES, f"expected comma-separated numbers, got {cells[ATTRIBUTES]!r}"
        return None

    def _class_of(self, text: str | None) -> tuple[ClassKey | None, list[str]]:
        """The class of a row, None if there is none, and the attributes after it."""
        if text is None:
            return ONLY, []
        if not text:
            return None, []
        if not self._numbers:
            return text, []
        number, *attributes = _bare(text).split("_")
        return int(number), attributes


def _names(path: str, labels: Labels | str | os.PathLike | None) -> dict[int, str]:
    """Names by ClassId."""
    if labels is not None and not isinstance(labels, (str, os.PathLike)):
        return numbered(labels)
    beside = os.path.join(os.path.dirname(path), LABELS)
    if labels is None and not os.path.isfile(beside):
        return {}
    return read_labels(beside if labels is None else labels)


def read_labels(path: str | os.PathLike) -> dict[int, str]:
    """Class names by ClassId, from a label_descriptions.json.

    Raises:
        FileNotFoundError: the file is missing.
        AnnotationError: an entry is not an integer id with a name, or an id has two names; names file, record, field.
    """
    labels = os.fspath(path)
    content = read_json(labels, "class names")
    categories = content.get("categories") if isinstance(content, dict) else None
    if not isinstance(categories, list):
        raise AnnotationError(labels, "", "categories", f"expected a list of id and name, got {shown(categories)}")
    names: dict[int, str] = {}
    for place, category in enumerate(categories):
        for field, kind in (("id", int), ("name", str)):
            if not isinstance(category, dict) or type(category.get(field)) is not kind:  # isinstance would accept True
                raise AnnotationError(
                    labels, f"categories[{place}]", field, f"expected an integer id and a name, got {shown(category)}"
                )
        if names.setdefault(category["id"], category["name"]) != category["name"]:
            raise AnnotationError(
                labels, f"categories[{place}]", "id", f"{category['id']} is already the id of {names[category['id']]!r}"
            )
    return names


def _classes(
    dataset: AnnotatedDataset, source: str, names: Mapping[ClassKey, str], class_names: Sequence[str] | None
) -> dict[str, int]:
    """Adds the classes, with the file's ids if these are numbers, and returns their ids by name."""
    try:
        class_table((), list(names.values()))
    except ValueError as error:  # two classes with one name
        raise AnnotationError(dataset.file, "", CLASS, str(error)) from None
    free = max((key for key in names if isinstance(key, int)), default=0) + 1
    ids: dict[str, int] = {}
    for place, (key, name) in enumerate(names.items()):
        ids[name] = key if isinstance(key, int) else free + place
    chosen = class_table((), sorted(ids, key=lambda name: ids[name]) if class_names is None else class_names)
    unused = max(ids.values(), default=0) + 1  # ids for classes that are not in this file
    found = {name: ids.get(name, unused + place) for place, name in enumerate(chosen)}
    for name, number in found.items():  # not add_class, which forbids id 0: iMaterialist's ids start at 0
        dataset.class_info.append({"source": source, "id": number, "name": name})
    return found


def _add(
    dataset: AnnotatedDataset,
    source: str,
    image_id: str,
    rows: list[Row],
    names: Mapping[ClassKey, str],
    ids: Mapping[str, int],
    images: Images,
) -> None:
    """Adds an image with the masks in its rows."""
    path = images.path(image_id)
    header = dataset.image_header(path, f"image {image_id!r}", len(rows))
    if header is None:
        return
    fitting = fitting_sizes(header)
    size, tagged = dataset.sized(header, next((row.size for row in rows if row.size in fitting), None))
    if rows and all(row.size is not None and row.size not in fitting for row in rows):  # made for another file
        _other_size(dataset, rows[0], path, size, images=1, instances=len(rows))
        return
    instances, attributes = [], {row.record: row.attributes for row in rows}
    for row in rows:
        where = dataset.file, row.record
        if row.size is not None and row.size != size:
            _other_size(dataset, row, path, size, images=0, instances=1)
        elif names[row.class_key] not in ids:
            message = f"class {row.class_key} is {names[row.class_key]!r}, which is not among {list(ids)}; "
            message += "add it to class_names or correct it"
            dataset.problems.broken(*where, CLASS, message, images=0, instances=1)
        else:
            try:
                runs = rle.pairs_to_rle(row.pixels, *size)
            except ValueError as error:
                dataset.problems.broken(*where, PIXELS, str(error), images=0, instances=1)
                continue
            instances.append(Instance(ids[names[row.class_key]], Runs(runs), record=row.record, field=PIXELS))
    if dataset.add_annotated(source, image_id, path, instances, height=size[0], width=size[1], tagged=tagged):
        info = dataset.image_info[-1]
        info["attributes"] = [attributes[instance.record] for instance in info["instances"]]


def _other_size(dataset: AnnotatedDataset, row: Row, path: str, size: tuple[int, int], **lost: Unpack[Lost]) -> None:
    many = f"; the same for all {lost['instances']} rows of the image" if lost["instances"] > 1 else ""
    tall, wide = row.size or (0, 0)
    text = f"the row says {tall} x {wide}, the image {path!r} is {size[0]} x {size[1]} (height x width){many}"
    dataset.problems.broken(dataset.file, row.record, f"{HEIGHT}/{WIDTH}", text, problems.SIZE, **lost)


def _bare(text: str) -> str:
    """A number without the ".0" that pandas appends in columns with missing values."""
    return text.removesuffix(".0")


def _whole(text: str) -> bool:
    return text.strip().isdecimal() and len(text) < 10

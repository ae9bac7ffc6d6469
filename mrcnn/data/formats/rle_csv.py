"""Run lengths in a csv, a row a mask, as Kaggle's iMaterialist 2019 and 2020 and Data Science Bowl 2018 give them."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mrcnn.data import rle
from mrcnn.data.annotations import problems
from mrcnn.data.annotations.annotated import AnnotatedDataset, Instance
from mrcnn.data.annotations.classes import Labels, class_table, numbered, only_name
from mrcnn.data.annotations.fields import shown
from mrcnn.data.annotations.folders import PICTURES, Places, files_in, header_size, listed
from mrcnn.data.annotations.outlines import Rectangle, Runs
from mrcnn.data.annotations.problems import AnnotationError
from mrcnn.data.annotations.text_files import read_header, read_json, read_rows

IMAGE, PIXELS, HEIGHT, WIDTH, CLASS, ATTRIBUTES = (
    "ImageId",
    "EncodedPixels",
    "Height",
    "Width",
    "ClassId",
    "AttributesIds",
)
LABELS = "label_descriptions.json"
ONLY = 1  # the id of the class in files that have none
OF_LABELS = "_labels"  # stage1_train_labels.csv is of stage1_train/


class Row(NamedTuple):
    """A mask, once its row is checked. size: (height, width) that its runs are of.

    runs, size: None where only the image, which cannot be read, could say the size.
    """

    record: str
    runs: dict[str, Any] | None
    size: tuple[int, int] | None
    class_id: int
    attributes: tuple[int, ...]


class Images:
    """Where the images of a folder are, by their ImageIds, and how large."""

    def __init__(self, folder: str) -> None:
        self.folder, self._sizes = folder, {}
        self._by_name = {entry.name: entry.path for entry in listed(folder)}
        self._by_stem = {
            os.path.splitext(name)[0]: path for name, path in self._by_name.items() if name.lower().endswith(PICTURES)
        }

    def path(self, image_id: str) -> str:
        """The image; one that is not there has the path it is expected at."""
        default = os.path.join(self.folder, image_id)
        path = self._by_name.get(image_id) or self._by_stem.get(image_id) or default
        inside = listed(os.path.join(path, "images")) if os.path.isdir(path) else []
        pictures = [entry.path for entry in inside if entry.name.lower().endswith(PICTURES)]
        return pictures[0] if len(pictures) == 1 else path

    def size(self, image_id: str) -> tuple[int, int] | None:
        """(height, width) from the image's header; None when it is missing or no image."""
        if image_id not in self._sizes:
            self._sizes[image_id] = header_size(self.path(image_id))
        return self._sizes[image_id]


def read_rle_csv(
    csv_file: str | os.PathLike,
    image_dir: str | os.PathLike | None = None,
    *,
    class_name: str | None = None,
    class_names: Sequence[str] | None = None,
    labels: Labels | str | os.PathLike | None = None,
    source: str = "rle_csv",
    strict: bool = True,
) -> AnnotatedDataset:
    """Reads a csv with the columns ImageId and EncodedPixels, and Height, Width, ClassId, AttributesIds if there.

    EncodedPixels is "start length start length ...", counted from 1 down the columns. A row in which it and ClassId are
    empty says that the image has no instances. ClassId may hold attributes after the class, "14_23_45" (iMaterialist
    2019); these, or AttributesIds ("23,45", 2020), stand in `image_info[i]["attributes"]`, a tuple an instance. With
    strict=False a row that is broken, or of another size than its image, is left out alone; an image of whose size no
    row is goes as a whole.

    Args:
        csv_file: the file.
        image_dir: folder of the images, <ImageId>, <ImageId>.jpg (or another suffix) or <ImageId>/images/<file>; None:
            the folder beside the csv named as it (train/ for train.csv and train_labels.csv), else its own.
        class_name: of all masks, in a file without ClassId; None: the only one of class_names, or "object".
        class_names: the classes, in this order. None: all that `labels` names, else those found, by their ids.
        labels: names by ClassId, or a list of the names of 1, 2, ..., or a label_descriptions.json. None: that file
            beside the csv, if it is there. A class without a name has its id as name.
        source: the source's name in the dataset.
        strict: raise at the first broken record; else leave it out and count it in `problems`.

    Returns:
        A prepared dataset; images in the order of the file. Classes keep their ids as ids of the source.

    Raises:
        FileNotFoundError: no such file or folder.
        AnnotationError: naming file, record (the line) and field (the column).
    """
    path = os.fspath(csv_file)
    dataset = AnnotatedDataset(path, strict)
    images = Images(_image_dir(path, image_dir)) if os.path.isfile(path) else None
    by_image: dict[str, list[Row]] = {}
    for record, row in read_rows(dataset.problems, path, "csv of run lengths", (IMAGE, PIXELS)):
        _collect(dataset, images, by_image, record, row)
    if CLASS in read_header(path):
        names = _names(path, labels)
        found = {row.class_id for rows in by_image.values() for row in rows} - names.keys()
        names |= {class_id: str(class_id) for class_id in found}
    else:
        names = {ONLY: only_name(class_name, class_names)}
    chosen = _classes(dataset, source, names, class_names)
    for image_id, rows in by_image.items():
        _add(dataset, source, image_id, rows, names, chosen, images)
    if not dataset.image_info:
        dataset.problems.broken(path, "", IMAGE, "there is no row with an image that can be read; check image_dir")
    return dataset.finish()


def _image_dir(path: str, image_dir: str | os.PathLike | None) -> str:
    if image_dir is not None:
        folder = os.fspath(image_dir)
        if not os.path.isdir(folder):
            raise FileNotFoundError(f"no folder {folder!r} of images; check image_dir")
        return folder
    start, above = os.path.splitext(path)[0], os.path.dirname(path)
    places = (start, start.removesuffix(OF_LABELS), os.path.join(above, "images"), above or ".")
    return next(filter(os.path.isdir, places))


def _collect(
    dataset: AnnotatedDataset, images: Images, by_image: dict[str, list[Row]], record: str, row: Mapping[str, str]
) -> None:
    """Enters a row under its image. What is broken is left out."""
    image_id, where = row[IMAGE].strip(), (dataset.file, record)
    masked = bool(row[PIXELS].strip() or row.get(CLASS, "").strip())  # else it is an image without instances
    of_image = by_image.setdefault(image_id, []) if image_id else []
    wrong = _wrong(row)
    if wrong is not None:
        dataset.problems.broken(*where, *wrong, images=0, instances=int(masked))
        return
    if not masked:
        return
    size = (int(row[HEIGHT]), int(row[WIDTH])) if HEIGHT in row and WIDTH in row else images.size(image_id)
    class_id, *attributes = row.get(CLASS, str(ONLY)).split("_")
    attributes = row[ATTRIBUTES].split(",") if row.get(ATTRIBUTES) else attributes
    try:
        runs = None if size is None else rle.pairs_to_rle(row[PIXELS], *size)
    except ValueError as error:
        dataset.problems.broken(*where, PIXELS, str(error))
    else:
        of_image.append(Row(record, runs, size, int(class_id), tuple(map(int, attributes))))


def _wrong(row: Mapping[str, str]) -> tuple[str, str] | None:
    """The column of a row that is broken, and why."""
    if not row[IMAGE].strip():
        return IMAGE, "it is empty"
    for column in (HEIGHT, WIDTH):
        if column in row and not (_whole(row[column]) and int(row[column])):
            return column, f"expected pixels from 1 on, got {row[column]!r}"
    numbers = row.get(CLASS, str(ONLY)).split("_")
    if not all(map(_whole, numbers)) and (row[PIXELS].strip() or row[CLASS].strip()):
        return CLASS, f"expected the number of a class, and of attributes after it, got {row[CLASS]!r}"
    if row.get(ATTRIBUTES) and not all(map(_whole, row[ATTRIBUTES].split(","))):
        return ATTRIBUTES, f"expected numbers with commas between them, got {row[ATTRIBUTES]!r}"
    return None


def _names(path: str, labels: Labels | str | os.PathLike | None) -> dict[int, str]:
    """Names by ClassId."""
    if labels is not None and not isinstance(labels, (str, os.PathLike)):
        return numbered(labels)
    beside = os.path.join(os.path.dirname(path), LABELS)
    if labels is None and not os.path.isfile(beside):
        return {}
    return read_labels(beside if labels is None else labels)


def read_labels(path: str | os.PathLike) -> dict[int, str]:
    """Names by ClassId, from a label_descriptions.json.

    Raises:
        FileNotFoundError: no such file.
        AnnotationError: naming file, record and field: no list of id, a whole number, and name, or one id with two.
    """
    labels = os.fspath(path)
    content = read_json(labels, "names of classes")
    categories = content.get("categories") if isinstance(content, dict) else None
    if not isinstance(categories, list):
        raise AnnotationError(labels, "", "categories", f"expected a list of id and name, got {shown(categories)}")
    names: dict[int, str] = {}
    for place, category in enumerate(categories):
        for field, kind in (("id", int), ("name", str)):
            if not isinstance(category, dict) or type(category.get(field)) is not kind:  # True would be an int
                raise AnnotationError(
                    labels,
                    f"categories[{place}]",
                    field,
                    f"expected id, a whole number, and name, got {shown(category)}",
                )
        if names.setdefault(category["id"], category["name"]) != category["name"]:
            raise AnnotationError(
                labels, f"categories[{place}]", "id", f"{category['id']} is the id of {names[category['id']]!r}, too"
            )
    return names


def _classes(
    dataset: AnnotatedDataset, source: str, names: Mapping[int, str], class_names: Sequence[str] | None
) -> list[str]:
    """Adds the classes, under the ids of the file, and returns their names."""
    class_table((), list(names.values()))  # raises for two classes of one name
    ids = {names[class_id]: class_id for class_id in sorted(names)}
    chosen = class_table((), list(ids) if class_names is None else class_names)
    unused = max(names, default=0) + 1  # ids for classes that this file does not know
    for place, name in enumerate(chosen):
        # not by add_class: the ids of iMaterialist begin with 0
        dataset.class_info.append({"source": source, "id": ids.get(name, unused + place), "name": name})
    return chosen


def _add(
    dataset: AnnotatedDataset,
    source: str,
    image_id: str,
    rows: list[Row],
    names: Mapping[int, str],
    chosen: Sequence[str],
    images: Images,
) -> None:
    """Adds an image with the masks of its rows."""
    path, size = images.path(image_id), images.size(image_id)
    fitting = [row for row in rows if size is None or row.size == size]
    if rows and not fitting:  # they are of another file
        _other_size(dataset, rows[0], path, size, images=1, instances=len(rows))
        return
    instances, attributes = [], {row.record: row.attributes for row in rows}
    for row in rows:
        if size is not None and row.size != size:
            _other_size(dataset, row, path, size, images=0, instances=1)
        elif names[row.class_id] in chosen:
            outline = Rectangle(0, 0, 0, 0) if row.runs is None else Runs(row.runs)  # which no one will see
            instances.append(Instance(row.class_id, outline, record=row.record, field=PIXELS))
        else:
            dataset.problems.broken(
                dataset.file,
                row.record,
                CLASS,
                f"{row.class_id} is {names[row.class_id]!r}, not "
                f"among {list(chosen)}; add it to class_names, or correct it",
            )
    height, width = size or (None, None)
    if dataset.add_annotated(source, image_id, path, instances, height=height, width=width):
        info = dataset.image_info[-1]
        info["attributes"] = [attributes[instance.record] for instance in info["instances"]]


def _other_size(dataset: AnnotatedDataset, row: Row, path: str, size: tuple[int, int], **lost: int) -> None:
    many = f"; so are all {lost['instances']} rows of the image" if lost["instances"] > 1 else ""
    text = f"it says {row.size[0]} x {row.size[1]}, the image {path!r} is {size[0]} x {size[1]} (height x width){many}"
    dataset.problems.broken(dataset.file, row.record, f"{HEIGHT}/{WIDTH}", text, problems.SIZE, **lost)


def _whole(text: Any) -> bool:
    return text.strip().isdecimal() and len(text) < 10


def find(path: str, subset: str | None) -> Places:
    """A csv with the columns ImageId and EncodedPixels; <subset>.csv; or one in the folder `subset`."""
    if os.path.isfile(path):
        files = [path] if path.endswith(".csv") else []
    else:
        beside = [os.path.join(path, f"{subset}{end}.csv") for end in ("", OF_LABELS)] if subset else []
        files = list(filter(os.path.isfile, beside)) or files_in(os.path.join(path, subset or ""), ".csv")
    return [{"csv_file": file} for file in files if {IMAGE, PIXELS} <= set(read_header(file))]

"""COCO's json: polygons, run lengths compressed or not, and crowds, as a Dataset."""

import os
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from mrcnn.data import rle
from mrcnn.data.annotations import problems
from mrcnn.data.annotations.annotated import AnnotatedDataset, Instance
from mrcnn.data.annotations.classes import class_table
from mrcnn.data.annotations.fields import FieldError, is_number, shown, size_of, text, whole
from mrcnn.data.annotations.folders import (
    COCO_KEYS,
    INSTANCES,
    LABELME_KEYS,
    LOOKED_AT,
    Places,
    files_in,
    of_subset,
    stem_of,
)
from mrcnn.data.annotations.outlines import FAR, Bounds, Outline, Polygons, Runs
from mrcnn.data.annotations.problems import AnnotationError
from mrcnn.data.annotations.text_files import Head, read_head, read_json

KEYS = {
    "images": ("id", "file_name", "height", "width"),
    "categories": ("id", "name"),
    "annotations": ("id", "image_id", "category_id"),
}
MOST_SIDE = 100_000  # pixels of an image


class CocoDataset(AnnotatedDataset):
    """Photographs annotated in COCO's format; made by `read_coco`."""

    def annotations(self, image_id: int) -> list[dict[str, Any]]:
        """The annotations of an image as COCO's evaluation wants them: ids, areas and boxes are the file's own.

        category_id is the class id here, image_id the id here, segmentation compressed run lengths.
        """
        info = self.image_info[image_id]
        masks, class_ids = self.load_mask(image_id)
        runs = rle.encode_all(masks)
        return [
            {
                "id": stored["id"],
                "image_id": image_id,
                "category_id": int(abs(class_id)),
                "bbox": stored["bbox"],
                "area": stored["area"],
                "iscrowd": int(class_id < 0),
                "segmentation": run,
            }
            for stored, class_id, run in zip(info["stored"], class_ids, runs, strict=True)
        ]

    def image_reference(self, image_id: int) -> str:
        """The page that shows the image in COCO's explorer."""
        return f"https://cocodataset.org/#explore?id={self.image_info[image_id]['id']}"


def read_coco(
    annotation_file: str | os.PathLike,
    image_dir: str | os.PathLike | None = None,
    *,
    class_names: Sequence[str] | None = None,
    source: str = "coco",
    strict: bool = True,
) -> CocoDataset:
    """Reads a file of COCO's `instances` form.

    Args:
        annotation_file: the json.
        image_dir: folder of the images; None: the folder of the json.
        class_names: the classes to read, in this order; annotations of the file's other categories are not read. None:
            all categories, by their ids, which go up but need not be 1, 2, 3.
        source: the source's name in the dataset.
        strict: raise at the first broken record; else leave it out and count it in `problems`.

    Returns:
        A prepared dataset; images by their ids.

    Raises:
        FileNotFoundError: no such file.
        AnnotationError: naming file, record and field.
        ValueError: class_names that repeat.
    """
    path = os.fspath(annotation_file)
    content = read_json(path, "COCO annotations")
    dataset = CocoDataset(path, strict)
    _drop_unused_namesakes(dataset, content)
    images, categories, annotations = (_table(dataset, content, key) for key in KEYS)
    chosen = _classes(dataset, path, categories, class_names, source)
    by_image = _by_image(dataset, images, categories, annotations)
    folder = os.path.dirname(path) if image_dir is None else os.fspath(image_dir)
    for image_id in sorted(images):
        image = images[image_id]
        read = [(a, _instance(dataset, a, image)) for a in by_image[image_id] if a["category_id"] in chosen]
        _add(dataset, source, os.path.join(folder, image["file_name"]), image, read)
    if not dataset.image_info:
        dataset.problems.broken(path, "", "images", "it lists no image that can be read; check image_dir")
    return dataset.finish()


def _drop_unused_namesakes(dataset: CocoDataset, content: Any) -> None:
    """Takes out categories that no annotation uses where another has their name: some tools write one for the root of
    their hierarchy, which is often called as the only class."""
    lists = [content.get(key) if isinstance(content, dict) else None for key in ("categories", "annotations")]
    if not all(isinstance(records, list) and all(isinstance(r, dict) for r in records) for records in lists):
        return  # said where the lists are read
    categories, annotations = lists
    used = {repr(annotation.get("category_id")) for annotation in annotations}
    names = [repr(category.get("name")) for category in categories]
    unused = [
        i for i, category in enumerate(categories) if names.count(names[i]) > 1 and repr(category.get("id")) not in used
    ]
    if len(unused) == len(categories):
        return
    for i in unused:
        dataset.problems.noted(
            problems.CLASH,
            dataset.file,
            f"categories[{i}] (id {shown(categories[i].get('id'))})",
            "name",
            f"another category is called {names[i]}, and no annotation uses this one",
            "the other one is taken",
        )
    content["categories"] = [category for i, category in enumerate(categories) if i not in unused]


def _table(dataset: CocoDataset, content: Any, key: str) -> dict[int, dict]:
    """The records of one list of the file by their ids, those that cannot be read left out."""
    records = content.get(key) if isinstance(content, dict) else None
    if not isinstance(records, list):
        raise AnnotationError(
            dataset.file, "", key, f"expected a list of {key}, got {shown(records)}; is it a file of COCO instances?"
        )
    table: dict[int, dict] = {}
    for place, record in enumerate(records):
        name = f"{key}[{place}]"
        name += f" (id {shown(record['id'])})" if isinstance(record, dict) and "id" in record else ""
        try:
            _check(key, record)
            _check_new(key, record, table)
        except FieldError as error:
            dataset.problems.broken(dataset.file, name, error.field, str(error), error.kind)
        else:
            table[record["id"]] = record
    return table


def _check(key: str, record: Any) -> None:
    """Raises FieldError when a field of an image or a category is missing or not of its type.

    Those of an annotation are looked at where they are used, as those of other classes need not be sound.
    """
    for field in KEYS[key]:
        if not isinstance(record, dict) or field not in record:
            raise FieldError(field, "it is missing")
    whole(record, "id")
    if key == "images":
        for field in ("height", "width"):
            whole(record, field, 1, MOST_SIDE, "pixels")
        text(record, "file_name")
    elif key == "categories":
        text(record, "name")


def _check_new(key: str, record: dict, table: dict[int, dict]) -> None:
    """Raises FieldError for the id of another record, or the name of another category."""
    if record["id"] in table:
        raise FieldError("id", "another record has the same id", problems.CLASH)
    if key == "categories" and any(other["name"] == record["name"] for other in table.values()):
        raise FieldError(
            "name",
            f"another category is called {shown(record['name'])}, too, and classes are told apart "
            "by their names; rename one, or give its annotations to the other",
            problems.CLASH,
        )


def _classes(
    dataset: CocoDataset, path: str, categories: dict[int, dict], class_names: Sequence[str] | None, source: str
) -> set[int]:
    """Adds the classes, and returns the categories that they come from."""
    if class_names is None:
        chosen = sorted(categories)
    else:
        by_name = {category["name"]: category_id for category_id, category in categories.items()}
        names = class_table((), class_names)
        unknown = [name for name in names if name not in by_name]
        if unknown:
            raise AnnotationError(path, "", "categories", f"there are no classes {unknown}; it has {sorted(by_name)}")
        chosen = [by_name[name] for name in names]
    for category_id in chosen:  # not by add_class: many tools number their categories from 0, the network's classes not
        dataset.class_info.append({"source": source, "id": category_id, "name": categories[category_id]["name"]})
    return set(chosen)


def _by_image(dataset: CocoDataset, images: dict, categories: dict, annotations: dict) -> dict[int, list[dict]]:
    """Annotations by the image that they belong to, in the order of the file."""
    by_image = defaultdict(list)
    for annotation in annotations.values():
        try:
            for field, known in (("image_id", images), ("category_id", categories)):
                if whole(annotation, field) not in known:
                    raise FieldError(field, f"{shown(annotation[field])} is not among the file's {len(known)}")
        except FieldError as error:
            dataset.problems.broken(dataset.file, f"annotation {annotation['id']}", error.field, str(error))
        else:
            by_image[annotation["image_id"]].append(annotation)
    return by_image


def _add(dataset: CocoDataset, source: str, path: str, image: dict, read: list[tuple]) -> None:
    """Adds an image with those of its annotations that have an outline of use."""
    instances = [instance for _, instance in read if instance is not None]
    if not dataset.add_annotated(
        source, image["id"], path, instances, height=image["height"], width=image["width"], file_name=image["file_name"]
    ):
        return
    info = dataset.image_info[-1]
    by_record = {instance.record: annotation for annotation, instance in read if instance is not None}
    info["stored"] = [_stored(by_record[instance.record], instance) for instance in info["instances"]]


def _stored(annotation: dict, instance: Instance) -> dict[str, Any]:
    """What the evaluation takes from the file rather than from the mask."""
    y1, x1, y2, x2 = instance.box
    box = annotation.get("bbox") or [x1, y1, x2 - x1, y2 - y1]  # to the last digit, which adding and subtracting loses
    area = annotation.get("area", box[2] * box[3])
    return {"id": annotation["id"], "bbox": box, "area": area}


def _instance(dataset: CocoDataset, annotation: dict, image: dict) -> Instance | None:
    """None when the annotation is broken and reading goes on."""
    record = f"annotation {annotation['id']}"
    try:
        outline = _outline(annotation.get("segmentation"), image)
        box = _box(annotation, outline)
        if "area" in annotation:
            size_of(annotation, "area")
        crowd = _crowd(annotation)
    except FieldError as error:
        dataset.problems.broken(dataset.file, record, error.field, str(error))
        return None
    return Instance(annotation["category_id"], outline, crowd, box, record, "segmentation")


def _box(annotation: dict, outline: Outline) -> Bounds:
    """The box of an annotation, or where it has none that of its outline. Raises FieldError."""
    box = annotation.get("bbox")
    if box is None:
        drawn = not isinstance(outline, Polygons) or any(len(part) for part in outline.parts)
        return outline.bounds() if drawn else (0.0,) * 4  # what is not drawn is left out later
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        raise FieldError("bbox", f"expected [x, y, width, height], got {shown(box)}")
    x, y, width, height = map(float, box)
    if min(width, height) < 0 or max(map(abs, (x, y, width, height))) > FAR:
        raise FieldError(
            "bbox", f"expected [x, y, width, height] in pixels, width and height from 0 on, got {shown(box)}"
        )
    return y, x, y + height, x + width


def _crowd(annotation: dict) -> bool:
    crowd = annotation.get("iscrowd", 0)
    if type(crowd) not in (int, bool) or crowd not in (0, 1):
        raise FieldError("iscrowd", f"expected 0 or 1, got {shown(crowd)}")
    return bool(crowd)


def _outline(segmentation: Any, image: dict) -> Outline:
    """The outline. Raises FieldError."""
    if isinstance(segmentation, dict):
        return _runs(segmentation, image)
    if not isinstance(segmentation, list) or not all(
        isinstance(part, list) and all(map(is_number, part)) for part in segmentation
    ):
        raise FieldError("segmentation", f"expected lists of coordinates or run lengths, got {shown(segmentation)}")
    odd = [len(part) for part in segmentation if len(part) % 2]
    if odd:
        raise FieldError("segmentation", f"a polygon has {odd[0]} coordinates, not pairs of x and y")
    return Polygons(tuple(np.array(part, np.float64).reshape(-1, 2) for part in segmentation))


def _runs(segmentation: dict, image: dict) -> Runs:
    """The outline of run lengths. Raises FieldError."""
    if {"size", "counts"} - segmentation.keys():
        raise FieldError("segmentation", f"run lengths need size and counts, got the keys {sorted(segmentation)}")
    size = [image["height"], image["width"]]
    if segmentation["size"] != size:
        raise FieldError("segmentation", f"it is of size {shown(segmentation['size'])}, its image of {size}")
    try:
        rle.area(segmentation)
    except ValueError as error:
        raise FieldError("segmentation", str(error)) from error
    return Runs(segmentation)


def find(path: str, subset: str | None) -> Places:
    """A json; annotations/instances_<subset>.json; or a json in the folder `subset`."""
    if os.path.isfile(path):
        return [_coco_file(path, subset)] if path.endswith(".json") and is_coco(read_head(path)) else []
    official = [file for file in files_in(os.path.join(path, "annotations"), ".json") if is_coco(read_head(file))]
    instances = [file for file in official if stem_of(file).startswith(INSTANCES)]
    files = of_subset(instances or official, subset)
    if not files:
        folder = os.path.join(path, subset or "")
        files = [file for file in files_in(folder, ".json")[:LOOKED_AT] if is_coco(read_head(file))]
        if not files and subset:
            files = [file for file in of_subset(files_in(path, ".json"), subset) if is_coco(read_head(file))]
    return [_coco_file(file, subset) for file in files]


def is_coco(head: Head) -> bool:
    """Whether the keys are those of COCO's instances."""
    return bool(head.top & COCO_KEYS) and not head.top & LABELME_KEYS


def _coco_file(file: str, subset: str | None) -> dict[str, Any]:
    """The json, and the folder of its images: the first in question that holds one of them, or is there."""
    above, name = os.path.dirname(file), stem_of(file).removeprefix(INSTANCES)
    if os.path.basename(above) == "annotations":
        above = os.path.dirname(above)
    names, first = [name, *filter(None, [subset])], read_head(file).file_name
    places = [
        *(os.path.join(above, *parts, n) for n in names for parts in ((), ("images",))),
        os.path.join(above, "images"),
        above or ".",
    ]
    there = list(filter(os.path.isdir, places))
    holding = [folder for folder in there if first and os.path.isfile(os.path.join(folder, first))]
    return {"annotation_file": file, "image_dir": (holding or there)[0]}

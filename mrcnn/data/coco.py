"""COCO's json: polygons, run lengths compressed or not, and crowds, as a Dataset."""

import os
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from mrcnn.data import problems, rle
from mrcnn.data.annotated import AnnotatedDataset, Instance, read_json
from mrcnn.data.outlines import Outline, Polygons, Runs
from mrcnn.data.problems import AnnotationError

KEYS = {"images": ("id", "file_name", "height", "width"), "categories": ("id", "name"),
        "annotations": ("id", "image_id", "category_id")}


class CocoDataset(AnnotatedDataset):
    """Photographs annotated in COCO's format; made by `load_coco`."""

    def annotations(self, image_id: int) -> list[dict[str, Any]]:
        """The annotations of an image as COCO's evaluation wants them: ids, areas and boxes are the file's own.

        category_id is the class id here, image_id the id here, segmentation compressed run lengths.
        """
        info = self.image_info[image_id]
        masks, class_ids = self.load_mask(image_id)
        runs = rle.encode_all(masks)
        return [
            {"id": stored["id"], "image_id": image_id, "category_id": int(abs(class_id)), "bbox": stored["bbox"],
             "area": stored["area"], "iscrowd": int(class_id < 0), "segmentation": run}
            for stored, class_id, run in zip(info["stored"], class_ids, runs, strict=True)]

    def image_reference(self, image_id: int) -> str:
        """The page that shows the image in COCO's explorer."""
        return f"https://cocodataset.org/#explore?id={self.image_info[image_id]['id']}"


def load_coco(annotation_file: str | os.PathLike, image_dir: str | os.PathLike | None = None, *,
              class_names: Sequence[str] | None = None, source: str = "coco", strict: bool = True) -> CocoDataset:
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
    """
    path = os.fspath(annotation_file)
    content = read_json(path, "COCO annotations")
    dataset = CocoDataset(path, strict)
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


def _table(dataset: CocoDataset, content: Any, key: str) -> dict[int, dict]:
    """The records of one list of the file by their ids, those without their keys left out."""
    records = content.get(key) if isinstance(content, dict) else None
    if not isinstance(records, list):
        raise AnnotationError(dataset.file, "", key, f"expected a list of {key}, got {_shown(records)}; is it a file "
                              "of COCO instances?")
    table: dict[int, dict] = {}
    for place, record in enumerate(records):
        missing = [k for k in KEYS[key] if not isinstance(record, dict) or k not in record]
        name = f"{key}[{place}]" + (f" (id {record['id']})" if isinstance(record, dict) and "id" in record else "")
        if missing:
            dataset.problems.broken(dataset.file, name, missing[0], "it is missing")
        elif not isinstance(record["id"], int):
            dataset.problems.broken(dataset.file, name, "id", f"expected a whole number, got {record['id']!r}")
        elif record["id"] in table:
            dataset.problems.broken(dataset.file, name, "id", "another record has the same id", problems.CLASH)
        elif _sensible(dataset, key, name, record):
            table[record["id"]] = record
    return table


def _sensible(dataset: CocoDataset, key: str, name: str, record: dict) -> bool:
    """Whether the fields of an image are of their types; broken otherwise. The other lists are checked where used."""
    if key != "images":
        return True
    for field in ("height", "width"):
        if not isinstance(record[field], int) or record[field] < 1:
            dataset.problems.broken(dataset.file, name, field, f"expected pixels from 1 on, got {record[field]!r}")
            return False
    return True


def _classes(dataset: CocoDataset, path: str, categories: dict[int, dict], class_names: Sequence[str] | None,
             source: str) -> set[int]:
    """Adds the classes, and returns the categories that they come from."""
    if class_names is None:
        chosen = sorted(categories)
    else:
        by_name = {category["name"]: category_id for category_id, category in categories.items()}
        unknown = [name for name in class_names if name not in by_name]
        if unknown:
            raise AnnotationError(path, "", "categories", f"there are no classes {unknown}; it has {sorted(by_name)}")
        chosen = [by_name[name] for name in class_names]
    for category_id in chosen:  # not by add_class: many tools number their categories from 0, the network's classes not
        dataset.class_info.append({"source": source, "id": category_id, "name": categories[category_id]["name"]})
    return set(chosen)


def _by_image(dataset: CocoDataset, images: dict, categories: dict, annotations: dict) -> dict[int, list[dict]]:
    """Annotations by the image that they belong to, in the order of the file."""
    by_image = defaultdict(list)
    for annotation in annotations.values():
        for field, known in (("image_id", images), ("category_id", categories)):
            if annotation[field] not in known:
                dataset.problems.broken(dataset.file, f"annotation {annotation['id']}", field,
                                        f"{annotation[field]!r} is not among the file's {len(known)}")
                break
        else:
            by_image[annotation["image_id"]].append(annotation)
    return by_image


def _add(dataset: CocoDataset, source: str, path: str, image: dict, read: list[tuple]) -> None:
    """Adds an image with those of its annotations that have an outline of use."""
    instances = [instance for _, instance in read if instance is not None]
    if not dataset.add_annotated(source, image["id"], path, instances, height=image["height"], width=image["width"],
                                 file_name=image["file_name"]):
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
    outline = _outline(annotation.get("segmentation"), image)
    if isinstance(outline, str):
        dataset.problems.broken(dataset.file, record, "segmentation", outline)
        return None
    box = annotation.get("bbox")
    if box is None:
        bounds = outline.bounds() if not isinstance(outline, Polygons) or outline.parts else (0.0,) * 4
    elif _numbers(box) and len(box) == 4 and np.isfinite(box).all():
        x, y, width, height = map(float, box)
        bounds = y, x, y + height, x + width
    else:
        dataset.problems.broken(dataset.file, record, "bbox", f"expected [x, y, width, height], got {_shown(box)}")
        return None
    return Instance(annotation["category_id"], outline, bool(annotation.get("iscrowd")), bounds, record,
                    "segmentation")


def _outline(segmentation: Any, image: dict) -> Outline | str:
    """The outline, or what is wrong with it."""
    if isinstance(segmentation, dict):
        if {"size", "counts"} - segmentation.keys():
            return f"run lengths need size and counts, got the keys {sorted(segmentation)}"
        if segmentation["size"] != [image["height"], image["width"]]:
            return f"it is of size {segmentation['size']}, its image of {[image['height'], image['width']]}"
        try:
            rle.area(segmentation)
        except ValueError as error:
            return str(error)
        return Runs(segmentation)
    if not isinstance(segmentation, list) or not all(_numbers(part) for part in segmentation):
        return f"expected lists of coordinates or run lengths, got {_shown(segmentation)}"
    if any(len(part) % 2 for part in segmentation):
        return f"a polygon has {next(len(p) for p in segmentation if len(p) % 2)} coordinates, not pairs of x and y"
    return Polygons(tuple(np.array(part, np.float64).reshape(-1, 2) for part in segmentation))


def _numbers(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) in (int, float) for value in values)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

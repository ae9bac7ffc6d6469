"""Where the annotations of each format lie in a file or folder, found by its names and a look at the heads of files.

Each function takes the path and the subset that were asked for, and returns the arguments for the format's reader,
once for each place that could be meant: none when the format does not fit.
"""

import os
from typing import Any

from mrcnn.data.formats import instance_ids, mask_files, voc
from mrcnn.data.formats.folders import PICTURES, listed, paired_folders
from mrcnn.data.formats.json_head import Head, read_head
from mrcnn.data.formats.rle_csv import IMAGE, OF_LABELS, PIXELS
from mrcnn.data.formats.tables import read_header

Places = list[dict[str, Any]]
LOOKED_AT = 5  # of the json files in a folder: labelme has one an image
COCO_KEYS, LABELME_KEYS = {"images", "annotations"}, {"shapes", "imagePath", "imageData", "imageHeight"}
INSTANCES = "instances_"


def is_coco(head: Head) -> bool:
    """Whether the keys are those of COCO's instances."""
    return bool(head.top & COCO_KEYS) and not head.top & LABELME_KEYS


def is_via(head: Head) -> bool:
    """Whether the keys are those of the VGG Image Annotator."""
    return any(key.startswith("_via_") for key in head.top) or {"filename", "regions"} <= head.second


def is_labelme(head: Head) -> bool:
    """Whether the keys are those of labelme."""
    return "shapes" in head.top or len(head.top & LABELME_KEYS) > 1


def coco(path: str, subset: str | None) -> Places:
    """A json; annotations/instances_<subset>.json; or a json in the folder `subset`."""
    if os.path.isfile(path):
        return [_coco_file(path, subset)] if path.endswith(".json") and is_coco(read_head(path)) else []
    official = [file for file in _files(os.path.join(path, "annotations"), ".json") if is_coco(read_head(file))]
    instances = [file for file in official if _stem(file).startswith(INSTANCES)]
    files = _of_subset(instances or official, subset)
    if not files:
        folder = os.path.join(path, subset or "")
        files = [file for file in _files(folder, ".json")[:LOOKED_AT] if is_coco(read_head(file))]
        if not files and subset:
            files = [file for file in _of_subset(_files(path, ".json"), subset) if is_coco(read_head(file))]
    return [_coco_file(file, subset) for file in files]


def via(path: str, subset: str | None) -> Places:
    """A json, or one in the folder `subset`."""
    if os.path.isfile(path):
        files = [path] if path.endswith(".json") else []
    else:
        files = _files(os.path.join(path, subset or ""), ".json")[:LOOKED_AT]
    return [
        {"dataset_dir": os.path.dirname(file), "annotation_file": os.path.basename(file)}
        for file in files
        if is_via(read_head(file))
    ]


def labelme(path: str, subset: str | None) -> Places:
    """A folder of json files, one an image, or one of them."""
    if os.path.isfile(path):
        return [{"dataset_dir": path}] if path.endswith(".json") and is_labelme(read_head(path)) else []
    files = _files(os.path.join(path, subset or ""), ".json")[:LOOKED_AT]
    fits = any(is_labelme(read_head(file)) for file in files)
    return [{"dataset_dir": path, "subset": subset}] if fits else []


def yolo(path: str, subset: str | None) -> Places:
    """A yaml that names classes, in the folder or named itself; or labels/ with texts in it, or in its folders."""
    if os.path.isfile(path):
        fits = path.endswith((".yaml", ".yml")) and _names_classes(path)
    else:
        fits = any(map(_names_classes, _files(path, ".yaml", ".yml")))
        for labels in (os.path.join(path, "labels"), os.path.join(path, subset or "", "labels")):
            below = [labels, *(entry.path for entry in listed(labels) if entry.is_dir())]
            fits = fits or any(_files(folder, ".txt") for folder in below)
    return [{"dataset_dir": path, "subset": subset}] if fits else []


def of_voc(path: str, subset: str | None) -> Places:
    """SegmentationObject, or VOC<year> with it."""
    fits = voc.voc_root(path) or (subset and voc.voc_root(os.path.join(path, subset)))
    return [{"dataset_dir": path, "subset": subset}] if fits else []


def of_mask_files(path: str, subset: str | None) -> Places:
    """<id>/images and <id>/masks; or images/ and masks/ with folders in it."""
    images, _ = paired_folders(path, subset, ["masks"], lambda folder: any(e.is_dir() for e in listed(folder)))
    fits = _files(images, *PICTURES) if images else mask_files.is_one_folder_each(os.path.join(path, subset or ""))
    return [{"dataset_dir": path, "subset": subset}] if fits else []


def of_instance_ids(path: str, subset: str | None) -> Places:
    """images/ and masks/, instances/ or labels/ with pictures in it."""
    _, beside = paired_folders(path, subset, instance_ids.FOLDERS, instance_ids.holds_pictures)
    return [{"dataset_dir": path, "subset": subset}] if beside else []


def rle_csv(path: str, subset: str | None) -> Places:
    """A csv with the columns ImageId and EncodedPixels; <subset>.csv; or one in the folder `subset`."""
    if os.path.isfile(path):
        files = [path] if path.endswith(".csv") else []
    else:
        beside = [os.path.join(path, f"{subset}{end}.csv") for end in ("", OF_LABELS)] if subset else []
        files = list(filter(os.path.isfile, beside)) or _files(os.path.join(path, subset or ""), ".csv")
    return [{"csv_file": file} for file in files if {IMAGE, PIXELS} <= set(read_header(file))]


def _files(folder: str, *suffixes: str) -> list[str]:
    return [entry.path for entry in listed(folder) if entry.name.lower().endswith(suffixes) and entry.is_file()]


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]


def _of_subset(files: list[str], subset: str | None) -> list[str]:
    """The file of exactly this name, else those that have it in theirs."""
    if subset is None:
        return files
    exact = [file for file in files if _stem(file).removeprefix(INSTANCES) == subset]
    return exact or [file for file in files if subset in _stem(file)]


def _coco_file(file: str, subset: str | None) -> dict[str, Any]:
    """The json, and the folder of its images: the first in question that holds one of them, or is there."""
    above, name = os.path.dirname(file), _stem(file).removeprefix(INSTANCES)
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


def _names_classes(path: str) -> bool:
    with open(path, encoding="utf-8", errors="replace") as file:
        return any(line.startswith("names") for line in file.read(2**16).splitlines())

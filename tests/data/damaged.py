"""A small scene in COCO JSON, and every kind of damage done to it by hand."""

import json
import os
import warnings

import numpy as np
from PIL import Image

from mrcnn.data.annotations import problems
from mrcnn.data.annotations.problems import LEFT_OUT
from mrcnn.data.check import report
from mrcnn.data.check.report import AS_IS, RAISES
from mrcnn.data.formats.coco import read_coco


def square(number, image, category, x, y, side=20, **changes):
    """An annotation of a square, as COCO writes it."""
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "iscrowd": 0,
        "area": side**2,
        "bbox": [x, y, side, side],
        "segmentation": [[x, y, x + side, y, x + side, y + side, x, y + side]],
        **changes,
    }


def scene():
    """Three images of 60 x 80 pixels (height x width), five annotations of two classes."""
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 60, "width": 80} for i in (1, 2, 3)],
        "categories": [{"id": 5, "name": "cat"}, {"id": 9, "name": "dog"}],
        "annotations": [
            square(11, 1, 5, 5, 5),
            square(12, 1, 9, 40, 10),
            square(13, 2, 5, 20, 20),
            square(14, 3, 9, 0, 0),
            square(15, 3, 5, 50, 30),
        ],
    }


def write(folder, change=None):
    """Writes the scene after a change, with its images; returns the path of the JSON file."""
    for number in (1, 2, 3):
        Image.fromarray(np.full((60, 80, 3), 50 * number, np.uint8)).save(folder / f"{number}.png")
    content = scene()
    if change:
        change(content, folder)
    (folder / "instances.json").write_text(json.dumps(content))
    return folder / "instances.json"


def read(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return read_coco(path, strict=False)


def annotation(place, **changes):
    return lambda content, folder: content["annotations"][place].update(changes)


def image(place, **changes):
    return lambda content, folder: content["images"][place].update(changes)


def added(*annotations):
    return lambda content, folder: content["annotations"].extend(annotations)


def outline(*coordinates, **changes):
    return annotation(0, segmentation=[list(coordinates)], **changes)


def unlinked(content, folder):
    os.remove(folder / "3.png")


def cut_off(content, folder):
    data = (folder / "3.png").read_bytes()
    (folder / "3.png").write_bytes(data[:-40])


def no_image(content, folder):
    (folder / "3.png").write_text("no image")


def copied(content, folder):
    (folder / "3.png").write_bytes((folder / "2.png").read_bytes())


def as_large_as(height, width):
    def change(content, folder):
        Image.fromarray(np.full((height, width, 3), 9, np.uint8)).save(folder / "3.png")

    return change


def of_size(height, width, *annotations):
    """Image 3 at this size, with these annotations."""

    def change(content, folder):
        as_large_as(height, width)(content, folder)
        content["images"][2].update(height=height, width=width)
        content["annotations"][3:] = annotations

    return change


def bare(content, folder):
    del content["annotations"][3:]


# name: change, kind, treatment, part of the record, part of the message, instances (used, raising, left out)
DAMAGE = {
    "a broken record": (
        annotation(0, segmentation="x"),
        problems.BROKEN,
        LEFT_OUT,
        "annotation 11",
        "expected lists",
        (4, 0, 1),
    ),
    "of no image": (annotation(0, image_id=77), problems.BROKEN, LEFT_OUT, "annotation 11", "77", (4, 0, 1)),
    "of no class": (annotation(0, category_id=77), problems.BROKEN, LEFT_OUT, "annotation 11", "77", (4, 0, 1)),
    "a clash of ids": (
        annotation(1, id=11),
        problems.UNREAD,
        "a new id is assigned",
        "annotation 11",
        "a unique integer",
        (5, 0, 0),
    ),
    "two points": (outline(5, 5, 9, 9), problems.DEGENERATE, LEFT_OUT, "annotation 11", "[2] points", (4, 0, 1)),
    "two points beside a polygon": (
        annotation(0, segmentation=[[5, 5, 9, 9], [5, 5, 25, 5, 25, 25, 5, 25]]),
        problems.DEGENERATE,
        "the other parts are used",
        "annotation 11",
        "[2] points",
        (5, 0, 0),
    ),
    "outside": (
        outline(80, 5, 99, 5, 99, 25, bbox=[80, 5, 19, 20]),
        problems.OUTSIDE,
        LEFT_OUT,
        "annotation 11",
        "spans",
        (4, 0, 1),
    ),
    "partly outside": (
        outline(70, 5, 90, 5, 90, 25, 70, 25, bbox=[70, 5, 20, 20]),
        problems.PARTLY_OUTSIDE,
        "cut off at the border",
        "annotation 11 (1.png)",
        "(5, 70, 25, 90) (y1, x1, y2, x2), up to 10.0 pixels beyond the image of (60, 80)",
        (5, 0, 0),
    ),
    "no pixel": (
        outline(5.1, 5, 5.2, 5, 5.2, 25, bbox=[5.1, 5, 0.1, 20]),
        problems.EMPTY,
        LEFT_OUT,
        "annotation 11",
        "no pixel",
        (4, 0, 1),
    ),
    "a bow tie": (
        outline(5, 5, 25, 25, 25, 5, 5, 25),
        problems.SELF_CROSSING,
        "used as is; areas enclosed twice become holes",
        "annotation 11 (1.png)",
        "it crosses itself once at x 15.0, y 15.0",
        (5, 0, 0),
    ),
    "a duplicate": (
        added(square(16, 1, 5, 5, 5)),
        problems.DUPLICATE,
        AS_IS,
        "annotation 16 (1.png)",
        "the same mask as annotation 11 (1.png) (IoU 1.000)",
        (6, 0, 0),
    ),
    "a near duplicate": (
        added(square(16, 1, 5, 5, 5, segmentation=[[5, 5, 25, 5, 25, 24, 5, 24]])),
        problems.DUPLICATE,
        AS_IS,
        "annotation 16",
        "(IoU 0.950)",
        (6, 0, 0),
    ),
    "two classes": (
        added(square(16, 1, 9, 5, 5)),
        report.SAME_MASK,
        AS_IS,
        "annotation 16",
        "the same mask as annotation 11 (1.png) (IoU 1.000), dog and cat",
        (6, 0, 0),
    ),
    "a box under a pixel": (
        annotation(0, bbox=[5, 5, 0.5, 20]),
        problems.SMALL,
        AS_IS,
        "annotation 11 (1.png)",
        "its box spans (5, 5, 25, 5.5)",
        (5, 0, 0),
    ),
    "a box of no width": (
        annotation(0, bbox=[5, 5, 0, 20]),
        problems.SMALL,
        LEFT_OUT,
        "annotation 11 (1.png)",
        "its box spans (5, 5, 25, 5) (y1, x1, y2, x2), which has no area",
        (4, 0, 1),
    ),
    "a box outside": (
        annotation(0, bbox=[90, 5, 20, 20]),
        report.BOX,
        LEFT_OUT,
        "annotation 11 (1.png)",
        "no area in the image of (60, 80)",
        (4, 0, 1),
    ),
    "another box": (
        annotation(0, bbox=[25, 25, 20, 20]),
        report.BOX,
        "the box is used as is, and the part of the mask inside it",
        "annotation 11 (1.png)",
        "its box spans (25, 25, 45, 45) (y1, x1, y2, x2), its mask (5, 5, 25, 25); their IoU is 0.00",
        (5, 0, 0),
    ),
    "an image that changed": (
        as_large_as(50, 70),
        problems.SIZE,
        RAISES,
        "image 3 (3.png)",
        "3.png' is 50 x 70",
        (3, 2, 0),
    ),
    "not an image": (no_image, problems.UNREADABLE, RAISES, "image 3 (3.png)", "3.png' is not an image", (3, 2, 0)),
    "an image listed twice": (
        image(2, file_name="2.png"),
        report.LISTED_TWICE,
        "each record is used separately",
        "image 3 (2.png)",
        "2.png' is also the file of image 2 (2.png)",
        (5, 0, 0),
    ),
    "nothing annotated": (
        bare,
        problems.UNANNOTATED,
        "skipped in training",
        "image 3 (3.png)",
        "no usable annotations",
        (3, 0, 0),
    ),
    "crowds only": (
        of_size(60, 80, square(14, 3, 9, 0, 0, iscrowd=1)),
        problems.UNANNOTATED,
        "skipped in training",
        "image 3 (3.png)",
        "only has crowds",
        (4, 0, 0),
    ),
    "a tiny image": (
        of_size(80, 30, square(14, 3, 9, 0, 0)),
        report.TINY,
        AS_IS,
        "image 3 (3.png)",
        "it is only 30 x 80 pixels (width x height)",
        (4, 0, 0),
    ),
    "too many": (
        of_size(60, 80, *[square(100 + i, 3, 9, 7 * (i % 11), 5 * (i // 11), 4) for i in range(101)]),
        report.CROWDED,
        "100 random ones are used in each step",
        "image 3 (3.png)",
        "it has 101",
        (104, 0, 0),
    ),
    "an unused class": (
        lambda content, folder: content["categories"].append({"id": 3, "name": "owl"}),
        report.UNUSED,
        "nothing to learn it from",
        "class 1",
        "no instance has class 'owl'",
        (5, 0, 0),
    ),
}
PIXELS = {
    "cut off": (cut_off, problems.UNREADABLE, RAISES, "image 3 (3.png)", "truncated, damaged", (3, 2, 0)),
    "a copy": (
        copied,
        report.SAME_IMAGE,
        AS_IS,
        "image 3 (3.png)",
        "it has the same pixels as image 2 (2.png)",
        (5, 0, 0),
    ),
    "an image that changed": DAMAGE["an image that changed"],
}

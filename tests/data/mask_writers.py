"""Writes scenes in the formats that store masks as images or RLE.

A scene is a dict of images by name: (height, width, [(mask [H, W] bool, class name), ...]).
"""

import csv
import json

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from mrcnn.data import rle
from mrcnn.data.formats.voc import VOC_CLASSES, VOID_NUMBER, color_of

PALETTE = [value for number in range(256) for value in color_of(number)]


def box_mask(height, width, y1, x1, y2, x2):
    mask = np.zeros((height, width), bool)
    mask[y1:y2, x1:x2] = True
    return mask


def two_images():
    """Three separate objects in `a`, of two VOC classes; none in `b`."""
    boxes = [((2, 3, 7, 9), "dog"), ((10, 1, 18, 12), "cat"), ((4, 20, 19, 29), "dog")]
    return {"a": (20, 30, [(box_mask(20, 30, *box), name) for box, name in boxes]), "b": (16, 24, [])}


@st.composite
def scenes(draw, names=("cat", "dog"), overlap=False):
    """Up to three images of any size, each with up to six nonempty objects of any shape."""
    scene = {}
    for name in draw(st.lists(st.sampled_from(["a", "b 2", "c.3"]), unique=True, min_size=1, max_size=3)):
        height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        values = rng.integers(0, draw(st.integers(1, 7)), (height, width))
        masks = [values == value for value in np.unique(values) if value]
        if overlap:
            masks += [mask | (rng.random((height, width)) < 0.3) for mask in masks]
        scene[name] = height, width, [(mask, draw(st.sampled_from(names))) for mask in masks]
    return scene


def write_image(path, height, width):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(path)


def write_png(path, values, palette=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if palette:
        image.putpalette(palette)
    image.save(path)


def write_mask_files(root, scene, layout="one folder each", classes=True):
    """layout: that of the Data Science Bowl 2018, or "beside": images/ and masks/<name>/."""
    for name, (height, width, objects) in scene.items():
        each = layout == "one folder each"
        image, masks = (f"{name}/images/{name}", f"{name}/masks") if each else (f"images/{name}", f"masks/{name}")
        write_image(root / f"{image}.png", height, width)
        (root / masks).mkdir(parents=True)
        for i, (mask, class_name) in enumerate(objects):
            folder = root / masks / class_name if classes else root / masks
            write_png(folder / f"{i:03}.png", mask.astype(np.uint8) * 255)


def numbers_of(scene, name):
    """[H, W] int32: the objects of an image, numbered from 1."""
    height, width, objects = scene[name]
    values = np.zeros((height, width), np.int32)
    for number, (mask, _) in enumerate(objects, 1):
        values[mask] = number
    return values


def write_instance_ids(root, scene, folder="masks", depth="8", classes="json", numbers=None):
    """depth: 8, 16, palette or colors. classes: json, csv or None. numbers: the number of the i-th object."""
    rows = []
    for name, (height, width, objects) in scene.items():
        table = np.array([0, *(numbers(i) if numbers else i + 1 for i in range(len(objects)))])
        values = table[numbers_of(scene, name)]
        write_image(root / "images" / f"{name}.png", height, width)
        write_png(root / folder / f"{name}.png", *as_depth(values, depth))
        rows += [(name, int(number), class_name) for number, (_, class_name) in zip(table[1:], objects, strict=True)]
    if classes == "json":
        content = {name: {str(i): c for n, i, c in rows if n == name} for name in scene}
        (root / "classes.json").write_text(json.dumps(content))
    elif classes == "csv":
        write_rows(root / "classes.csv", [("image", "id", "class"), *rows])


def as_depth(values, depth):
    """The write_png arguments for values [H, W]."""
    if depth == "colors":
        return (np.stack([values & 255, values >> 8 & 255, values >> 16], axis=2).astype(np.uint8),)
    if depth == "palette":
        return values.astype(np.uint8), PALETTE
    return (values.astype(np.uint16 if depth == "16" else np.uint8),)


def write_voc(root, scene, colors=False, border=False, lists=("train",), xml=True, names=VOC_CLASSES):
    """colors: maps with the palette's colors instead of its numbers. border: void in free pixels around objects."""
    for name, (height, width, objects) in scene.items():
        numbers = numbers_of(scene, name)
        classes = np.array([0, *(names.index(c) + 1 for _, c in objects)])[numbers]
        if border:
            grown = np.pad(numbers != 0, 1)
            near = grown[:-2, 1:-1] | grown[2:, 1:-1] | grown[1:-1, :-2] | grown[1:-1, 2:]
            for values in (numbers, classes):
                values[near & (values == 0)] = VOID_NUMBER
        write_image(root / "JPEGImages" / f"{name}.jpg", height, width)
        for folder, values in (("SegmentationObject", numbers), ("SegmentationClass", classes)):
            table = np.array(PALETTE, np.uint8).reshape(256, 3)
            picture = (table[values],) if colors else (values.astype(np.uint8), PALETTE)
            write_png(root / folder / f"{name}.png", *picture)
        if xml:
            write_xml(root / "Annotations" / f"{name}.xml", height, width, [(c, False) for _, c in objects])
    for subset in lists:
        path = root / "ImageSets" / "Segmentation" / f"{subset}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{name}\n" for name in scene))


def write_xml(path, height, width, objects):
    """objects: (class name, whether it is difficult)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    inside = "".join(
        f"<object><name>{name}</name><difficult>{int(difficult)}</difficult></object>" for name, difficult in objects
    )
    path.write_text(f"<annotation><size><width>{width}</width><height>{height}</height></size>{inside}</annotation>")


def write_rle_csv(
    path,
    scene,
    columns=("ImageId", "EncodedPixels", "Height", "Width", "ClassId"),
    ids=("cat", "dog"),
    suffix=".jpg",
    attributes=(),
):
    """Writes the CSV file, and images in the folder of its name. ids: class names, indexed by id."""
    rows = [columns]
    for name, (height, width, objects) in scene.items():
        write_image(path.with_suffix("") / f"{name}.jpg", height, width)
        for mask, class_name in objects or [(np.zeros((height, width), bool), None)]:
            class_id = "" if class_name is None else ids.index(class_name)
            cells = {
                "ImageId": name + suffix,
                "EncodedPixels": rle.rle_to_pairs(rle.encode(mask)),
                "Height": height,
                "Width": width,
                "ClassId": class_id,
                "AttributesIds": ",".join(map(str, attributes)),
            }
            rows.append([cells[column] for column in columns])
    write_rows(path, rows)


def write_rows(path, rows):
    with open(path, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def assert_same(dataset, scene, order=True):
    """The dataset has the scene's masks, pixel by pixel, and classes. order: also in the scene's order."""
    assert {info["id"].removesuffix(".jpg") for info in dataset.image_info} == set(scene)
    for image_id in dataset.image_ids:
        info = dataset.image_info[image_id]
        height, width, objects = scene[info["id"].removesuffix(".jpg")]
        masks, class_ids = dataset.load_mask(image_id)
        assert masks.shape == (height, width, len(objects)) and masks.dtype == bool
        assert dataset.load_image(image_id).shape == (height, width, 3)
        found = [
            (dataset.class_names[i], mask.tobytes())
            for i, mask in zip(class_ids, np.moveaxis(masks, 2, 0), strict=True)
        ]
        expected = [(name, mask.tobytes()) for mask, name in objects]
        assert found == expected if order else sorted(found) == sorted(expected)

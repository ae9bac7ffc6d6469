"""One small scene, and what writes it in each format, so that tests can see whether readers agree.

`SCENE` has polygons at integer coordinates and, drawn by hand, the pixels that they cover. To add a format: a function
`write_<format>(folder)` that writes the scene (one polygon, or one picture, or ... an instance) into an empty folder,
and a line in FORMATS with what reads it back.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from mrcnn.data.voc_classes import colour_of
from tests.data import mask_writers

Points = list[tuple[int, int]]

# A character a pixel: the number of the instance, "." for the background
PIXELS = """
................................................................
................................................................
..11111111112222222222..........................................
..11111111112222222222..........................................
..11111111112222222222..333333..................................
..11111111112222222222..333333..................................
..11111111112222222222..333333...3333333........................
..111111111122..........333333...3333333........................
..111111111122..........333333...3333333........55..............
..111111111122...................3333333.......5555.............
............22...................3333333.......5555.............
............22...................3333333......555555............
.............................................55555555...........
.............................................55555555...........
............................................5555555555..........
...........................................555555555555.........
...........................................555555555555.........
............................................5555555555..........
.............................................55555555...........
.............................................55555555...........
..............................................555555....44444444
...............................................5555.....44444444
...............................................5555.....44444444
................................................55......44444444
........................................................44444444
........................................................44444444
........................................................44444444
........................................................44444444
........................................................44444444
........................................................44444444
........................................................44444444
........................................................44444444
""".split()


class Thing(NamedTuple):
    """An instance: the name of its class, and polygons [(x, y), ...], most often one, whose union it covers."""

    name: str
    parts: list[Points]


class Scene(NamedTuple):
    """image: [H, W, 3] uint8 RGB, written as `stem`.png. masks: [H, W, N] bool. boxes: [N, (y1, x1, y2, x2)]."""

    stem: str
    image: np.ndarray
    things: list[Thing]
    masks: np.ndarray
    boxes: np.ndarray
    class_names: list[str]  # without the background, in the order in which readers give them

    @property
    def class_ids(self) -> list[int]:
        """From 1 on, one a thing."""
        return [self.class_names.index(thing.name) + 1 for thing in self.things]


def _scene() -> Scene:
    things = [
        Thing("brick", [[(2, 2), (12, 2), (12, 10), (2, 10)]]),
        Thing("hook", [[(12, 2), (22, 2), (22, 7), (14, 7), (14, 12), (12, 12)]]),  # touches the first
        Thing("brick", [[(24, 4), (30, 4), (30, 9), (24, 9)], [(33, 6), (40, 6), (40, 12), (33, 12)]]),  # in two parts
        Thing("brick", [[(56, 20), (64, 20), (64, 32), (56, 32)]]),  # in the image's corner
        Thing("gem", [[(43, 16), (49, 7), (55, 16), (49, 25)]]),  # slanted
    ]
    numbers = np.array([[0 if c == "." else int(c) for c in line] for line in PIXELS])
    masks = numbers[:, :, None] == np.arange(1, len(things) + 1)
    boxes = np.array([[2, 2, 10, 12], [2, 12, 12, 22], [4, 24, 12, 40], [20, 56, 32, 64], [8, 43, 24, 55]])
    colours = np.array([[40, 60, 50], [200, 40, 40], [40, 200, 40], [40, 40, 200], [200, 200, 40], [40, 200, 200]])
    return Scene("scene", colours[numbers].astype(np.uint8), things, masks, boxes, ["brick", "gem", "hook"])


SCENE = _scene()


def write_image(folder: Path, scene: Scene = SCENE) -> str:
    """Writes `stem`.png into a folder, made where it is missing, and returns its name."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{scene.stem}.png"
    Image.fromarray(scene.image).save(folder / name)
    return name


def bridged(parts: list[Points]) -> Points:
    """One polygon for formats that have no parts: there and back along a bridge without area, as converters do it."""
    joined = list(parts[0])
    for part in parts[1:]:
        joined += [parts[0][0], *part, part[0]]
    return joined + parts[0][:1] * (len(parts) > 1)


def write_coco(folder: Path) -> None:
    """scene.png and instances.json."""
    height, width = SCENE.image.shape[:2]
    image = {"id": 1, "file_name": write_image(folder), "height": height, "width": width}
    annotations = [
        {"id": number, "image_id": 1, "category_id": class_id, "iscrowd": 0, "bbox": [x1, y1, x2 - x1, y2 - y1],
         "segmentation": [[v for point in part for v in point] for part in thing.parts]}
        for number, (thing, class_id, (y1, x1, y2, x2))
        in enumerate(zip(SCENE.things, SCENE.class_ids, SCENE.boxes.tolist(), strict=True), 1)]
    categories = [{"id": number, "name": name} for number, name in enumerate(SCENE.class_names, 1)]
    (folder / "instances.json").write_text(json.dumps(
        {"images": [image], "categories": categories, "annotations": annotations}))


def read_coco(folder: Path):
    """What load_coco makes of it."""
    from mrcnn.data.coco import load_coco

    return load_coco(folder / "instances.json")


def drawn(scene: Scene = SCENE) -> dict[str, tuple]:
    """The scene as the functions of `mask_writers` take it."""
    height, width = scene.image.shape[:2]
    objects = [(scene.masks[:, :, i], thing.name) for i, thing in enumerate(scene.things)]
    return {scene.stem: (height, width, objects)}


def put_image(placeholder: Path) -> None:
    """Puts the scene's image in the place of the grey one that `mask_writers` made."""
    placeholder.unlink()
    write_image(placeholder.parent)


def write_voc(folder: Path, colours: bool = False) -> None:
    """JPEGImages, SegmentationObject, SegmentationClass and a labelmap.txt."""
    mask_writers.write_voc(folder, drawn(), colours, names=SCENE.class_names)
    lines = [f"{name}:{','.join(map(str, colour_of(i)))}::" for i, name in enumerate(["none", *SCENE.class_names])]
    (folder / "labelmap.txt").write_text("\n".join(lines))
    put_image(folder / "JPEGImages" / "scene.jpg")


def read_voc(folder: Path):
    """What load_voc makes of it."""
    from mrcnn.data.voc import load_voc

    return load_voc(folder)


def write_mask_files(folder: Path, layout: str = "one folder each") -> None:
    """A picture a mask, in folders of classes."""
    mask_writers.write_mask_files(folder, drawn(), layout)
    put_image(folder / ("images" if layout == "beside" else "scene/images") / "scene.png")


def read_mask_files(folder: Path):
    """What load_mask_files makes of it."""
    from mrcnn.data.mask_files import load_mask_files

    return load_mask_files(folder)


def write_instance_ids(folder: Path, depth: str = "8") -> None:
    """images/, masks/ and classes.json."""
    mask_writers.write_instance_ids(folder, drawn(), depth=depth)
    put_image(folder / "images" / "scene.png")


def read_instance_ids(folder: Path):
    """What load_instance_ids makes of it."""
    from mrcnn.data.instance_ids import load_instance_ids

    return load_instance_ids(folder)


def write_rle_csv(folder: Path) -> None:
    """train.csv, train/ and label_descriptions.json."""
    mask_writers.write_rle_csv(folder / "train.csv", drawn(), ids=SCENE.class_names, suffix="")
    put_image(folder / "train" / "scene.jpg")
    categories = [{"id": i, "name": name} for i, name in enumerate(SCENE.class_names)]
    (folder / "label_descriptions.json").write_text(json.dumps({"categories": categories}))


def read_rle_csv(folder: Path):
    """What load_rle_csv makes of it."""
    from mrcnn.data.rle_csv import load_rle_csv

    return load_rle_csv(folder / "train.csv")


# Name, the first word being that of the format: what writes, what reads. Readers are imported when they are used.
FORMATS: dict[str, tuple[Callable[[Path], None], Callable[[Path], object]]] = {
    "coco": (write_coco, read_coco),
    "voc": (write_voc, read_voc),
    "voc in colours": (partial(write_voc, colours=True), read_voc),
    "mask_files": (write_mask_files, read_mask_files),
    "mask_files beside": (partial(write_mask_files, layout="beside"), read_mask_files),
    **{f"instance_ids of depth {depth}": (partial(write_instance_ids, depth=depth), read_instance_ids)
       for depth in ("8", "16", "palette", "colours")},
    "rle_csv": (write_rle_csv, read_rle_csv),
}

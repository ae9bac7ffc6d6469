"""One small scene, and what writes it in each format, so that tests can see whether readers agree.

`SCENE` has polygons at integer coordinates and, drawn by hand, the pixels that they cover. To add a format: a function
`write_<format>(folder)` that writes the scene (one polygon, or one picture, or ... an instance) into an empty folder,
and a line in FORMATS with what reads it back.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

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


# Name: what writes, what reads. Readers are imported when they are used.
FORMATS: dict[str, tuple[Callable[[Path], None], Callable[[Path], object]]] = {
    "coco": (write_coco, read_coco),
}

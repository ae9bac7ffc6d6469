"""One small scene and functions that write it in each format, to test whether readers agree.

`SCENE` has polygons at integer coordinates and, drawn by hand, the pixels they cover. To add a format, add a function
`write_<format>(folder)` that writes the scene (one polygon, or one file, or ... per instance) to an empty folder,
and a line in FORMATS with the function that reads it back.
"""

import base64
import io
import json
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from mrcnn.data.formats.voc import color_of
from tests.data import mask_writers
from tests.data.tf_writer import write_records

Points = list[tuple[int, int]]

# One character per pixel: the number of the instance, "." for the background
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
    """An instance: its class name, and polygons [(x, y), ...], usually one, whose union it covers."""

    name: str
    parts: list[Points]


class Scene(NamedTuple):
    """image: [H, W, 3] uint8 RGB, written as `stem`.png. masks: [H, W, N] bool. boxes: [N, (y1, x1, y2, x2)]."""

    stem: str
    image: np.ndarray
    things: list[Thing]
    masks: np.ndarray
    boxes: np.ndarray
    class_names: list[str]  # without background, in the order returned by readers

    @property
    def class_ids(self) -> list[int]:
        """From 1, one per thing."""
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
    colors = np.array([[40, 60, 50], [200, 40, 40], [40, 200, 40], [40, 40, 200], [200, 200, 40], [40, 200, 200]])
    return Scene("scene", colors[numbers].astype(np.uint8), things, masks, boxes, ["brick", "gem", "hook"])


SCENE = _scene()


def write_image(folder: Path, scene: Scene = SCENE) -> str:
    """Writes `stem`.png to a folder, created if missing, and returns its name."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{scene.stem}.png"
    Image.fromarray(scene.image).save(folder / name)
    return name


def bridged(parts: list[Points]) -> Points:
    """One polygon for formats without parts: joined by bridges without area, as converters do."""
    joined = list(parts[0])
    for part in parts[1:]:
        joined += [parts[0][0], *part, part[0]]
    return joined + parts[0][:1] * (len(parts) > 1)


def write_coco(folder: Path) -> None:
    """scene.png and instances.json."""
    height, width = SCENE.image.shape[:2]
    image = {"id": 1, "file_name": write_image(folder), "height": height, "width": width}
    annotations = [
        {
            "id": number,
            "image_id": 1,
            "category_id": class_id,
            "iscrowd": 0,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "segmentation": [[v for point in part for v in point] for part in thing.parts],
        }
        for number, (thing, class_id, (y1, x1, y2, x2)) in enumerate(
            zip(SCENE.things, SCENE.class_ids, SCENE.boxes.tolist(), strict=True), 1
        )
    ]
    categories = [{"id": number, "name": name} for number, name in enumerate(SCENE.class_names, 1)]
    (folder / "instances.json").write_text(
        json.dumps({"images": [image], "categories": categories, "annotations": annotations})
    )


def read_coco(folder: Path):
    """What read_coco makes of it."""
    from mrcnn.data.formats.coco import read_coco

    return read_coco(folder / "instances.json")


def write_via(folder: Path, version: int = 2) -> None:
    """scene.png and via_region_data.json, the class in the attribute "kind"."""
    name = write_image(folder)
    regions = []
    for thing in SCENE.things:
        xs, ys = zip(*bridged(thing.parts), strict=True)
        regions.append(
            {
                "shape_attributes": {"name": "polygon", "all_points_x": xs, "all_points_y": ys},
                "region_attributes": {"kind": thing.name},
            }
        )
    numbered = {str(number): region for number, region in enumerate(regions)}
    entry = {
        "filename": name,
        "size": (folder / name).stat().st_size,
        "file_attributes": {},
        "regions": numbered if version == 1 else regions,
    }
    (folder / "via_region_data.json").write_text(json.dumps({f"{name}{entry['size']}": entry}))


def read_via(folder: Path):
    """What read_via makes of it."""
    from mrcnn.data.formats.via import read_via

    return read_via(folder, attribute="kind")


def write_labelme(folder: Path) -> None:
    """scene.png and scene.json; parts of one instance are shapes of one group."""
    height, width = SCENE.image.shape[:2]
    shapes = [
        {
            "label": thing.name,
            "points": part,
            "group_id": number if len(thing.parts) > 1 else None,
            "shape_type": "polygon",
            "flags": {},
        }
        for number, thing in enumerate(SCENE.things)
        for part in thing.parts
    ]
    (folder / f"{SCENE.stem}.json").write_text(
        json.dumps(
            {
                "version": "5.4.1",
                "flags": {},
                "shapes": shapes,
                "imagePath": write_image(folder),
                "imageData": None,
                "imageHeight": height,
                "imageWidth": width,
            }
        )
    )


def read_labelme(folder: Path):
    """What read_labelme makes of it."""
    from mrcnn.data.formats.labelme import read_labelme

    return read_labelme(folder)


def write_yolo(folder: Path) -> None:
    """images/scene.png, labels/scene.txt and data.yaml, with six decimals as most tools write them."""
    height, width = SCENE.image.shape[:2]
    write_image(folder / "images")
    lines = []
    for thing, class_id in zip(SCENE.things, SCENE.class_ids, strict=True):
        fractions = [v for x, y in bridged(thing.parts) for v in (x / width, y / height)]
        lines.append(" ".join([str(class_id - 1), *(f"{v:.6f}" for v in fractions)]))
    (folder / "labels").mkdir()
    (folder / "labels" / f"{SCENE.stem}.txt").write_text("\n".join(lines) + "\n")
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(SCENE.class_names))
    (folder / "data.yaml").write_text(f"path: .\ntrain: images\nnames:\n{names}")


def read_yolo(folder: Path):
    """What read_yolo makes of it."""
    from mrcnn.data.formats.yolo import read_yolo

    return read_yolo(folder, "train")


def drawn(scene: Scene = SCENE) -> dict[str, tuple]:
    """The scene in the form that `mask_writers` takes."""
    height, width = scene.image.shape[:2]
    objects = [(scene.masks[:, :, i], thing.name) for i, thing in enumerate(scene.things)]
    return {scene.stem: (height, width, objects)}


def put_image(placeholder: Path) -> None:
    """Replaces the gray image written by `mask_writers` with the scene's."""
    placeholder.unlink()
    write_image(placeholder.parent)


def write_voc(folder: Path, colors: bool = False) -> None:
    """JPEGImages, SegmentationObject, SegmentationClass and a labelmap.txt."""
    mask_writers.write_voc(folder, drawn(), colors, names=SCENE.class_names)
    lines = [f"{name}:{','.join(map(str, color_of(i)))}::" for i, name in enumerate(["none", *SCENE.class_names])]
    (folder / "labelmap.txt").write_text("\n".join(lines))
    put_image(folder / "JPEGImages" / "scene.jpg")


def read_voc(folder: Path):
    """What read_voc makes of it."""
    from mrcnn.data.formats.voc import read_voc

    return read_voc(folder)


def write_mask_files(folder: Path, layout: str = "one folder each") -> None:
    """One file per mask, in class folders."""
    mask_writers.write_mask_files(folder, drawn(), layout)
    put_image(folder / ("images" if layout == "beside" else "scene/images") / "scene.png")


def read_mask_files(folder: Path):
    """What read_mask_files makes of it."""
    from mrcnn.data.formats.mask_files import read_mask_files

    return read_mask_files(folder)


def write_instance_ids(folder: Path, depth: str = "8") -> None:
    """images/, masks/ and classes.json."""
    mask_writers.write_instance_ids(folder, drawn(), depth=depth)
    put_image(folder / "images" / "scene.png")


def read_instance_ids(folder: Path):
    """What read_instance_ids makes of it."""
    from mrcnn.data.formats.instance_ids import read_instance_ids

    return read_instance_ids(folder)


def write_rle_csv(folder: Path) -> None:
    """train.csv, train/ and label_descriptions.json."""
    mask_writers.write_rle_csv(folder / "train.csv", drawn(), ids=SCENE.class_names, suffix="")
    put_image(folder / "train" / "scene.jpg")
    categories = [{"id": i, "name": name} for i, name in enumerate(SCENE.class_names)]
    (folder / "label_descriptions.json").write_text(json.dumps({"categories": categories}))


def read_rle_csv(folder: Path):
    """What read_rle_csv makes of it."""
    from mrcnn.data.formats.rle_csv import read_rle_csv

    return read_rle_csv(folder / "train.csv")


def write_via_3(folder: Path) -> None:
    """scene.png and project.json of VIA 3."""
    name = write_image(folder)
    options = dict(map(reversed, enumerate(SCENE.class_names)))
    metadata = {
        f"1_{number}": {
            "vid": "1",
            "flg": 0,
            "z": [],
            "xy": [7, *(v for point in bridged(thing.parts) for v in point)],
            "av": {"1": str(options[thing.name])},
        }
        for number, thing in enumerate(SCENE.things)
    }
    attribute = {"aname": "kind", "type": 3, "options": {str(i): name for i, name in enumerate(SCENE.class_names)}}
    project = {"attribute": {"1": attribute}, "file": {"1": {"fid": "1", "fname": name}}, "metadata": metadata}
    (folder / "project.json").write_text(json.dumps({**project, "view": {"1": {"fid_list": ["1"]}}}))


def write_via_table(folder: Path) -> None:
    """scene.png and via_region_data.csv."""
    write_via(folder)
    (entry,) = json.loads((folder / "via_region_data.json").read_text()).values()
    (folder / "via_region_data.json").unlink()
    rows = [["filename", "file_size", "region_id", "region_shape_attributes", "region_attributes"]]
    for number, region in enumerate(entry["regions"]):
        shape, attributes = (json.dumps(region[key]) for key in ("shape_attributes", "region_attributes"))
        rows.append([entry["filename"], entry["size"], number, shape, attributes])
    mask_writers.write_rows(folder / "via_region_data.csv", rows)


def write_lvis(folder: Path) -> None:
    """COCO's form without file names and crowds."""
    write_coco(folder)
    (folder / "train2017").mkdir()
    (folder / f"{SCENE.stem}.png").rename(folder / "train2017" / f"{SCENE.stem}.png")
    path = folder / "instances.json"
    content = json.loads(path.read_text())
    for image in content["images"]:
        image["coco_url"] = f"http://images.cocodataset.org/train2017/{image.pop('file_name')}"
    for annotation in content["annotations"]:
        del annotation["iscrowd"]
    path.write_text(json.dumps(content))


def write_supervisely(folder: Path, bitmaps: bool = False) -> None:
    """meta.json, day 1/img/scene.png and day 1/ann/scene.png.json."""
    height, width = SCENE.image.shape[:2]
    name, objects = write_image(folder / "day 1" / "img"), []
    for place, thing in enumerate(SCENE.things):
        if bitmaps:
            y1, x1, y2, x2 = SCENE.boxes[place]
            file = io.BytesIO()
            Image.fromarray(SCENE.masks[y1:y2, x1:x2, place]).save(file, "png")
            data = base64.b64encode(zlib.compress(file.getvalue())).decode()
            shape = {"geometryType": "bitmap", "bitmap": {"data": data, "origin": [int(x1), int(y1)]}}
        else:
            shape = {"geometryType": "polygon", "points": {"exterior": bridged(thing.parts), "interior": []}}
        objects.append({"classTitle": thing.name, "tags": [], **shape})
    (folder / "day 1" / "ann").mkdir()
    content = {"description": "", "tags": [], "size": {"height": height, "width": width}, "objects": objects}
    (folder / "day 1" / "ann" / f"{name}.json").write_text(json.dumps(content))
    classes = [{"title": name, "shape": "any", "color": "#00ff00"} for name in SCENE.class_names]
    (folder / "meta.json").write_text(json.dumps({"classes": classes, "tags": []}))


def read_supervisely(folder: Path):
    """What read_supervisely makes of it."""
    from mrcnn.data.formats.supervisely import read_supervisely

    return read_supervisely(folder)


def tf_features(scene: Scene = SCENE) -> dict[str, list]:
    """The features of a tf.train.Example of the scene."""
    height, width = scene.image.shape[:2]
    pictures = []
    for picture in (scene.image, *(scene.masks[:, :, i].astype(np.uint8) for i in range(len(scene.things)))):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "png")
        pictures.append(file.getvalue())
    sides = dict(zip(("ymin", "xmin", "ymax", "xmax"), scene.boxes.T, strict=True))
    return {
        "image/encoded": pictures[:1],
        "image/format": ["png"],
        "image/filename": [f"{scene.stem}.png"],
        "image/height": [height],
        "image/width": [width],
        **{
            f"image/object/bbox/{side}": [float(v) / (height if side[0] == "y" else width) for v in values]
            for side, values in sides.items()
        },
        "image/object/class/label": scene.class_ids,
        "image/object/class/text": [thing.name for thing in scene.things],
        "image/object/mask": pictures[1:],
    }


def write_tfrecord(folder: Path) -> None:
    """train.record-00000-of-00001."""
    write_records(folder / "train.record-00000-of-00001", [tf_features()])


def read_tfrecord(folder: Path):
    """What read_tfrecord makes of it."""
    from mrcnn.data.formats.tfrecord import read_tfrecord

    return read_tfrecord(folder)


def write_label_studio(folder: Path, strokes: bool = False) -> None:
    """scene.png and tasks.json."""
    from mrcnn.data import rle
    from mrcnn.data.export.label_studio import encode_brush

    height, width = SCENE.image.shape[:2]
    results = []
    for place, thing in enumerate(SCENE.things):
        points = [[100 * x / width, 100 * y / height] for x, y in bridged(thing.parts)]
        kind, value = ("brushlabels", {"rle": encode_brush(rle.encode(SCENE.masks[:, :, place]))})
        kind, value = (kind, value) if strokes else ("polygonlabels", {"points": points})
        sizes = {"original_width": width, "original_height": height}
        results.append({"type": kind, "value": {**value, kind: [thing.name]}, **sizes})
    annotation = {"id": 1, "was_cancelled": False, "result": results}
    task = {"id": 1, "data": {"image": f"/data/local-files/?d={write_image(folder)}"}, "annotations": [annotation]}
    (folder / "tasks.json").write_text(json.dumps([task]))


def read_label_studio(folder: Path):
    """What read_label_studio makes of it."""
    from mrcnn.data.formats.label_studio import read_label_studio

    return read_label_studio(folder / "tasks.json")


# Name, starting with the format: writer, reader. Readers are imported on use.
FORMATS: dict[str, tuple[Callable[[Path], None], Callable[[Path], object]]] = {
    "coco": (write_coco, read_coco),
    "via 1": (partial(write_via, version=1), read_via),
    "via 2": (write_via, read_via),
    "via 3": (write_via_3, read_via),
    "via in a table": (write_via_table, read_via),
    "coco of LVIS": (write_lvis, read_coco),
    "label_studio": (write_label_studio, read_label_studio),
    "label_studio in strokes": (partial(write_label_studio, strokes=True), read_label_studio),
    "supervisely": (write_supervisely, read_supervisely),
    "supervisely in bitmaps": (partial(write_supervisely, bitmaps=True), read_supervisely),
    "tfrecord": (write_tfrecord, read_tfrecord),
    "labelme": (write_labelme, read_labelme),
    "yolo": (write_yolo, read_yolo),
    "voc": (write_voc, read_voc),
    "voc in colors": (partial(write_voc, colors=True), read_voc),
    "mask_files": (write_mask_files, read_mask_files),
    "mask_files beside": (partial(write_mask_files, layout="beside"), read_mask_files),
    **{
        f"instance_ids of depth {depth}": (partial(write_instance_ids, depth=depth), read_instance_ids)
        for depth in ("8", "16", "palette", "colors")
    },
    "rle_csv": (write_rle_csv, read_rle_csv),
}

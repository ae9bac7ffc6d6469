"""The same scene in each format gives the same masks, classes and boxes."""

import json
from pathlib import Path

import numpy as np
import pytest

from mrcnn.data.annotations.outlines import Polygons
from mrcnn.data.formats.coco import read_coco
from mrcnn.data.formats.labelme import read_labelme
from mrcnn.data.formats.via import ANNOTATION_FILE, read_via
from mrcnn.data.formats.yolo import read_yolo
from mrcnn.data.masks import extract_bboxes
from tests.data.scenes import FORMATS, PIXELS, SCENE

COCO_MINI = Path(__file__).resolve().parents[3] / "shared" / "data" / "coco_mini"


def test_the_scene_is_what_the_readers_are_to_be_tried_on():
    assert len(PIXELS) == 32 and {len(line) for line in PIXELS} == {64}
    np.testing.assert_array_equal(extract_bboxes(SCENE.masks), SCENE.boxes)
    assert SCENE.masks.sum(axis=(0, 1)).tolist() == [80, 60, 72, 96, 108]
    assert max(len(thing.parts) for thing in SCENE.things) == 2
    assert SCENE.boxes[3, 2:].tolist() == list(SCENE.image.shape[:2])  # at the border
    touching = SCENE.masks[:, 11, 0] & SCENE.masks[:, 12, 1]
    assert touching.sum() == 8


@pytest.mark.parametrize("name", FORMATS)
def test_masks_classes_and_boxes(tmp_path, name):
    write, read = FORMATS[name]
    write(tmp_path)
    dataset = read(tmp_path)
    assert dataset.class_names == ["BG", *SCENE.class_names]
    assert dataset.image_ids.tolist() == [0] and len(dataset.problems) == 0
    np.testing.assert_array_equal(dataset.load_image(0), SCENE.image)
    masks, class_ids = dataset.load_mask(0)
    assert masks.shape == SCENE.masks.shape and masks.dtype == bool and class_ids.dtype == np.int32
    for number, thing in enumerate(SCENE.things):
        np.testing.assert_array_equal(masks[:, :, number], SCENE.masks[:, :, number], err_msg=f"{number} {thing.name}")
    assert class_ids.tolist() == SCENE.class_ids
    boxes = dataset.load_boxes(0)  # those in the file, if any
    np.testing.assert_array_equal(extract_bboxes(masks) if boxes is None else boxes, SCENE.boxes)


def rewritten(coco, folder, image_ids):
    """Writes the polygons of one part of some images for VIA, labelme and YOLO; returns the readers and the masks."""
    entries, expected = {}, {}
    for path in ("via", "labelme", "yolo/images", "yolo/labels"):
        (folder / path).mkdir(parents=True)
    for image_id in image_ids:
        info, shapes, lines = coco.image_info[image_id], [], []
        name, height, width = Path(info["path"]).name, info["height"], info["width"]
        for path in ("via", "labelme", "yolo/images"):
            (folder / path / name).symlink_to(info["path"])
        single = [
            i
            for i, instance in enumerate(info["instances"])
            if isinstance(instance.outline, Polygons) and len(instance.outline.parts) == 1
        ]
        for points in (info["instances"][i].outline.parts[0].tolist() for i in single):
            shapes.append({"label": "a", "points": points, "shape_type": "polygon"})
            lines.append("0 " + " ".join(f"{x / width:.6f} {y / height:.6f}" for x, y in points))
        regions = [
            {
                "shape_attributes": {
                    "name": "polygon",
                    "all_points_x": [x for x, _ in shape["points"]],
                    "all_points_y": [y for _, y in shape["points"]],
                }
            }
            for shape in shapes
        ]
        entries[name] = {"filename": name, "regions": regions}
        record = {"shapes": shapes, "imagePath": name, "imageHeight": height, "imageWidth": width}
        (folder / "labelme" / f"{Path(name).stem}.json").write_text(json.dumps(record))
        (folder / "yolo" / "labels" / f"{Path(name).stem}.txt").write_text("\n".join(lines))
        if single:
            expected[Path(name).stem] = coco.load_mask(image_id)[0][..., single]
    (folder / "via" / ANNOTATION_FILE).write_text(
        json.dumps({name: entry for name, entry in entries.items() if entry["regions"]})
    )
    (folder / "yolo" / "data.yaml").write_text("names: [a]")
    readers = {"via": read_via, "labelme": read_labelme, "yolo": read_yolo}
    return {name: reader(folder / name) for name, reader in readers.items()}, expected


@pytest.mark.slow
def test_real_polygons_are_filled_alike_whatever_tool_wrote_them(tmp_path):
    if not COCO_MINI.exists():
        pytest.skip(f"no photographs at {COCO_MINI}")
    coco = read_coco(COCO_MINI / "annotations" / "instances_val2017.json", COCO_MINI / "val2017")
    datasets, expected = rewritten(coco, tmp_path, coco.image_ids[::8])
    assert sum(masks.shape[2] for masks in expected.values()) > 50
    for name, dataset in datasets.items():
        by_stem = {Path(info["path"]).stem: image_id for image_id, info in enumerate(dataset.image_info)}
        for stem, masks in expected.items():
            np.testing.assert_array_equal(dataset.load_mask(by_stem[stem])[0], masks, err_msg=f"{name} {stem}")

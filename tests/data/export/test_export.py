"""Exports for labeling tools: reading them back gives the same masks."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from mrcnn.data import rle
from mrcnn.data.export import FORMATS, export_detections
from mrcnn.data.export.drawn import bridged, trace
from mrcnn.data.export.label_studio import encode_brush
from mrcnn.data.formats import load_dataset

NAMES = ["BG", "cat", "dog", "a: b"]


def random_mask(seed, height=23, width=37):
    rng = np.random.default_rng(seed)
    coarse = rng.random((height // 3 + 1, width // 3 + 1)) < 0.5
    mask = np.kron(coarse, np.ones((3, 3), bool))[:height, :width]
    return mask ^ (rng.random(mask.shape) < 0.03)  # pieces, holes, single pixels and corners that touch


def filled(polygons, height, width):
    parts = [[v for point in polygon for v in point] for polygon in polygons]
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(parts, height, width))).astype(bool)


@pytest.mark.parametrize("seed", range(20))
def test_polygons_fill_the_pixels_of_their_mask(seed):
    mask = random_mask(seed)
    np.testing.assert_array_equal(filled(trace(mask), *mask.shape), mask)
    np.testing.assert_array_equal(filled([bridged(trace(mask))], *mask.shape), mask)


def test_polygons_by_hand():
    assert trace(np.zeros((2, 2), bool)) == []
    assert sorted(trace(np.ones((2, 3), bool))[0]) == [(0, 0), (0, 2), (3, 0), (3, 2)]
    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    (polygon,) = trace(ring)
    assert {(0, 0), (3, 3), (1, 1), (2, 2)} <= set(polygon) and filled([polygon], 3, 3)[1, 1] == 0


@pytest.fixture
def scene(tmp_path):
    """Two images with results, one of them without any detection."""
    paths, results = [], []
    for number, count in enumerate((4, 0)):
        paths.append(tmp_path / "photographs" / f"{number}.png")
        paths[-1].parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((23, 37, 3), 90, np.uint8)).save(paths[-1])
        masks = np.stack(
            [random_mask(seed) for seed in range(count)]
            or [np.zeros((23, 37), bool)][:0]
            or [np.zeros((23, 37), bool)],
            2,
        )
        masks = masks[:, :, :count]
        scores, ids = np.linspace(0.9, 0.4, count), np.array([1, 2, 3, 1])[:count]
        results.append({"class_ids": ids, "scores": scores, "masks": masks, "rois": np.zeros((count, 4))})
    return paths, results


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_written_is_read_back(tmp_path, scene, format):
    paths, results = scene
    written = export_detections(format, tmp_path / "out", paths, results, NAMES)
    assert written and all(str(tmp_path / "out") in path for path in written)
    options = {
        "via": {"attribute": "class"},
        "labelme": {"class_names": NAMES[1:]},
        "yolo": {},
        "coco": {},
        "label_studio": {},
    }[format]
    subset = "train" if format == "yolo" else None
    if format == "via":
        with pytest.warns(UserWarning, match="image without instances"):
            dataset = load_dataset(tmp_path / "out", subset, format=format, **options)
    else:
        dataset = load_dataset(tmp_path / "out", subset, format=format, **options)
    masks, class_ids = dataset.load_mask(0)
    assert [dataset.class_names[i] for i in class_ids] == ["cat", "dog", "a: b"]  # the fourth is below 0.5
    np.testing.assert_array_equal(masks, results[0]["masks"][:, :, :3])
    assert len(dataset.image_info) == (1 if format == "via" else 2)


def decoded(stroke, height, width):
    """A brush mask decoded bit by bit."""
    text = "".join(f"{byte:08b}" for byte in stroke)
    place = 0

    def read(count):
        nonlocal place
        place += count
        return int(text[place - count : place], 2)

    total, word = read(32), read(5) + 1
    sizes, values = [read(4) + 1 for _ in range(4)], []
    while len(values) < total:
        run, count = read(1), read(sizes[read(2)]) + 1
        values += [read(word)] * count if run else [read(word) for _ in range(count)]
    return np.array(values).reshape(height, width, 4)[:, :, 3] > 0


@pytest.mark.parametrize("seed", range(5))
def test_brush_strokes(seed):
    mask = random_mask(seed)
    np.testing.assert_array_equal(decoded(encode_brush(rle.encode(mask)), *mask.shape), mask)
    large = np.zeros((300, 400), bool)
    large[:, 399] = large[250:] = True  # runs longer than the longest count
    np.testing.assert_array_equal(decoded(encode_brush(rle.encode(large)), 300, 400), large)


def test_predictions_for_label_studio(tmp_path, scene):
    paths, results = scene
    (path,) = export_detections("label_studio", tmp_path / "out", paths, results, NAMES, min_score=0.6)
    first, second = json.loads(open(path).read())
    assert first["data"]["image"] == "/data/local-files/?d=../photographs/0.png"
    (prediction,) = first["predictions"]
    strokes = prediction["result"]
    assert [stroke["value"]["brushlabels"] for stroke in strokes] == [["cat"], ["dog"]]
    assert (strokes[0]["original_width"], strokes[0]["original_height"]) == (37, 23)
    for i, stroke in enumerate(strokes):
        np.testing.assert_array_equal(decoded(stroke["value"]["rle"], 23, 37), results[0]["masks"][:, :, i])
    assert second["predictions"][0]["result"] == []


def test_wrong_arguments(tmp_path, scene):
    paths, results = scene
    with pytest.raises(ValueError, match=f"unknown format 'x'; expected one of {', '.join(FORMATS)}"):
        export_detections("x", tmp_path, paths, results, NAMES)
    with pytest.raises(ValueError, match="got 1 paths and 2 results"):
        export_detections("coco", tmp_path, paths[:1], results, NAMES)
    with pytest.raises(ValueError, match="class ids .* need names, got only"):
        export_detections("coco", tmp_path, paths, results, NAMES[:2])
    with pytest.raises(ValueError, match="expected masks"):
        export_detections("coco", tmp_path, paths[:1], [results[0] | {"scores": [1.0]}], NAMES)
    for name in ("yolo", "labelme"):
        with pytest.raises(ValueError, match="have the same name|are named"):
            export_detections(name, tmp_path / "out", [paths[0], paths[0]], results[:1] * 2, NAMES)


def test_keypoints_are_written_in_coco_and_missed_aloud_elsewhere(tmp_path, scene):
    paths, results = scene
    for one in results:
        one["keypoints"] = np.full((len(one["scores"]), 2, 3), (2.5, 3.5, 0.9), np.float32)
        one["keypoints"][:, 1, 2] = 0.01
    export_detections("coco", tmp_path / "coco", paths, results, NAMES)
    dataset = load_dataset(tmp_path / "coco", format="coco")
    assert dataset.load_keypoints(0).tolist() == [[[2.5, 3.5, 2], [2.5, 3.5, 1]]] * 3
    for format in set(FORMATS) - {"coco"}:
        with pytest.warns(UserWarning, match=f"the keypoints are not written in format '{format}'; \"coco\" has them"):
            export_detections(format, tmp_path / format, paths, results, NAMES)


def test_detections_without_masks_are_refused(tmp_path, scene):
    paths, results = scene
    results[0]["masks"] = np.zeros_like(results[0]["masks"])
    with pytest.raises(ValueError, match="none of the 3 detections with a score of 0.5 or more has a mask"):
        export_detections("coco", tmp_path / "out", paths, results, NAMES)
    assert not (tmp_path / "out").exists()

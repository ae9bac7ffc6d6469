"""Results as other tools know them: every pixel in its polygon, holes as holes, and optional libraries named."""

import cv2
import numpy as np
import pytest

from mrcnn.data.keypoints import Skeleton
from mrcnn.inference.results import Result


def result(*masks):
    count, size = len(masks), masks[0].shape
    boxes = np.tile(np.array([1, 2, 30, 40], np.float32), (count, 1))
    ids, scores = np.arange(1, count + 1), np.linspace(0.9, 0.5, count, dtype=np.float32)
    return Result(boxes, ids, scores, np.stack(masks, axis=2), size, ("BG", "cat", "dog"))


def filled(*boxes, size=(60, 80)):
    mask = np.zeros(size, bool)
    for y1, x1, y2, x2 in boxes:
        mask[y1:y2, x1:x2] = True
    return mask


def area(ring):
    """Signed, positive where the ring runs clockwise on a screen, whose y points down."""
    x, y = np.array(ring).T
    return float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2


def blob(seed):
    noise = np.random.default_rng(seed).random((60, 80)).astype(np.float32)
    return cv2.GaussianBlur(noise, (0, 0), 4) > 0.5


def test_a_box_by_hand():
    (feature,) = result(filled((10, 30, 20, 50))).to_geojson()["features"]
    ring = feature["geometry"]["coordinates"][0][0]
    assert ring[0] == ring[-1] and sorted(ring[:-1]) == [[30, 10], [30, 20], [50, 10], [50, 20]] and area(ring) == -200
    assert feature["properties"] == {"class": "cat", "class_id": 1, "score": 0.9} and feature["bbox"] == [2, 1, 40, 30]


def test_holes_and_parts():
    mask = filled((20, 5, 50, 40), (2, 60, 6, 70))
    mask[30:40, 15:25] = False
    (feature,) = result(mask).to_geojson(0)["features"]
    areas = sorted([area(ring) for ring in polygon] for polygon in feature["geometry"]["coordinates"])
    assert areas == [[-1050, 100], [-40]]


@pytest.mark.parametrize("seed", range(5))
def test_polygons_without_tolerance_hold_exactly_the_pixels(seed):
    mask = blob(seed)
    (feature,) = result(mask).to_geojson(0)["features"]
    rings = [ring for polygon in feature["geometry"]["coordinates"] for ring in polygon]
    assert -sum(map(area, rings)) == mask.sum()


@pytest.mark.parametrize("tolerance", [1.0, 3.0])
def test_a_tolerance_saves_points_and_moves_outlines_little(tolerance):
    mask = cv2.circle(np.zeros((200, 200), np.uint8), (100, 100), 80, 1, -1).astype(bool)
    fine, coarse = (result(mask).to_geojson(t)["features"][0]["geometry"]["coordinates"][0][0] for t in (0, tolerance))
    assert len(coarse) < len(fine) / 4
    radii = np.hypot(*(np.array(coarse) - 100.5).T)
    assert np.abs(radii - 80).max() < 1.5 + tolerance


def test_single_pixels_stay_and_empty_masks_have_no_geometry():
    pixel, nothing = result(filled((2, 3, 3, 4)), filled()).to_geojson(5)["features"]
    assert area(pixel["geometry"]["coordinates"][0][0]) == -1 and nothing["geometry"] is None
    with pytest.raises(ValueError, match="tolerance must be 0 pixels or more, got -1"):
        result(filled()).to_geojson(-1)


def test_a_table():
    pandas = pytest.importorskip("pandas", reason="pip install 'mask-rcnn-keras[pandas]'")
    table = result(filled((10, 30, 20, 50)), filled()).to_pandas()
    assert isinstance(table, pandas.DataFrame) and table["class"].tolist() == ["cat", "dog"]
    assert table["area"].tolist() == [200, 0] and table["share"].tolist() == [200 / 4800, 0] and table["x2"][0] == 40


def test_supervision():
    pytest.importorskip("supervision", reason="pip install 'mask-rcnn-keras[supervision]'")
    found = result(filled((10, 30, 20, 50)), filled()).to_supervision()
    assert found.xyxy.tolist()[0] == [2, 1, 40, 30] and found.mask.shape == (2, 60, 80) and found.mask[0].sum() == 200
    assert found.class_id.tolist() == [1, 2] and found.data["class_name"].tolist() == ["cat", "dog"]


@pytest.fixture
def with_keypoints():
    found = result(filled((10, 30, 20, 50)), filled())
    found["keypoints"] = np.array([[[1.5, 2.5, 0.75], [3, 4, 0.25]], [[5, 6, 1], [7, 8, 0.5]]], np.float32)
    found.skeleton = Skeleton(["nose", "tail"])
    return found


def test_keypoints_in_a_table(with_keypoints):
    pytest.importorskip("pandas", reason="pip install 'mask-rcnn-keras[pandas]'")
    table = with_keypoints.to_pandas()
    points = [f"{name} {what}" for name in ("nose", "tail") for what in ("y", "x", "score")]
    assert table[points].values.tolist() == [[1.5, 2.5, 0.75, 3, 4, 0.25], [5, 6, 1, 7, 8, 0.5]]
    with_keypoints.skeleton = None
    assert with_keypoints.to_pandas()["keypoint 1 x"].tolist() == [4, 8]


def test_keypoints_in_supervision(with_keypoints):
    pytest.importorskip("supervision", reason="pip install 'mask-rcnn-keras[supervision]'")
    points = with_keypoints.to_supervision().data["keypoints"]
    assert points.tolist() == [[[2.5, 1.5, 0.75], [4, 3, 0.25]], [[6, 5, 1], [8, 7, 0.5]]]


def test_keypoints_in_geojson(with_keypoints):
    first, second = with_keypoints.to_geojson()["features"]
    assert first["properties"]["keypoints"] == {"nose": [2.5, 1.5, 0.75], "tail": [4, 3, 0.25]}
    assert second["properties"]["keypoints"]["tail"] == [8, 7, 0.5]
    assert "keypoints" not in result(filled()).to_geojson()["features"][0]["properties"]


@pytest.mark.parametrize("name", ["supervision", "pandas"])
def test_a_missing_library_names_the_command_that_installs_it(name, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"pip install 'mask-rcnn-keras\[{name}\]'"):
        getattr(result(filled()), f"to_{name}")()

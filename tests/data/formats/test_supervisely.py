"""Supervisely projects."""

import json
import shutil

import numpy as np
import pytest

from mrcnn.data.annotations import problems
from mrcnn.data.annotations.problems import AnnotationError
from mrcnn.data.formats.supervisely import read_supervisely
from tests.data.scenes import SCENE, write_supervisely


@pytest.fixture
def change(tmp_path):
    """Writes the scene with annotations changed by a function."""

    def changed(function=None, bitmaps=False):
        shutil.rmtree(tmp_path, ignore_errors=True)
        write_supervisely(tmp_path, bitmaps)
        path = tmp_path / "day 1" / "ann" / "scene.png.json"
        content = json.loads(path.read_text())
        if function:
            function(content)
        path.write_text(json.dumps(content))
        return tmp_path

    return changed


def test_projects_and_datasets(change):
    root = change()
    dataset = read_supervisely(root)
    assert dataset.class_names == ["BG", *SCENE.class_names] and not len(dataset.problems)
    assert [info["id"] for info in dataset.image_info] == ["day 1/scene.png"]
    shutil.copytree(root / "day 1", root / "day 2")
    assert len(read_supervisely(root).image_info) == 2
    for given in ((root, "day 2"), (root / "day 2",)):
        dataset = read_supervisely(*given)
        assert dataset.class_names == ["BG", *SCENE.class_names]  # from the meta.json above it
        np.testing.assert_array_equal(dataset.load_mask(0)[0], SCENE.masks)
    (root / "day 2" / "ann" / "scene.png.json").rename(root / "day 2" / "ann" / "scene.json")  # as in older exports
    assert len(read_supervisely(root, "day 2").image_info) == 1
    (root / "meta.json").unlink()
    assert read_supervisely(root, class_names=["hook", "gem", "brick"]).load_mask(0)[1].tolist() == [3, 1, 3, 3, 2]
    with pytest.raises(FileNotFoundError, match="no Supervisely folders img/ and ann/ in .*which holds"):
        read_supervisely(root, "day 3")


def test_holes_and_rectangles(change):
    def function(content):
        square = {"exterior": [[2, 2], [12, 2], [12, 10], [2, 10]], "interior": [[[4, 4], [8, 4], [8, 7], [4, 7]]]}
        corners = {"exterior": [[30, 9], [24, 4]], "interior": []}
        content["objects"] = [
            {"classTitle": "brick", "geometryType": "polygon", "points": square},
            {"classTitle": "gem", "geometryType": "rectangle", "points": corners},
        ]

    masks, _ = read_supervisely(change(function)).load_mask(0)
    expected = SCENE.masks[..., 0].copy()
    expected[4:7, 4:8] = False
    np.testing.assert_array_equal(masks[..., 0], expected)
    assert masks[4:9, 24:30, 1].all() and masks[..., 1].sum() == 30


def first(**changed):
    return lambda content: content["objects"][0].update(changed)


def bitmap(**changed):
    return lambda content: content["objects"][0]["bitmap"].update(changed)


@pytest.mark.parametrize(
    ("function", "bitmaps", "message"),
    [
        (first(geometryType="line"), False, "field 'geometryType': a 'line' has no area; expected one of polygon"),
        (first(points=None), False, "field 'points': expected an object with exterior points, got None"),
        (first(points={"exterior": [[1]]}), False, "field 'points': expected a list of points"),
        (first(points={"exterior": [[1, 2]] * 3, "interior": 5}), False, "field 'points': expected lists of interior"),
        (first(classTitle=7), False, "field 'classTitle': expected a class name, got None"),
        (first(classTitle="x"), False, "field 'classTitle': class 'x' is not among"),
        (first(bitmap=None), True, "field 'bitmap': expected data and origin"),
        (bitmap(origin=[1]), True, "field 'bitmap': expected data and origin"),
        (bitmap(data="AAAA"), True, "field 'bitmap': it cannot be unpacked"),
        (bitmap(data="%"), True, "field 'bitmap': invalid or truncated base64"),
        (bitmap(data="eJwDAAAAAAE="), True, "field 'bitmap': the bitmap is not an image"),
    ],
)
def test_broken_objects(change, function, bitmaps, message):
    root = change(function, bitmaps)
    with pytest.raises(AnnotationError, match=f"scene.png.json, object 0, {message}"):
        read_supervisely(root)
    with pytest.warns(UserWarning, match="left out 1 x broken record"):
        dataset = read_supervisely(root, strict=False)
    np.testing.assert_array_equal(dataset.load_mask(0)[0], SCENE.masks[..., 1:])
    assert [(p.images, p.instances) for p in dataset.problems if p.treatment == "left out"] == [(0, 1)]


def test_a_bitmap_that_unpacks_to_gigabytes(change, monkeypatch):
    monkeypatch.setattr("mrcnn.data.formats.supervisely.MOST_BYTES", 50)
    with pytest.raises(AnnotationError, match="object 0, field 'bitmap': unpacked, it is larger than 50 bytes"):
        read_supervisely(change(bitmaps=True))


@pytest.mark.parametrize(
    ("function", "kind", "message"),
    [
        (lambda content: content.update(size={"height": 9, "width": 9}), problems.SIZE, "a 9 x 9 image, but .*32 x 64"),
        (
            lambda content: content.update(size=None),
            problems.BROKEN,
            "field 'size': expected height and width in pixels",
        ),
        (
            lambda content: content.update(objects={}),
            problems.BROKEN,
            "field 'objects': expected a list of objects, got {}",
        ),
    ],
)
def test_broken_images(change, function, kind, message):
    root = change(function)
    with pytest.raises(AnnotationError, match=message):
        read_supervisely(root)
    with pytest.warns(UserWarning, match=kind):
        dataset = read_supervisely(root, strict=False)
    assert not dataset.image_info and kind in dataset.problems.counts()

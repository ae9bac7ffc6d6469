import json

import numpy as np
import pytest
from PIL import Image

from mrcnn.data.via import fill_shape, load_via

POLYGON = {"name": "polygon", "all_points_x": [2, 6, 6, 2], "all_points_y": [3, 3, 8, 8]}
RECT = {"name": "rect", "x": 1, "y": 2, "width": 5, "height": 3}


def write(folder, content, images=("a.png",), name="via_region_data.json"):
    folder.mkdir(exist_ok=True)
    for image in images:
        Image.fromarray(np.zeros([20, 30, 3], np.uint8)).save(folder / image)
    (folder / name).write_text(json.dumps(content))


def region(shape, **attributes):
    return {"shape_attributes": shape, "region_attributes": attributes}


@pytest.mark.parametrize("version", ["1", "2", "2 project"])
def test_reads_both_versions(tmp_path, version):
    regions = [region(POLYGON), region(RECT)]
    if version == "1":
        regions = {str(i): r for i, r in enumerate(regions)}
    content = {"a.png123": {"filename": "a.png", "size": 123, "regions": regions, "file_attributes": {}},
               "b.png5": {"filename": "b.png", "size": 5, "regions": type(regions)(), "file_attributes": {}}}
    if version == "2 project":
        content = {"_via_settings": {}, "_via_img_metadata": content}
    write(tmp_path / "train", content)
    dataset = load_via(tmp_path, "train", "balloon", source="balloon")
    assert dataset.class_names == ["BG", "balloon"]
    assert [info["id"] for info in dataset.image_info] == ["a.png"]  # b.png has no regions
    assert dataset.load_image(0).shape == (20, 30, 3)
    for _ in range(2):  # the second time from what was kept
        masks, class_ids = dataset.load_mask(0)
        assert masks.shape == (20, 30, 2) and masks.dtype == bool
        np.testing.assert_array_equal(class_ids, [1, 1])
        expected = np.zeros([20, 30], bool)
        expected[3:9, 2:7] = True
        np.testing.assert_array_equal(masks[:, :, 0], expected)
        expected[:] = False
        expected[2:5, 1:6] = True
        np.testing.assert_array_equal(masks[:, :, 1], expected)


def test_classes_by_attribute(tmp_path):
    regions = [region(RECT, kind="cat"), region(POLYGON, kind="dog")]
    write(tmp_path, [{"filename": "a.png", "regions": regions}])
    dataset = load_via(tmp_path, class_name=["dog", "cat"], attribute="kind")
    np.testing.assert_array_equal(dataset.load_mask(0)[1], [2, 1])
    with pytest.raises(ValueError, match=r"'a.png', region 0: attribute 'kind' is 'cat'; expected one of \['dog'\]"):
        load_via(tmp_path, class_name="dog", attribute="kind")
    with pytest.raises(ValueError, match=r"2 classes \['dog', 'cat'\] need attribute="):
        load_via(tmp_path, class_name=["dog", "cat"])


def filled(shape, height=20, width=20):
    mask = np.zeros([height, width], bool)
    fill_shape(mask, shape)
    return mask


def test_circles_and_ellipses():
    y, x = np.mgrid[:20, :20]
    circle = filled({"name": "circle", "cx": 10, "cy": 9, "r": 5})
    np.testing.assert_array_equal(circle, (x - 10) ** 2 + (y - 9) ** 2 < 25)
    ellipse = filled({"name": "ellipse", "cx": 10, "cy": 9, "rx": 6, "ry": 3})
    np.testing.assert_array_equal(ellipse, ((x - 10) / 6) ** 2 + ((y - 9) / 3) ** 2 < 1)
    turned = filled({"name": "ellipse", "cx": 10, "cy": 9, "rx": 8, "ry": 2, "theta": np.pi / 4})
    assert turned[14, 15] and not turned[4, 15]  # clockwise in the image: down to the right


def test_shapes_are_cut_off_at_the_border():
    assert filled({"name": "rect", "x": -5, "y": 15, "width": 10, "height": 50}).sum() == 5 * 5
    assert filled({"name": "circle", "cx": 0, "cy": 0, "r": 3}).sum() == 9  # 0..2 by 0..2
    polygon = {"name": "polygon", "all_points_x": [15, 40, 40, 15], "all_points_y": [-9, -9, 40, 40]}
    np.testing.assert_array_equal(filled(polygon), np.arange(20)[None].repeat(20, 0) >= 15)


def test_errors_name_file_and_region(tmp_path):
    with pytest.raises(FileNotFoundError, match="no annotations at .*via_region_data.json"):
        load_via(tmp_path, "train")
    write(tmp_path, [{"filename": "gone.png", "regions": [region(RECT)]}])
    with pytest.raises(FileNotFoundError, match="annotates 'gone.png', but there is no file"):
        load_via(tmp_path)
    write(tmp_path, [{"filename": "a.png", "regions": [region(RECT), region({"name": "point", "cx": 1, "cy": 1})]}])
    with pytest.raises(ValueError, match="'a.png', region 1: shape 'point' has no area"):
        load_via(tmp_path)
    write(tmp_path, [{"filename": "a.png", "regions": []}])
    with pytest.raises(ValueError, match="annotates no regions"):
        load_via(tmp_path)
    write(tmp_path, {"images": [], "annotations": []})
    with pytest.raises(ValueError, match="no annotation file of VIA 1 or 2"):
        load_via(tmp_path)
    (tmp_path / "via_region_data.json").write_text("{")
    with pytest.raises(ValueError, match="is not json"):
        load_via(tmp_path)
    write(tmp_path, [{"filename": "a.png", "regions": [region(RECT)]}])
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(ValueError, match="a.png' is not an image"):
        load_via(tmp_path)
    with pytest.raises(ValueError, match=r"a VIA shape 'line' has no area; use one of"):
        filled({"name": "line"})

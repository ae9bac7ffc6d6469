import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mrcnn.data.annotations import problems
from mrcnn.data.annotations.outlines import Polygons
from mrcnn.data.annotations.problems import AnnotationError
from mrcnn.data.formats import via
from mrcnn.data.formats.via import read_via

POLYGON = {"name": "polygon", "all_points_x": [2, 6, 6, 2], "all_points_y": [3, 3, 8, 8]}
RECT = {"name": "rect", "x": 1, "y": 2, "width": 5, "height": 3}


def write(folder, content, images=("a.png",), name="via_region_data.json", size=(20, 30)):
    folder.mkdir(exist_ok=True)
    for image in images:
        Image.fromarray(np.zeros([*size, 3], np.uint8)).save(folder / image)
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))


def region(shape, **attributes):
    return {"shape_attributes": shape, "region_attributes": attributes}


def area(top, left, bottom, right, height=20, width=30):
    mask = np.zeros([height, width], bool)
    mask[top:bottom, left:right] = True
    return mask


@pytest.mark.parametrize("version", ["1", "2", "2 project"])
def test_reads_both_versions(tmp_path, version):
    regions = [region(POLYGON), region(RECT)]
    if version == "1":
        regions = {str(i): r for i, r in enumerate(regions)}
    content = {
        "a.png123": {"filename": "a.png", "size": -1, "regions": regions, "file_attributes": {}},
        "b.png5": {"filename": "b.png", "size": 5, "regions": type(regions)(), "file_attributes": {}},
    }
    if version == "2 project":
        content = {"_via_settings": {}, "_via_img_metadata": content}
    write(tmp_path / "train", content)
    with pytest.warns(UserWarning, match=f"left out 1 x {problems.UNANNOTATED}; the first: .*image 'b.png'"):
        dataset = read_via(tmp_path, "train", "balloon", source="balloon")
    assert dataset.class_names == ["BG", "balloon"]
    assert [info["id"] for info in dataset.image_info] == ["a.png"]  # b.png has no regions
    assert dataset.load_image(0).shape == (20, 30, 3)
    for _ in range(2):  # the second time from the cache
        masks, class_ids = dataset.load_mask(0)
        assert masks.shape == (20, 30, 2) and masks.dtype == bool
        np.testing.assert_array_equal(class_ids, [1, 1])
        # Up to but excluding the last coordinate, as COCO's rasterizer does; scikit-image would fill 3:9, 2:7
        np.testing.assert_array_equal(masks[:, :, 0], area(3, 2, 8, 6))
        np.testing.assert_array_equal(masks[:, :, 1], area(2, 1, 5, 6))
    assert [problem.kind for problem in dataset.problems] == [problems.UNANNOTATED]


def test_classes_by_attribute(tmp_path):
    regions = [region(RECT, kind="cat"), region(POLYGON, kind={"dog": True, "cat": False})]  # a text, and checkboxes
    write(tmp_path, [{"filename": "a.png", "regions": regions}])
    for names in ({"class_name": ["dog", "cat"]}, {"class_names": ["dog", "cat"]}):
        dataset = read_via(tmp_path, attribute="kind", **names)
        assert dataset.class_names == ["BG", "dog", "cat"]
        np.testing.assert_array_equal(dataset.load_mask(0)[1], [2, 1])
    found = read_via(tmp_path, attribute="kind")  # their names, sorted
    assert found.class_names == ["BG", "cat", "dog"] and found.load_mask(0)[1].tolist() == [1, 2]
    with pytest.raises(
        AnnotationError,
        match=r"'a.png', region 0, field 'kind': class 'cat' is not among "
        r"\['dog'\]; add it to class_names",
    ):
        read_via(tmp_path, class_name="dog", attribute="kind")
    with pytest.raises(ValueError, match=r"2 classes \['dog', 'cat'\] need attribute="):
        read_via(tmp_path, class_name=["dog", "cat"])
    with pytest.raises(ValueError, match="both set the classes; pass only one"):
        read_via(tmp_path, class_name="dog", class_names=["dog"])
    with pytest.raises(ValueError, match="give at least one"):
        read_via(tmp_path, class_names=[])


def test_attributes_that_are_not_read_are_noted(tmp_path):
    write(tmp_path, [{"filename": "a.png", "regions": [region(RECT, kind="cat", age="")]}])
    (problem,) = read_via(tmp_path).problems
    assert problem.kind == via.UNREAD and "the attributes ['kind']" in problem.message
    assert not len(read_via(tmp_path, class_name="cat").problems)


def masks_of(folder, *shapes, size=(20, 20)):
    write(folder, [{"filename": "a.png", "regions": [region(shape) for shape in shapes]}], size=size)
    return np.moveaxis(read_via(folder).load_mask(0)[0], 2, 0)


def test_circles_and_ellipses(tmp_path):
    y, x = np.mgrid[:20, :20] + 0.5  # pixel centers; VIA's coordinates start at the first pixel's corner
    circle, ellipse, turned = masks_of(
        tmp_path,
        {"name": "circle", "cx": 10, "cy": 9, "r": 5},
        {"name": "ellipse", "cx": 10, "cy": 9, "rx": 6, "ry": 3},
        {"name": "ellipse", "cx": 10, "cy": 9, "rx": 8, "ry": 2, "theta": np.pi / 4},
    )
    np.testing.assert_array_equal(circle, (x - 10) ** 2 + (y - 9) ** 2 <= 25)
    np.testing.assert_array_equal(ellipse, ((x - 10) / 6) ** 2 + ((y - 9) / 3) ** 2 <= 1)
    assert turned[14, 15] and not turned[4, 15]  # clockwise in the image: down to the right


def test_shapes_are_cut_off_at_the_border(tmp_path):
    rect, circle, polygon = masks_of(
        tmp_path,
        {"name": "rect", "x": -5, "y": 15, "width": 10, "height": 50},
        {"name": "circle", "cx": 0, "cy": 0, "r": 3},
        {"name": "polygon", "all_points_x": [15, 40, 40, 15], "all_points_y": [-9, -9, 40, 40]},
    )
    assert rect.sum() == 5 * 5
    assert circle.sum() == 8  # of 9 pixels, the last one's center is sqrt(12.5) away
    np.testing.assert_array_equal(polygon, np.arange(20)[None].repeat(20, 0) >= 15)


def shape(**changed):
    return [{"filename": "a.png", "regions": [region(RECT), region({**POLYGON, **changed})]}]


def regions_of(value):
    return [{"filename": "a.png", "regions": [region(RECT), value]}]


BROKEN = {
    "a point": (shape(name="point"), "'a.png', region 1, field 'name': shape 'point' has no area; expected one of"),
    "an open line": (shape(name="polyline"), "field 'name': shape 'polyline' has no area"),
    "no name": (regions_of(region({})), "field 'name': shape None has no area"),
    "text": (shape(all_points_x=["1", "2", "3", "4"]), "field 'all_points_x/all_points_y': expected a list of points"),
    "no list": (shape(all_points_y=5), "field 'all_points_y': expected a list of numbers, got 5"),
    "a list cut short": (
        shape(all_points_y=[3, 3, 8]),
        "field 'all_points_y': expected as many numbers as all_points_x has .4., got 3",
    ),
    "infinite": (shape(all_points_x=[1, 2, 3, float("inf")]), "expected a list of points"),
    "too long": (shape(all_points_x=[1, 2, 3, 10**400]), "expected a list of points"),
    "far away": (shape(all_points_x=[1, 2, 3, 1e9]), "field 'shape_attributes': coordinates span"),
    "a rect without x": (shape(name="rect"), "'a.png', region 1, field 'x': missing; the record has name, all_po"),
    "a radius of text": (shape(name="circle", cx=1, cy=2, r="3"), "field 'r': expected a number, got '3'"),
    "a negative radius": (shape(name="ellipse", cx=1, cy=2, rx=3, ry=-3), "field 'ry': expected a number >= 0"),
    "no shape": (regions_of({"region_attributes": {}}), "region 1, field 'shape_attributes': expected an object, got"),
    "a region of text": (regions_of("x"), "region 1, field 'shape_attributes': expected an object, got None"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_region_is_named_or_counted(tmp_path, name):
    content, message = BROKEN[name]
    write(tmp_path, content)
    with pytest.raises(AnnotationError, match=message) as raised:
        read_via(tmp_path)
    assert str(tmp_path / "via_region_data.json") in str(raised.value) and "'a.png', region 1" in str(raised.value)
    with pytest.warns(UserWarning, match="left out 1 x broken record"):
        dataset = read_via(tmp_path, strict=False)
    assert dataset.load_mask(0)[0].shape[2] == 1 and dataset.problems.counts() == {problems.BROKEN: 1}


@pytest.mark.parametrize(
    "value, message",
    [
        ({}, "expected one ticked box, got \\[\\]"),
        ({"dog": True, "cat": True}, "expected one ticked box"),
        ("", "expected a class name, got ''"),
        (None, "got None"),
        (3, "got 3"),
    ],
)
def test_a_region_without_a_class(tmp_path, value, message):
    write(tmp_path, [{"filename": "a.png", "regions": [region(RECT, kind=value), region(RECT, kind="dog")]}])
    with pytest.raises(AnnotationError, match=f"'a.png', region 0, field 'kind': .*{message}"):
        read_via(tmp_path, attribute="kind")
    with pytest.warns(UserWarning, match="1 x broken record"):
        assert read_via(tmp_path, attribute="kind", strict=False).load_mask(0)[0].shape[2] == 1


@pytest.mark.parametrize(
    "flat",
    [
        {"name": "rect", "x": 1, "y": 2, "width": 5, "height": 0},
        {"name": "circle", "cx": 1, "cy": 2, "r": 0},
        {"name": "ellipse", "cx": 1, "cy": 2, "rx": 3, "ry": 0},
    ],
)
def test_a_click_without_a_drag_is_left_out_and_counted(tmp_path, flat):
    write(tmp_path, [{"filename": "a.png", "regions": [region(flat), region(RECT)]}])
    with pytest.warns(UserWarning, match="1 x empty mask; the first: .*'a.png', region 0.* which has no area"):
        dataset = read_via(tmp_path)
    assert dataset.load_mask(0)[0].shape[2] == 1


IMAGES = {
    "no image": ([{"filename": "gone.png", "regions": [region(RECT)]}], "image 'gone.png': image file .* is missing"),
    "no regions": ([{"filename": "b.png"}], "image record 1, field 'regions': expected a list or, in VIA 1, an object"),
    "regions of text": ([{"filename": "b.png", "regions": "x"}], "record 1, field 'regions': .*got 'x'"),
    "no filename": ([{"regions": []}], "image record 1, field 'filename': expected a file name, got None"),
    "a number": ([5], "image record 1, field 'filename': expected a file name"),
    "an image twice": (
        [{"filename": "a.png", "regions": []}],
        "record 1, field 'filename': another record annotates 'a",
    ),
    "no picture": ([{"filename": "c.png", "regions": [region(RECT)]}], "image 'c.png': .*c.png' is not an image"),
}


@pytest.mark.parametrize("name", IMAGES)
def test_a_broken_image_is_named_or_counted(tmp_path, name):
    entries, message = IMAGES[name]
    write(tmp_path, [{"filename": "a.png", "regions": [region(RECT)]}, *entries])
    (tmp_path / "c.png").write_text("no image")
    with pytest.raises(AnnotationError, match=message) as raised:
        read_via(tmp_path)
    assert raised.value.file == str(tmp_path / "via_region_data.json")
    with pytest.warns(UserWarning, match="left out 1 x "):
        dataset = read_via(tmp_path, strict=False)
    assert [info["id"] for info in dataset.image_info] == ["a.png"] and len(dataset.problems) == 1


@pytest.mark.parametrize(
    "content, message",
    [
        ('[{"filename": "a.png", "regions": [', "line 1: invalid or truncated JSON"),
        (
            {"images": [], "annotations": []},
            "not a VIA 1 or 2 annotation file: each entry must have filename and regions",
        ),
        ({"_via_settings": {}, "_via_img_metadata": 3}, "not a VIA 1 or 2 annotation file: .*got 3"),
        ("7", "not a VIA 1 or 2 annotation file"),
        ({}, "field 'regions': it has no valid regions"),
        ([{"filename": "a.png", "regions": []}], "field 'regions': it has no valid regions"),
    ],
)
def test_a_file_that_is_wrong_as_a_whole(tmp_path, content, message):
    write(tmp_path, content)
    with pytest.raises(AnnotationError, match=message) as raised:
        read_via(tmp_path)
    assert raised.value.file == str(tmp_path / "via_region_data.json")


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no VIA annotations at .*via_region_data.json"):
        read_via(tmp_path, "train")


def test_an_image_of_another_size_shows_by_its_length_and_by_regions_outside(tmp_path):
    """VIA stores a file's number of bytes, not its height and width."""
    content = [{"filename": "a.png", "size": 70, "regions": [region({**RECT, "x": 40}), region(RECT)]}]
    write(tmp_path, content)
    length = (tmp_path / "a.png").stat().st_size
    with pytest.warns(UserWarning, match=r"1 x outline outside the image; .*region 0.*the image is \(20, 30\)"):
        dataset = read_via(tmp_path)
    first, second = dataset.problems
    assert (first.kind, second.kind, second.field) == (problems.OUTSIDE, via.LENGTH, "size")
    assert f"had 70 bytes, {str(tmp_path / 'a.png')!r} has {length}" in second.message
    content[0]["size"] = length
    write(tmp_path, content)
    with pytest.warns(UserWarning):
        assert read_via(tmp_path).problems.counts() == {problems.OUTSIDE: 1}


def test_images_with_an_orientation_tag_are_turned_and_noted(tmp_path):
    write(tmp_path, [{"filename": "a.jpg", "regions": [region(RECT)]}], ())
    tags = Image.Exif()
    tags[0x0112] = 6
    pixels = np.zeros([20, 30, 3], np.uint8)
    pixels[:, :10] = 255
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=tags, quality=95)
    assert read_via(tmp_path).problems.counts() == {problems.TAGGED: 1}  # VIA stores no size, so the rule decides
    assert read_via(tmp_path).load_image(0).shape == (30, 20, 3)
    stored, turned = read_via(tmp_path, upright=False), read_via(tmp_path, upright=True)
    assert stored.load_image(0).shape == (20, 30, 3) and stored.load_mask(0)[0].shape == (20, 30, 1)
    assert turned.load_image(0).shape == (30, 20, 3) and turned.load_mask(0)[0].shape == (30, 20, 1)
    assert turned.load_image(0)[:9].min() > 200  # the left side is the top


coordinates = st.lists(st.tuples(st.integers(-3, 33), st.integers(-3, 23)), min_size=3, max_size=8)


@settings(max_examples=40, deadline=None)
@given(st.lists(coordinates, min_size=1, max_size=4))
def test_polygons_written_and_read_back(tmp_path_factory, polygons):
    folder = tmp_path_factory.mktemp("via")
    shapes = [
        {"name": "polygon", "all_points_x": [x for x, _ in points], "all_points_y": [y for _, y in points]}
        for points in polygons
    ]
    inside = {"name": "rect", "x": 0, "y": 0, "width": 1, "height": 1}  # so that one instance is never outside
    write(folder, [{"filename": "a.png", "regions": [region(s) for s in [*shapes, inside]]}])
    dataset = read_via(folder) if all(map(within, polygons)) else load_warned(folder)
    expected = [Polygons((np.array(points, float),)).fill(20, 30) for points in polygons if within(points)]
    masks = np.moveaxis(dataset.load_mask(0)[0], 2, 0)
    np.testing.assert_array_equal(masks, np.array([*expected, area(0, 0, 1, 1)]))


def within(points):
    xs, ys = zip(*points, strict=True)
    return max(xs) > 0 and max(ys) > 0 and min(xs) < 30 and min(ys) < 20


def load_warned(folder):
    with pytest.warns(UserWarning, match="outside the image|empty mask"):
        return read_via(folder)

import base64
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mrcnn.data.annotations import problems
from mrcnn.data.annotations.fields import FieldError
from mrcnn.data.annotations.outlines import Ellipse, Polygons
from mrcnn.data.annotations.problems import AnnotationError
from mrcnn.data.formats import labelme, load_dataset
from mrcnn.data.formats.labelme import LabelmeDataset, outline_of, read_labelme

SQUARE = [[2, 3], [6, 3], [6, 8], [2, 8]]
CORNER = [[20, 10], [30, 10], [30, 20]]


def text_of(values, form="png", **options):
    file = io.BytesIO()
    Image.fromarray(values).save(file, form, **options)
    return base64.b64encode(file.getvalue()).decode()


def shape(points=SQUARE, kind="polygon", label="cat", group=None, **others):
    return {"label": label, "points": points, "group_id": group, "shape_type": kind, "flags": {}, **others}


def content(*shapes, **changed):
    made = {
        "version": "5.4.1",
        "flags": {},
        "shapes": list(shapes),
        "imagePath": "a.png",
        "imageData": None,
        "imageHeight": 20,
        "imageWidth": 30,
        **changed,
    }
    return {key: value for key, value in made.items() if value != "left away"}


def pixels(size=(20, 30)):
    return np.arange(np.prod(size) * 3, dtype=np.uint32).astype(np.uint8).reshape(*size, 3)


def write(folder, made, name="a.json", image="a.png", size=(20, 30)):
    if image:
        Image.fromarray(pixels(size)).save(folder / image)
    (folder / name).write_text(made if isinstance(made, str) else json.dumps(made))
    return folder / name


def masks_of(folder, *shapes):
    write(folder, content(*shapes))
    return np.moveaxis(read_labelme(folder).load_mask(0)[0], 2, 0)


def area(top, left, bottom, right, height=20, width=30):
    mask = np.zeros([height, width], bool)
    mask[top:bottom, left:right] = True
    return mask


def test_reads_every_shape_that_has_an_area(tmp_path):
    part = np.array([[0, 1, 1], [1, 1, 0]], bool)
    masks = masks_of(
        tmp_path,
        shape(),
        shape([[9, 8], [5, 2]], "rectangle"),
        shape([[10, 9], [13, 13]], "circle"),
        shape([[21, 4], [23, 5]], "mask", mask=text_of(part)),
        shape(SQUARE, "oriented_rectangle"),
        shape(kind=None),
    )
    np.testing.assert_array_equal(masks[0], area(3, 2, 8, 6))
    np.testing.assert_array_equal(masks[1], area(2, 5, 8, 9))  # its corners in any order
    np.testing.assert_array_equal(masks[2], Ellipse(9, 10, 5, 5).fill(20, 30))  # (3, 4) from its center
    expected = np.zeros((20, 30), bool)
    expected[4:6, 21:24] = part  # from one corner to the other, both covered
    np.testing.assert_array_equal(masks[3], expected)
    np.testing.assert_array_equal(masks[4:], masks[[0, 0]])
    dataset = read_labelme(tmp_path)
    assert [info["id"] for info in dataset.image_info] == ["a"] and not len(dataset.problems)
    np.testing.assert_array_equal(dataset.load_image(0), pixels())
    assert dataset.load_boxes(0) is None


def test_shapes_of_one_label_and_group_are_one_instance(tmp_path):
    write(
        tmp_path,
        content(
            shape(group=1),
            shape(group=1, label="dog"),
            shape(CORNER, group=1),
            shape(group=2),
            shape(),
            shape(),
            shape([[0, 0], [2, 2]], "rectangle", group=2),
        ),
    )
    dataset = read_labelme(tmp_path)
    masks, class_ids = dataset.load_mask(0)
    assert dataset.class_names == ["BG", "cat", "dog"] and class_ids.tolist() == [1, 2, 1, 1, 1]
    square = area(3, 2, 8, 6)
    np.testing.assert_array_equal(masks[..., 0], square | Polygons((np.array(CORNER, float),)).fill(20, 30))
    np.testing.assert_array_equal(masks[..., 1], square)
    np.testing.assert_array_equal(masks[..., 2], square | area(0, 0, 2, 2))  # of different types
    np.testing.assert_array_equal(masks[..., 3], square)
    assert [i.record for i in dataset.image_info[0]["instances"]][::2] == [
        "a.json, shape 0 and shape 2",
        "a.json, shape 3 and shape 6",
        "a.json, shape 5",
    ]


def test_one_file_alone_and_class_names_in_another_order(tmp_path):
    write(tmp_path, content(shape(), shape(label="dog")))
    write(tmp_path, content(shape(), imagePath="b.png"), "b.json", "b.png")
    dataset = read_labelme(tmp_path / "b.json", class_names=["dog", "cat"])
    assert dataset.class_names == ["BG", "dog", "cat"] and len(dataset.image_ids) == 1
    assert dataset.load_mask(0)[1].tolist() == [2] and dataset.file == str(tmp_path / "b.json")
    (tmp_path / "train").mkdir()
    write(tmp_path / "train", content(shape()))
    assert len(read_labelme(tmp_path, "train").image_ids) == 1
    with pytest.raises(AnnotationError, match=r"shape 1, field 'label': class 'dog' is not among \['cat'\]"):
        read_labelme(tmp_path, class_names=["cat"])


def test_an_image_without_shapes_has_no_instances(tmp_path):
    write(tmp_path, content())
    with pytest.raises(AnnotationError, match="field 'shapes': no file holds a valid shape"):
        read_labelme(tmp_path)
    dataset = read_labelme(tmp_path, class_names=["cat"])
    masks, class_ids = dataset.load_mask(0)
    assert masks.shape == (20, 30, 0) and class_ids.shape == (0,)


@pytest.mark.parametrize("path", ["gone.png", "", None, "left away"])
def test_the_picture_inside_the_json(tmp_path, path):
    write(tmp_path, content(shape(), imagePath=path, imageData=text_of(pixels())), image=None)
    dataset = read_labelme(tmp_path)
    np.testing.assert_array_equal(dataset.load_image(0), pixels())
    assert dataset.image_info[0]["path"] == str(tmp_path / "a.json") and dataset.load_mask(0)[0].sum() == 20


@pytest.mark.parametrize("path", ["..\\pictures\\a.png", "../pictures/a.png", "C:\\Users\\me\\a.png"])
def test_paths_of_windows_and_pictures_that_moved_beside_the_json(tmp_path, path):
    (tmp_path / "json").mkdir()
    (tmp_path / "pictures").mkdir()
    made = write(tmp_path / "json", content(shape(), imagePath=path), image=None)
    Image.fromarray(pixels()).save((made.parent if "C:" in path else tmp_path / "pictures") / "a.png")
    assert read_labelme(tmp_path / "json").load_image(0).shape == (20, 30, 3)


def tagged(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize("stated, seen", [((30, 20), (30, 20)), ((None, None), (30, 20)), ((20, 30), (20, 30))])
def test_photographs_stored_on_their_side_are_turned_as_labelme_shows_them(tmp_path, stated, seen):
    image = np.zeros([20, 30, 3], np.uint8)
    image[:, :10] = 255
    Image.fromarray(image).save(tmp_path / "a.jpg", exif=tagged(6), quality=95)
    write(tmp_path, content(shape(), imagePath="a.jpg", imageHeight=stated[0], imageWidth=stated[1]), image=None)
    dataset = read_labelme(tmp_path)
    assert dataset.load_image(0).shape == (*seen, 3) and dataset.load_mask(0)[0].shape == (*seen, 1)
    if seen == (30, 20):
        assert dataset.load_image(0)[:9].min() > 200  # the stored left side is the top
        assert dataset.problems.counts() == ({} if stated == (30, 20) else {problems.TAGGED: 1})
    else:  # drawn in a labelme version that ignored the tag
        assert dataset.load_image(0)[:, :9].min() > 200 and not len(dataset.problems)


def test_masks_are_cut_off_at_the_border_and_counted(tmp_path):
    mask = text_of(np.ones((4, 5), bool))
    corners = [[-2, -1], [2, 2]], [[27, 18], [31, 21]], [[40, 3], [44, 6]]
    write(tmp_path, content(*(shape(points, "mask", mask=mask) for points in corners)))
    with pytest.warns(UserWarning, match="left out 1 x outline outside the image; the first: .*shape 2"):
        dataset = read_labelme(tmp_path)
    masks, _ = dataset.load_mask(0)
    np.testing.assert_array_equal(np.moveaxis(masks, 2, 0), [area(0, 0, 3, 3), area(18, 27, 20, 30)])
    assert dataset.problems.counts() == {problems.PARTLY_OUTSIDE: 2, problems.OUTSIDE: 1}
    assert "11 pixels of the mask lie outside" in next(iter(dataset.problems)).message


@pytest.mark.parametrize(
    "flat",
    [
        shape([[3, 4], [3, 4]], "circle"),
        shape([[3, 4], [9, 4]], "rectangle"),
        shape([[3, 4], [9, 4]]),
        shape([[3, 4], [4, 5]], "mask", mask=text_of(np.zeros((2, 2), bool))),
    ],
)
def test_shapes_without_area_are_left_out_and_counted(tmp_path, flat):
    write(tmp_path, content(shape(), flat))
    with pytest.warns(UserWarning, match="left out 1 x .*shape 1"):
        dataset = read_labelme(tmp_path)
    assert dataset.load_mask(0)[0].shape[2] == 1
    assert set(dataset.problems.counts()) <= {problems.EMPTY, problems.DEGENERATE}


BROKEN = {
    "a line": (shape([[1, 2], [3, 4]], "line"), "field 'shape_type': a 'line' has no area; expected one of polygon"),
    "a point": (shape([[1, 2]], "point"), "field 'shape_type': a 'point' has no area"),
    "no list": (shape(points=None), r"field 'points': expected a list of points \[x, y\], got None"),
    "three numbers": (shape([[1, 2, 3]]), "field 'points': expected a list of points"),
    "text": (shape([["1", "2"]]), "field 'points': expected a list of points"),
    "infinite": (shape([[1, 2], [3, float("inf")], [5, 6]]), "field 'points': expected a list of points"),
    "far away": (shape([[1, 2], [3, 1e9], [5, 6]]), "field 'points': coordinates span"),
    "a circle of three": (shape(SQUARE[:3], "circle"), "field 'points': expected 2 points for a circle, got 3"),
    "a rectangle of one": (
        shape([[1, 2]], "rectangle"),
        "field 'points': expected 2 or 4 points for a rectangle, got 1",
    ),
    "no label": (shape(label=None), "field 'label': expected a class name, got None"),
    "a number as label": (shape(label=3), "field 'label': expected a class name, got 3"),
    "a group of several": (shape(group=[1]), r"field 'group_id': expected a number or null, got \[1\]"),
    "no object": ("x", "field 'shapes': expected an object, got 'x'"),
    "no mask": (shape([[1, 2], [3, 4]], "mask"), "field 'mask': expected a base64-encoded image, got None"),
    "no base64": (shape([[1, 2], [3, 4]], "mask", mask="%%"), "field 'mask': invalid or truncated base64"),
    "no picture": (
        shape([[1, 2], [3, 4]], "mask", mask="AAAA"),
        "field 'mask': the mask is not an image, .* is it truncated",
    ),
    "another mask": (
        shape([[1, 2], [3, 4]], "mask", mask=text_of(np.ones((9, 9), bool))),
        "field 'mask': the mask is 9 x 9 pixels, its points enclose 3 x 3",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_shape_is_named_or_counted(tmp_path, name):
    broken, message = BROKEN[name]
    path = write(tmp_path, content(shape(), broken))
    with pytest.raises(AnnotationError, match=f"shape 1, {message}") as raised:
        read_labelme(tmp_path)
    assert path.name in str(raised.value) and str(tmp_path) in str(raised.value)
    with pytest.warns(UserWarning, match="left out 1 x broken record"):
        dataset = read_labelme(tmp_path, strict=False)
    assert dataset.load_mask(0)[0].shape[2] == 1 and dataset.problems.counts() == {problems.BROKEN: 1}


def test_a_group_with_a_part_that_cannot_be_filled(tmp_path):
    write(tmp_path, content(shape(SQUARE[:2], group=1), shape([[0, 0], [2, 2]], "rectangle", group=1), shape()))
    with pytest.raises(AnnotationError, match="a.json, shape 0 and shape 1, field 'points': a polygon has 2 points"):
        read_labelme(tmp_path)
    write(tmp_path, content(shape(SQUARE[:2], group=1), shape(group=1)))
    dataset = read_labelme(tmp_path)  # only polygons with an area are used
    assert dataset.load_mask(0)[0].sum() == 20 and dataset.problems.counts() == {problems.DEGENERATE: 1}


IMAGES = {
    "missing": (
        content(shape(), imagePath="gone.png"),
        problems.MISSING,
        "field 'imagePath': image file .*gone.png' is missing, and there is no imageData",
    ),
    "of another height": (
        content(shape(), imagePath="b.png", imageHeight=21),
        problems.SIZE,
        "field 'imageHeight/imageWidth': the annotations are for a 21 x 30 image, but .*b.png' is 20 x 30",
    ),
    "of another width inside": (
        content(shape(), imagePath="gone.png", imageData=text_of(pixels((20, 31)))),
        problems.SIZE,
        "a 20 x 30 image, but its imageData is 20 x 31",
    ),
    "a height of text": (
        content(shape(), imagePath="b.png", imageHeight="20"),
        problems.BROKEN,
        "field 'imageHeight': expected at least 1 pixel, got '20'",
    ),
    "no picture": (content(shape(), imagePath="b.png"), problems.UNREADABLE, "field 'imagePath': .*not an image"),
    "no picture inside": (
        content(shape(), imagePath="gone.png", imageData="AAAA"),
        problems.UNREADABLE,
        "field 'imageData': .*imageData' is not an image",
    ),
    "no base64 inside": (
        content(shape(), imagePath="gone.png", imageData="A%"),
        problems.UNREADABLE,
        "field 'imageData': invalid or truncated base64",
    ),
    "the same picture": (
        content(shape(), imagePath="a.png"),
        problems.CLASH,
        "field 'imagePath': .*a.json' annotates the same image .*merge",
    ),
    "no shapes": (content(shapes="left away"), problems.BROKEN, "field 'shapes': expected a list of shapes, got None"),
    "shapes of text": (content(shapes="x"), problems.BROKEN, "field 'shapes': expected a list of shapes, got 'x'"),
    "a list": ([], problems.BROKEN, "field 'shapes': .* is it a labelme file?"),
    "cut off": (json.dumps(content(shape()))[:90], problems.BROKEN, "line 1: invalid or truncated JSON"),
}


@pytest.mark.parametrize("name", IMAGES)
def test_a_broken_file_is_named_or_counted(tmp_path, name):
    made, kind, message = IMAGES[name]
    write(tmp_path, content(shape()))
    path = write(tmp_path, made, "b.json", "b.png")
    if name == "no picture":
        (tmp_path / "b.png").write_text("no picture")
    with pytest.raises(AnnotationError, match=message) as raised:
        read_labelme(tmp_path)
    assert raised.value.file == str(path)
    with pytest.warns(UserWarning, match=kind):
        dataset = read_labelme(tmp_path, strict=False)
    assert [info["id"] for info in dataset.image_info] == ["a"]
    assert dataset.problems.counts() == {kind: 1}


def test_pictures_inside_that_are_too_large_are_named(tmp_path, monkeypatch):
    write(tmp_path, content(shape(), imagePath="gone.png", imageData=text_of(pixels())), image=None)
    dataset = read_labelme(tmp_path)
    monkeypatch.setattr(LabelmeDataset, "max_pixels", 599)
    with pytest.raises(AnnotationError, match="field 'imageData': .* is 20 x 30 .* more than the limit of 599"):
        read_labelme(tmp_path)
    with pytest.raises(AnnotationError, match="a.json, image 'a', field 'imageData': .*more than the limit"):
        dataset.load_image(0)


def test_a_mask_of_another_size_is_not_decoded(monkeypatch):
    """A few bytes of PNG can expand to gigabytes of pixels."""
    mask = shape([[1, 2], [3, 3]], "mask", mask=text_of(np.ones([2, 3], np.uint8) * 255))
    assert outline_of(mask, 20, 30)[0].fill(20, 30).sum() == 6
    mask["points"][1] = [9, 9]
    monkeypatch.setattr(labelme, "values_of", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(FieldError, match="the mask is 2 x 3 pixels, its points enclose 8 x 9") as raised:
        outline_of(mask, 20, 30)
    assert raised.value.field == "mask"


def test_the_picture_inside_comes_first(tmp_path):
    """As in labelme, which reads the file only if there is no embedded image."""
    inside = 255 - pixels()
    write(tmp_path, content(shape(), imageData=text_of(inside)))
    np.testing.assert_array_equal(read_labelme(tmp_path).load_image(0), inside)
    write(tmp_path, content(shape(), imageData="AAAA"))  # damaged, although the file is valid
    np.testing.assert_array_equal(read_labelme(tmp_path).load_image(0), pixels())


@pytest.mark.parametrize("path", ["a.json", "", None, "other/a.json"])
def test_a_path_that_is_none_or_that_of_the_json(tmp_path, path):
    write(tmp_path, content(shape(), imagePath=path))
    assert read_labelme(tmp_path).image_info[0]["path"] == str(tmp_path / "a.png")
    (tmp_path / "a.png").unlink()
    with pytest.raises(AnnotationError, match="image 'a', field 'imagePath': expected an image file name"):
        read_labelme(tmp_path)


@pytest.mark.parametrize("images", ["images", "pictures/of today"])
def test_images_beside_the_folder_of_labels(tmp_path, images):
    for folder in ("labels", images):
        (tmp_path / folder).mkdir(parents=True)
    write(tmp_path / "labels", content(shape()), image=None)
    Image.fromarray(pixels()).save(tmp_path / images / "a.png")
    for path in (tmp_path, tmp_path / "labels"):
        dataset = load_dataset(path)
        assert dataset.image_info[0]["path"] == str(tmp_path / images / "a.png")
        assert [p.kind for p in dataset.problems] == [problems.FOUND]
    assert not len(load_dataset(tmp_path, image_dir=tmp_path / images).problems)


def test_labels_that_are_no_classes_are_left_out(tmp_path):
    write(tmp_path, content(shape(), shape(label="_background_"), shape(label="__ignore__")))
    with pytest.warns(UserWarning, match="left out 2 x label that is not a class"):
        dataset = read_labelme(tmp_path)
    assert dataset.class_names == ["BG", "cat"] and dataset.load_mask(0)[0].shape[2] == 1


def test_pictures_without_annotations_are_counted(tmp_path):
    write(tmp_path, content(shape()))
    Image.fromarray(pixels()).save(tmp_path / "b.png")
    with pytest.warns(
        UserWarning, match=f"1 x {problems.UNANNOTATED}; the first: .*image 'b.png': no JSON file annotates"
    ):
        assert len(read_labelme(tmp_path).image_ids) == 1


def test_no_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="folder .*train' does not exist"):
        read_labelme(tmp_path, "train")
    Image.fromarray(pixels()).save(tmp_path / "b.png")
    with pytest.raises(FileNotFoundError, match="no labelme JSON files in .*which holds b.png"):
        read_labelme(tmp_path)


def test_a_picture_that_is_damaged_later_raises(tmp_path):
    path = write(tmp_path, content(shape(), imagePath="", imageData=text_of(pixels())), image=None)
    dataset = read_labelme(tmp_path)
    write(tmp_path, content(shape(), imagePath="", imageData=text_of(pixels())[:100]), image=None)
    with pytest.raises(AnnotationError, match="image 'a', field 'imageData': it cannot be decoded") as raised:
        dataset.load_image(0)
    assert raised.value.file == str(path)
    write(tmp_path, content(shape(), imageData=text_of(pixels((21, 30)))), image=None)
    with pytest.raises(AnnotationError, match="image 'a', field 'height/width': .* 20 x 30 image, but .* is 21 x 30"):
        dataset.load_image(0)


numbers = st.floats(0.5, 20, allow_nan=False).map(lambda value: round(value, 3))
polygons = st.lists(st.tuples(numbers, numbers).map(list), min_size=3, max_size=8)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(polygons, st.sampled_from(["cat", "dog"]), st.sampled_from([None, 1, 2])), max_size=5))
def test_polygons_and_groups_written_and_read_back(tmp_path_factory, drawn):
    folder = tmp_path_factory.mktemp("labelme")
    frame = [[0, 0], [30, 0], [30, 20], [0, 20]]
    write(folder, content(shape(frame), *(shape(points, label=name, group=group) for points, name, group in drawn)))
    masks, class_ids = read_labelme(folder, class_names=["cat", "dog"]).load_mask(0)
    groups = {}
    for place, (points, name, group) in enumerate(drawn):
        mask = Polygons((np.array(points, float),)).fill(20, 30)
        key = (name, ("alone", place) if group is None else group)
        groups[key] = groups.get(key, False) | mask
    assert class_ids.tolist() == [1, *(["cat", "dog"].index(name) + 1 for name, _ in groups)]
    expected = np.array([np.ones((20, 30), bool), *groups.values()])
    np.testing.assert_array_equal(np.moveaxis(masks, 2, 0), expected)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 20), st.integers(1, 30), st.randoms(use_true_random=False))
def test_masks_written_and_read_back(tmp_path_factory, height, width, random):
    folder = tmp_path_factory.mktemp("labelme")
    top, left = random.randint(0, 20 - height), random.randint(0, 30 - width)
    part = np.random.default_rng(random.randint(0, 99)).random((height, width)) < 0.6
    part[0, 0] = True
    corners = [[left, top], [left + width - 1, top + height - 1]]
    (mask,) = masks_of(folder, shape(corners, "mask", mask=text_of(part)))
    np.testing.assert_array_equal(mask[top : top + height, left : left + width], part)
    assert mask.sum() == part.sum()

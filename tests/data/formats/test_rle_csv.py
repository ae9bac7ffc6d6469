"""RLE in a CSV file."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrcnn.data.annotations.problems import AnnotationError
from mrcnn.data.annotations.text_files import NO_END
from mrcnn.data.formats.coco import read_coco
from mrcnn.data.formats.rle_csv import read_rle_csv
from tests.data.mask_writers import assert_same, scenes, two_images, write_image, write_rle_csv, write_rows

FASHION = Path(__file__).resolve().parents[4] / "shared" / "data" / "fashion_ccp"
BOWL = ("ImageId", "EncodedPixels")
OF_2019 = ("ImageId", "EncodedPixels", "Height", "Width", "ClassId")
OF_2020 = (*OF_2019, "AttributesIds")
LABELS = {"categories": [{"id": 0, "name": "shirt"}, {"id": 2, "name": "shoe"}, {"id": 1, "name": "sock"}]}


def write(path, rows, size=(4, 3), images=("a", "b")):
    """Writes the CSV file, and images next to it."""
    write_rows(path, rows)
    for name in images:
        write_image(path.parent / f"{name}.jpg", *size)
    return path


@pytest.mark.parametrize("columns", [OF_2019, OF_2020])
@pytest.mark.parametrize("suffix", ["", ".jpg"])
def test_reads_both_years(tmp_path, columns, suffix):
    path = tmp_path / "train.csv"
    write_rle_csv(path, two_images(), columns, suffix=suffix, attributes=(5, 41))
    dataset = read_rle_csv(path, labels={0: "cat", 1: "dog", 7: "cow"})
    assert dataset.class_names == ["BG", "cat", "dog", "cow"]
    assert_same(dataset, two_images())
    assert not len(dataset.problems)
    assert dataset.image_info[0]["attributes"] == [(5, 41) if columns is OF_2020 else ()] * 3
    assert [dataset.get_source_class_id(i, "rle_csv") for i in (1, 2, 3)] == [0, 1, 7]  # for a submission
    turned = read_rle_csv(path, labels={0: "cat", 1: "dog", 7: "cow"}, class_names=["dog", "bird", "cat"])
    assert turned.load_mask(0)[1].tolist() == [1, 3, 1] and turned.map_source_class_id("rle_csv.0") == 3
    assert read_rle_csv(path).class_names == ["BG", "0", "1"]


def test_pixels_by_hand(tmp_path):
    """In column-major order from 1, in an image of 4 x 3."""
    path = write(tmp_path / "a.csv", [BOWL, ("a", "2 2 12 1"), ("b", "1 12")])
    masks, class_ids = read_rle_csv(path).load_mask(0)
    assert masks[:, :, 0].tolist() == [[0, 0, 0], [1, 0, 0], [1, 0, 0], [0, 0, 1]] and class_ids.tolist() == [1]
    assert read_rle_csv(path).load_mask(1)[0].all()


def test_the_bowls_folders(tmp_path):
    write_image(tmp_path / "stage1_train" / "x1" / "images" / "x1.png", 4, 3)
    path = tmp_path / "stage1_train_labels.csv"
    write_rows(path, [BOWL, ("x1", "1 2"), ("x1", "5 1")])
    dataset = read_rle_csv(path, class_names=["nucleus"])
    assert dataset.class_names == ["BG", "nucleus"] and dataset.load_mask(0)[0].sum(axis=(0, 1)).tolist() == [2, 1]
    assert read_rle_csv(path, class_name="cell").class_names == ["BG", "cell"]
    assert read_rle_csv(path).class_names == ["BG", "object"]


def test_where_images_are_looked_for(tmp_path):
    rows = [BOWL, ("a", "1 1")]
    write_rows(tmp_path / "t.csv", rows)
    for folder in (".", "images", "t", "elsewhere"):
        write_image(tmp_path / folder / "a.jpg", 4, 3)
        given_dir = tmp_path / folder if folder == "elsewhere" else None
        dataset = read_rle_csv(tmp_path / "t.csv", given_dir)
        assert Path(dataset.image_info[0]["path"]).parent.name == (folder if folder != "." else tmp_path.name)
    with pytest.raises(FileNotFoundError, match="image folder '.*gone' does not exist; check image_dir"):
        read_rle_csv(tmp_path / "t.csv", tmp_path / "gone")


@settings(max_examples=25, deadline=None)
@given(scenes(overlap=True), st.sampled_from([BOWL, OF_2019, OF_2020]))
def test_round_trip(tmp_path_factory, scene, columns):
    path = tmp_path_factory.mktemp("scene") / "train.csv"
    write_rle_csv(path, scene, columns)
    if columns is BOWL:
        scene = {n: (h, w, [(m, "object") for m, _ in objects]) for n, (h, w, objects) in scene.items()}
    assert_same(read_rle_csv(path, labels={0: "cat", 1: "dog"}), scene)


def test_attributes_after_the_class(tmp_path):
    path = write(tmp_path / "a.csv", [OF_2019, ("a.jpg", "1 2", 4, 3, "2_23_45"), ("a.jpg", "4 2", 4, 3, "0")])
    (tmp_path / "label_descriptions.json").write_text(json.dumps(LABELS))
    dataset = read_rle_csv(path)
    assert dataset.class_names == ["BG", "shirt", "sock", "shoe"] and dataset.load_mask(0)[1].tolist() == [3, 1]
    assert dataset.image_info[0]["attributes"] == [(23, 45), ()]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "label_descriptions.json, field 'categories': expected a list of id and name, got None"),
        ({"categories": [{"id": "0", "name": "x"}]}, r"categories\[0\], field 'id': expected an integer id"),
        (
            {"categories": [{"id": True, "name": "x"}]},
            r"label_descriptions.json, categories\[0\], field 'id': expected an integer "
            r"id and a name, got {'id': True",
        ),
        ({"categories": [{"id": 0.0, "name": "x"}]}, r"categories\[0\], field 'id': expected an integer id"),
        ({"categories": [{"id": 0}]}, r"categories\[0\], field 'name': expected an integer id"),
        (
            {"categories": [*LABELS["categories"], {"id": 2, "name": "hat"}]},
            r"categories\[3\], field 'id': 2 is already the id of 'shoe'",
        ),
        ("{", "label_descriptions.json, line 1: invalid or truncated JSON"),
    ],
)
def test_broken_labels(tmp_path, content, message):
    path = write(tmp_path / "a.csv", [OF_2019, ("a", "1 2", 4, 3, 0)])
    (tmp_path / "label_descriptions.json").write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(AnnotationError, match=message):
        read_rle_csv(path)
    assert read_rle_csv(path, labels={0: "x"}).class_names == ["BG", "x"]
    with pytest.raises(ValueError, match=r"duplicate class names in \['x', 'x'\]"):
        read_rle_csv(path, labels={0: "x", 1: "x"})


def test_images_without_instances(tmp_path):
    path = write(tmp_path / "a.csv", [OF_2019, ("a", "", 4, 3, ""), ("b", "1 2", 4, 3, 0)])
    dataset = read_rle_csv(path)
    assert dataset.load_mask(0)[0].shape == (4, 3, 0) and not len(dataset.problems)
    path = write(tmp_path / "b.csv", [BOWL, ("a", ""), ("b", "1 2")])
    assert read_rle_csv(path).load_mask(0)[0].shape == (4, 3, 0)
    path = write(tmp_path / "c.csv", [OF_2019, ("a", "", 4, 3, "0"), ("b", "1 2", 4, 3, 0)])
    with pytest.warns(UserWarning, match="left out 1 x empty mask"):
        read_rle_csv(path)


@pytest.mark.parametrize(
    ("row", "field", "message"),
    [
        (("a", "1 2 3", 4, 3, 0), "EncodedPixels", "contains 3 numbers; expected pairs"),
        (("a", "1 x", 4, 3, 0), "EncodedPixels", "contains 'x'; expected integers"),
        (("a", "12 2", 4, 3, 0), "EncodedPixels", "the run '12 2' is outside the image of 4 x 3"),
        (("a", "0 2", 4, 3, 0), "EncodedPixels", "the run '0 2' is outside the image"),
        (("a", "1 3 2 2", 4, 3, 0), "EncodedPixels", "the run '2 2' overlaps the previous one"),
        (("a", "1 2", "x", 3, 0), "Height", "expected at least 1 pixel, got 'x'"),
        (("a", "1 2", 4, 0, 0), "Width", "expected at least 1 pixel, got '0'"),
        (("a", "1 2", 4, 3, ""), "ClassId", "expected a class number, optionally followed by attributes, got ''"),
        (("a", "1 2", 4, 3, "shirt"), "ClassId", "expected a class number, .* got 'shirt'"),
        (("a", "1 2", 4, 3, "1_x"), "ClassId", "expected a class number, .* got '1_x'"),
        (("", "1 2", 4, 3, 0), "ImageId", "empty"),
        (("a", "1 2", 4), "Width", r"expected 5 fields, got 3; is the file truncated\?"),
        (("a", "1 2", 4, 3, 0, 9), "ClassId", "expected 5 fields, got 6"),
        (("a", "1 2", 3, 4, 0), "Height/Width", r"the row says 3 x 4, the image '.*a.jpg' is 4 x 3 \(height x width\)"),
        (("gone", "1 2", 4, 3, 0), "", "image file '.*gone' is missing"),
    ],
)
def test_broken_rows(tmp_path, row, field, message):
    path = write(tmp_path / "a.csv", [OF_2019, ("b", "1 2", 4, 3, 0), row])
    with pytest.raises(AnnotationError, match=f"a.csv.*{message}") as caught:
        read_rle_csv(path)
    assert caught.value.field == field and caught.value.record == ("line 3" if field else "image 'gone'")
    with pytest.warns(UserWarning, match="left out 1 x"):
        dataset = read_rle_csv(path, strict=False)
    assert len(dataset.problems) == 1 and dataset.load_mask(0)[0].sum() == 2


def test_rows_of_another_size_go_alone_or_with_their_image(tmp_path):
    rows = [("a", "1 2", 3, 4, 0), ("a", "4 2", 4, 3, 1), ("b", "1 2", 3, 4, 0), ("b", "1 2", 3, 3, 0)]
    path = write(tmp_path / "a.csv", [OF_2020, *((*row, "7") for row in rows)])
    with pytest.raises(
        AnnotationError, match="line 2, field 'Height/Width': the row says 3 x 4, the image .*a.jpg' is 4 x"
    ):
        read_rle_csv(path)
    with pytest.warns(UserWarning, match="left out 2 x wrong image size"):
        dataset = read_rle_csv(path, strict=False)
    assert [(p.record, p.images, p.instances) for p in dataset.problems] == [("line 2", 0, 1), ("line 4", 1, 2)]
    assert "the same for all 2 rows of the image" in list(dataset.problems)[1].message
    assert [info["id"] for info in dataset.image_info] == ["a"] and dataset.image_info[0]["attributes"] == [(7,)]
    assert dataset.load_mask(0)[1].tolist() == [2]


def test_a_missing_image_goes_with_its_rows(tmp_path):
    path = write(tmp_path / "a.csv", [BOWL, ("gone", "1 2"), ("gone", "5 1"), ("a", "1 2")])
    with pytest.raises(AnnotationError, match="image 'gone': image file .* is missing"):
        read_rle_csv(path)
    with pytest.warns(UserWarning, match="left out 1 x missing image file"):
        dataset = read_rle_csv(path, strict=False)
    assert [(p.images, p.instances) for p in dataset.problems] == [(1, 2)]


def test_broken_attributes(tmp_path):
    path = write(tmp_path / "a.csv", [OF_2020, ("b", "1 2", 4, 3, 0, "1,x")])
    with pytest.raises(
        AnnotationError, match="line 2, field 'AttributesIds': expected comma-separated numbers, got '1,x'"
    ):
        read_rle_csv(path)


def test_unknown_class(tmp_path):
    path = write(tmp_path / "a.csv", [OF_2019, ("a", "1 2", 4, 3, 0), ("b", "1 2", 4, 3, 2)])
    with pytest.raises(
        AnnotationError, match=r"line 3, field 'ClassId': class 2 is 'shoe', which is not among \['shirt'\]; add"
    ):
        read_rle_csv(path, labels={0: "shirt", 2: "shoe"}, class_names=["shirt"])


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="no CSV file of RLE masks at '.*gone.csv'"):
        read_rle_csv(tmp_path / "gone.csv")
    path = write(tmp_path / "a.csv", [("ImageId", "Pixels"), ("a", "1 2")])
    with pytest.raises(
        AnnotationError,
        match="a.csv, line 1, field 'EncodedPixels': missing column; expected "
        "ImageId, EncodedPixels, got ImageId, Pixels",
    ):
        read_rle_csv(path, strict=False)
    path.write_text("")
    with pytest.raises(AnnotationError, match="line 1, field 'ImageId': missing column; .* got nothing"):
        read_rle_csv(path)
    path.write_text("ImageId,EncodedPixels,ImageId\n")
    with pytest.raises(AnnotationError, match="line 1: duplicate columns"):
        read_rle_csv(path)
    path.write_text("ImageId,EncodedPixels\n")
    with pytest.raises(AnnotationError, match="field 'ImageId': no row has an image that can be read"):
        read_rle_csv(path)
    path.write_text('ImageId,EncodedPixels\na,"1 2\n')
    with pytest.raises(
        AnnotationError, match="a.csv, after line 1: not a valid UTF-8 CSV file: unexpected end of data"
    ):
        read_rle_csv(path)
    (tmp_path / "a.jpg").write_bytes(b"no image")
    path.write_text("ImageId,EncodedPixels\na,1 2\n")
    with pytest.raises(AnnotationError, match="a.csv, image 'a': '.*a.jpg' is not an image"):
        read_rle_csv(path)


@pytest.mark.parametrize("columns", [BOWL, OF_2019])
def test_a_file_cut_off_anywhere(tmp_path, columns):
    """An error, or a note if the rest looks complete; silent only between two lines."""
    path = tmp_path / "train.csv"
    write_rle_csv(path, two_images(), columns, ids=[*map(str, range(10)), "cat", "dog"])
    whole = path.read_bytes()
    assert not len(read_rle_csv(path).problems)
    noted = 0
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        try:
            dataset = read_rle_csv(path)
        except AnnotationError:
            continue
        if whole[length - 1 : length] != b"\n":
            assert [p.kind for p in dataset.problems] == [NO_END]
            noted += 1
    assert noted


def test_long_masks_and_other_programs_files(tmp_path):
    """Fields longer than csv's default limit, a byte order mark, and Windows line ends."""
    height, width = 400, 200
    text = " ".join(f"{start} 1" for start in range(1, height * width, 2))
    path = write(tmp_path / "a.csv", [], (height, width))
    path.write_bytes(f"\ufeffImageId,EncodedPixels\r\na.jpg,{text}\r\n".encode())
    masks, _ = read_rle_csv(path).load_mask(0)
    assert masks.sum() == height * width // 2 and masks[0].all() and not masks[1].any()


def test_fashion():
    if not FASHION.is_dir():
        pytest.skip(f"the fashion set is not at {FASHION}")
    dataset = read_rle_csv(FASHION / "val.csv")
    other = read_coco(FASHION / "annotations" / "instances_val.json", FASHION / "val")
    assert dataset.class_names == other.class_names and dataset.num_images == other.num_images == 20
    by_name = {info["file_name"]: i for i, info in enumerate(other.image_info)}
    for image_id in range(0, 20, 7):
        masks, class_ids = dataset.load_mask(image_id)
        same, same_ids = other.load_mask(by_name[dataset.image_info[image_id]["id"]])
        np.testing.assert_array_equal(masks, same)
        np.testing.assert_array_equal(class_ids, same_ids)

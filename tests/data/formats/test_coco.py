import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mrcnn.data import rle
from mrcnn.data.annotations import problems
from mrcnn.data.annotations.problems import AnnotationError
from mrcnn.data.formats.coco import read_coco

COCO_MINI = Path(__file__).resolve().parents[4] / "shared" / "data" / "coco_mini"


def content():
    """Two images of 20 x 30, the classes 18 and 3, an annotation of every kind."""
    mask = np.zeros((20, 30), bool)
    mask[5:9, 10:20] = True
    packed = rle.encode(mask)
    counts = [10 * 20 + 5] + [4, 16] * 9 + [4, 10 * 20 + 11]
    return {
        "images": [
            {"id": 9, "file_name": "b.png", "height": 20, "width": 30},
            {"id": 4, "file_name": "a.png", "height": 20, "width": 30},
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 4,
                "category_id": 18,
                "iscrowd": 0,
                "area": 23.5,
                "bbox": [2.1, 3, 4, 5.05],
                "segmentation": [[2, 3, 6, 3, 6, 8, 2, 8]],
            },
            {
                "id": 2,
                "image_id": 9,
                "category_id": 3,
                "iscrowd": 1,
                "area": 40,
                "bbox": [10, 5, 10, 4],
                "segmentation": {"size": [20, 30], "counts": counts},
            },
            {
                "id": 3,
                "image_id": 4,
                "category_id": 3,
                "iscrowd": 0,
                "area": 40,
                "bbox": [10, 5, 10, 4],
                "segmentation": packed,
            },
            {
                "id": 5,
                "image_id": 4,
                "category_id": 3,
                "iscrowd": 0,
                "area": 8,
                "bbox": [0, 0, 30, 20],
                "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2], [28, 18, 30, 18, 30, 20, 28, 20]],
            },
        ],
    }


@pytest.fixture
def write(tmp_path):
    def _write(changed=None):
        made = content()
        if changed:
            changed(made)
        for name in ("a", "b"):
            Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(tmp_path / f"{name}.png")
        path = tmp_path / "instances.json"
        path.write_text(json.dumps(made))
        return path

    return _write


def test_reads_every_kind(write):
    dataset = read_coco(write())
    assert dataset.class_names == ["BG", "car", "dog"]  # ordered by id
    assert [info["id"] for info in dataset.image_info] == [4, 9]  # ordered by id
    assert dataset.load_image(0).shape == (20, 30, 3)
    masks, class_ids = dataset.load_mask(0)
    assert class_ids.tolist() == [2, 1, 1] and masks.sum(axis=(0, 1)).tolist() == [20, 40, 8]
    assert masks[3:8, 2:6, 0].all() and masks[5:9, 10:20, 1].all() and masks[18:, 28:, 2].all()
    np.testing.assert_allclose(dataset.load_boxes(0), [[3, 2.1, 8.05, 6.1], [5, 10, 9, 20], [0, 0, 20, 30]])
    masks, class_ids = dataset.load_mask(1)
    assert class_ids.tolist() == [-1] and masks.sum() == 40 and masks[5:9, 10:20, 0].all()
    assert dataset.get_source_class_id(2, "coco") == 18 and dataset.map_source_class_id("coco.3") == 1
    assert dataset.image_reference(1).endswith("=9")
    assert not len(dataset.problems)


def test_annotations_are_the_files_own(write):
    first, second, _ = read_coco(write()).annotations(0)
    assert (first["id"], first["image_id"], first["category_id"]) == (1, 0, 2)
    assert (first["bbox"], first["area"], first["iscrowd"]) == ([2.1, 3, 4, 5.05], 23.5, 0)
    assert second["segmentation"] == content()["annotations"][2]["segmentation"]
    (crowd,) = read_coco(write()).annotations(1)
    assert crowd["iscrowd"] == 1 and crowd["category_id"] == 1


def test_some_classes_in_another_order(write):
    dataset = read_coco(write(), class_names=["dog"])
    assert dataset.class_names == ["BG", "dog"] and len(dataset.image_info) == 2
    assert dataset.load_mask(0)[1].tolist() == [1] and dataset.load_mask(1)[1].tolist() == []
    assert read_coco(write(), class_names=["dog", "car"]).load_mask(0)[1].tolist() == [1, 2, 2]
    with pytest.raises(AnnotationError, match=r"field 'categories': no classes \['cat'\]; known: \['car'"):
        read_coco(write(), class_names=["dog", "cat"])


def test_categories_may_start_at_zero_and_boxes_be_missing(write):
    def changed(made):
        made["categories"][1]["id"] = 0
        for annotation in made["annotations"]:
            annotation["category_id"] = {3: 0}.get(annotation["category_id"], 18)
            del annotation["bbox"], annotation["area"], annotation["iscrowd"]

    dataset = read_coco(write(changed))
    assert dataset.class_names == ["BG", "car", "dog"] and dataset.load_mask(0)[1].tolist() == [2, 1, 1]
    assert dataset.load_boxes(0).tolist() == [[3, 2, 8, 6], [5, 10, 9, 20], [0, 0, 20, 30]]
    assert [(a["bbox"], a["area"]) for a in dataset.annotations(0)][0] == ([2, 3, 4, 5], 20)
    assert dataset.get_source_class_id(1, "coco") == 0


def annotation(field, value):
    def changed(made):
        made["annotations"][0][field] = value

    return changed


def image(field, value):
    def changed(made):
        made["images"][1][field] = value

    return changed


def category(field, value):
    def changed(made):
        made["categories"][0][field] = value

    return changed


def without(key, place, field):
    def changed(made):
        del made[key][place][field]

    return changed


LONG = 10**400  # json has numbers of any size
OF_THE_IMAGE = (
    "no file name",
    "a missing image",
    "an image's id of a list",
    "a file name of a number",
    "a file name of a list",
    "an empty file name",
)  # three annotations are lost with it
LEFT_OUT = ("no polygon", "a polygon of no point")  # valid, but left out even if strict
BROKEN = {
    "an odd number of coordinates": (
        annotation("segmentation", [[2, 3, 6, 3, 6]]),
        "annotation 1, field 'segmentation': expected pairs .* a polygon of 5 coord",
    ),
    "no coordinates": (annotation("segmentation", None), "annotation 1, field 'segmentation': expected lists of coord"),
    "text": (annotation("segmentation", [["2", "3"]]), r"field 'segmentation': expected lists .*got \[\['2', '3'\]\]"),
    "runs of another size": (
        annotation("segmentation", {"size": [30, 20], "counts": [600]}),
        r"annotation 1, field 'segmentation': the RLE has size \[30, 20\], but the image has \[20, 30\]",
    ),
    "runs that do not fill the image": (
        annotation("segmentation", {"size": [20, 30], "counts": [5, 5]}),
        "annotation 1, field 'segm.*10.*600",
    ),
    "runs without counts": (
        annotation("segmentation", {"size": [20, 30]}),
        r"RLE needs size and counts, got the keys \['size'\]",
    ),
    "an unknown image": (
        annotation("image_id", 77),
        "annotation 1, field 'image_id': 77 is not among the ids of the file's 2 images",
    ),
    "an unknown category": (annotation("category_id", 1), "annotation 1, field 'category_id': 1 is not among"),
    "a category of text": (
        annotation("category_id", "x"),
        "field 'category_id': 'x' is not among the ids of the file's 2 categories",
    ),
    "a list for an image": (
        annotation("image_id", [4]),
        r"annotation 1, field 'image_id': expected an integer, got \[4\]",
    ),
    "a list for a category": (annotation("category_id", [18]), r"field 'category_id': \[18\] is not among"),
    "no polygon": (annotation("segmentation", []), "empty mask"),
    "a polygon of no point": (
        lambda made: made["annotations"][0].update(segmentation=[[]], bbox=None),
        "polygon of fewer than three points",
    ),
    "coordinates that are not finite": (
        annotation("segmentation", [[2, 3, float("nan"), 3, 6, 8]]),
        "annotation 1, field 'segmentation': expected",
    ),
    "coordinates too long for a float": (
        annotation("segmentation", [[2, 3, LONG, 3, 6, 8]]),
        "annotation 1, field 'segmentation': expected lists",
    ),
    "an image's id of a list": (image("id", [4]), r"images\[1\] \(id \[4\]\), field 'id': expected an integer"),
    "a file name of a number": (image("file_name", 7), r"images\[1\] \(id 4\), field 'file_name': expected a.* 7"),
    "a file name of a list": (
        image("file_name", ["a.png"]),
        r"images\[1\] \(id 4\), field 'file_name': expected a str",
    ),
    "an empty file name": (
        image("file_name", ""),
        r"images\[1\] \(id 4\), field 'file_name': expected a string, got ''",
    ),
    "a category's id of true": (category("id", True), r"categories\[0\] \(id True\), field 'id': expected an integer"),
    "no file name": (without("images", 1, "file_name"), r"images\[1\] \(id 4\), field 'file_name': missing"),
    "a missing image": (image("file_name", "gone.png"), "image 4: image file .*gone.png' is missing"),
}

# Fields that training does not need or can recover: the change, and where it is noted, if at all
NOT_NEEDED = {
    "a box of three": (annotation("bbox", [1, 2, 3]), ("annotation 1", "bbox")),
    "a fraction for a category": (annotation("category_id", 18.0), None),
    "a box of numbers too long for a float": (annotation("bbox", [0, 0, LONG, 1]), ("annotation 1", "bbox")),
    "a box of a negative width": (annotation("bbox", [5, 5, -2, 3]), ("annotation 1", "bbox")),
    "a box of a negative height": (annotation("bbox", [5, 5, 2, -3]), ("annotation 1", "bbox")),
    "a box that no image has": (annotation("bbox", [0, 0, 1e200, 3]), ("annotation 1", "bbox")),
    "a box of true": (annotation("bbox", [0, 0, True, 3]), ("annotation 1", "bbox")),
    "no area": (annotation("area", None), ("annotation 1", "area")),
    "an area of text": (annotation("area", "9"), ("annotation 1", "area")),
    "a negative area": (annotation("area", -1), ("annotation 1", "area")),
    "an area that is not finite": (annotation("area", float("inf")), ("annotation 1", "area")),
    "an area too long for a float": (annotation("area", LONG), ("annotation 1", "area")),
    "a crowd of text": (annotation("iscrowd", "0"), None),
    "a crowd of two": (annotation("iscrowd", 2), ("annotation 1", "iscrowd")),
    "a crowd of none": (annotation("iscrowd", None), ("annotation 1", "iscrowd")),
    "a crowd of a list": (annotation("iscrowd", []), ("annotation 1", "iscrowd")),
    "an annotation's id of true": (annotation("id", True), ("annotations[0]", "id")),
    "a height of true": (image("height", True), ("images[1] (id 4)", "height")),
    "a width that no image has": (image("width", 10**9), ("images[1] (id 4)", "width")),
    "a category's id of text": (category("id", "18"), None),
    "a name of a number": (category("name", 3), None),
    "a name of a list": (category("name", ["dog"]), ("categories[0] (id 18)", "name")),
    "a clash": (annotation("id", 2), ("annotation 2", "id")),
    "no id": (without("annotations", 0, "id"), ("annotations[0]", "id")),
    "no name": (without("categories", 0, "name"), ("categories[0] (id 18)", "name")),
    "a height of text": (image("height", "20"), ("images[1] (id 4)", "height")),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_record_is_named_or_counted(write, name):
    changed, message = BROKEN[name]
    path = write(changed)
    if name in LEFT_OUT:
        with pytest.warns(UserWarning, match=f"1 x {message}; .*annotation 1, field 'segmentation'"):
            read_coco(path)
    else:
        with pytest.raises(AnnotationError, match=message) as raised:
            read_coco(path)
        assert str(path) in str(raised.value)
    with pytest.warns(UserWarning, match="left out"):
        dataset = read_coco(path, strict=False)
    read = sum(len(info["instances"]) for info in dataset.image_info)
    assert read == 4 - (3 if name in OF_THE_IMAGE else 1)
    assert len(dataset.problems) >= 1 and all(p.treatment == "left out" for p in dataset.problems)


@pytest.mark.parametrize("name", NOT_NEEDED)
def test_what_is_not_needed_is_noted_and_the_record_read(write, name):
    changed, noted = NOT_NEEDED[name]
    dataset, sound = read_coco(write(changed)), read_coco(write())
    assert [(p.kind, p.record, p.field) for p in dataset.problems] == (
        [] if noted is None else [(problems.UNREAD, *noted)]
    )
    for image_id in (0, 1):
        np.testing.assert_array_equal(dataset.load_mask(image_id)[0], sound.load_mask(image_id)[0])
        ids = [annotation["id"] for annotation in dataset.annotations(image_id)]
        assert len(set(ids)) == len(ids)
    named = {"a name of a number": "3", "a name of a list": "class 18", "no name": "class 18"}
    assert dataset.class_names == ["BG", "car", named.get(name, "dog")]
    (first, *_), (expected, *_) = dataset.annotations(0), sound.annotations(0)
    if "box" in name:
        assert first["bbox"] == [2, 3, 4, 5] and first["area"] == 23.5
    elif "area" in name:
        assert first["area"] == 20 and first["bbox"] == expected["bbox"]


def test_what_may_stand_in_the_fields(write):
    def changed(made):
        made["images"][1]["name"] = ["what else an image has is its own"]
        for annotation, crowd in zip(made["annotations"], (True, False, 1, 0), strict=True):
            annotation.update(iscrowd=crowd, area=0, bbox=[-3, 0, 0, 0.5])

    dataset = read_coco(write(changed))
    assert not len(dataset.problems)
    assert dataset.load_mask(0)[1].tolist() == [-2, -1, 1] and dataset.load_mask(1)[1].tolist() == [1]
    assert [(a["area"], a["bbox"]) for a in dataset.annotations(1)] == [(0, [-3, 0, 0, 0.5])]


@pytest.mark.parametrize("class_names", [None, ["dog"]])
def test_two_categories_of_one_name(write, class_names):
    path = write(lambda made: made["categories"][1].update(name="dog"))
    with pytest.raises(AnnotationError, match=r"categories\[1\] \(id 3\), field 'name': another .* 'dog'"):
        read_coco(path, class_names=class_names)
    with pytest.warns(UserWarning, match="left out 1 x clashing id, 3 x broken record"):
        dataset = read_coco(path, class_names=class_names, strict=False)
    assert dataset.class_names == ["BG", "dog"]
    assert [i.record for info in dataset.image_info for i in info["instances"]] == ["annotation 1"]
    assert [(p.kind, p.record, p.field) for p in dataset.problems] == [
        (problems.CLASH, "categories[1] (id 3)", "name"),
        *[(problems.BROKEN, f"annotation {number}", "category_id") for number in (2, 3, 5)],
    ]


def test_an_unused_category_of_the_same_name_is_passed_over(write):
    def changed(made):
        made["categories"].insert(0, {"id": 0, "name": "dog", "supercategory": "none"})

    dataset = read_coco(write(changed))
    assert dataset.class_names == ["BG", "car", "dog"] and dataset.get_source_class_id(2, "coco") == 18
    assert dataset.load_mask(0)[1].tolist() == [2, 1, 1]
    assert [(p.kind, p.record, p.treatment) for p in dataset.problems] == [
        (problems.CLASH, "categories[0] (id 0)", "the other one is used")
    ]


def test_class_names(write):
    path = write(lambda made: made["categories"][0].update(name="dog, hound"))
    names = read_coco(path).class_names
    assert names == ["BG", "car", "dog, hound"]
    assert read_coco(path, class_names=names[1:]).class_names == names
    with pytest.raises(ValueError, match=r"duplicate class names in \['car', 'car'\]"):
        read_coco(path, class_names=["car", "car"])


def test_an_image_of_another_size(write):
    path = write(image("width", 31))
    with pytest.raises(AnnotationError, match=r"annotation 3, field 'segmentation': the RLE has size \[20, 30\]"):
        read_coco(path)
    with pytest.warns(UserWarning):
        dataset = read_coco(path, strict=False)
    with pytest.raises(AnnotationError, match="image 4, field 'height/width': the annotations are for a 20 x 31 image"):
        dataset.load_image(0)


@pytest.mark.parametrize(
    "made, message",
    [
        ("[]", "field 'images': expected a list of images, got None; is it a COCO instances file"),
        ('{"images": {}}', "field 'images': expected a list of images, got {}"),
        ('{"images": [], "categories": []}', "field 'annotations': expected a list"),
        ('{"images": [], "categories": [], "annotations": []}', "field 'images': none of its images can be read"),
        ('{"images": [', "line 1: invalid or truncated JSON"),
    ],
)
def test_a_file_that_is_no_coco_file(tmp_path, made, message):
    path = tmp_path / "a.json"
    path.write_text(made)
    with pytest.raises(AnnotationError, match=message):
        read_coco(path)


def test_real_annotations_equal_those_of_pycocotools():
    if not COCO_MINI.exists():
        pytest.skip(f"no photographs at {COCO_MINI}")
    from pycocotools.coco import COCO

    path = COCO_MINI / "annotations" / "instances_val2017.json"
    dataset, official = read_coco(path, COCO_MINI / "val2017"), COCO(path)
    assert dataset.num_classes == 81 and len(dataset.image_ids) == 106 and not len(dataset.problems)
    for image_id in dataset.image_ids[::5]:
        annotations = official.loadAnns(official.getAnnIds(dataset.image_info[image_id]["id"]))
        masks, class_ids = dataset.load_mask(image_id)
        assert len(annotations) == len(class_ids)
        pairs = zip(annotations, dataset.annotations(image_id), np.moveaxis(masks, 2, 0), strict=True)
        for theirs, ours, mask in pairs:
            np.testing.assert_array_equal(mask, official.annToMask(theirs))
            assert [ours[k] for k in ("id", "bbox", "area", "iscrowd")] == [
                theirs[k] for k in ("id", "bbox", "area", "iscrowd")
            ]
            assert dataset.class_names[ours["category_id"]] == official.cats[theirs["category_id"]]["name"]
            expected = official.annToRLE(theirs)
            assert ours["segmentation"]["counts"] == expected["counts"].decode()
    assert problems.EMPTY not in dataset.problems.counts()

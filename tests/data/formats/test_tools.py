"""Data as annotation tools actually write it: one 48 x 64 image with a cat and a dog, in each tool's way.

The masks are compared with those of the two rectangles; notes and errors are checked too.
"""

import copy
import json

import numpy as np
import pytest
from PIL import Image

from mrcnn.data import rle
from mrcnn.data.annotations import problems
from mrcnn.data.annotations.id_maps import PIECES
from mrcnn.data.annotations.problems import AnnotationError
from mrcnn.data.formats import load_dataset

BOXES = {"cat": (8, 8, 24, 32), "dog": (30, 40, 42, 60)}  # (y1, x1, y2, x2)
HEIGHT, WIDTH = 48, 64


def image(path, orientation=None, size=(HEIGHT, WIDTH)):
    path.parent.mkdir(parents=True, exist_ok=True)
    tags = Image.Exif()
    if orientation:
        tags[274] = orientation
    Image.fromarray(np.full((*size, 3), 90, np.uint8)).save(path, exif=tags)


def write(path, content, mark=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding="utf-8-sig" if mark else "utf-8")


def mask(name, height=HEIGHT, width=WIDTH):
    made = np.zeros((height, width), bool)
    y1, x1, y2, x2 = BOXES[name]
    made[y1:y2, x1:x2] = True
    return made


def corners(name):
    y1, x1, y2, x2 = BOXES[name]
    return [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]


def flat(name):
    return [value for point in corners(name) for value in point]


def coco(file_name="a.jpg", **changed):
    return {
        "images": [{"id": 1, "file_name": file_name, "height": HEIGHT, "width": WIDTH}],
        "annotations": [
            {
                "id": number,
                "image_id": 1,
                "category_id": number,
                "segmentation": [flat(name)],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": 0,
            }
            for number, (name, (y1, x1, y2, x2)) in enumerate(BOXES.items(), 1)
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(BOXES, 1)],
        **changed,
    }


def assert_read(dataset, names=("cat", "dog"), image_id=0, classes=None):
    """The image has these instances, each with its mask; with other classes if given."""
    masks, class_ids = dataset.load_mask(image_id)
    assert [dataset.class_names[i] for i in class_ids] == list(classes or names)
    for i, name in enumerate(names):
        np.testing.assert_array_equal(masks[:, :, i], mask(name))
    assert dataset.load_image(image_id).shape == (HEIGHT, WIDTH, 3)


def kinds(dataset):
    return sorted(dataset.problems.counts())


# COCO


@pytest.mark.parametrize(
    ("json_place", "image_place", "subset", "found"),
    [
        ("labels.json", "data/a.jpg", None, True),  # FiftyOne
        ("valid/_annotations.coco.json", "valid/a.jpg", "val", False),  # Roboflow
        ("valid/_annotations.coco.json", "valid/a.jpg", "validation", False),
        ("annotations/instances_shape_train2018.json", "shapes_train2018/a.jpg", "train", True),  # pycococreator
        ("result.json", "images/a.jpg", None, False),  # Label Studio
        ("annotations/instances_default.json", "images/default/a.jpg", None, False),  # CVAT
        ("annotations/instances_Train.json", "images/Train/a.jpg", "Train", False),
        ("annotations/train.json", "images/train/a.jpg", "train", False),
        ("annotations/result.json", "some folder/of mine/a.jpg", None, True),
    ],
)
def test_images_of_coco_lie_where_tools_put_them(tmp_path, json_place, image_place, subset, found):
    write(tmp_path / json_place, coco())
    image(tmp_path / image_place)
    dataset = load_dataset(tmp_path, subset)
    assert_read(dataset)
    assert dataset.image_info[0]["path"] == str(tmp_path / image_place)
    assert kinds(dataset) == [problems.FOUND] * found
    chosen = load_dataset(tmp_path / json_place, image_dir=(tmp_path / image_place).parent)
    assert chosen.image_info[0]["path"] == str(tmp_path / image_place) and not len(chosen.problems)


@pytest.mark.parametrize(
    "file_name",
    [
        "images\\a.jpg",
        "images\\1/a.jpg",  # label-studio-converter put the project's number before the name
        "images/1\\a.jpg",
        "..\\..\\Users\\me\\a.jpg",
        "C:\\Users\\me\\data\\images\\a.jpg",
        "/datasets/mine/a.jpg",
        "./images/a.jpg",
        "http://host/data/upload/1/a.jpg?d=%2Fx",
    ],
)
def test_names_of_images_from_other_machines(tmp_path, file_name):
    write(tmp_path / "result.json", coco(file_name))
    image(tmp_path / "images" / "a.jpg")
    dataset = load_dataset(tmp_path)
    assert_read(dataset)
    assert_read(load_dataset(tmp_path, image_dir=tmp_path / "images"))
    assert_read(load_dataset(tmp_path, image_dir=tmp_path))


def test_a_name_that_two_images_have_is_not_guessed(tmp_path):
    write(tmp_path / "result.json", coco("gone/a.jpg"))
    for folder in ("x", "y"):
        image(tmp_path / folder / "a.jpg")
    with pytest.raises(AnnotationError, match="image 1: image file .* is missing; candidates: .*x/a.jpg', .*y/a.jpg'"):
        load_dataset(tmp_path)
    assert_read(load_dataset(tmp_path, image_dir=tmp_path / "y"))


def test_an_image_that_is_missing_is_not_replaced_by_one_of_its_name_elsewhere(tmp_path):
    content = coco()
    content["images"].append({"id": 2, "file_name": "b.jpg", "height": HEIGHT, "width": WIDTH})
    write(tmp_path / "annotations" / "instances_train.json", content)
    image(tmp_path / "train" / "a.jpg")
    image(tmp_path / "val" / "b.jpg")
    with pytest.raises(AnnotationError, match="image 2: image file '.*train/b.jpg' is missing"):
        load_dataset(tmp_path, "train")


def test_subsets_are_whole_words(tmp_path):
    image(tmp_path / "images" / "a.jpg")
    write(tmp_path / "trainval.json", coco())
    for subset in ("train", "val"):
        with pytest.raises(
            ValueError, match=f"no format matches .* with subset '{subset}'; found images/, trainval.json"
        ):
            load_dataset(tmp_path, subset)
    assert_read(load_dataset(tmp_path, "trainval"))
    (tmp_path / "trainval.json").rename(tmp_path / "train_val.json")
    with pytest.raises(ValueError, match="no format matches"):
        load_dataset(tmp_path, "train")
    write(tmp_path / "annotations" / "mine-Train.json", coco())
    assert_read(load_dataset(tmp_path, "train"))
    write(tmp_path / "annotations" / "mineVal2020.json", coco())
    for subset in ("val", "val2020", "valid"):
        assert load_dataset(tmp_path, subset).file.endswith("mineVal2020.json")


@pytest.mark.parametrize(
    "segmentation",
    [
        lambda name: [[list(point) for point in corners(name)]],
        lambda name: [list(point) for point in corners(name)],
        flat,
        lambda name: {"size": [HEIGHT, WIDTH], "counts": rle.counts_of(rle.encode(mask(name))).tolist()},
        lambda name: rle.encode(mask(name)),
    ],
    ids=["lists of points", "a list of points", "flat", "counts", "packed"],
)
def test_outlines_as_tools_write_them(tmp_path, segmentation):
    content = coco()
    for annotation, name in zip(content["annotations"], BOXES, strict=True):
        annotation["segmentation"] = segmentation(name)
    write(tmp_path / "a.json", content)
    image(tmp_path / "a.jpg")
    dataset = load_dataset(tmp_path)
    assert_read(dataset)
    assert not len(dataset.problems)


def test_the_export_of_via_in_cocos_form(tmp_path):
    """Flat lists, ids as strings, a category for each option of each attribute."""
    content = coco()
    content["categories"] = [
        {"id": i, "name": name, "supercategory": "kind"} for i, name in enumerate([*BOXES, *BOXES], 1)
    ]
    for place, annotation in enumerate(content["annotations"]):
        annotation |= {"image_id": "1", "id": str(place), "segmentation": annotation["segmentation"][0]}
        annotation["category_id"] += 2 * place  # the dog has the second category of its name
        content["annotations"][place] = annotation
    write(tmp_path / "via_export_coco.json", content)
    image(tmp_path / "a.jpg")
    dataset = load_dataset(tmp_path)
    assert_read(dataset)
    assert dataset.class_names == ["BG", "cat", "dog"] and kinds(dataset) == [problems.CLASH, problems.UNREAD]


@pytest.mark.parametrize("categories", [[], None, "left away"])
def test_without_categories(tmp_path, categories):
    content = coco(categories=categories)
    if categories == "left away":
        del content["categories"]
    for annotation in content["annotations"]:
        del annotation["category_id"]
    write(tmp_path / "labels.json", content)
    image(tmp_path / "a.jpg")
    assert_read(load_dataset(tmp_path), classes=["object"] * 2)
    for options in ({"class_name": "pet"}, {"class_names": ["pet"]}):
        assert_read(load_dataset(tmp_path, **options), classes=["pet"] * 2)
    for annotation, number in zip(content["annotations"], (7, 3), strict=True):
        annotation["category_id"] = number
    write(tmp_path / "labels.json", content)
    dataset = load_dataset(tmp_path)
    assert dataset.class_names == ["BG", "class 3", "class 7"]
    assert_read(dataset, classes=["class 7", "class 3"])
    assert_read(load_dataset(tmp_path, class_name="pet"), classes=["pet"] * 2)


@pytest.mark.parametrize(
    "extra",
    [
        {"id": 0, "name": "pets", "supercategory": "none"},  # Roboflow's root
        {"id": 0, "name": "_background_"},
        {"id": 0, "name": "background"},
        {"id": 9, "name": "__ignore__"},
    ],
)
def test_a_root_and_the_background_are_no_classes(tmp_path, extra):
    content = coco()
    content["categories"] = [extra, *({**category, "supercategory": "pets"} for category in content["categories"])]
    write(tmp_path / "a.json", content)
    image(tmp_path / "a.jpg")
    dataset = load_dataset(tmp_path)
    assert dataset.class_names == ["BG", "cat", "dog"] and kinds(dataset) == [problems.NOT_A_CLASS]
    assert_read(dataset)


def test_a_class_that_another_part_of_the_data_uses_stays(tmp_path):
    """Otherwise class ids would differ between the parts."""
    content = coco()
    content["categories"] = [{"id": 0, "name": "pet", "supercategory": "animal"}, *content["categories"]]
    content["categories"][1]["supercategory"] = "pet"
    write(tmp_path / "a.json", content)
    image(tmp_path / "a.jpg")
    assert load_dataset(tmp_path).class_names == ["BG", "pet", "cat", "dog"]


def test_instances_of_what_is_no_class_are_left_out(tmp_path):
    content = coco()
    content["categories"][1]["name"] = "__ignore__"
    write(tmp_path / "a.json", content)
    image(tmp_path / "a.jpg")
    with pytest.warns(UserWarning, match="left out 1 x label that is not a class"):
        dataset = load_dataset(tmp_path)
    assert_read(dataset, ["cat"])
    assert dataset.class_names == ["BG", "cat"]


def test_a_record_that_stands_there_twice_is_read_once(tmp_path):
    content = coco()
    content["annotations"].append(copy.deepcopy(content["annotations"][0]))
    content["images"].append(copy.deepcopy(content["images"][0]))
    write(tmp_path / "a.json", content)
    image(tmp_path / "a.jpg")
    with pytest.warns(UserWarning, match="left out 1 x clashing id"):
        dataset = load_dataset(tmp_path)
    assert_read(dataset)
    assert kinds(dataset) == [problems.CLASH, problems.UNREAD]


def test_lvis(tmp_path):
    """No file names: the end of a URL is the path below the image folder."""
    content = coco()
    (entry,) = content["images"]
    entry |= {"coco_url": "http://images.cocodataset.org/train2017/a.jpg", "neg_category_ids": [5]}
    del entry["file_name"]
    for annotation in content["annotations"]:
        del annotation["iscrowd"]
    write(tmp_path / "lvis_v1_train.json", content)
    image(tmp_path / "train2017" / "a.jpg")
    image(tmp_path / "val2017" / "a.jpg")
    dataset = load_dataset(tmp_path, "train")
    assert_read(dataset)
    assert dataset.image_info[0]["path"] == str(tmp_path / "train2017" / "a.jpg")


@pytest.mark.parametrize("empty", [[], [[]], None])
def test_boxes_alone(tmp_path, empty):
    content = coco()
    for annotation in content["annotations"]:
        annotation["segmentation"] = empty
    write(tmp_path / "annotations" / "instances_train.json", content)
    image(tmp_path / "train" / "a.jpg")
    with pytest.raises(AnnotationError, match="annotation 1, field 'segmentation': a box without a mask"):
        load_dataset(tmp_path, "train")
    with pytest.warns(UserWarning, match="left out 1 x box without a mask"):
        assert load_dataset(tmp_path, "train", strict=False).load_mask(0)[0].shape == (HEIGHT, WIDTH, 0)
    dataset = load_dataset(tmp_path, "train", masks=False)
    assert dataset.load_boxes(0).tolist() == [list(box) for box in BOXES.values()]
    assert dataset.load_class_ids(0).tolist() == [1, 2] and not len(dataset.problems)
    with pytest.raises(ValueError, match="image 1: the dataset was read with masks=False and only has boxes"):
        dataset.load_mask(0)


# Orientation tags


def test_sizes_prove_that_the_upright_image_was_annotated(tmp_path):
    write(tmp_path / "a.json", coco())
    image(tmp_path / "a.jpg", 6, (WIDTH, HEIGHT))  # stored on its side
    for upright in (None, True, False):
        dataset = load_dataset(tmp_path, upright=upright)
        assert_read(dataset)
        assert not len(dataset.problems)


def test_sizes_prove_that_the_stored_image_was_annotated(tmp_path):
    write(tmp_path / "a.json", coco())
    image(tmp_path / "a.jpg", 6)
    for upright in (None, True, False):
        dataset = load_dataset(tmp_path, upright=upright)
        assert_read(dataset)
        assert not len(dataset.problems)


def test_where_sizes_do_not_tell_one_rule_decides_and_is_noted(tmp_path):
    write(tmp_path / "a.json", coco())
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:10] = 255
    tags = Image.Exif()
    tags[274] = 3  # upside down
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=tags, quality=95)
    dataset = load_dataset(tmp_path)
    assert kinds(dataset) == [problems.TAGGED] and dataset.load_image(0)[-9:].min() > 200
    upright, stored = load_dataset(tmp_path, upright=True), load_dataset(tmp_path, upright=False)
    assert upright.load_image(0)[-9:].min() > 200 and stored.load_image(0)[:9].min() > 200
    assert not len(upright.problems) and not len(stored.problems)


# Byte order marks


def test_a_byte_order_mark_before_json(tmp_path):
    for name in ("coco", "labelme", "via"):
        image(tmp_path / name / "a.jpg")
    write(tmp_path / "coco" / "instances.json", coco(), mark=True)
    assert_read(load_dataset(tmp_path / "coco"))
    shape = {"label": "cat", "points": corners("cat"), "shape_type": "polygon", "group_id": None}
    record = {"shapes": [shape], "imagePath": "a.jpg", "imageHeight": HEIGHT, "imageWidth": WIDTH, "imageData": None}
    write(tmp_path / "labelme" / "a.json", record, mark=True)
    assert_read(load_dataset(tmp_path / "labelme"), ["cat"])
    write(tmp_path / "via" / "a.json", via("a.jpg"), mark=True)
    assert_read(load_dataset(tmp_path / "via", attribute="kind"), ["cat"])
    (tmp_path / "coco" / "instances.json").write_text(json.dumps(coco()), encoding="utf-16")
    assert_read(load_dataset(tmp_path / "coco"))


def test_a_byte_order_mark_before_yaml_labels_and_lists(tmp_path):
    yolo(tmp_path, "\ufeffnames: [cat, dog]\ntrain: train.txt\n", mark=True)
    write(tmp_path / "train.txt", "images/train/a.jpg\n", mark=True)
    assert_read(load_dataset(tmp_path, "train"))


# VIA


def via(*names, shape="cat", **changed):
    xs, ys = zip(*corners(shape), strict=True)
    region = {
        "shape_attributes": {"name": "polygon", "all_points_x": xs, "all_points_y": ys, **changed},
        "region_attributes": {"kind": shape},
    }
    return {f"{name}1": {"filename": name, "size": -1, "regions": [region], "file_attributes": {}} for name in names}


def test_a_polyline_that_ends_where_it_begins(tmp_path):
    xs, ys = zip(*corners("cat"), strict=True)
    line = {"name": "polyline", "all_points_x": [*xs, xs[0]], "all_points_y": [*ys, ys[0]]}
    write(tmp_path / "via_region_data.json", via("a.jpg", "b.jpg", **line))
    for name in ("a.jpg", "b.jpg"):
        image(tmp_path / name)
    dataset = load_dataset(tmp_path, attribute="kind")
    assert_read(dataset, ["cat"])
    (problem,) = dataset.problems  # a single one for all
    assert problem.treatment == "read as a polygon" and "the same in 1 other region records" in problem.message
    write(tmp_path / "via_region_data.json", via("a.jpg", **{**line, "all_points_x": [*xs, xs[0] + 9]}))
    with pytest.raises(AnnotationError, match="region 0, field 'name': shape 'polyline' has no area"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("place", ["beside", "missing"])
def test_the_name_of_a_shape_beside_it_or_missing(tmp_path, place):
    content = via("a.jpg")
    (region,) = content["a.jpg1"]["regions"]
    name = region["shape_attributes"].pop("name")
    if place == "beside":
        region["name"] = name
    rect = {"shape_attributes": {"x": 40, "y": 30, "width": 20, "height": 12}, "region_attributes": {"kind": "dog"}}
    content["a.jpg1"]["regions"].append(rect)
    write(tmp_path / "via_region_data.json", content)
    image(tmp_path / "a.jpg")
    assert_read(load_dataset(tmp_path, attribute="kind"))


def test_many_files_of_one_image_each(tmp_path):
    names = [f"{letter}.jpg" for letter in "abcdefg"]
    for name in names:
        image(tmp_path / name)
        write(
            tmp_path / f"{name[0]}.json", {"_via_settings": {}, "_via_img_metadata": via(name), "_via_attributes": {}}
        )
    dataset = load_dataset(tmp_path, attribute="kind")
    assert [info["id"] for info in dataset.image_info] == names
    for image_id in range(7):
        assert_read(dataset, ["cat"], image_id)
    write(tmp_path / "h.json", via("a.jpg"))
    with pytest.raises(AnnotationError, match="a.json' also annotates 'a.jpg'; choose one with annotation_file="):
        load_dataset(tmp_path)
    assert len(load_dataset(tmp_path, annotation_file="h.json").image_info) == 1


def test_a_project_above_the_folder_of_images(tmp_path):
    write(tmp_path / "via_project.json", {"_via_settings": {}, "_via_img_metadata": via("a.jpg")})
    image(tmp_path / "images" / "a.jpg")
    dataset = load_dataset(tmp_path, attribute="kind")
    assert_read(dataset, ["cat"])
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    assert kinds(load_dataset(tmp_path, attribute="kind")) == [problems.FOUND]
    assert not len(load_dataset(tmp_path, attribute="kind", image_dir=tmp_path / "elsewhere").problems)


@pytest.mark.parametrize("image_column", ["#filename", "filename"])
def test_tables_of_via_1_and_2(tmp_path, image_column):
    import csv

    rows = [[image_column, "file_size", "file_attributes", "region_count", "region_id", "region_shape_attributes"]]
    rows[0].append("region_attributes")
    for place, name in enumerate(BOXES):
        (region,) = via("a.jpg", shape=name)["a.jpg1"]["regions"]
        cells = json.dumps(region["shape_attributes"]), json.dumps(region["region_attributes"])
        rows.append(["a.jpg", "", "{}", 2, place, *cells])
    rows.append(["b.jpg", 5, "{}", 0, 0, "{}", "{}"])
    with open(tmp_path / "via_region_data.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    image(tmp_path / "a.jpg")
    with pytest.warns(UserWarning, match="left out 1 x image without instances"):
        dataset = load_dataset(tmp_path, attribute="kind")
    assert_read(dataset)
    rows[1][5] = "{"
    with open(tmp_path / "via_region_data.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    with pytest.raises(AnnotationError, match="line 2, field 'region_shape_attributes': expected a JSON object"):
        load_dataset(tmp_path)


ATTRIBUTE = {"1": {"aname": "kind", "anchor_id": "FILE1_Z0_XY1", "type": 4, "options": {"0": "cat", "1": "dog"}}}


def via_3(*shapes):
    metadata = {
        f"1_{place}": {"vid": "1", "flg": 0, "z": [], "xy": xy, "av": {"1": chosen}}
        for place, (xy, chosen) in enumerate(shapes)
    }
    metadata["1_whole"] = {"vid": "1", "flg": 0, "z": [], "xy": [], "av": {"1": "0"}}  # describes the whole image
    return {
        "project": {"pid": "__VIA_PROJECT_ID__", "vid_list": ["1"]},
        "config": {},
        "attribute": ATTRIBUTE,
        "file": {"1": {"fid": "1", "fname": "a.jpg", "type": 2, "loc": 1, "src": ""}},
        "metadata": metadata,
        "view": {"1": {"fid_list": ["1"]}},
    }


def test_projects_of_via_3(tmp_path):
    write(tmp_path / "project.json", via_3(([7, *flat("cat")], "0"), ([2, 40, 30, 20, 12], "1")))
    image(tmp_path / "a.jpg")
    assert_read(load_dataset(tmp_path, attribute="kind"))
    by_points = [8, 40, 35, 50, 30, 60, 36, 55, 42]  # a rectangle given by its extreme points
    circles = [[3, 20, 20, 10], [9, 30, 20, 20, 30, 10, 20], [4, 20, 20, 10, 10]]
    write(tmp_path / "project.json", via_3((by_points, "1"), *((circle, "0") for circle in circles)))
    masks, class_ids = load_dataset(tmp_path, attribute="kind").load_mask(0)
    np.testing.assert_array_equal(masks[..., 0], mask("dog"))
    assert class_ids.tolist() == [2, 1, 1, 1] and masks[..., 1].sum() == 316
    assert (masks[..., 1:] == masks[..., 1:2]).all()


@pytest.mark.parametrize(
    ("xy", "message"),
    [
        ([1, 2, 3], "shape 1 with 2 numbers has no area"),
        ([7, 1, 2, 3], "shape 7 with 3 numbers has no area"),
        (["7", 1, 2], "expected a shape code and coordinates"),
        ([9, 0, 0, 1, 1, 2, 2], "of a circle are collinear"),
        ([2, 1, 2, 3], "shape 2 with 3 numbers has no area"),
    ],
)
def test_broken_shapes_of_via_3(tmp_path, xy, message):
    write(tmp_path / "project.json", via_3(([7, *flat("cat")], "0"), (xy, "1")))
    image(tmp_path / "a.jpg")
    with pytest.raises(AnnotationError, match=f"metadata '1_1', field 'xy': .*{message}"):
        load_dataset(tmp_path, attribute="kind")
    with pytest.warns(UserWarning, match="left out 1 x broken record"):
        assert_read(load_dataset(tmp_path, attribute="kind", strict=False), ["cat"])


def test_tables_of_via_3(tmp_path):
    lines = [
        "# Exported using VGG Image Annotator (http://www.robots.ox.ac.uk/~vgg/software/via)",
        "# Notes:",
        f"# ATTRIBUTE = {json.dumps(ATTRIBUTE)}",
        "# CSV_HEADER = metadata_id,file_list,flags,temporal_coordinates,spatial_coordinates,metadata",
        f'"1_a","[""a.jpg""]",0,"[]","[7,{",".join(map(str, flat("cat")))}]","{{""1"":""0""}}"',
        '"1_b","[""a.jpg""]",0,"[]","[2,40,30,20,12]","{""1"":""1""}"',
    ]
    write(tmp_path / "via.csv", "\n".join(lines) + "\n")
    image(tmp_path / "a.jpg")
    assert_read(load_dataset(tmp_path, attribute="kind"))
    write(tmp_path / "via.csv", "\n".join([*lines, '"1_c","[""a.jpg""]",0,"[]","[2,40', ""]))
    with pytest.raises(AnnotationError, match="via.csv: not a valid CSV file"):
        load_dataset(tmp_path)


# YOLO


def yolo(folder, yaml, mark=False, images="images/train"):
    image(folder / images / "a.jpg")
    lines = [
        f"{number} " + " ".join(f"{x / WIDTH:.6f} {y / HEIGHT:.6f}" for x, y in corners(name))
        for number, name in enumerate(BOXES)
    ]
    write(folder / images.replace("images", "labels") / "a.txt", "\n".join(lines), mark)
    write(folder / "data.yaml", yaml)


@pytest.mark.parametrize(
    "entry",
    [
        "data/images/train/a.jpg",  # CVAT's exporter prepends data/ to each path
        "images\\train\\a.jpg",
        "./images/train/a.jpg",
        "C:\\Users\\me\\set\\images\\train\\a.jpg",
        "/home/me/set/images/train/a.jpg",
    ],
)
def test_lists_of_images_of_other_machines(tmp_path, entry):
    yolo(tmp_path, "names: {0: cat, 1: dog}\npath: .\ntrain: train.txt\n")
    write(tmp_path / "train.txt", f"{entry}\n")
    dataset = load_dataset(tmp_path, "train")
    assert_read(dataset)
    assert not len(dataset.problems)


@pytest.mark.parametrize(
    "train",
    [
        "[images/train/a.jpg]",
        "images/train/a.jpg",
        "images/train",
        "images\\train",
        "../images/train",
        "/home/me/set/images/train",
        "[images/train]",
    ],
)
def test_what_a_yaml_may_say_of_images(tmp_path, train):
    yolo(tmp_path, f"names: [cat, dog]\ntrain: {train}\n")
    assert_read(load_dataset(tmp_path, "train"))


def test_paths_of_another_machine_never_lead_to_another_subset(tmp_path):
    """Both paths end in images."""
    for part in ("train", "val"):
        yolo(
            tmp_path,
            "names: [cat, dog]\ntrain: /gone/set/train/images\nval: /gone/set/val/images\n",
            images=f"{part}/images",
        )
    image(tmp_path / "images" / "b.jpg")
    for part in ("train", "val"):
        (info,) = load_dataset(tmp_path, part).image_info
        assert info["path"] == str(tmp_path / part / "images" / "a.jpg")


@pytest.mark.parametrize("target", ["/dev/zero", "fifo"])
def test_devices_and_pipes_are_not_read(tmp_path, target):
    import os

    if target == "fifo":
        os.mkfifo(tmp_path / "fifo")
    yolo(tmp_path, f"names: [cat, dog]\ntrain: {target}\n")
    with pytest.raises(AnnotationError, match="data.yaml, field 'train': it points to .*, not a folder or file"):
        load_dataset(tmp_path, "train")


def test_boxes_of_yolo(tmp_path):
    yolo(tmp_path, "names: [cat, dog]\ntrain: images/train\n")
    write(tmp_path / "labels" / "train" / "a.txt", "0 0.3125 0.333333 0.375 0.333333\n1 0.78125 0.75 0.3125 0.25\n")
    with pytest.raises(AnnotationError, match="a.txt, line 1, field 'coordinates': a box without a mask"):
        load_dataset(tmp_path, "train")
    dataset = load_dataset(tmp_path, "train", masks=False)
    np.testing.assert_allclose(dataset.load_boxes(0), list(BOXES.values()), atol=0.02)


# Competition CSV files


RUNS = {name: rle.rle_to_pairs(rle.encode(mask(name))) for name in BOXES}


@pytest.mark.parametrize(
    ("header", "rows", "classes", "folder"),
    [
        ("ImageId,ClassId,EncodedPixels", ["a.jpg,3,{cat}"], ["3"], "train_images"),  # Severstal
        ("ImageId_ClassId,EncodedPixels", ["a.jpg_1,", "a.jpg_3,{cat}"], ["3"], "train_images"),
        ("Image_Label,EncodedPixels", ["a.jpg_Fish,{cat}", "a.jpg_Flower,"], ["Fish"], "train_images"),  # clouds
        ("ImageId,EncodedPixels,Height,Width,ClassId", ["a.jpg,{cat},48,64,3.0"], ["3"], "train"),  # pandas
        ("ImageId, EncodedPixels", ["a.jpg, {cat}"], ["object"], "train"),  # SIIM
        ("id,rle", ["a,{cat}"], ["object"], "train"),
        ("image_id,class_id,rle", ["a,9,{cat}"], ["9"], "photos"),
    ],
)
def test_columns_of_competitions(tmp_path, header, rows, classes, folder):
    image(tmp_path / folder / "a.jpg")
    write(tmp_path / "train.csv", "\n".join([header, *rows, ""]).format(**RUNS))
    dataset = load_dataset(tmp_path, "train")
    assert_read(dataset, ["cat"], classes=classes)
    assert kinds(dataset) == ([problems.FOUND] if folder == "photos" else [])


@pytest.mark.parametrize("nothing", ["-1", "", " -1", "nan"])
def test_images_without_instances_in_tables(tmp_path, nothing):
    for name in ("a.jpg", "b.jpg"):
        image(tmp_path / "train" / name)
    write(tmp_path / "train.csv", f"ImageId,EncodedPixels\na.jpg,{RUNS['cat']}\nb.jpg,{nothing}\n")
    dataset = load_dataset(tmp_path, "train")
    assert dataset.load_mask(1)[0].shape == (HEIGHT, WIDTH, 0) and not len(dataset.problems)


# Label Studio


def label_studio(*results, name="/data/upload/3/a.jpg", **changed):
    sizes = {"original_width": WIDTH, "original_height": HEIGHT}
    return [
        {
            "id": 7,
            "data": {"image": name},
            "annotations": [{"id": 1, "result": [{**r, **sizes} for r in results]}],
            **changed,
        }
    ]


def percent(name):
    y1, x1, y2, x2 = BOXES[name]
    sides = {"x": x1 / WIDTH, "y": y1 / HEIGHT, "width": (x2 - x1) / WIDTH, "height": (y2 - y1) / HEIGHT}
    return {side: 100 * value for side, value in sides.items()}


def rectangle(name, **changed):
    value = {**percent(name), "rotation": 0, "rectanglelabels": [name], **changed}
    return {"type": "rectanglelabels", "value": value}


def test_shapes_of_label_studio(tmp_path):
    image(tmp_path / "images" / "a.jpg")
    turned = {**percent("dog"), "x": 100 * 60 / WIDTH, "rotation": 90}  # clockwise about its corner
    turned |= {"width": 100 * 12 / WIDTH, "height": 100 * 20 / HEIGHT}
    write(tmp_path / "tasks.json", label_studio(rectangle("cat"), rectangle("dog", **turned), {"type": "choices"}))
    assert_read(load_dataset(tmp_path))
    ellipse = {"x": 50, "y": 50, "radiusX": 10, "radiusY": 10, "rotation": 0, "ellipselabels": ["cat"]}
    write(tmp_path / "tasks.json", label_studio({"type": "ellipselabels", "value": ellipse}))
    assert load_dataset(tmp_path).load_mask(0)[0].sum() == pytest.approx(np.pi * 4.8 * 6.4, rel=0.05)
    predicted = label_studio(annotations=[{"was_cancelled": True, "result": []}])
    predicted[0]["predictions"] = [{"result": [rectangle("cat")]}, {"result": []}]
    write(tmp_path / "tasks.json", predicted)
    dataset = load_dataset(tmp_path)
    assert_read(dataset, ["cat"])
    assert problems.UNREAD in kinds(dataset) and dataset.image_info[0]["id"] == 7


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"rectanglelabels": ["a", "b"]}, "field 'value': expected one label"),
        ({"width": -1}, "field 'width': expected a number >= 0"),
        ({"x": None}, "field 'x': expected a number, got None"),
    ],
)
def test_broken_results_of_label_studio(tmp_path, value, message):
    image(tmp_path / "a.jpg")
    write(tmp_path / "tasks.json", label_studio(rectangle("cat"), rectangle("dog", **value)))
    with pytest.raises(AnnotationError, match=f"tasks.json, task 7, result 1, {message}"):
        load_dataset(tmp_path)
    with pytest.warns(UserWarning, match="left out 1 x broken record"):
        assert_read(load_dataset(tmp_path, strict=False), ["cat"])
    for stroke in ([], [0] * 9, [300], None, "x"):
        broken = {"type": "brushlabels", "value": {"rle": stroke, "brushlabels": ["dog"]}}
        write(tmp_path / "tasks.json", label_studio(rectangle("cat"), broken))
        with pytest.raises(AnnotationError, match="task 7, result 1, field 'rle': "):
            load_dataset(tmp_path)


# Mask images


@pytest.mark.parametrize("drawn", ["white", "black", "gray and alpha", "palette", "color key"])
def test_masks_in_the_alpha_channel(tmp_path, drawn):
    image(tmp_path / "images" / "a.jpg")
    alpha = mask("cat").astype(np.uint8) * 255
    made = {
        "white": lambda: Image.fromarray(np.dstack([np.full((HEIGHT, WIDTH, 3), 255, np.uint8), alpha])),
        "black": lambda: Image.fromarray(np.dstack([np.zeros((HEIGHT, WIDTH, 3), np.uint8), alpha])),
        "gray and alpha": lambda: Image.merge("LA", [Image.new("L", (WIDTH, HEIGHT), 200), Image.fromarray(alpha)]),
        "palette": lambda: Image.fromarray((alpha == 0).astype(np.uint8)).convert("P"),  # 1 is transparent
        "color key": lambda: Image.fromarray(np.where(alpha, 7, 9).astype(np.uint8)),
    }[drawn]()
    options = {"palette": {"transparency": 1}, "color key": {"transparency": 9}}.get(drawn, {})
    (tmp_path / "masks" / "a").mkdir(parents=True)
    made.save(tmp_path / "masks" / "a" / "0.png", **options)
    assert_read(load_dataset(tmp_path), ["cat"], classes=["object"])


def test_a_mask_without_transparent_pixels_is_read_by_its_values(tmp_path):
    image(tmp_path / "images" / "a.jpg")
    (tmp_path / "masks" / "a").mkdir(parents=True)
    for alpha in (255, 0):  # some tools fill the alpha channel with zeros
        values = np.dstack([mask("cat").astype(np.uint8) * 255] * 3 + [np.full((HEIGHT, WIDTH), alpha, np.uint8)])
        Image.fromarray(values).save(tmp_path / "masks" / "a" / "0.png")
        assert_read(load_dataset(tmp_path), ["cat"], classes=["object"])


def semantic(folder, value=1, images=("a", "b")):
    for name in images:
        image(folder / "images" / f"{name}.jpg")
        (folder / "masks").mkdir(exist_ok=True)
        Image.fromarray(((mask("cat") | mask("dog")) * value).astype(np.uint8)).save(folder / "masks" / f"{name}.png")


@pytest.mark.parametrize("value", [1, 255])
@pytest.mark.parametrize("images", ["a", "ab"])
def test_maps_of_classes_are_told_from_maps_of_instances(tmp_path, value, images):
    semantic(tmp_path, value, images)
    text = f"value {value}, field 'pixels': it has several pieces in {len(images)} of {len(images)} images; is it a"
    with pytest.raises(AnnotationError, match=text):
        load_dataset(tmp_path)
    with pytest.warns(UserWarning, match="left out"):
        dataset = load_dataset(tmp_path, strict=False)
    assert dataset.load_mask(0)[0].shape == (HEIGHT, WIDTH, 0)
    assert [(p.kind, p.treatment, p.instances) for p in dataset.problems] == [(PIECES, "left out", len(images))]
    assert_read(load_dataset(tmp_path, separate=True), classes=["object"] * 2)
    masks, _ = load_dataset(tmp_path, separate=False).load_mask(0)
    np.testing.assert_array_equal(masks[..., 0], mask("cat") | mask("dog"))


def test_pieces_are_of_the_class_of_their_number(tmp_path):
    semantic(tmp_path)
    values = mask("cat") * 3 + mask("dog") * 5
    Image.fromarray(values.astype(np.uint8)).save(tmp_path / "masks" / "a.png")
    dataset = load_dataset(tmp_path, separate=True, labels={3: "cat", 5: "dog"})
    assert dataset.class_names == ["BG", "cat", "class 1", "dog"]
    assert_read(dataset)


def test_instances_that_something_hides_in_part_are_instances(tmp_path):
    """A tenth of many instances in two pieces, and some pieces of a few pixels."""
    for number in range(4):
        image(tmp_path / "images" / f"{number}.jpg")
        values = np.zeros((HEIGHT, WIDTH), np.uint8)
        for i in range(12):
            values[4 * i : 4 * i + 2, :20] = i + 1
        values[:2, 10] = 0  # the first has two pieces
        values[40:, 60] = [1, 0, 0, 0, 0, 0, 0, 2]
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(values).save(tmp_path / "masks" / f"{number}.png")
    assert load_dataset(tmp_path).load_mask(0)[0].shape[2] == 12


def test_penn_fudan(tmp_path):
    image(tmp_path / "PNGImages" / "FudanPed1.png")
    (tmp_path / "PedMasks").mkdir()
    numbers = mask("cat") * 1 + mask("dog") * 2
    Image.fromarray(numbers.astype(np.uint8)).save(tmp_path / "PedMasks" / "FudanPed1_mask.png")
    dataset = load_dataset(tmp_path)
    assert_read(dataset, classes=["pedestrian"] * 2)
    assert_read(load_dataset(tmp_path, class_name="person"), classes=["person"] * 2)


def test_cityscapes(tmp_path):
    for part in ("train", "val"):
        name = f"{part}/aachen/aachen_000000_000019"
        image(tmp_path / "leftImg8bit" / f"{name}_leftImg8bit.png")
        numbers = np.full((HEIGHT, WIDTH), 7, np.int32)  # road
        numbers[mask("cat")], numbers[mask("dog")], numbers[44:46] = 26001, 24000, 25
        (tmp_path / "gtFine" / name).parent.mkdir(parents=True)
        Image.fromarray(numbers.astype(np.uint16)).save(tmp_path / "gtFine" / f"{name}_gtFine_instanceIds.png")
        Image.fromarray(numbers.astype(np.uint8)).save(tmp_path / "gtFine" / f"{name}_gtFine_labelIds.png")
        write(tmp_path / "gtFine" / f"{name}_gtFine_polygons.json", {"objects": []})
    dataset = load_dataset(tmp_path, "train")
    masks, class_ids = dataset.load_mask(0)
    assert [dataset.class_names[abs(i)] for i in class_ids] == ["rider", "person", "car"]
    assert (class_ids > 0).tolist() == [False, True, True]  # a group of riders without separate ids
    np.testing.assert_array_equal(masks[..., 1], mask("dog"))
    np.testing.assert_array_equal(masks[..., 2], mask("cat"))
    assert dataset.num_classes == 11 and not len(dataset.problems)
    assert load_dataset(tmp_path, "train", class_names=["car"]).load_mask(0)[1].tolist() == [1]
    with pytest.raises(ValueError, match="holds the subsets .*'train', 'val'"):
        load_dataset(tmp_path)

"""One instance map per image."""

import json
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrcnn.data.annotations import id_maps, problems
from mrcnn.data.annotations.id_maps import regions, values_in
from mrcnn.data.annotations.problems import AnnotationError
from mrcnn.data.formats.instance_ids import STUFF, read_instance_ids
from tests.data.mask_writers import (
    assert_same,
    scenes,
    two_images,
    write_image,
    write_instance_ids,
    write_png,
    write_rows,
)

DEPTHS = ("8", "16", "palette", "colors")


@pytest.mark.parametrize("folder", ["masks", "instances", "labels"])
@pytest.mark.parametrize("classes", ["json", "csv"])
def test_reads_layouts(tmp_path, folder, classes):
    write_instance_ids(tmp_path / "train", two_images(), folder, classes=classes)
    dataset = read_instance_ids(tmp_path, "train")
    assert dataset.class_names == ["BG", "cat", "dog"]
    assert_same(dataset, two_images())
    assert [info["id"] for info in dataset.image_info] == ["a", "b"] and not len(dataset.problems)
    turned = read_instance_ids(tmp_path, "train", class_names=["dog", "bird", "cat"])
    assert turned.load_mask(0)[1].tolist() == [1, 3, 1]


def test_one_class(tmp_path):
    write_instance_ids(tmp_path, two_images(), classes=None)
    assert read_instance_ids(tmp_path).class_names == ["BG", "object"]
    assert read_instance_ids(tmp_path, class_names=["cell"]).class_names == ["BG", "cell"]
    dataset = read_instance_ids(tmp_path, class_name="cell")
    assert dataset.class_names == ["BG", "cell"] and dataset.load_mask(0)[1].tolist() == [1, 1, 1]


def test_subset_may_lie_innermost(tmp_path):
    write_instance_ids(tmp_path / "made", two_images())
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        (tmp_path / "made" / folder).rename(tmp_path / folder / "val")
    content = json.loads((tmp_path / "made" / "classes.json").read_text())
    (tmp_path / "classes.json").write_text(json.dumps(content | {"of_train": {"1": "cat"}}))
    with pytest.warns(UserWarning, match="left out 1 x missing image file"):
        dataset = read_instance_ids(tmp_path, "val")  # classes.json covers all subsets
    assert_same(dataset, two_images())


@settings(max_examples=25, deadline=None)
@given(scenes(), st.sampled_from(DEPTHS), st.sampled_from(["json", "csv"]))
def test_round_trip(tmp_path_factory, scene, depth, classes):
    root = tmp_path_factory.mktemp("scene")
    write_instance_ids(root, scene, depth=depth, classes=classes)
    assert_same(read_instance_ids(root), scene)


@pytest.mark.parametrize(("depth", "most"), [("8", 255), ("16", 65535), ("palette", 255), ("colors", 256**3 - 1)])
def test_the_largest_numbers(tmp_path, depth, most):
    write_instance_ids(tmp_path, two_images(), depth=depth, numbers=lambda i: most - i)
    found = read_instance_ids(tmp_path)
    assert [i.outline.value for i in found.image_info[0]["instances"]] == [most - 2, most - 1, most]
    height, width, objects = two_images()["a"]
    assert_same(found, {**two_images(), "a": (height, width, objects[::-1])})


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 300, 2**16 + 5, 2**24]))
def test_regions_are_the_masks(seed, top):
    rng = np.random.default_rng(seed)
    values = rng.choice(rng.integers(0, top, 4), (rng.integers(1, 9), rng.integers(1, 9))).astype(np.int32)
    found = regions(values)
    assert list(found) == values_in(values) == sorted(set(values.ravel().tolist()) - {0})
    for number, (y1, x1, y2, x2, bits) in found.items():
        mask = np.zeros(values.shape, bool)
        mask[y1:y2, x1:x2] = np.unpackbits(bits, axis=1, count=x2 - x1)
        np.testing.assert_array_equal(mask, values == number)
        assert mask[y1].any() and mask[y2 - 1].any() and mask[:, x1].any() and mask[:, x2 - 1].any()


def test_a_picture_is_read_once_for_all_its_instances(tmp_path, monkeypatch):
    write_instance_ids(tmp_path, two_images())
    dataset, read = read_instance_ids(tmp_path), []
    original = id_maps.read_values
    monkeypatch.setattr(id_maps, "read_values", lambda path: read.append(path) or original(path))
    dataset.load_mask(0)
    dataset.load_mask(0)
    assert len(read) == 1


def test_threads(tmp_path):
    scene = {str(i): (20, 30, [(np.eye(20, 30, i).astype(bool), "cat")]) for i in range(12)}
    write_instance_ids(tmp_path, scene)
    dataset, wrong = read_instance_ids(tmp_path), []

    def work(seed):
        for image_id in np.random.default_rng(seed).permutation(12):
            masks, _ = dataset.load_mask(image_id)
            if (masks[:, :, 0] != scene[dataset.image_info[image_id]["id"]][2][0][0]).any():
                wrong.append(image_id)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_cityscapes_numbers(tmp_path):
    values = np.zeros((20, 30), np.uint16)
    values[2:5, 2:9], values[6:9, 2:9], values[10:12], values[15:18, :4] = 24000, 24001, 24, 7
    values[15:18, 10:20] = 26003
    write_png(tmp_path / "masks" / "a.png", values)
    write_image(tmp_path / "images" / "a.png", 20, 30)
    dataset = read_instance_ids(tmp_path, divisor=1000, labels={24: "person", 26: "car"})
    assert dataset.class_names == ["BG", "car", "person"]
    masks, class_ids = dataset.load_mask(0)
    assert class_ids.tolist() == [-2, 2, 2, 1]  # 24 is a group of people
    assert [(masks[:, :, i] == (values == v)).all() for i, v in enumerate([24, 24000, 24001, 26003])] == [True] * 4
    assert [(p.kind, p.record, p.treatment) for p in dataset.problems] == [
        (STUFF, "number 7", "background"),
        (STUFF, "number 24", "a crowd"),
    ]
    assert read_instance_ids(tmp_path, divisor=1000).class_names == ["BG", "24", "26"]
    with pytest.raises(AnnotationError, match=r"image 'a', instance 26003, field 'class': class 'car' is not am"):
        read_instance_ids(tmp_path, divisor=1000, labels={24: "person", 26: "car"}, class_names=["person"])
    with pytest.raises(ValueError, match="divisor is 1; expected an integer of at least 2, such as 1000"):
        read_instance_ids(tmp_path, divisor=1)
    with pytest.raises(TypeError, match="labels must be a dict of names by number, or a list .*; got 'person'"):
        read_instance_ids(tmp_path, divisor=1000, labels="person")
    with pytest.raises(ValueError, match="divisor and classes both define the class"):
        read_instance_ids(tmp_path, divisor=1000, classes="classes.json")


@pytest.mark.parametrize(
    ("break_it", "message", "kind"),
    [
        (
            lambda f: write_png(f / "masks/a.png", np.ones((30, 20), np.uint8)),
            r"masks/a.png, image 'a', field 'height/width': it is 30 x 20, its image '.*a.png' is 20 x 30",
            problems.SIZE,
        ),
        (
            lambda f: (f / "masks/a.png").write_bytes((f / "masks/a.png").read_bytes()[:60]),
            r"masks/a.png, image 'a', field 'header': not an image, or damaged",
            problems.UNREADABLE,
        ),
        (
            lambda f: (f / "masks/a.png").write_bytes(b"no"),
            r"image 'a', field 'header': not an image",
            problems.UNREADABLE,
        ),
        (
            lambda f: (f / "masks/a.png").unlink(),
            r"images, a.png, field 'name': no file of this name in '.*m",
            problems.MISSING,
        ),
        (
            lambda f: (f / "images/a.png").unlink(),
            r"masks, a.png, field 'name': no file of this name in '.*im",
            problems.MISSING,
        ),
        (
            lambda f: (f / "images/a.png").write_bytes(b"no"),
            r", image 'a': '.*a.png' is not an image",
            problems.UNREADABLE,
        ),
        (
            lambda f: (f / "masks/a.png").rename(f / "masks/a.jpg"),
            r"masks, a.jpg, field 'name': expected an image file",
            problems.BROKEN,
        ),
    ],
    ids=["size", "cut off", "damaged", "no picture", "no image", "broken image", "jpeg"],
)
def test_broken_pictures(tmp_path, break_it, message, kind):
    write_instance_ids(tmp_path, two_images(), classes=None)
    break_it(tmp_path)
    with pytest.raises(AnnotationError, match=message):
        read_instance_ids(tmp_path)
    with pytest.warns(UserWarning, match="left out"):
        dataset = read_instance_ids(tmp_path, strict=False)
    assert kind in dataset.problems.counts() and [info["id"] for info in dataset.image_info] == ["b"]


def test_a_photograph_is_no_picture_of_instances(tmp_path):
    write_image(tmp_path / "images" / "a.png", 200, 200)
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3)).astype(np.uint8)
    write_png(tmp_path / "masks" / "a.png", noise)
    with pytest.raises(
        AnnotationError, match=r"field 'pixels': it has 3\d{4} distinct values, too many .*natural image"
    ):
        read_instance_ids(tmp_path)


@pytest.mark.parametrize(
    ("content", "message", "kind"),
    [
        (
            {"a": {"1": "dog", "2": "cat"}, "b": {}},
            r"classes.json, image 'a', field '3': pixels have this id, but the file gives it no class",
            problems.BROKEN,
        ),
        (
            {"a": {"1": "dog", "2": "cat", "3": 7}},
            r"image 'a', field '3': expected a class name, got 7",
            problems.BROKEN,
        ),
        (
            {"a": {"1": "dog", "2": "cat", "3": "dog", "x": "dog"}},
            r"image 'a', field 'x': expected an instance id",
            problems.BROKEN,
        ),
        ({"a": ["dog", "cat", "dog"]}, r"image 'a': expected {number: class}, got \['dog'", problems.BROKEN),
        (
            {"a": {"1": "dog", "2": "cat", "3": "dog"}, "c": {"1": "dog"}},
            r"image 'c', field 'image': no image of this name",
            problems.MISSING,
        ),
        (
            {"a": {"1": "dog", "2": "cat", "3": "dog"}, "a.png": {"1": "cat"}},
            r"image 'a.png', field '1': it has the class 'dog' already, and 'cat' here",
            problems.CLASH,
        ),
    ],
    ids=["no class", "not a name", "not a number", "a list", "no image", "two classes"],
)
def test_broken_classes(tmp_path, content, message, kind):
    write_instance_ids(tmp_path, two_images())
    (tmp_path / "classes.json").write_text(json.dumps(content))
    with pytest.raises(AnnotationError, match=message):
        read_instance_ids(tmp_path)
    with pytest.warns(UserWarning, match="left out"):
        dataset = read_instance_ids(tmp_path, strict=False)
    assert dataset.problems.counts()[kind] >= 1 and dataset.num_images == 2


def test_files_of_classes_that_cannot_be_read(tmp_path):
    write_instance_ids(tmp_path, two_images())
    path = tmp_path / "classes.json"
    whole = path.read_text()
    for text, message in (
        (whole[:20], r"classes.json, line 1: invalid or truncated JSON"),
        ("[1]", r"classes.json: expected {image: {number: class}}, got \[1\]"),
    ):
        path.write_text(text)
        with pytest.raises(AnnotationError, match=message):
            read_instance_ids(tmp_path, strict=False)
    table = tmp_path / "other.csv"
    write_rows(table, [("image", "id", "name"), ("a", 1, "dog")])
    with pytest.raises(AnnotationError, match="other.csv, line 1, field 'class': missing column; expected "):
        read_instance_ids(tmp_path, classes=table)
    table.write_text("image,id,class\na,1,dog\na,2,cat\na,3,dog\na,2")
    with pytest.raises(AnnotationError, match="other.csv, line 5, field 'class': expected 3 fields, got 2; is the f"):
        read_instance_ids(tmp_path, classes=table)
    table.write_bytes(b"image,id,class\na,1,\xff\n")
    with pytest.raises(AnnotationError, match="other.csv, after line 1: not a valid UTF-8 CSV file"):
        read_instance_ids(tmp_path, classes=table)
    table.write_text('image,id,class\na,1,"dog\n')
    with pytest.raises(AnnotationError, match="other.csv, after line 1: not a valid UTF-8 CSV file: unexpected end"):
        read_instance_ids(tmp_path, classes=table)
    with pytest.raises(FileNotFoundError, match="no classes of instances at '.*gone.csv'"):
        read_instance_ids(tmp_path, classes=tmp_path / "gone.csv")


def test_a_stated_instance_without_pixels_is_counted(tmp_path):
    write_instance_ids(tmp_path, two_images())
    content = json.loads((tmp_path / "classes.json").read_text())
    (tmp_path / "classes.json").write_text(json.dumps(content | {"b": {"9": "dog"}}))
    with pytest.warns(UserWarning, match="left out 1 x empty mask"):
        dataset = read_instance_ids(tmp_path)
    assert [(p.record, p.field) for p in dataset.problems] == [("image 'b'", "9")]


def test_a_picture_that_changed_since(tmp_path):
    write_instance_ids(tmp_path, two_images())
    dataset = read_instance_ids(tmp_path)
    write_png(tmp_path / "masks" / "a.png", np.ones((3, 3), np.uint8))
    with pytest.raises(AnnotationError, match=r"image 'a', instance 1, field 'pixels': the mask '.*a.png' is 3 x 3"):
        dataset.load_mask(0)
    (tmp_path / "masks" / "a.png").unlink()
    with pytest.raises(AnnotationError, match="no mask file at"):
        dataset.load_mask(0)


def test_folders_without_the_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match="folder '.*gone' does not exist; check the path"):
        read_instance_ids(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match="no instance maps in .* expected images/ next to one of masks/,"):
        read_instance_ids(tmp_path)
    write_instance_ids(tmp_path, two_images(), "gt")
    assert_same(read_instance_ids(tmp_path, folder="gt"), two_images())
    for name in ("masks", "labels"):
        write_instance_ids(tmp_path, two_images(), name)
    with pytest.raises(ValueError, match="several folders may hold instance maps: .*; choose one with fold"):
        read_instance_ids(tmp_path)

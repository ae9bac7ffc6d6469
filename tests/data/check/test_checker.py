import json
import os
import tracemalloc
from functools import partial

import numpy as np
import pytest
from PIL import Image

from mrcnn.data.annotations import problems
from mrcnn.data.annotations.annotated import AnnotatedDataset, Instance
from mrcnn.data.annotations.outlines import Ellipse, MaskFile, Polygons, Rectangle
from mrcnn.data.annotations.problems import LEFT_OUT
from mrcnn.data.check import check, report
from mrcnn.data.check.report import RAISES
from mrcnn.data.formats import load_dataset
from mrcnn.data.sample import read_sample
from tests.data import damaged
from tests.data.damaged import DAMAGE, PIXELS, bare, read, unlinked


@pytest.fixture
def write(tmp_path):
    """Writes the scene after a change, with its images; returns the path of the JSON file."""
    return partial(damaged.write, tmp_path)


def assert_found(path, kind, treatment, record, message, instances, **options):
    """Checks that the file has the expected finding of this kind, and that the counts add up."""
    found = check(read(path), **options)
    (problem,) = (p for p in found.findings if p.kind == kind)
    assert record in problem.record and message in problem.message and problem.treatment == treatment
    assert problem.file == str(path)
    counts = [found.records[what]["instances"] for what in ("used", RAISES, LEFT_OUT)]
    assert counts == list(instances)
    assert sum(counts) == len(json.loads(path.read_text())["annotations"])
    assert (found.records["used"], found.records[RAISES]) == as_training_does(read(path))
    assert bool(found.broken) == (treatment in (LEFT_OUT, RAISES))
    text = str(found)
    assert f"{'!' if found.broken else '-'} 1 x {kind}: {treatment}" in text and message in text
    assert f"What to do: {report.WAYS_OUT[kind]}." in text
    return found


def as_training_does(dataset):
    """The images and instances that training uses, and those of images that stop it."""
    counts = {what: {"images": 0, "instances": 0, "others": 0} for what in ("used", "raises")}
    for image_id in dataset.image_ids:
        try:
            what, instances = "used", len(read_sample(dataset, image_id, dataset.num_classes).class_ids)
        except (ValueError, OSError):
            what, instances = "raises", len(dataset.image_info[image_id]["instances"])
        counts[what]["images"] += 1
        counts[what]["instances"] += instances
    return counts["used"], counts["raises"]


def test_a_sound_dataset(write):
    for images in (False, True):
        found = check(read(write()), images=images)
        assert not found.findings and not found.broken
        assert found.records["used"] == {"images": 3, "instances": 5, "others": 0}
        assert "Nothing found." in str(found)
        assert ("were not checked" in str(found)) != images
        assert found.statistics.instances == 5 and found.statistics.sizes() == [(60, 80, 3)]


@pytest.mark.parametrize("name", DAMAGE)
def test_each_damage_is_found_and_every_record_counted(write, name):
    change, *expected = DAMAGE[name]
    assert_found(write(change), *expected)


@pytest.mark.parametrize("name", PIXELS)
def test_damage_that_shows_in_pixels_only(write, name):
    change, *expected = PIXELS[name]
    assert_found(write(change), *expected, images=True)


def test_an_image_that_is_missing_when_the_file_is_read(write):
    found = check(read(write(unlinked)))
    assert found.counts() == {problems.MISSING: 1} and "3.png" in found.broken[0].message
    assert found.records["used"] == {"images": 2, "instances": 3, "others": 0}
    assert found.records[LEFT_OUT]["images"] == 1
    if not hasattr(found.broken[0], "instances"):
        pytest.skip("problems do not say how many instances go with an image")
    assert found.records[LEFT_OUT]["instances"] == 2


def test_a_file_that_goes_missing_after_reading(write):
    path = write()
    dataset = read(path)
    os.remove(path.parent / "3.png")
    for images in (False, True):
        found = check(dataset, images=images)
        assert found.counts() == {problems.MISSING: 1} and found.broken[0].treatment == RAISES
        assert found.records[RAISES] == {"images": 1, "instances": 2, "others": 0}


def test_what_loading_masks_has_found_before_is_not_counted_again(write):
    change, *expected = DAMAGE["no pixel"]
    path = write(change)
    dataset = read(path)
    for i in dataset.image_ids:
        dataset.load_mask(i)
    for _ in range(2):
        found = check(dataset)
        assert found.counts() == {problems.EMPTY: 1} and found.records[LEFT_OUT]["instances"] == 1


def test_the_first_images_only(write):
    found = check(read(write(bare)), limit=2)
    assert not found.findings and found.statistics.images == 2 and "the first 2 of 3 images" in str(found)


def test_outlines_of_other_kinds(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(path)
    mask = np.zeros((40, 60), np.uint8)
    mask[5:15, 5:15] = 7
    Image.fromarray(mask).save(tmp_path / "mask.png")
    dataset = AnnotatedDataset("notes", strict=False)
    dataset.add_class("made", 1, "cat")
    dataset.add_annotated(
        "made",
        "a",
        path,
        [
            Instance(1, MaskFile(str(tmp_path / "mask.png"), 7), record="mask 7"),
            Instance(1, MaskFile(str(tmp_path / "mask.png"), 8), record="mask 8"),
            Instance(1, MaskFile(str(tmp_path / "gone.png")), record="mask 9"),
            Instance(1, Ellipse(20, 50, 5, 15), record="region 3"),
            Instance(1, Rectangle(20, 4.9, 30, 5.6), record="region 4"),
            Instance(1, Rectangle(5, 5, 15, 15), record="region 5"),
        ],
    )
    dataset.prepare()
    found = check(dataset)
    assert sorted((p.kind, p.record.split(" (")[0]) for p in found.findings) == sorted(
        [
            (problems.EMPTY, "mask 8"),
            (problems.BROKEN, "mask 9"),
            (problems.PARTLY_OUTSIDE, "region 3"),
            (problems.SMALL, "region 4"),
            (problems.DUPLICATE, "region 5"),
        ]
    )
    assert [found.records[what]["instances"] for what in ("used", RAISES, LEFT_OUT)] == [4, 0, 2]


def test_memory_does_not_grow_with_the_masks(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((1000, 1000, 3), np.uint8)).save(path)
    dataset = AnnotatedDataset("notes")
    dataset.add_class("made", 1, "cat")
    corners = [(y, x) for y in range(0, 1000, 100) for x in range(0, 1000, 50)]
    dataset.add_annotated("made", "a", path, [Instance(1, Rectangle(y, x, y + 90, x + 40)) for y, x in corners])
    dataset.prepare()
    check(dataset)  # imports what it needs
    tracemalloc.start()
    found = check(dataset)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.statistics.instances == 200 and peak < 10 * 2**20  # whole masks would take 200 MB


class Unfillable(Rectangle):
    def fill(self, height, width):
        raise ValueError("the file is damaged")


def test_a_strict_dataset_would_raise(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(path)
    dataset = AnnotatedDataset("notes")
    dataset.add_class("made", 1, "cat")
    dataset.add_annotated(
        "made",
        "a",
        path,
        [
            Instance(1, Unfillable(0, 0, 5, 5), record="region 0", field="mask"),
            Instance(1, Rectangle(5, 5, 15, 15), record="region 1"),
        ],
    )
    dataset.prepare()
    (problem,) = check(dataset).findings
    assert (problem.kind, problem.treatment) == (problems.BROKEN, RAISES)
    assert (problem.record, problem.field, problem.message) == ("region 0 (a.png)", "mask", "the file is damaged")
    assert check(dataset).records[RAISES] == {"images": 1, "instances": 2, "others": 0}


def test_any_dataset(squares):
    dataset = squares([2, 0, 1], classes=("square", "circle"))
    found = check(dataset, images=True)
    assert found.name == "Squares" and found.statistics.instances == 3
    assert found.statistics.sizes() == [(40, 60, 3)]
    assert found.counts() == {problems.UNANNOTATED: 1, report.UNUSED: 1}
    assert found.findings[0].record == "image 1 (made 'made1', made/1.png)"
    assert check(dataset).statistics.sizes() == [(40, 60, 2)]  # from the masks; unknown for the image without masks


@pytest.mark.parametrize(
    "name, wrong, message",
    [
        ("load_mask", lambda i: (np.ones((9, 9, 1), bool), np.ones(1)), "(9, 9, 1) for an image of 40 x 60"),
        ("load_mask", lambda i: (np.ones((40, 60, 1), bool), np.array([7])), "class ids [7] are out of range"),
        ("load_mask", lambda i: 1 / 0, "division by zero"),
        ("load_mask", lambda i: None, "NoneType"),
        ("load_boxes", lambda i: np.zeros((5, 4)), "(1,4)"),
        ("load_image", lambda i: None, "an image"),
    ],
)
def test_a_users_own_code_that_fails_is_reported(squares, monkeypatch, name, wrong, message):
    dataset = squares([1, 1])
    monkeypatch.setattr(type(dataset), name, lambda self, image_id: wrong(image_id))
    found = check(dataset, images=True)
    raising = [p for p in found.findings if p.treatment == RAISES]
    assert len(raising) == 2 and all(message in p.message for p in raising), raising
    assert found.records[RAISES]["images"] == 2 and found.broken == raising
    monkeypatch.undo()


def test_boxes_and_empty_masks_of_any_dataset(squares, monkeypatch):
    dataset = squares([3])
    masks = np.zeros((40, 60, 4), bool)
    masks[5:20, 5:20, :2] = masks[5:20, 30:45, 3] = True
    monkeypatch.setattr(type(dataset), "load_mask", lambda self, i: (masks, np.array([1, 1, 1, -1])))
    boxes = np.array([[5, 5, 20, 20], [5, 5, 20, 40], [0, 0, 9, 9], [5, 30, 20, 45]])
    monkeypatch.setattr(type(dataset), "load_boxes", lambda self, i: boxes)
    found = check(dataset)
    assert found.counts() == {problems.EMPTY: 1, problems.DUPLICATE: 1, report.BOX: 1}
    assert [found.records[what]["instances"] for what in ("used", RAISES, LEFT_OUT)] == [3, 0, 1]
    assert found.statistics.instances == 2 and found.statistics.crowds == 1
    monkeypatch.undo()


def test_what_an_outline_goes_around_twice_is_a_hole():
    turns = np.arange(5) * 4 * np.pi / 5
    star = Polygons((np.stack([20 + 18 * np.sin(turns), 20 - 18 * np.cos(turns)], axis=1),)).fill(40, 40)
    assert star[5, 20] and not star[20, 20]


def test_a_dataset_that_is_not_prepared(squares):
    dataset = squares([1])
    dataset.add_image("made", "b", "b.png")
    with pytest.raises(ValueError, match="the Squares of 2 images is not prepared; call its prepare"):
        check(dataset)
    with pytest.raises(ValueError, match="the AnnotatedDataset of 0 images is not prepared"):
        check(AnnotatedDataset())


def test_a_limit_of_no_image(squares):
    with pytest.raises(ValueError, match="limit is 0; expected at least 1 image"):
        check(squares([1]), limit=0)


def via(folder):
    """Six regions: two are valid; the others are two points, outside, without a shape, without pixels."""
    shapes = [
        {"name": "rect", "x": 5, "y": 5, "width": 9, "height": 9},
        {"name": "circle", "cx": 30, "cy": 30, "r": 6},
        {"name": "polygon", "all_points_x": [1, 9], "all_points_y": [1, 9]},
        {"name": "rect", "x": 90, "y": 5, "width": 9, "height": 9},
        {"name": "point", "cx": 3, "cy": 3},
        {"name": "circle", "cx": 30, "cy": 30, "r": 0.1},
    ]
    Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(folder / "a.png")
    regions = [{"shape_attributes": shape, "region_attributes": {}} for shape in shapes]
    entry = {"filename": "a.png", "size": (folder / "a.png").stat().st_size, "regions": regions}
    (folder / "via_region_data.json").write_text(json.dumps({"a": entry}))
    return 2, 4


def csv(folder):
    """Four rows: two are valid, one leaves the image, one is not RLE text."""
    Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(folder / "a.png")
    rows = ["a.png,1 9,60,80,0", "a.png,61 9 121 9,60,80,1", "a.png,4790 99,60,80,0", "a.png,x,60,80,0"]
    (folder / "train.csv").write_text("\n".join(["ImageId,EncodedPixels,Height,Width,ClassId", *rows]) + "\n")
    return 2, 2


def csv_of_images(folder):
    """Images skipped with all their rows, and one row skipped by itself; see `GONE`."""
    for name in ("a", "b", "c", "d"):
        Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(folder / f"{name}.png")
    (folder / "d.png").write_bytes(b"no picture")
    rows = [
        "a.png,1 9,60,80,0",
        "a.png,1 9,80,60,0",
        "a.png,61 9,60,80,1",  # one row of a different size
        "b.png,1 9,80,60,0",
        "b.png,1 9,80,60,0",
        "b.png,1 9,80,61,0",  # all rows
        "c.png,1 9,x,80,0",
        "c.png,,x,80,",
        "d.png,1 9,60,80,0",
        "e.png,1 9,60,80,0",
        "e.png,1 9,60,80,0",
    ]
    (folder / "train.csv").write_text("\n".join(["ImageId,EncodedPixels,Height,Width,ClassId", *rows]) + "\n")
    return (2, 2), (3, 8, 1)  # used: a with two rows, c without


def csv_without_sizes(folder):
    """A missing image with two rows, and a file that is not an image with one row."""
    Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(folder / "a.png")
    (folder / "b.png").write_bytes(b"no picture")
    rows = ["a.png,1 9", "gone.png,1 9", "gone.png,10 9", "b.png,1 9"]
    (folder / "train.csv").write_text("\n".join(["ImageId,EncodedPixels", *rows]) + "\n")
    return (1, 1), (2, 3, 0)


def yolo(folder):
    """Labels of three, two and one line, for images that are unreadable, missing and valid; one text has no image."""
    lines = ["0 0.1 0.1 0.5 0.1 0.5 0.5", "0 0.1 0.5 0.5 0.6 0.5 0.9", "0 0.6 0.1 0.9 0.1 0.9 0.5"]
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for name, count in (("a", 1), ("b", 3), ("c", 2), ("d", 2)):
        Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(folder / "images" / f"{name}.png")
        (folder / "labels" / f"{name}.txt").write_text("\n".join(lines[:count]) + "\n")
    (folder / "images" / "b.png").write_bytes(b"no picture")
    (folder / "images" / "c.png").unlink()
    (folder / "labels" / "d.txt").write_bytes(b"0 \xff\n\n0 \xff\n")
    (folder / "data.yaml").write_text("names: [cat]\n")
    return (2, 1), (2, 7, 0)  # d is used as an image without instances


def ids(folder):
    """Maps with two ids each: valid, of another size, without an image, of an invalid image; e has no map."""
    values = np.zeros((60, 80), np.uint8)
    values[:9, :9], values[20:29, :9] = 1, 2
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for name in ("a", "b", "c", "d", "e"):
        Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(folder / "images" / f"{name}.png")
        Image.fromarray(values[:40] if name == "b" else values).save(folder / "masks" / f"{name}.png")
    (folder / "images" / "c.png").unlink()
    (folder / "images" / "d.png").write_bytes(b"no picture")
    (folder / "masks" / "e.png").unlink()
    both = {"1": "cat", "2": "cat"}
    classes = {
        "a": {"1": "cat", "2": 7, "9": "cat"},
        "b": both,
        "c": both | {"3": "cat"},
        "d": both,
        "e": both,
        "f": both,
        "g": [],
    }
    (folder / "classes.json").write_text(json.dumps(classes))
    # left out: of a 2 and 9; b, c with 3, d, e, f with two numbers each. others: 7 is no name, [] no numbers
    return (1, 1), (5, 2 + 2 + 3 + 2 + 2 + 2, 2)


def mask_folders(folder):
    """Five images: valid, without a file, with two files, without masks, unreadable; and files that are not folders."""
    for image, pictures, count in (("a", "1", 2), ("b", "", 2), ("c", "12", 1), ("label d", "1", None), ("e", "1", 3)):
        (folder / image / "images").mkdir(parents=True)
        for name in pictures:
            Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(folder / image / "images" / f"{name}.png")
        if count is not None:
            (folder / image / "masks").mkdir()
        for number in range(count or 0):
            Image.fromarray(np.full((60, 80), 255, np.uint8)).save(folder / image / "masks" / f"x, {number}.png")
    (folder / "e" / "images" / "1.png").write_bytes(b"no picture")
    (folder / "a" / "masks" / "line 1.txt").write_text("notes")
    Image.fromarray(np.zeros((60, 80), np.uint8)).save(folder / "a" / "masks" / "2.jpg")
    Image.fromarray(np.zeros((9, 80), np.uint8)).save(folder / "a" / "masks" / "x, 3.png")
    (folder / "README.txt").write_text("notes")
    Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(folder / "f.png")
    # b, c (two pictures), label d, e and f; of a the jpeg and the mask of another size; one text is no record of these
    return (1, 2), (6, 2 + 1 + 0 + 3 + 2, 1)


def mask_folders_beside(folder):
    """Images without a mask folder, and a folder and a file without an image."""
    for name in ("a", "b"):
        (folder / "images").mkdir(exist_ok=True)
        Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(folder / "images" / f"{name}.png")
    for name in ("a", "mask c"):
        (folder / "masks" / name).mkdir(parents=True)
        for number in range(2):
            Image.fromarray(np.full((60, 80), 255, np.uint8)).save(folder / "masks" / name / f"{number}.png")
    Image.fromarray(np.full((60, 80), 255, np.uint8)).save(folder / "masks" / "flat.jpg")
    (folder / "masks" / "instance.txt").write_text("notes")
    return (1, 2), (2, 3, 1)


@pytest.mark.parametrize("make", [csv_of_images, csv_without_sizes, yolo, ids, mask_folders, mask_folders_beside])
@pytest.mark.filterwarnings("ignore:.*left out")
def test_what_goes_with_an_image_is_counted(tmp_path, make):
    used, lost = make(tmp_path)
    found = check(load_dataset(tmp_path, strict=False))
    assert found.records["used"] == dict(zip(("images", "instances", "others"), (*used, 0), strict=True))
    assert found.records[LEFT_OUT] == dict(zip(("images", "instances", "others"), lost, strict=True)), found.findings
    assert found.records[RAISES] == {"images": 0, "instances": 0, "others": 0}


def test_a_number_in_classes_json_without_pixels_does_not_lose_the_image(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.ones((60, 80), np.uint8)).save(tmp_path / name / "a.png")
    (tmp_path / "classes.json").write_text(json.dumps({"a": {"1": "cat", "5": "cat"}}))
    with pytest.warns(UserWarning, match="left out 1 x empty mask"):
        found = check(load_dataset(tmp_path))
    assert found.records["used"] == {"images": 1, "instances": 1, "others": 0}
    assert found.records[LEFT_OUT] == {"images": 0, "instances": 1, "others": 0}


@pytest.mark.parametrize("record", ["line 5", "image 'a'", "annotations[3]", "categories[2]", ""])
@pytest.mark.parametrize("images, instances, others", [(1, 3, 0), (0, 1, 0), (0, 0, 1)])
def test_what_is_lost_with_a_record_is_what_its_reader_says_whatever_its_name(record, images, instances, others):
    dataset = AnnotatedDataset("notes", strict=False)
    dataset.prepare()
    dataset.problems.broken("notes", record, "field", "it is broken", images=images, instances=instances)
    assert check(dataset).records[LEFT_OUT] == {"images": images, "instances": instances, "others": others}


def masks(folder):
    """Four masks: two are valid, one is empty, one has another size."""
    for name in ("images", "masks"):
        (folder / "a" / name).mkdir(parents=True)
    Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(folder / "a" / "images" / "a.png")
    for number, (height, width, size) in enumerate([(60, 80, 5), (60, 80, 9), (60, 80, 0), (40, 80, 9)]):
        mask = np.zeros((height, width), np.uint8)
        mask[:size, :size] = 255
        Image.fromarray(mask).save(folder / "a" / "masks" / f"{number}.png")
    return 2, 2


@pytest.mark.parametrize("make", [via, csv, masks])
@pytest.mark.filterwarnings("ignore:.*left out")
def test_the_records_of_other_formats_are_counted_too(tmp_path, make):
    used, lost = make(tmp_path)
    found = check(load_dataset(tmp_path, strict=False))
    assert found.records["used"] == {"images": 1, "instances": used, "others": 0}
    assert found.records[LEFT_OUT] == {"images": 0, "instances": lost, "others": 0}, found.findings
    assert all("a.png" in p.record or "line" in p.record or "masks" in p.record for p in found.broken)


def rotated(orientation, turn_sizes):
    """Gives the images an orientation tag, and their records the sizes of either the upright or the stored images."""

    def change(content, folder):
        for image in content["images"]:
            path = folder / image["file_name"]
            tags = Image.Exif()
            tags[274] = orientation
            with Image.open(path) as stored:
                stored.load()
            stored.save(path, exif=tags)
            if turn_sizes:
                image["height"], image["width"] = image["width"], image["height"]
        content["annotations"].clear()

    return change


@pytest.mark.parametrize("images", [False, True])
def test_orientation_tags_that_sizes_do_not_explain_are_noted_once(write, images):
    dataset = read(write(rotated(3, turn_sizes=False)))
    found = check(dataset, images=images)
    noted = [problem for problem in found.findings if problem.kind == problems.TAGGED]
    assert len(noted) == len(dataset.image_ids) and "orientation tag 3" in noted[0].message
    assert noted[0].treatment == "rotated upright; upright=False reads it as stored" and not found.broken
    assert check(dataset, images=images).counts()[problems.TAGGED] == len(noted)


@pytest.mark.parametrize("images", [False, True])
@pytest.mark.parametrize("turn_sizes", [False, True])
def test_orientation_tags_that_sizes_explain_are_followed(write, images, turn_sizes):
    dataset = read(write(rotated(6, turn_sizes)))
    found = check(dataset, images=images)
    assert not found.broken and problems.TAGGED not in found.counts()
    info = dataset.image_info[0]
    assert dataset.load_image(0).shape[:2] == (info["height"], info["width"])

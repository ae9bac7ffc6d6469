import json
import os
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mrcnn.config import Config
from mrcnn.data import check as command
from mrcnn.data import problems, report
from mrcnn.data.annotated import AnnotatedDataset, Instance
from mrcnn.data.check import check
from mrcnn.data.coco import load_coco
from mrcnn.data.outlines import Ellipse, MaskFile, Polygons, Rectangle
from mrcnn.data.problems import LEFT_OUT
from mrcnn.data.report import AS_IS, RAISES
from mrcnn.data.sample import load_sample

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def square(number, image, category, x, y, side=20, **changes):
    """An annotation of a square, as COCO writes it."""
    return {"id": number, "image_id": image, "category_id": category, "iscrowd": 0, "area": side**2,
            "bbox": [x, y, side, side],
            "segmentation": [[x, y, x + side, y, x + side, y + side, x, y + side]], **changes}


def scene():
    """Three images of 60 x 80 pixels (height x width), five annotations of two classes."""
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 60, "width": 80} for i in (1, 2, 3)],
        "categories": [{"id": 5, "name": "cat"}, {"id": 9, "name": "dog"}],
        "annotations": [square(11, 1, 5, 5, 5), square(12, 1, 9, 40, 10), square(13, 2, 5, 20, 20),
                        square(14, 3, 9, 0, 0), square(15, 3, 5, 50, 30)]}


@pytest.fixture
def write(tmp_path):
    """Writes the scene, changed, with its images; returns the path of the json."""

    def _write(change=None):
        for number in (1, 2, 3):
            Image.fromarray(np.full((60, 80, 3), 50 * number, np.uint8)).save(tmp_path / f"{number}.png")
        content = scene()
        if change:
            change(content, tmp_path)
        (tmp_path / "instances.json").write_text(json.dumps(content))
        return tmp_path / "instances.json"

    return _write


def read(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return load_coco(path, strict=False)


def annotation(place, **changes):
    return lambda content, folder: content["annotations"][place].update(changes)


def image(place, **changes):
    return lambda content, folder: content["images"][place].update(changes)


def added(*annotations):
    return lambda content, folder: content["annotations"].extend(annotations)


def outline(*coordinates, **changes):
    return annotation(0, segmentation=[list(coordinates)], **changes)


def unlinked(content, folder):
    os.remove(folder / "3.png")


def cut_off(content, folder):
    data = (folder / "3.png").read_bytes()
    (folder / "3.png").write_bytes(data[:-40])


def no_image(content, folder):
    (folder / "3.png").write_text("no image")


def copied(content, folder):
    (folder / "3.png").write_bytes((folder / "2.png").read_bytes())


def as_large_as(height, width):
    def change(content, folder):
        Image.fromarray(np.full((height, width, 3), 9, np.uint8)).save(folder / "3.png")
    return change


def of_size(height, width, *annotations):
    """Image 3 in this size, with these annotations."""
    def change(content, folder):
        as_large_as(height, width)(content, folder)
        content["images"][2].update(height=height, width=width)
        content["annotations"][3:] = annotations
    return change


def bare(content, folder):
    del content["annotations"][3:]


# name: change, kind, treatment, part of the record, part of the message, instances (used, raising, left out)
DAMAGE = {
    "a broken record": (annotation(0, segmentation="x"), problems.BROKEN, LEFT_OUT, "annotation 11", "expected lists",
                        (4, 0, 1)),
    "of no image": (annotation(0, image_id=77), problems.BROKEN, LEFT_OUT, "annotation 11", "77", (4, 0, 1)),
    "of no class": (annotation(0, category_id=77), problems.BROKEN, LEFT_OUT, "annotation 11", "77", (4, 0, 1)),
    "a clash of ids": (annotation(1, id=11), problems.CLASH, LEFT_OUT, "annotations[1]", "the same id", (4, 0, 1)),
    "two points": (outline(5, 5, 9, 9), problems.DEGENERATE, LEFT_OUT, "annotation 11", "[2] points", (4, 0, 1)),
    "two points beside a polygon": (
        annotation(0, segmentation=[[5, 5, 9, 9], [5, 5, 25, 5, 25, 25, 5, 25]]), problems.DEGENERATE,
        "the other parts are used", "annotation 11", "[2] points", (5, 0, 0)),
    "outside": (outline(80, 5, 99, 5, 99, 25, bbox=[80, 5, 19, 20]), problems.OUTSIDE, LEFT_OUT, "annotation 11",
                "spans", (4, 0, 1)),
    "partly outside": (
        outline(70, 5, 90, 5, 90, 25, 70, 25, bbox=[70, 5, 20, 20]), problems.PARTLY_OUTSIDE, "cut off at the border",
        "annotation 11 (1.png)", "(5, 70, 25, 90) (y1, x1, y2, x2), up to 10.0 pixels beyond the image of (60, 80)",
        (5, 0, 0)),
    "no pixel": (outline(5.1, 5, 5.2, 5, 5.2, 25, bbox=[5.1, 5, 0.1, 20]), problems.EMPTY, LEFT_OUT, "annotation 11",
                 "no pixel", (4, 0, 1)),
    "a bow tie": (outline(5, 5, 25, 25, 25, 5, 5, 25), problems.SELF_CROSSING,
                  "used as is; what it goes around twice becomes a hole", "annotation 11 (1.png)",
                  "it crosses itself once at x 15.0, y 15.0", (5, 0, 0)),
    "a duplicate": (added(square(16, 1, 5, 5, 5)), problems.DUPLICATE, AS_IS, "annotation 16 (1.png)",
                    "the same mask as annotation 11 (1.png) (IoU 1.000)", (6, 0, 0)),
    "a near duplicate": (added(square(16, 1, 5, 5, 5, segmentation=[[5, 5, 25, 5, 25, 24, 5, 24]])),
                         problems.DUPLICATE, AS_IS, "annotation 16", "(IoU 0.950)", (6, 0, 0)),
    "two classes": (added(square(16, 1, 9, 5, 5)), report.SAME_MASK, AS_IS, "annotation 16",
                    "the same mask as annotation 11 (1.png) (IoU 1.000), dog and cat", (6, 0, 0)),
    "a box under a pixel": (annotation(0, bbox=[5, 5, 0.5, 20]), problems.SMALL, AS_IS, "annotation 11 (1.png)",
                            "its box spans (5, 5, 25, 5.5)", (5, 0, 0)),
    "a box of no width": (annotation(0, bbox=[5, 5, 0, 20]), problems.SMALL, LEFT_OUT, "annotation 11 (1.png)",
                          "its box spans (5, 5, 25, 5) (y1, x1, y2, x2), which has no area", (4, 0, 1)),
    "a box outside": (annotation(0, bbox=[90, 5, 20, 20]), problems.SMALL, LEFT_OUT, "annotation 11 (1.png)",
                      "no area in the image of (60, 80)", (4, 0, 1)),
    "another box": (annotation(0, bbox=[25, 25, 20, 20]), report.BOX,
                    "the box is learnt as it is, and of the mask what lies inside", "annotation 11 (1.png)",
                    "its box spans (25, 25, 45, 45) (y1, x1, y2, x2), its mask (5, 5, 25, 25); their IoU is 0.00",
                    (5, 0, 0)),
    "an image that changed": (as_large_as(50, 70), problems.SIZE, RAISES, "image 3 (3.png)", "3.png' is 50 x 70",
                              (3, 2, 0)),
    "not an image": (no_image, problems.UNREADABLE, RAISES, "image 3 (3.png)", "3.png' is not an image", (3, 2, 0)),
    "an image listed twice": (image(2, file_name="2.png"), report.LISTED_TWICE, "each record is used on its own",
                              "image 3 (2.png)", "2.png' is the file of image 2 (2.png), too", (5, 0, 0)),
    "nothing annotated": (bare, problems.UNANNOTATED, "skipped in training", "image 3 (3.png)", "nothing is annotated",
                          (3, 0, 0)),
    "crowds only": (of_size(60, 80, square(14, 3, 9, 0, 0, iscrowd=1)), problems.UNANNOTATED, "skipped in training",
                    "image 3 (3.png)", "crowds only", (4, 0, 0)),
    "a tiny image": (of_size(80, 30, square(14, 3, 9, 0, 0)), report.TINY, AS_IS, "image 3 (3.png)",
                     "it is 30 x 80 pixels (width x height)", (4, 0, 0)),
    "too many": (of_size(60, 80, *[square(100 + i, 3, 9, 7 * (i % 11), 5 * (i // 11), 4) for i in range(101)]),
                 report.CROWDED, "a random 100 of them are learnt each time", "image 3 (3.png)", "it has 101",
                 (104, 0, 0)),
    "an unused class": (lambda content, folder: content["categories"].append({"id": 3, "name": "owl"}), report.UNUSED,
                        "nothing to learn it from", "class 1", "no instance is a 'owl'", (5, 0, 0)),
}
PIXELS = {
    "cut off": (cut_off, problems.UNREADABLE, RAISES, "image 3 (3.png)", "truncated or damaged", (3, 2, 0)),
    "a copy": (copied, report.SAME_IMAGE, AS_IS, "image 3 (3.png)", "its pixels are those of image 2 (2.png)",
               (5, 0, 0)),
    "an image that changed": DAMAGE["an image that changed"],
}


def looked_at(path, kind, treatment, record, message, instances, **options):
    """Checks the file, and that the one finding of this kind is as expected and nothing is lost from the count."""
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
    """The images and instances that training takes, and those of images at which it stops."""
    counts = {what: {"images": 0, "instances": 0, "others": 0} for what in ("used", "raises")}
    for image_id in dataset.image_ids:
        try:
            what, instances = "used", len(load_sample(dataset, image_id, dataset.num_classes).class_ids)
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
        assert ("were not looked at" in str(found)) != images
        assert found.statistics.instances == 5 and found.statistics.sizes() == [(60, 80, 3)]


@pytest.mark.parametrize("name", DAMAGE)
def test_each_damage_is_found_and_every_record_counted(write, name):
    change, *expected = DAMAGE[name]
    looked_at(write(change), *expected)


@pytest.mark.parametrize("name", PIXELS)
def test_damage_that_shows_in_pixels_only(write, name):
    change, *expected = PIXELS[name]
    looked_at(write(change), *expected, images=True)


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


def test_examples_are_few_in_the_text_and_all_in_the_json(write, tmp_path):
    crossed = [square(20 + i, 2, 5, 2 * i, 5, segmentation=[[2 * i, 5, 2 * i + 9, 15, 2 * i + 9, 5, 2 * i, 15]],
                      bbox=[2 * i, 5, 9, 10]) for i in range(5)]
    found = check(read(write(added(*crossed))), examples=2)
    assert found.counts()[problems.SELF_CROSSING] == 5
    assert str(found).count("crosses itself") == 2 and "... and 3 more" in str(found)
    found.save(tmp_path / "out" / "report.json")
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    (group,) = (g for g in written["findings"] if g["kind"] == problems.SELF_CROSSING)
    assert len(group["records"]) == group["count"] == 5 and not group["broken"] and group["way_out"]
    assert group["records"][0]["record"] == "annotation 20 (2.png)" and group["records"][0]["field"] == "segmentation"
    assert written["records"]["used"]["instances"] == 10 and written["statistics"]["instances"] == 10
    assert os.listdir(tmp_path / "out") == ["report.json"]


def test_broken_findings_come_first(write):
    def change(content, folder):
        for make in ("nothing annotated", "a bow tie", "two classes", "too many"):
            DAMAGE[make][0](content, folder)
        content["annotations"][2]["segmentation"] = "x"

    text = str(check(read(write(change))))
    marks = [line[0] for line in text.splitlines() if line[:1] in ("!", "-")]
    assert marks[0] == "!" and set(marks[1:]) == {"-"}
    assert text.endswith("1 record had to be left out; findings in all: 4.")


def test_outlines_of_other_kinds(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(path)
    mask = np.zeros((40, 60), np.uint8)
    mask[5:15, 5:15] = 7
    Image.fromarray(mask).save(tmp_path / "mask.png")
    dataset = AnnotatedDataset("notes", strict=False)
    dataset.add_class("made", 1, "cat")
    dataset.add_annotated("made", "a", path, [
        Instance(1, MaskFile(str(tmp_path / "mask.png"), 7), record="mask 7"),
        Instance(1, MaskFile(str(tmp_path / "mask.png"), 8), record="mask 8"),
        Instance(1, MaskFile(str(tmp_path / "gone.png")), record="mask 9"),
        Instance(1, Ellipse(20, 50, 5, 15), record="region 3"),
        Instance(1, Rectangle(20, 4.9, 30, 5.6), record="region 4"),
        Instance(1, Rectangle(5, 5, 15, 15), record="region 5")])
    dataset.prepare()
    found = check(dataset)
    assert sorted((p.kind, p.record.split(" (")[0]) for p in found.findings) == sorted([
        (problems.EMPTY, "mask 8"), (problems.BROKEN, "mask 9"), (problems.PARTLY_OUTSIDE, "region 3"),
        (problems.SMALL, "region 4"), (problems.DUPLICATE, "region 5")])
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
    assert found.statistics.instances == 200 and peak < 10 * 2**20  # whole masks are 200 MB


class Unfillable(Rectangle):
    def fill(self, height, width):
        raise ValueError("the file is damaged")


def test_a_strict_dataset_would_raise(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(path)
    dataset = AnnotatedDataset("notes")
    dataset.add_class("made", 1, "cat")
    dataset.add_annotated("made", "a", path, [Instance(1, Unfillable(0, 0, 5, 5), record="region 0", field="mask"),
                                              Instance(1, Rectangle(5, 5, 15, 15), record="region 1")])
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
    assert check(dataset).statistics.sizes() == [(40, 60, 2)]  # by the masks; of the image without, it is unknown


@pytest.mark.parametrize("name, wrong, message", [
    ("load_mask", lambda i: (np.ones((9, 9, 1), bool), np.ones(1)), "(9, 9, 1) for an image of 40 x 60"),
    ("load_mask", lambda i: (np.ones((40, 60, 1), bool), np.array([7])), "class ids [7] are out of range"),
    ("load_mask", lambda i: 1 / 0, "division by zero"),
    ("load_mask", lambda i: None, "NoneType"),
    ("load_boxes", lambda i: np.zeros((5, 4)), "(1,4)"),
    ("load_image", lambda i: None, "an image"),
])
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


def test_the_settings_are_those_of_a_config(squares):
    made, config = check(squares([1])).statistics, Config()
    options = command._parse(["data"])
    for found in (made, options):
        assert (found.min_dim, found.max_dim) == (config.IMAGE_MIN_DIM, config.IMAGE_MAX_DIM)
        assert found.smallest_anchor == min(config.RPN_ANCHOR_SCALES)
        assert found.max_instances == config.MAX_GT_INSTANCES


def test_a_dataset_that_is_not_prepared(squares):
    dataset = squares([1])
    dataset.add_image("made", "b", "b.png")
    with pytest.raises(ValueError, match="the Squares of 2 images is not prepared; call its prepare"):
        check(dataset)


def test_every_kind_says_what_to_do():
    kinds = {value for name, value in vars(problems).items() if name.isupper() and name != "LEFT_OUT"}
    kinds |= {getattr(report, name) for name in ("BOX", "SAME_MASK", "CROWDED", "LISTED_TWICE", "SAME_IMAGE", "TINY",
                                                 "UNUSED")}
    assert kinds == set(report.WAYS_OUT)


def test_importing_needs_no_tensorflow():
    code = "import sys, mrcnn.data.check; print(*sorted({'tensorflow', 'keras', 'matplotlib'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).resolve().parents[2], capture_output=True,
                            text=True, check=True)
    assert result.stdout.strip() == ""


def run(path, *arguments, capsys):
    """Exit status, and what was printed."""
    status = command.main([str(path), *arguments])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_the_command_on_sound_data(write, capsys):
    path = write()
    for given, options in ((path, []), (path.parent, ["--format", "coco"])):
        status, out, _ = run(given, *options, "--images", capsys=capsys)
        assert status == 0 and out.startswith(f"{path}: checked in") and out.endswith("Nothing found.\n")


@pytest.mark.parametrize("change", [DAMAGE["no pixel"][0], DAMAGE["a clash of ids"][0], unlinked, as_large_as(50, 70)])
def test_the_status_is_1_when_something_is_broken(write, capsys, recwarn, change):
    status, out, _ = run(write(change), capsys=capsys)
    assert status == 1 and "\n! 1 x " in out and not recwarn.list  # the report says it all


def test_the_status_is_0_when_all_is_used(write, capsys):
    assert run(write(DAMAGE["a bow tie"][0]), capsys=capsys)[0] == 0


def test_the_status_is_2_when_nothing_can_be_read(write, tmp_path, capsys):
    path = write()
    path.write_text(path.read_text()[:200])
    for given, message in ((path, "damaged or cut off"), (tmp_path / "gone", "nothing is at")):
        status, out, err = run(given, "--format", "coco", capsys=capsys)
        assert (status, out) == (2, "") and err.startswith(f"{given} could not be read: ") and message in err
    status, _, err = run(write(), "--option", "image_folder=b", capsys=capsys)
    assert status == 2 and "image_folder" in err and "image_dir" in err


def test_the_commands_options(write, tmp_path, capsys):
    path = write(DAMAGE["two classes"][0])
    written = tmp_path / "report.json"
    (tmp_path / "photographs").mkdir()
    for number in (1, 2, 3):
        os.rename(tmp_path / f"{number}.png", tmp_path / "photographs" / f"{number}.png")
    status, out, _ = run(
        path, "--class-names", "dog", "--option", f"image_dir={tmp_path / 'photographs'}", "--json", str(written),
        "--limit", "1", "--min-dim", "60", "--max-dim", "80", "--smallest-anchor", "21", "--max-instances", "1",
        capsys=capsys)
    assert status == 0 and f"- 1 x {report.CROWDED}: a random 1 of them" in out and "resized to 60 (80 at most)" in out
    assert "below anchors   100.0 % are under 21 x 21" in out
    numbers = json.loads(written.read_text())
    assert numbers["checked_images"] == 1 and numbers["statistics"]["classes"][0]["instances"] == 2


def test_values_of_options_are_json_or_text():
    assert command._option("labels=[1, 2]") == ("labels", [1, 2]) and command._option("attribute=a=b") == (
        "attribute", "a=b")
    with pytest.raises(SystemExit):
        command._parse(["data", "--option", "image_dir"])


@pytest.mark.parametrize("name", ["coco_mini", "balloon", "nuclei_dsb2018", "fashion_ccp"])
def test_real_data_is_sound(name, capsys):
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"no data at {path}")
    given = [path, "--subset", "val2017"] if name == "coco_mini" else [path, "--subset", "val"]
    status, out, _ = run(*given, *(["--format", "coco"] if name == "fashion_ccp" else []), capsys=capsys)
    assert status == 0, out

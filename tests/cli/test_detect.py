"""`mrcnn detect`: what it writes, that it skips what is done, and goes on past what cannot be read."""

import contextlib
import csv
import errno
import json
import sqlite3
import sys

import cv2
import numpy as np
import pytest

from mrcnn.cli import detect
from mrcnn.data import rle
from mrcnn.data.formats import load_dataset
from mrcnn.inference.store import Record, ResultStore
from mrcnn.model import MaskRCNN
from tests.cli.conftest import Model
from tests.tiny import TinyConfig

WEIGHTS = ("--weights", "some.h5")


def table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_it_writes_pictures_json_areas_and_cut_outs(run, models, photos, tmp_path):
    found = tmp_path / "found"
    code, out, err = run("detect", photos, *WEIGHTS, "--output", found)
    assert code == 0 and out == "" and "18 objects in 6 images" in err
    pictures = sorted(path.relative_to(found / "pictures").as_posix() for path in (found / "pictures").rglob("*.*"))
    assert pictures == ["a.png", "b.jpg", "c.bmp.png", "sub/a.png", "sub/d.jpeg", "sub/deep/e.PNG"]
    drawn = cv2.imread(str(found / "pictures" / "a.png"))
    assert drawn.shape == (64, 64, 3) and (drawn != 40).any() and (drawn[45:48] == 40).all()
    rows = table(found / "areas.csv")
    assert [row["file"] for row in rows[::3]] == [
        "a.png",
        "b.jpg",
        "c.bmp",
        "sub/a.png",
        "sub/d.jpeg",
        "sub/deep/e.PNG",
    ]
    assert [row["class"] for row in rows[:3]] == ["cat", "dog", "Bär/../ü"]
    one = rows[0]
    assert (one["y1"], one["x1"], one["y2"], one["x2"]) == ("8.0", "8.0", "40.0", "40.0")
    content = json.loads((found / "annotations.json").read_text())
    assert [image["file_name"] for image in content["images"]] == [row["file"] for row in rows[::3]]
    first = content["annotations"][0]
    assert first["bbox"] == [8, 8, 32, 32] and first["area"] == int(one["area"]) == rle.area(first["segmentation"])
    assert float(one["share"]) == pytest.approx(first["area"] / 64**2, abs=1e-6)
    cut_outs = sorted(path.name for path in (found / "cutouts" / "a.png").iterdir())
    assert cut_outs == ["000_cat.png", "001_dog.png", "002_Bär_ü.png"]
    pixels = cv2.imread(str(found / "cutouts" / "a.png" / "000_cat.png"), cv2.IMREAD_UNCHANGED)
    assert pixels.shape == (32, 32, 4) and np.count_nonzero(pixels[..., 3]) == first["area"]
    assert not (found / "unreadable.txt").exists()


def test_the_json_is_one_that_the_package_reads(run, models, photos, tmp_path):
    run("detect", photos, *WEIGHTS, "--output", tmp_path / "found", "--write", "json")
    dataset = load_dataset(tmp_path / "found" / "annotations.json", image_dir=photos)
    masks, class_ids = dataset.load_mask(0)
    assert dataset.class_names[1:] == ["cat", "dog", "Bär/../ü"] and list(class_ids) == [1, 2, 3]
    assert masks.shape == (64, 64, 3) and masks.any(axis=(0, 1)).all()


def test_only_what_is_asked_for(run_json, models, photos, tmp_path):
    found = tmp_path / "found"
    code, values = run_json("detect", photos / "a.png", photos / "sub", *WEIGHTS, "--output", found, "--write", "csv")
    assert code == 0 and sorted(path.name for path in found.iterdir()) == ["areas.csv", "progress.sqlite"]
    assert values["images"] == 4 and values["instances"] == 12 and values["files"] == ["areas.csv"]
    assert [row["file"] for row in table(found / "areas.csv")[::3]] == [
        "a.png",
        "sub/a.png",
        "sub/d.jpeg",
        "sub/deep/e.PNG",
    ]


@pytest.mark.parametrize(
    "flags, asked", [((), {}), (("--tile", 512), {"tile": 512}), (("--augment",), {"augment": True})]
)
def test_tiles_and_augmentation_reach_the_model(run, models, photos, tmp_path, flags, asked):
    code, _, err = run("detect", photos, *WEIGHTS, "--output", tmp_path / "found", "--write", "csv", *flags)
    assert code == 0 and models[-1].asked == asked
    code, _, err = run("detect", photos, *WEIGHTS, "--output", tmp_path / "found", "--write", "csv", "--tile", 64)
    assert code == 1 and "--restart" in err  # results of two ways do not mix


def test_an_exported_file_cannot_be_augmented(run, photos, tmp_path):
    code, _, err = run("detect", photos, "--weights", "m.onnx", "--output", tmp_path / "found", "--augment")
    assert code == 1 and "--augment needs the parts of a model, but m.onnx is exported as a whole" in err


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--weights", "last"], "--ray needs an exported model, such as model.onnx (mrcnn export), not last"),
        (["--weights", "m.onnx", "--classes", "cat", "--restart"], "--ray does not take --classes, --restart"),
        (["--weights", "m.onnx", "--preset", "torchvision"], "--ray does not take --preset; remove it"),
        (["--weights", "m.onnx", "--config", "c.json", "--set", "A=1"], "--ray does not take --config, --set; remove"),
        (["more", "--weights", "m.onnx"], "--ray takes one folder or one .parquet file, got 2 paths"),
    ],
)
def test_what_ray_does_not_take(run, photos, tmp_path, flags, message):
    code, _, err = run("detect", photos, *flags, "--output", tmp_path / "found", "--ray", 2)
    assert code == 1 and message in err and not (tmp_path / "found").exists()


def test_a_missing_ray_names_the_command(run, photos, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, err = run("detect", photos, "--weights", "m.onnx", "--ray", 2)
    assert code == 1 and "ray is not installed; run: pip install 'mask-rcnn-keras[ray]'" in err


def test_ray_writes_tables(run_json, photos, tmp_path):
    pytest.importorskip("ray")
    parquet = pytest.importorskip("pyarrow.parquet")
    pytest.importorskip("tf2onnx")
    model = MaskRCNN("inference", TinyConfig(NUM_CLASSES=3)).export(tmp_path / "tiny.onnx")
    flags = ("--weights", model, "--output", tmp_path / "found", "--ray", 1, "--min-score", 0)
    code, values = run_json("detect", photos, *flags)
    rows = parquet.read_table(tmp_path / "found" / "part-00000000.parquet").to_pylist()
    assert len(rows) == values["images"] == len({row["path"] for row in rows}) and values["skipped"] == 0
    assert code == (3 if values["failed"] else 0)
    assert run_json("detect", photos, *flags)[1]["skipped"] == len(rows)


def test_classes_and_scores_are_filtered(run_json, models, photos, tmp_path):
    """The scores are 0.9, 0.8 and 0.7."""
    where = ("--output", tmp_path / "found", "--write", "csv")
    _, values = run_json("detect", photos, *WEIGHTS, *where, "--classes", "dog,Bär/../ü", "--min-score", "0.75")
    assert values["instances"] == 6
    assert {row["class"] for row in table(tmp_path / "found" / "areas.csv")} == {"dog"}
    assert models[-1].config.DETECTION_MIN_CONFIDENCE == 0.75
    code, values = run_json("detect", photos, *WEIGHTS, "--classes", "bird")
    assert code == 1 and values["error"] == "the model has no class bird; it has cat, dog, Bär/../ü"


def test_the_same_command_detects_only_in_what_is_new(run_json, models, photos, tmp_path):
    command = ("detect", photos, *WEIGHTS, "--output", tmp_path / "found")
    assert run_json(*command)[1]["images"] == 6
    first = (tmp_path / "found" / "annotations.json").read_text()
    assert run_json(*command)[1]["images"] == 6 and models[-1].network.asked == []
    assert (tmp_path / "found" / "annotations.json").read_text() == first
    cv2.imwrite(str(photos / "new.png"), np.zeros((64, 64, 3), np.uint8))
    assert run_json(*command)[1]["images"] == 7 and len(models[-1].network.asked) == 1


def test_an_image_that_changed_is_detected_again(run_json, models, photos, tmp_path):
    command = ("detect", photos, *WEIGHTS, "--output", tmp_path / "found")
    run_json(*command)
    cv2.imwrite(str(photos / "a.png"), np.zeros((32, 96, 3), np.uint8))
    assert run_json(*command)[1]["images"] == 6 and len(models[-1].network.asked) == 1
    content = json.loads((tmp_path / "found" / "annotations.json").read_text())
    sizes = {image["file_name"]: (image["height"], image["width"]) for image in content["images"]}
    assert sizes["a.png"] == (32, 96)


def test_an_image_given_twice_is_detected_once(run_json, models, photos, tmp_path):
    given = (photos / "a.png", photos, photos / "a.png")
    code, values = run_json("detect", *given, *WEIGHTS, "--output", tmp_path / "found")
    assert (code, values["images"], values["instances"]) == (0, 6, 18) and len(models[-1].network.asked) == 6


def test_a_stop_counts_what_this_run_has_done(run, models, photos, tmp_path, monkeypatch):
    """Not what an earlier one found in other images, and what is given twice once."""
    run("detect", photos / "sub", photos / "b.jpg", *WEIGHTS, "--output", tmp_path / "found")
    write = detect._write_picture

    def interrupting(output, name, *rest):
        if name == "c.bmp":
            raise KeyboardInterrupt
        write(output, name, *rest)

    monkeypatch.setattr(detect, "_write_picture", interrupting)
    given = [photos / name for name in ("b.jpg", "a.png", "c.bmp", "a.png")]
    code, _, err = run("detect", *given, *WEIGHTS, "--output", tmp_path / "found")
    assert code == 130 and "2 of 3 images are done and saved" in err


def test_only_the_images_of_this_command_are_written(run_json, models, photos, tmp_path):
    found = tmp_path / "found"
    for given, names in (("a.png", ["a.png"]), ("b.jpg", ["b.jpg"]), (".", None), ("a.png", ["a.png"])):
        code, values = run_json("detect", photos / given, *WEIGHTS, "--output", found)
        content = json.loads((found / "annotations.json").read_text())
        listed = [image["file_name"] for image in content["images"]]
        assert code == 0 and values["images"] == len(listed) == len(names or range(6))
        assert names is None or listed == names
        assert values["instances"] == len(content["annotations"]) == len(table(found / "areas.csv")) == 3 * len(listed)
    assert models[-1].network.asked == [], "its result was still there"


def test_an_image_that_is_gone_is_not_listed(run_json, models, photos, tmp_path):
    (photos / "bad.jpg").write_bytes(b"no image")
    command = ("detect", photos, *WEIGHTS, "--output", tmp_path / "found")
    assert run_json(*command)[0] == 3
    (photos / "bad.jpg").unlink()
    (photos / "b.jpg").unlink()
    code, values = run_json(*command)
    assert (code, values["images"], values["unreadable"]) == (0, 5, 0)
    assert not (tmp_path / "found" / "unreadable.txt").exists()
    assert "b.jpg" not in (tmp_path / "found" / "annotations.json").read_text()


def test_a_link_to_a_missing_image_is_listed(run, models, photos, tmp_path):
    (photos / "link.jpg").symlink_to(photos / "missing.jpg")
    code, _, err = run("detect", photos, *WEIGHTS, "--output", tmp_path / "found")
    assert code == 3 and "1 image could not be read:" in err and "link.jpg: " in err


def test_an_interrupted_run_is_continued(run, run_json, models, photos, tmp_path, monkeypatch):
    """Ctrl-C at the fourth image; the next run does the rest, and ends like one that was not interrupted."""
    command = ("detect", photos, *WEIGHTS, "--output", tmp_path / "found")
    called, write = [], detect._write_picture

    def interrupting(*arguments):
        called.append(arguments)
        if len(called) == 4:
            raise KeyboardInterrupt
        write(*arguments)

    monkeypatch.setattr(detect, "_write_picture", interrupting)
    code, _, err = run(*command)
    assert code == 130 and "3 of 6 images are done and saved; run the same command to continue" in err
    assert not (tmp_path / "found" / "annotations.json").exists()
    monkeypatch.setattr(detect, "_write_picture", write)
    assert run_json(*command)[0] == 0 and len(models[-1].network.asked) == 3
    run_json("detect", photos, *WEIGHTS, "--output", tmp_path / "other")
    for name in ("annotations.json", "areas.csv", "pictures/sub/a.png"):
        assert (tmp_path / "found" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_unreadable_images_are_listed_at_the_end(run, models, photos, tmp_path):
    (photos / "bad.jpg").write_bytes(b"no image")
    (photos / "sub" / "cut.png").write_bytes((photos / "a.png").read_bytes()[:50])
    command = ("detect", photos, *WEIGHTS, "--output", tmp_path / "found")
    code, _, err = run(*command)
    lines = (tmp_path / "found" / "unreadable.txt").read_text().splitlines()
    assert code == 3 and "2 images could not be read" in err and "18 objects in 6 images" in err
    assert [line.partition(":")[0] for line in lines] == ["bad.jpg", "sub/cut.png"]
    assert all(line in err for line in lines) and not any("images[" in line for line in lines)
    (photos / "bad.jpg").write_bytes((photos / "b.jpg").read_bytes())
    code, _, err = run(*command)
    assert code == 3 and "21 objects in 7 images" in err, "what failed is tried again"
    (photos / "sub" / "cut.png").unlink()
    assert run(*command, "--restart")[0] == 0
    assert not (tmp_path / "found" / "unreadable.txt").exists()


def test_results_of_other_weights_or_settings_are_not_mixed(run, models, photos, tmp_path):
    where = ("--output", tmp_path / "found")
    run("detect", photos, *WEIGHTS, *where)
    for other, name in (
        ((*WEIGHTS, "--min-score", "0.6"), "options and settings"),
        (("--weights", "other.h5"), "weights"),
        ((*WEIGHTS, "--set", "DETECTION_NMS_THRESHOLD=0.3"), "settings"),
        ((*WEIGHTS, "--write", "json"), "options"),
    ):
        code, _, err = run("detect", photos, *other, *where)
        assert code == 1 and f"made with other {name}. Use another --output, or --restart" in err
    assert run("detect", photos, *WEIGHTS, *where, "--batch", "3")[0] == 0, "the result is the same"
    code, _, err = run("detect", photos / "sub", *WEIGHTS, *where)
    assert code == 1 and "made with other images. Use another" in err, "its a.png is another one"
    assert run("detect", photos, "--weights", "other.h5", *where, "--restart")[0] == 0


def test_a_run_that_failed_at_once_does_not_block_the_next(run, models, photos, tmp_path, monkeypatch):
    """As with --tile and a model of keypoints."""
    command = ("detect", photos, *WEIGHTS, "--output", tmp_path / "found")

    def refusing(self, images, **options):
        raise ValueError("call detect without tile")

    with monkeypatch.context() as patch:
        patch.setattr(Model, "stream", refusing)
        code, _, err = run(*command, "--tile", 512)
        assert code == 1 and "call detect without tile" in err
    assert run(*command)[0] == 0


def test_a_restart_waits_for_a_running_process(run, models, photos, tmp_path):
    command = ("detect", photos, *WEIGHTS, "--output", tmp_path / "found", "--write", "csv")
    with ResultStore(tmp_path / "found" / detect.STATE, {}) as store:
        store.add("a.png", Record((64, 64), []))
        for flags in ((), ("--restart",)):
            code, _, err = run(*command, *flags)
            assert code == 1 and err.endswith("is in use by another process; wait for it, or stop it first\n")
    with ResultStore(tmp_path / "found" / detect.STATE, {}) as store:
        assert store.has("a.png")


def cut_outs(found, name="a.png"):
    return sorted(path.name for path in (found / "cutouts" / name).glob("*"))


def test_no_cut_outs_of_an_earlier_run_are_left(run, models, photos, tmp_path, monkeypatch):
    """The number and the class of an object in a changed image, or with other options, are others."""
    found = tmp_path / "found"
    command = ("detect", photos, *WEIGHTS, "--output", found)
    run(*command)
    assert cut_outs(found) == ["000_cat.png", "001_dog.png", "002_Bär_ü.png"]
    (found / "cutouts" / "a.png" / "mine.png").write_bytes(b"")
    run(*command, "--restart", "--min-score", 0.75)
    assert cut_outs(found) == ["000_cat.png", "001_dog.png", "mine.png"]
    run(*command, "--restart", "--classes", "dog")
    assert cut_outs(found) == ["000_dog.png", "mine.png"] and cut_outs(found, "b.jpg") == ["000_dog.png"]
    run(*command, "--restart", "--min-score", 0.99)
    assert cut_outs(found) == ["mine.png"] and not (found / "cutouts" / "b.jpg").exists()
    run(*command, "--restart")
    run(*command, "--restart", "--write", "json")
    assert cut_outs(found) == ["mine.png"]


def test_an_image_that_broke_keeps_no_picture_and_no_cut_outs(run, models, photos, tmp_path):
    found = tmp_path / "found"
    command = ("detect", photos, *WEIGHTS, "--output", found)
    run(*command)
    for name in ("a.png", "c.bmp"):
        (photos / name).write_bytes(b"no image")
    (found / "pictures" / "new.png").write_bytes(b"mine")
    (photos / "new.png").write_bytes(b"no image")
    assert run(*command)[0] == 3
    assert not (found / "cutouts" / "a.png").exists() and not (found / "cutouts" / "c.bmp").exists()
    assert sorted(path.name for path in (found / "pictures").glob("*.*")) == ["b.jpg", "new.png"]


@pytest.mark.parametrize("ending", [".bmp", ".tif", ".jpg"])
def test_long_names_have_pictures(run_json, models, photos, tmp_path, ending):
    """A file system takes 255 bytes: 83 of these characters and the suffix, without another one."""
    for name in ("写" * 83 + "ab" + ending, "写" * 83 + "cd" + ending, "x" * 251 + ending):
        cv2.imwrite(str(photos / ending), np.full((64, 64, 3), 90, np.uint8))
        (photos / ending).rename(photos / name)
    found = tmp_path / "found"
    code, values = run_json("detect", photos, *WEIGHTS, "--output", found)
    assert (code, values["images"]) == (0, 9)
    pictures = list((found / "pictures").glob("写*")) + list((found / "pictures").glob("x*"))
    assert len(pictures) == 3 and all(cv2.imread(str(path)) is not None for path in pictures)
    assert cut_outs(found, "写" * 83 + "ab" + ending) == ["000_cat.png", "001_dog.png", "002_Bär_ü.png"]


def test_a_name_that_the_output_cannot_have_is_listed(run, models, photos, tmp_path, monkeypatch):
    """As with a file system that takes shorter names, or fewer characters."""
    write = detect._write_image

    def strict(path, pixels):
        if path.name == "b.jpg":
            raise OSError(errno.EINVAL, f"could not write {path} (Invalid argument); choose another place")
        write(path, pixels)

    monkeypatch.setattr(detect, "_write_image", strict)
    code, _, err = run("detect", photos, *WEIGHTS, "--output", tmp_path / "found")
    assert code == 3 and "15 objects in 5 images" in err and "b.jpg: could not write " in err and "Errno" not in err


@pytest.mark.parametrize("folder", ["pictures", "cutouts"])
def test_pictures_do_not_replace_the_images(run, models, photos, folder):
    photos = photos.rename(photos.parent / folder)
    before = (photos / "a.png").read_bytes()
    for given in (photos, photos / "a.png", photos / "sub"):
        code, _, err = run("detect", given, *WEIGHTS, "--output", photos.parent)
        assert code == 1 and f"--output {photos.parent} writes to; choose another --output" in err
    assert (photos / "a.png").read_bytes() == before and models == []


@pytest.mark.parametrize("folder", ["pictures", "cutouts"])
def test_files_of_somebody_else_are_not_replaced(run, models, photos, tmp_path, folder):
    (tmp_path / "mine" / folder).mkdir(parents=True)
    (tmp_path / "mine" / folder / "a.png").write_bytes(b"mine")
    code, _, err = run("detect", photos, *WEIGHTS, "--output", tmp_path / "mine")
    assert code == 1 and "was there before --output" in err and models == []
    assert (tmp_path / "mine" / folder / "a.png").read_bytes() == b"mine"


def test_a_model_exported_again_is_another_one(run, models, photos, tmp_path):
    """OpenVINO's .xml is the same; the weights are in the .bin."""
    for suffix in ("xml", "bin", "json"):
        (tmp_path / f"m.{suffix}").write_text("old")
    command = ("detect", photos, "--weights", tmp_path / "m.xml", "--output", tmp_path / "found", "--write", "csv")
    assert run(*command)[0] == run(*command)[0] == 0
    (tmp_path / "m.bin").write_text("new")
    code, _, err = run(*command)
    assert code == 1 and "made with other weights. Use another --output, or --restart" in err


@pytest.mark.parametrize("output", ["found", "."])
def test_the_output_may_lie_in_the_folder_of_images(run_json, models, photos, output):
    command = ("detect", photos, *WEIGHTS, "--output", photos / output)
    assert run_json(*command)[1]["images"] == run_json(*command)[1]["images"] == 6


def test_names_that_would_be_one_picture_are_kept_apart(run_json, models, photos, tmp_path):
    cv2.imwrite(str(photos / "c.bmp.png"), np.full((64, 64, 3), 200, np.uint8))
    run_json("detect", photos, *WEIGHTS, "--output", tmp_path / "found")
    pictures = tmp_path / "found" / "pictures"
    assert cv2.imread(str(pictures / "c.bmp.png"))[63, 63, 0] == 200
    assert cv2.imread(str(pictures / "_c.bmp.png"))[63, 63, 0] == 80


def test_no_images_and_missing_paths(run, models, tmp_path):
    (tmp_path / "empty").mkdir()
    code, _, err = run("detect", tmp_path / "empty", *WEIGHTS)
    assert code == 1 and "no images in" in err and models == [], "before the model is loaded"
    code, _, err = run("detect", tmp_path / "nowhere", *WEIGHTS)
    assert code == 1 and "no file or folder" in err
    code, _, err = run("detect", "", *WEIGHTS)
    assert code == 1 and "no file or folder ''" in err, "an unset variable is not the current folder"


def test_a_disk_that_is_full_ends_the_run_and_loses_nothing(run, run_json, models, photos, tmp_path, monkeypatch):
    command = ("detect", photos, *WEIGHTS, "--output", tmp_path / "found")
    write, count = detect._write_image, []

    def full(path, pixels):
        count.append(path)
        if len(count) > 9:
            raise OSError(28, f"could not write {path} (no space left on device)")
        write(path, pixels)

    monkeypatch.setattr(detect, "_write_image", full)
    code, _, err = run(*command)
    assert code == 1 and "no space left on device" in err and "Traceback" not in err
    monkeypatch.setattr(detect, "_write_image", write)
    assert run_json(*command)[1]["images"] == 6 and len(models[-1].network.asked) == 4


def test_a_full_disk_is_what_the_error_says(run, models, photos, tmp_path, monkeypatch):
    state, opened = tmp_path / "found" / detect.STATE, ResultStore.__init__
    state.parent.mkdir()
    with contextlib.closing(sqlite3.connect(state)) as connection:
        connection.executescript("PRAGMA page_size=512; VACUUM")

    def small(self, *arguments, **options):
        opened(self, *arguments, **options)
        (pages,) = self._connection.execute("PRAGMA page_count").fetchone()
        self._connection.execute(f"PRAGMA max_page_count={pages}")

    command = ("detect", photos, *WEIGHTS, "--output", tmp_path / "found")
    with monkeypatch.context() as patch:
        patch.setattr(ResultStore, "__init__", small)
        code, _, err = run(*command)
    assert code == 1 and f"error: could not write {state}: database or disk is full; choose another folder" in err
    code, _, err = run(*command)
    assert code == 0 and "18 objects in 6 images" in err

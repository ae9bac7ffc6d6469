"""Results on disk: what was committed survives a kill, and only runs of the same kind are continued."""

import csv
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mrcnn.data import rle
from mrcnn.data.keypoints import Skeleton
from mrcnn.inference.results import Result
from mrcnn.inference.store import OtherResultsError, Record, ResultStore, Row, cut_outs

ROOT = Path(__file__).resolve().parents[2]
ABOUT = {"weights": "a", "settings": "b"}
NAMES = ["BG", "cat", "dog"]


def result(count=2, size=(20, 30)):
    masks = np.zeros((*size, count), bool)
    for i in range(count):
        masks[i : i + 5, 2 * i : 2 * i + 4, i] = True
    boxes = np.array([[i, 2 * i, i + 5, 2 * i + 4] for i in range(count)], np.float32).reshape(-1, 4)
    ids = np.array([1 + i % 2 for i in range(count)], np.int32)
    return Result(boxes, ids, np.linspace(0.9, 0.5, count, dtype=np.float32), masks, size, NAMES)


def test_records_come_back_in_the_order_in_which_they_came(tmp_path):
    with ResultStore(tmp_path / "a.sqlite", ABOUT) as store:
        store.add("b.jpg", Record.of(result()))
        store.add("a.jpg", Record.of(result(0)))
        store.add("broken.jpg", ValueError("it is broken"))
    with ResultStore(tmp_path / "a.sqlite", ABOUT) as store:
        (first, record), (second, empty) = store.records()
        assert (first, second) == ("b.jpg", "a.jpg") and empty == Record((20, 30), [])
        assert record == Record.of(result())
        assert record.rows[0].area == 20 and record.rows[1][2:6] == (1, 2, 6, 6)
        assert store.counts() == (2, 2, 1) and list(store.failures()) == ["broken.jpg: it is broken"]
        assert store.has("b.jpg") and not store.has("broken.jpg") and not store.has("c.jpg")


def test_a_later_result_replaces_an_earlier_one(tmp_path):
    with ResultStore(tmp_path / "a.sqlite", ABOUT) as store:
        store.add("a.jpg", ValueError("not there yet"))
        store.add("a.jpg", Record.of(result(3)))
        store.add("a.jpg", Record.of(result(1)))
        assert store.counts() == (1, 1, 0)


@pytest.mark.parametrize("name", ["plain.jpg", "ü/ø 'quoted\".png", os.fsdecode(b"broken \xff.jpg"), "a\nb.png"])
def test_any_file_name_is_kept(tmp_path, name):
    with ResultStore(tmp_path / "a.sqlite", ABOUT) as store:
        store.add(name, Record.of(result(1)))
        assert store.has(name)
        store.write_coco(tmp_path / "a.json", NAMES)
        store.write_csv(tmp_path / "a.csv", NAMES)
    assert json.loads((tmp_path / "a.json").read_text())["images"][0]["file_name"] == name
    with open(tmp_path / "a.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
        assert [row["file"] for row in csv.DictReader(file)] == [name]


def test_the_json_has_coco_s_form(tmp_path):
    with ResultStore(tmp_path / "a.sqlite", ABOUT) as store:
        store.add("a.jpg", Record.of(result(2)))
        store.add("b.jpg", Record.of(result(0)))
        store.write_coco(tmp_path / "a.json", NAMES)
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert [image["id"] for image in content["images"]] == [1, 2]
    second = content["annotations"][1]
    assert second["bbox"] == [2, 1, 4, 5] and second["image_id"] == 1 and second["category_id"] == 2
    np.testing.assert_array_equal(rle.decode(second["segmentation"]), result(2)["masks"][..., 1])


def test_no_images_are_valid_files(tmp_path):
    with ResultStore(tmp_path / "a.sqlite", ABOUT) as store:
        store.write_coco(tmp_path / "a.json", NAMES)
        store.write_csv(tmp_path / "a.csv", NAMES)
        store.write_failures(tmp_path / "failures.txt")
    assert json.loads((tmp_path / "a.json").read_text())["images"] == []
    assert (tmp_path / "a.csv").read_text().count("\n") == 1 and not (tmp_path / "failures.txt").exists()


def test_each_failure_is_a_line(tmp_path):
    with ResultStore(tmp_path / "a.sqlite", ABOUT) as store:
        store.add("two\nlines.jpg", ValueError("it is\nbroken"))
        store.write_failures(tmp_path / "failures.txt")
    assert (tmp_path / "failures.txt").read_text() == "two\\nlines.jpg: it is\\nbroken\n"


def test_results_of_another_kind_are_refused(tmp_path):
    with ResultStore(tmp_path / "a.sqlite", ABOUT) as store:
        store.add("a.jpg", Record.of(result(0)))
    with pytest.raises(ValueError, match=r"a.sqlite contains results that were made with other settings and weights"):
        ResultStore(tmp_path / "a.sqlite", {"weights": "x", "settings": "y"})
    (tmp_path / "b.sqlite").write_bytes(b"something else" * 1000)
    with pytest.raises(ValueError, match="b.sqlite is damaged, or not a file of results"):
        ResultStore(tmp_path / "b.sqlite", ABOUT)


def test_a_run_without_results_can_be_another_kind_of_run(tmp_path):
    """As one that failed at once because of the options that it was called with."""
    with ResultStore(tmp_path / "a.sqlite", {"weights": "x"}) as store:
        store.add("broken.jpg", ValueError("it is broken"))
    with ResultStore(tmp_path / "a.sqlite", ABOUT) as store:
        assert store.counts() == (0, 0, 0)
        store.add("a.jpg", Record.of(result(0)))
    with pytest.raises(OtherResultsError, match="made with other settings and weights"):
        ResultStore(tmp_path / "a.sqlite", {"weights": "x"})
    with ResultStore(tmp_path / "a.sqlite", ABOUT) as store:
        assert store.has("a.jpg")


def test_a_run_counts_and_writes_only_the_images_that_it_names(tmp_path):
    with ResultStore(tmp_path / "a.sqlite", ABOUT) as store:
        for name, count in (("a.jpg", 1), ("b.jpg", 2), ("c.jpg", 3)):
            store.add(name, Record.of(result(count)))
        store.add("broken.jpg", ValueError("it is broken"))
    with ResultStore(tmp_path / "a.sqlite", ABOUT) as store:
        store.start_run()
        assert store.counts() == (0, 0, 0) and store.has("a.jpg")
        for name in ("b.jpg", "unknown.jpg", "b.jpg"):
            store.include(name)
        store.add("d.jpg", Record.of(result(1)))
        assert store.counts() == (2, 3, 0) and not list(store.failures())
        store.write_coco(tmp_path / "a.json", NAMES)
        store.write_csv(tmp_path / "a.csv", NAMES)
    content = json.loads((tmp_path / "a.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["b.jpg", "d.jpg"] and len(
        content["annotations"]
    ) == 3
    with open(tmp_path / "a.csv", newline="", encoding="utf-8") as file:
        assert [row["file"] for row in csv.DictReader(file)] == ["b.jpg", "b.jpg", "d.jpg"]
    with ResultStore(tmp_path / "a.sqlite", ABOUT) as store:
        assert store.counts() == (4, 7, 1), "the others are still there"


def test_a_restart_discards_what_there_is(tmp_path):
    path = tmp_path / "a.sqlite"
    with ResultStore(path, {"weights": "x"}) as store:
        store.add("a.jpg", Record.of(result()))
    with ResultStore(path, ABOUT, restart=True) as store:
        assert store.counts() == (0, 0, 0) and not store.has("a.jpg")
        store.add("b.jpg", Record.of(result()))
    path.write_bytes(b"something else" * 1000)
    with ResultStore(path, ABOUT, restart=True) as store:
        assert store.counts() == (0, 0, 0)


def test_a_restart_leaves_the_file_of_a_running_process(tmp_path):
    with ResultStore(tmp_path / "a.sqlite", ABOUT) as store:
        store.add("a.jpg", Record.of(result()))
        store.commit()
        with pytest.raises(ValueError, match="a.sqlite is in use by another process"):
            ResultStore(tmp_path / "a.sqlite", ABOUT, restart=True)
        store.add("b.jpg", Record.of(result()))
    with ResultStore(tmp_path / "a.sqlite", ABOUT) as store:
        assert store.has("a.jpg") and store.has("b.jpg")


LARGE = Record((20, 30), [Row(1, 0.5, 0, 0, 1, 1, 1, "x" * 300_000)])


def test_a_full_disk_is_what_the_error_says(tmp_path):
    message = "could not write .*a.sqlite: database or disk is full; choose another folder, or free space there"
    with ResultStore(tmp_path / "a.sqlite", ABOUT) as store:
        store.add("a.jpg", Record.of(result()))
        store.commit()
        store._connection.execute("PRAGMA max_page_count=20")
        with pytest.raises(OSError, match=message):
            store.add("b.jpg", LARGE)
        store.add("c.jpg", Record.of(result(1)))
    with ResultStore(tmp_path / "a.sqlite", ABOUT) as store:
        assert store.has("a.jpg") and not store.has("b.jpg") and store.has("c.jpg") and store.counts() == (2, 3, 0)


def test_a_file_that_cannot_grow_is_what_the_error_says(tmp_path):
    """Rows stay in memory until they are committed."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    store = ResultStore(tmp_path / "a.sqlite", ABOUT)
    store.add("a.jpg", Record.of(result()))
    store.commit()
    store.add("b.jpg", LARGE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        with pytest.raises(OSError, match="could not write .*a.sqlite: "):
            store.__exit__(None, None, None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with ResultStore(tmp_path / "a.sqlite", ABOUT) as store:  # it was closed, or would be in use
        assert store.has("a.jpg") and not store.has("b.jpg")


def test_an_error_keeps_what_was_added(tmp_path):
    with pytest.raises(ZeroDivisionError), ResultStore(tmp_path / "a.sqlite", ABOUT) as store:
        store.add("a.jpg", Record.of(result()))
        raise ZeroDivisionError
    with ResultStore(tmp_path / "a.sqlite", ABOUT) as store:
        assert store.has("a.jpg")


def test_ctrl_c_inside_an_image_keeps_none_of_it(tmp_path):
    """Half of the instances would look like all of them in the next run."""

    def interrupted():
        yield from Record.of(result(2)).rows[:1]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), ResultStore(tmp_path / "a.sqlite", ABOUT) as store:
        store.add("a.jpg", Record.of(result(3)))
        store.add("b.jpg", Record((20, 30), interrupted()))
    with ResultStore(tmp_path / "a.sqlite", ABOUT) as store:
        assert store.has("a.jpg") and not store.has("b.jpg") and store.counts() == (1, 3, 0)


def test_ctrl_c_inside_a_commit_is_not_an_error(tmp_path):
    with pytest.raises(KeyboardInterrupt), ResultStore(tmp_path / "a.sqlite", ABOUT) as store:
        store.add("a.jpg", Record.of(result(3)))
        store.commit(more=False)
        raise KeyboardInterrupt
    with ResultStore(tmp_path / "a.sqlite", ABOUT) as store:
        assert store.has("a.jpg")


def test_another_version_of_an_image_is_another_image(tmp_path):
    with ResultStore(tmp_path / "a.sqlite", ABOUT) as store:
        store.add("a.jpg", Record.of(result()), "one")
        assert store.has("a.jpg", "one") and not store.has("a.jpg", "two")
        store.add("a.jpg", Record.of(result(1)), "two")
        assert store.has("a.jpg", "two") and store.counts() == (1, 1, 0)


def test_an_output_that_takes_no_files_says_so(tmp_path):
    (tmp_path / "a.sqlite").mkdir()
    with pytest.raises(OSError, match="cannot write .*a.sqlite: unable to open database file; choose another folder"):
        ResultStore(tmp_path / "a.sqlite", ABOUT)


def test_an_output_that_is_a_file_says_so(tmp_path):
    (tmp_path / "found").write_text("")
    with pytest.raises(OSError, match=r"found cannot be created as a folder \(File exists\); choose another place"):
        ResultStore(tmp_path / "found" / "a.sqlite", ABOUT)


CHILD = """
import os, sys
sys.path.insert(0, {root!r})
from mrcnn.inference.store import Record, ResultStore
store = ResultStore({path!r}, {about!r})
store.add("saved.jpg", Record((20, 30), []))
store.commit()
store.add("lost.jpg", Record((20, 30), []))
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_a_kill_loses_only_what_was_not_committed_and_a_second_process_is_refused(tmp_path):
    path = tmp_path / "a.sqlite"
    code = CHILD.format(root=str(ROOT), path=str(path), about=ABOUT)
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "ready\n"
        with pytest.raises(ValueError, match="a.sqlite is in use by another process"):
            ResultStore(path, ABOUT)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    with ResultStore(path, ABOUT) as store:
        assert store.has("saved.jpg") and not store.has("lost.jpg")


def test_cut_outs_are_tight_and_transparent():
    image = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
    found = result(3)
    found["masks"][:, :, 1] = False
    found["masks"] = found["masks"]
    (first, pixels), (second, _) = cut_outs(found, image)
    assert (first, second) == (0, 2) and pixels.shape == (5, 4, 4) and (pixels[..., 3] == 255).all()
    np.testing.assert_array_equal(pixels[..., :3], image[:5, :4])


def test_keypoints_are_written_as_coco_has_them(tmp_path):
    found = result(1)
    found["keypoints"] = np.array([[[1.5, 2.5, 0.75], [3.5, 4.25, 0.5]]], np.float32)
    skeleton = Skeleton(["nose", "tail"], [(0, 1)])
    with ResultStore(tmp_path / "a.sqlite", ABOUT) as store:
        store.add("a.jpg", Record.of(found))
        store.write_coco(tmp_path / "a.json", NAMES, skeleton)
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["categories"][0]["keypoints"] == ["nose", "tail"]
    assert content["categories"][0]["skeleton"] == [[1, 2]]
    assert content["annotations"][0]["keypoints"] == [2, 1, 0.75, 3.75, 3, 0.5]


def test_keypoints_are_in_the_table(tmp_path):
    found = result(1)
    found["keypoints"] = np.array([[[1.5, 2.5, 0.75], [3.5, 4.25, 0.5]]], np.float32)
    with ResultStore(tmp_path / "a.sqlite", ABOUT) as store:
        store.add("a.jpg", Record.of(found))
        store.write_csv(tmp_path / "a.csv", NAMES, Skeleton(["nose", "tail"]))
        store.write_csv(tmp_path / "b.csv", NAMES)
    header, row = (tmp_path / "a.csv").read_text().splitlines()
    assert header.endswith("y2,x2,nose y,nose x,nose score,tail y,tail x,tail score")
    assert row.endswith(",1.5,2.5,0.75,3.5,4.25,0.5")
    assert ",keypoint 1 score" in (tmp_path / "b.csv").read_text()

"""Which file or folder is which part of a dataset, and where its images are."""

import pytest

from mrcnn.data.annotations.folders import of_subset, paired_folders, spellings, subset_folder
from mrcnn.data.annotations.image_finder import ImageFinder, spelled
from mrcnn.data.annotations.problems import Problems

FILES = [
    "instances_train2017.json",
    "instances_val2017.json",
    "trainval.json",
    "train_val.json",
    "mineTest.json",
    "restrain.json",
    "my-train-1.json",
]


@pytest.mark.parametrize(
    ("subset", "expected"),
    [
        (None, FILES),
        ("train", ["instances_train2017.json", "my-train-1.json"]),
        ("training", ["instances_train2017.json", "my-train-1.json"]),
        ("train2017", ["instances_train2017.json"]),
        ("val", ["instances_val2017.json"]),
        ("valid", ["instances_val2017.json"]),
        ("trainval", ["trainval.json"]),
        ("train_val", ["train_val.json"]),
        ("test", ["mineTest.json"]),
        ("rain", []),
        ("2017", []),
        ("_", []),
    ],
)
def test_a_subset_is_a_whole_word(subset, expected):
    assert of_subset(FILES, subset) == expected


def test_other_words_for_a_subset(tmp_path):
    assert spellings("val") == ("val", "valid", "validation") and spellings("day 1") == ("day 1",)
    (tmp_path / "valid" / "images").mkdir(parents=True)
    (tmp_path / "valid" / "masks").mkdir()
    assert subset_folder(tmp_path, "val") == str(tmp_path / "valid")
    images, beside = paired_folders(tmp_path, "validation", ["masks"], lambda folder: True)
    assert images == str(tmp_path / "valid" / "images") and beside == [str(tmp_path / "valid" / "masks")]
    with pytest.raises(FileNotFoundError, match="folder '.*train' does not exist; .* holds valid/"):
        subset_folder(tmp_path, "train")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a.jpg", ["a.jpg"]),
        ("x/a.jpg", ["x", "a.jpg"]),
        (".\\x\\1/a.jpg", ["x", "1", "a.jpg"]),
        ("/x//a.jpg", ["x", "a.jpg"]),
        ("http://host:80/x/my%20a.jpg?d=1", ["x", "my a.jpg"]),
        ("", [""]),
    ],
)
def test_names_in_parts(name, parts):
    assert spelled(name) == parts


def files(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def finder(root, names, *folders, image_dir=None):
    return ImageFinder(names, [str(root / folder) for folder in folders], str(root), image_dir)


def test_the_first_folder_that_holds_every_name_is_taken(tmp_path):
    files(tmp_path, "train/a.jpg", "images/a.jpg", "images/b.jpg")
    assert finder(tmp_path, ["a.jpg"], "train", "images").path("a.jpg") == str(tmp_path / "train" / "a.jpg")
    both = finder(tmp_path, ["a.jpg", "b.jpg"], "train", "images")
    assert both.path("a.jpg") == str(tmp_path / "images" / "a.jpg") and not both.found


def test_a_folder_is_searched_for_and_noted(tmp_path):
    files(tmp_path, "some/where/a.jpg", "some/where/x/b.jpg", "other/c.jpg", ".hidden/a.jpg")
    found = finder(tmp_path, ["a.jpg", "x/b.jpg"], ".")
    assert found.path("x/b.jpg") == str(tmp_path / "some" / "where" / "x" / "b.jpg")
    problems = Problems()
    found.note(problems, "a.json")
    (problem,) = problems
    assert str(tmp_path / "some" / "where") in problem.message and problem.treatment == "images are read from there"


def test_names_in_several_folders(tmp_path):
    files(tmp_path, "x/a.jpg", "y/b.jpg", "y/x/c.jpg", "z/c.jpg")
    found = finder(tmp_path, ["a.jpg", "b.jpg", "c.jpg"], ".")
    assert found.path("a.jpg") == str(tmp_path / "x" / "a.jpg") and found.path("b.jpg") == str(tmp_path / "y" / "b.jpg")
    missing = found.path("c.jpg")
    assert missing == str(tmp_path / "c.jpg") and "z/c.jpg'; choose with image_dir=" in found.why(missing)
    assert found.path("x/c.jpg") == str(tmp_path / "y" / "x" / "c.jpg")  # enough of the path to identify one image
    assert found.why(found.path("d.jpg")) == ""


def test_a_backslash_may_be_part_of_a_name(tmp_path):
    files(tmp_path, "x\\a.jpg", "y/b.jpg")
    found = finder(tmp_path, ["x\\a.jpg", "y\\b.jpg"], ".")
    assert found.path("x\\a.jpg") == str(tmp_path / "x\\a.jpg")
    assert found.path("y\\b.jpg") == str(tmp_path / "y" / "b.jpg")


def test_a_missing_name_has_the_place_where_it_would_be(tmp_path):
    files(tmp_path, "train/a.jpg", "val/b.jpg")
    found = finder(tmp_path, ["a.jpg", "b.jpg"], "train")
    assert found.path("b.jpg") == str(tmp_path / "train" / "b.jpg")  # not the one of another part
    with pytest.raises(FileNotFoundError, match="image folder '.*gone' does not exist; check image_dir"):
        finder(tmp_path, ["a.jpg"], image_dir=str(tmp_path / "gone"))
    assert finder(tmp_path / "gone", ["a.jpg"], ".").path("a.jpg") == str(tmp_path / "gone" / "a.jpg")


def test_an_address_with_a_damaged_host_is_a_name_like_any_other():
    assert spelled("http://[::1/images/a.jpg")[-1] == "a.jpg"

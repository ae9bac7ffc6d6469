"""The images in folders, with names relative to the searched folder."""

import os

import pytest

from mrcnn.data.images import read_image, walk
from mrcnn.data.images.walk import walk_images


@pytest.fixture
def tree(tmp_path):
    for name in (
        "b.jpg",
        "a.PNG",
        "notes.txt",
        ".hidden.jpg",
        "two/c.tif",
        "two/deep/d.webp",
        "one/e.jpeg",
        ".git/f.png",
    ):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path / "tree"


def names(*paths, **options):
    return [found.name for found in walk_images(paths, **options)]


def test_files_come_before_subfolders_and_each_sorted(tree):
    assert names(tree) == ["a.PNG", "b.jpg", "one/e.jpeg", "two/c.tif", "two/deep/d.webp"]
    assert all(os.path.samefile(found.path, tree / found.name) for found in walk_images([tree]))


def test_given_files_may_have_any_ending_and_names_follow_the_common_folder(tree):
    assert names(tree / "notes.txt") == ["notes.txt"]
    assert names(tree / "two" / "deep", tree / "one" / "e.jpeg") == ["two/deep/d.webp", "one/e.jpeg"]
    assert names(tree / "two") == ["c.tif", "deep/d.webp"]


def test_a_folder_can_be_left_out(tree):
    assert names(tree, skip=[tree / "two"]) == ["a.PNG", "b.jpg", "one/e.jpeg"]


def test_links_to_folders_are_not_followed_and_links_to_files_are(tree):
    """A link to a missing file is an image that cannot be read, not one that is not there."""
    (tree / "one" / "loop").symlink_to(tree, target_is_directory=True)
    (tree / "one" / "link.png").symlink_to(tree / "a.PNG")
    (tree / "one" / "broken.png").symlink_to(tree / "missing.png")
    assert names(tree / "one") == ["broken.png", "e.jpeg", "link.png"]


def test_a_link_to_itself_is_an_image_that_cannot_be_read(tree):
    for name in ("self.png", "self", "pair.jpg"):
        (tree / "one" / name).symlink_to(name if "self" in name else "other.jpg")
    (tree / "one" / "other.jpg").symlink_to("pair.jpg")
    assert names(tree / "one") == ["e.jpeg", "other.jpg", "pair.jpg", "self.png"]
    assert {found.version() for found in walk_images([tree / "one"])} - {""} == {
        found.version() for found in walk_images([tree / "one" / "e.jpeg"])
    }


def test_a_subfolder_that_cannot_be_listed_is_told_when_read_and_the_others_are_walked(tree, monkeypatch):
    scandir = os.scandir

    def refused(path):
        if str(path).endswith("two"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    monkeypatch.setattr(os, "access", lambda path, _: not str(path).endswith("two"))
    assert names(tree) == ["a.PNG", "b.jpg", "one/e.jpeg", "two"]
    with pytest.raises(PermissionError, match="the folder cannot be listed: .*two"):
        read_image(tree / "two")
    with pytest.raises(PermissionError, match="two"):
        names(tree / "two")


def test_what_is_given_twice_is_walked_once(tree):
    everything = names(tree)
    assert names(tree, tree) == names(tree / "b.jpg", tree, tree / "two" / "deep") == everything
    assert names(tree / "b.jpg", tree / "b.jpg") == ["b.jpg"]


def test_what_the_walk_of_another_path_leaves_out_is_walked(tree):
    (tree / "link").symlink_to(tree / "two", target_is_directory=True)
    given = ("notes.txt", ".hidden.jpg", ".git", "link/deep", "link", "two/c.tif")
    assert sorted(names(tree, *(tree / name for name in given))) == sorted(
        [*names(tree), "notes.txt", ".hidden.jpg", ".git/f.png", "link/c.tif", "link/deep/d.webp"]
    )
    assert names(tree, tree / "two" / "deep", skip=[tree / "two"]) == [
        "a.PNG",
        "b.jpg",
        "one/e.jpeg",
        "two/deep/d.webp",
    ]


def test_relative_paths_and_the_current_folder(tree, monkeypatch):
    monkeypatch.chdir(tree / "two")
    assert names(".") == ["c.tif", "deep/d.webp"] and names("deep") == ["d.webp"] and names("c.tif") == ["c.tif"]


def test_a_missing_path_raises_before_the_first_file(tree):
    with pytest.raises(FileNotFoundError, match="no file or folder 'nowhere'"):
        walk_images([tree, "nowhere"])
    with pytest.raises(FileNotFoundError, match="no file or folder ''"):
        walk_images([""])


def test_a_file_s_version_changes_with_its_content(tree):
    (found,) = walk_images([tree / "two" / "deep"])
    before = found.version()
    assert before == found.version()
    (tree / "two" / "deep" / "d.webp").write_bytes(b"longer")
    assert found.version() != before
    (tree / "two" / "deep" / "d.webp").unlink()
    assert found.version() == ""


def test_large_folders_come_as_the_file_system_has_them(tree, monkeypatch):
    """All entries, once each."""
    monkeypatch.setattr(walk, "SORTED", 2)
    assert sorted(names(tree)) == ["a.PNG", "b.jpg", "one/e.jpeg", "two/c.tif", "two/deep/d.webp"]

"""Files written whole or not at all."""

import errno
import os

import pytest

from mrcnn.files import atomic_path, write_atomically


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_writes_text_makes_its_folder_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "deep" / "notes.txt"
    write_atomically(path, "a\nb")
    assert path.read_text() == "a\nb"
    assert names(path.parent) == ["notes.txt"]
    write_atomically(str(path), "c")
    assert path.read_text() == "c"


def test_everybody_may_read_the_file(tmp_path):
    write_atomically(tmp_path / "x", "text")
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o644


def test_the_old_file_is_there_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("old")
    with atomic_path(path) as temporary:
        temporary.write_text("half of the n")
        assert path.read_text() == "old"
        assert temporary.parent == tmp_path, "a rename across file systems would not be atomic"
    assert path.read_text() == "half of the n"


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt()])
def test_an_error_while_writing_keeps_the_old_file_and_removes_the_new(tmp_path, error):
    path = tmp_path / "notes.txt"
    path.write_text("old")
    with pytest.raises(type(error)), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["notes.txt"]


def test_a_full_disk_names_the_file_and_keeps_the_old_one(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("old")
    with (
        pytest.raises(
            OSError,
            match=r"could not write .*notes.txt \(.*No space left.*what stood there before is "
            "untouched",
        ) as caught,
        atomic_path(path),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.errno == errno.ENOSPC
    assert path.read_text() == "old"
    assert names(tmp_path) == ["notes.txt"]


def test_a_failing_rename_is_named_and_leaves_no_temporary_file(tmp_path):
    path = tmp_path / "notes.txt"
    path.mkdir()  # a folder where the file should go
    with pytest.raises(OSError, match="could not write .*notes.txt"):
        write_atomically(path, "text")
    assert names(tmp_path) == ["notes.txt"]

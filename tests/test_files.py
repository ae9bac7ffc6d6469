"""Files written completely or not at all, and folders with one user at a time."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mrcnn import files
from mrcnn.files import FolderInUseError, Process, atomic_path, locked, write_atomically


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_writes_text_makes_its_folder_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "deep" / "notes.txt"
    write_atomically(path, "a\nb")
    assert path.read_text() == "a\nb"
    assert names(path.parent) == ["notes.txt"]
    write_atomically(str(path), "c")
    assert path.read_text() == "c"


@pytest.mark.parametrize("name", ["a" * 251 + ".txt", "\u65e5" * 83 + ".png", "\U0001f408" * 62 + ".png"], ids=len)
def test_the_longest_names_are_written(tmp_path, name):
    write_atomically(tmp_path / name, "text")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_folder_that_takes_no_files_is_named(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise PermissionError(13, "Permission denied", str(tmp_path / ".a.txt.tmp"))

    monkeypatch.setattr(files.tempfile, "mkstemp", refused)
    with pytest.raises(PermissionError, match=r"could not write .*/a.txt \(Permission denied\); choose another place"):
        write_atomically(tmp_path / "a.txt", "text")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file cannot be created as a folder \(File exists\)"):
        write_atomically(tmp_path / "file" / "a.txt", "text")


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
            match=r"could not write .*notes.txt \(.*No space left.*an existing file there "
            r"is unchanged",
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


@pytest.mark.parametrize(
    "error",
    [FileNotFoundError(errno.ENOENT, "missing", "photo.jpg"), OSError("the scanner is off"), OSError(104, "reset")],
)
def test_an_error_that_has_nothing_to_do_with_writing_is_passed_on(tmp_path, error):
    with pytest.raises(type(error)) as caught, atomic_path(tmp_path / "notes.txt"):
        raise error
    assert caught.value is error
    assert names(tmp_path) == []


# After a kill

HOLD = """
import sys, time
from pathlib import Path
from mrcnn.files import atomic_path, locked
with {block}:
    print("inside", flush=True)
    time.sleep(100)
"""


@pytest.fixture
def inside(tmp_path):
    """Runs a program that stays inside a block; returns the process once it is there."""
    running = []

    def start(block):
        code = HOLD.format(block=block.format(folder=repr(str(tmp_path))))
        running.append(subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True))
        assert running[-1].stdout.readline() == "inside\n"
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait()


def test_the_next_writer_removes_what_killed_ones_left_and_nothing_else(tmp_path, inside):
    inside("atomic_path(Path({folder}) / 'b.h5')")
    dead = inside("atomic_path(Path({folder}) / 'a.h5')")
    dead.kill()
    dead.wait()
    (tmp_path / ".mine.tmp").touch()
    assert len(names(tmp_path)) == 3
    write_atomically(tmp_path / "c.txt", "text")
    left = names(tmp_path)
    assert len(left) == 3 and {".mine.tmp", "c.txt"} < set(left) and any(name.startswith(".b.h5.") for name in left)


def test_a_folder_has_one_user(tmp_path, inside):
    process = inside("locked(Path({folder}))")
    with (
        pytest.raises(FolderInUseError, match=f"is in use by process {process.pid} on .*remove .*lock"),
        locked(tmp_path),
    ):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    with locked(tmp_path):
        with pytest.raises(FolderInUseError, match=f"process {os.getpid()} on"), locked(tmp_path):
            pass
        assert names(tmp_path) == [".lock"]
    assert names(tmp_path) == []


DAMAGED_LOCKS = ["", "{", "[]", '{"host": "x"}', '{"host": "x", "pid": 1e400, "started": 1}', "[" * 100_000]


@pytest.mark.parametrize("text", DAMAGED_LOCKS, ids=lambda text: text[:40])
def test_a_damaged_lock_is_nobody_s(tmp_path, text):
    (tmp_path / ".lock").write_text(text)
    with locked(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("pid", [10**30, -1, 0])
def test_a_number_that_no_process_can_have_is_nobody_s(tmp_path, pid):
    me = Process.this()._replace(pid=pid)
    (tmp_path / ".lock").write_text(json.dumps(me._asdict()))
    left = tmp_path / f".a.h5.mrcnn-{me.host}-{10**30}-5-abc.tmp"
    left.touch()
    with locked(tmp_path):
        write_atomically(tmp_path / "a.txt", "a")
    assert names(tmp_path) == ["a.txt"]


def test_a_lock_of_another_user_is_left_alone(tmp_path, monkeypatch):
    lock = tmp_path / ".lock"
    with locked(tmp_path):
        assert lock.stat().st_mode & 0o444 == 0o444, "everybody may read whose it is"
    lock.write_text("whatever")

    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(FolderInUseError, match="lock belongs to another user and cannot be read"), locked(tmp_path):
        pass
    assert lock.exists()


def test_locks_where_there_are_no_hard_links(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refused)
    with locked(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
        with pytest.raises(FolderInUseError, match=f"process {os.getpid()} on"), locked(tmp_path):
            pass
    assert names(tmp_path) == []


def test_a_number_that_another_process_has_now_is_not_the_holder(tmp_path):
    (tmp_path / ".lock").write_text(json.dumps(Process.this()._replace(started=1)._asdict()))
    with locked(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text()) == Process.this()._asdict()


def test_another_machine_s_holder_is_dead_once_it_has_been_silent_for_long(tmp_path):
    lock = tmp_path / ".lock"
    lock.write_text(json.dumps(Process("elsewhere", 1, 1)._asdict()))
    with pytest.raises(FolderInUseError, match="process 1 on elsewhere"), locked(tmp_path):
        pass
    long_ago = time.time() - files.SILENCE - 60
    os.utime(lock, (long_ago, long_ago))
    with locked(tmp_path):
        assert json.loads(lock.read_text()) == Process.this()._asdict()


def test_a_holder_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "HEARTBEAT", 0.01)
    with locked(tmp_path):
        os.utime(tmp_path / ".lock", (0, 0))
        for _ in range(500):
            if (tmp_path / ".lock").stat().st_mtime > 0:
                break
            time.sleep(0.01)
        assert (tmp_path / ".lock").stat().st_mtime > 0

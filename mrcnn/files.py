"""Files that are written completely or not at all, and locks on folders."""

import contextlib
import errno
import json
import os
import re
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

LOCK = ".lock"
HEARTBEAT = 30  # seconds between updates of a held lock
SILENCE = 600  # seconds without an update after which a holder on another machine is considered dead
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}  # write errors, which name no file
LONGEST = 30  # characters of a file's name in that of its temporary file
TEMPORARY = re.compile(r"\..+\.mrcnn-(?P<host>.+)-(?P<pid>\d+)-(?P<started>\d+)-\w+\.tmp")


class Process(NamedTuple):
    """A process on this or another machine. `started` distinguishes processes that had the same id."""

    host: str
    pid: int
    started: int

    @classmethod
    def this(cls) -> "Process":
        return cls(re.sub(r"\W", "_", socket.gethostname()), os.getpid(), _started(os.getpid()))

    def is_here(self) -> bool:
        """Whether the process runs or ran on this machine."""
        return self.host == Process.this().host

    def is_dead(self) -> bool:
        """Whether the process ran on this machine and has ended."""
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):  # the latter for a number that no process can have
            return True
        except PermissionError:  # another user's process
            pass
        return self.started != _started(self.pid)


def _started(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 if the system does not say."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def make_folder(path: Path) -> None:
    """Creates a folder and its parents, if missing. Raises OSError that names the folder and says what to do."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise type(error)(
            error.errno, f"{path} cannot be created as a folder ({error.strerror}); choose another place"
        ) from error


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path next to `path`; renames it to `path` if the block succeeds, else removes it.

    Also removes temporary files left in the folder by killed processes.

    Raises OSError naming `path` if the disk is full or the folder is not writable; an existing file stays intact. Other
    OSErrors in the block, such as a missing input, are passed on unchanged.
    """
    path = Path(path)
    make_folder(path.parent)
    _remove_leftovers(path.parent)
    me = Process.this()
    suffix = f".mrcnn-{me.host}-{me.pid}-{me.started}-"
    try:
        begin = path.name[:LONGEST]  # a file system takes 255 bytes, with all the rest
        handle, name = tempfile.mkstemp(prefix=f".{begin}{suffix}", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise type(error)(error.errno, f"could not write {path} ({error.strerror}); choose another place") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())  # else the rename may reach the disk before the data
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        about = [str(each) for each in (error.filename, error.filename2) if each is not None]
        ours = all(each == str(path) or each.startswith(str(temporary)) for each in about)
        if not ours or (not about and error.errno not in DISK):
            raise
        raise OSError(
            error.errno, f"could not write {path} ({error.strerror or error}); an existing file there is unchanged"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _remove_leftovers(folder: Path) -> None:
    for file in folder.glob(".*.tmp"):
        found = TEMPORARY.fullmatch(file.name)
        if found:
            writer = Process(found["host"], int(found["pid"]), int(found["started"]))
            with contextlib.suppress(OSError):
                if writer.is_dead() if writer.is_here() else _age(file) > SILENCE:
                    file.unlink(missing_ok=True)


def write_atomically(path: str | Path, text: str) -> None:
    """Writes `text` to `path`, completely or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text)


class FolderInUseError(RuntimeError):
    """Another process uses a folder that only one process may use at a time."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other processes, and other threads of this one, from entering the same block for a folder.

    The file `.lock` in the folder names the holder. It is taken over if the holder ran on this machine and has ended,
    or is on another machine and has been silent for ten minutes.

    Raises FolderInUseError, naming the holder.
    """
    lock = folder / LOCK
    folder.mkdir(parents=True, exist_ok=True)
    _acquire(lock)
    done = threading.Event()
    beat = threading.Thread(target=_beat, args=(lock, done), daemon=True)
    beat.start()
    try:
        yield
    finally:
        done.set()
        beat.join()
        lock.unlink(missing_ok=True)


def _acquire(lock: Path) -> None:
    me = Process.this()
    handle, name = tempfile.mkstemp(prefix=f"{LOCK}.", dir=lock.parent)
    with os.fdopen(handle, "w") as file:
        json.dump(me._asdict(), file)
    os.chmod(name, 0o644)  # other users must see who the holder is
    try:
        for _ in range(3):
            try:
                _claim(name, lock)
                return
            except FileExistsError:
                holder = _holder(lock)
            if holder is not None and not _is_stale(lock, holder):
                raise FolderInUseError(
                    f"{lock.parent} is in use by process {holder.pid} on {holder.host}. Wait until it ends, or use "
                    f"another folder; if you are sure that nothing runs there, remove {lock}."
                )
            _discard(lock, holder)
        raise FolderInUseError(f"{lock.parent}: other processes keep taking {lock}; try again.")
    finally:
        Path(name).unlink(missing_ok=True)


def _claim(name: str, lock: Path) -> None:
    """Makes the file `name` the lock, in one step where possible. Raises FileExistsError if there is a lock."""
    try:
        os.link(name, lock)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links, such as exFAT or a mounted cloud drive
        with open(lock, "x") as file:
            file.write(Path(name).read_text())


def _holder(lock: Path) -> Process | None:
    """The holder of a lock; None if the lock is gone or damaged. Raises FolderInUseError if it may not be read."""
    try:
        values = json.loads(lock.read_text())
        return Process(str(values["host"]), int(values["pid"]), int(values["started"]))
    except PermissionError as error:
        raise FolderInUseError(
            f"{lock.parent} may be in use: {lock} belongs to another user and cannot be read. Wait until it is gone, "
            "or use another folder."
        ) from error
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def _discard(lock: Path, stale: Process | None) -> None:
    """Removes a stale lock, unless another process has replaced it in the meantime."""
    aside = lock.with_name(f"{LOCK}.stale-{os.getpid()}-{threading.get_ident()}")
    with contextlib.suppress(FileNotFoundError):
        os.rename(lock, aside)
        if _holder(aside) != stale:
            with contextlib.suppress(FileExistsError):
                os.link(aside, lock)
        aside.unlink()


def _is_stale(lock: Path, holder: Process) -> bool:
    return holder.is_dead() if holder.is_here() else _age(lock) > SILENCE


def _age(file: Path) -> float:
    """Seconds since a file was modified, by its file system's clock; 0 if it is gone."""
    try:
        with tempfile.NamedTemporaryFile(dir=file.parent, prefix=f"{LOCK}.") as now:
            return os.fstat(now.fileno()).st_mtime - file.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _beat(lock: Path, done: threading.Event) -> None:
    while not done.wait(HEARTBEAT):
        with contextlib.suppress(OSError):
            os.utime(lock, (time.time(), time.time()) if os.name == "nt" else None)

"""Downloads that arrive completely or not at all: resumed where they broke off, verified, then put in place."""

import contextlib
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

TIMEOUT = 15.0  # seconds without a byte
SLOWEST = 1024, 60.0  # bytes that must arrive in so many seconds
ATTEMPTS = 5  # in a row that bring nothing new
PAUSE = 0.1  # seconds before the second attempt; twice as long before each further one
PIECE = 2**16
LARGEST = 2**32  # bytes, where the publisher names no size


class DownloadError(OSError):
    """A file that could not be fetched; the message says what to do by hand."""


class _Broken(Exception):
    """An attempt that ended early: worth another one."""


class _Disk(Exception):
    """What has arrived cannot be written."""


class _SameScheme(urllib.request.HTTPRedirectHandler):
    """Follows a redirect from https to https only."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise urllib.error.URLError("it is redirected to an address without encryption")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(
    url: str, path: str | os.PathLike[str], *, size: int | None = None, sha256: str = "", progress: bool = True
) -> Path:
    """Fetches a file.

    What has arrived is kept beside `path`, as `<name>.part`, and the next call continues there. `path` itself appears
    once everything has arrived and fits.

    Args:
        url: http or https.
        path: where the file goes; its folder is made.
        size: bytes that it must have; None: as many as the server says.
        sha256: the first digits of its hash, or all of them; empty: not compared.
        progress: draws a bar.

    Raises:
        DownloadError: the server cannot be reached, breaks off, stalls, or sends another file; says what to put where.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part, existed = path.with_name(f"{path.name}.part"), path.exists()
    with _locked(part):
        if path.exists() and not existed:  # another process fetched it meanwhile
            part.unlink()
            return path
        try:
            resumed = part.stat().st_size > 0
            wrong = _fetched(url, part, size, sha256, progress)
            if wrong and resumed:  # its beginning may have been another file's
                wrong = _fetched(url, part, size, sha256, progress)
            if wrong:
                raise _Broken(wrong)
        except (_Broken, _Disk, OSError, http.client.HTTPException) as error:
            raise DownloadError(
                f"{url} could not be fetched ({error}). Fetch it on a machine with a network and put it at {path}."
            ) from error
        os.replace(part, path)
    return path


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The hash of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetched(url: str, part: Path, size: int | None, sha256: str, progress: bool) -> str:
    """Fetches everything; says in what it is another file than the one wanted, and empties it then."""
    _fetch(url, part, size, bool(sha256), progress)
    found, wrong = part.stat().st_size, ""
    if size is not None and found != size:
        wrong = f"{found} bytes came, and the published file has {size}"
    elif sha256 and not (digest := sha256_of(part)).startswith(sha256.lower()):
        wrong = f"what came has the SHA-256 {digest}, and that of the published file begins with {sha256}"
    if wrong:
        os.truncate(part, 0)
    return wrong


def _fetch(url: str, part: Path, size: int | None, verified: bool, progress: bool) -> None:
    """Attempts until all has arrived; each that brings something new makes up for those before it."""
    failures = 0
    while True:
        before = part.stat().st_size
        try:
            return _attempt(url, part, size, verified, progress)
        except (_Broken, OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code == 416:  # there is nothing after what we have
                if (error.headers.get("Content-Range") or "") == f"bytes */{before}":
                    return None
                os.truncate(part, 0)
            elif isinstance(error, urllib.error.HTTPError) and error.code < 500:
                raise  # it will not change its mind
            failures = 0 if part.stat().st_size > before else failures + 1
            if failures >= ATTEMPTS:
                raise
            time.sleep(PAUSE * 2**failures)


def _attempt(url: str, part: Path, size: int | None, verified: bool, progress: bool) -> None:
    """verified: the whole is compared with a hash, so that parts of two files cannot pass for one."""
    start, mark = part.stat().st_size, part.with_name(f"{part.name}.etag")
    request = urllib.request.Request(url, headers={"User-Agent": "mrcnn", "Accept-Encoding": "identity"})
    if start and (verified or mark.is_file()):
        request.add_header("Range", f"bytes={start}-")
        if mark.is_file():
            request.add_header("If-Range", mark.read_text())
    with urllib.request.build_opener(_SameScheme).open(request, timeout=TIMEOUT) as answer:
        start = start if _continues(answer, start) else 0
        if answer.status == 206 and not start:
            os.truncate(part, 0)
            raise _Broken("the server sent another part than it was asked for")
        length = answer.headers.get("Content-Length") or ""
        total = start + int(length) if length.isdigit() else None
        if size is not None and total is not None and total != size:
            raise _Broken(f"the server has a file of {total} bytes; the published one has {size}")
        tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        if tag and not tag.startswith("W/"):
            mark.write_text(tag)
        else:
            mark.unlink(missing_ok=True)
        with open(part, "r+b") as file:
            file.truncate(start)
            file.seek(start)
            _copy(answer, file, start, total or size, progress)
    mark.unlink(missing_ok=True)


def _continues(answer: Any, start: int) -> bool:
    """Whether the server sends what is missing; otherwise it sends everything."""
    return answer.status == 206 and (answer.headers.get("Content-Range") or "").startswith(f"bytes {start}-")


def _copy(answer: Any, file: IO[bytes], start: int, total: int | None, progress: bool) -> None:
    done, since, begin = start, start, time.monotonic()
    with _bar(file.name, start, total, progress) as bar:
        while piece := answer.read1(PIECE):
            done += len(piece)
            if done > (total or LARGEST):
                file.truncate(0)
                raise _Broken(f"more than {total or LARGEST} bytes came")
            with _disk():
                file.write(piece)
            bar.update(len(piece))
            if time.monotonic() - begin > SLOWEST[1]:
                if done - since < SLOWEST[0]:
                    raise _Broken("the server has stalled")
                since, begin = done, time.monotonic()
    with _disk():
        file.flush()
        os.fsync(file.fileno())
    if total is not None and done < total:
        raise _Broken(f"the server broke off after {done} of {total} bytes")


@contextlib.contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _Disk(str(error)) from error


def _bar(name: str, start: int, total: int | None, progress: bool) -> Any:
    from tqdm import tqdm

    label = Path(name).name.removesuffix(".part")
    return tqdm(total=total, initial=start, desc=label, unit="B", unit_scale=True, disable=not progress, leave=False)


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[None]:
    """The part, made if need be, for this process alone: a second one waits for the first."""
    try:
        import fcntl
    except ImportError:  # Windows
        part.touch()
        yield
        return
    while True:
        with open(part, "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if part.exists() and os.path.samestat(part.stat(), os.fstat(file.fileno())):
                yield
                return
        # The first process has put it in place, and this is another file by now.

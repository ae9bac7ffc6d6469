"""Downloads that are complete or absent: resumed after an interruption, verified, then moved into place."""

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
SLOWEST = 1024, 60.0  # minimum number of bytes in this many seconds
ATTEMPTS = 5  # maximum number of consecutive attempts without new data
PAUSE = 0.1  # seconds before the second attempt; doubles for each further one
PIECE = 2**16
LARGEST = 2**32  # maximum bytes if the publisher states no size


class DownloadError(OSError):
    """A file could not be downloaded; the message says how to get it manually."""


class _Broken(Exception):
    """An attempt ended early; retrying may help."""


class _Disk(Exception):
    """The received data cannot be written."""


class _SameScheme(urllib.request.HTTPRedirectHandler):
    """Follows redirects from https only to https."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise urllib.error.URLError("the server redirects to an unencrypted address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(
    url: str, path: str | os.PathLike[str], *, size: int | None = None, sha256: str = "", progress: bool = True
) -> Path:
    """Downloads a file.

    Received data is kept next to `path` as `<name>.part`, and the next call continues there. `path` itself appears only
    when the file is complete and verified.

    Args:
        url: http or https.
        path: destination; its folder is created.
        size: required size in bytes; None: the size that the server states.
        sha256: the first digits of the file's hash, or all of them; empty: not checked.
        progress: show a progress bar.

    Raises:
        DownloadError: the server cannot be reached, disconnects, stalls, or sends a different file; the message says
            which file to put where.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part, existed = path.with_name(f"{path.name}.part"), path.exists()
    with _locked(part):
        if path.exists() and not existed:  # another process downloaded it meanwhile
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
                f"{url} could not be downloaded ({error}). Download it on a machine with network access and put it at "
                f"{path}."
            ) from error
        os.replace(part, path)
    return path


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The hash of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetched(url: str, part: Path, size: int | None, sha256: str, progress: bool) -> str:
    """Downloads the rest; if the file is not the wanted one, empties it and returns how it differs."""
    _fetch(url, part, size, bool(sha256), progress)
    found, wrong = part.stat().st_size, ""
    if size is not None and found != size:
        wrong = f"{found} bytes were received, but the published file has {size}"
    elif sha256 and not (digest := sha256_of(part)).startswith(sha256.lower()):
        wrong = f"the received file has the SHA-256 {digest}, but that of the published file begins with {sha256}"
    if wrong:
        os.truncate(part, 0)
    return wrong


def _fetch(url: str, part: Path, size: int | None, verified: bool, progress: bool) -> None:
    """Retries until the file is complete; an attempt with new data resets the count of failures."""
    failures = 0
    while True:
        before = part.stat().st_size
        try:
            return _attempt(url, part, size, verified, progress)
        except (_Broken, OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code == 416:  # the server has no further data
                if (error.headers.get("Content-Range") or "") == f"bytes */{before}":
                    return None
                os.truncate(part, 0)
            elif isinstance(error, urllib.error.HTTPError) and error.code < 500:
                raise  # retrying does not help
            failures = 0 if part.stat().st_size > before else failures + 1
            if failures >= ATTEMPTS:
                raise
            time.sleep(PAUSE * 2**failures)


def _attempt(url: str, part: Path, size: int | None, verified: bool, progress: bool) -> None:
    """verified: the complete file is checked by a hash, which detects a mix of two files."""
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
            raise _Broken("the server sent a different range than requested")
        length = answer.headers.get("Content-Length") or ""
        total = start + int(length) if length.isdigit() else None
        if size is not None and total is not None and total != size:
            raise _Broken(f"the server's file has {total} bytes; the published one has {size}")
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
    """Whether the server sends only the missing part; otherwise it sends the whole file."""
    return answer.status == 206 and (answer.headers.get("Content-Range") or "").startswith(f"bytes {start}-")


def _copy(answer: Any, file: IO[bytes], start: int, total: int | None, progress: bool) -> None:
    done, since, begin = start, start, time.monotonic()
    with _bar(file.name, start, total, progress) as bar:
        while piece := answer.read1(PIECE):
            done += len(piece)
            if done > (total or LARGEST):
                file.truncate(0)
                raise _Broken(f"received more than {total or LARGEST} bytes")
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
        raise _Broken(f"the server disconnected after {done} of {total} bytes")


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
    """The .part file, created if needed and locked: a second process waits for the first."""
    try:
        import fcntl
    except ImportError:  # Windows
        part.touch()
        yield
        return
    while True:
        with open(part, "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is_at(part, file.fileno()):
                yield
                return
        # The first process has moved it into place; this handle refers to an outdated file.


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether an open file is still the one at the path, which another process may remove at any moment."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False

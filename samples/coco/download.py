"""--download: fetches COCO's archives from its server and unpacks them into COCO's own folders.

An archive is downloaded next to the data as `.zip.part`; an interrupted download is resumed. It is unpacked into a
temporary folder and moved into place when complete, so an existing folder is always complete.
"""

import http.client
import shutil
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlparse

from samples.coco.layout import Archive, archives, how_to_get

CHUNK = 1 << 20
TIMEOUT = 30  # seconds without data


def download(dataset: str | Path, year: int, splits: Sequence[str] = ("train", "val")) -> None:
    """Downloads and unpacks the missing parts of a year's splits, with a progress bar.

    Raises ConnectionError if the server is unreachable or drops the connection, naming the files to put where; call
    again to resume. Raises ValueError for a damaged or unexpected archive, which is removed. For optional archives,
    either error is printed as a note.
    """
    for archive in [archive for archive in archives(dataset, year, splits) if archive.missing()]:
        try:
            get(archive, Path(dataset))
        except (ConnectionError, ValueError) as error:
            if archive.optional:
                print(f"Note: {error}\nWithout {archive.results[0]} the splits are COCO's own train and val.")
            elif isinstance(error, ConnectionError):
                raise ConnectionError(
                    f"{error} Call again to resume.\n{how_to_get(dataset, year, splits, archive.missing())}"
                ) from error
            else:
                raise


def get(archive: Archive, folder: Path) -> None:
    """Downloads and unpacks one archive. Raises ConnectionError and ValueError as `download` does."""
    package = folder / Path(urlparse(archive.url).path).name
    try:
        fetch(archive.url, package)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and not isinstance(error, (urllib.error.URLError, ConnectionError, TimeoutError)):
            raise  # the disk, not the network
        raise ConnectionError(f"{archive.url} could not be fetched ({error}).") from error
    unpack(package, archive)
    package.unlink()


def fetch(url: str, path: Path) -> None:
    """Downloads to `path`, resuming from `<path>.part`.

    Raises OSError (URLError and ConnectionError are) or HTTPException.
    """
    from tqdm import tqdm

    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # no such range: the part is complete, or from another file
            raise
        part.unlink()
        return fetch(url, path)
    with response:
        done = done if response.status == 206 else 0  # a server that cannot resume sends everything
        length = response.headers.get("Content-Length")
        total = None if length is None else done + int(length)
        with (
            open(part, "ab" if done else "wb") as file,
            tqdm(total=total, initial=done, desc=path.name, unit="B", unit_scale=True) as progress,
        ):
            while chunk := response.read(CHUNK):
                file.write(chunk)
                progress.update(len(chunk))
    size = part.stat().st_size
    if total is not None and size != total:
        raise ConnectionError(f"the connection ended after {size} of {total} bytes")
    part.replace(path)


def unpack(package: Path, archive: Archive) -> None:
    """Unpacks a zip file, and moves its files into place once all are complete."""
    from tqdm import tqdm

    archive.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpacking.", dir=archive.folder, ignore_cleanup_errors=True) as folder:
        try:
            with zipfile.ZipFile(package) as file:
                for member in tqdm(file.infolist(), desc=f"unpacking {package.name}", unit="file"):
                    file.extract(member, folder)  # verifies each file's checksum
        except zipfile.BadZipFile as error:
            package.unlink()
            raise ValueError(f"{package} is damaged ({error}) and was removed; call again.") from error
        for found in sorted(Path(folder).iterdir()):
            _move(found, archive.folder / found.name)
    if archive.missing():
        package.unlink()
        raise ValueError(
            f"{archive.url} was unpacked into {archive.folder} but does not hold "
            f"{', '.join(path.name for path in archive.missing())}."
        )


def _move(source: Path, target: Path) -> None:
    """Moves a file or folder; an existing folder receives the files it lacks."""
    if not target.exists():
        source.rename(target)
    elif source.is_dir():
        for inner in sorted(source.iterdir()):
            _move(inner, target / inner.name)
        shutil.rmtree(source, ignore_errors=True)

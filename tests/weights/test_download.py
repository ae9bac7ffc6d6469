"""Downloads from a server on loopback that breaks off, lies and stalls."""

import functools
import hashlib
import http.server
import multiprocessing
import threading
import time

import pytest

from mrcnn.weights import download as module
from mrcnn.weights.download import DownloadError, download

DATA = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(DATA).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves DATA; `behave` may do something else with a request, and returns whether it did."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.data, self.etag, self.requests, self.behave = DATA, '"1"', [], lambda handler, start: False
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/weights.pth"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.requests.append(wanted)
        start = int(wanted[6:-1]) if wanted and self.headers.get("If-Range") in (None, server.etag) else 0
        if server.behave(self, start):
            return
        if start >= len(server.data):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.data)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.head(start, len(server.data) - start)
        self.wfile.write(server.data[start:])

    def head(self, start, length, status=None):
        self.send_response(status or (206 if start else 200))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(self.server.data) - 1}/{len(self.server.data)}")
        if self.server.etag:
            self.send_header("ETag", self.server.etag)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.001)
    monkeypatch.setattr(module, "TIMEOUT", 2.0)
    server = Server()
    yield server
    server.shutdown()
    server.server_close()


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_comes_once_and_whole(server, tmp_path):
    path = download(server.url, tmp_path / "new" / "a.pth", size=len(DATA), sha256=SHA256[:8], progress=False)
    assert path.read_bytes() == DATA and server.requests == [None]
    assert files(path.parent) == ["a.pth"]


def test_a_bar_is_drawn(server, tmp_path, capsys):
    download(server.url, tmp_path / "a.pth")
    assert "a.pth" in capsys.readouterr().err


def breaks_off(after, times):
    """The connection ends after so many bytes, the first so many times."""
    left = [times]

    def behave(handler, start):
        if not left[0]:
            return False
        left[0] -= 1
        handler.head(start, len(DATA) - start)
        handler.wfile.write(DATA[start : start + after])
        handler.wfile.flush()
        handler.connection.close()
        return True

    return behave


def test_what_broke_off_is_continued(server, tmp_path):
    server.behave = breaks_off(100_000, 3)
    path = download(server.url, tmp_path / "a.pth", sha256=SHA256, progress=False)
    assert path.read_bytes() == DATA
    assert server.requests[0] is None and all(wanted.startswith("bytes=") for wanted in server.requests[1:])
    assert files(tmp_path) == ["a.pth"]


def test_another_call_continues_where_the_last_one_ended(server, tmp_path):
    server.behave = breaks_off(0, 99)
    (tmp_path / "a.pth.part").write_bytes(DATA[:1000])
    (tmp_path / "a.pth.part.etag").write_text('"1"')
    with pytest.raises(
        DownloadError, match="could not be downloaded .*disconnected after 1000 of 512000 bytes.*put it at .*a"
    ):
        download(server.url, tmp_path / "a.pth", progress=False)
    assert files(tmp_path) == ["a.pth.part", "a.pth.part.etag"], "nothing is in place, and nothing is lost"
    server.behave = breaks_off(0, 0)
    assert download(server.url, tmp_path / "a.pth", progress=False).read_bytes() == DATA
    assert server.requests[-1] == "bytes=1000-" and files(tmp_path) == ["a.pth"]


def test_a_file_that_changed_meanwhile_is_fetched_from_its_beginning(server, tmp_path):
    (tmp_path / "a.pth.part").write_bytes(b"old" * 1000)
    (tmp_path / "a.pth.part.etag").write_text('"0"')
    assert download(server.url, tmp_path / "a.pth", progress=False).read_bytes() == DATA


@pytest.mark.parametrize("sha256", [SHA256, ""])
def test_a_server_without_marks(server, tmp_path, sha256):
    """Without a hash nothing tells whether two parts are of one file, and all is fetched anew."""
    server.etag = None
    (tmp_path / "a.pth.part").write_bytes(DATA[:1000])
    assert download(server.url, tmp_path / "a.pth", sha256=sha256, progress=False).read_bytes() == DATA
    assert server.requests == ["bytes=1000-" if sha256 else None]


def test_a_part_of_another_file_is_found_by_the_hash(server, tmp_path):
    server.etag = None
    (tmp_path / "a.pth.part").write_bytes(b"x" * 1000)
    assert download(server.url, tmp_path / "a.pth", sha256=SHA256, progress=False).read_bytes() == DATA
    assert server.requests == ["bytes=1000-", None]


@pytest.mark.parametrize("length", [len(DATA), len(DATA) + 5])
def test_a_part_that_has_everything_already(server, tmp_path, length):
    (tmp_path / "a.pth.part").write_bytes((DATA + b"12345")[:length])
    (tmp_path / "a.pth.part.etag").write_text('"1"')
    assert download(server.url, tmp_path / "a.pth", sha256=SHA256, progress=False).read_bytes() == DATA


def lies_about_the_file(handler, start):
    handler.head(0, 5)
    handler.wfile.write(b"<html")
    return True


def sends_too_little(handler, start):
    handler.head(0, len(DATA) + 100, 200)
    handler.wfile.write(DATA)
    handler.connection.close()
    return True


def sends_without_end(handler, start):
    handler.head(0, None, 200)
    try:
        while True:
            handler.wfile.write(DATA)
    except OSError:
        return True


def sends_another_part(handler, start):
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes 7-{len(DATA) - 1}/{len(DATA)}")
    handler.send_header("Content-Length", str(len(DATA) - 7))
    handler.end_headers()
    handler.wfile.write(DATA[7:])
    return True


def says_nothing(handler, start):
    handler.connection.close()
    return True


@pytest.mark.slow
@pytest.mark.parametrize(
    "behave", [lies_about_the_file, sends_too_little, sends_without_end, sends_another_part, says_nothing]
)
@pytest.mark.parametrize("known", [{"size": len(DATA)}, {"sha256": SHA256[:8]}, {"size": len(DATA), "sha256": SHA256}])
def test_a_server_that_lies(server, tmp_path, monkeypatch, behave, known):
    monkeypatch.setattr(module, "LARGEST", 2**22)
    server.behave = behave
    with pytest.raises(DownloadError, match=r"127.0.0.1.*could not be downloaded \(.*put it at .*a.pth"):
        download(server.url, tmp_path / "a.pth", progress=False, **known)
    assert "a.pth" not in files(tmp_path)
    server.behave = breaks_off(0, 0)
    assert download(server.url, tmp_path / "a.pth", progress=False, **known).read_bytes() == DATA


def test_another_file_of_the_right_length(server, tmp_path):
    server.data = DATA[::-1]
    with pytest.raises(DownloadError, match=f"has the SHA-256 [0-9a-f]+, but that of the published .* {SHA256[:8]}"):
        download(server.url, tmp_path / "a.pth", size=len(DATA), sha256=SHA256[:8], progress=False)
    assert "a.pth" not in files(tmp_path)


def test_a_server_that_stalls(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 0.1)
    monkeypatch.setattr(module, "ATTEMPTS", 2)

    def stalls(handler, start):
        handler.head(start, len(DATA) - start)
        time.sleep(0.5)
        return True

    server.behave = stalls
    with pytest.raises(DownloadError, match="timed out"):
        download(server.url, tmp_path / "a.pth", progress=False)
    assert "a.pth" not in files(tmp_path)


def test_a_server_that_sends_a_byte_at_a_time(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SLOWEST", (1000, 0.1))
    calls = []

    def drips(handler, start):
        calls.append(start)
        handler.head(start, len(DATA) - start)
        try:
            for i in range(200):
                handler.wfile.write(DATA[start + i : start + i + 1])
                time.sleep(0.01)
        except OSError:
            pass
        return True

    def drips_thrice(handler, start):
        return len(calls) < 3 and drips(handler, start)

    server.behave = drips_thrice
    assert download(server.url, tmp_path / "a.pth", sha256=SHA256, progress=False).read_bytes() == DATA
    assert len(calls) == 3 and calls[2] > calls[1] > 0


@pytest.mark.parametrize("status, requests", [(404, 1), (403, 1), (500, 5), (503, 5)])
def test_errors_of_the_server(server, tmp_path, status, requests):
    def fails(handler, start):
        handler.send_error(status)
        return True

    server.behave = fails
    with pytest.raises(DownloadError, match=f"HTTP Error {status}"):
        download(server.url, tmp_path / "a.pth", progress=False)
    assert len(server.requests) == requests


def test_no_network(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.001)
    with pytest.raises(
        DownloadError, match=r"^http://127.0.0.1:9/a.pth could not be downloaded \(.*put it at .*b.pth.$"
    ) as e:
        download("http://127.0.0.1:9/a.pth", tmp_path / "b.pth", progress=False)
    assert "\n" not in str(e.value) and not (tmp_path / "b.pth").exists()


def test_redirects(server, tmp_path):
    def redirects(handler, start):
        if handler.path.startswith("/weights"):
            handler.send_response(302)
            handler.send_header("Location", "/elsewhere" if server.etag else "file:///etc/passwd")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return True
        return False

    server.behave = redirects
    assert download(server.url, tmp_path / "a.pth", sha256=SHA256, progress=False).read_bytes() == DATA
    server.etag = None
    with pytest.raises(DownloadError, match="not allowed"):
        download(server.url, tmp_path / "b.pth", progress=False)


def test_a_redirect_out_of_encryption_is_not_followed():
    request = module.urllib.request.Request("https://example.org/a")
    with pytest.raises(module.urllib.error.URLError, match="unencrypted"):
        module._SameScheme().redirect_request(request, None, 302, "", {}, "http://example.org/a")


def test_a_full_disk_leaves_nothing_in_place(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module.os, "fsync", functools.partial(_raise, OSError(28, "No space left on device")))
    with pytest.raises(DownloadError, match="No space left on device"):
        download(server.url, tmp_path / "a.pth", progress=False)
    assert "a.pth" not in files(tmp_path)


def _raise(error, *arguments):
    raise error


def test_two_processes_fetch_one_file_once(server, tmp_path):
    def slowly(handler, start):
        time.sleep(0.5)
        return False

    server.behave = slowly
    context = multiprocessing.get_context("fork")
    call = functools.partial(download, server.url, tmp_path / "a.pth", sha256=SHA256, progress=False)
    processes = [context.Process(target=call) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert (tmp_path / "a.pth").read_bytes() == DATA and server.requests == [None] and files(tmp_path) == ["a.pth"]

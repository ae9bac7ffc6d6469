"""COCO's folders of 2014 and 2017, and --download from a server of this test."""

import http.server
import io
import json
import re
import shutil
import socket
import threading
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from mrcnn.data.annotations.problems import AnnotationError
from samples.coco import download as downloading
from samples.coco import layout
from samples.coco.download import download, fetch
from samples.coco.layout import MissingData, fingerprint, load_split, parts, require
from tests.samples.tiny_coco import write_coco, write_split


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_coco(tmp_path_factory.mktemp("coco") / "data", train=3, val=2)


def source_ids(dataset):
    return [info["id"] for info in dataset.image_info]


def test_splits_of_2017(folder):
    training, validation = load_split(folder, 2017, "train"), load_split(folder, 2017, "val")
    assert source_ids(training) == [100, 101, 102] and source_ids(validation) == [500, 501]
    assert training.class_names == validation.class_names == ["BG", "disc", "box"]
    masks, class_ids = validation.load_mask(1)
    assert list(class_ids) == [1, 2] and masks[..., 1].sum() == 24 * 28


def test_limit_takes_the_first_by_id_and_classes_may_be_chosen(folder):
    dataset = load_split(folder, 2017, "train", limit=2, class_names=["box"])
    assert source_ids(dataset) == [100, 101] and list(dataset.image_ids) == [0, 1]
    assert dataset.class_names == ["BG", "box"] and list(dataset.load_mask(0)[1]) == [1]


def test_splits_of_2014_are_the_old_package_s_where_its_files_are(tmp_path):
    folder = write_coco(tmp_path / "data", year=2014, train=2, val=3)
    assert source_ids(load_split(folder, 2014, "val")) == [500, 501, 502]
    rng = np.random.default_rng(0)
    write_split(folder, "minival2014", "val2014", [501], rng)
    assert source_ids(load_split(folder, 2014, "val")) == [500, 501, 502], "one of the two files alone says nothing"
    write_split(folder, "valminusminival2014", "val2014", [50, 502], rng)
    training = load_split(folder, 2014, "train")
    assert source_ids(training) == [50, 100, 101, 502] and source_ids(load_split(folder, 2014, "val")) == [501]
    assert training.load_image(0).shape == (64, 80, 3) and len(training.load_mask(3)[1]) == 2
    assert [path.name for part in parts(folder, 2014, "train") for path in part] == [
        "instances_train2014.json",
        "train2014",
        "instances_valminusminival2014.json",
        "val2014",
    ]


def test_two_joined_files_keep_their_problems_and_messages_name_them(tmp_path):
    """An instance without a polygon in the first file, images of another size in both."""
    folder = write_coco(tmp_path / "data", year=2014, train=1, val=1)
    rng = np.random.default_rng(0)
    write_split(folder, "minival2014", "val2014", [500], rng)
    write_split(folder, "valminusminival2014", "val2014", [50, 51], rng)
    for name, image in (("train2014", 100), ("valminusminival2014", 51)):
        file = folder / "annotations" / f"instances_{name}.json"
        content = json.loads(file.read_text())
        content["annotations"][-1]["segmentation"] = []
        file.write_text(json.dumps(content))
        cv2.imwrite(str(next(folder.glob(f"*2014/{image:012d}.png"))), np.zeros((32, 80, 3), np.uint8))
    with pytest.warns(UserWarning, match="1 x empty mask"):
        dataset = load_split(folder, 2014, "train")
    assert [(Path(problem.file).name, problem.record) for problem in dataset.problems] == [
        ("instances_train2014.json", "annotation 201"),
        ("instances_valminusminival2014.json", "annotation 103"),
    ]
    assert source_ids(dataset) == [50, 51, 100]
    for index, text in ((2, "train2014.json, image 100"), (1, "valminusminival2014.json, image 51")):
        text = f"{folder / 'annotations'}, instances_{text}, field 'height/width'"
        with pytest.raises(AnnotationError, match=re.escape(text)):
            dataset.load_image(index)


@pytest.mark.parametrize(
    "year, split, limit, message",
    [
        (2015, "train", None, "split 'train' of 2015: expected train or val of 2014 or 2017"),
        (2017, "test", None, "split 'test' of 2017"),
        (2017, "val", 0, "limit=0: expected at least 1"),
    ],
)
def test_what_cannot_be_asked_for_is_named(folder, year, split, limit, message):
    with pytest.raises(ValueError, match=message):
        load_split(folder, year, split, limit)


def test_another_year_says_which_files_are_missing(folder):
    with pytest.raises(MissingData) as caught:
        require(folder, 2014, ["val"])
    text = str(caught.value)
    assert text.startswith(f"{folder} does not hold COCO 2014. Missing:")
    missing = text.split("Set --dataset")[0]
    assert "instances_val2014.json" in missing and str(folder / "val2014") in missing and "train" not in missing
    assert "--download" in text and f"instances_minival2014.json.zip?dl=0  ->  {folder}" in text


def test_the_fingerprint_is_of_the_content_not_of_the_place(folder, tmp_path):
    def of(place, **options):
        return fingerprint(place, 2017, "train", load_split(place, 2017, "train", **options))

    other = write_coco(tmp_path / "moved")
    first = of(folder)
    assert of(other) == first
    assert len({first, of(folder, limit=2), of(folder, class_names=["box"])}) == 3
    file = other / "annotations" / "instances_train2017.json"
    file.write_text(file.read_text().replace("[48, 20, 24, 28]", "[48, 20, 24, 27]"))
    assert of(other) != first


# --download


class Server:
    """Serves bytes by path; `cut` ends an answer after so many bytes, `ranges` says whether it can continue one."""

    def __init__(self):
        self.files, self.asked, self.cut, self.ranges = {}, [], None, True
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                owner.answer(self)

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def answer(self, handler):
        wanted = handler.headers.get("Range")
        self.asked.append((handler.path, wanted))
        content = self.files.get(handler.path.split("?")[0])
        if content is None:
            handler.send_error(404)
            return
        first = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and self.ranges else 0
        if first >= len(content):
            handler.send_error(416)
            return
        handler.send_response(206 if first else 200)
        handler.send_header("Content-Length", str(len(content) - first))
        handler.end_headers()
        handler.wfile.write(content[first:][: self.cut])
        if self.cut is not None:
            handler.wfile.flush()
            handler.connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def server(monkeypatch):
    server = Server()
    monkeypatch.setattr(layout, "SERVER", server.url)
    yield server
    server.http.shutdown()
    server.http.server_close()


def zipped(folder, names):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            for path in sorted((folder / name).rglob("*")) if (folder / name).is_dir() else [folder / name]:
                archive.write(path, path.relative_to(folder))
    return stream.getvalue()


@pytest.fixture
def offered(server, folder):
    """The generated folder as COCO's server would have it."""
    server.files = {f"/zips/{name}2017.zip": zipped(folder, [f"{name}2017"]) for name in ("train", "val")}
    server.files["/annotations/annotations_trainval2017.zip"] = zipped(folder, ["annotations"])
    return server


def test_download_makes_a_folder_that_loads(offered, tmp_path):
    target = tmp_path / "new" / "coco"
    download(target, 2017)
    assert sorted(path.name for path in target.iterdir()) == ["annotations", "train2017", "val2017"]
    assert source_ids(load_split(target, 2017, "train")) == [100, 101, 102]
    asked = len(offered.asked)
    download(target, 2017)
    assert len(offered.asked) == asked == 3, "what is there is not fetched again"


def test_what_only_judges_fetches_no_training_images(offered, tmp_path):
    download(tmp_path, 2017, ["val"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["annotations", "val2017"]
    require(tmp_path, 2017, ["val"])
    with pytest.raises(MissingData, match="train2017.zip"):
        require(tmp_path, 2017)


def test_annotations_join_those_that_are_there(offered, tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "mine.json").write_text("{}")
    download(tmp_path, 2017)
    assert sorted(path.name for path in (tmp_path / "annotations").iterdir()) == [
        "instances_train2017.json",
        "instances_val2017.json",
        "mine.json",
    ]


def test_annotations_of_one_split_alone_are_completed(offered, folder, tmp_path):
    (tmp_path / "annotations").mkdir()
    shutil.copy(folder / "annotations" / "instances_val2017.json", tmp_path / "annotations")
    download(tmp_path, 2017)
    require(tmp_path, 2017)
    assert len(offered.asked) == 3


def test_a_missing_minival_is_a_note_where_the_data_are_complete(server, tmp_path, monkeypatch, capsys):
    """One link is dead, behind the other lies a page that is no archive."""
    folder = write_coco(tmp_path / "data", year=2014)
    server.files["/valminusminival.json.zip"] = b"<html>"
    for name in layout.MINIVAL:
        monkeypatch.setitem(layout.MINIVAL, name, f"{server.url}/{name}.json.zip?dl=0")
    download(folder, 2014)
    printed = capsys.readouterr().out
    assert f"Note: {server.url}/minival.json.zip?dl=0 could not be fetched (HTTP Error 404" in printed
    assert "valminusminival.json.zip is damaged" in printed and "COCO's own train and val" in printed
    assert len(server.asked) == 2 and not list(folder.glob("*.zip*"))
    assert source_ids(load_split(folder, 2014, "val")) == [500, 501]


def test_minival_goes_into_the_folder_of_annotations(server, tmp_path, monkeypatch):
    folder = write_coco(tmp_path / "made", year=2014)
    server.files = {f"/zips/{name}2014.zip": zipped(folder, [f"{name}2014"]) for name in ("train", "val")}
    server.files["/annotations/annotations_trainval2014.zip"] = zipped(folder, ["annotations"])
    for name in layout.MINIVAL:
        write_split(folder, f"{name}2014", "val2014", [501], np.random.default_rng(0))
        server.files[f"/{name}.json.zip"] = zipped(folder / "annotations", [f"instances_{name}2014.json"])
        monkeypatch.setitem(layout.MINIVAL, name, f"{server.url}/{name}.json.zip?dl=0")
    download(tmp_path / "new", 2014)
    assert source_ids(load_split(tmp_path / "new", 2014, "val")) == [501]


@pytest.mark.slow
@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_goes_on(offered, tmp_path, ranges):
    offered.cut, offered.ranges = 1000, ranges
    with pytest.raises(ConnectionError, match="Call again to resume"):
        download(tmp_path, 2017)
    part = tmp_path / "train2017.zip.part"
    assert [path.name for path in tmp_path.iterdir()] == [part.name] and part.stat().st_size == 1000
    offered.cut = None
    download(tmp_path, 2017)
    assert offered.asked[1] == ("/zips/train2017.zip", "bytes=1000-")
    assert source_ids(load_split(tmp_path, 2017, "train")) == [100, 101, 102]
    assert not list(tmp_path.glob("*.zip*"))


def test_a_part_longer_than_the_file_is_begun_anew(offered, tmp_path):
    (tmp_path / "x.zip.part").write_bytes(b"x" * 10**6)
    fetch(f"{offered.url}/zips/val2017.zip", tmp_path / "x.zip")
    assert (tmp_path / "x.zip").read_bytes() == offered.files["/zips/val2017.zip"]


def test_without_a_network_it_says_which_files_to_put_where(tmp_path, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    monkeypatch.setattr(layout, "SERVER", url)
    with pytest.raises(ConnectionError) as caught:
        download(tmp_path / "coco", 2017)
    text = str(caught.value)
    assert f"{url}/zips/train2017.zip could not be fetched" in text
    annotations = tmp_path / "coco" / "annotations"
    for names in (
        str(tmp_path / "coco" / "train2017"),
        str(tmp_path / "coco" / "val2017"),
        f"{annotations / 'instances_train2017.json'}, {annotations / 'instances_val2017.json'}",
    ):
        assert f"->  {names}\n" in text + "\n"


def test_a_file_that_the_server_does_not_have_is_named(server, tmp_path):
    with pytest.raises(ConnectionError, match="train2017.zip could not be fetched .HTTP Error 404"):
        download(tmp_path, 2017)


def test_a_damaged_archive_leaves_no_half_folder(offered, tmp_path):
    content = bytearray(offered.files["/zips/train2017.zip"])
    content[200] ^= 255  # in the pixels of the first image
    offered.files["/zips/train2017.zip"] = bytes(content)
    with pytest.raises(ValueError, match="train2017.zip is damaged .* and was removed; call again"):
        download(tmp_path, 2017)
    assert not list(tmp_path.iterdir())


def test_an_archive_of_something_else_is_named(offered, tmp_path):
    offered.files["/zips/train2017.zip"] = offered.files["/zips/val2017.zip"]
    with pytest.raises(ValueError, match="was unpacked into .* but does not hold train2017"):
        download(tmp_path, 2017)


def test_a_full_disk_is_no_network_error(offered, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(downloading, "fetch", full)
    with pytest.raises(OSError, match="No space left") as caught:
        download(tmp_path, 2017)
    assert not isinstance(caught.value, ConnectionError)

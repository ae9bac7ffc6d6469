"""The table of published weights, and the cache that they are kept in; nothing is fetched from a network."""

import hashlib
import re

import pytest

from mrcnn.weights import published
from mrcnn.weights.download import DownloadError
from mrcnn.weights.published import PUBLISHED, PublishedWeights, download_trained_weights, fetch, find
from tests.weights.test_download import DATA, SHA256, server  # noqa: F401


def test_the_table():
    assert len(PUBLISHED) == 37
    for name, weights in PUBLISHED.items():
        assert name == weights.name and re.fullmatch(r"(torchvision|detectron2|matterport)/\w+", name)
        assert weights.url.startswith("https://") and weights.file.endswith((".pth", ".pkl", ".h5"))
        assert weights.license in ("BSD-3-Clause", "CC BY-SA 3.0", "MIT")
        assert re.fullmatch("[0-9a-f]{6}|[0-9a-f]{8}|", weights.sha256)
        assert weights.sha256 in weights.file
        if weights.publisher != "matterport":
            assert weights.sha256 and (weights.box_ap or weights.mask_ap)
    assert len({weights.url for weights in PUBLISHED.values()}) == len(PUBLISHED)
    assert len({weights.path("c") for weights in PUBLISHED.values()}) == len(PUBLISHED), "two files share a name"


@pytest.mark.parametrize(
    "name, url, ap",
    [
        (
            "torchvision/maskrcnn_resnet50_fpn_v2",
            "https://download.pytorch.org/models/maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth",
            (47.4, 41.8),
        ),
        (
            "detectron2/mask_rcnn_R_101_FPN_3x",
            "https://dl.fbaipublicfiles.com/detectron2/COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_3x/138205316/"
            "model_final_a3ec72.pkl",
            (42.9, 38.6),
        ),
        (
            "matterport/coco",
            "https://github.com/matterport/Mask_RCNN/releases/download/v2.0/mask_rcnn_coco.h5",
            (None, None),
        ),
    ],
)
def test_rows(name, url, ap):
    assert find(name).url == url and (find(name).box_ap, find(name).mask_ap) == ap


def test_a_misspelled_name_is_answered_by_the_nearest():
    with pytest.raises(
        ValueError, match="no weights called 'torchvision/maskrcnn_resnet50'.*torchvision/maskrcnn_resn"
    ):
        find("torchvision/maskrcnn_resnet50")


def test_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("MRCNN_CACHE", str(tmp_path / "own"))
    assert published.cache_folder() == tmp_path / "own"
    monkeypatch.delenv("MRCNN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "users"))
    assert published.cache_folder() == tmp_path / "users" / "mrcnn"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert published.cache_folder() == tmp_path / ".cache" / "mrcnn"


@pytest.fixture
def table(server, monkeypatch, tmp_path):  # noqa: F811
    """A table of one row, whose file the server has."""
    row = PublishedWeights("torchvision/tiny", server.url, len(DATA), SHA256[:8])
    monkeypatch.setitem(PUBLISHED, row.name, row)
    monkeypatch.setenv("MRCNN_CACHE", str(tmp_path / "cache"))
    return row


def test_a_file_is_fetched_once(server, table, tmp_path):  # noqa: F811
    path = fetch("torchvision/tiny", progress=False)
    assert path == tmp_path / "cache" / "torchvision" / "tiny" / "weights.pth" and path.read_bytes() == DATA
    assert fetch("torchvision/tiny") == path and len(server.requests) == 1


def test_a_file_that_somebody_put_there(server, table):  # noqa: F811
    path = table.path()
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA)
    assert fetch("torchvision/tiny") == path and not server.requests
    path.with_name("weights.pth.sha256").unlink()
    path.write_bytes(DATA[::-1])
    with pytest.raises(ValueError, match="weights.pth is not torchvision/tiny as published.*Remove it"):
        fetch("torchvision/tiny")
    assert path.exists(), "somebody's file is not removed"


def test_without_a_network_one_line_says_which_file_to_put_where(table, monkeypatch):
    monkeypatch.setitem(PUBLISHED, table.name, PublishedWeights(table.name, "http://127.0.0.1:9/weights.pth"))
    monkeypatch.setattr("mrcnn.weights.download.PAUSE", 0.001)
    with pytest.raises(
        DownloadError, match=r"weights.pth could not be downloaded.*put it at .*torchvision/tiny/weights.p"
    ):
        fetch("torchvision/tiny", progress=False)
    assert not table.path().exists()


def test_the_old_packages_coco_weights(server, monkeypatch, tmp_path, capsys):  # noqa: F811
    row = PublishedWeights("matterport/coco", server.url, len(DATA))
    monkeypatch.setitem(PUBLISHED, row.name, row)
    monkeypatch.setattr(published, "COCO_SIZE", len(DATA))
    path = tmp_path / "mask_rcnn_coco.h5"
    assert download_trained_weights(str(path)) == path and path.read_bytes() == DATA
    assert "Downloading http://127" in capsys.readouterr().out
    assert download_trained_weights(path, verbose=0) == path and len(server.requests) == 1
    path.write_bytes(DATA[:-1])
    with pytest.raises(ValueError, match="has 511999 bytes, but release 2.0's file has 512000: .*release 1.0"):
        download_trained_weights(path)


def test_the_hash_beside_a_file_is_its_own(server, table):  # noqa: F811
    path = fetch("torchvision/tiny", progress=False)
    assert path.with_name("weights.pth.sha256").read_text() == hashlib.sha256(DATA).hexdigest()

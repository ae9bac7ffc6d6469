"""`mrcnn weights`: the table of published weights, and what of it is on this machine."""

import pytest

from mrcnn.weights.published import PUBLISHED


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MRCNN_CACHE", str(tmp_path))
    return tmp_path


def test_every_published_file_is_listed_with_its_figures(run, cache):
    code, out, _ = run("weights")
    assert code == 0 and all(any(line.startswith(f"{name} ") for line in out.splitlines()) for name in PUBLISHED)
    (line,) = (line for line in out.splitlines() if line.startswith("torchvision/maskrcnn_resnet50_fpn_v2 "))
    assert line.split() == ["torchvision/maskrcnn_resnet50_fpn_v2", "185", "BSD-3-Clause", "47.4", "41.8", "."]
    (line,) = (line for line in out.splitlines() if line.startswith("detectron2/keypoint_rcnn_R_50_FPN_3x "))
    assert line.split()[-3:] == ["55.4", ".", "65.5"]
    assert f"files are kept in {cache}" in out


def test_a_file_that_is_here_is_marked(run, run_json, cache):
    weights = PUBLISHED["matterport/coco"]
    weights.path().parent.mkdir(parents=True)
    weights.path().write_bytes(b"anything")
    code, rows = run_json("weights")
    row = {row["name"]: row for row in rows}
    assert code == 0 and row["matterport/coco"]["path"] == str(weights.path())
    assert row["matterport/coco"]["size"] == 257557808 and row["matterport/coco"]["exact"]
    assert row["matterport/coco_v1"]["path"] is None and row["matterport/coco_v1"]["size"] is None
    assert not row["torchvision/maskrcnn_resnet50_fpn"]["exact"]
    here = [line.split()[0] for line in run("weights")[1].splitlines() if line.endswith("  yes")]
    assert here == ["matterport/coco"]


def test_a_misspelled_name_is_answered_with_the_nearest(run, cache):
    code, _, err = run("weights", "torchvision/maskrcnn_resnet50_fpn_v3")
    assert code == 1 and "did you mean torchvision/maskrcnn_resnet50_fpn_v2" in err

"""The HTML page of a check."""

import base64
import re
from functools import partial

import cv2
import numpy as np
import pytest

from mrcnn.data.annotations import problems
from mrcnn.data.check import check, main, write_page
from tests.data import damaged
from tests.data.damaged import DAMAGE, read


@pytest.fixture
def write(tmp_path):
    """Writes the scene after a change, with its images; returns the path of the JSON file."""
    return partial(damaged.write, tmp_path)


def page_of(path, tmp_path):
    dataset = read(path)
    report = check(dataset)
    write_page(tmp_path / "out" / "page.html", report, dataset)
    return report, (tmp_path / "out" / "page.html").read_text()


def test_every_finding_has_a_heading_and_those_of_instances_a_picture(write, tmp_path):
    def change(content, folder):
        for name in ("a bow tie", "two classes", "nothing annotated"):
            DAMAGE[name][0](content, folder)
        content["annotations"][2]["segmentation"] = "x"

    report, page = page_of(write(change), tmp_path)
    for kind, count in report.counts().items():
        assert f"{count:,} x {kind}</h2>" in page
    assert '<h2 class="broken">1 x broken record' in page and "<h2>1 x self-intersecting polygon" in page
    pictures = [base64.b64decode(text) for text in re.findall(r"base64,([^\"]+)", page)]
    assert len(pictures) >= 3
    red = []
    for data in pictures:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert max(image.shape[:2]) == 220
        red.append(((image[..., 2] > 150) & (image[..., 1] < 110) & (image[..., 0] < 110)).sum())
    assert max(red) > 50 and min(red) == 0, "boxes of instances are drawn in red; a whole image has none"


def test_names_from_the_file_are_text_on_the_page(write, tmp_path):
    def change(content, folder):
        DAMAGE["a bow tie"][0](content, folder)
        content["categories"][0]["name"] = "<script>alert(1)</script>"

    _, page = page_of(write(change), tmp_path)
    assert "<script>" not in page and "&lt;script&gt;" in page


def test_the_command_writes_it(write, tmp_path, capsys):
    path = write(DAMAGE["a bow tie"][0])
    assert main([str(path), "--page", str(tmp_path / "page.html")]) == 0
    assert problems.SELF_CROSSING in (tmp_path / "page.html").read_text()

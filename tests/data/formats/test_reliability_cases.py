"""The annotation files of `../shared/cases/reliability`, in datasets as a user would have them."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from mrcnn import load_dataset
from mrcnn.data.annotations.problems import AnnotationError
from mrcnn.data.check import main

CASES = Path(__file__).resolve().parents[4] / "shared" / "cases" / "reliability"


def case(name):
    path = CASES / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    return path


def image(path, content=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((40, 40), content, np.uint8))


@pytest.mark.parametrize(
    "name, message",
    [
        ("lol.yaml", r"data.yaml, line \d+: .*more than 1,000,000 values"),
        ("date.yaml", r"data.yaml, line \d+: .*day is out of range for month"),
        ("devzero.yaml", "data.yaml, field 'train': it points to '/dev/zero', not a folder or file"),
    ],
)
def test_yaml_that_takes_all_time_or_memory(tmp_path, capsys, name, message):
    yaml = case("yaml-bombs") / name
    image(tmp_path / "images" / "train" / "a.png")
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train" / "a.txt").write_text("0 0.1 0.1 0.5 0.1 0.5 0.5\n")
    shutil.copy(yaml, tmp_path / "data.yaml")
    with pytest.raises(AnnotationError, match=message):
        load_dataset(tmp_path, "train")
    assert main([str(tmp_path), "--subset", "train"]) == 2
    assert "data.yaml" in capsys.readouterr().err


def test_xml_in_an_encoding_that_does_not_exist(tmp_path):
    xml = case("voc-xml-encoding") / "a.xml"
    for name in "ab":
        image(tmp_path / "JPEGImages" / f"{name}.jpg")
        image(tmp_path / "SegmentationObject" / f"{name}.png", 1)
        image(tmp_path / "SegmentationClass" / f"{name}.png", 1)
    (tmp_path / "Annotations").mkdir()
    shutil.copy(xml, tmp_path / "Annotations" / "a.xml")
    with pytest.raises(AnnotationError, match="a.xml, line 1, field 'encoding': 'utf8x' is not a text encoding"):
        load_dataset(tmp_path)
    with pytest.warns(UserWarning, match="a.xml, line 1"):
        dataset = load_dataset(tmp_path, strict=False)
    assert len(dataset.image_ids) == 2

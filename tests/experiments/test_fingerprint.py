"""Fingerprints of datasets depend on what they teach, and not on where they lie."""

import dataclasses
import shutil

import numpy as np
import pytest

from mrcnn.data.dataset import Dataset
from mrcnn.data.formats.coco import read_coco
from mrcnn.experiments.fingerprint import fingerprint
from tests.samples.tiny_coco import write_coco
from tests.tiny import TinyDataset


def made(**record):
    dataset = Dataset()
    dataset.add_class("mine", 1, "cat")
    dataset.add_image("mine", 7, None, **record)
    dataset.prepare()
    return dataset


def coco(folder):
    return read_coco(folder / "annotations" / "instances_train2017.json", folder / "train2017")


def test_folders_do_not_count_but_annotations_and_image_files_do(tmp_path):
    folder = write_coco(tmp_path / "a")
    shutil.copytree(folder, tmp_path / "b")
    assert fingerprint(coco(folder)) == fingerprint(coco(tmp_path / "b"))
    file = tmp_path / "b" / "annotations" / "instances_train2017.json"
    text = file.read_text()
    file.write_text(text.replace("[48, 20, 72, 20", "[48, 20, 71, 20", 1))
    assert fingerprint(coco(folder)) != fingerprint(coco(tmp_path / "b"))
    file.write_text(text)
    image = next((tmp_path / "b" / "train2017").iterdir())
    image.write_bytes(image.read_bytes() + b"\0")
    assert fingerprint(coco(folder)) != fingerprint(coco(tmp_path / "b"))


@pytest.mark.parametrize(
    "one, other",
    [
        ({"n": 1}, {"n": 2}),
        ({"n": [1, 2]}, {"n": [2, 1]}),
        ({"n": [[1], [2]]}, {"n": [[1, 2]]}),
        ({"n": np.zeros(2)}, {"n": np.zeros(3)}),
        ({"n": "1"}, {"n": 1}),
        ({"n": {"a": 1}}, {"n": {"b": 1}}),
    ],
)
def test_what_differs_has_another_hash(one, other):
    assert fingerprint(made(**one)) != fingerprint(made(**other))
    assert fingerprint(made(**one)) == fingerprint(made(**one))


def test_attributes_count_that_generated_images_follow_from():
    assert fingerprint(TinyDataset(2, seed=1)) != fingerprint(TinyDataset(2, seed=2))
    assert fingerprint(TinyDataset(2, seed=1)) == fingerprint(TinyDataset(2, seed=1))


def test_dataclasses_with_slots_are_read_by_their_fields():
    @dataclasses.dataclass(slots=True)
    class Record:
        outline: list

    assert fingerprint(made(n=Record([1, 2]))) == fingerprint(made(n=Record([1, 2])))
    assert fingerprint(made(n=Record([1, 2]))) != fingerprint(made(n=Record([1, 3])))


def test_objects_without_a_text_of_their_own_and_endless_nesting_are_no_trouble():
    nested: list = []
    nested.append(nested)
    assert fingerprint(made(n=object(), s={2, 1}, f=len)) == fingerprint(made(n=object(), s={1, 2}, f=len))
    assert fingerprint(made(n=nested)) == fingerprint(made(n=nested))

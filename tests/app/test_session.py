"""What a visitor drops, sees, corrects and downloads, without a page."""

import copy
import json
import zipfile

import cv2
import numpy as np
import pytest

from mrcnn.app.session import Choice, NamedModel, Session
from mrcnn.app.view import reduced_image, reduced_result
from mrcnn.data import rle
from mrcnn.inference.results import Result, SoftMasks
from tests.cli.conftest import Model

EVERYTHING = Choice(0.05)


@pytest.fixture
def session(tmp_path):
    for name, value in (("a.png", 90), ("b.png", 150)):
        cv2.imwrite(str(tmp_path / name), np.full((64, 64, 3), value, np.uint8))
    made = Session([NamedModel("one", Model()), NamedModel("two", Model())])
    made.take([str(tmp_path / "a.png"), str(tmp_path / "b.png")])
    return made


def test_files_that_are_no_images_are_named_and_left_out(session, tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    problems = session.take([str(tmp_path / "notes.txt"), str(tmp_path / "b.png"), str(tmp_path / "gone.png")])
    assert [line.partition(":")[0] for line in problems] == ["notes.txt", "gone.png"]
    assert "is not an image" in problems[0] and str(tmp_path) not in "".join(problems)
    assert session.labels == ["b.png"]


def test_a_copy_is_a_session_of_its_own_with_the_same_models(session):
    other = copy.deepcopy(session)
    other.class_names[0].append("sea lion")
    assert other.paths == [] and other.models == session.models and "sea lion" not in session.all_names()


def test_images_of_one_name_are_told_apart(session, tmp_path):
    (tmp_path / "sub").mkdir()
    cv2.imwrite(str(tmp_path / "sub" / "a.png"), np.zeros((64, 64, 3), np.uint8))
    session.take([str(tmp_path / "a.png"), str(tmp_path / "sub" / "a.png"), str(tmp_path / "b.png")])
    assert session.labels == ["a.png", "a.png (2)", "b.png"]


def test_a_name_of_another_image_is_not_given_twice(session, tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("sub/a.png", "a.png (2)"):
        (tmp_path / name).write_bytes((tmp_path / "a.png").read_bytes())
    session.take([str(tmp_path / name) for name in ("a.png", "sub/a.png", "a.png (2)")])
    assert len(set(session.labels)) == 3


def test_scores_and_classes_choose_what_is_shown(session):
    """The scores are 0.9, 0.8 and 0.7."""
    assert session.chosen(0, 0, EVERYTHING).tolist() == [0, 1, 2]
    assert session.chosen(0, 0, Choice(0.75)).tolist() == [0, 1]
    assert session.chosen(0, 0, Choice(0.5, ["dog"])).tolist() == [1]
    assert session.instances(0, 0, Choice(0.75)) == [("0  cat  0.90", 0), ("1  dog  0.80", 1)]


def test_each_image_is_detected_in_once(session):
    model = session.models[0].model
    seen, find = [], model.detect
    model.detect = lambda images, **options: seen.append(images) or find(images, **options)
    for score in (0.1, 0.5, 0.9):
        session.picture(0, 0, Choice(score))
    session.take(session.paths[:1])
    session.picture(0, 0, EVERYTHING)
    assert len(seen) == 1


def test_what_is_shown_is_drawn(session):
    all_of_it, none = session.picture(0, 0, EVERYTHING), session.picture(0, 0, Choice(0.95))
    assert all_of_it.shape == (64, 64, 3) and (none == 90).all()
    changed = (all_of_it != 90).any(axis=2)
    assert changed[20:36, 10:20].all() and not changed[43:47].any()  # the first object, and none


def test_a_click_finds_the_object_under_it(session):
    """The boxes are (8, 8, 40, 40), (4, 30, 20, 60) and (50, 0, 60, 9), as y1, x1, y2, x2."""
    assert session.at(0, 0, EVERYTHING, x=10, y=30) == 0
    assert session.at(0, 0, EVERYTHING, x=45, y=12) == 1
    assert session.at(0, 0, Choice(0.85), x=45, y=12) is None
    assert session.at(0, 0, EVERYTHING, x=60, y=60) is None


def test_a_corrected_class_is_in_the_json_and_the_cut_outs(session, tmp_path):
    session.correct(0, 0, 1, "  sea   lion ")
    session.correct(1, 0, 0, "dog")
    assert session.result(0, 0).names == ["cat", "sea lion", "Bär/../ü"]
    assert session.result(0, 1).names[1] == "dog"  # of the other model
    assert session.all_names() == ["cat", "dog", "Bär/../ü", "sea lion"]
    content = json.loads(session.write_json(tmp_path / "out.json", 0, EVERYTHING).read_text())
    names = {entry["id"]: entry["name"] for entry in content["categories"]}
    found = [(one["image_id"], names[one["category_id"]]) for one in content["annotations"]]
    assert found[:3] == [(1, "cat"), (1, "sea lion"), (1, "Bär/../ü")] and found[3] == (2, "dog")
    archive = zipfile.ZipFile(session.write_cut_outs(tmp_path / "out.zip", 0, Choice(0.75)))
    assert archive.namelist() == [
        "a.png/000_cat.png",
        "a.png/001_sea_lion.png",
        "b.png/000_dog.png",
        "b.png/001_dog.png",
    ]
    pixels = cv2.imdecode(np.frombuffer(archive.read("a.png/000_cat.png"), np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels.shape == (32, 32, 4) and (pixels[..., :3] == 90).all()


@pytest.mark.parametrize(
    "number, name, message",
    [(0, " ", "1 to 80 characters, got 0"), (0, "x" * 81, "got 81"), (3, "cat", "no object 3; they are 0 to 2")],
)
def test_what_cannot_be_corrected_is_said(session, number, name, message):
    with pytest.raises(ValueError, match=message):
        session.correct(0, 0, number, name)


def test_an_image_that_went_bad_is_an_error(session, tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a\.png"):
        session.result(0, 0)
    assert session.result(1, 0).count == 3


def result(**forms):
    probabilities = np.ones((2, 28, 28), np.float32)
    boxes = np.array([[10, 20, 110, 220], [300, 300, 301, 301]], np.float32)
    made = Result(boxes, np.array([1, 2]), np.array([0.9, 0.5]), SoftMasks(probabilities, boxes), (400, 800))
    for form in forms:
        made.prepare(form)
    return made


@pytest.mark.parametrize("form", [None, "rle", "crops"])
def test_a_reduced_result_has_its_masks_at_their_places(form):
    whole = result(**({form: True} if form else {}))
    small = reduced_result(whole, (100, 200))
    np.testing.assert_allclose(small.rois[0], [2.5, 5, 27.5, 55])
    first = small.masks[..., 0]
    assert first[4:26, 7:53].all() and first.sum() == pytest.approx(25 * 50, rel=0.1)
    assert reduced_result(whole, (400, 800)) is whole


def test_small_masks_do_not_vanish():
    small = reduced_result(result(rle=True), (100, 200))
    assert rle.area(small.rle[1]) == 1


def test_only_large_images_are_reduced():
    image = np.zeros((300, 100, 3), np.uint8)
    assert reduced_image(image, 300) is image and reduced_image(image, 150).shape == (150, 50, 3)

import pytest

from mrcnn.data.annotations import problems
from mrcnn.data.annotations.problems import AnnotationError, Problems


def test_an_error_says_where():
    error = AnnotationError("a.json", "annotation 3", "bbox", "expected four numbers")
    assert str(error) == "a.json, annotation 3, field 'bbox': expected four numbers"
    assert (error.file, error.record, error.field) == ("a.json", "annotation 3", "bbox")
    assert str(AnnotationError("a.json", "", "", "it is empty")) == "a.json: it is empty"


def test_strict_raises_and_says_the_way_out():
    with pytest.raises(AnnotationError, match=r"^a.csv, line 2, field 'x': gone \(strict=False skips it\)$"):
        Problems().broken("a.csv", "line 2", "x", "gone")


def test_everything_left_out_is_counted_and_said_once():
    found = Problems(strict=False)
    found.broken("a.csv", "line 2", "x", "gone")
    found.broken("a.csv", "line 3", "", "no file", problems.MISSING)
    found.left_out(problems.EMPTY, "a.csv", "line 4", "", "no pixel")
    found.left_out(problems.EMPTY, "a.csv", "line 5", "", "no pixel")
    found.noted(problems.PARTLY_OUTSIDE, "a.csv", "line 6", "", "too far right", "cut off at the border")
    assert len(found) == 5
    assert found.counts() == {
        "broken record": 1,
        "missing image file": 1,
        "empty mask": 2,
        "outline partly outside the image": 1,
    }
    assert [p.treatment for p in found] == ["left out"] * 4 + ["cut off at the border"]
    assert str(list(found)[4]) == "a.csv, line 6: too far right (cut off at the border)"
    with pytest.warns(
        UserWarning,
        match=r"^a.csv: left out 1 x broken record, 1 x missing image file, 2 x empty mask; "
        r"the first: a.csv, line 2, field 'x': gone",
    ):
        found.warn("a.csv")


def test_nothing_left_out_warns_of_nothing(recwarn):
    found = Problems()
    found.noted(problems.PARTLY_OUTSIDE, "a.csv", "line 6", "", "too far right", "cut off at the border")
    found.warn("a.csv")
    assert not recwarn.list

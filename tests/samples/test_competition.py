"""What the competitions' programs share: held-out images, and the command line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrcnn.data.dataset import Dataset
from samples import competition


def dataset(ids):
    made = Dataset()
    made.add_class("x", 1, "thing")
    for image_id in ids:
        made.add_image("x", image_id, path=f"{image_id}.png")
    made.prepare()
    return made


def parse(*arguments):
    return competition.parser("", epochs=3).parse_args(["train", "--dataset", ".", "--weights", "none", *arguments])


PARTS = {"train": range(200), "val": range(200, 210), "other": range(300, 400)}


def load(part):
    return dataset(PARTS[part])


def ids(made):
    return [info["id"] for info in made.image_info]


def test_parts_by_name():
    training, validation = competition.datasets(load, parse())
    assert ids(training) == list(range(200)) and ids(validation) == list(range(200, 210))
    training, validation = competition.datasets(load, parse("--subset", "other", "--validation", "train"))
    assert ids(training) == list(range(300, 400)) and ids(validation) == list(range(200))
    assert competition.datasets(load, parse("--no-validation"))[1] is None


def test_a_share_splits_one_part_and_evaluate_takes_the_same_images():
    arguments = parse("--validation", "0.25")
    training, validation = competition.datasets(load, arguments)
    assert sorted(ids(training) + ids(validation)) == list(range(200))
    assert 25 < len(ids(validation)) < 75
    assert ids(competition.validation_dataset(load, arguments)) == ids(validation)
    assert list(validation.image_ids) == list(range(len(ids(validation))))
    assert ids(competition.datasets(load, parse("--validation", "0.25", "--no-validation"))[0]) == ids(training)


@given(st.text(), st.floats(0.01, 0.5), st.floats(0.5, 0.99))
def test_a_larger_share_holds_out_what_a_smaller_does(image_id, less, more):
    assert competition.held_out(image_id, more) >= competition.held_out(image_id, less)


def test_a_share_without_images_is_an_error():
    few = lambda part: dataset(["only"])  # noqa: E731
    share = "0.001" if not competition.held_out("only", 0.001) else "0.999"
    with pytest.raises(ValueError, match=r"none of the 1 images is in a fraction of 0.001; set --validation to"):
        competition.validation_dataset(few, parse("--validation", share))


@pytest.mark.parametrize("share", ["0", "1", "1.5", "-0.1", "nan"])
def test_a_share_is_between_0_and_1(share, capsys):
    with pytest.raises(SystemExit):
        parse(f"--validation={share}")
    assert f"a fraction between 0 and 1, got {share}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["train", "--weights", "none"], "--dataset"),
        (["train", "--dataset", "."], "--weights"),
        (["detect", "--dataset", ".", "--weights", "none"], "invalid choice: 'detect'"),
        (["train", "--dataset", ".", "--weights", "none", "--set", "SEED"], "expected NAME=VALUE"),
        (
            ["submit", "--dataset", ".", "--weights", "none", "--min-score", "50"],
            "expected a score from 0 to 1, got 50",
        ),
        (["submit", "--dataset", ".", "--weights", "none", "--min-score", "x"], "expected a score from 0 to 1, got x"),
    ],
)
def test_a_wrong_command_line_says_what_is_wrong(arguments, message, capsys):
    with pytest.raises(SystemExit):
        competition.parser("", epochs=3).parse_args(arguments)
    assert message in capsys.readouterr().err

"""A few dozen damaged inputs of each format; `python -m tests.fuzz.annotations` reads as many as you like."""

import random

import pytest

from tests.data.scenes import FORMATS
from tests.fuzz.annotations import MOST_MEGABYTES, fuzz, mutated


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_damaged_annotations_raise_what_names_their_file(name, monkeypatch):
    monkeypatch.setattr(
        "tests.fuzz.annotations.MOST_SECONDS", 30.0
    )  # the script itself is stricter, on a quiet machine
    assert MOST_MEGABYTES == 200 and not fuzz(name, 50, 1)


def test_inputs_are_those_of_the_seed():
    data = b'{"images": [{"id": 1, "height": 20}], "annotations": []}'
    made = [[mutated(random.Random(f"{seed} {i}"), data, True) for i in range(50)] for seed in (0, 0, 1)]
    assert made[0] == made[1] != made[2] and len(set(made[0])) > 30

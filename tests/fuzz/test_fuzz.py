"""Some hundred inputs of each campaign; the scripts beside this file take any number."""

import os
import random
import time

import pytest

from tests.fuzz import campaign, h5, pickles


@pytest.mark.slow
@pytest.mark.parametrize("script, suffix", [(pickles, ".pkl"), (h5, ".h5")])
def test_damaged_files_are_read_or_refused(script, suffix):
    report = campaign.campaign(script.make, script.read, 300, seed=7, suffix=suffix)
    assert not report.failures, str(report)
    assert report.accepted > 5 and sum(report.refused.values()) > 100 and report.largest < campaign.MEGABYTES


@pytest.mark.slow
@pytest.mark.parametrize("script", [pickles, h5])
def test_undamaged_files_are_read(script, tmp_path):
    accepted = 0
    for i, data in enumerate(script.whole_files()):
        path = tmp_path / str(i)
        path.write_bytes(data)
        try:
            script.read(path)
            accepted += 1
        except ValueError as error:
            assert "is not a weights file of a known program" in str(error) or "not a checkpoint" in str(error)
    assert accepted


@pytest.mark.parametrize("script", [pickles, h5])
def test_an_input_is_made_of_its_number(script):
    first, again = (campaign.made(script.make, 3, 11) for _ in range(2))
    assert first == again != campaign.made(script.make, 3, 12)


def hang(path):
    while True:
        time.sleep(1)


def crash(path):
    os._exit(3)


def wrong(path):
    raise KeyError("x")


def memory(path):
    return bytearray(40 * 2**20).count(1)


@pytest.mark.slow
@pytest.mark.parametrize("fault, message", [(hang, "hang"), (crash, "crash"), (wrong, "KeyError"), (memory, "MB")])
def test_the_campaign_sees_what_it_is_for(monkeypatch, tmp_path, fault, message):
    monkeypatch.setattr(campaign, "SECONDS", 1)
    monkeypatch.setattr(campaign, "MEGABYTES", 20)

    def read(path):
        if path.read_bytes() == b"bad":
            fault(path)
        raise ValueError("no")

    def make(rng: random.Random):
        return next(kinds)

    kinds = iter([b"good", b"bad", b"good"] * 2)
    report = campaign.campaign(make, read, 2, keep=tmp_path / "kept")
    assert [number for number, _ in report.failures] == [1] and message in report.failures[0][1]
    assert report.refused == {"ValueError": 1}
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["1"]

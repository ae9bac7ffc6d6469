"""The benchmark of two processes: what it makes of times; a whole run is too long for a test."""

import io
import json

import pytest
import weak_scaling

pytestmark = pytest.mark.slow


def test_a_block_of_steps_is_asked_for_and_answered(monkeypatch):
    wall, cpu = iter((0.0, 6.0, 100.0, 102.0, 200.0)), iter((0.0, 3.0, 3.0, 5.5, 6.0))
    monkeypatch.setattr(weak_scaling.time, "perf_counter", lambda: next(wall))
    monkeypatch.setattr(weak_scaling.time, "process_time", lambda: next(cpu))
    answers = io.StringIO()
    steps = weak_scaling.Steps(2, io.StringIO("{}\n{}\n{}\n"), answers)
    steps.begin()
    for _ in range(4):
        steps.step()
    found = [json.loads(line) for line in answers.getvalue().splitlines()]
    assert found == [{"seconds": 3.0, "idle": 0.5}, {"seconds": 1.0, "idle": 0.0}]


def test_the_slower_process_counts_and_ratios_are_those_of_a_round():
    def round_of(one: float, apart: float, together: float) -> dict:
        return {
            "one": [{"seconds": one, "idle": 0.0}],
            "apart": [{"seconds": apart, "idle": 0.0}, {"seconds": apart / 2, "idle": 0.2}],
            "together": [{"seconds": together / 2, "idle": 0.5}, {"seconds": together, "idle": 0.3}],
        }

    lines = weak_scaling.table([round_of(1, 2, 4), round_of(10, 20, 40), round_of(2, 4, 5)]).splitlines()
    assert lines[2:5] == [
        "| one | 2.00 (1.00-10.00) | 1.00 | 0.0% |",
        "| apart | 4.00 (2.00-20.00) | 2.00 | 10.0% |",
        "| together | 5.00 (4.00-40.00) | 4.00 | 40.0% |",
    ]
    assert lines[-1] == "Of a step together, 50.0% is what two apart do not need."


def test_the_processes_get_ports_of_their_own():
    assert len(set(weak_scaling.free_ports(2))) == 2

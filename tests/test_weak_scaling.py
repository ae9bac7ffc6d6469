"""The benchmark of two processes: what it makes of times; a whole run is too long for a test."""

import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import weak_scaling  # noqa: E402


def test_a_step_is_timed_between_the_ends_of_steps_and_the_first_ones_do_not_count():
    steps = weak_scaling.Steps()
    steps.marks = [(0.0, 0.0), (50.0, 49.0), (52.0, 50.0), (55.0, 52.0)]
    assert steps.found() == {"seconds": 2.5, "idle": 1 - 3 / 5}


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

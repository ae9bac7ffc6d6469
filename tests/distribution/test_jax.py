"""Data parallelism on JAX, by keras.distribution: the losses of one device, and workers that are killed."""

import importlib.util

import pytest

from tests.processes import Program, assert_same, start_workers

pytestmark = pytest.mark.slow

if importlib.util.find_spec("jax") is None:
    pytest.skip("needs jax", allow_module_level=True)

# LLVM's optimization takes most of the time of so small a training
FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Trainings on one device, on two virtual ones, and on two workers, of which the second is killed after its first
    epoch of three steps, then started again with the other."""
    folder = tmp_path_factory.mktemp("runs")
    one_device = {"KERAS_BACKEND": "jax", "XLA_FLAGS": FLAGS}
    killed = start_workers(folder, "killed", [["--no-validation"], ["--no-validation", "--die-at", 4]], **one_device)
    local = Program(
        folder,
        "local",
        "one",
        "mirrored",
        "--no-validation",
        KERAS_BACKEND="jax",
        XLA_FLAGS=f"{FLAGS} --xla_force_host_platform_device_count=2",
    )
    status = [program.end() for program in killed]
    resumed = start_workers(folder, "resumed", [["--resume", "--no-validation"]] * 2, **one_device)
    for program in (local, *resumed):
        assert program.end() == 0, program.text[-3000:]
    return {"killed": killed, "status": status, "resumed": resumed, "local": local}


@pytest.mark.parametrize("key, count", [("step", 6), ("epoch", 2)])
def test_two_devices_have_the_losses_of_one(runs, key, count):
    expected = runs["local"].said("one", key)
    assert len(expected) == count
    assert_same(runs["local"].said("mirrored", key), expected)


def test_two_workers_have_the_losses_of_one(runs):
    steps = runs["local"].said("one", "step")
    for program in runs["killed"]:
        assert_same(program.said("multi_worker", "step"), {step: steps[step] for step in range(1, 5)})


def test_a_worker_that_is_killed_ends_the_others_with_a_clear_error(runs):
    """Which error depends on who notices first: the exchange of gradients, or JAX's coordinator, which ends the
    process itself."""
    ours, of_jax = "WorkerLost: worker 0 of 2 lost another worker", "likely indicates that another task died"
    assert runs["status"][1] == -9 and runs["status"][0] != 0
    assert ours in runs["killed"][0].text or of_jax in runs["killed"][0].text


def test_a_resumed_training_goes_on_as_an_unbroken_one(runs):
    steps = runs["local"].said("one", "step")
    for program in runs["resumed"]:
        assert_same(program.said("multi_worker", "step"), {step: steps[step] for step in (4, 5, 6)})

"""Data parallelism: the losses of one device, workers that are killed, and what goes wrong before it begins."""

import json
import socket
import threading
import time

import keras
import numpy as np
import pytest

from mrcnn.data.loader import Loader
from mrcnn.distribution import rendezvous
from mrcnn.distribution.strategy import TEXT_BYTES, Distribution, StopTogether, Together
from mrcnn.model import MaskRCNN
from mrcnn.network.pixels import PixelScaling
from mrcnn.training.optimizer import decays
from tests.processes import Program, assert_same, free_ports, start_workers
from tests.tiny import TinyConfig, TinyDataset

pytestmark = pytest.mark.slow

SCALING = PixelScaling((127.5,) * 3, (127.5,) * 3)


# Trainings


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Trainings of two epochs of three steps: on one device, mirrored, and on two workers of which the second is killed
    after step 5, then started again with the other."""
    folder = tmp_path_factory.mktemp("runs")
    killed = start_workers(folder, "killed", [[], ["--die-at", 5]])
    local = Program(folder, "local", "one", "mirrored")
    status = [program.end() for program in killed]
    files = sorted(str(path.relative_to(folder)) for path in folder.glob("multi_worker/*/mask_rcnn*"))
    resumed = start_workers(folder, "resumed", [["--resume", "--no-validation"]] * 2)
    for program in (local, *resumed):
        assert program.end() == 0, program.text[-3000:]
    return {"folder": folder, "killed": killed, "status": status, "files": files, "resumed": resumed, "local": local}


def test_mirrored_devices_have_the_losses_of_one(runs):
    for key, count in (("step", 6), ("epoch", 2)):
        expected = runs["local"].said("one", key)
        assert len(expected) == count
        assert_same(runs["local"].said("mirrored", key), expected)
    assert "val_mrcnn_mask_loss" in expected[0]
    losses = [losses["loss"] for losses in runs["local"].said("one", "step").values()]
    assert len(set(losses)) == 6  # every step had its own batch


def test_a_head_with_losses_of_its_own_has_those_of_one_device(tmp_path):
    """Points, predicted boxes, overlaps: each loss is its sum over the batch by its count, on however many devices."""
    program = Program(tmp_path, "heads", "one", "mirrored", "--scored-points", "--no-validation", "--epochs", 1)
    assert program.end() == 0, program.text[-3000:]
    expected = program.said("one", "step")
    assert len(expected) == 3 and expected[1]["mask_point_loss"] > 0 and expected[1]["mask_iou_loss"] > 0
    assert_same(program.said("mirrored", "step"), expected)


def test_replicas_hold_the_same_weights_and_see_the_whole_batch(runs):
    line = next(line for line in runs["local"].text.splitlines() if '"kind": "replicas"' in line)
    found = json.loads(line)
    assert found["mirrored"] > 40 and found["same"]  # BatchNorm that learns among them
    assert found["loss"] == float("inf") and found["part"] == 0.75 and found["ids"] == [7, 8, 9, 2**24]
    # Each of 28 x 28 cells of 1 goes into 9 sums, those at the four borders into 3 less, and into one more in a corner
    np.testing.assert_allclose(found["sums"], [9 * 28**2 - 4 * 3 * 28 + 4] * 2, rtol=1e-5)


def test_two_workers_have_the_losses_of_one(runs):
    steps, epochs = (runs["local"].said("one", key) for key in ("step", "epoch"))
    for program in runs["killed"]:
        assert_same(program.said("multi_worker", "step"), {step: steps[step] for step in range(1, 6)})
        assert_same(program.said("multi_worker", "epoch"), {0: epochs[0]})


def test_a_worker_that_is_killed_ends_the_others_with_a_clear_error(runs):
    assert runs["status"] == [1, -9]
    error = runs["killed"][0].text.splitlines()[-1]
    assert error.startswith("mrcnn.distribution.strategy.WorkerLost: worker 0 of 2 lost another worker (")
    assert 'with load_weights("last") before train they continue from the newest checkpoint' in error


def test_a_resumed_training_goes_on_as_an_unbroken_one(runs):
    steps = runs["local"].said("one", "step")
    for program in runs["resumed"]:
        assert_same(program.said("multi_worker", "step"), {step: steps[step] for step in (4, 5, 6)})


def test_the_chief_alone_writes(runs):
    (run,) = (runs["folder"] / "multi_worker").iterdir()
    assert runs["files"] == [f"multi_worker/{run.name}/mask_rcnn_tiny_0001.h5"]
    names = sorted(path.name for path in run.iterdir())
    assert names == [
        "config.json",
        "log.csv",
        "mask_rcnn_tiny_0001.h5",
        "mask_rcnn_tiny_0002.h5",
        "train",
        "validation",
    ]
    assert [line.split(",")[0] for line in (run / "log.csv").read_text().splitlines()] == ["epoch", "1", "2"]
    assert len(list((run / "train").iterdir())) == 2  # the chief's of before and after
    assert "Training to epoch" in runs["resumed"][0].text
    assert "Training to epoch" not in runs["resumed"][1].text


# Their batches


def test_shares_of_a_batch_make_the_batch():
    dataset, config = TinyDataset(5), TinyConfig(IMAGES_PER_GPU=4, HORIZONTAL_FLIP=0.5)
    options = {"scaling": SCALING, "steps": 3, "seed": 3}
    whole = Loader(dataset, config, **options).assemble_batch(1, 2)
    shares = [Loader(dataset, config, share=(k, 2), **options).assemble_batch(1, 2) for k in range(2)]
    for name, value in whole.items():
        np.testing.assert_array_equal(np.concatenate([share[name] for share in shares]), value)


def test_the_stream_of_batches_is_that_of_the_epochs():
    loader = Loader(TinyDataset(5), TinyConfig(), scaling=SCALING, steps=3, start_epoch=1)
    try:
        stream = list(loader.batches(3))
        assert len(stream) == 6
        for i, batch in enumerate(stream):
            np.testing.assert_array_equal(batch["seed"], loader.assemble_batch(1 + i // 3, i % 3)["seed"])
    finally:
        loader.close()


@pytest.mark.parametrize(
    "name, decayed",
    [
        ("conv/kernel:0", True),
        ("conv/kernel/replica_1:0", True),
        ("norm/gamma:0", False),
        ("gamma", False),
        ("norm/gamma/replica_1:0", False),
        ("norm/beta/replica_11:0", False),
        ("replica_1/kernel:0", True),
    ],
)
def test_no_replica_decays_what_the_first_does_not(name, decayed):
    class Variable:
        pass

    Variable.name = name
    assert decays(Variable()) is decayed


# Callbacks


class FakeWorkers(Together):
    """Two workers in one process: what they exchange is what the test says."""

    def __init__(self, worker, exchanged=()):
        super().__init__(worker, 2, 2)
        self.exchanged, self.sent = list(exchanged), []

    def total(self, values):
        self.sent.append(values)
        return np.asarray(self.exchanged.pop(0) if self.exchanged else values, np.uint8)


class Model:
    stop_training = False


def test_only_the_chief_calls_what_is_not_for_every_worker():
    alone, everywhere = object(), type("Everywhere", (), {"every_worker": True})()
    assert FakeWorkers(0).callbacks([alone, everywhere])[:2] == [alone, everywhere]
    others = FakeWorkers(1).callbacks([alone, everywhere])
    assert others[0] is everywhere and isinstance(others[1], StopTogether) and len(others) == 2
    assert Distribution().callbacks([alone]) == [alone]


def test_all_workers_stop_after_the_same_epoch():
    """One asks in the middle of an epoch, and goes on to its end; the other learns of it there."""
    asking, other = FakeWorkers(0), FakeWorkers(1, exchanged=[[1]])
    for workers, asks in ((asking, True), (other, False)):
        callback = StopTogether(workers)
        callback.set_model(Model())
        callback.model.stop_training = asks
        callback.on_train_batch_end(0)
        assert not callback.model.stop_training
        callback.on_epoch_end(0)
        assert callback.model.stop_training
    assert asking.sent[0].tolist() == [True] and other.sent[0].tolist() == [False]


# What goes wrong at the start


def test_workers_that_hold_something_else_are_told():
    chief = FakeWorkers(0)
    assert chief.meet({"epoch": 3, "images": 9}, {}, "run1") == "run1"
    told = chief.sent[0]
    same = FakeWorkers(1, exchanged=[told, [0, 0]])
    assert same.meet({"epoch": 3, "images": 9}, {}, "") == "run1"
    other = FakeWorkers(1, exchanged=[told])
    with pytest.raises(ValueError, match=r"workers \[1\] differ from worker 0.*images is 8 here and 9 there"):
        other.meet({"epoch": 3, "images": 8}, {}, "")


def test_too_much_to_tell():
    with pytest.raises(ValueError, match="bytes are too many to send to the other workers"):
        FakeWorkers(0).meet({"names": "x" * TEXT_BYTES}, {}, "")


def test_settings_that_fit_no_device():
    with pytest.raises(ValueError, match="DISTRIBUTION must be one of .*, got 'horovod'"):
        TinyConfig(DISTRIBUTION="horovod")
    with pytest.raises(ValueError, match="GPU_COUNT = 1 with DISTRIBUTION = 'mirrored': set it to the number"):
        MaskRCNN("training", TinyConfig(DISTRIBUTION="mirrored"))
    with pytest.raises(ValueError, match="GPU_COUNT = 99, but tensorflow sees 1: .*CPU:0"):
        MaskRCNN("training", TinyConfig(DISTRIBUTION="mirrored", GPU_COUNT=99))


def test_detection_takes_one_device(tmp_path):
    config = TinyConfig(DISTRIBUTION="mirrored", GPU_COUNT=99)
    model = MaskRCNN("inference", config, tmp_path)
    assert type(model.distribution) is Distribution
    with pytest.raises(ValueError, match=r"DISTRIBUTION = 'mirrored' needs MaskRCNN\(\"training\", \.\.\.\)"):
        model.train(TinyDataset(), None)
    assert not list(tmp_path.iterdir())


CLUSTER = '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": %s}}'


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "[]",
        "{}",
        CLUSTER % 2,
        CLUSTER % -1,
        CLUSTER % '"x"',
        CLUSTER % "{}",
        '{"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
    ],
)
def test_tf_config_that_cannot_be_read(monkeypatch, text):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match="needs the environment variable TF_CONFIG in every process, such as"):
        MaskRCNN("training", TinyConfig(DISTRIBUTION="multi_worker", GPU_COUNT=2))


@pytest.mark.parametrize("kind, index, place", [("chief", 0, 0), ("worker", 0, 1), ("worker", 1, 2)])
def test_tf_config_with_a_chief(monkeypatch, kind, index, place):
    monkeypatch.setenv(
        "TF_CONFIG",
        json.dumps(
            {"cluster": {"worker": ["b:2", "[::1]:3"], "chief": ["a:1"]}, "task": {"type": kind, "index": index}}
        ),
    )
    assert rendezvous.read_cluster() == (["a:1", "b:2", "[::1]:3"], place)


def run_all(addresses, indices, timeout, delays=None):
    """What `wait_for_all` raises on each of these workers, or None."""
    results = {}

    def one(index):
        time.sleep((delays or {}).get(index, 0))
        try:
            results[index] = rendezvous.wait_for_all(addresses, index, timeout)
        except TimeoutError as error:
            results[index] = error

    threads = [threading.Thread(target=one, args=(index,)) for index in indices]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize("late", [0, 2])
def test_workers_meet_whoever_comes_last_and_leave_the_port_free(late):
    (port,) = free_ports(1)
    addresses = [f"127.0.0.1:{port}", "127.0.0.1:2", "127.0.0.1:3"]
    assert run_all(addresses, range(3), 30, {late: 0.5}) == dict.fromkeys(range(3))
    socket.create_server(("127.0.0.1", port)).close()


def test_workers_name_who_is_missing():
    (port,) = free_ports(1)
    addresses = [f"127.0.0.1:{port}", "127.0.0.1:2", "host:3"]
    results = run_all(addresses, [0, 1], 1)
    assert "worker 2 (host:3) did not connect within 1 seconds" in str(results[0])
    assert isinstance(results[1], TimeoutError)
    only = run_all(addresses, [2], 0.5)
    assert f"worker 0 (127.0.0.1:{port}), or other workers that it waits for, did not connect" in str(only[2])


def test_strangers_at_the_port_are_not_workers():
    (port,) = free_ports(1)
    results = {}
    addresses = [f"127.0.0.1:{port}", "127.0.0.1:2"]
    chief = threading.Thread(target=lambda: results.update(run_all(addresses, [0], 20)))
    chief.start()
    deadline = time.monotonic() + 10
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port)) as stranger:
                stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
                assert stranger.recv(10) == b""
            break
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
    results.update(run_all(addresses, [1], 20))
    chief.join()
    assert results == {0: None, 1: None}


def test_batches_of_several_sizes_pass_through_one_dataset():
    """Keras would take the shapes of a loader from its first two batches."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("other backends take the loader itself")
    sizes = ((64, 64), (64, 64), (64, 64), (64, 64), (64, 120), (64, 120), (120, 64), (120, 64))
    config = TinyConfig(IMAGE_MIN_DIM=64, IMAGE_MAX_DIM=128)
    loader = Loader(TinyDataset(8, sizes=sizes), config, scaling=SCALING, steps=4, training=False)
    try:
        arguments = Distribution().data(loader, None, 1)
        assert arguments["steps_per_epoch"] == 4
        assert arguments["x"].element_spec[0]["image"].shape == (2, None, None, 3)
        found = {tuple(batch["image"].shape[1:3]) for (batch,) in arguments["x"].take(4)}
        assert found == {(64, 64), (64, 128), (128, 64)}
    finally:
        loader.close()

"""Training that stops and goes on: at Ctrl-C, within epochs, between calls, and what it says about it."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from mrcnn.config import Config
from mrcnn.files import FolderInUseError, locked
from mrcnn.model import MaskRCNN
from mrcnn.training.interruption import TrainingInterrupted
from mrcnn.training.optimizer import schedule_for
from mrcnn.training.run_folder import Run, RunPath
from mrcnn.training.trainer import Trainer
from tests.tiny import TinyConfig, TinyDataset

pytestmark = pytest.mark.slow

TOLERANCE = 1e-5  # threads add up sums in any order
ROOT = Path(__file__).resolve().parents[2]


class Settings(TinyConfig):
    STEPS_PER_EPOCH = 4
    HORIZONTAL_FLIP = 0.5


def contents(model):
    """Weights and training state by name."""
    weights = {
        f"{key}/{weight.name}": np.array(weight)
        for key, layer in model.network.layers().items()
        for weight in layer.weights
    }
    return weights | {name: np.array(value) for name, value in model.run.state.items()}


def assert_same(first, second):
    first, second = contents(first), contents(second)
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_allclose(value, second[name], rtol=0, atol=TOLERANCE, err_msg=name)


class Interrupt(keras.callbacks.Callback):
    """Ctrl-C at an event: "train_batch_end", "test_begin" or "epoch_end", when it comes for the `count`-th time."""

    def __init__(self, event, count=1):
        super().__init__()
        self.count = count
        setattr(self, f"on_{event}", self.happen)

    def happen(self, *_, **__):
        self.count -= 1
        if not self.count:
            os.kill(os.getpid(), signal.SIGINT)


def files(model):
    return sorted(path.name for path in model.log_dir.glob("*.h5"))


def rows(model):
    lines = (model.log_dir / "log.csv").read_text().splitlines()
    return [[float(value) for value in line.split(",")] for line in lines[1:]]


@pytest.fixture(scope="module")
def data():
    return TinyDataset(5), TinyDataset(2, seed=1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data):
    """Two epochs without interruption."""
    model = MaskRCNN("training", Settings(), tmp_path_factory.mktemp("whole"))
    model.train(*data, epochs=2, verbose=0)
    return model


def interrupted(folder, data, event, count, message):
    model = MaskRCNN("training", Settings(), folder)
    with pytest.raises(TrainingInterrupted, match=message):
        model.train(*data, epochs=2, verbose=0, custom_callbacks=[Interrupt(event, count)])
    return model


def test_an_interrupted_training_goes_on_in_the_same_process(tmp_path, data, whole):
    """With the weights, momentum and log of one that was not interrupted. To callbacks it is one training."""
    message = "in epoch 1, after 2 of 4 steps. Saved: .*tiny_0000_step000002.h5. To continue"
    model = interrupted(tmp_path, data, "train_batch_end", 2, message)
    events = []
    spy = keras.callbacks.LambdaCallback(
        **{f"on_{name}": lambda *a, n=name: events.append(n) for name in ("train_begin", "epoch_begin", "train_end")},
        on_train_batch_end=lambda batch, logs: events.append(batch),
    )
    history = model.train(*data, epochs=2, verbose=0, custom_callbacks=[spy])
    assert events == ["train_begin", "epoch_begin", 2, 3, "epoch_begin", 0, 1, 2, 3, "train_end"]
    assert history.epoch == [0, 1] and {"loss", "val_loss"} <= set(history.history)
    assert_same(model, whole)
    assert files(model) == files(whole) == ["mask_rcnn_tiny_0001.h5", "mask_rcnn_tiny_0002.h5"]
    np.testing.assert_allclose(rows(model), rows(whole), atol=1e-4)


@pytest.mark.parametrize(
    "event, count, position, message",
    [
        ("test_begin", 2, (1, 4), "in epoch 2, after 4 of 4 steps. Saved: .*tiny_0001_step000004.h5"),
        ("epoch_end", 1, (1, 0), "after epoch 1. Saved: .*tiny_0001.h5"),
    ],
)
def test_an_interrupted_training_goes_on_in_another_process(tmp_path, data, whole, event, count, position, message):
    folder = interrupted(tmp_path, data, event, count, message).log_dir
    model = MaskRCNN("training", Settings(), tmp_path)
    model.load_weights("last")
    assert (model.run.epoch, model.run.step, model.log_dir) == (*position, folder)
    assert model.train(*data, epochs=2, verbose=0).epoch == [1]
    assert_same(model, whole)
    assert files(model) == files(whole)
    np.testing.assert_allclose(rows(model), rows(whole), atol=1e-4)


@pytest.mark.parametrize(
    "saved, message",
    [
        (("mask_rcnn_tiny_0005.h5", "mask_rcnn_tiny_0006.h5", ".mask_rcnn_tiny_0006_.tmp"), r"Saved: .*tiny_0006.h5\."),
        ((), r"Nothing was saved\."),
        (None, r"Nothing was saved\."),
    ],
)
def test_ctrl_c_while_saving_leaves_the_checkpoints_of_earlier_epochs(tmp_path, saved, message):
    def save(*_):
        raise KeyboardInterrupt

    run = Run(None if saved is None else RunPath(tmp_path), epoch=6, step=3)
    for name in saved or ():
        (tmp_path / name).touch()
    error = Trainer._interruption(SimpleNamespace(run=run, _save=save), 10)
    assert re.fullmatch(f"in epoch 7, after 3 of 10 steps. {message}", error.state) and error.saved == bool(saved)


def test_a_kill_costs_no_more_than_the_steps_between_checkpoints(tmp_path, data, whole):
    class Kill(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                raise RuntimeError("killed")

    killed = MaskRCNN("training", Settings(CHECKPOINT_STEPS=2), tmp_path)
    with pytest.raises(RuntimeError, match="killed"):
        killed.train(*data, epochs=2, verbose=0, custom_callbacks=[Kill()])
    assert files(killed) == ["mask_rcnn_tiny_0000_step000002.h5"]
    resumed = MaskRCNN("training", Settings(CHECKPOINT_STEPS=2), tmp_path)
    resumed.load_weights("last")
    resumed.train(*data, epochs=2, verbose=0)
    assert_same(resumed, whole)
    assert files(resumed) == files(whole)


def test_a_callback_may_end_training_in_the_epoch_that_was_resumed(tmp_path, data):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    model = interrupted(tmp_path, data, "train_batch_end", 3, "after 3 of 4 steps")
    history = model.train(data[0], None, epochs=3, verbose=0, custom_callbacks=[Stop()])
    assert history.epoch == [0] and model.epoch == 1


def test_calls_on_one_object_need_no_files(tmp_path, data, whole):
    """An epoch, the folder deleted, another: as two epochs in one call."""
    model = MaskRCNN("training", Settings(), tmp_path / "a")
    model.train(*data, epochs=1, verbose=0)
    shutil.rmtree(tmp_path / "a")
    model.train(*data, epochs=2, verbose=0)
    assert files(model) == ["mask_rcnn_tiny_0002.h5"]
    assert_same(model, whole)


def test_two_trainings_do_not_share_a_folder(tmp_path, data, whole):
    """Nor does one continue what another has continued meanwhile."""
    second = MaskRCNN("training", Settings(), whole.model_dir)
    second.load_weights(whole.checkpoint_path(2))
    assert second.log_dir == whole.log_dir
    with locked(whole.log_dir), pytest.raises(FolderInUseError, match=f"process {os.getpid()}"):
        second.train(*data, epochs=3, verbose=0)
    later = whole.log_dir / "mask_rcnn_tiny_0003.h5"
    later.touch()
    with pytest.raises(RuntimeError, match="another process has continued the run in .* to mask_rcnn_tiny_0003.h5"):
        second.train(*data, epochs=3, verbose=0)
    later.unlink()
    assert not (whole.log_dir / ".lock").exists()


def test_the_best_checkpoint_of_a_run_begins_a_new_one(whole):
    best = whole.log_dir / "mask_rcnn_tiny_best.h5"
    whole.save_weights(best)
    model = MaskRCNN("training", Settings(), whole.model_dir)
    model.load_weights(best)
    assert (model.epoch, model.run.folder, dict(model.run.state)) == (0, None, {})
    best.unlink()


SCRIPT = """
import os, signal, sys
import keras
from mrcnn.model import MaskRCNN
from tests.tiny import TinyConfig, TinyDataset

class Interrupt(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        os.kill(os.getpid(), signal.SIGINT)

model = MaskRCNN("training", TinyConfig(), sys.argv[1])
model.train(TinyDataset(2), None, epochs=1, verbose=0, custom_callbacks=[Interrupt()])
print("not reached")
"""


def test_a_script_that_is_interrupted_ends_in_one_line(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 1
    assert "not reached" not in result.stdout
    assert "Traceback" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if "interrupt" in line.lower()]
    assert re.match(r"Training was interrupted in epoch 1, after 1 of 2 steps. Saved: \S+_0000_step000001.h5. To", line)


def test_the_first_step_says_once_that_it_traces(tmp_path, data, capsys):
    model = MaskRCNN("training", TinyConfig(), tmp_path)
    model.train(data[0], None, epochs=2, verbose=2)
    assert capsys.readouterr().out.count("The first step traces the graph") == 1
    model.train(data[0], None, epochs=3, verbose=0)
    assert "traces" not in capsys.readouterr().out


def test_a_notebook_shows_the_message_alone():
    (line,) = TrainingInterrupted("after epoch 3. Saved: x.")._render_traceback_()
    assert line.startswith("Training was interrupted after epoch 3. Saved: x. To continue, call train")


# The learning rate


def rate(model):
    return float(np.asarray(model.training_model.optimizer.learning_rate))


class Rates(keras.callbacks.Callback):
    """The learning rate of every step."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_begin(self, batch, logs=None):
        self.seen.append(float(np.asarray(self.model.optimizer.learning_rate)))


SAID = {name: value for name, value in vars(TinyConfig).items() if name.isupper()}
# As a program of the old package, which says nothing about warm-up and schedule
Unscheduled = type("Unscheduled", (Config,), {**SAID, "STEPS_PER_EPOCH": 100, "IMAGES_PER_GPU": 1})
for _name in ("WARMUP_STEPS", "LR_SCHEDULE", "LEARNING_RATE"):
    delattr(Unscheduled, _name)


def test_a_program_of_100_steps_that_asks_for_a_rate_trains_at_it_within_10(tmp_path):
    model, rates = MaskRCNN("training", Unscheduled(), tmp_path), Rates()
    model.train(TinyDataset(2), None, learning_rate=1e-3, epochs=1, layers="heads", verbose=0, custom_callbacks=[rates])
    assert len(rates.seen) == 100
    np.testing.assert_allclose(rates.seen[9:], 1e-3, rtol=1e-6)
    assert rates.seen[0] < rates.seen[5] < 1e-3


@pytest.mark.parametrize(
    "settings, learning_rate, expected",
    [
        ({}, None, (0.0025, "step", 99)),
        ({}, 1e-3, (1e-3, "constant", 99)),
        ({"LR_SCHEDULE": "step"}, 1e-3, (1e-3, "step", 99)),
        ({"LR_STEPS": (0.5,)}, 1e-3, (1e-3, "step", 99)),
        ({"WARMUP_STEPS": 300}, 1e-3, (1e-3, "constant", 300)),
        ({"LEARNING_RATE": 0.5}, None, (0.5, "step", 99)),
    ],
)
def test_the_schedule_is_the_configuration_s_or_the_caller_s_rate(settings, learning_rate, expected):
    schedule = schedule_for(Unscheduled(**settings), learning_rate, 1000)
    assert (schedule.base, schedule.kind, schedule.warmup_steps) == expected


def test_a_long_training_keeps_the_reference_warm_up():
    assert schedule_for(Unscheduled(), None, 90_000).warmup_steps == 1000


def test_a_scheduler_among_the_callbacks_sets_the_rate(tmp_path):
    model, rates = MaskRCNN("training", Unscheduled(STEPS_PER_EPOCH=3), tmp_path), Rates()
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.01 * 0.5**epoch)
    history = model.train(
        TinyDataset(2), None, learning_rate=0.1, epochs=2, verbose=0, custom_callbacks=[scheduler, rates]
    )
    np.testing.assert_allclose(rates.seen, [0.01] * 3 + [0.005] * 3, rtol=1e-6)
    np.testing.assert_allclose(history.history["learning_rate"], [0.01, 0.005], rtol=1e-6)


def test_a_plateau_lowers_the_rate_and_it_stays_low_when_training_goes_on(tmp_path):
    """`mode="max"` on a falling loss: every epoch after the first is a plateau."""

    def plateau():
        return keras.callbacks.ReduceLROnPlateau("loss", mode="max", factor=0.5, patience=1, min_delta=1e9)

    model, rates = MaskRCNN("training", Unscheduled(STEPS_PER_EPOCH=2, WARMUP_STEPS=0), tmp_path), Rates()
    options = {"learning_rate": 0.02, "epochs": 3, "verbose": 0}
    with pytest.raises(TrainingInterrupted):
        stop = Interrupt("train_batch_end", 5)
        model.train(TinyDataset(2), None, **options, custom_callbacks=[plateau(), rates, stop])
    np.testing.assert_allclose(rates.seen, [0.02] * 4 + [0.01], rtol=1e-6)
    resumed, rates = MaskRCNN("training", Unscheduled(STEPS_PER_EPOCH=2, WARMUP_STEPS=0), tmp_path), Rates()
    resumed.load_weights("last")
    resumed.train(TinyDataset(2), None, **options, custom_callbacks=[rates])
    np.testing.assert_allclose(rates.seen, [0.01], rtol=1e-6)


# Settings


def test_what_is_assigned_to_the_configuration_before_training_counts(tmp_path):
    """Programs of the old package set STEPS_PER_EPOCH once they know their data; the model is there by then."""
    config = TinyConfig(STEPS_PER_EPOCH=50)
    model = MaskRCNN("training", config, tmp_path)
    config.STEPS_PER_EPOCH = 1
    model.train(TinyDataset(2), None, epochs=1, verbose=0)
    assert int(np.asarray(model.training_model.optimizer.iterations)) == 1
    model.config.STEPS_PER_EPOCH = 2
    model.train(TinyDataset(2), None, epochs=2, verbose=0)
    assert int(np.asarray(model.training_model.optimizer.iterations)) == 4

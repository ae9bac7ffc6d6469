"""Checkpoints, the table of losses, TensorBoard's files, and the stop at a loss that is not finite."""

import types

import numpy as np
import pytest

from mrcnn.training.callbacks import EpochLog, SaveCheckpoint, StopAtNonFiniteLoss, TensorBoardEvents, tensorboard
from mrcnn.training.run_folder import checkpoint_name


class Saver:
    """Writes an empty file per checkpoint."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, epoch, step=0):
        path = self.folder / checkpoint_name("tiny", epoch, step)
        path.touch()
        return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def named(*positions):
    return sorted(checkpoint_name("tiny", *position) for position in positions)


def run_epoch(callback, epoch, steps=4, until=None):
    """As `fit` calls it; `until` ends the epoch early, as a kill does."""
    callback.set_params({"steps": steps})
    callback.on_epoch_begin(epoch)
    for batch in range(steps if until is None else until):
        callback.on_train_batch_end(batch)
    if until is None:
        callback.on_epoch_end(epoch)


@pytest.mark.parametrize("keep, left", [(None, [1, 2, 3]), (1, [3]), (2, [2, 3]), (9, [1, 2, 3])])
def test_the_newest_checkpoints_are_kept(tmp_path, keep, left):
    callback = SaveCheckpoint(Saver(tmp_path), keep)
    for epoch in range(3):
        run_epoch(callback, epoch)
    assert names(tmp_path) == named(*((epoch,) for epoch in left))


def test_within_an_epoch_only_the_newest_checkpoint_is_kept_and_none_after_it(tmp_path):
    """After 2 and 4 of 5 steps; of those kept, `keep` counts the epochs alone."""
    callback = SaveCheckpoint(Saver(tmp_path), keep=1, every=2)
    run_epoch(callback, 0, steps=5, until=3)
    assert names(tmp_path) == named((0, 2))
    run_epoch(callback, 0, steps=5)
    assert names(tmp_path) == named((1,))
    run_epoch(callback, 1, steps=5, until=4)
    assert names(tmp_path) == named((1,), (1, 4))
    run_epoch(callback, 1, steps=5)
    assert names(tmp_path) == named((2,))


def test_the_last_step_of_an_epoch_needs_no_checkpoint_of_its_own(tmp_path):
    saver, positions = Saver(tmp_path), []
    callback = SaveCheckpoint(lambda *position: positions.append(position) or saver(*position), every=2)
    run_epoch(callback, 0, steps=4)
    assert positions == [(0, 2), (1, 0)]


def test_an_old_checkpoint_goes_only_once_the_new_one_is_there(tmp_path):
    callback = SaveCheckpoint(Saver(tmp_path), keep=1, every=1)
    run_epoch(callback, 0)
    run_epoch(callback, 1, until=1)

    def full_disk(epoch, step):
        raise OSError("no space left")

    callback.save = full_disk
    for end in (lambda: callback.on_train_batch_end(1), lambda: callback.on_epoch_end(1)):
        with pytest.raises(OSError, match="no space left"):
            end()
    assert names(tmp_path) == named((1,), (1, 1))


def test_those_of_before_a_resumption_count(tmp_path):
    saver = Saver(tmp_path)
    callback = SaveCheckpoint(saver, keep=2, written=[saver(1), saver(2), saver(2, 7)])
    run_epoch(callback, 2)
    assert names(tmp_path) == named((2,), (3,))


def test_a_checkpoint_that_the_user_removed_is_no_error(tmp_path):
    callback = SaveCheckpoint(Saver(tmp_path), keep=1)
    run_epoch(callback, 0)
    (tmp_path / checkpoint_name("tiny", 1)).unlink()
    run_epoch(callback, 1)
    assert names(tmp_path) == named((2,))


@pytest.fixture
def stop():
    callback = StopAtNonFiniteLoss(lambda i: f"image {i} (folder/{i}.jpg)")
    callback.set_model(types.SimpleNamespace(image_ids=np.array([7, 3, 7])))
    return callback


def test_finite_losses_go_on(stop):
    assert stop.on_train_batch_end(0, {"loss": 1.0, "mrcnn_mask_loss": np.float32(0)}) is None
    assert stop.on_train_batch_end(1, None) is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_not_finite_names_the_step_the_losses_and_each_image_once(stop, value):
    with pytest.raises(FloatingPointError) as caught:
        stop.on_train_batch_end(4, {"loss": value, "rpn_class_loss": 0.25})
    text = str(caught.value)
    assert "not finite at step 5 of the epoch" in text
    assert f"loss {value:.3g}, rpn_class_loss 0.25" in text
    assert "in a batch of: image 3 (folder/3.jpg), image 7 (folder/7.jpg). Check these" in text
    assert "lower LEARNING_RATE" in text


def test_a_validation_loss_that_is_not_finite_names_the_validation_set_s_images():
    callback = StopAtNonFiniteLoss(lambda i: f"train {i}", lambda i: f"val {i}")
    callback.set_model(types.SimpleNamespace(image_ids=np.array([2])))
    with pytest.raises(FloatingPointError, match="not finite at step 1 of the validation .*in a batch of: val 2"):
        callback.on_test_batch_end(0, {"loss": np.nan})


def lines(path):
    return path.read_text().splitlines()


def test_the_log_has_a_line_per_epoch_numbered_as_the_checkpoints_are(tmp_path):
    log = EpochLog(tmp_path / "log.csv")
    log.on_epoch_end(0, {"loss": 2.5, "val_loss": np.float32(3)})
    assert lines(log.path) == ["epoch,loss,val_loss", "1,2.5,3.0"], "readable while training goes on"
    log.on_epoch_end(1, {"loss": 1.5, "val_loss": float("nan")})
    assert lines(log.path)[2:] == ["2,1.5,nan"]


def test_a_resumed_training_keeps_the_lines_of_before_and_does_not_repeat_its_own(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("epoch,loss\n1,3.0\n2,2.0\n3,1.0\n")
    EpochLog(path, epochs=2).on_epoch_end(2, {"loss": 0.5})
    assert lines(path) == ["epoch,loss", "1,3.0", "2,2.0", "3,0.5"]


def test_what_only_some_epochs_have_has_its_own_column(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("epoch,loss,val_loss\n1,3.0,4.0\n")
    log = EpochLog(path, epochs=1)
    log.on_epoch_end(1, {"loss": 2.0, "val_AP": 0.5})
    assert lines(path) == ["epoch,loss,val_AP,val_loss", "1,3.0,NA,4.0", "2,2.0,0.5,NA"]


def test_a_line_is_there_before_what_adds_to_it_and_complete_after(tmp_path):
    log, logs = EpochLog(tmp_path / "log.csv"), {"loss": 2.0}
    log.on_epoch_end(0, logs)
    assert lines(log.path) == ["epoch,loss", "1,2.0"]
    log.on_epoch_end(0, logs | {"val_AP": 0.5})
    assert lines(log.path) == ["epoch,loss,val_AP", "1,2.0,0.5"]


def test_what_came_too_late_for_an_interrupted_epoch_is_added_when_training_goes_on(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("epoch,loss,val_AP\n1,3.0,0.25\n2,2.0,NA\n")
    log = EpochLog(path, epochs=2, late=[{1: {}, 2: {"val_AP": 0.5}}.get])
    log.on_train_begin()
    assert lines(path) == ["epoch,loss,val_AP", "1,3.0,0.25", "2,2.0,0.5"]


def test_a_new_run_replaces_what_lies_there(tmp_path):
    (tmp_path / "log.csv").write_text("epoch,loss\n1,3.0\n")
    EpochLog(tmp_path / "log.csv").on_epoch_end(0, {"loss": 1.0})
    assert lines(tmp_path / "log.csv") == ["epoch,loss", "1,1.0"]


def scalars(folder):
    """Tag and (step, value)s of a folder of events, as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    found = {tag: [(e.step, round(e.value, 6)) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    for tag in events.Tags()["tensors"]:  # as TensorFlow writes scalars
        from tensorboard.util.tensor_util import make_ndarray

        found[tag] = [(e.step, round(float(make_ndarray(e.tensor_proto)), 6)) for e in events.Tensors(tag)]
    return found


def train_with(callback):
    """Two epochs of a model of one weight, the losses 0.25 and 0.0625 of a validation set that is the training set."""
    import keras

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(keras.optimizers.SGD(0.25), "mse")
    one = np.ones((1, 1), np.float32)
    model.fit(one, 0.5 * one, epochs=2, validation_data=(one, 0.5 * one), callbacks=[callback], verbose=0)


@pytest.mark.slow
def test_tensorboard_reads_the_events_of_every_backend(tmp_path):
    train_with(TensorBoardEvents(tmp_path / "own"))
    train_with(tensorboard(tmp_path / "backend"))
    own = {part: scalars(tmp_path / "own" / part) for part in ("train", "validation")}
    assert own["train"] == {"epoch_loss": [(0, 0.25), (1, 0.0625)], "epoch_learning_rate": [(0, 0.25), (1, 0.25)]}
    assert own["validation"] == {"epoch_loss": [(0, 0.0625), (1, 0.015625)]}
    for part, found in own.items():
        theirs = scalars(tmp_path / "backend" / part)
        assert found == {tag: theirs[tag] for tag in found}

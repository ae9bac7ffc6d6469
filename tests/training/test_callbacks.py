"""Checkpoints at the end of epochs, the table of losses, and the stop at a loss that is not finite."""

import types

import numpy as np
import pytest

from mrcnn.training.callbacks import EpochLog, SaveCheckpoint, StopAtNonFiniteLoss, TensorBoardEvents, tensorboard


class Saver:
    """Writes an empty file an epoch."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, epoch):
        path = self.folder / f"{epoch:04d}.h5"
        path.touch()
        return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("keep, left", [(None, [1, 2, 3]), (1, [3]), (2, [2, 3]), (9, [1, 2, 3])])
def test_the_newest_checkpoints_are_kept(tmp_path, keep, left):
    callback = SaveCheckpoint(Saver(tmp_path), keep)
    for epoch in range(3):
        callback.on_epoch_end(epoch)
    assert names(tmp_path) == [f"{epoch:04d}.h5" for epoch in left]


def test_an_old_checkpoint_goes_only_once_the_new_one_is_there(tmp_path):
    saver = Saver(tmp_path)
    callback = SaveCheckpoint(saver, keep=1)
    callback.on_epoch_end(0)

    def full_disk(epoch):
        raise OSError("no space left")

    callback.save = full_disk
    with pytest.raises(OSError, match="no space left"):
        callback.on_epoch_end(1)
    assert names(tmp_path) == ["0001.h5"]


def test_those_of_before_a_resumption_count(tmp_path):
    saver = Saver(tmp_path)
    callback = SaveCheckpoint(saver, keep=2, written=[saver(1), saver(2)])
    callback.on_epoch_end(2)
    assert names(tmp_path) == ["0002.h5", "0003.h5"]


def test_a_checkpoint_that_the_user_removed_is_no_error(tmp_path):
    callback = SaveCheckpoint(Saver(tmp_path), keep=1)
    callback.on_epoch_end(0)
    (tmp_path / "0001.h5").unlink()
    callback.on_epoch_end(1)
    assert names(tmp_path) == ["0002.h5"]


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
    assert "in a batch of: image 3 (folder/3.jpg), image 7 (folder/7.jpg). Look at" in text
    assert "lower LEARNING_RATE" in text


def test_a_validation_loss_that_is_not_finite_names_the_validation_set_s_images():
    callback = StopAtNonFiniteLoss(lambda i: f"train {i}", lambda i: f"val {i}")
    callback.set_model(types.SimpleNamespace(image_ids=np.array([2])))
    with pytest.raises(FloatingPointError, match="not finite at step 1 of the validation .*in a batch of: val 2"):
        callback.on_test_batch_end(0, {"loss": np.nan})


def lines(path):
    return path.read_text().splitlines()


def test_the_log_has_a_line_an_epoch(tmp_path):
    log = EpochLog(tmp_path / "log.csv")
    log.on_epoch_end(0, {"loss": 2.5, "val_loss": np.float32(3)})
    assert lines(log.path) == ["epoch,loss,val_loss", "0,2.5,3.0"], "readable while training goes on"
    log.on_epoch_end(1, {"loss": 1.5, "val_loss": float("nan")})
    assert lines(log.path)[2:] == ["1,1.5,nan"]


def test_a_resumed_training_keeps_the_lines_of_before_and_does_not_repeat_its_own(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("epoch,loss\n0,3.0\n1,2.0\n2,1.0\n")
    EpochLog(path, first_epoch=2).on_epoch_end(2, {"loss": 0.5})
    assert lines(path) == ["epoch,loss", "0,3.0", "1,2.0", "2,0.5"]


def test_what_only_some_epochs_have_has_its_own_column(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("epoch,loss,val_loss\n0,3.0,4.0\n")
    log = EpochLog(path, first_epoch=1)
    log.on_epoch_end(1, {"loss": 2.0, "val_AP": 0.5})
    assert lines(path) == ["epoch,loss,val_AP,val_loss", "0,3.0,NA,4.0", "1,2.0,0.5,NA"]


def test_a_new_run_replaces_what_lies_there(tmp_path):
    (tmp_path / "log.csv").write_text("epoch,loss\n0,3.0\n")
    EpochLog(tmp_path / "log.csv").on_epoch_end(0, {"loss": 1.0})
    assert lines(tmp_path / "log.csv") == ["epoch,loss", "0,1.0"]


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


def test_tensorboard_reads_the_events_of_every_backend(tmp_path):
    train_with(TensorBoardEvents(tmp_path / "own"))
    train_with(tensorboard(tmp_path / "backend"))
    own = {part: scalars(tmp_path / "own" / part) for part in ("train", "validation")}
    assert own["train"] == {"epoch_loss": [(0, 0.25), (1, 0.0625)], "epoch_learning_rate": [(0, 0.25), (1, 0.25)]}
    assert own["validation"] == {"epoch_loss": [(0, 0.0625), (1, 0.015625)]}
    for part, found in own.items():
        theirs = scalars(tmp_path / "backend" / part)
        assert found == {tag: theirs[tag] for tag in found}

"""Callbacks for `fit`: checkpoints, log.csv, TensorBoard, and stopping at a loss that is not finite."""

import copy
import csv
import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mrcnn.files import write_atomically
from mrcnn.training.run_folder import position


class ResumedEpoch(keras.callbacks.CallbackList):
    """The callbacks of a run resumed within an epoch: one `fit` call for the rest of it, one for later epochs.

    The callbacks see a single training run. Steps are counted from the start of the epoch, and the means in the logs
    include the steps before the interruption.

    Args:
        first: number of steps already done in the epoch.
        restore: sets the metrics to their values at that step.
        params: as for `keras.callbacks.CallbackList`.
    """

    def __init__(
        self, callbacks: list[keras.callbacks.Callback], first: int, restore: Callable[[], None], **params: Any
    ) -> None:
        super().__init__(callbacks, **params)
        self.first, self.restore = first, restore

    def begin(self) -> None:
        super().on_train_begin()

    def end(self) -> None:
        super().on_train_end()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Does nothing: `begin` has already called the callbacks."""

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Does nothing: `end` calls the callbacks."""

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        if self.first:
            self.restore()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.first = 0
        super().on_epoch_end(epoch, logs)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_train_batch_begin(batch + self.first, logs)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_train_batch_end(batch + self.first, logs)


class AnnounceTracing(keras.callbacks.Callback):
    """Says before the first step that it takes longer than the others."""

    def __init__(self) -> None:
        super().__init__()
        self.announced = False

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if not self.announced:
            print("The first step traces the graph, which may take a minute.", flush=True)
            self.announced = True


class SaveCheckpoint(keras.callbacks.Callback):
    """Saves a checkpoint after each epoch and, within epochs, after every `every` steps.

    Args:
        save: called with the number of finished epochs and the number of steps in the next; returns the path it wrote.
        keep: number of newest epoch checkpoints to keep; None keeps all. A checkpoint within an epoch is removed as
            soon as there is a newer one of either kind.
        written: existing checkpoints of a resumed run.
        every: steps between checkpoints within an epoch; None for no such checkpoints.
    """

    every_worker = True  # `save` decides which worker writes

    def __init__(
        self,
        save: Callable[[int, int], Path],
        keep: int | None = None,
        written: Sequence[Path] = (),
        every: int | None = None,
    ) -> None:
        super().__init__()
        self.save, self.keep, self.every = save, keep, every
        self.epochs = [path for path in written if position(path)[1] == 0]
        self.within = [path for path in written if position(path)[1] > 0]
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        last = batch + 1 == self.params.get("steps")  # the epoch's own checkpoint follows
        if self.every and (batch + 1) % self.every == 0 and not last:
            write_back(self.model)
            path = self.save(self.epoch, batch + 1)
            self._remove_steps()
            self.within.append(path)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.epochs.append(self.save(epoch + 1, 0))
        self._remove_steps()
        while self.keep and len(self.epochs) > self.keep:
            self.epochs.pop(0).unlink(missing_ok=True)

    def _remove_steps(self) -> None:
        while self.within:
            self.within.pop().unlink(missing_ok=True)


class EpochLog(keras.callbacks.Callback):
    """log.csv: one row per epoch, numbered from 1 as in checkpoint names, with a column for every logged value.

    Unlike `keras.callbacks.CSVLogger`, epochs that a resumed run repeats appear once, and a value that only some epochs
    have gets its own column, with "NA" in the other rows. The same object may be in a callback list twice: before slow
    callbacks that add to the logs, so that an interruption does not lose the row, and after them.

    Args:
        path: the file; written completely or not at all.
        epochs: finished epochs of a resumed run, whose rows are kept; later rows are dropped.
        late: called with a finished epoch when training begins; each returns values that were logged after the file
            was written.
    """

    def __init__(self, path: Path, epochs: int = 0, late: Sequence[Callable[[int], Mapping[str, Any]]] = ()) -> None:
        super().__init__()
        self.path, self.late = Path(path), late
        self.rows: dict[int, dict[str, Any]] = {}
        if epochs and self.path.is_file():
            with self.path.open(newline="") as file:
                rows = {int(row["epoch"]): row for row in csv.DictReader(file)}
            self.rows = {number: row for number, row in rows.items() if number <= epochs}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        before = copy.deepcopy(self.rows)
        for number, row in self.rows.items():
            for values in self.late:
                row |= values(number)
        if self.rows != before:
            self._write()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.rows[epoch + 1] = {"epoch": epoch + 1, **(logs or {})}
        self._write()

    def _write(self) -> None:
        columns = ["epoch", *sorted({name for row in self.rows.values() for name in row} - {"epoch"})]
        text = io.StringIO()
        table = csv.DictWriter(text, columns, restval="NA", lineterminator="\n")
        table.writeheader()
        table.writerows(self.rows[number] for number in sorted(self.rows))
        write_atomically(self.path, text.getvalue())


class TensorBoardEvents(keras.callbacks.Callback):
    """Writes the scalars that `keras.callbacks.TensorBoard` writes per epoch, under the same names, without TensorFlow.

    For other backends, where importing TensorFlow would allocate GPU memory.

    Args:
        folder: receives train/ and validation/ with one event file each.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = Path(folder)
        self._files: dict[str, Any] = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = {**(logs or {}), "learning_rate": float(self.model.optimizer.learning_rate)}
        of_validation = {name[4:]: value for name, value in logs.items() if name.startswith("val_")}
        self._write("train", epoch, {name: value for name, value in logs.items() if not name.startswith("val_")})
        self._write("validation", epoch, of_validation)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        for file in self._files.values():
            file.close()
        self._files = {}

    def _write(self, name: str, epoch: int, values: dict[str, Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        if not values:
            return
        if name not in self._files:
            path = self.folder / name / f"events.out.tfevents.{time.time_ns()}.v2"
            path.parent.mkdir(parents=True, exist_ok=True)
            self._files[name] = RecordWriter(path.open("wb"))
            self._files[name].write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
        summary = Summary(
            value=[Summary.Value(tag=f"epoch_{key}", simple_value=float(value)) for key, value in values.items()]
        )
        self._files[name].write(Event(wall_time=time.time(), step=epoch, summary=summary).SerializeToString())
        self._files[name].flush()


def tensorboard(folder: Path) -> keras.callbacks.Callback:
    """The callback that writes TensorBoard files on this backend."""
    if keras.backend.backend() == "tensorflow":
        return keras.callbacks.TensorBoard(folder, write_graph=False)
    return TensorBoardEvents(folder)


def write_back(model: keras.Model) -> None:
    """Updates the model's variables to the last step; on JAX, `fit` keeps them elsewhere until an epoch ends."""
    if keras.backend.backend() == "jax":
        model.jax_state_sync()


class StopAtNonFiniteLoss(keras.callbacks.Callback):
    """Raises FloatingPointError at the first NaN or infinite loss, and names the images of the batch.

    Args:
        describe: returns a description of a training image from its id.
        describe_validation: the same for a validation image.
    """

    every_worker = True  # every worker sees the same loss

    def __init__(self, describe: Callable[[int], str], describe_validation: Callable[[int], str] | None = None) -> None:
        super().__init__()
        self.describe, self.describe_validation = describe, describe_validation or describe

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._check(logs or {}, f"step {batch + 1} of the epoch", self.describe)

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._check(logs or {}, f"step {batch + 1} of the validation", self.describe_validation)

    def _check(self, logs: dict[str, Any], where: str, describe: Callable[[int], str]) -> None:
        if all(math.isfinite(value) for value in logs.values()):
            return
        write_back(self.model)
        images = ", ".join(describe(int(i)) for i in np.unique(keras.ops.convert_to_numpy(self.model.image_ids)))
        values = ", ".join(f"{name} {float(value):.3g}" for name, value in logs.items())
        raise FloatingPointError(
            f"The loss is not finite at {where} ({values}), in a batch of: {images}. Check these annotations, lower "
            "LEARNING_RATE or raise WARMUP_STEPS, and continue from the last checkpoint: load_weights('last')."
        )

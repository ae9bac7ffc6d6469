"""What happens between the steps of `fit`: checkpoints, the table of losses, the stop at a loss that is not finite."""

import csv
import io
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mrcnn.files import write_atomically


class SaveCheckpoint(keras.callbacks.Callback):
    """Writes a checkpoint at the end of each epoch, and drops the oldest beyond `keep`.

    Args:
        save: called with the number of finished epochs; returns the path that it wrote.
        keep: how many of the newest checkpoints to keep; None keeps all.
        written: those that a resumed run has written before, oldest first.
    """

    every_worker = True  # `save` says which worker writes

    def __init__(self, save: Callable[[int], Path], keep: int | None = None, written: Sequence[Path] = ()) -> None:
        super().__init__()
        self.save, self.keep, self.written = save, keep, list(written)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.written.append(self.save(epoch + 1))
        while self.keep and len(self.written) > self.keep:
            self.written.pop(0).unlink(missing_ok=True)


class EpochLog(keras.callbacks.Callback):
    """log.csv: a line an epoch, numbered from 0, and a column for everything in the logs.

    Unlike `keras.callbacks.CSVLogger`, a resumed training does not repeat the epochs that it does again, and what only
    some epochs have gets its own column ("NA" in the others) rather than another's. Put it after the callbacks that add
    to the logs.

    Args:
        path: the file; written whole or not at all.
        first_epoch: epochs from this one on are done again; lines of earlier ones stay.
    """

    def __init__(self, path: Path, first_epoch: int = 0) -> None:
        super().__init__()
        self.path, self.rows = Path(path), []
        if first_epoch and self.path.is_file():
            with self.path.open(newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["epoch"]) < first_epoch]

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.rows.append({"epoch": epoch, **(logs or {})})
        columns = ["epoch", *sorted({name for row in self.rows for name in row} - {"epoch"})]
        text = io.StringIO()
        table = csv.DictWriter(text, columns, restval="NA", lineterminator="\n")
        table.writeheader()
        table.writerows(self.rows)
        write_atomically(self.path, text.getvalue())


class TensorBoardEvents(keras.callbacks.Callback):
    """The scalars that `keras.callbacks.TensorBoard` writes an epoch, under its names, without TensorFlow.

    For other backends: TensorFlow would claim memory of the GPU beside them.

    Args:
        folder: gets train/ and validation/ with a file of events each.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self._files = Path(folder), {}

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
    """What writes `folder` for TensorBoard, on this backend."""
    if keras.backend.backend() == "tensorflow":
        return keras.callbacks.TensorBoard(folder, write_graph=False)
    return TensorBoardEvents(folder)


class StopAtNonFiniteLoss(keras.callbacks.Callback):
    """Ends training with FloatingPointError at the first loss that is NaN or infinite, naming the batch's images.

    Args:
        describe: text for an image id of the training set.
        describe_validation: the same for the validation set.
    """

    every_worker = True  # all see the same loss

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
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()  # variables are not written after each step there
        images = ", ".join(describe(int(i)) for i in np.unique(keras.ops.convert_to_numpy(self.model.image_ids)))
        values = ", ".join(f"{name} {float(value):.3g}" for name, value in logs.items())
        raise FloatingPointError(
            f"The loss is not finite at {where} ({values}), in a batch of: {images}. Look at "
            "these annotations, lower LEARNING_RATE or lengthen WARMUP_STEPS, and go on from the last checkpoint."
        )

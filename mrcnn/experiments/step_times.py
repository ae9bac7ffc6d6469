"""The duration of a training run, even if it is interrupted and resumed."""

import json
import time
from typing import Any

import keras
import numpy as np

from mrcnn.files import write_atomically
from mrcnn.model import MaskRCNN

FILE = "seconds.json"


class StepTimes(keras.callbacks.Callback):
    """Writes seconds.json into a run's folder: for each epoch, numbers of consecutive steps and their seconds."""

    def __init__(self, mrcnn: MaskRCNN) -> None:
        super().__init__()
        self.mrcnn = mrcnn
        self.epochs: dict[str, tuple[int, float]] = {}
        self.steps, self.began = 0, 0.0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.epochs = self._stored()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.steps, self.began = 0, time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.steps += 1

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.epochs[str(epoch + 1)] = (self.steps, time.perf_counter() - self.began)
        write_atomically(self.mrcnn.log_dir / FILE, json.dumps(self.epochs))

    def total(self) -> float | None:
        """Seconds of all steps, from the median epoch's time per step, without the first epoch if there are others, so
        that tracing and other load hardly count."""
        times = [(steps, seconds) for steps, seconds in self._stored().values() if steps]
        if not times:
            return None
        whole = max(steps for steps, _ in times)
        return float(np.median([seconds / steps for steps, seconds in times[1:] or times])) * whole * len(times)

    def _stored(self) -> dict[str, tuple[int, float]]:
        file = self.mrcnn.log_dir / FILE
        return json.loads(file.read_text()) if file.is_file() else {}

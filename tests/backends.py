"""What the tiny network gives on the backend that is set, to compare backends by.

python -m tests.backends FOLDER: writes weights.h5, a run with checkpoints, and results.npz there.
"""

import sys
from pathlib import Path

import keras
import numpy as np

from mrcnn.model import MaskRCNN
from tests.tiny import TinyConfig, TinyDataset

SETTINGS = {
    "DETECTION_MIN_CONFIDENCE": 0.0,
    "WEIGHT_DECAY": 0.01,
    "GRADIENT_CLIP_NORM": 1.0,
    "TRAIN_BN": True,
    "LEARNING_RATE": 0.05,
}
SIZES = ((64, 64), (64, 64), (48, 64))


class Steps(keras.callbacks.Callback):
    """The logs of every step."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def on_train_batch_end(self, batch, logs=None):
        self.rows.append([logs[name] for name in sorted(logs)])


def detections(model):
    """Arrays of what is detected in three photographs of two sizes, by name and photograph."""
    photographs = [TinyDataset(3, sizes=SIZES).load_image(i) for i in range(3)]
    return {f"{name}_{i}": value for i, found in enumerate(model.detect(photographs)) for name, value in found.items()}


def losses(model, epochs, validation=None):
    """[steps, losses] of training to `epochs`, running means within an epoch; and those of the validation, by name."""
    steps = Steps()
    history = model.train(TinyDataset(4), validation, epochs=epochs, custom_callbacks=[steps], verbose=0)
    return np.array(steps.rows), {name: values for name, values in history.history.items() if name.startswith("val_")}


def main(folder):
    folder = Path(folder)
    model = MaskRCNN("training", TinyConfig(**SETTINGS), folder / "logs")
    model.save_weights(folder / "weights.h5")
    found = detections(model)
    steps, validation = losses(model, 2, TinyDataset(2, seed=1))
    more, _ = losses(model, 3)
    np.savez(folder / "results.npz", steps=steps, more=more, **found, **validation)


if __name__ == "__main__":
    main(sys.argv[1])

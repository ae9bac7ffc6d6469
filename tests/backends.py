"""What the tiny network gives on the backend that is set, to compare backends by.

python -m tests.backends FOLDER: writes weights.h5, a run with checkpoints, and results.npz there.
"""

import sys
from pathlib import Path

import keras
import numpy as np

import heads
from heads.protocol import check, contract
from mrcnn.model import MaskRCNN
from tests.heads import small
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


def built(name):
    """A small head, the inputs of its inference and of its training, and the ground truth of the latter."""
    side = small.side(name)
    head = heads.make(small.small(name), (side, side, 8), 4)
    return head, [check.trial_inputs(head, training, rois=4) for training in (False, True)]


def of_heads():
    """Weights, inputs, outputs and losses of every head, by name of the head and place among the leaves."""
    found = {}
    for name in small.NAMES:
        head, inputs = built(name)
        found |= {f"{name}/weight_{i}": value for i, value in enumerate(head.model.get_weights())}
        leaves = keras.tree.flatten(inputs)
        found |= {f"{name}/input_{i}": keras.ops.convert_to_numpy(value) for i, value in enumerate(leaves)}
        found |= {f"{name}/{key}": value for key, value in computed(head, *inputs).items()}
    return found


def computed(head, inference, training):
    """The required output of a head's inference, and its losses in training."""
    masks = contract.run(head, inference, training=False)[head.output]
    losses = contract.losses(head, training, contract.targets_for(head, training, 4))
    return {"masks": keras.ops.convert_to_numpy(masks), **{key: np.array(pair) for key, pair in losses.items()}}


def main(folder):
    folder = Path(folder)
    np.savez(folder / "heads.npz", **of_heads())
    model = MaskRCNN("training", TinyConfig(**SETTINGS), folder / "logs")
    model.save_weights(folder / "weights.h5")
    found = detections(model)
    steps, validation = losses(model, 2, TinyDataset(2, seed=1))
    more, _ = losses(model, 3)
    np.savez(folder / "results.npz", steps=steps, more=more, **found, **validation)


if __name__ == "__main__":
    main(sys.argv[1])

"""A program that trains the tiny network, as the processes of a test of data parallelism run it; it prints json lines.

python -m tests.distributed MODEL_DIR KIND [KIND ...]: trains in turn on two virtual devices ("mirrored"), as one of two
processes ("multi_worker"), or on one device ("one"). On JAX the devices are those of XLA_FLAGS.
"""

import argparse
import json
import os
import signal

import keras
import numpy as np

from mrcnn.model import MaskRCNN
from tests.heads.small import SCORED_POINTS
from tests.tiny import TinyConfig, TinyDataset

# With this seed every loss is large enough to be compared to its own fifth digit: with 0 the boxes' is 3e-5
SETTINGS = {
    "SEED": 1,
    "GPU_COUNT": 2,
    "STEPS_PER_EPOCH": 3,
    "GRADIENT_CLIP_NORM": 1.0,
    "WEIGHT_DECAY": 0.01,
    "TRAIN_BN": True,
    "MASK_HEAD": {"name": "fcn", "filters": 16, "convolutions": 1, "normalization": "batch"},
}


class Report(keras.callbacks.Callback):
    """Prints the losses of every step; ends the process as an accident would after the step `die_at`."""

    every_worker = True

    def __init__(self, kind: str, die_at: int | None) -> None:
        super().__init__()
        self.kind, self.die_at, self.epoch = kind, die_at, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        step = self.epoch * SETTINGS["STEPS_PER_EPOCH"] + batch + 1
        say(self.kind, step=step, losses=numbers(logs))
        if step == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_epoch_end(self, epoch, logs=None):
        say(self.kind, epoch=epoch, losses=numbers(logs))


def numbers(logs) -> dict[str, float]:
    return {name: float(value) for name, value in logs.items()}


def say(kind: str, **what) -> None:
    print(json.dumps({"kind": kind, **what}), flush=True)


def train(
    kind: str,
    model_dir: str,
    *,
    die_at: int | None,
    epochs: int,
    resume: bool,
    no_validation: bool,
    scored_points: bool = False,
) -> MaskRCNN:
    """Trains to `epochs`, of which only the first begins from nothing."""
    settings = SETTINGS | ({"MASK_HEAD": SCORED_POINTS} if scored_points else {})
    config = TinyConfig(DISTRIBUTION=None if kind == "one" else kind, **settings)
    model = MaskRCNN("training", config, f"{model_dir}/{kind}")
    if resume:
        model.load_weights("last")
    model.train(
        TinyDataset(9),
        None if no_validation else TinyDataset(3, seed=5),
        epochs=epochs,
        custom_callbacks=[Report(kind, die_at)],
        verbose=0,
    )
    return model


def look_at_replicas(model: MaskRCNN) -> None:
    """Whether both hold the same weights; what a loss that is infinite on one of them is for the whole batch."""
    import tensorflow as tf

    from mrcnn.distribution.replicas import whole_batch

    variables = [variable.value for variable in model.training_model.variables if "metric" not in variable.path]
    mirrored = [variable.values for variable in variables if hasattr(variable, "values")]
    same = all(np.array_equal(*(copy.numpy() for copy in copies)) for copies in mirrored)
    strategy = model.distribution.strategy

    def step():
        number = tf.distribute.get_replica_context().replica_id_in_sync_group
        loss = tf.constant([2.0, np.inf])[number]
        ids = tf.constant([[7, 8], [9, 2**24]])[number]
        return *whole_batch(loss, {"part": tf.constant([0.5, 0.25])[number]}, ids), convolved(float(number))

    _, loss, parts, ids, sums = tf.nest.map_structure(
        lambda value: strategy.experimental_local_results(value)[1], strategy.run(tf.function(step))
    )
    say(
        "replicas",
        mirrored=len(mirrored),
        same=same,
        loss=float(loss),
        part=float(parts["part"]),
        ids=ids.numpy().tolist(),
        sums=sums.numpy().tolist(),
    )


def convolved(value):
    """Sums of what Winograd's convolution of 28 x 28 cells of `value` gives, and of its gradient by the inputs."""
    import tensorflow as tf

    from mrcnn.fusion.winograd import convolve

    inputs = tf.fill([1, 28, 28, 1], value)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        total = tf.reduce_sum(convolve(inputs, tf.ones((3, 3, 1, 1)), tf.ones(1), tf.zeros(1)))
    return tf.stack([total, tf.reduce_sum(tape.gradient(total, inputs))])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model_dir")
    parser.add_argument("kinds", nargs="+")
    parser.add_argument("--die-at", type=int)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--no-validation", action="store_true")
    parser.add_argument("--scored-points", action="store_true", help="with a head that uses each part of the protocol")
    arguments = vars(parser.parse_args())
    on_tensorflow = keras.backend.backend() == "tensorflow"
    if "mirrored" in arguments["kinds"] and on_tensorflow:
        import tensorflow as tf

        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
        )
    for kind in arguments.pop("kinds"):
        model = train(kind, **arguments)
        if kind == "mirrored" and on_tensorflow:
            look_at_replicas(model)


if __name__ == "__main__":
    main()

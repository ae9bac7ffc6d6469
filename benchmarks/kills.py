"""Kills a short training at random moments, resumes it, and compares it with one that was never killed.

    python -m benchmarks.kills --kills 30            # prints each kill, then whether the results are equal bit for bit
    python -m benchmarks.kills --cost --side 256     # time per step of R50 with and without DETERMINISTIC

A kill is a SIGKILL at a random moment of the process: while it starts, traces, trains, validates or saves.
"""

import argparse
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

ROOT = Path(__file__).resolve().parents[1]


class Plan(NamedTuple):
    """The training that is killed."""

    epochs: int = 2
    steps: int = 40  # per epoch
    every: int = 5  # steps between checkpoints
    loader_workers: int = 2
    steps_to_live: int = 0  # the process kills itself after so many; 0: never


def worker(folder: str, plan: Plan) -> None:
    """Trains to the last epoch, from the newest checkpoint in the folder if there is one."""
    from mrcnn.model import MaskRCNN
    from mrcnn.training.run_folder import find_last

    model = MaskRCNN("training", settings(plan), folder)
    try:
        find_last(Path(folder), model.config.NAME)
    except FileNotFoundError:
        pass
    else:
        model.load_weights("last")
    training, validation = shapes(20, 64, 0), shapes(4, 64, 1)
    if model.epoch < plan.epochs:
        death = _Death(plan.steps_to_live)
        model.train(training, validation, epochs=plan.epochs, verbose=0, custom_callbacks=[death])
    print(time.process_time(), file=sys.stderr)


class _Death(keras.callbacks.Callback):
    """SIGKILL after a number of steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.steps -= 1
        if not self.steps:
            os.kill(os.getpid(), signal.SIGKILL)


def shapes(count: int, side: int, seed: int) -> Any:
    """Images of squares, circles and triangles."""
    from samples.shapes.shapes import ShapesDataset

    dataset = ShapesDataset()
    dataset.load_shapes(count, side, side, seed)
    dataset.prepare()
    return dataset


def settings(plan: Plan) -> Any:
    """A narrow ResNet-50 on 64 pixels: a step takes milliseconds."""
    from mrcnn.config import Config

    return Config(
        NAME="kills",
        NUM_CLASSES=4,
        DETERMINISTIC=True,
        CHECKPOINT_STEPS=plan.every,
        STEPS_PER_EPOCH=plan.steps,
        LOADER_WORKERS=plan.loader_workers,
        VALIDATION_STEPS=2,
        BACKBONE="resnet50",
        BACKBONE_OPTIONS={"width": 8},
        TOP_DOWN_PYRAMID_SIZE=32,
        RPN_CHANNELS=32,
        FPN_CLASSIF_FC_LAYERS_SIZE=64,
        MASK_HEAD={"name": "fcn", "filters": 32, "convolutions": 1},
        IMAGE_MIN_DIM=64,
        IMAGE_MAX_DIM=64,
        RPN_ANCHOR_SCALES=(8, 16, 32, 48, 64),
        TRAIN_ROIS_PER_IMAGE=32,
        PRE_NMS_LIMIT_TRAINING=100,
        POST_NMS_ROIS_TRAINING=50,
        LEARNING_RATE=0.01,
    )


def start(folder: Path, plan: Plan) -> subprocess.Popen:
    """A process that trains in a folder."""
    command = [sys.executable, "-m", "benchmarks.kills", "--worker", str(folder), *map(str, plan)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(folder: Path, plan: Plan) -> float:
    """Runs a training to its end; returns its processor time. Raises RuntimeError if it fails."""
    process = start(folder, plan)
    _, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f"a training in {folder} ended with exit status {process.returncode}: {errors[-2000:]}")
    return float(errors.split()[-1])


def used(process: subprocess.Popen) -> float:
    """Seconds of processor time of a running process; infinity once it has ended."""
    if process.poll() is not None:
        return math.inf
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint of a training; None if it has none yet."""
    from mrcnn.training.run_folder import find_last

    try:
        return find_last(folder, "kills")
    except FileNotFoundError:
        return None


def contents(checkpoint: Path) -> dict[str, np.ndarray]:
    """Every weight and every variable of the training state in a checkpoint."""
    import h5py

    found: dict[str, np.ndarray] = {}
    with h5py.File(checkpoint, "r") as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


def kill_and_resume(folder: Path, plan: Plan, kills: int, seconds: float, seed: int) -> list[str]:
    """Kills a training `kills` times, each after a random part of `seconds`, then lets it end; returns what failed.

    The seconds are processor time, so the load of the machine does not matter. When a training ends before its kill,
    the next one starts in a new folder: every kill hits a running one.
    """
    chance, wrong, count, attempt = random.Random(seed), [], 0, 0
    while count < kills:
        logs, moment = folder / f"attempt{attempt}", chance.uniform(0.2, 1.0) * seconds
        process = start(logs, plan)
        while used(process) < moment:
            time.sleep(0.02)
        process.kill()
        _, errors = process.communicate()
        if process.returncode == -signal.SIGKILL:
            count += 1
            newest = getattr(last_checkpoint(logs), "name", None)
            print(f"kill {count} of {kills}, after {moment:.1f} s: newest is {newest}", flush=True)
            continue
        if process.returncode:
            wrong.append(f"{logs}: exit status {process.returncode}: {errors[-2000:]}")
        attempt += 1
    for logs in sorted(folder.glob("attempt*")):
        try:
            finish(logs, plan)
        except RuntimeError as error:
            wrong.append(str(error))
    return wrong


def differences(expected: Path, folders: Iterable[Path]) -> list[str]:
    """What differs between the last checkpoint of a training, bit for bit, and those in other folders."""
    wrong = []
    for folder in folders:
        newest = last_checkpoint(folder)
        if newest is None or newest.name != expected.name:
            wrong.append(f"{folder}: the newest checkpoint is {newest}, not {expected.name}")
            continue
        wrong += [f"{folder}: left behind {path}" for path in newest.parent.glob(".*")]
        one, other = contents(expected), contents(newest)
        unequal = [name for name in one.keys() | other.keys() if not equal(one.get(name), other.get(name))]
        if unequal:
            wrong.append(f"{folder}: {len(unequal)} of {len(one)} tensors differ, such as {min(unequal)}")
    return wrong


def equal(one: Any, other: Any) -> bool:
    """Whether two values from files are equal bit for bit."""
    return one is not None and other is not None and np.asarray(one).tobytes() == np.asarray(other).tobytes()


def cost(side: int, steps: int) -> None:
    """Prints the time per step without and with DETERMINISTIC: two processes that take a step in turn."""
    command = [sys.executable, "-m", "benchmarks.kills", "--side", str(side), "--steps", str(steps), "--turns"]
    pipes: Any = {"cwd": ROOT, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = {answer: subprocess.Popen([*command, answer], **pipes) for answer in ("no", "yes")}
    times: dict[str, list[list[float]]] = {answer: [] for answer in processes}
    for _ in range(steps):
        for answer, process in processes.items():
            process.stdin.write("step\n")
            process.stdin.flush()
            line = next(line for line in process.stdout if line.startswith("took "))
            times[answer].append([float(word) for word in line.split()[1:]])
    for process in processes.values():
        process.communicate()
    off, on = (np.median(times[answer][2:], axis=0) for answer in times)  # without those that trace
    for what, one, other in zip(("real time", "processor time"), off, on, strict=True):
        print(f"{what}: {1000 * one:.0f} ms per step, {1000 * other:.0f} with DETERMINISTIC ({other / one:.3f} times)")


def take_turns(deterministic: bool, side: int, steps: int) -> None:
    """Trains, each step after a line on standard input; prints the real and the processor time of each."""
    from mrcnn.config import Config
    from mrcnn.model import MaskRCNN

    config = Config(
        NAME="cost",
        NUM_CLASSES=4,
        BACKBONE="resnet50",
        IMAGE_RESIZE_MODE="square",
        IMAGE_MIN_DIM=side,
        IMAGE_MAX_DIM=side,
        STEPS_PER_EPOCH=steps,
        DETERMINISTIC=deterministic,
    )
    with tempfile.TemporaryDirectory() as folder:
        model = MaskRCNN("training", config, folder)
        model.train(shapes(4, side, 0), None, learning_rate=1e-6, verbose=0, custom_callbacks=[_Turns()])


class _Turns(keras.callbacks.Callback):
    """Waits for a line on standard input before each step, and prints the time of the step after it."""

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        sys.stdin.readline()
        self.start = time.perf_counter(), time.process_time()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        print("took", time.perf_counter() - self.start[0], time.process_time() - self.start[1], flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--worker", nargs=1 + len(Plan()), help=argparse.SUPPRESS)
    parser.add_argument("--turns", choices=("no", "yes"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker[0], Plan(*map(int, arguments.worker[1:])))
    elif arguments.turns:
        take_turns(arguments.turns == "yes", arguments.side, arguments.steps)
    elif arguments.cost:
        cost(arguments.side, arguments.steps)
    else:
        return kill(arguments.kills, arguments.seed)
    return 0


def kill(kills: int, seed: int) -> int:
    """The whole comparison; returns 1 if something failed."""
    plan = Plan()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds = finish(folder / "whole", plan)
        expected = last_checkpoint(folder / "whole")
        if expected is None:
            print("the uninterrupted training saved nothing")
            return 1
        print(f"uninterrupted: {seconds:.1f} s of processor time, {expected.name}", flush=True)
        wrong = kill_and_resume(folder, plan, kills, seconds, seed)
        attempts = sorted(folder.glob("attempt*"))
        wrong += differences(expected, attempts)
    print("\n".join(wrong) or f"{kills} kills of {len(attempts)} trainings: all resumed, equal bit for bit")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())

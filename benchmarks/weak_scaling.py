"""Weak scaling: two processes of one core each, which train together, beside one process on one core.

    python benchmarks/weak_scaling.py --backbone resnet50 --size 512
    python benchmarks/weak_scaling.py --backend jax --size 256

Every process has as many images a step. Three ways take turns, round after round:

- one: a process alone, on the first core;
- apart: two processes that know nothing of each other, one on each core, so that they share the memory alone;
- together: the same two with DISTRIBUTION = "multi_worker", which sum their gradients at each step.

The table: median seconds of a step, the ratio to "one" by rounds, and the share of a step in which a process's core did
nothing, which is mostly waiting for the other. Images are generated, and the loader runs on the same core. A first
round, in which the graphs are traced, is not counted.
"""

import argparse
import contextlib
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
HERE = Path(__file__).resolve().parent
sys.path[1:1] = [str(HERE), str(HERE.parent)]

from machine import processor  # noqa: E402
from passes import Program  # noqa: E402


def main() -> None:
    """Starts the processes, takes turns, prints."""
    arguments = parse()
    if arguments.serve:
        work(json.loads(arguments.serve))
        return
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise SystemExit(f"two cores are needed; this process may use {len(cores)}")
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())

        def begin(kind: str, place: int) -> Program:
            told = vars(arguments) | {"kind": kind, "core": cores[place], "folder": f"{folder}/{kind}{place}"}
            if kind == "together":
                told |= {"addresses": addresses, "place": place, "folder": f"{folder}/{kind}"}
            return stack.enter_context(Program([sys.executable, __file__, "--serve", json.dumps(told)]))

        ways = {"one": [begin("one", 0)], "apart": [begin("apart", i) for i in (0, 1)]}
        ways["together"] = [begin("together", i) for i in (0, 1)]
        rounds = [take_turns(ways, number, arguments.rounds) for number in range(arguments.rounds + 1)][1:]
    print(f"{processor()}; {arguments.backbone}, {arguments.size}x{arguments.size}, batch {arguments.batch} a process")
    print(f"{arguments.backend}, {arguments.rounds} rounds of {arguments.steps} steps\n\n{table(rounds)}")


def parse() -> argparse.Namespace:
    """The flags."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--backbone", choices=["resnet50", "resnet101", "small"], default="resnet50")
    flags.add_argument("--size", type=int, default=512, help="side of the images in pixels")
    flags.add_argument("--batch", type=int, default=1, help="images a process and step")
    flags.add_argument("--steps", type=int, default=4, help="counted, a round")
    flags.add_argument("--rounds", type=int, default=3, help="after one that is not counted")
    flags.add_argument("--backend", choices=["tensorflow", "jax"], default="tensorflow")
    flags.add_argument("--serve", help=argparse.SUPPRESS)
    return flags.parse_args()


def take_turns(ways: dict[str, list[Program]], number: int, rounds: int) -> dict[str, list[dict]]:
    """What each process of each way says of its steps, one way after the other."""
    found = {}
    for name, programs in ways.items():
        for program in programs:
            program.send()
        found[name] = [program.receive() for program in programs]
        seconds = ", ".join(f"{said['seconds']:.2f}" for said in found[name])
        print(f"round {number} of {rounds}, {name}: {seconds} s a step", file=sys.stderr)
    return found


def table(rounds: list[dict[str, list[dict]]]) -> str:
    """Medians over the rounds; the slower of two processes counts."""
    lines = ["| way | seconds a step | of one | share of the core's time without work |", "|---|---|---|---|"]
    for name in rounds[0]:
        taken = [max(said["seconds"] for said in found[name]) for found in rounds]
        ratio = statistics.median(t / found["one"][0]["seconds"] for t, found in zip(taken, rounds, strict=True))
        idle = statistics.median(statistics.mean(said["idle"] for said in found[name]) for found in rounds)
        spread = f"{statistics.median(taken):.2f} ({min(taken):.2f}-{max(taken):.2f})"
        lines.append(f"| {name} | {spread} | {ratio:.2f} | {100 * idle:.1f}% |")
    lost = [max(s["seconds"] for s in f["apart"]) / max(s["seconds"] for s in f["together"]) for f in rounds]
    lines.append(f"\nOf a step together, {100 * (1 - statistics.median(lost)):.1f}% is what two apart do not need.")
    return "\n".join(lines)


def work(told: dict[str, Any]) -> None:
    """Trains; before each block of steps it waits for a request, after it answers with what the steps took."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what else prints goes to the errors
    os.sched_setaffinity(0, [told["core"]])
    os.environ["KERAS_BACKEND"] = told["backend"]
    if told["kind"] == "together":
        task = {"type": "worker", "index": told["place"]}
        os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": told["addresses"]}, "task": task})
    model, data = build(told), dataset(told)
    steps = Steps(told["steps"], sys.stdin, answers)
    model.train(data, None, epochs=1, custom_callbacks=[steps.callback()], verbose=0)


class Steps:
    """Blocks of steps, each of them asked for by a line and answered by a line of json.

    Args:
        count: steps of a block. requests, answers: text files; the process ends with the requests.
    """

    def __init__(self, count: int, requests: Any, answers: Any) -> None:
        self.count, self.requests, self.answers = count, requests, answers
        self.done = 0

    def begin(self) -> None:
        """Waits for a request."""
        if not self.requests.readline():
            os._exit(0)  # in the middle of a training
        self.done, self.start = 0, (time.perf_counter(), time.process_time())

    def step(self) -> None:
        """Counts a step that has ended; after the last of a block answers, and waits for the next request."""
        self.done += 1
        if self.done < self.count:
            return
        wall, cpu = time.perf_counter() - self.start[0], time.process_time() - self.start[1]
        self.answers.write(json.dumps({"seconds": wall / self.count, "idle": max(1 - cpu / wall, 0.0)}) + "\n")
        self.answers.flush()
        self.begin()

    def callback(self) -> Any:
        """A Keras callback, in every process."""
        import keras

        steps = self

        class Timer(keras.callbacks.Callback):
            every_worker = True

            def on_train_begin(self, logs: Any = None) -> None:
                steps.begin()

            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                steps.step()

        return Timer()


def build(told: dict[str, Any]) -> Any:
    """The model of a process."""
    if told["backend"] == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
    from accelerators.networks import settings

    from mrcnn.model import MaskRCNN

    together = told["kind"] == "together"
    config = settings(
        told["backbone"],
        precision="float32",
        batch=told["batch"],
        IMAGE_MIN_DIM=told["size"],
        IMAGE_MAX_DIM=told["size"],
        GPU_COUNT=2 if together else 1,
        DISTRIBUTION="multi_worker" if together else None,
        STEPS_PER_EPOCH=told["steps"] * (told["rounds"] + 2),
        LOADER_WORKERS=1,
        WARMUP_STEPS=1,
        LEARNING_RATE=1e-6,
    )
    return MaskRCNN("training", config, told["folder"])


def dataset(told: dict[str, Any]) -> Any:
    """Generated images with objects."""
    sys.path.insert(1, str(HERE / "peers"))
    import worker as shared

    from mrcnn.data.dataset import Dataset

    side, classes = told["size"], 5 if told["backbone"] == "small" else 81
    sides = dict.fromkeys(("height", "width", "min_dim", "max_dim"), side)
    case = {"batch": 4, "classes": classes, "instances": 20, **sides}
    return shared.generated(Dataset, case)


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens at."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


if __name__ == "__main__":
    main()

"""One GPU, or another accelerator, with JAX: correctness, detection, training, memory, a profile, torchvision beside.

    KERAS_BACKEND=jax python benchmarks/accelerator.py --json gpu.json
    KERAS_BACKEND=jax python benchmarks/accelerator.py --networks small --size 128 160 --batches 1 2 --runs 2

It ends within --seconds, 8 minutes: what matters most comes first, and what there was no time for is marked. The json
file is written after every step, the table comes last. It needs JAX and a few wheels, which `accelerator_wheels.sh`
collects where there is a network. Where OpenCV is there too, whole calls of `MaskRCNN.detect` are timed as well.

- Correctness: generated weights and images, beside detections that TensorFlow gave on a processor; in float32 with
  exact products, in float32 as JAX computes it (TF32 on NVIDIA's GPUs), in bfloat16.
- Detection: 100 objects an image, ms an image, from network inputs to boxes and 28x28 masks, compiled before. "ms":
  inputs and results stay on the device. "with transfers": they come from and go to the host.
- Training: steps on one batch that is ready, ms an image and images/s; the first step's extra time is the compiling.
- MB: of a compiled detection, all its arrays. Of training, the most that the process has had until then.
- torchvision: the same sizes, precision by autocast, masks left at 28x28, results on the host; eagerly, channels last.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # a program that imports this keeps its own backend
    os.environ.setdefault("KERAS_BACKEND", "jax")
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.6")  # torchvision needs some, too
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
HERE = Path(__file__).resolve().parent
sys.path[1:1] = [str(HERE), str(HERE.parent)]

COLUMNS = ("work", "network", "precision", "batch", "ms", "with transfers, ms", "images/s", "compile, s", "MB", "note")


class Run:
    """The rows, kept in a file, and the time that is left.

    Args:
        seconds: after which nothing is begun. file: json of all that is known, written after every step.
    """

    def __init__(self, seconds: float, file: Path | None) -> None:
        self.start, self.seconds, self.file = time.monotonic(), seconds, file
        self.longest = 0.0
        self.found: dict[str, Any] = {"rows": [], "correctness": [], "profile": {}}

    def left(self) -> float:
        """Seconds."""
        return self.seconds - (time.monotonic() - self.start)

    def step(self, name: str, work: Callable[[], Any], margin: float = 1.0) -> Any:
        """What `work` returns; or a dict with an "error", where it fails or is expected to take too long."""
        begun = time.monotonic()
        try:
            if self.left() < margin * self.longest:
                raise TimeoutError(f"no time left: {self.left():.0f} s, a step took {self.longest:.0f} s")
            result = work()
            self.longest = max(self.longest, time.monotonic() - begun)
        except Exception as error:
            result = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
        told = result.get("error", "done") if isinstance(result, dict) else "done"
        print(
            f"{name}: {told}, {time.monotonic() - begun:.1f} s; {self.left():.0f} s left", file=sys.stderr, flush=True
        )
        return result

    def row(self, work: str, network: str, precision: str, batch: int, measure: Callable[[], dict]) -> None:
        """Measures one row of the table."""
        what = {"work": work, "network": network, "precision": precision, "batch": batch}
        self.found["rows"].append(what | self.step(f"{work}, {network}, {precision}, batch {batch}", measure))
        self.save()

    def save(self) -> None:
        """Writes the file, completely or not at all."""
        if self.file:
            beside = self.file.with_suffix(".part")
            beside.write_text(json.dumps(self.found, indent=1))
            beside.replace(self.file)


def main() -> None:
    """Measures, prints."""
    arguments = parse()
    run = Run(arguments.seconds, arguments.json)
    from accelerators.networks import device

    run.found |= {"device": device(), "size": arguments.size, "runs": arguments.runs}
    print(run.found["device"], file=sys.stderr)
    correctness(run, arguments)
    ours(run, arguments, arguments.networks[:1], arguments.precisions[:1])
    profile(run, arguments)
    if arguments.torchvision:
        torchvision(run, arguments)
    ours(run, arguments, arguments.networks[:1], arguments.precisions[1:])
    ours(run, arguments, arguments.networks[1:], arguments.precisions)
    run.row("whole detect", arguments.networks[0], arguments.precisions[0], 1, lambda: whole_detect(arguments))
    print(table(run.found))


def parse() -> argparse.Namespace:
    """The flags."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--networks", nargs="+", default=["resnet50", "resnet101"])
    flags.add_argument("--precisions", nargs="+", default=["bfloat16", "float32"])
    flags.add_argument("--size", type=int, nargs=2, default=[800, 1344], metavar=("H", "W"), help="multiples of 32")
    flags.add_argument("--batches", type=int, nargs="+", default=[1, 8], help="of detection")
    flags.add_argument("--training-batches", type=int, nargs="+", default=[2, 8, 16], help="in the first precision")
    flags.add_argument("--runs", type=int, default=20, help="timed calls; a quarter of it, of training")
    flags.add_argument("--seconds", type=float, default=450, help="after which no step is begun")
    flags.add_argument("--no-torchvision", dest="torchvision", action="store_false")
    flags.add_argument("--json", type=Path, help="file for all figures")
    arguments = flags.parse_args()
    if any(side % 32 for side in arguments.size):
        flags.error(f"--size {arguments.size} must be multiples of 32")
    return arguments


def correctness(run: Run, arguments: argparse.Namespace) -> None:
    """Beside the stored detections, in three ways of computing."""
    from accelerators.correctness import SIZES, check

    network = arguments.networks[0] if arguments.networks[0] in SIZES else "resnet50"
    for name, precision, products in (
        ("float32, exact products", "float32", "highest"),
        ("float32", "float32", None),
        ("bfloat16", "bfloat16", None),
    ):
        found = run.step(
            f"correctness, {name}", lambda precision=precision, products=products: check(network, precision, products)
        )
        run.found["correctness"].append({"computed in": name, "network": network} | found)
        run.save()


def ours(run: Run, arguments: argparse.Namespace, networks: list[str], precisions: list[str]) -> None:
    """Detection of these, and training in the first precision."""
    from accelerators.detection import time_detection
    from accelerators.training import time_training

    size, runs = tuple(arguments.size), arguments.runs
    for network in networks:
        for precision in precisions:
            for batch in arguments.batches:
                given = (network, precision, batch)
                run.row("detect", *given, lambda given=given: time_detection(*given, size, runs))
        if precisions[:1] == arguments.precisions[:1]:
            for batch in arguments.training_batches:
                given = (network, precisions[0], batch)
                run.row("train", *given, lambda given=given: time_training(*given, size, max(runs // 4, 1)))


def profile(run: Run, arguments: argparse.Namespace) -> None:
    """Of the first network's detection."""
    from accelerators.detection import profile as of

    first = arguments.networks[0], arguments.precisions[0], tuple(arguments.size)
    run.found["profile"] = run.step("profile", lambda: of(*first))
    run.save()


def torchvision(run: Run, arguments: argparse.Namespace) -> None:
    """Every row of the other program, as far as a quarter of the whole time allows."""
    works = [
        (work, network, precision, batch)
        for network in arguments.networks
        for precision in arguments.precisions
        for work, batches in (("detect", arguments.batches), ("train", arguments.training_batches))
        if work == "detect" or precision == arguments.precisions[0]
        for batch in batches
    ]
    seconds = min(run.seconds / 4, run.left())
    told = {"works": works, "size": arguments.size, "runs": arguments.runs, "seconds": seconds}

    def rows() -> list[dict]:
        command = [sys.executable, "-m", "accelerators.torchvision_side", json.dumps(told)]
        ended = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=seconds + 60)
        found = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
        if not found:
            raise RuntimeError((ended.stderr.strip().splitlines() or ["it said nothing"])[-1])
        return found

    longest = run.longest
    found = run.step("torchvision", rows, margin=0.0)
    run.longest = longest
    for row in (
        found if isinstance(found, list) else [{"work": "all", "network": "", "precision": "", "batch": ""} | found]
    ):
        run.found["rows"].append(row | {"work": f"torchvision, {row['work']}"})
    run.save()


def whole_detect(arguments: argparse.Namespace) -> dict:
    """`MaskRCNN.detect` from uint8 pixels to run lengths; raises ImportError without OpenCV."""
    import numpy as np
    from accelerators.detection import median_ms
    from accelerators.networks import find_much, settings

    from mrcnn.model import MaskRCNN

    height, width = arguments.size
    sides = {"IMAGE_MIN_DIM": min(height, width), "IMAGE_MAX_DIM": max(height, width)}
    config = settings(arguments.networks[0], precision=arguments.precisions[0], batch=1, **sides)
    model = MaskRCNN("inference", config)
    find_much(model.network)
    image = np.random.RandomState(0).randint(0, 256, (height, width, 3)).astype(np.uint8)
    start = time.perf_counter()
    model.detect([image], prepare="rle")
    first = time.perf_counter() - start
    ms = median_ms(lambda: model.detect([image], prepare="rle"), arguments.runs)
    return {"with transfers, ms": ms, "compile, s": first - ms / 1000}


def table(found: dict[str, Any]) -> str:
    """Everything in Markdown."""
    height, width = found["size"]
    lines = [f"{found['device']}; {height}x{width}, {found['runs']} runs", ""]
    rows = [row | {"note": row.get("error", "")} for row in found["rows"]]
    lines += _table(COLUMNS, rows)
    checks = [row | {"note": row.get("error", "")} for row in found["correctness"]]
    lines += ["", *_table(("computed in", "partners", "boxes, px", "scores", "masks", "masks, mean", "note"), checks)]
    for name, parts in found["profile"].items():
        told = parts if isinstance(parts, str) else ", ".join(f"{part} {ms:.2f}" for part, ms in parts.items())
        lines += ["", f"Profile, ms a call, {name}: {told}"]
    return "\n".join(lines)


def _table(columns: tuple[str, ...], rows: list[dict]) -> list[str]:
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    return lines + ["| " + " | ".join(_cell(row.get(name)) for name in columns) + " |" for row in rows]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return (
        f"{value:.3g}"
        if isinstance(value, float) and value < 100
        else f"{value:.0f}"
        if isinstance(value, float)
        else str(value)
    )


if __name__ == "__main__":
    main()

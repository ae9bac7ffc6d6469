"""This package beside other programs, call by call in turn on the same cores: medians, ratios, memory.

    python benchmarks/against_peers.py --work detect --backbone resnet101 --size 1024
    python benchmarks/against_peers.py --work detect --precision float32 bfloat16
    python benchmarks/against_peers.py --work detect --height 1024 480 --width 1024 640
    python benchmarks/against_peers.py --work detect --batch 1 4 --peers torchvision
    python benchmarks/against_peers.py --work detect --system keypoints --backbone resnet50 --peers torchvision
    python benchmarks/against_peers.py --work train --backbone resnet50 --size 512 --json train.json
    python benchmarks/against_peers.py --work train --backbone resnet50 --coco DIR --resize 800 1333 --batch 2 \\
        --peers torchvision
    python benchmarks/against_peers.py --work folder --backbone resnet50 --coco DIR --resize 800 1333 --images 100 \\
        --peers torchvision --before OLD_CHECKOUT
    python benchmarks/against_peers.py --work detect --backbone resnet50 --precision float32 bfloat16 int8 \\
        --graphs DIR --peers torchvision_onnxruntime,torchvision_openvino,exported_onnxruntime,exported_openvino

Every program is a process of its own, in its own Python, that builds its model once; only one computes at a time. The
weights are random, and the photographs generated, since speed depends on neither. `detect` goes from uint8 photographs
to pasted masks: the last layers are set so that each photograph gives 100 objects, where the program can. `train` is
one step on a batch that is ready, with so many instances that the share of positive RoIs is full or nearly.

With --coco, `train` takes real images at their own sizes: pairs of similar aspect ratio from DIR/train2017, the same in
every program, another pair in each round. "image_pixels" is the share of the computed pixels that are no padding.

`folder` goes from paths of images of mixed sizes, the first --images of DIR/val2017 and DIR/train2017, to run-length
masks: here by `MaskRCNN.stream`, in torchvision by a loop over the files. A round takes the next part of the images,
the same in every program. --before names a checkout of an earlier version of this package, which takes part as
"before".

--system takes others of the paper's systems: keypoints, also in torchvision; c4 and dc5, which no peer has.

Peers: torchvision; model_garden (TF Model Garden; it leaves masks at 28 x 28, so that its own pasting is a row of its
own); model_garden_batched (the same with NMS by TensorFlow's operator); matterport (the old package; needs a Python
3.7). Their environments are built by pip when first asked for. Detectron2 is on no package index. For `detect` also
engines: torchvision_onnxruntime and torchvision_openvino run torchvision's exported graph, without its mask pasting,
and paste masks as a user would; exported_onnxruntime and exported_openvino run this package's. --graphs keeps the
exported files for the next run.

The processor's features stand before the table. The table: seconds are the median of the rounds, with the least and
the most. "ours / it": this package's time in parts of the row's, median of the ratios within a round, which a drifting
machine spoils least. "of its first": seconds an image in parts of those of the program's first row. Memory is the
largest resident, and how much of it came after the import of the framework. CPU seconds count all threads, also those
that wait, which torch's do busily. Far more wall than CPU time a core means a busy machine; then "by CPU", the ratio of
CPU seconds, says a little more. Then each row's seconds in parts of each other row's, also across precisions.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import processor
from passes import Program
from peers import turns
from peers.environments import DEFAULT, HERE, PEERS, python_of
from peers.systems import SYSTEMS
from peers.turns import OURS, Case

BEFORE = "before"
PRECISIONS = ("float32", "bfloat16", "int8")  # the last: of engines alone


def main() -> None:
    """Takes turns, prints."""
    arguments = parse()
    every = planned(arguments)
    pythons = {name: python_of(name, arguments.environments, dict(arguments.peer_python)) for name in arguments.peers}
    with contextlib.ExitStack() as stack:
        if arguments.graphs is None:
            arguments.graphs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="graphs.")))
        arguments.graphs.mkdir(parents=True, exist_ok=True)
        programs = {case: stack.enter_context(Program(command(case, arguments, pythons))) for case in every}
        rows = measure(programs, arguments.rounds, arguments.pause)
    print(f"{processor()}; {arguments.threads} threads, {arguments.rounds} rounds\n\n{turns.table(rows)}\n")
    for said in dict.fromkeys((r["program"].split(",")[0], r["version"], r["note"]) for r in rows):
        print(*filter(None, said), sep=", ")
    print("\nThis package takes", *turns.fastest(rows), sep="\n")
    print(f"\nSeconds of the row in parts of the column's:\n\n{turns.each_beside_each(rows)}")
    if arguments.json:
        private = ("environments", "json", "peer_python", "graphs", "before", "coco")
        what = {"arguments": vars(arguments) | dict.fromkeys(private), "processor": processor(), "rows": rows}
        arguments.json.write_text(json.dumps(what, indent=1, default=str))


def parse(given: list[str] | None = None) -> argparse.Namespace:
    """The flags, checked."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--work", choices=["detect", "folder", "train"], default="detect")
    flags.add_argument("--backbone", choices=["resnet50", "resnet101"], default="resnet101")
    flags.add_argument("--system", choices=list(SYSTEMS), default="fpn", help="of --work detect; one of the paper's")
    flags.add_argument("--precision", nargs="+", choices=PRECISIONS, default=["float32"])
    flags.add_argument("--size", type=int, default=1024, help="longest side in the network, pixels")
    flags.add_argument(
        "--resize",
        type=int,
        nargs=2,
        metavar=("MIN", "MAX"),
        help="shortest and longest side, as 800 1333; default: --size for both",
    )
    flags.add_argument("--height", type=int, nargs="+", help="of the photographs; default: --size")
    flags.add_argument("--width", type=int, nargs="+", help="one for each height")
    flags.add_argument("--batch", type=int, nargs="+", default=[1])
    flags.add_argument("--classes", type=int, default=81, help="with background")
    flags.add_argument("--instances", type=int, default=100, help="of each photograph to learn from, 100 at most")
    flags.add_argument("--rounds", type=int, default=5, help="after one that is not counted")
    flags.add_argument("--threads", type=int, default=2, help="and cores, of every program")
    flags.add_argument("--pause", type=float, default=0.5, help="seconds between calls, for idle threads to sleep")
    flags.add_argument(
        "--peers",
        type=lambda text: [n for n in text.split(",") if n],
        default=["torchvision", "model_garden", "model_garden_batched"],
        help=f"of {', '.join(PEERS)}, with commas",
    )
    flags.add_argument("--environments", type=Path, default=DEFAULT, help="folder of the peers' environments")
    flags.add_argument(
        "--peer-python",
        type=name_and_path,
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="a Python that has the peer, instead of one of --environments",
    )
    flags.add_argument("--coco", type=Path, help="folder with annotations/instances_train2017.json and train2017/")
    flags.add_argument("--images", type=int, default=100, help="of --work folder, over all rounds")
    flags.add_argument("--before", type=Path, help="a checkout of an earlier version of this package")
    flags.add_argument("--graphs", type=Path, help="folder that keeps the engines' exported files")
    flags.add_argument("--json", type=Path, help="file for all figures")
    arguments = flags.parse_args(given)
    arguments.resize = arguments.resize or [arguments.size, arguments.size]
    arguments.height, arguments.width = (side or [arguments.size] for side in (arguments.height, arguments.width))
    check(flags, arguments)
    return arguments


def check(flags: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Ends the program with what is wrong."""
    if len(arguments.height) != len(arguments.width):
        flags.error(f"--height has {len(arguments.height)} values, --width {len(arguments.width)}; give pairs")
    if unknown := set(arguments.peers) - set(PEERS):
        flags.error(f"--peers {','.join(sorted(unknown))}: there are {', '.join(PEERS)}")
    environments = {peer.environment for peer in PEERS.values()}
    if unknown := {name for name, _ in arguments.peer_python} - environments:
        flags.error(f"--peer-python {', '.join(sorted(unknown))}: there are {', '.join(sorted(environments))}")
    if unable := [name for name in arguments.peers if arguments.work not in PEERS[name].works]:
        flags.error(f"--work {arguments.work} is nothing for {', '.join(unable)}; name others with --peers")
    if arguments.work == "detect" and arguments.coco or arguments.work == "folder" and not arguments.coco:
        flags.error(f"--work {arguments.work} --coco {arguments.coco}: folder needs it, train may have it, detect not")
    theirs = {"fpn": set(PEERS), "keypoints": {"torchvision"}}.get(arguments.system, set())
    if arguments.system != "fpn" and (arguments.work != "detect" or set(arguments.peers) - theirs):
        only = ",".join(sorted(theirs)) or '""'
        flags.error(f"--system {arguments.system} needs --work detect and --peers {only}")
    if arguments.coco and set(arguments.peers) - {"torchvision"}:
        flags.error("--coco needs --peers torchvision, or none")
    if arguments.work == "folder" and arguments.images < 2 * arguments.rounds:
        flags.error(f"--images {arguments.images} must be twice --rounds {arguments.rounds} or more")
    if arguments.rounds < 1 or not 1 <= arguments.instances <= 100:
        flags.error(f"--rounds {arguments.rounds} must be 1 or more, --instances {arguments.instances} 1 to 100")


def name_and_path(text: str) -> tuple[str, str]:
    """NAME=PATH."""
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PATH")
    return name, path


def planned(arguments: argparse.Namespace) -> list[Case]:
    """The cases; those that a peer cannot do are left out, and told."""
    photographs = list(zip(arguments.height, arguments.width, strict=True))
    ours = [OURS, BEFORE] if arguments.before else [OURS]
    every = turns.cases([*ours, *arguments.peers], arguments.precision, arguments.batch, photographs)
    precisions = {name: PEERS[name].precisions for name in arguments.peers} | dict.fromkeys(ours, PRECISIONS[:2])
    able = [c for c in every if c.precision in precisions[c.program]]
    for program in dict.fromkeys((case.program, case.precision) for case in every if case not in able):
        print("left out:", *program, "(it has none)", file=sys.stderr)
    return able


def command(case: Case, arguments: argparse.Namespace, pythons: dict[str, str]) -> list[str]:
    """What runs the program of a case."""
    told: dict[str, Any] = {
        "work": arguments.work,
        "backbone": arguments.backbone,
        "system": arguments.system,
        "precision": case.precision,
        "height": case.height,
        "width": case.width,
        "min_dim": arguments.resize[0],
        "max_dim": arguments.resize[1],
        "batch": case.batch,
        "classes": arguments.classes,
        "threads": arguments.threads,
        "instances": arguments.instances,
        "coco": arguments.coco and str(arguments.coco),
        "images": arguments.images,
        "rounds": arguments.rounds,
    }
    if case.program in (OURS, BEFORE):
        told["root"] = str(arguments.before.resolve()) if case.program == BEFORE else None
        return [sys.executable, str(HERE / "this_package.py"), json.dumps(told)]
    peer = PEERS[case.program]
    if peer.engine:
        told |= {"torch_python": pythons[case.program], "graphs": str(arguments.graphs)}
        return [sys.executable, str(HERE / peer.script), json.dumps(told | peer.options)]
    # -E: a PYTHONPATH to this package would hide the old one, of the same name
    return [pythons[case.program], "-E", str(HERE / peer.script), json.dumps(told | peer.options)]


def measure(programs: dict[Case, Program], rounds: int, pause: float) -> list[dict[str, Any]]:
    """Starts one after the other, then makes them call in turn."""
    started = {}
    for case, program in programs.items():
        started[case] = program.ask(do="start")
        tell(case, f"built and called in {started[case]['build_s'] + started[case]['first_s']:.1f} s")
    measured: list[dict[Case, dict]] = [{} for _ in range(rounds + 1)]
    for number, case in turns.interleaved(list(programs), rounds + 1):
        time.sleep(pause)
        measured[number][case] = programs[case].ask(do="call")
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
        tell(case, f"round {number} of {rounds}: {measured[number][case]['seconds']:.2f} s, load {load:.1f}")
    found = {case: program.ask(do="found") for case, program in programs.items()}
    return turns.summary(started, measured[1:], found)


def tell(case: Case, text: str) -> None:
    """How far it is."""
    print(f"{case.program}, {case.precision}, batch {case.batch}, {case.photograph}: {text}", file=sys.stderr)


if __name__ == "__main__":
    main()

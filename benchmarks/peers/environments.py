"""The peers, and the Python environment of each, built by pip where there is none."""

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from peers.cuda_stand_ins import make_loadable

HERE = Path(__file__).resolve().parent
DEFAULT = Path.home() / ".cache" / "mask-rcnn-keras" / "peers"


class Peer(NamedTuple):
    """A program to compare with."""

    script: str  # of this folder
    environment: str  # peers of the same name share it
    requirements: tuple[str, ...]
    python: str = sys.executable  # that makes the environment
    precisions: tuple[str, ...] = ("float32", "bfloat16")
    options: dict[str, Any] = {}  # beside the case's settings
    works: tuple[str, ...] = ("detect", "train")

    @property
    def engine(self) -> bool:
        """Whether this project's own Python runs it, on a graph that the environment's may have to export."""
        return "engine" in self.options


TORCH = ("torch==2.13.*", "torchvision==0.28.*", "numpy", "pillow", "pycocotools", "onnx")
GARDEN = ("tf-models-official==2.20.*", "tf_keras==2.20.*")
OLD = (
    "mrcnn==0.2",
    "tensorflow==1.15.5",
    "keras==2.2.5",
    "h5py==2.10.0",
    "protobuf<3.21",
    "numpy<1.19",
    "scikit-image<0.18",
    "scipy<1.6",
    "Pillow<10",
)
PEERS = {
    "torchvision": Peer("torchvision_peer.py", "torchvision", TORCH, works=("detect", "folder", "train")),
    "model_garden": Peer("model_garden_peer.py", "model_garden", GARDEN),
    "model_garden_batched": Peer(
        "model_garden_peer.py", "model_garden", GARDEN, precisions=("float32",), options={"batched": True}
    ),
    "matterport": Peer("matterport_peer.py", "matterport", OLD, python="python3.7", precisions=("float32",)),
} | {
    f"{graph}_{engine}": Peer(
        "engine_peer.py",
        "torchvision",
        TORCH,
        precisions=precisions,
        options={"graph": graph, "engine": engine},
        works=("detect",),
    )
    for graph in ("torchvision", "exported")
    for engine, precisions in (("onnxruntime", ("float32", "int8")), ("openvino", ("float32", "bfloat16", "int8")))
}


def python_of(name: str, folder: Path, given: Mapping[str, str]) -> str:
    """The Python that runs a peer, its environment built first if need be.

    Args:
        name: a key of PEERS.
        folder: of the environments.
        given: Pythons by the name of an environment, to use as they are.

    Raises ValueError for a peer that there is not, FileNotFoundError for a Python that there is not,
    subprocess.CalledProcessError when pip fails.
    """
    if name not in PEERS:
        raise ValueError(f"there is no peer {name!r}; there are {', '.join(PEERS)}.")
    peer = PEERS[name]
    if peer.environment in given:
        return _found(given[peer.environment], f"--peer-python {peer.environment}=PATH")
    home = folder / peer.environment
    python, ready = home / "bin" / "python", home / ".ready"
    if not ready.exists() or ready.read_text() != "\n".join(peer.requirements):
        _build(peer, home, python)
        ready.write_text("\n".join(peer.requirements))
    return str(python)


def _build(peer: Peer, home: Path, python: Path) -> None:
    base = _found(
        peer.python,
        f"put {peer.python} on the PATH, or name a Python that has {peer.environment} by "
        f"--peer-python {peer.environment}=PATH",
    )
    print(f"building {home} with {base}: {' '.join(peer.requirements)}", file=sys.stderr)
    subprocess.run([base, "-m", "venv", str(home)], check=True)
    subprocess.run([str(python), "-m", "pip", "install", "-q", *peer.requirements], check=True, stdout=sys.stderr)
    if peer.environment == "torchvision":
        make_loadable(python)


def _found(python: str, remedy: str) -> str:
    found = shutil.which(python)
    if found is None:
        raise FileNotFoundError(f"there is no Python {python!r}: {remedy}.")
    return found

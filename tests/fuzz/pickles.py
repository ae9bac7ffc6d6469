"""Damaged and made-up pickles and files of torch.save: read as weights, or refused with a ValueError.

python -m tests.fuzz.pickles --count 20000
"""

import functools
import io
import pickle
import random
import struct
import tempfile
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np

from mrcnn.weights.importers.pickles import load_pickle
from mrcnn.weights.importers.torch_file import is_torch_file, load_torch
from mrcnn.weights.recognize import read_source
from mrcnn.weights.source import Lazy
from tests.fuzz import campaign
from tests.parity import values_of
from tests.weights.importers import test_detectron2, test_torchvision
from tests.weights.torch_writer import Tensor, save_legacy, save_zip


def content():
    rng = np.random.default_rng(0)
    return {
        "model": OrderedDict(
            a=rng.normal(size=(2, 3, 4)).astype(np.float32),
            b=np.arange(4, dtype=">i8"),
            c=np.asfortranarray(np.arange(6.0).reshape(2, 3)),
            k=np.arange(24.0).reshape(2, 3, 4).transpose(1, 2, 0),
            n=np.zeros((0, 3), np.float16),
        ),
        "names": ["x", ("y", 2.5, None, b"z"), 2**70, -1, True],
        "counts": Counter([3, 5, 5]),
        "scalar": np.float32(2.5),
    }


def torch_content():
    return {
        "model": OrderedDict(
            a=np.arange(24, dtype=np.float32).reshape(2, 3, 4),
            part=Tensor(np.arange(24, dtype=np.float32), size=(2, 4), stride=(4, 1), offset=16),
            half=np.arange(5, dtype=np.float16),
        ),
        "scheduler": {"milestones": Counter([3, 5, 5])},
    }


@functools.cache
def whole_files() -> list[bytes]:
    """Undamaged files: short ones of every form, and small models of the programs that are known."""
    files = [pickle.dumps(content(), protocol) for protocol in range(6)]
    tv, d2 = values_of(test_torchvision.shapes()), values_of(test_detectron2.shapes())
    files += [pickle.dumps({"model": d2, "__author__": "x"}, 2), pickle.dumps(d2, 4)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.pth"
        for save in (save_zip, save_legacy):
            for what in (torch_content(), torch_content(), tv):
                save(path, what)
                files.append(path.read_bytes())
    return files


def make(rng: random.Random) -> bytes:
    """A changed file, instructions in any order, or a zip around such."""
    files = whole_files()
    kind = rng.random()
    if kind < 0.15:
        return instructions(rng)
    if kind < 0.25:
        return zipped(instructions(rng, torch=True))
    short = [file for file in files if len(file) < 5000]
    data = rng.choice(short if kind < 0.9 else files)
    if kind < 0.55 and data[:2] == b"PK":  # changed inside, with checksums that fit
        return zipped(campaign.mutated(rng, inner(data), short))
    return campaign.mutated(rng, data, short)


def inner(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read("archive/data.pkl")


def zipped(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        for i in range(4):
            archive.writestr(f"archive/data/{i}", np.arange(24, dtype=np.float32).tobytes())
    return file.getvalue()


NAMES = [
    "collections OrderedDict",
    "collections Counter",
    "_codecs encode",
    "__builtin__ bytes",
    "numpy ndarray",
    "numpy dtype",
    "numpy.core.multiarray _reconstruct",
    "numpy._core.multiarray scalar",
    "numpy.core.numeric _frombuffer",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    "torch Size",
    "torch FloatStorage",
    "builtins eval",
    "os system",
]
TEXTS = ["f4", "<i8", "storage", "FloatStorage", "0", "cpu", "<", "latin1", "model", "weight", "K", ""]
PLAIN = "0123NQR)}]\x88\x89\x85\x86\x87(tldusaebo\x8f\x90\x91\x92\x93\x94\x97\x98."


def instructions(rng: random.Random, torch: bool = False) -> bytes:
    """Pickle's instructions in any order, with arguments that are often right, and runs of them over and over."""
    parts = [b"\x80\x04"]
    for _ in range(rng.choice((5, 20, 100))):
        kind = rng.random()
        if kind < 0.45:
            parts.append(rng.choice(PLAIN).encode("latin1"))
        elif kind < 0.6:
            parts.append(b"c" + rng.choice(NAMES).replace(" ", "\n").encode() + b"\n")
        elif kind < 0.7:
            text = rng.choice(TEXTS).encode()
            parts.append(pickle.SHORT_BINUNICODE + bytes([len(text)]) + text)
        elif kind < 0.8:
            parts.append(rng.choice((b"K", b"h", b"q", b"C\x01")) + bytes([rng.randrange(rng.choice((3, 256)))]))
        elif kind < 0.85:
            parts.append(
                rng.choice((b"J", b"j", b"r", b"X", b"B", b"T")) + struct.pack("<I", rng.choice((0, 3, 2**31)))
            )
        elif kind < 0.9:
            parts.append(b"\x94" + b"".join(b"h" + bytes([i]) + b"\x86\x94" for i in range(rng.choice((3, 60, 200)))))
        else:
            run = b"".join(parts[-rng.randrange(1, 6) :])
            parts.append(run * min(rng.choice((2, 10, 1000)), 200_000 // (len(run) + 1)))
    if torch and rng.random() < 0.5:
        storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x18tQ"
        parts.append(b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\0K\x18\x85K\x01\x85\x89NtR")
    return b"".join(parts) + b"."


def read(path: Path) -> None:
    """Everything that a file of weights is asked for."""
    errors = []
    for load in (load_torch if is_torch_file(path) else load_pickle, lambda path: read_source(path).tensors):
        try:
            take(load(path), 5)
        except ValueError as error:
            errors.append(error)
    if len(errors) == 2:
        raise errors[0]


def take(value: object, depth: int) -> None:
    """Reads the tensors of what was loaded."""
    if isinstance(value, Lazy):
        value.read()
    elif depth and isinstance(value, dict | list | tuple):
        for item in list(value.values() if isinstance(value, dict) else value)[:1000]:
            take(item, depth - 1)


if __name__ == "__main__":
    campaign.main(make, read, __doc__)

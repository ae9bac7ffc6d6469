"""Damaged and made-up HDF5 files: read as weights, or refused with a ValueError.

python -m tests.fuzz.h5 --count 20000
"""

import contextlib
import copy
import functools
import io
import json
import random
import tempfile
from pathlib import Path

import h5py
import keras
import numpy as np

from mrcnn.config import Config, setting_names
from mrcnn.weights import conventions
from mrcnn.weights.checkpoint import is_checkpoint, read_metadata, save_checkpoint
from mrcnn.weights.importers.imagenet import is_keras_weights
from mrcnn.weights.importers.keras_resnet import read_keras
from mrcnn.weights.recognize import read_source
from tests.fuzz import campaign
from tests.weights import matterport_writer
from tests.weights.importers import test_keras_h5
from tests.weights.metadata import set_metadata

DEFAULTS = {name: getattr(Config, name) for name in setting_names()}


@functools.cache
def whole_files() -> list[bytes]:
    """Undamaged files: a checkpoint with its training state, Keras's layouts, and a small model of the old package."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(6, name="conv"), keras.layers.Dense(2, name="out")])
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    model.optimizer.build(model.trainable_variables)
    files = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.weights.h5"
        layers = {f"trunk/{layer.name}": layer for layer in model.layers}
        metadata = {"config": Config(NUM_CLASSES=3).to_dict(), "class_names": ["BG", "cat", "dog"], "epoch": 4}
        state = {f"momentum/{i}": np.asarray(variable) for i, variable in enumerate(model.optimizer.variables)}
        save_checkpoint(path, layers, metadata, state)
        files.append(path.read_bytes())
        model.save_weights(path)
        files.append(path.read_bytes())
        for layout in test_keras_h5.LAYOUTS[:3]:
            test_keras_h5.write(path, layout)
            files.append(path.read_bytes())
        matterport_writer.save(path, matterport_writer.values_of(matterport_writer.shapes()))
        files.append(path.read_bytes())
    return files


def make(rng: random.Random) -> bytes:
    """A changed file, a file with other metadata, or one made of whatever HDF5 has."""
    files, kind = whole_files(), rng.random()
    if kind < 0.2:
        return made_up(rng)
    if kind < 0.35:
        return with_metadata(rng, files[0])
    short = [file for file in files if len(file) < 60_000]
    return campaign.mutated(rng, rng.choice(short if kind < 0.97 else files), short)


VALUES = (None, True, 0, -1, 3, 2**40, 1e400, 0.5, "", "x", "../../etc/passwd", [], [1], [[1]], {}, {"name": "fcn"})


def with_metadata(rng: random.Random, data: bytes) -> bytes:
    """A checkpoint whose metadata are changed, with the checksum that fits."""
    metadata = {"config": Config(NUM_CLASSES=3).to_dict(), "class_names": ["BG", "cat", "dog"], "format_version": 2}
    for _ in range(rng.choice((1, 2, 4))):
        within = rng.choice((metadata, metadata["config"], metadata["config"]))
        within = within if isinstance(within, dict) and within else {"x": 1}
        within[rng.choice([*within, "NEW"])] = copy.deepcopy(rng.choice(VALUES))
        if not isinstance(metadata.get("config"), dict):
            break
    text = json.dumps(metadata)
    if rng.random() < 0.2:
        text = campaign.mutated(rng, text.encode(), [b"{}"]).decode("utf-8", "ignore").replace("\0", "")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.h5"
        path.write_bytes(data)
        set_metadata(path, text)
        return path.read_bytes()


NAMES = ("weights", "trunk", "conv1", "kernel", "kernel:0", "vars", "0", "layers", "optimizer", "metadata", "a" * 400)


def made_up(rng: random.Random) -> bytes:
    """Groups, datasets and links of every kind at random places."""
    image = io.BytesIO()
    with h5py.File(image, "w", libver=rng.choice(("earliest", "latest"))) as file:
        if rng.random() < 0.7:
            text = json.dumps({"config": {}, "class_names": [], "epoch": 1})
            file.attrs["metadata"] = rng.choice((text, text.encode(), [text] * 3, 5, h5py.Empty("f4")))
        for _ in range(rng.choice((1, 3, 10, 30))):
            name = "/".join(rng.choices(NAMES, k=rng.randrange(1, 5)))
            try:
                rng.choice(THINGS)(rng, file, name)
            except (ValueError, OSError, RuntimeError, KeyError, TypeError):
                continue  # the place is taken, or HDF5 itself forbids it
    return image.getvalue()


def _numbers(rng, file, name):
    shape = rng.choice(((), (0,), (3,), (2, 3), (50, 60)))
    kind = rng.choice(("f4", "f8", ">i4", "u1", "?", "c8", "f2"))
    packed = rng.choice(({}, {}, {"compression": "gzip"}, {"fletcher32": True}, {"scaleoffset": 2}))
    file.create_dataset(name, data=np.ones(shape, kind), **packed)


def _unwritten(rng, file, name):
    shape = rng.choice(((), (3,), (10**6, 10**6), (2**40,)))
    file.create_dataset(name, shape, "f4", chunks=True if shape and rng.random() < 0.5 else None)


def _texts(rng, file, name):
    file[name] = rng.choice((["a", "b"], "x", b"y", [[b"z"]]))


def _null(rng, file, name):
    file[name] = h5py.Empty("f4")


def _type(rng, file, name):
    file[name] = np.dtype("f8")


def _pairs(rng, file, name):
    file[name] = np.zeros(2, [("a", "f4"), ("b", "i2", (3,))])


def _external(rng, file, name):
    file.create_dataset(name, (4,), "u1", external=[("/etc/passwd", 0, 4)])


def _virtual(rng, file, name):
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:2] = h5py.VirtualSource(rng.choice(("nope.h5", ".")), rng.choice(("x", name)), (2,))
    file.create_virtual_dataset(name, layout)


def _soft(rng, file, name):
    file[name] = h5py.SoftLink(rng.choice(("/", "/weights", "/nowhere", name)))


def _link(rng, file, name):
    file[name] = h5py.ExternalLink(rng.choice(("/etc/passwd", "x.h5")), "/x")


def _hard(rng, file, name):
    file[name] = rng.choice([item for item in file.values() if item is not None] or [file])


def _group(rng, file, name):
    file.create_group(name).attrs["name"] = rng.choice(("conv1", b"conv1", 5, ["a"], "x" * 10**5))


THINGS = (
    _numbers,
    _numbers,
    _unwritten,
    _texts,
    _null,
    _type,
    _pairs,
    _external,
    _virtual,
    _soft,
    _link,
    _hard,
    _group,
)


def read(path: Path) -> None:
    """Everything that a file of weights is asked for, up to the settings of the model that would be built for it."""
    for reader in (is_checkpoint, is_keras_weights, read_metadata, read_keras):
        with contextlib.suppress(ValueError):
            reader(path)
    _whole(path)


def _whole(path: Path) -> None:
    source = read_source(path)
    conventions.pretrained_config(source, path, None, DEFAULTS, {})
    for tensor in source.tensors.values():
        tensor.read()


if __name__ == "__main__":
    campaign.main(make, read, __doc__)

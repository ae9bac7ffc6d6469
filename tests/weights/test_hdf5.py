"""HDF5 files that lead out of themselves, announce what they do not hold, or are damaged."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from mrcnn.network.backbone import build_backbone
from mrcnn.weights import hdf5
from mrcnn.weights.checkpoint import checkpoint_source, load_checkpoint, read_state, save_checkpoint
from mrcnn.weights.hdf5 import lazy, list_datasets, open_hdf5, read_dataset
from mrcnn.weights.importers import imagenet
from mrcnn.weights.importers.keras_h5 import read_layers
from mrcnn.weights.importers.keras_resnet import read_keras
from mrcnn.weights.recognize import read_source

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases" / "reliability"
SECRET = b"account:password:do-not-read-me\n" * 4


@pytest.fixture
def elsewhere(tmp_path):
    """A file of the machine, and an HDF5 file with the same bytes as numbers in it."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "passwd").write_bytes(SECRET)
    with h5py.File(folder / "other.h5", "w") as file:
        file["x"] = np.frombuffer(SECRET, np.float32)[:12].reshape(3, 4)
        file["group/x"] = np.ones((3, 4), np.float32)
    return folder


def external_storage(file, name, folder):
    file.create_dataset(name, (3, 4), "f4", external=[(str(folder / "passwd"), 0, 48)])


def external_storage_in_two_files(file, name, folder):
    parts = [(str(folder / "nothing"), 0, 24), (str(folder / "passwd"), 0, 24)]
    file.create_dataset(name, (3, 4), "f4", external=parts)


def virtual(file, name, folder):
    layout = h5py.VirtualLayout((3, 4), "f4")
    layout[:] = h5py.VirtualSource(folder / "other.h5", "x", (3, 4))
    file.create_virtual_dataset(name, layout)


def virtual_in_part(file, name, folder):
    layout = h5py.VirtualLayout((3, 4), "f4")
    layout[:1] = h5py.VirtualSource(folder / "other.h5", "x", (3, 4))[:1]
    file.create_virtual_dataset(name, layout)


def virtual_of_what_is_missing(file, name, folder):
    layout = h5py.VirtualLayout((3, 4), "f4")
    layout[:] = h5py.VirtualSource("nope.h5", "x", (3, 4))
    file.create_virtual_dataset(name, layout)


def virtual_of_nothing(file, name, folder):
    file.create_virtual_dataset(name, h5py.VirtualLayout((3, 4), "f4"))


def external_link(file, name, folder):
    file[name] = h5py.ExternalLink(folder / "other.h5", "x")


def external_link_of_a_group(file, name, folder):
    group = name.rpartition("/")[0] or name
    file[group] = h5py.ExternalLink(folder / "other.h5", "group")


def soft_link(file, name, folder):
    file[name] = h5py.SoftLink("/kept")


def soft_link_through_an_external_one(file, name, folder):
    file["way_out"] = h5py.ExternalLink(folder / "other.h5", "/")
    file[name] = h5py.SoftLink("/way_out/x")


def soft_link_of_a_group(file, name, folder):
    file[name.rpartition("/")[0] or name] = h5py.SoftLink("/nowhere")


WAYS_OUT = {
    external_storage: "has its data in another file, '.*passwd'",
    external_storage_in_two_files: "has its data in another file, '.*nothing'",
    virtual: "is a virtual dataset, with its data in '.*other.h5'",
    virtual_in_part: "is a virtual dataset, with its data in '.*other.h5'",
    virtual_of_what_is_missing: "is a virtual dataset, with its data in 'nope.h5'",
    virtual_of_nothing: "is a virtual dataset, with its data in no file",
    external_link: "is an external link to another file",
    external_link_of_a_group: "is an external link to another file",
    soft_link: "is a soft link",
    soft_link_through_an_external_one: "is (a soft|an external) link",
    soft_link_of_a_group: "is a soft link",
}
# Where it stands in a file of each kind, and how such a file is read.
READERS = {
    "own": ("weights/trunk/d/kernel", checkpoint_source),
    "own, by load": ("weights/trunk/d/kernel", lambda path: load_checkpoint(path, {})),
    "own, the training state": ("state/iterations", read_state),
    "own, what nobody reads": ("weights/trunk/d/kernel", read_source),
    "keras 2": ("res2a_branch2a/res2a_branch2a/kernel:0", read_layers),
    "keras 3": ("layers/conv2d/vars/0", read_keras),
    "either": ("conv1/conv1/kernel:0", read_source),
    "keras reads it": (
        "layers/conv2d/vars/0",
        lambda path: imagenet.load(path, build_backbone("mobilenet", options={"alpha": 0.25})),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS_OUT, ids=lambda way: way.__name__)
@pytest.mark.parametrize("kind", READERS)
def test_files_that_read_other_files(tmp_path, elsewhere, kind, way):
    path, (name, reader) = tmp_path / "a.weights.h5", READERS[kind]
    if kind.startswith("own"):
        save_checkpoint(path, {}, {})
    else:
        h5py.File(path, "w").close()
    with h5py.File(path, "r+") as file:
        file["kept"] = np.zeros(3)
        way(file, name, elsewhere)
    with pytest.raises(ValueError, match=f"a.weights.h5: .*{WAYS_OUT[way]}.*; the file is not read"):
        reader(path)


def test_a_file_that_changes_between_listing_and_reading(tmp_path, elsewhere):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.zeros((3, 4), np.float32)
    with open_hdf5(path) as file:
        tensor = lazy(path, "x", list_datasets(file)["x"])
    with h5py.File(path, "w") as file:
        external_storage(file, "x", elsewhere)
    with pytest.raises(ValueError, match="'x' has its data in another file"):
        tensor.read()


def test_the_cases_of_a_test_campaign():
    folder = CASES / "h5-reads-other-files"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    for name, message in (("external_passwd", "in another file, '/etc/passwd'"), ("vds_missing", "in 'nope.h5'")):
        with pytest.raises(ValueError, match=f"{name}.h5: 'weights/trunk/d/kernel' .*{message}"):
            checkpoint_source(folder / f"{name}.h5")
    assert checkpoint_source(folder / "own2.h5").tensors["trunk/d/kernel"].read().shape == (3, 4)


def make(path, **options):
    with h5py.File(path, "w") as file:
        file.create_dataset("group/x", **options)
    return path


def listed(path):
    with open_hdf5(path) as file:
        return list_datasets(file)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"data": h5py.Empty("f4")}, "is empty"),
        ({"shape": (1000,), "dtype": "f4"}, "no data for some of its numbers, which would read as zeros"),
        ({"shape": (1000,), "dtype": "f4", "chunks": (10,)}, "no data for some of its numbers"),
        ({"shape": (), "dtype": "f4"}, "no data for some of its numbers"),
        ({"shape": (10**9,), "dtype": "f4", "fillvalue": 1, "chunks": (10,)}, "no data for some of its numbers"),
        ({"data": np.zeros((4000, 4000)), "compression": "gzip"}, "declare over 8 times the size of the file"),
        (
            {"data": np.zeros(1), "maxshape": (None,), "chunks": (10**7,), "compression": "gzip"},
            "declare over 8 times the size of the file",
        ),
        ({"data": np.zeros(9, "f4"), "scaleoffset": 3}, "is compressed by filter 6; supported are gzip, shuffle"),
    ],
)
def test_numbers_that_are_not_in_the_file(tmp_path, options, message):
    path = make(tmp_path / "a.h5", **options)
    with pytest.raises(ValueError, match=f"a.h5: 'group/x' .*{message}"):
        listed(path)


def test_chunks_that_are_there_in_part(tmp_path):
    path = make(tmp_path / "a.h5", shape=(100, 100), dtype="f4", chunks=(30, 30))
    with h5py.File(path, "r+") as file:
        file["group/x"][:90] = 1
    with pytest.raises(ValueError, match="no data for some of its numbers"):
        listed(path)
    with h5py.File(path, "r+") as file:
        file["group/x"][90:] = 1
    np.testing.assert_array_equal(read_dataset(str(path), "group/x"), np.ones((100, 100)))


@pytest.mark.parametrize(
    "options", [{"compression": "gzip", "shuffle": True}, {"compression": "lzf"}, {"fletcher32": True}, {}]
)
def test_what_keras_and_users_write_is_read(tmp_path, options):
    value = np.random.default_rng(0).normal(size=(40, 50)).astype(np.float32)
    path = make(tmp_path / "a.h5", data=value, **options)
    assert listed(path)["group/x"].shape == (40, 50)
    np.testing.assert_array_equal(read_dataset(str(path), "group/x"), value)


def test_kinds_of_datasets(tmp_path):
    values = {
        "bool": np.array([True, False]),
        "empty": np.zeros((0, 3)),
        "half": np.ones(2, np.float16),
        "scalar": np.float64(2),
    }
    other = {"text": ["a", "b"], "complex": np.zeros(3, "c8"), "pair": np.zeros(2, [("a", "f4"), ("b", "f4", (9,))])}
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for name, value in (values | other).items():
            file[name] = value
        file["type"] = np.dtype("f8")
    found = listed(path)
    assert found.keys() == values.keys() | other.keys()
    for name, value in values.items():
        assert found[name] == (value.shape, value.dtype)
        np.testing.assert_array_equal(read_dataset(str(path), name), value)
    for name in other:
        assert found[name].dtype is None
        with pytest.raises(ValueError, match=f"a.h5: {name} holds .*, not numbers"):
            read_dataset(str(path), name)


def test_groups_that_hold_themselves_and_each_other(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("a")
        group["x"] = np.zeros(2)
        group["root"], group["self"] = file["/"], group
        for i in range(60):  # a tree of 2^60 names over 60 groups
            below = file.create_group(f"g{i}")
            below["left"] = below["right"] = file[f"g{i - 1}"] if i else group
    assert {"a/x"} == set(listed(path))


def test_groups_far_within_one_another(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        group = file
        for _ in range(2000):
            group = group.create_group("a")
        group["x"] = np.zeros(2)
    with pytest.raises(ValueError, match="is nested more than 32 groups deep"):
        listed(path)


def test_objects_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5, "MAX_OBJECTS", 10)
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for i in range(11):
            file.create_group(str(i))
    with pytest.raises(ValueError, match="is one object too many, or has too long a name"):
        listed(path)


def test_names_are_not_long(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["x" * 1000] = np.zeros(2)
    with pytest.raises(ValueError, match="has too long a name") as caught:
        listed(path)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("value", [["a"] * 3, np.zeros(3), 5, h5py.Empty("f4")])
def test_metadata_that_are_no_text(tmp_path, value):
    path = tmp_path / "a.h5"
    save_checkpoint(path, {}, {})
    with h5py.File(path, "r+") as file:
        file.attrs["metadata"] = value
    with pytest.raises(ValueError, match="a.h5 is an HDF5 file but not a checkpoint of this package"):
        checkpoint_source(path)


RECOGNIZERS = [checkpoint_source, read_layers, read_keras, read_source, imagenet.is_keras_weights]


@pytest.mark.parametrize("reader", RECOGNIZERS)
@pytest.mark.parametrize("name", ["layers", "model_weights", "weights", "metadata"])
def test_an_endless_dataset_in_place_of_a_group(tmp_path, reader, name):
    """Its rows were read one by one, as if they were names; HDF5 crashed at some."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset(name, (10**6, 10**6), "f4", chunks=(1, 1))
        file.attrs["metadata"] = "{}"
    with pytest.raises(ValueError, match=f"a.h5: '{name}' has no data for some|a.h5: '{name}' and those before it"):
        reader(path)


@pytest.mark.parametrize("reader", RECOGNIZERS)
def test_a_damaged_directory_of_a_group(tmp_path, reader):
    """It gave a bare KeyError, without the name of the file."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for name in ("weights/trunk/d/kernel", "conv1/conv1/kernel:0", "layers/conv2d/vars/0"):
            file[name] = np.zeros(3, np.float32)
        file.attrs["metadata"] = "{}"
    content = path.read_bytes()
    found = 0
    for sign in (b"SNOD", b"TREE", b"HEAP"):
        path.write_bytes(content.replace(sign, b"XXXX"))
        try:
            reader(path)
        except ValueError as error:
            assert "a.h5 is truncated or damaged; " in str(error)
            found += 1
    assert found

import io
import pickle
import struct
import tracemalloc
import zipfile
from collections import Counter, OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrcnn.weights.importers.pickle_machine import ForbiddenPickle
from mrcnn.weights.importers.torch_file import LEGACY_MAGIC, is_torch_file, load_torch
from mrcnn.weights.recognize import read_source
from mrcnn.weights.source import Lazy
from tests.weights.torch_writer import Tensor, save_legacy, save_zip

WRITERS = {"zip": save_zip, "legacy": save_legacy}


@pytest.fixture(params=WRITERS)
def save(request, tmp_path):
    def _save(content, **options):
        path = tmp_path / "a.pth"
        WRITERS[request.param](path, content, **options)
        return path

    return _save


def content():
    return {
        "model": OrderedDict(
            a=np.arange(24, dtype=np.float32).reshape(2, 3, 4),
            h=np.arange(5, dtype=np.float16),
            n=np.array(7),
            flag=np.array([True, False]),
            none=np.zeros((0, 3), np.float32),
            turned=Tensor(np.arange(24, dtype=np.float32), size=(6, 4), stride=(1, 6)),
            part=Tensor(np.arange(24, dtype=np.float32), size=(2, 4), stride=(4, 1), offset=16),
            brain=Tensor(
                np.array([0x3F80, 0x4000, 0xC0A0], np.uint16).view(np.int16),
                size=(3,),
                stride=(1,),
                kind="BFloat16Storage",
            ),
        ),
        "iteration": 5,
        "names": ["x", ("y", 2.5, None)],
    }


def test_tensors_and_containers_come_back(save):
    path = save(content())
    assert is_torch_file(path)
    read = load_torch(path)
    assert read["iteration"] == 5 and read["names"] == ["x", ("y", 2.5, None)]
    model = read["model"]
    assert type(model) is OrderedDict and all(isinstance(tensor, Lazy) for tensor in model.values())
    for name in ("a", "h", "n", "flag", "none"):
        expected = content()["model"][name]
        assert model[name].shape == expected.shape and model[name].read().dtype == expected.dtype
        np.testing.assert_array_equal(model[name].read(), expected)
    np.testing.assert_array_equal(model["turned"].read(), np.arange(24).reshape(4, 6).T)
    np.testing.assert_array_equal(model["part"].read(), np.arange(16, 24).reshape(2, 4))
    np.testing.assert_array_equal(model["brain"].read(), [1, 2, -5])


@pytest.mark.parametrize(
    "size, stride, offset",
    [
        ((25,), (1,), 0),
        ((24,), (1,), 1),
        ((2, 3), (22, 1), 0),
        ((24, 24), (1, 0), 0),
        ((10**9, 10**9), (0, 0), 0),
        ((3,), (-1,), 5),
        ((-3,), (1,), 5),
        ((3,), (1,), -1),
        (("3",), (1,), 0),
        ((2, 3), (1,), 0),
    ],
)
def test_a_tensor_that_leaves_its_storage(save, size, stride, offset):
    path = save({"a": Tensor(np.arange(24, dtype=np.float32), size, stride, offset)})
    with pytest.raises(
        ValueError, match="a.pth is not a pickle, or truncated or damaged: a tensor (of|with an invalid|whose) size"
    ):
        load_torch(path)


@pytest.mark.parametrize("count", [23, 25, -1, 2**62, "24"])
def test_a_storage_that_is_not_as_large_as_it_says(save, count):
    path = save({"a": Tensor(np.arange(24, dtype=np.float32), (2,), (1,), count=count)})
    with pytest.raises(ValueError, match="truncated or damaged"):
        load_torch(path)


class Evil:
    def __reduce__(self):
        return eval, ("1",)


def test_more_than_tensors_is_refused(save):
    with pytest.raises(ForbiddenPickle, match="a.pth asks for .*builtin.*eval"):
        load_torch(save({"a": np.ones(2), "b": Evil()}))


def test_arrays_of_numpy_are_no_part_of_such_a_file(tmp_path):
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": np.ones(2)}))
    with pytest.raises(ForbiddenPickle, match="asks for numpy"):
        load_torch(path)


def test_other_files(tmp_path):
    path = tmp_path / "a.pth"
    with pytest.raises(FileNotFoundError):
        load_torch(path)
    for data in (b"", b"nothing of the kind", pickle.dumps({"a": 1})):
        path.write_bytes(data)
        assert not is_torch_file(path)
        with pytest.raises(ValueError, match="a.pth"):
            load_torch(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("letter.txt", "hello")
    assert not is_torch_file(path)
    with pytest.raises(ValueError, match="a zip file without torch.save's data.pkl, or with several"):
        load_torch(path)


def test_compressed_or_big_endian_files_are_refused(tmp_path):
    path = tmp_path / "a.pth"
    save_zip(path, {"a": np.zeros(1000, np.float32)}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="is compressed, which torch.save never does"):
        load_torch(path)
    save_zip(path, {"a": np.zeros(10, np.float32)})
    changed = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            new.writestr(name, b"big" if name.endswith("byteorder") else old.read(name))
    path.write_bytes(changed.getvalue())
    with pytest.raises(ValueError, match="written on a big-endian machine"):
        load_torch(path)


def test_a_small_file_that_announces_much_takes_no_memory(tmp_path):
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02N" + b"0N" * 2**23 + b".")
    assert path.stat().st_size < 2**16
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"a.pth: the data 'a/data.pkl' is compressed"):
            load_torch(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "place, form, value, message",
    [
        (8, "<H", 1, "the data 'archive/data.pkl' is encrypted"),
        (24, "<I", 4 * 10**8, "it has .* bytes, but 'archive/data.pkl' would have 400000000"),
        (6, "<H", 99, "truncated or damaged: zip file version 9.9"),
        (42, "<I", 10**9, "starting at 1000000000"),
    ],
)
def test_a_directory_that_is_made_up(tmp_path, place, form, value, message):
    """place: in the directory's entry of data.pkl, the first."""
    path = tmp_path / "a.pth"
    save_zip(path, {"a": np.zeros(10, np.float32)})
    data = bytearray(path.read_bytes())
    struct.pack_into(form, data, data.index(b"PK\x01\x02") + place, value)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"a.pth.*{message}"):
        load_torch(path)


def test_a_byte_order_as_long_as_a_file(tmp_path):
    path = tmp_path / "a.pth"
    save_zip(path, {"a": np.zeros(10, np.float32)})
    changed = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            new.writestr(name, bytes(2**22) if name.endswith("byteorder") else old.read(name))
    path.write_bytes(changed.getvalue())
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="written on a big-endian machine"):
            load_torch(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_milestones_of_a_scheduler(save):
    assert load_torch(save({"scheduler": {"milestones": Counter([3, 5, 5])}}))["scheduler"] == {
        "milestones": {3: 1, 5: 2}
    }


def test_a_storage_of_the_zip_is_missing(tmp_path):
    path = tmp_path / "a.pth"
    save_zip(path, {"a": np.zeros(10, np.float32)})
    changed = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(changed, "w") as new:
        new.writestr("archive/data.pkl", old.read("archive/data.pkl"))
    path.write_bytes(changed.getvalue())
    with pytest.raises(ValueError, match="the data of a storage is not in the file"):
        load_torch(path)


def test_a_damaged_storage_is_found_by_its_checksum(tmp_path):
    path = tmp_path / "a.pth"
    save_zip(path, {"a": np.full(100, 3.25, np.float32)})
    data = bytearray(path.read_bytes())
    data[data.index(np.full(4, 3.25, np.float32).tobytes())] ^= 1
    path.write_bytes(data)
    tensor = load_torch(path)["a"]
    with pytest.raises(ValueError, match="a.pth is truncated or damaged in 'archive/data/0': Bad CRC-32"):
        tensor.read()


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(sorted(WRITERS)), st.floats(0, 0.999))
def test_truncated_anywhere(tmp_path_factory, kind, share):
    path = tmp_path_factory.mktemp("cut") / "a.pth"
    WRITERS[kind](path, content())
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ValueError, match="a.pth"):
        for tensor in load_torch(path)["model"].values():
            tensor.read()


def nested(count=60):
    """Instructions that leave a tuple of 2^60 parts."""
    step = b"".join(pickle.BINGET + bytes([i]) + pickle.TUPLE2 + pickle.MEMOIZE for i in range(count))
    return b"N" + pickle.MEMOIZE + step


def text(value):
    return pickle.SHORT_BINUNICODE + bytes([len(value)]) + value.encode()


STORAGE = text("FloatStorage")
PIDS = {
    "all": nested(),
    "name": b"(" + nested() + STORAGE + text("0") + text("cpu") + b"K\x01t",
    "kind": b"(" + text("storage") + nested() + text("0") + text("cpu") + b"K\x01t",
    "key": b"(" + text("storage") + STORAGE + nested() + text("cpu") + b"K\x01t",
    "count": b"(" + text("storage") + STORAGE + text("0") + text("cpu") + nested() + b"t",
    "view": b"(" + text("storage") + STORAGE + text("0") + text("cpu") + b"K\x01" + nested() + b"t",
}
CALLS = {f"pid: {name}": code + pickle.BINPERSID for name, code in PIDS.items()} | {
    "size": b"ctorch\nSize\n" + nested() + b"\x85R",
    "tensor": b"ctorch._utils\n_rebuild_tensor_v2\n(NK\x00" + nested() + nested() + b"tR",
    "keys of a legacy file": nested(),
}


@pytest.mark.parametrize("code", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_tuples_that_multiply(tmp_path, code, kind):
    path = tmp_path / "a.pth"
    data = b"\x80\x04" + code + b"."
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", data)
            archive.writestr("archive/data/0", bytes(4))
    else:
        head = [pickle.dumps(value, 2) for value in (LEGACY_MAGIC, 1001, {})]
        path.write_bytes(b"".join(head) + data + data)
    with pytest.raises(ValueError, match="a.pth") as caught:
        read_source(path)
    assert len(str(caught.value)) < 500


def test_a_size_that_is_copied_over_and_over(tmp_path):
    path = tmp_path / "a.pth"
    numbers = pickle.dumps(tuple(range(50_000)), 4)[:-1]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", numbers + b"0](" + b"ctorch\nSize\nh\x00\x85R" * 1000 + b"e.")
    with pytest.raises(ValueError, match="truncated or damaged: a tensor whose size or stride is not an integer"):
        load_torch(path)


def test_tensors_that_share_their_numbers_over_and_over(save):
    shared = np.zeros(10**6, np.float32)
    assert len(load_torch(save({str(i): Tensor(shared) for i in range(3)}))) == 3


def test_a_short_file_does_not_announce_a_large_model(tmp_path):
    """Here one storage of 4 MB stands behind a hundred tensors."""
    path = tmp_path / "a.pth"
    save_zip(path, {"a": np.zeros(10**6, np.float32)})
    changed = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith("data.pkl"):
                rebuilt = data[data.index(b"ctorch._utils") : data.rindex(b"R") + 1]
                data = b"\x80\x02](" + rebuilt * 100 + b"e."
            new.writestr(name, data)
    path.write_bytes(changed.getvalue())
    with pytest.raises(ValueError, match="its tensors share their numbers repeatedly"):
        load_torch(path)


def test_parts_of_a_zip_that_overlap(tmp_path):
    """The directory may name the same bytes any number of times."""
    path = tmp_path / "a.pth"
    save_zip(path, {"a": np.zeros(1000, np.float32), "b": np.zeros(1000, np.float32)})
    data = bytearray(path.read_bytes())
    entries = [i for i in range(len(data)) if data[i : i + 4] == b"PK\x01\x02"]
    first, second = [i for i in entries if b"/data/" in data[i + 46 : i + 62]]
    for start in (first, second):
        struct.pack_into("<II", data, start + 20, 5000, 5000)
        data[start + 42 : start + 46] = data[first + 42 : first + 46]
    path.write_bytes(data)
    with pytest.raises(ValueError, match="its parts are longer than the file"):
        load_torch(path)


def test_a_part_of_a_damaged_storage_is_found_too(tmp_path):
    path = tmp_path / "a.pth"
    save_zip(path, {"a": Tensor(np.full(100, 3.25, np.float32), (10,), (1,), offset=50)})
    np.testing.assert_array_equal(load_torch(path)["a"].read(), np.full(10, 3.25))
    data = bytearray(path.read_bytes())
    data[data.index(np.full(4, 3.25, np.float32).tobytes())] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="Bad CRC-32"):
        load_torch(path)["a"].read()


@pytest.mark.parametrize("state", [{"read": 1}, {}, {"_read": None}])
def test_attributes_of_a_tensor_cannot_be_set(tmp_path, state):
    path = tmp_path / "a.pth"
    save_zip(path, {"a": np.zeros(10, np.float32)})
    changed = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith("data.pkl"):
                end = data.rindex(b"R") + 1
                data = data[:end] + pickle.dumps(state, 4)[2:-1] + b"b" + data[end:]
            new.writestr(name, data)
    path.write_bytes(changed.getvalue())
    with pytest.raises(ValueError, match="attributes are set on an object that has none"):
        load_torch(path)

import io
import os
import pickle
import pickletools
import struct
import tracemalloc
from collections import Counter, OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrcnn.weights.importers import pickles
from mrcnn.weights.importers.pickles import ForbiddenPickle, load_pickle


@pytest.fixture
def write(tmp_path):
    def _write(data):
        path = tmp_path / "a.pkl"
        path.write_bytes(data)
        return path

    return _write


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_and_plain_containers_come_back(write, protocol):
    content = {
        "model": OrderedDict(
            a=np.arange(6, dtype=np.float32).reshape(2, 3),
            b=np.arange(4, dtype=">i8"),
            c=np.asfortranarray(np.arange(6.0).reshape(2, 3)),
            e=np.zeros((0, 3), np.float16),
            k=np.arange(24.0).reshape(2, 3, 4).transpose(1, 2, 0),
        ),
        "__author__": "somebody",
        "list": [1, 2.5, None, True, "x", b"y", (3, np.float32(2.5))],
    }
    read = load_pickle(write(pickle.dumps(content, protocol=protocol)))
    assert list(read) == list(content) and type(read["model"]) is OrderedDict
    for name, array in content["model"].items():
        assert read["model"][name].dtype == array.dtype
        np.testing.assert_array_equal(read["model"][name], array)
        assert not read["model"][name].flags.writeable
    assert read["list"] == content["list"] and read["__author__"] == "somebody"


def test_a_pickle_of_python_2(write):
    """Its arrays' bytes are text, in protocol 2; written here as numpy of that time did."""
    data = np.arange(3, dtype="<f4").tobytes()
    text = (
        b"\x80\x02}U\x01a"
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x03\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U" + struct.pack("B", len(data)) + data + b"tbs."
    )
    pickletools.dis(text, out=io.StringIO())
    np.testing.assert_array_equal(load_pickle(write(text))["a"], [0, 1, 2])


class Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "function, arguments, name",
    [
        (os.system, ("touch owned",), "posix.system|nt.system"),
        (eval, ("open('owned', 'w')",), "builtins.eval"),
        (getattr, ("", "join"), "builtins.getattr"),
        (np.fromfile, ("/etc/hostname",), "numpy.*fromfile"),
        (np.ndarray, ((2,),), ""),
    ],
)
def test_whatever_else_is_asked_for_is_refused_by_name_and_has_not_run(
    write, tmp_path, monkeypatch, function, arguments, name
):
    monkeypatch.chdir(tmp_path)
    path = write(pickle.dumps({"model": {"a": np.ones(3)}, "b": Evil(function, *arguments)}))
    message = f"a.pkl asks for ({name})" if name else "no pickle, or truncated or damaged"
    with pytest.raises(ForbiddenPickle if name else ValueError, match=message):
        load_pickle(path)
    assert not os.path.exists("owned")


def test_what_is_named_cannot_be_changed(write):
    """BUILD sets attributes of whatever lies on the stack, such as the functions of the table."""
    before = pickles._encode.__defaults__
    attack = b"\x80\x02c_codecs\nencode\nN}X\x0c\x00\x00\x00__defaults__X\x05\x00\x00\x00utf-8\x85s\x86b0N."
    with pytest.raises(ValueError, match="truncated or damaged: '_Call' object has no attribute '__defaults__'"):
        load_pickle(write(attack))
    assert pickles._encode.__defaults__ == before == ("latin1",)


def test_numbers_in_a_pickle_take_no_memory(write):
    """LONG_BINPUT numbers what it keeps; a list as long as the number would take 2 GB here."""
    tracemalloc.start()
    try:
        assert load_pickle(write(b"\x80\x02Nr" + struct.pack("<I", 2**28) + b".")) is None
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "opcode, form",
    [
        (pickle.BINBYTES, "<I"),
        (pickle.BINBYTES8, "<Q"),
        (pickle.BINUNICODE, "<I"),
        (pickle.BINUNICODE8, "<Q"),
        (pickle.BYTEARRAY8, "<Q"),
        (pickle.FRAME, "<Q"),
        (pickle.LONG4, "<i"),
        (pickle.BINSTRING, "<i"),
    ],
)
@pytest.mark.parametrize("in_memory", [False, True])
def test_announced_data_that_are_not_there_take_no_memory(write, opcode, form, in_memory):
    count = 2**30 if form != "<Q" else 2**34
    path = write(b"\x80\x05" + opcode + struct.pack(form, count) + b"abc.")
    tracemalloc.start()
    try:
        with (
            io.BytesIO(path.read_bytes()) if in_memory else open(path, "rb") as file,
            pytest.raises(ValueError, match=f"damaged: {count} bytes are announced where 4 are left"),
        ):
            pickles.read_pickle(pickles.RestrictedUnpickler(file, path, pickles.NUMPY), path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_one_after_the_other_in_one_file(write, protocol):
    path = write(b"".join(pickle.dumps([i, "x" * 100_000], protocol) for i in range(3)) + b"rest")
    with open(path, "rb") as file:
        for i in range(3):
            unpickler = pickles.RestrictedUnpickler(file, path, pickles.NUMPY)
            assert pickles.read_pickle(unpickler, path) == [i, "x" * 100_000]
        assert file.read() == b"rest"


@pytest.mark.parametrize("protocol", range(6))
def test_a_counter_is_a_plain_dict(write, protocol):
    read = load_pickle(write(pickle.dumps({"milestones": Counter([3, 5, 5])}, protocol)))
    assert read == {"milestones": {3: 1, 5: 2}} and type(read["milestones"]) is dict


def test_objects_outside_the_pickle_are_refused(write):
    with pytest.raises(ForbiddenPickle, match="refers to the object 'x' outside the pickle"):
        load_pickle(write(b"\x80\x02U\x01xQ."))


@pytest.mark.parametrize(
    "array",
    [
        np.array([{}, []], object),
        np.array(["a"]),
        np.array([b"a"]),
        np.array([1j]),
        np.array([("a", 1)], [("x", "U1"), ("y", "i4")]),
        np.array(["2020"], "M8[Y]"),
    ],
)
def test_arrays_of_anything_but_numbers_are_refused(write, array):
    with pytest.raises(ValueError, match="a.pkl is no pickle, or truncated or damaged"):
        load_pickle(write(pickle.dumps({"a": array}, protocol=2)))


def test_a_container_that_holds_itself(write):
    loop = []
    loop.append(loop)
    with pytest.raises(ValueError, match="a.pkl cannot be read: a container holds itself"):
        load_pickle(write(pickle.dumps({"model": loop})))


def test_containers_that_multiply_stay_shared(write):
    content = [np.ones(2)]
    for _ in range(60):
        content = [content, content]
    read = load_pickle(write(pickle.dumps(content)))
    assert read[0] is read[1]


def test_an_array_that_announces_more_than_it_has(write):
    data = pickle.dumps({"a": np.arange(7, dtype=np.float32)}, protocol=2)
    with pytest.raises(ValueError, match="truncated or damaged"):
        load_pickle(write(data.replace(b"K\x07\x85", b"K\x09\x85")))


def test_missing_empty_and_other_files(write, tmp_path):
    with pytest.raises(FileNotFoundError):
        load_pickle(tmp_path / "gone.pkl")
    for data in (b"", b"\xff\xd8\xff", b"\x80\x02\x8b\xff\xff\xff\x7f", b"{}"):
        with pytest.raises(ValueError, match="a.pkl is no pickle, or truncated or damaged"):
            load_pickle(write(data))


WHOLE = pickle.dumps({"model": {"a": np.arange(20, dtype=np.float32), "b": [1, 2, {"c": "d"}]}}, protocol=2)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(WHOLE) - 1))
def test_truncated_anywhere(tmp_path_factory, length):
    path = tmp_path_factory.mktemp("cut") / "a.pkl"
    path.write_bytes(WHOLE[:length])
    with pytest.raises(ValueError, match="a.pkl"):
        load_pickle(path)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255))
def test_a_changed_byte_never_does_anything_but_raise_value_error_or_change_values(tmp_path_factory, place, byte):
    path = tmp_path_factory.mktemp("changed") / "a.pkl"
    path.write_bytes(WHOLE[:place] + bytes([byte]) + WHOLE[place + 1 :])
    try:
        read = load_pickle(path)
    except ValueError:
        return
    assert kinds(read) <= PLAIN


PLAIN = {dict, OrderedDict, list, tuple, set, frozenset, str, bytes, bytearray, int, float, complex, bool, type(None)}
PLAIN |= {np.ndarray, np.float32}


def kinds(value) -> set[type]:
    """The types of a value and of all that it holds."""
    inside = [*value, *value.values()] if isinstance(value, dict) else value
    parts = inside if isinstance(value, dict | list | tuple | set | frozenset) else ()
    return {type(value)}.union(*(kinds(part) for part in parts))


def test_kinds_sees_what_is_inside():
    assert kinds({"a": [(1, {2.0: Evil})]}) == {dict, str, list, tuple, int, float, type}

import io
import os
import pickle
import pickletools
import struct
import tracemalloc
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrcnn.weights.importers import pickle_machine, pickles
from mrcnn.weights.importers.pickle_machine import ForbiddenPickle, PickleMachine
from mrcnn.weights.importers.pickles import load_pickle
from mrcnn.weights.recognize import read_source

CASES = Path(__file__).resolve().parents[4] / "shared" / "cases" / "reliability"


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
    message = f"a.pkl asks for ({name})" if name else "not a pickle, or truncated or damaged"
    with pytest.raises(ForbiddenPickle if name else ValueError, match=message):
        load_pickle(path)
    assert not os.path.exists("owned")


def test_what_is_named_cannot_be_changed(write):
    """BUILD sets attributes of whatever lies on the stack, such as the functions of the table."""
    before = pickles._encode.__defaults__
    attack = b"\x80\x02c_codecs\nencode\nN}X\x0c\x00\x00\x00__defaults__X\x05\x00\x00\x00utf-8\x85s\x86b0N."
    with pytest.raises(ValueError, match="truncated or damaged: attributes are set on an object that has none"):
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
            pytest.raises(ValueError, match=f"damaged: {count} bytes are declared, but 4 are left"),
        ):
            PickleMachine(file, path, pickles.NUMPY).run()
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_one_after_the_other_in_one_file(write, protocol):
    path = write(b"".join(pickle.dumps([i, "x" * 100_000], protocol) for i in range(3)) + b"rest")
    with open(path, "rb") as file:
        for i in range(3):
            assert PickleMachine(file, path, pickles.NUMPY).run() == [i, "x" * 100_000]
        assert file.read() == b"rest"


@pytest.mark.parametrize("protocol", range(6))
def test_a_counter_is_a_plain_dict(write, protocol):
    read = load_pickle(write(pickle.dumps({"milestones": Counter([3, 5, 5])}, protocol)))
    assert read == {"milestones": {3: 1, 5: 2}} and type(read["milestones"]) is dict


def test_objects_outside_the_pickle_are_refused(write):
    with pytest.raises(ForbiddenPickle, match="refers to an object outside the pickle"):
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
    with pytest.raises(ValueError, match="a.pkl is not a pickle, or truncated or damaged"):
        load_pickle(write(pickle.dumps({"a": array}, protocol=2)))


# Pickles that are short, and take for ever or all memory


def nested(count=60):
    """Instructions that leave a tuple of 2^60 parts, of which each is the one before, twice."""
    step = b"".join(pickle.BINGET + bytes([i]) + pickle.TUPLE2 + pickle.MEMOIZE for i in range(count))
    return b"N" + pickle.MEMOIZE + step


def named(module, name):
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


TEXT = pickle.SHORT_BINUNICODE + b"\x02f4"
FLOATS = named("numpy", "dtype") + TEXT + pickle.TUPLE1 + pickle.REDUCE
RECONSTRUCTED = named("numpy.core.multiarray", "_reconstruct") + b"NNN\x87R"
NESTED = {
    "persistent id": nested() + pickle.BINPERSID,
    "code of a type": named("numpy", "dtype") + nested() + pickle.TUPLE1 + pickle.REDUCE,
    "state of a type": FLOATS + nested() + pickle.BUILD,
    "order of a type": FLOATS + b"N" + nested() + pickle.TUPLE2 + pickle.BUILD,
    "encoding": named("_codecs", "encode") + TEXT + nested() + pickle.TUPLE2 + pickle.REDUCE,
    "text to encode": named("_codecs", "encode") + nested() + pickle.TUPLE1 + pickle.REDUCE,
    "scalar": named("numpy.core.multiarray", "scalar") + FLOATS + nested() + pickle.TUPLE2 + pickle.REDUCE,
    "state of an array": RECONSTRUCTED + nested() + pickle.BUILD,
    "shape": RECONSTRUCTED + b"(N" + nested() + FLOATS + pickle.NEWFALSE + b"C\x04abcd" + b"tb",
    "order of an array": RECONSTRUCTED + b"(NK\x01\x85" + FLOATS + nested() + b"C\x04abcd" + b"tb",
    "key": pickle.EMPTY_DICT + nested() + b"N" + pickle.SETITEM,
    "keys": pickle.EMPTY_DICT + pickle.MARK + nested() + b"N" + pickle.SETITEMS,
    "key of a dict": pickle.MARK + nested() + b"N" + pickle.DICT,
    "key of a pair": named("collections", "OrderedDict") + b"]" + nested() + b"N\x86a\x85R",
    "member": pickle.EMPTY_SET + pickle.MARK + nested() + pickle.ADDITEMS,
    "frozen member": pickle.MARK + nested() + pickle.FROZENSET,
    "attribute": named("collections", "OrderedDict") + b")R" + nested() + pickle.BUILD,
    "name": nested() + TEXT + pickle.STACK_GLOBAL,
    "function": nested() + pickle.EMPTY_TUPLE + pickle.REDUCE,
    "target": nested() + b"N" + pickle.APPEND,
    "arguments": named("collections", "Counter") + b"(" + nested() + b"N" + nested() + pickle.TUPLE + pickle.REDUCE,
    "items": named("collections", "OrderedDict") + nested() + pickle.TUPLE1 + pickle.REDUCE,
    "counts": named("collections", "Counter") + nested() + pickle.TUPLE1 + pickle.REDUCE,
}


@pytest.mark.parametrize("code", NESTED.values(), ids=NESTED)
def test_tuples_that_multiply_are_neither_hashed_nor_compared_nor_shown(write, code):
    """Each of these takes 2^60 steps in a pickle reader that does any of it."""
    path = write(b"\x80\x04" + code + b".")
    for reader in (load_pickle, read_source):
        with pytest.raises(ValueError, match="a.pkl") as caught:
            reader(path)
        assert len(str(caught.value)) < 500


def test_a_tuple_that_multiplies_may_stand_in_a_file(write):
    path = write(b"\x80\x04" + nested() + b".")
    read = load_pickle(path)
    assert len(read) == 2 and read[0] is read[1]
    with pytest.raises(ValueError, match="is not a weights file of a known program; it contains no tensors"):
        read_source(path)


LARGE = {
    "Counter of a dict": (named("collections", "Counter"), dict.fromkeys(range(50000))),
    "OrderedDict of a dict": (named("collections", "OrderedDict"), dict.fromkeys(range(50000))),
    "OrderedDict of pairs": (named("collections", "OrderedDict"), [(i, i) for i in range(50_000)]),
    "bytes of a text": (named("_codecs", "encode"), "x" * 500_000),
}


@pytest.mark.slow
@pytest.mark.parametrize("function, argument", LARGE.values(), ids=LARGE)
def test_calls_that_copy_their_argument_over_and_over(write, function, argument):
    """306 kB took 5 GB: one dict, and a Counter of it a thousand times."""
    argument = pickle.dumps(argument, 4)[:-1]
    call = function + pickle.BINGET + b"\x00" + pickle.TUPLE1 + pickle.REDUCE + pickle.APPEND
    path = write(b"\x80\x04" + argument + b"0]" + call * 1000 + b".")
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="copies its parts repeatedly"):
            load_pickle(path)
        assert tracemalloc.get_traced_memory()[1] < 200e6
    finally:
        tracemalloc.stop()


def test_arrays_over_the_same_bytes_are_no_way_to_announce_a_large_model(write):
    call = RECONSTRUCTED + b"(NJ" + struct.pack("<i", 250_000) + b"\x85" + FLOATS + pickle.NEWFALSE + b"h\x00tba"
    path = write(b"\x80\x04B" + struct.pack("<I", 10**6) + bytes(10**6) + pickle.MEMOIZE + b"0]" + call * 100 + b".")
    with pytest.raises(ValueError, match="copies its parts repeatedly"):
        load_pickle(path)


def test_integers_that_share_one_hash_are_no_keys(write):
    """Thousands of them would take their square in comparisons: 2^61 - 1 divides their differences."""
    numbers = b"".join(pickle.LONG1 + b"\x0c" + (i * (2**61 - 1)).to_bytes(12, "little") + b"N" for i in (1, 2**20))
    with pytest.raises(ValueError, match="with a key that is not text or a number"):
        load_pickle(write(b"\x80\x04}(" + numbers + b"u."))


def test_instructions_are_counted(write, monkeypatch):
    monkeypatch.setattr(pickle_machine, "MAX_INSTRUCTIONS", 1000)
    assert load_pickle(write(b"\x80\x02N" + b"0N" * 498 + b".")) is None
    with pytest.raises(ValueError, match="it has more than 1000 instructions"):
        load_pickle(write(b"\x80\x02N" + b"0N" * 499 + b"."))


@pytest.mark.slow
def test_containers_far_within_one_another(write):
    with pytest.raises(ValueError, match="are nested more than 100 deep"):
        load_pickle(write(b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b"."))


@pytest.mark.parametrize("state", [{"items": 5}, {"a": 1}, {"_metadata": 1, "b": 2}, [1], None])
def test_attributes_of_a_dict_cannot_be_set(write, state):
    """It would become another: `items` of an OrderedDict was 5, and {"a": 1} was read as {}."""
    dictionary = pickle.dumps(OrderedDict(a=1), 2)[2:-1]
    with pytest.raises(
        ValueError, match="a.pkl is not a pickle, or truncated or damaged: attributes are set on a dict"
    ):
        load_pickle(write(b"\x80\x02" + dictionary + pickle.dumps(state, 2)[2:-1] + b"b."))


def test_versions_of_the_modules_of_a_torch_state_dict_are_left_out(write):
    content = OrderedDict(a=1)
    content._metadata = OrderedDict({"": {"version": 1}})
    assert load_pickle(write(pickle.dumps(content, 2))) == {"a": 1}


LONG = "x" * 10**6


@pytest.mark.parametrize("name", [LONG, "\x1b[31m", "a\nb"])
def test_names_that_are_refused_are_shown_short_and_without_control_characters(write, name):
    data = name.encode()
    code = pickle.BINUNICODE + struct.pack("<I", len(data)) + data
    with pytest.raises(ForbiddenPickle) as caught:
        load_pickle(write(b"\x80\x04" + code + code + pickle.STACK_GLOBAL + b"."))
    assert len(str(caught.value)) < 600 and str(caught.value).isprintable()


@pytest.mark.parametrize(
    "code, message",
    [
        (b"(K\x01K\x02K\x03d", "a key has no value"),
        (b"K\x01K\x01a", "appended to something that is not a list"),
        (b"K\x01K\x01K\x01s", "set on something that is not a dict"),
        (b"](K\x01\x90", "added to something that is not a set"),
        (b"a", "takes more from the stack"),
        (b"K\x01(a", "takes more from the stack"),
        (b"e", "a mark is missing"),
        (b"h\x05", "memo entry 5 is read before it is set"),
        (b"I1e5\n", "invalid number"),
        (b"F" + b"1" * 200 + b"\n", "a number of 200 digits"),
        (b"I1", "a line of text does not end"),
        (b"S'abc\n", "without quotes"),
        (b"\x80\x09", "protocol 9"),
        (b"\x8a\xff" + bytes(255), "an integer of 255 bytes"),
        (b"NN\x93", "name of a function is not text"),
        (b"N)\x81", "not an instruction that weight files contain"),
        (b"\x82\x01", "not an instruction that weight files contain"),
        (b"iposix\nsystem\n", "asks for an instance of posix.system"),
        (b"Pabc\n", "refers to an object outside the pickle"),
        (b"NNb", "attributes are set on an object that has none"),
        (b"N)R", "something other than a function is called"),
        (named("numpy", "dtype") + b"X\x06\x00\x00\x00(9,)f4\x85R", "a dtype that is not numeric"),
        (named("numpy", "dtype") + b"(NNNNtR", "a dtype that is not numeric"),
        (named("collections", "Counter") + b"(NNNtR", "TypeError in a call"),
    ],
)
def test_broken_instructions(write, code, message):
    with pytest.raises(ValueError, match=f"a.pkl.*{message}"):
        load_pickle(write(b"\x80\x04" + code + b"."))


@pytest.mark.parametrize("case", ["pickle-nested-tuple-hang", "pickle-amplify", "pickle-build-typeerror"])
def test_the_cases_of_a_test_campaign(case):
    folder = CASES / case
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    files = [*folder.glob("*.pkl"), *folder.glob("*.pth")]
    assert files
    for path in files:
        with pytest.raises(ValueError, match=path.name) as caught:
            read_source(path)
        assert len(str(caught.value)) < 500


def test_a_container_that_holds_itself(write):
    loop = []
    loop.append(loop)
    with pytest.raises(ValueError, match="a.pkl cannot be read: a container contains itself"):
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
        with pytest.raises(ValueError, match="a.pkl is not a pickle, or truncated or damaged"):
            load_pickle(write(data))


WHOLE = pickle.dumps({"model": {"a": np.arange(20, dtype=np.float32), "b": [1, 2, {"c": "d"}]}}, protocol=2)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(WHOLE) - 1))
def test_truncated_anywhere(tmp_path_factory, length):
    path = tmp_path_factory.mktemp("cut") / "a.pkl"
    path.write_bytes(WHOLE[:length])
    with pytest.raises(ValueError, match="a.pkl"):
        load_pickle(path)


@pytest.mark.slow
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

"""Assigning: everything is compared and read before the first weight changes."""

import keras
import numpy as np
import pytest

from mrcnn.weights.assign import assign, excluded
from mrcnn.weights.source import Lazy


def layers():
    keras.utils.set_random_seed(0)
    found = {"a/one": keras.layers.Dense(2), "b/two": keras.layers.Dense(3)}
    for layer in found.values():
        layer.build((None, 4))
    return found


def tensors(**changed):
    shapes = {"a/one/kernel": (4, 2), "a/one/bias": (2,), "b/two/kernel": (4, 3), "b/two/bias": (3,)}
    ones = {name: Lazy(shape, lambda shape=shape: np.ones(shape, np.float32)) for name, shape in shapes.items()}
    return ones | changed


def are_ones(found):
    """Whether each weight of the layers has been assigned."""
    return [np.array_equal(weight, np.ones(weight.shape)) for layer in found.values() for weight in layer.weights]


@pytest.mark.parametrize(
    "broken, message",
    [
        (Lazy((3,), lambda: np.ones(4)), r"declared as \(3,\) has shape \(4,\); the file is damaged"),
        (Lazy((3,), lambda: np.full(3, np.inf, np.float32)), "a.h5 holds NaN or infinite weights(.|\n)*b/two/bias"),
        (Lazy((2,), lambda: 1 / 0), "shapes differ:\n  b/two/bias"),
    ],
)
def test_the_last_tensor_is_broken_and_nothing_has_changed(broken, message):
    found = layers()
    with pytest.raises(ValueError, match=message):
        assign("a.h5", found, tensors(**{"b/two/bias": broken}))
    assert not any(are_ones(found))


def test_an_error_while_reading_changes_nothing():
    def read():
        raise OSError("the disk is gone")

    found = layers()
    with pytest.raises(OSError, match="the disk is gone"):
        assign("a.h5", found, tensors(**{"b/two/bias": Lazy((3,), read)}))
    assert not any(are_ones(found))


def test_weights_to_leave_alone_and_those_that_are_not_expected():
    found = layers()
    given = {name: tensor for name, tensor in tensors().items() if name.startswith("a/")}
    report = assign("a.h5", found, given, leave=["a/one/bias"], absent={"b/two/kernel", "b/two/bias"})
    assert [t.name for t in report.loaded] == ["a/one/kernel"] and [t.name for t in report.skipped] == ["a/one/bias"]
    assert not report.missing + report.unexpected
    with pytest.raises(ValueError, match="missing from the file:\n  b/two/bias"):
        assign("a.h5", found, given, absent={"b/two/kernel"})


def test_arrays_are_taken_as_they_are():
    found = layers()
    assign("a.h5", found, {name: tensor.read() for name, tensor in tensors().items()})
    assert all(are_ones(found))


def test_which_layers_an_expression_means():
    names = ["a/one/kernel", "a/one/bias", "b/two/kernel"]
    assert excluded(None, names) == set()
    for expression in ("a", "one", "a/one", ["o.e"], ["a", "one"]):
        assert excluded(expression, names) == set(names[:2])
    with pytest.warns(UserWarning, match="exclude: 'tow' matches no layer; did you mean 'two'"):
        assert excluded("tow", names) == set()
    assert excluded("tow", names, warn=False) == set()


@pytest.mark.parametrize(
    "value", [np.array(["a", "b", "c"]), np.array([b"a"] * 3), np.zeros(3, complex), np.zeros(3, [("x", "f4")])]
)
def test_what_holds_no_numbers_is_named_and_nothing_has_changed(value):
    found = layers()
    with pytest.raises(ValueError, match="a.h5: b/two/bias holds .*, not numbers; the file is damaged"):
        assign("a.h5", found, tensors(**{"b/two/bias": Lazy((3,), lambda: value)}))
    assert not any(are_ones(found))


def test_whole_numbers_and_other_floats_are_numbers():
    found = layers()
    assign(
        "a.h5",
        found,
        tensors(
            **{
                "b/two/bias": np.ones(3, np.int64),
                "a/one/bias": np.ones(2, np.float64),
                "b/two/kernel": np.ones((4, 3), np.float16),
            }
        ),
    )
    assert all(are_ones(found))


# The order of reading and assigning


def watched(found):
    """Tensors that note, when each is read, its name and which weights are ones by then."""
    reads = []

    def lazy(name, tensor):
        def read():
            reads.append((name, are_ones(found)))
            return tensor.read()

        return Lazy(tensor.shape, read)

    return reads, {name: lazy(name, tensor) for name, tensor in tensors().items()}


def test_all_are_read_before_the_first_is_assigned_the_largest_first():
    found = layers()
    reads, given = watched(found)
    assign("a.h5", found, given)
    assert reads == [(name, [False] * 4) for name in ("b/two/kernel", "a/one/kernel", "b/two/bias", "a/one/bias")]
    assert all(are_ones(found))


def test_a_fresh_network_gets_each_as_soon_as_it_is_read():
    found = layers()
    reads, given = watched(found)
    report = assign("a.h5", found, given, fresh=True)
    # of a/one/kernel, a/one/bias, b/two/kernel, b/two/bias
    assert reads == [
        ("b/two/kernel", [False, False, False, False]),
        ("a/one/kernel", [False, False, True, False]),
        ("b/two/bias", [True, False, True, False]),
        ("a/one/bias", [True, False, True, True]),
    ]
    assert all(are_ones(found)) and [tensor.name for tensor in report.loaded] == list(tensors())


def test_a_fresh_network_is_given_no_damaged_file_without_a_word():
    broken = {name: Lazy((n,), lambda n=n: np.full(n, np.nan)) for name, n in (("a/one/bias", 2), ("b/two/bias", 3))}
    with pytest.raises(ValueError, match="holds NaN or infinite weights(.|\n)*b/two/bias(.|\n)*a/one/bias"):
        assign("a.h5", layers(), tensors(**broken), fresh=True)


def test_a_warning_points_at_the_line_that_called():
    with pytest.warns(UserWarning, match="exclude: 'tow' matches no layer") as caught:
        assign("a.h5", layers(), tensors(), exclude="tow")
    assert [warning.filename for warning in caught if warning.category is UserWarning] == [__file__]

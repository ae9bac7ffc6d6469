"""Registering, finding and checking heads, and what the errors say."""

import shutil
import subprocess
import sys
from pathlib import Path

import keras
import pytest

import heads
from heads import registry

CELL = """
import heads, keras
@heads.register("mine")
def mine(input_shape, num_classes, *, size={size}):
    features = keras.Input(input_shape)
    x = keras.layers.Resizing(size, size)(features)
    return keras.Model(features, keras.layers.Conv2D(num_classes, 1, activation="sigmoid", dtype="float32")(x))
"""


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    """What a test registers is gone after it."""
    monkeypatch.setattr(registry, "_heads", dict(registry._heads))


def run_cell(size):
    """Runs the cell as a notebook does: in the module __main__."""
    exec(CELL.format(size=size), {"__name__": "__main__"})


def register_model(make):
    """A head "bad" that returns what `make(features, num_classes)` does."""

    @heads.register("bad")
    def bad(input_shape, num_classes):
        return make(keras.Input(input_shape), num_classes)


def masks(features, channels, **options):
    return keras.layers.Conv2D(channels, 1, activation="sigmoid", **options)(features)


def test_names_are_sorted_and_hold_the_heads_beside_the_registry():
    beside = {path.stem for path in Path(heads.__file__).parent.glob("*.py")} - {"__init__", "__main__", "registry"}
    assert heads.names() == sorted(beside) and {"fcn", "unet"} < beside


@pytest.mark.slow
def test_a_file_beside_the_others_is_found(tmp_path):
    shutil.copytree(Path(heads.__file__).parent, tmp_path / "heads")
    (tmp_path / "heads" / "another.py").write_text(
        "from heads.registry import register\n@register('another')\ndef another(input_shape, num_classes): ...\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", "import heads; print(heads.names())"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == str(sorted(["another", *heads.names()]))


def test_a_notebook_cell_may_run_twice_and_the_last_counts():
    run_cell(size=20)
    run_cell(size=24)
    assert heads.build("mine", (14, 14, 8), 3).output_shape == (None, 24, 24, 3)


def test_another_function_of_the_same_name_is_refused():
    with pytest.raises(ValueError, match=r"'fcn' is already registered by heads\.fcn\.fcn; .*impostor needs another"):

        @heads.register("fcn")
        def impostor(input_shape, num_classes): ...

    assert registry._heads["fcn"].__module__ == "heads.fcn"


@pytest.mark.parametrize("name", ["", "  ", None, print])
def test_a_head_needs_a_name(name):
    with pytest.raises(ValueError, match=r'as @register\("mine"\)'):
        heads.register(name)


def test_a_head_is_a_function():
    with pytest.raises(TypeError, match="must be a function .* or a subclass of heads.Head, received 3"):
        heads.register("three")(3)


def test_a_name_may_come_as_a_dict_of_name_and_options():
    run_cell(size=20)
    given = {"name": "mine", "size": 10}
    assert heads.build(given, (14, 14, 8), 3).output_shape == (None, 10, 10, 3)
    assert heads.build(given, (14, 14, 8), 3, size=6).output_shape == (None, 6, 6, 3)
    assert given == {"name": "mine", "size": 10}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unett", r"unknown mask head 'unett'; the registered ones are \[.*'fcn', .*'unet'\]; did you mean 'unet'\?"),
        ("zzz", r"unknown mask head 'zzz'; the registered ones are \[.*'fcn', .*'unet'\]$"),
        ({"normalization": "batch"}, 'needs the key "name", received'),
        (7, "a name or a dict of a name and options, received 7"),
    ],
)
def test_unknown_heads(name, message):
    with pytest.raises(ValueError, match=message):
        heads.build(name, (14, 14, 8), 3)


def test_a_misspelled_option_is_named_with_its_neighbor():
    with pytest.raises(ValueError, match="'fcn' has no option 'normalisation'; .*did you mean 'normalization'?"):
        heads.build("fcn", (14, 14, 8), 3, normalisation="batch")


@pytest.mark.parametrize("input_shape", [(14, 14), (14, 14, 0), (None, 14, 8), 14, "abc"])
def test_the_features_must_have_three_sizes(input_shape):
    with pytest.raises(ValueError, match=r"\(height, width, channels\), three positive integers; received"):
        heads.build("fcn", input_shape, 3)


@pytest.mark.parametrize("num_classes", [0, -1, None, 2.5])
def test_the_number_of_classes_is_a_positive_integer(num_classes):
    with pytest.raises(ValueError, match=f"num_classes of a mask head is a positive integer.*received {num_classes}"):
        heads.build("fcn", (14, 14, 8), num_classes)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda x, n: masks(x, n), TypeError, "must return a keras.Model or be a heads.Head, it returned KerasTensor"),
        (lambda x, n: None, TypeError, "must return a keras.Model or be a heads.Head, it returned NoneType"),
        (lambda x, n: keras.Model(x, [masks(x, n), x]), ValueError, "one input and one output, it has 1 and 2"),
        (
            lambda x, n: keras.Model(y := keras.Input((7, 7, 8)), masks(y, n)),
            ValueError,
            r"must take \(None, 14, 14, 8\), its input is \(None, 7, 7, 8\)",
        ),
        (lambda x, n: keras.Model(x, keras.layers.Flatten()(x)), ValueError, r"square masks.* is \(None, 1568\)"),
        (lambda x, n: keras.Model(x, masks(x[:, :7], n)), ValueError, r"square masks.* is \(None, 7, 14, 3\)"),
        (lambda x, n: keras.Model(x, masks(x, n + 1)), ValueError, r"one channel a class, 3 in all, .*, 14, 14, 4\)"),
        (
            lambda x, n: keras.Model(x, masks(x, n, dtype="mixed_bfloat16")),
            ValueError,
            'float32 probabilities, its output is bfloat16; give its last layer dtype="float32"',
        ),
    ],
)
def test_a_broken_contract_is_named(make, error, message):
    register_model(make)
    with pytest.raises(error, match=f"mask head 'bad'.*{message}"):
        heads.build("bad", (14, 14, 8), 3)


@pytest.mark.parametrize("activation", [None, "relu", "tanh", "softplus"])
def test_masks_that_leave_0_to_1_are_refused(activation):
    """Such a head would be trained without complaint, on a cross-entropy of clipped numbers."""
    register_model(lambda x, n: keras.Model(x, keras.layers.Conv2D(n, 1, activation=activation)(x)))
    with pytest.raises(ValueError, match="head 'bad' must give probabilities, 0 to 1; for random features its masks"):
        heads.build("bad", (14, 14, 8), 3)


def test_masks_that_are_no_numbers_are_refused():
    register_model(lambda x, n: keras.Model(x, masks(x, n, bias_initializer=lambda *a, **k: keras.ops.zeros(n) / 0.0)))
    with pytest.raises(ValueError, match="must give probabilities, 0 to 1; for random features its masks are from nan"):
        heads.build("bad", (14, 14, 8), 3)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax", "hard_sigmoid"])
def test_the_trial_draws_no_number_that_others_would_draw(activation):
    def make(x, n):
        x = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(x))
        return keras.Model(x0, keras.layers.Conv2D(n, 1, activation=activation)(x))

    x0 = keras.Input((14, 14, 8))
    register_model(lambda x, n: make(x0, n))
    keras.utils.set_random_seed(1)
    built = heads.build("bad", (14, 14, 8), 3)
    after = keras.random.uniform((3,))
    keras.utils.set_random_seed(1)
    same = make(x0, 3)
    for one, other in zip(built.weights, same.weights, strict=True):
        assert (keras.ops.convert_to_numpy(one) == keras.ops.convert_to_numpy(other)).all()
    assert (keras.ops.convert_to_numpy(after) == keras.ops.convert_to_numpy(keras.random.uniform((3,)))).all()

"""The mask heads known by name, and the contract that each of them keeps."""

import difflib
import inspect
from collections.abc import Callable, Sequence
from numbers import Integral

import keras

HeadFunction = Callable[..., keras.Model]

_heads: dict[str, HeadFunction] = {}


def register(name: str) -> Callable[[HeadFunction], HeadFunction]:
    """Decorator that makes a mask head known as `name`.

    The function maps `(input_shape, num_classes, **options)` to a `keras.Model` from RoI features [R, h, w, C] to mask
    probabilities [R, m, m, num_classes], float32. It knows nothing of batches, images, boxes or configurations:

        @heads.register("mine")
        def mine(input_shape, num_classes, *, filters=64):
            features = keras.Input(input_shape, name="features")
            ...
            return keras.Model(features, masks, name="mask_head")

    Registering the same function again (same module and qualified name: a notebook cell run twice) replaces it.

    Raises:
        ValueError: if `name` is empty or no string, or another function has it already.
        TypeError: if what is decorated cannot be called.
    """
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f'a head is registered under a name, as @register("mine"); received {name!r}')

    def decorate(function: HeadFunction) -> HeadFunction:
        if not callable(function):
            raise TypeError(f"head {name!r} must be a function that returns a keras.Model, received {function!r}")
        known = _heads.get(name)
        if known is not None and _origin(known) != _origin(function):
            raise ValueError(
                f"head {name!r} is already registered by {_origin(known)}; {_origin(function)} needs another name"
            )
        _heads[name] = function
        return function

    return decorate


def names() -> list[str]:
    """The names of all registered heads, sorted."""
    return sorted(_heads)


def build(name: str | dict, input_shape: tuple[int, int, int], num_classes: int, **options) -> keras.Model:
    """Builds a registered head and checks that it keeps the contract.

    Args:
        name: a registered name, or a dict of it and options: {"name": "fcn", "normalization": "batch"}.
        input_shape: (height, width, channels) of one RoI's features.
        num_classes: number of mask channels, background included.
        options: the head's own; they go before those of a dict.

    Returns:
        `keras.Model` [R, height, width, channels] -> [R, m, m, num_classes] float32 probabilities.

    Raises:
        ValueError: for an unknown name or option, sizes that are no positive integers, or a model that breaks the
            contract.
        TypeError: if the head returns something else than a `keras.Model`.
    """
    name, options = _name_and_options(name, options)
    input_shape, num_classes = _checked_sizes(input_shape, num_classes)
    function = _heads.get(name)
    if function is None:
        raise ValueError(f"unknown mask head {name!r}; the registered ones are {names()}{_closest(name, names())}")
    _check_options(name, function, options)
    model = function(input_shape, num_classes, **options)
    _check_contract(name, model, input_shape, num_classes)
    return model


def _origin(function: HeadFunction) -> str:
    kind = function if hasattr(function, "__qualname__") else type(function)
    return f"{kind.__module__}.{kind.__qualname__}"


def _closest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(str(word), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _name_and_options(name: str | dict, options: dict) -> tuple[str, dict]:
    if isinstance(name, dict):
        if "name" not in name:
            raise ValueError(f'a head given as a dict needs the key "name", received {name!r}')
        options = {**{key: value for key, value in name.items() if key != "name"}, **options}
        name = name["name"]
    if not isinstance(name, str):
        raise ValueError(f"a mask head is a name or a dict of a name and options, received {name!r}")
    return name, options


def _checked_sizes(input_shape, num_classes) -> tuple[tuple[int, int, int], int]:
    sizes = tuple(input_shape) if isinstance(input_shape, Sequence) else ()
    if len(sizes) != 3 or not all(map(_is_count, sizes)):
        raise ValueError(
            f"input_shape of a mask head is (height, width, channels), three positive integers; "
            f"received {input_shape!r}"
        )
    if not _is_count(num_classes):
        raise ValueError(
            f"num_classes of a mask head is a positive integer, background included; received {num_classes!r}"
        )
    return tuple(map(int, sizes)), int(num_classes)


def _is_count(value) -> bool:
    return isinstance(value, Integral) and value > 0


def _check_options(name: str, function: HeadFunction, options: dict) -> None:
    """A misspelt option is named here, with those that exist, before anything is built."""
    parameters = list(inspect.signature(function).parameters.values())
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    known = [p.name for p in parameters[2:] if p.kind is not p.VAR_POSITIONAL]
    for option in options:
        if option not in known:
            raise ValueError(f"mask head {name!r} has no option {option!r}; it has {known}{_closest(option, known)}")


def _check_contract(name: str, model, input_shape: tuple[int, int, int], num_classes: int) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(f"mask head {name!r} must return a keras.Model, it returned {type(model).__name__}")
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(
            f"mask head {name!r} must have one input and one output, it has {len(model.inputs)} and "
            f"{len(model.outputs)}"
        )
    taken, given = tuple(model.inputs[0].shape), tuple(model.outputs[0].shape)
    if taken != (None, *input_shape):
        raise ValueError(
            f"mask head {name!r} must take (None, {', '.join(map(str, input_shape))}), its input is {taken}; "
            f"begin it with keras.Input(input_shape)"
        )
    if len(given) != 4 or given[1] is None or given[1] != given[2]:
        raise ValueError(
            f"mask head {name!r} must give square masks [R, m, m, num_classes] of a known size m, its output is {given}"
        )
    if given[3] != num_classes:
        raise ValueError(
            f"mask head {name!r} must give one channel a class, {num_classes} in all, its output is {given}"
        )
    dtype = keras.backend.standardize_dtype(model.outputs[0].dtype)
    if dtype != "float32":
        raise ValueError(
            f"mask head {name!r} must give float32 probabilities, its output is {dtype}; "
            f'give its last layer dtype="float32"'
        )

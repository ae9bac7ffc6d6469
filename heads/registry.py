"""The heads known by name, and how they are built."""

import difflib
import inspect
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

import keras

from heads.protocol.check import check_head, check_inputs
from heads.protocol.costs import multiply_adds
from heads.protocol.head import FunctionHead, Head

HeadFunction = Callable[..., keras.Model | Head]
STRIDES = (4, 8, 16, 32)  # pixels between the cells of the pyramid levels that RoIs are pooled from

_heads: dict[str, HeadFunction] = {}


def register(name: str) -> Callable[[HeadFunction], HeadFunction]:
    """Decorator that makes a head known as `name`.

    In the common case it decorates a function that maps `(input_shape, num_classes, **options)` to a `keras.Model` from
    RoI features [R, h, w, C] to mask probabilities [R, m, m, num_classes], float32, or to a single channel that stands
    for every class. The function knows nothing of batches, images, boxes or settings::

        @heads.register("mine")
        def mine(input_shape, num_classes, *, filters=64):
            features = keras.Input(input_shape, name="features")
            ...
            return keras.Model(features, masks, name="mask_head")

    Heads with other inputs or outputs, their own loss, targets or inference are classes: see `heads.Head`.

    Registering the same function or class again (same module and qualified name: a notebook cell that is run twice)
    replaces it.

    Raises:
        ValueError: if `name` is empty or no string, or another function has it already.
        TypeError: if what is decorated cannot be called.
    """
    if not str(name or "").strip() or not isinstance(name, str):
        raise ValueError(f'a head is registered under a name, as @register("mine"); received {name!r}')

    def decorate(function: HeadFunction) -> HeadFunction:
        if not callable(function):
            raise TypeError(
                f"head {name!r} must be a function that returns a keras.Model, or a subclass of heads.Head, "
                f"received {function!r}"
            )
        known = _heads.get(name)
        if known is not None and _origin(known) != _origin(function):
            raise ValueError(
                f"head {name!r} is already registered by {_origin(known)}; {_origin(function)} needs another name"
            )
        _heads[name] = function
        return function

    return decorate


def names(kind: str | None = None) -> list[str]:
    """The names of all registered heads, sorted, or of those of a kind: "mask" or "keypoints"."""
    return sorted(name for name, function in _heads.items() if kind in (None, getattr(function, "kind", "mask")))


def get(name: str) -> HeadFunction:
    """The function or class that is registered under a name. Raises ValueError for an unknown one."""
    if name not in _heads:
        raise ValueError(f"unknown head {name!r}; the registered ones are {names()}{_closest(name, names())}")
    return _heads[name]


def build(name: str | dict, input_shape: tuple[int, int, int], num_classes: int, **options: Any) -> keras.Model | Head:
    """Builds a registered head and checks that it keeps the contract.

    The check includes a trial on random features: masks must lie in 0..1, and losses must be finite.

    Args:
        name: a registered name, or a dict of it and options: {"name": "fcn", "normalization": "batch"}.
        input_shape: (height, width, channels) of one RoI's features.
        num_classes: number of mask channels, background included.
        options: the head's own; they go before those of a dict.

    Returns:
        `keras.Model` [R, height, width, channels] -> [R, m, m, num_classes] float32 probabilities; of a head that is a
        class, the `heads.Head`.

    Raises:
        ValueError: for an unknown name or option, sizes that are no positive integers, or a head that breaks the
            contract.
        TypeError: if the head returns something else than a `keras.Model` or a `heads.Head`.
    """
    name, options = name_and_options(name, options)
    head = make(name, input_shape, num_classes, options)
    return head.model if head.is_plain else head


def make(
    name: str | dict,
    input_shape: tuple[int, int, int],
    num_classes: int,
    options: dict[str, Any] | None = None,
    *,
    kind: str | None = None,
    strides: Sequence[int] = STRIDES,
    channels: int | None = None,
) -> Head:
    """What `build` does, as a `Head` in every case.

    Args:
        kind: "mask" or "keypoints"; None for either.
        strides: pixels between the cells of the pyramid levels that RoIs are pooled from.
        channels: of these levels; None for as many as RoI features have.

    Raises as `build`, and ValueError for a head of another kind.
    """
    name, options = name_and_options(name, options or {})
    input_shape, num_classes = _checked_sizes(input_shape, num_classes)
    head = construct(name, input_shape, num_classes, options, kind=kind)
    head.strides, head.channels = tuple(strides), channels or input_shape[-1]
    check_inputs(name, head)
    head.assemble()
    check_head(name, head)
    return head


def construct(
    name: str, input_shape: tuple[int, int, int], num_classes: int, options: dict[str, Any], *, kind: str | None = None
) -> Head:
    """A head before `make` assembles and checks it, for heads that are made of others.

    Raises as `make`.
    """
    function = _heads.get(name)
    if function is None:
        known = names(kind)
        raise ValueError(
            f"unknown {kind or 'mask'} head {name!r}; the registered ones are {known}{_closest(name, known)}"
        )
    own = getattr(function, "kind", "mask")
    if kind not in (None, own):
        raise ValueError(f"head {name!r} is a {own} head; a {kind} head is needed: {names(kind)}")
    _check_options(name, function, options)
    made = function(input_shape, num_classes, **options)
    if isinstance(made, Head):
        return made
    _check_contract(name, made, input_shape, num_classes)
    return FunctionHead(made)


def describe(
    name: str | dict, input_shape: tuple[int, int, int] = (14, 14, 256), num_classes: int = 81, **options: Any
) -> str:
    """Prints and returns what a head takes and gives, its losses, and what it costs."""
    name, options = name_and_options(name, options)
    head = make(name, input_shape, num_classes, options)
    lines = [f"{name}: {head.kind} head for {num_classes} classes and features of {input_shape}"]
    for title, model in (("training", head.model), ("inference", head.inference)):
        if title == "inference" and model is head.model:
            break
        given = {"features": model.input} if head.is_plain else model.input
        taken = {"masks": model.output} if head.is_plain else model.output
        lines += [f"  {title} inputs   {_shapes(given)}", f"  {title} outputs  {_shapes(taken)}"]
        lines.append(f"  {title} multiply-adds per RoI  {multiply_adds(model):,}")
    lines += [f"  losses      {', '.join(head.loss_names)}", f"  parameters  {head.model.count_params():,}"]
    flags = ("source_masks", "train_on_predicted_boxes", "rescores")
    lines += [f"  {flag}" for flag in flags if getattr(head, flag)]
    text = "\n".join(lines)
    print(text)
    return text


def _shapes(tensors: dict[str, Any]) -> str:
    """Names, sizes and types of tensors."""
    parts = []
    for name, tensor in tensors.items():
        tensor = tensor[0] if isinstance(tensor, list) else tensor
        parts.append(f"{name} {list(tensor.shape)} {keras.backend.standardize_dtype(tensor.dtype)}")
    return ", ".join(parts).replace("None", "?")


def _origin(function: HeadFunction) -> str:
    kind = function if hasattr(function, "__qualname__") else type(function)
    return f"{kind.__module__}.{kind.__qualname__}"


def _closest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(str(word), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def name_and_options(name: str | dict, options: dict) -> tuple[str, dict]:
    """The name of a head and its options, of a name or of a dict that has "name". Raises ValueError for others."""
    if isinstance(name, dict):
        if "name" not in name:
            raise ValueError(f'a head given as a dict needs the key "name", received {name!r}')
        options = {**{key: value for key, value in name.items() if key != "name"}, **options}
        name = name["name"]
    if not isinstance(name, str):
        raise ValueError(f"a mask head is a name or a dict of a name and options, received {name!r}")
    return name, options


def _checked_sizes(input_shape: Any, num_classes: Any) -> tuple[tuple[int, int, int], int]:
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
    return (int(sizes[0]), int(sizes[1]), int(sizes[2])), int(num_classes)


def _is_count(value: Any) -> bool:
    return isinstance(value, Integral) and int(value) > 0


def _check_options(name: str, function: HeadFunction, options: dict) -> None:
    """A misspelled option is named here, with those that exist, before anything is built."""
    parameters = list(inspect.signature(function).parameters.values())
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    known = [p.name for p in parameters[2:] if p.kind is not p.VAR_POSITIONAL]
    for option in options:
        if option not in known:
            raise ValueError(f"mask head {name!r} has no option {option!r}; it has {known}{_closest(option, known)}")


def _check_contract(name: str, model: Any, input_shape: tuple[int, int, int], num_classes: int) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"mask head {name!r} must return a keras.Model or be a heads.Head, it returned {type(model).__name__}"
        )
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
    if given[3] not in (1, num_classes):
        raise ValueError(
            f"mask head {name!r} must give one channel a class, {num_classes} in all, or a single one; its output is "
            f"{given}"
        )
    dtype = keras.backend.standardize_dtype(model.outputs[0].dtype)
    if dtype != "float32":
        raise ValueError(
            f"mask head {name!r} must give float32 probabilities, its output is {dtype}; "
            f'give its last layer dtype="float32"'
        )

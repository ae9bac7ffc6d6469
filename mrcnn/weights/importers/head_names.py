"""Weights of registered heads in files of other programs, by the names that the heads state."""

import math
from typing import Any

from mrcnn.network.graph import importable_heads
from mrcnn.weights.importers.torch_layers import StateDict
from mrcnn.weights.source import Lazy


def named_head(state: StateDict, prefix: str, program: str) -> tuple[dict[str, Lazy], dict[str, Any]] | None:
    """The layers and settings of the registered head whose weights a torch file contains; None if there is none.

    A file with most of a head's layers counts as containing that head.

    Args:
        prefix: of the mask head's names in the file.
        program: the naming scheme, as in `heads.Head.weight_names`.

    Raises ValueError if such a file lacks one of the layers.
    """
    for name, head in importable_heads(program).items():
        names = head.weight_names[program]
        weights = [f"{prefix}{_name(there)}.weight" for there in names.values()]
        if 2 * sum(weight in state for weight in weights) > len(weights):
            shapes = {_name(there): state.shape(weight) for there, weight in zip(names.values(), weights, strict=True)}
            found: dict[str, Lazy] = {}
            for here, there in names.items():
                found |= _layer(state, f"mask_head/{here}", prefix, there)
            options = head.imported_options(program, shapes)
            return found, {"MASK_HEAD": {"name": name, **options} if options else name}
    return None


def _name(there: Any) -> str:
    return there if isinstance(there, str) else there.name


def _layer(state: StateDict, key: str, prefix: str, there: Any) -> dict[str, Lazy]:
    """A layer of the file, in Keras's layout."""
    name = prefix + _name(there)
    shape = state.shape(f"{name}.weight")
    if len(shape) == 4:
        return state.convolution(key, name)
    inputs, outputs = (None, None) if isinstance(there, str) else (there.inputs_side, there.outputs_side)
    features = None if inputs is None else (shape[1] // inputs**2, inputs, inputs)
    if outputs is None:
        return state.dense(key, name, features=features)
    maps = (shape[0] // outputs**2, outputs * outputs)
    if math.prod(maps) != shape[0]:
        raise ValueError(f"{state.path}: {name}.weight has {shape[0]} outputs, not maps of {outputs}x{outputs} cells")
    return state.dense(key, name, features=features, change=lambda values: _channels_last(values, *maps))


def _channels_last(values: Any, channels: int, cells: int) -> Any:
    """Reorders the last axis from `channels` maps in sequence to the channels of each cell together."""
    return values.reshape(*values.shape[:-1], channels, cells).swapaxes(-1, -2).reshape(values.shape)

"""Stage 5 at stride 16 for any backbone: its stride is removed, and its later windows have holes."""

import random
from collections import Counter
from collections.abc import Callable
from typing import Any, Self

import keras
from keras import layers, ops

from mrcnn.network.feature_taps import FeatureMap, feature_maps
from mrcnn.network.frozen_batch_norm import copy_of
from mrcnn.ops.keras_internals import node_of

CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D)
POOLS = (layers.MaxPooling2D, layers.AveragePooling2D)
# Layers whose output at a cell depends on their inputs at this cell alone, or on all cells.
CELLWISE = (
    *(layers.Activation, layers.ReLU, layers.LeakyReLU, layers.ELU, layers.Identity, layers.Rescaling, layers.Dense),
    *(layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum, layers.Concatenate),
    *(layers.BatchNormalization, layers.LayerNormalization, layers.GroupNormalization, layers.UnitNormalization),
    *(layers.Dropout, layers.SpatialDropout2D, layers.GaussianDropout, layers.GaussianNoise),
)
Sides = tuple[tuple[int, int], tuple[int, int]]  # rows or columns (before, after), vertically and horizontally


@keras.saving.register_keras_serializable("mrcnn")
class LowestPadding(layers.ZeroPadding2D):
    """Padding that is never a maximum. call: [B, H, W, C] -> [B, top + H + bottom, left + W + right, C]."""

    def call(self, inputs: Any) -> Any:
        return ops.pad(inputs, [(0, 0), *self.padding, (0, 0)], constant_values=float("-inf"))


@keras.saving.register_keras_serializable("mrcnn")
class DilatedPooling(layers.Layer):
    """A pooling layer with dilation 2, which Keras has for convolutions alone. call: [B, H, W, C], even H and W.

    The cells of even and of odd rows and columns are four maps, which are pooled alone.

    Args:
        pooling: of stride 1.
    """

    def __init__(self, pooling: layers.Layer, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pooling = pooling

    def call(self, inputs: Any) -> Any:
        batch, height, width, channels = ops.shape(inputs)
        x = ops.reshape(inputs, (batch, height // 2, 2, width // 2, 2, channels))
        x = ops.reshape(ops.transpose(x, (2, 4, 0, 1, 3, 5)), (-1, height // 2, width // 2, channels))
        x = self.pooling(x)
        height, width = ops.shape(x)[1:3]
        x = ops.transpose(ops.reshape(x, (2, 2, batch, height, width, channels)), (2, 3, 0, 4, 1, 5))
        return ops.reshape(x, (batch, 2 * height, 2 * width, channels))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "pooling": keras.saving.serialize_keras_object(self.pooling)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**{**config, "pooling": keras.saving.deserialize_keras_object(config["pooling"])})


def dilate_last_stage(model: keras.Model) -> keras.Model:
    """The same network with stage 5 at stride 16 instead of 32.

    The layers that halve the size have stride 1, and the windows of later ones have a cell between each two. Every
    second row and column of the result is what the model itself computes ("algorithme a trous", Chen et al. 2015,
    section 3.1).

    Args:
        model: functional; of images with sides that are multiples of 32. The layers that do not change are shared.

    Returns:
        A model of layers with the same names and weights, and of padding.

    Raises:
        ValueError: for a layer of stage 5 that cannot be dilated.
    """
    state = random.getstate()  # Keras draws initializer seeds from it; the initial values are overwritten anyway
    try:
        return _dilated(model, 1, model.name)
    finally:
        random.setstate(state)


def _dilated(model: keras.Model, stride: int, owner: str) -> keras.Model:
    """The network of a model whose input is at a stride of the owner's image."""
    steps = _steps_of(model, stride, owner)

    def replaced(layer: Any) -> Callable[..., Any]:
        return _chain(steps[id(layer)]) if id(layer) in steps else layer

    return keras.models.clone_model(model, clone_function=replaced)


def _steps_of(model: keras.Model, stride: int, owner: str) -> dict[int, list[keras.layers.Layer]]:
    """The layers that replace each layer of stage 5, by the latter's id."""
    maps = feature_maps(model)
    calls = Counter(id(found.layer) for found in maps)
    by_tensor, steps = {id(found.tensor): found for found in maps}, {}
    for found in maps:
        given = [by_tensor[id(tensor)] for tensor in node_of(found.tensor).input_tensors]
        given = [one for one in given if one.stride is not None]
        if not given or found.stride is None:
            continue
        taken = max(given, key=lambda one: one.stride or 0)
        if stride * max(found.stride, taken.stride or 0) < 32:
            continue
        new = _replacements(found, taken, stride, owner)
        if new != [found.layer]:
            if calls[id(found.layer)] > 1:
                raise _cannot(found.layer, owner, "is called more than once")
            steps[id(found.layer)] = new
    return steps


def _chain(steps: list[keras.layers.Layer]) -> Callable[..., Any]:
    def call(*inputs: Any, **options: Any) -> Any:
        *first, last = steps
        for layer in first:
            inputs = (layer(*inputs),)
        return last(*inputs, **options)

    return call


def _replacements(found: FeatureMap, given: FeatureMap, stride: int, owner: str) -> list[keras.layers.Layer]:
    """The layers that compute twice as many cells from twice as many; at the first ones of stage 5, from as many."""
    layer, taken, made = found.layer, stride * (given.stride or 1), stride * (found.stride or 1)
    if (taken, made) not in ((16, 32), (32, 32)):
        raise _cannot(layer, owner, f"has stride {made} after stride {taken}")
    if isinstance(layer, keras.Sequential):
        inner = keras.Model(layer.inputs[0], layer.outputs[0], name=layer.name)
        steps = _steps_of(inner, taken, owner)
        parts = [part for own in layer.layers for part in steps.get(id(own), [own])]
        return [keras.Sequential([keras.Input(layer.input_shape[1:]), *parts], name=layer.name)]
    if isinstance(layer, keras.Model) and layer.inputs:
        return [_dilated(layer, taken, owner)]
    if taken == 16 and isinstance(layer, (*CONVOLUTIONS, *POOLS)):
        return _without_stride(layer, 2 * found.excess - given.excess, owner)
    if taken == 32 and isinstance(layer, CONVOLUTIONS):
        return _with_holes(layer)
    if taken == 32 and isinstance(layer, POOLS):
        return [DilatedPooling(layer, name=f"{layer.name}_dilated")]
    if taken == 32 and type(layer) in (layers.ZeroPadding2D, layers.Cropping2D):
        name = "padding" if isinstance(layer, layers.ZeroPadding2D) else "cropping"
        return [copy_of(layer, **{name: [[2 * side for side in sides] for sides in getattr(layer, name)]})]
    if taken == made and _is_cellwise(layer):
        return [layer]
    raise _cannot(layer, owner, f"is a {type(layer).__name__}")


def _is_cellwise(layer: Any) -> bool:
    """Layers of keras.applications (ConvNeXt's) that are no public ones scale or drop; operations are taken as such."""
    own = type(layer).__module__.startswith("keras.src.applications")
    return own or isinstance(layer, CELLWISE) or not isinstance(layer, keras.layers.Layer)


def _without_stride(layer: Any, missing: int, owner: str) -> list[keras.layers.Layer]:
    """A layer of stride 2 with stride 1: twice as many cells, of which every second one is the layer's own.

    Args:
        missing: twice the number of its output's cells minus the number of its input's.
    """
    windows = [dilation * (size - 1) + 1 for size, dilation in zip(_window(layer), _dilation(layer), strict=True)]
    same, sides = layer.padding == "same", []
    for window in windows:
        total = window - 1 + missing
        before = max(total - 1, 0) // 2 if same else 0
        sides.append((before, total - before))
    if isinstance(layer, layers.AveragePooling2D) and same and _padding_of(windows) != tuple(sides):
        raise _cannot(layer, owner, "averages without its padding")
    return _padded(layer, tuple(sides), windows, strides=1)


def _with_holes(layer: Any) -> list[keras.layers.Layer]:
    """A convolution of stride 1 with twice the dilation, whose padding has as many cells of each side as before."""
    dilation = [2 * rate for rate in _dilation(layer)]
    windows = [rate * (size - 1) + 1 for size, rate in zip(_window(layer), dilation, strict=True)]
    if set(windows) == {1}:
        return [layer]
    sides = [(0, 0), (0, 0)]
    if layer.padding == "same":
        before = [2 * side for side, _ in _padding_of([(window + 1) // 2 for window in windows])]
        sides = [(first, window - 1 - first) for first, window in zip(before, windows, strict=True)]
    return _padded(layer, tuple(sides), windows, dilation_rate=dilation)


def _padded(layer: Any, sides: Any, windows: list[int], **changes: Any) -> list[keras.layers.Layer]:
    """A copy of a layer of stride 1 after so much padding, which is the layer's own where Keras would pad as much."""
    if sides == _padding_of(windows):
        return [copy_of(layer, padding="same", **changes)]
    kind = LowestPadding if isinstance(layer, layers.MaxPooling2D) else layers.ZeroPadding2D
    padding = [kind(sides, name=f"{layer.name}_same")] if any(map(any, sides)) else []
    return [*padding, copy_of(layer, padding="valid", **changes)]


def _padding_of(windows: list[int]) -> Sides:
    """The padding of Keras's "same" at stride 1."""
    (top, bottom), (left, right) = ((total // 2, total - total // 2) for total in (window - 1 for window in windows))
    return (top, bottom), (left, right)


def _window(layer: Any) -> tuple[int, int]:
    return layer.pool_size if isinstance(layer, POOLS) else layer.kernel_size


def _dilation(layer: Any) -> tuple[int, int]:
    return (1, 1) if isinstance(layer, POOLS) else layer.dilation_rate


def _cannot(layer: Any, owner: str, why: str) -> ValueError:
    return ValueError(
        f'{owner!r} cannot be dilated, as NECK = "dc5" requires: its layer {layer.name!r} in stage 5 {why}. '
        'Set NECK = "c5" and BACKBONE_STRIDES = [32] for its last stage without dilation, or NECK = "c4"'
    )

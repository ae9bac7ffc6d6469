"""Strides of the feature maps inside a model, the four taps of a feature pyramid, and stage 5, from shapes alone."""

import random
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import layers

from mrcnn.layers.dilated import CONVOLUTIONS, POOLS, copy_of, with_holes, without_stride
from mrcnn.ops.keras_internals import all_layers, node_of, nodes_of

# Two image sizes, both multiples of every stride; comparing them separates the stride from the border.
PROBES = (256, 512)
# Layers whose output at a cell depends on their inputs at this cell alone, or on all cells.
CELLWISE = (
    *(layers.Activation, layers.ReLU, layers.LeakyReLU, layers.ELU, layers.Identity, layers.Rescaling, layers.Dense),
    *(layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum, layers.Concatenate),
    *(layers.BatchNormalization, layers.LayerNormalization, layers.GroupNormalization, layers.UnitNormalization),
    *(layers.Dropout, layers.SpatialDropout2D, layers.GaussianDropout, layers.GaussianNoise),
)


class FeatureMap(NamedTuple):
    """One tensor inside a model: its side is the image's side / `stride` + `excess`.

    `stride` is None if the side does not depend on the image's (for instance pooled to 1x1) or the rank is not 4.
    `is_bottleneck`: every path from the model's input to its output passes through this tensor.
    """

    tensor: Any
    layer: Any
    stride: int | None
    excess: int
    is_bottleneck: bool


def feature_maps(model: keras.Model) -> list[FeatureMap]:
    """Every tensor that the outputs of `model` depend on, in computation order. The model takes images [B, H, W, C].

    Raises:
        ValueError: if the model cannot process some image sizes.
    """
    tensors = [(node, tensor) for node in nodes_of(model) for tensor in node.outputs]
    graph = keras.Function(model.inputs[0], [tensor for _, tensor in tensors])
    try:
        small, large = (graph.compute_output_spec(_probe(model, side)) for side in PROBES)
    except ValueError as error:
        raise ValueError(f"{model.name!r} does not accept images of any size, as a backbone must: {error}") from error
    bottlenecks = _bottlenecks(nodes_of(model))
    return [
        FeatureMap(tensor, node.operation, *_stride(a.shape, b.shape), id(tensor) in bottlenecks)
        for (node, tensor), a, b in zip(tensors, small, large, strict=True)
    ]


def taps(model: keras.Model, strides: tuple[int, ...] = (4, 8, 16, 32)) -> list:
    """The tensors of `model` to build a pyramid on: for each stride, the last one before the resolution drops.

    Only tensors on every path count, not those inside a branch of a residual block. Tensors larger than image / stride
    do not count, because an explicit padding layer made them for the next convolution. A tensor that unpadded
    convolutions left smaller than image / stride is zero-padded to that size.

    Returns:
        KerasTensors [B, H / s, W / s, c], for H and W multiples of the largest stride.

    Raises:
        ValueError: for a stride without such a tensor.
    """
    maps = feature_maps(model)
    found = []
    for stride in strides:
        candidates = [m for m in maps if m.stride == stride and m.excess <= 0 and m.is_bottleneck]
        if not candidates:
            there = sorted({m.stride for m in maps if m.stride is not None and m.is_bottleneck})
            raise ValueError(
                f"{model.name!r} has no feature map at stride {stride} that every path passes through (it has them "
                f"at strides {there}); a backbone needs strides {', '.join(map(str, strides))}. Use another backbone, "
                f"or a function that returns [C2, C3, C4, C5]."
            )
        found.append(_padded(candidates[-1], f"c{stride.bit_length() - 1}_pad"))
    return found


def last_stage(model: keras.Model, c4: Any, c5: Any, side: int) -> keras.Model:
    """The layers from C4 to C5 as a model: [R, side, side, C4's channels] -> [R, about side / 2, ..., C5's channels].

    Args:
        model: has the layers, which are shared with it.
        c4, c5: two of its tensors, from `taps`.

    Raises:
        ValueError: if C5 does not depend on C4 alone.
    """
    pad = node_of(c4)
    if isinstance(pad.operation, keras.layers.ZeroPadding2D) and pad.operation.name == "c4_pad":
        (c4,) = pad.input_tensors  # RoI features have their full size
    try:
        part = keras.Model(c4, c5)
    except ValueError as error:
        raise ValueError(
            f'{model.name!r} does not compute C5 from C4 alone, as NECK = "c4" requires: its heads compute C5 from RoI '
            'features. Set NECK = "c5" or "fpn"'
        ) from error
    features = keras.Input((side, side, c4.shape[-1]), name="roi_features")
    shared = keras.models.clone_model(part, input_tensors=features, clone_function=lambda layer: layer)
    return keras.Model(features, shared.outputs[0], name="last_stage")


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


def check_strides(model: keras.Model, name: str, strides: tuple[int, ...] = (4, 8, 16, 32)) -> None:
    """Raises ValueError unless the outputs of `model` are feature maps of exactly these strides, in this order."""
    shapes = [
        [tuple(output.shape) for output in outputs]
        for outputs in (_as_list(model.compute_output_spec(_probe(model, side))) for side in PROBES)
    ]
    for i, stride in enumerate(strides):
        for side, outputs in zip(PROBES, shapes, strict=True):
            if len(outputs[i]) != 4 or outputs[i][1:3] != (side // stride, side // stride):
                raise ValueError(
                    f"output {i} of backbone {name} must be at stride {stride}: [B, {side // stride}, "
                    f"{side // stride}, channels] for a {side}x{side} image; it is {outputs[i]}"
                )


def stages(model: keras.Model) -> dict[str, int]:
    """Layer name -> stage: n for an output stride of 2**n, at least 1 and at most 5.

    A layer whose output has no stride belongs to the stage of its inputs. Nested layers have the outer layer's stage.
    """
    at: dict[int, int] = {}
    result: dict[str, int] = {}
    for feature in feature_maps(model):
        stage = max([at.get(id(tensor), 1) for tensor in node_of(feature.tensor).input_tensors], default=1)
        if feature.stride is not None:
            stage = min(max(feature.stride.bit_length() - 1, 1), 5)
        at[id(feature.tensor)] = stage
        if isinstance(feature.layer, keras.layers.Layer):
            result.update({inner.name: stage for inner in all_layers(feature.layer)})
    return result


def _probe(model: keras.Model, side: int) -> keras.KerasTensor:
    return keras.KerasTensor((1, side, side, model.inputs[0].shape[-1]), dtype=model.inputs[0].dtype)


def _as_list(value: Any) -> list:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _stride(small: tuple, large: tuple) -> tuple[int | None, int]:
    """(stride, excess) of a tensor from its shapes at the two probes."""
    if len(small) != 4 or small[1] == large[1]:
        return None, 0
    stride, remainder = divmod(PROBES[1] - PROBES[0], large[1] - small[1])
    return (None, 0) if remainder or stride < 1 else (stride, small[1] - PROBES[0] // stride)


def _bottlenecks(nodes: list) -> set[int]:
    """Ids of the tensors that are on every path: no edge of the ordered graph skips them."""
    place = {id(tensor): i for i, node in enumerate(nodes) for tensor in node.outputs}
    last_use = dict.fromkeys(range(len(nodes)), 0)
    for i, node in enumerate(nodes):
        for tensor in node.input_tensors:
            last_use[place[id(tensor)]] = max(last_use[place[id(tensor)]], i)
    found, reach = set(), 0
    for i, node in enumerate(nodes):
        if reach <= i and len(node.outputs) == 1:
            found.add(id(node.outputs[0]))
        reach = max(reach, last_use[i])
    return found


def _padded(feature: FeatureMap, name: str) -> Any:
    if feature.excess == 0:
        return feature.tensor
    missing = -feature.excess
    sides = (missing // 2, missing - missing // 2)
    return keras.layers.ZeroPadding2D((sides, sides), name=name)(feature.tensor)


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
    if isinstance(layer, (*CONVOLUTIONS, *POOLS)):
        if new := with_holes(layer) if taken == 32 else without_stride(layer, 2 * found.excess - given.excess):
            return new
        raise _cannot(layer, owner, "averages without its padding")
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


def _cannot(layer: Any, owner: str, why: str) -> ValueError:
    return ValueError(
        f'{owner!r} cannot be dilated, as NECK = "dc5" requires: its layer {layer.name!r} in stage 5 {why}. '
        'Set NECK = "c5" and BACKBONE_STRIDES = [32] for its last stage without dilation, or NECK = "c4"'
    )

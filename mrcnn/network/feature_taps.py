"""Strides of the feature maps inside a model, and the four taps of a feature pyramid, found from shapes alone."""

from typing import Any, NamedTuple

import keras

from mrcnn.ops.keras_internals import all_layers, node_of, nodes_of

# Two image sizes, both multiples of every stride; comparing them separates the stride from the border.
PROBES = (256, 512)


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

"""The inference graph on a canvas larger than a photograph needs, with the results of the smaller one.

Zeros around a photograph are not enough: biases make something of them, and the next convolution sees that where it saw
its own padding. So whatever looks at its neighbours is given the padding it would have had, and what lies beyond the
photograph's own size never becomes a proposal or a feature of a RoI.
"""

import functools
from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

from mrcnn.fusion.folding import FoldedConvolution, WinogradConvolution
from mrcnn.layers.anchors import Anchors
from mrcnn.layers.proposals import WholeInput
from mrcnn.layers.roi_align.roi_align import RoIAlign
from mrcnn.layers.static_output import Declared, spec
from mrcnn.network.feature_taps import feature_maps, nodes_of
from mrcnn.network.frozen_batch_norm import FrozenBatchNormalization
from mrcnn.ops.nms import LOWEST

DIVISOR = 32  # of the sides of all canvases
# Layers whose cells follow from those of their map that are near, with the settings that `_is_known` asks for.
KNOWN = (
    layers.InputLayer,
    layers.Conv2D,
    layers.DepthwiseConv2D,
    layers.ZeroPadding2D,
    layers.MaxPooling2D,
    layers.AveragePooling2D,
    layers.UpSampling2D,
    layers.BatchNormalization,
    FrozenBatchNormalization,
    layers.ReLU,
    layers.LeakyReLU,
    layers.Activation,
    layers.Add,
    layers.Multiply,
    layers.Concatenate,
    layers.Dropout,
    layers.Rescaling,
)


class Sized(Declared):
    """A layer of a feature map x [B, H, W, C] and of sizes [B, (height, width)] int32 in pixels, all equal; returns x's
    shape and type.

    Args:
        stride, excess: of the map, see `mrcnn.network.feature_taps.FeatureMap`. What of it lies within the size counts.
    """

    def __init__(self, stride: int, excess: int = 0, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.stride, self.excess = stride, excess

    def cells(self, size: Any) -> tuple[Any, Any]:
        """Rows and columns of the map that count. P6 is rounded up."""
        rows, columns = ops.unstack(-(-size[0] // self.stride) + self.excess, 2)
        return rows, columns

    def inside(self, x: Any, size: Any) -> Any:
        """[H, W, 1] bool."""
        rows, columns = self.cells(size)
        row, column = (ops.arange(side, dtype="int32") for side in x.shape[1:3])
        return ops.logical_and(row[:, None, None] < rows, column[None, :, None] < columns)

    def declared_outputs(self, x: Any, *rest: Any) -> Any:
        return spec(*x.shape, dtype=x.dtype)


class Surrounded(Sized):
    """x with `value` in all cells that do not count: a convolution's padding is 0, a pool's the lowest number."""

    def __init__(self, value: float, stride: int, excess: int = 0, **kwargs: Any) -> None:
        super().__init__(stride, excess, **kwargs)
        self.value = value

    def call(self, x: Any, size: Any) -> Any:
        return ops.where(self.inside(x, size), x, ops.cast(self.value, x.dtype))


class Continued(Sized):
    """x whose last rows and columns that count go on beyond: what RoIAlign makes of samples at a map's edge."""

    def call(self, x: Any, size: Any) -> Any:
        for axis, cells in enumerate(self.cells(size), start=1):
            x = ops.take(x, ops.minimum(ops.arange(x.shape[axis], dtype="int32"), cells - 1), axis=axis)
        return x


class Unchosen(Sized):
    """logits [B, anchors] of a level x, those of anchors whose cell does not count at `LOWEST`."""

    def call(self, logits: Any, x: Any, size: Any) -> Any:
        inside = self.inside(x, size)
        inside = ops.repeat(inside, logits.shape[1] // (x.shape[1] * x.shape[2]), axis=-1)
        return ops.where(ops.reshape(inside, (1, -1)), logits, LOWEST)


class SizeAsWindow(Declared):
    """sizes [B, (height, width)] int32 -> [B, (0, 0, height, width)] float32, in place of `WholeInput`."""

    def call(self, size: Any) -> Any:
        size = ops.cast(size, "float32")
        return ops.concatenate([ops.zeros_like(size), size], axis=-1)

    def declared_outputs(self, size: Any) -> Any:
        return spec(size.shape[0], 4)


def bounded(model: keras.Model) -> keras.Model | None:
    """`mrcnn.network.graph.inference_graph`'s model with one more input, the part of the canvas that is to count.

    Inputs: image [B, H, W, C], zero beyond the size; window; size [B, (height, width)] int32, in pixels from the top
    left, the same for the whole batch. Sides of canvas and size are multiples of 32. The outputs are, to rounding, the
    model's own for image[:, :height, :width].

    Returns None for a model of which that cannot be said: one to which there is an `obstacle`.
    """
    if obstacle(model):
        return None
    size = keras.Input((2,), dtype="int32", name="size")
    levels: dict[int, tuple[int, int]] = {}  # id of a level's tensor -> its stride and excess
    inner_maps = functools.cache(_maps)  # the RPN has five levels

    @functools.cache
    def continued(level: Any) -> Any:
        return Continued(*levels[id(level)])(level, size)

    def call(node: Any, *args: Any, **kwargs: Any) -> Any:
        layer = node.operation
        if _is_part(layer, "trunk"):
            maps = inner_maps(layer)
            outputs = _padded_inside(layer, maps)([args[0], size])
            levels.update((id(new), maps[id(old)]) for new, old in zip(outputs, layer.outputs, strict=True))
            return outputs
        if _is_part(layer, "rpn"):
            at = levels[id(args[0])]
            logits, deltas = _padded_inside(layer, inner_maps(layer), *at)([args[0], size])
            return Unchosen(*at)(logits, args[0], size), deltas
        if isinstance(layer, WholeInput):
            return SizeAsWindow()(size)
        if isinstance(layer, RoIAlign):
            args = ([continued(level) for level in args[0]], *args[1:])
        return layer(*args, **kwargs)

    return keras.Model({**model.input, "size": size}, _run(model, model.inputs, call), name=f"{model.name}_bounded")


def obstacle(model: keras.Model) -> str | None:
    """What in a model follows from its canvas, so that there is no `bounded` of it; None if nothing does.

    Anchors that skip cells or whose distance follows from the input's size (torchvision's); RoIAlign that is not
    aligned (torchvision's) or matterport's, whose canvases are of one size anyway; in the trunk, layers and activations
    that are not known to look at near cells alone (averages over the image, attention, a user's own), and maps whose
    size is no whole part of every canvas's.
    """
    for node in nodes_of(model):
        layer = node.operation
        if isinstance(layer, Anchors) and (layer.anchor_stride != 1 or layer.step_from_size):
            return "the distance between its anchors"
        if isinstance(layer, RoIAlign) and (layer.geometry != "aligned" or not layer.aligned):
            return "its RoIAlign at the edges"
        if _is_part(layer, "trunk") and (found := _obstacle_inside(layer)):
            return found
    return None


def _obstacle_inside(trunk: keras.Model) -> str | None:
    """`obstacle` of the trunk, whose outputs may be P6, which is rounded up."""
    for node in nodes_of(trunk):
        if not _is_known(node.operation):
            return f"layer {node.operation.name!r} of its trunk, which is not known to look at near cells alone"
    maps, outputs = _maps(trunk), {id(tensor) for tensor in trunk.outputs}
    for node in nodes_of(trunk):
        for tensor in map(id, node.outputs):
            stride, _ = maps[tensor]
            if stride is None or (DIVISOR % stride and tensor not in outputs):
                return f"layer {node.operation.name!r} of its trunk, whose map has " + (
                    f"the stride {stride}, which does not divide {DIVISOR}" if stride else "no stride"
                )
    return None


def _maps(model: keras.Model) -> dict[int, tuple[int | None, int]]:
    """Stride and excess of the tensors of a model by their ids, see `mrcnn.network.feature_taps.FeatureMap`."""
    return {id(m.tensor): (m.stride, m.excess) for m in feature_maps(model)}


def _padded_inside(
    model: keras.Model, maps: dict[int, tuple[int, int]], stride: int = 1, excess: int = 0
) -> keras.Model:
    """The model as one of (its input, sizes). `maps` are its own, `stride` and `excess` those of its input."""
    size = keras.Input((2,), dtype="int32")

    def call(node: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        value = _padding_value(node.operation)
        if value is not None:
            inner_stride, inner_excess = maps[id(node.input_tensors[0])]
            x = Surrounded(value, inner_stride * stride, inner_excess + excess)(x, size)
        return node.operation(x, *args, **kwargs)

    return keras.Model([model.inputs[0], size], _run(model, model.inputs, call))


def _padding_value(layer: Any) -> float | None:
    """What a layer sees beyond the edges of its map; None for one that never looks there."""
    if isinstance(layer, layers.ZeroPadding2D):
        return 0.0
    layer = _convolution(layer)
    if isinstance(layer, layers.MaxPooling2D):
        return LOWEST if layer.padding == "same" and layer.pool_size != (1, 1) else None
    looks = isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D)) and layer.kernel_size != (1, 1)
    return 0.0 if looks and layer.padding == "same" else None


def _is_known(layer: Any) -> bool:
    """Whether a layer's cells depend on the cells of its map near them alone, and `_padding_value` is right of it."""
    layer = _convolution(layer)
    if isinstance(layer, layers.AveragePooling2D) and layer.padding == "same":  # it counts the cells that there are
        return False
    activation = getattr(layer, "activation", keras.activations.linear)
    return (
        type(layer) in KNOWN
        and _is_square(layer)
        and getattr(layer, "data_format", "channels_last") == "channels_last"
        and getattr(layer, "axis", -1) in (-1, 3)
        and getattr(layer, "interpolation", "nearest") == "nearest"
        # Keras's own look at one cell: softmax and its like are over channels, unless a user's function calls them
        and any(activation is known for known in vars(keras.activations).values())
    )


def _is_square(layer: Any) -> bool:
    """Whether a layer makes as many rows as columns of a square map, as `mrcnn.network.feature_taps` takes it."""
    if isinstance(layer, layers.ZeroPadding2D):
        return sum(layer.padding[0]) == sum(layer.padding[1])
    names = ("strides", "size")
    if getattr(layer, "padding", "same") != "same":
        names += ("kernel_size", "pool_size", "dilation_rate")
    return all(len(set(getattr(layer, name, (1, 1)))) == 1 for name in names)


def _convolution(layer: Any) -> Any:
    return layer.convolution if isinstance(layer, FoldedConvolution | WinogradConvolution) else layer


def _is_part(layer: Any, name: str) -> bool:
    return isinstance(layer, keras.Model) and layer.name == name


def _run(model: keras.Model, inputs: list[Any], call: Callable[..., Any]) -> Any:
    """The outputs of a functional model, in their structure, with `call(node, ...)` in place of each layer's."""
    tensors = {id(there): here for there, here in zip(model.inputs, inputs, strict=True)}
    for node in nodes_of(model):
        if not node.is_input:
            args, kwargs = node.arguments.fill_in(tensors)
            outputs = keras.tree.flatten(call(node, *args, **kwargs))
            tensors.update({id(there): here for there, here in zip(node.outputs, outputs, strict=True)})
    return keras.tree.map_structure(lambda tensor: tensors[id(tensor)], model.output)

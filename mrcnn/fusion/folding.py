"""Equivalent models with fewer operations: BatchNorm folded into convolutions, transposed convolutions as 1x1 ones.

Keras computes BatchNorm as plain arithmetic, with two passes over a feature map in each direction; in bfloat16 these
take as long as the convolutions. With fixed statistics, BatchNorm and convolution are both linear, so one kernel and
one bias replace them.

A transposed convolution whose stride equals its kernel size has one input cell per output. It is a 1x1 convolution,
which TensorFlow fuses with bias and ReLU, followed by `depth_to_space`.
"""

from collections import Counter
from typing import Any, ClassVar

import keras
from keras import ops

from mrcnn.fusion import winograd
from mrcnn.fusion.convolution import NO_BORDER, Border, Kind, convolve
from mrcnn.fusion.padded_pooling import PaddedMaxPooling, as_border, bordered_spec
from mrcnn.fusion.shared_weights import SharedWeightsLayer, build_unbuilt
from mrcnn.layers.static_output import StaticOutputLayer
from mrcnn.ops.keras_internals import node_of, nodes_of


def functional(model: keras.Model) -> keras.Model:
    """The model itself; a `keras.Sequential` is converted to a functional model."""
    return (
        keras.Model(model.inputs[0], model.outputs[0], name=model.name)
        if isinstance(model, keras.Sequential)
        else model
    )


class _ConvolutionLayer(SharedWeightsLayer, StaticOutputLayer):
    """A layer with the outputs and the weights of a convolution.

    Args:
        by_winograd: use `mrcnn.fusion.winograd` where it is faster. Not saved: a loaded layer computes directly.
    """

    shared: ClassVar[tuple[str, ...]] = ("convolution",)

    def __init__(self, *layers: keras.layers.Layer, by_winograd: bool = False, **kwargs: Any) -> None:
        super().__init__(*layers, **kwargs)
        self.by_winograd = by_winograd

    def build(self, input_shape: Any) -> None:
        build_unbuilt(self.convolution, input_shape)
        self.supports_jit = not self.gains_by_winograd()

    def gains_by_winograd(self) -> bool:
        return self.by_winograd and winograd.gains(self.convolution)

    def static_outputs(self, inputs: Any) -> Any:
        return self.convolution.compute_output_spec(inputs)


@keras.saving.register_keras_serializable("mrcnn")
class FoldedConvolution(_ConvolutionLayer):
    """A convolution and the BatchNorm after it as one convolution, with the weights of both layers.

    Each call scales the kernel, in float32. Changes to either layer's weights therefore take effect at once, and
    gradients reach the convolution's own kernel.

    Args:
        convolution: `Conv2D` or `DepthwiseConv2D` without activation, channels last; built.
        norm: `BatchNormalization` over its channels; built. Its moving statistics are used, even in training.
        border: see `mrcnn.fusion.convolution.Kind`.

    call: [B, H, W, c] -> [B, H', W', filters] in the convolution's compute dtype.
    """

    shared = ("convolution", "norm")

    def __init__(self, *layers: keras.layers.Layer, border: Border = NO_BORDER, **kwargs: Any) -> None:
        super().__init__(*layers, **kwargs)
        self.border = as_border(border)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "border": self.border}

    def static_outputs(self, inputs: Any) -> Any:
        return super().static_outputs(bordered_spec(inputs, self.border))

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        build_unbuilt(self.norm, self.convolution.compute_output_shape(input_shape))

    def call(self, inputs: Any) -> Any:
        convolution, dtype = self.convolution, self.convolution.compute_dtype
        inputs = ops.cast(inputs, dtype)
        padding = "same" if convolution.kernel_size == (1, 1) else convolution.padding
        strides, dilations = convolution.strides, convolution.dilation_rate
        scale, bias = self._scale_and_bias()
        if self.gains_by_winograd():
            return winograd.convolve(inputs, convolution.kernel, scale, bias)
        if keras.backend.backend() == "tensorflow" and not self._is_grouped():
            kind = Kind(tuple(convolution.kernel.shape), dtype, strides, padding.upper(), dilations, self.border)
            return convolve(inputs, convolution.kernel, scale, bias, kind)
        if self.border != NO_BORDER:
            inputs = ops.pad(inputs, [(0, 0), *self.border, (0, 0)])
        # A depthwise kernel [h, w, channels, multiplier] orders its outputs by its last two axes
        by_output = ops.reshape(scale, convolution.kernel.shape[2:]) if self._is_depthwise() else scale
        outputs = (ops.depthwise_conv if self._is_depthwise() else ops.conv)(
            inputs,
            ops.cast(convolution.kernel * by_output, dtype),
            strides=strides,
            padding=padding,
            dilation_rate=dilations,
            data_format="channels_last",
        )
        return ops.add(outputs, ops.reshape(ops.cast(bias, dtype), (1, 1, 1, -1)))

    def _scale_and_bias(self) -> tuple[Any, Any]:
        """The kernel's factor and the bias of the combined layers; float32."""
        norm = self.norm
        scale = ops.rsqrt(norm.moving_variance + norm.epsilon)
        if norm.scale:
            scale = scale * norm.gamma
        shift = -norm.moving_mean if self.convolution.bias is None else self.convolution.bias - norm.moving_mean
        return scale, shift * scale + norm.beta if norm.center else shift * scale

    def _is_depthwise(self) -> bool:
        return isinstance(self.convolution, keras.layers.DepthwiseConv2D)

    def _is_grouped(self) -> bool:
        return self._is_depthwise() or self.convolution.groups > 1


@keras.saving.register_keras_serializable("mrcnn")
class WinogradConvolution(_ConvolutionLayer):
    """A `Conv2D`, with its weights, computed by `mrcnn.fusion.winograd` where that is faster, else directly.

    call: [B, H, W, c] -> [B, H, W, filters] in the layer's compute dtype.
    """

    def call(self, inputs: Any) -> Any:
        layer = self.convolution
        inputs = ops.cast(inputs, layer.compute_dtype)
        if not self.gains_by_winograd():
            return layer(inputs)
        filters = layer.kernel.shape[-1:]
        bias = ops.zeros(filters) if layer.bias is None else layer.bias
        relu = layer.activation is keras.activations.relu
        return winograd.convolve(inputs, layer.kernel, ops.ones(filters), bias, relu=relu)


@keras.saving.register_keras_serializable("mrcnn")
class TransposeAsPointwise(SharedWeightsLayer):
    """A `Conv2DTranspose` whose stride equals its kernel size, as a 1x1 convolution with the weights of that layer.

    call: [B, H, W, c] -> [B, H, W, s * s * filters] in the layer's compute dtype; `DepthToSpace` follows.
    """

    shared = ("transpose",)

    def build(self, input_shape: Any) -> None:
        build_unbuilt(self.transpose, input_shape)

    def call(self, inputs: Any) -> Any:
        kernel, bias = self.kernel_and_bias()
        inputs = ops.cast(inputs, self.transpose.compute_dtype)
        outputs = ops.conv(inputs, kernel[None, None], padding="same", data_format="channels_last")
        if self.transpose.bias is not None:
            outputs = ops.add(outputs, ops.reshape(bias, (1, 1, 1, -1)))
        return self.transpose.activation(outputs)

    def kernel_and_bias(self) -> tuple[Any, Any]:
        """[c, s * s * filters] and [s * s * filters], in the layer's compute dtype."""
        layer, dtype = self.transpose, self.transpose.compute_dtype
        rows, columns, filters, channels = layer.kernel.shape
        kernel = ops.transpose(ops.reshape(ops.cast(layer.kernel, dtype), (-1, channels)))
        bias = ops.zeros(filters, dtype) if layer.bias is None else ops.cast(layer.bias, dtype)
        return kernel, ops.tile(bias, (rows * columns,))

    def is_relu(self) -> bool:
        return self.transpose.activation is keras.activations.relu


@keras.saving.register_keras_serializable("mrcnn")
class DepthToSpace(keras.layers.Layer):
    """call: [B, H, W, rows * columns * c] -> [B, rows * H, columns * W, c], by `depth_to_space`."""

    def __init__(self, rows: int, columns: int, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.rows, self.columns = rows, columns

    def call(self, inputs: Any) -> Any:
        return depth_to_space(inputs, self.rows, self.columns)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rows": self.rows, "columns": self.columns}


def depth_to_space(inputs: Any, rows: int, columns: int) -> Any:
    """Rearranges the channels of each cell into rows x columns pixels, row by row."""
    _, height, width = ops.shape(inputs)[:3]
    channels = inputs.shape[-1] // (rows * columns)
    outputs = ops.transpose(ops.reshape(inputs, (-1, height, width, rows, columns, channels)), (0, 1, 3, 2, 4, 5))
    return ops.reshape(outputs, (-1, height * rows, width * columns, channels))


def fold(model: keras.Model, norms: tuple[type, ...], *, by_winograd: bool = False) -> keras.Model:
    """An equivalent model with the same weights and fewer operations.

    Args:
        model: a functional or sequential model. Nested models are not changed.
        norms: the BatchNorm classes to fold. The result always uses their moving statistics, so for training, pass
            only classes that do so anyway.
        by_winograd: compute 3x3 convolutions by `mrcnn.fusion.winograd` where it is faster, and pad inside the layers
            that need it, so that the backward pass keeps no padded copies; not for graphs to export.

    Returns:
        A model that shares every layer with `model`. Each BatchNorm that is the only consumer of a convolution is
        folded into it, and each transposed convolution without overlap becomes a 1x1 convolution.
    """
    model = functional(model)
    pairs = _pairs(model, norms)
    padded = _padded(model, set(pairs.values())) if by_winograd else {}
    borders = {layer: as_border(padding.padding) for layer, padding in padded.items()}
    skipped = {*pairs, *padded.values()}
    new: dict[keras.layers.Layer, keras.layers.Layer] = {
        before: FoldedConvolution(
            before, norm, by_winograd=by_winograd, border=borders.get(before, NO_BORDER), name=f"{before.name}_folded"
        )
        for norm, before in pairs.items()
    }
    pixels = {}
    for layer in model.layers:
        if layer in borders and layer not in new:
            options = {"dtype": layer.dtype_policy, "name": f"{layer.name}_padded"}
            new[layer] = PaddedMaxPooling(layer.pool_size, layer.strides, borders[layer], **options)
        elif _is_without_overlap(layer):
            new[layer] = TransposeAsPointwise(layer, name=f"{layer.name}_pointwise")
            pixels[new[layer]] = DepthToSpace(*layer.strides, name=f"{new[layer].name}_pixels")
        elif by_winograd and layer not in new and winograd.gains(layer):
            new[layer] = WinogradConvolution(layer, by_winograd=True, name=f"{layer.name}_winograd")

    def call(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        if layer in pixels:
            return pixels[layer](layer(*args, **kwargs))
        return args[0] if layer in skipped else layer(*args, **kwargs)

    return keras.models.clone_model(model, clone_function=lambda layer: new.get(layer, layer), call_function=call)


def _pairs(model: keras.Model, kinds: tuple[type, ...]) -> dict[keras.layers.Layer, keras.layers.Layer]:
    """The BatchNorm layers of exactly these classes that can be folded, mapped to their convolutions."""
    calls, uses = _calls_and_uses(model)
    found = {}
    for node in nodes_of(model):
        norm = node.operation
        if type(norm) in kinds and norm.axis in (-1, 3) and calls[norm] == 1:
            before = node_of(node.input_tensors[0]).operation
            if _is_plain(before) and calls[before] == 1 and uses[id(node.input_tensors[0])] == 1:
                found[norm] = before
    return found


def _padded(model: keras.Model, convolutions: set[keras.layers.Layer]) -> dict[keras.layers.Layer, keras.layers.Layer]:
    """Those of the convolutions, and the max-pooling layers, that alone see a `ZeroPadding2D`, mapped to it."""
    calls, uses = _calls_and_uses(model)
    found = {}
    for node in nodes_of(model):
        layer = node.operation
        pools = type(layer) is keras.layers.MaxPooling2D and layer.data_format == "channels_last"
        if (pools or layer in convolutions) and layer.padding == "valid" and calls[layer] == 1:
            before = node_of(node.input_tensors[0]).operation
            if type(before) is keras.layers.ZeroPadding2D and before.data_format == "channels_last":
                if calls[before] == 1 and uses[id(node.input_tensors[0])] == 1:
                    found[layer] = before
    return found


def _calls_and_uses(model: keras.Model) -> tuple[Counter, Counter]:
    """How often each layer is called, and how often each tensor (by `id`) is used."""
    calls = Counter(node.operation for node in nodes_of(model))
    uses = Counter(id(tensor) for node in nodes_of(model) for tensor in node.input_tensors)
    uses.update(id(tensor) for tensor in model.outputs)
    return calls, uses


def _is_plain(layer: keras.layers.Layer) -> bool:
    return (
        type(layer) in (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
        and layer.data_format == "channels_last"
        and layer.activation is keras.activations.linear
    )


def _is_without_overlap(layer: keras.layers.Layer) -> bool:
    return (
        type(layer) is keras.layers.Conv2DTranspose
        and layer.kernel_size == layer.strides
        and layer.activation in (keras.activations.linear, keras.activations.relu)
        and layer.output_padding is None
        and layer.data_format == "channels_last"
    )

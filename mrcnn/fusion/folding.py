"""The same functions in fewer and faster operations: BatchNorm in its convolution, transposed convolutions as 1x1 ones.

Keras computes BatchNorm as plain arithmetic, two passes over a feature map each way; in bfloat16 they take as long as
the convolutions. With fixed statistics it is linear, and so is the convolution: one kernel and one bias do for both.

Bias and ReLU of a transposed convolution are passes of their own as well. Where its stride is its kernel's size, each
output has one input: a 1x1 convolution whose channels are then laid out as pixels, and which TensorFlow fuses.
"""

from collections import Counter
from typing import Any

import keras
from keras import ops

from mrcnn.fusion.convolution import Kind, convolve
from mrcnn.fusion.shared_weights import Sharing, build_unbuilt
from mrcnn.fusion.winograd import gains_by_winograd
from mrcnn.layers.static_output import Declared
from mrcnn.network.feature_taps import nodes_of
from mrcnn.network.frozen_batch_norm import FrozenBatchNormalization


def functional(model: keras.Model) -> keras.Model:
    """The model itself, or the layers of a `keras.Sequential` as a functional one."""
    return (
        keras.Model(model.inputs[0], model.outputs[0], name=model.name)
        if isinstance(model, keras.Sequential)
        else model
    )


class _ByConvolve(Sharing, Declared):
    """A layer that stands for a convolution, of the same outputs, by `mrcnn.fusion.convolution.convolve`."""

    shared = ("convolution",)

    def build(self, input_shape: Any) -> None:
        build_unbuilt(self.convolution, input_shape)
        self.supports_jit = not gains_by_winograd(self.convolution)

    def declared_outputs(self, inputs: Any) -> Any:
        return self.convolution.compute_output_spec(inputs)


@keras.saving.register_keras_serializable("mrcnn")
class FoldedConvolution(_ByConvolve):
    """A convolution and the BatchNorm after it as one convolution, with the weights of both layers.

    The kernel is scaled at each call and in float32, so that what trains, loads or is set in either layer counts at
    once, and gradients reach the convolution's own kernel.

    Args:
        convolution: `Conv2D` or `DepthwiseConv2D` without activation, channels last; built.
        norm: `BatchNormalization` over its channels; built. Its moving statistics are used, in training too.

    call: [B, H, W, c] -> [B, H', W', filters] in the convolution's compute dtype.
    """

    shared = ("convolution", "norm")

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        build_unbuilt(self.norm, self.convolution.compute_output_shape(input_shape))

    def call(self, inputs: Any) -> Any:
        convolution, dtype = self.convolution, self.convolution.compute_dtype
        inputs = ops.cast(inputs, dtype)
        padding = "same" if convolution.kernel_size == (1, 1) else convolution.padding
        strides, dilations = convolution.strides, convolution.dilation_rate
        scale, bias = self._scale_and_bias()
        if keras.backend.backend() == "tensorflow" and not self._is_grouped():
            return convolve(
                inputs,
                convolution.kernel,
                scale,
                bias,
                Kind(
                    tuple(convolution.kernel.shape),
                    dtype,
                    strides,
                    padding.upper(),
                    dilations,
                    winograd=gains_by_winograd(convolution),
                ),
            )
        # A depthwise kernel [h, w, channels, multiplier] has its outputs in the order of its last two axes
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
        """What the norm multiplies the convolution's kernel with, and what the two add; float32."""
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
class WinogradConvolution(_ByConvolve):
    """A `Conv2D` that `gains_by_winograd`, computed so; with the weights of that layer. Elsewhere it is that layer.

    call: [B, H, W, c] -> [B, H, W, filters] in the layer's compute dtype.
    """

    def call(self, inputs: Any) -> Any:
        layer = self.convolution
        inputs = ops.cast(inputs, layer.compute_dtype)
        if not gains_by_winograd(layer):
            return layer(inputs)
        filters = layer.kernel.shape[-1:]
        bias = ops.zeros(filters) if layer.bias is None else layer.bias
        return convolve(
            inputs,
            layer.kernel,
            ops.ones(filters),
            bias,
            Kind(
                tuple(layer.kernel.shape),
                layer.compute_dtype,
                relu=layer.activation is keras.activations.relu,
                winograd=True,
            ),
        )


@keras.saving.register_keras_serializable("mrcnn")
class TransposeAsPointwise(Sharing):
    """A `Conv2DTranspose` whose stride is its kernel's size, as a 1x1 convolution; with the weights of that layer.

    call: [B, H, W, c] -> [B, H, W, s * s * filters] in the layer's compute dtype; `SpreadPixels` comes after it.
    """

    shared = ("transpose",)

    def build(self, input_shape: Any) -> None:
        build_unbuilt(self.transpose, input_shape)

    def call(self, inputs: Any) -> Any:
        layer, dtype = self.transpose, self.transpose.compute_dtype
        rows, columns, _, channels = layer.kernel.shape
        kernel = ops.transpose(ops.reshape(ops.cast(layer.kernel, dtype), (-1, channels)))
        outputs = ops.conv(ops.cast(inputs, dtype), kernel[None, None], padding="same", data_format="channels_last")
        if layer.bias is not None:
            bias = ops.tile(ops.cast(layer.bias, dtype), (rows * columns,))
            outputs = ops.add(outputs, ops.reshape(bias, (1, 1, 1, -1)))
        return layer.activation(outputs)


@keras.saving.register_keras_serializable("mrcnn")
class SpreadPixels(keras.layers.Layer):
    """call: [B, H, W, rows * columns * c] -> [B, rows * H, columns * W, c]: channels laid out as pixels."""

    def __init__(self, rows: int, columns: int, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.rows, self.columns = rows, columns

    def call(self, inputs: Any) -> Any:
        return spread(inputs, self.rows, self.columns)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rows": self.rows, "columns": self.columns}


def spread(inputs: Any, rows: int, columns: int) -> Any:
    """What `SpreadPixels` does."""
    _, height, width = ops.shape(inputs)[:3]
    channels = inputs.shape[-1] // (rows * columns)
    outputs = ops.transpose(ops.reshape(inputs, (-1, height, width, rows, columns, channels)), (0, 1, 3, 2, 4, 5))
    return ops.reshape(outputs, (-1, height * rows, width * columns, channels))


def fold(model: keras.Model, *, training: bool) -> keras.Model:
    """The same function with the same weights in operations that cost less.

    Args:
        model: a functional or sequential model, possibly with models inside, which stay as they are.
        training: fold only what a training step may not change: frozen BatchNorm. Otherwise all of it, and the result
            is for inference.

    Returns:
        A model that shares every layer with `model`: each BatchNorm that alone follows a convolution folded into it,
        each transposed convolution without overlap as a 1x1 convolution, and `mrcnn.fusion.winograd` where it gains.
    """
    model = functional(model)
    kinds = (FrozenBatchNormalization,) if training else (FrozenBatchNormalization, keras.layers.BatchNormalization)
    pairs = _pairs(model, kinds)
    new = {before: FoldedConvolution(before, norm, name=f"{before.name}_folded") for norm, before in pairs.items()}
    new |= {
        layer: TransposeAsPointwise(layer, name=f"{layer.name}_pointwise")
        for layer in model.layers
        if _is_without_overlap(layer)
    }
    new |= {
        layer: WinogradConvolution(layer, name=f"{layer.name}_winograd")
        for layer in model.layers
        if layer not in new and gains_by_winograd(layer)
    }
    pixels = {
        layer: SpreadPixels(*layer.transpose.strides, name=f"{layer.name}_pixels")
        for layer in new.values()
        if isinstance(layer, TransposeAsPointwise)
    }

    def call(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        if layer in pixels:
            return pixels[layer](layer(*args, **kwargs))
        return args[0] if layer in pairs else layer(*args, **kwargs)

    return keras.models.clone_model(model, clone_function=lambda layer: new.get(layer, layer), call_function=call)


def _pairs(model: keras.Model, kinds: tuple[type, ...]) -> dict[keras.layers.Layer, keras.layers.Layer]:
    """The BatchNorm layers of exactly these kinds that can be folded, each with its convolution."""
    calls = Counter(node.operation for node in nodes_of(model))
    uses = Counter(id(tensor) for node in nodes_of(model) for tensor in node.input_tensors)
    uses.update(id(tensor) for tensor in model.outputs)
    found = {}
    for node in nodes_of(model):
        norm = node.operation
        if type(norm) in kinds and norm.axis in (-1, 3) and calls[norm] == 1:
            before = node.input_tensors[0]._keras_history.operation
            if _is_plain(before) and calls[before] == 1 and uses[id(node.input_tensors[0])] == 1:
                found[norm] = before
    return found


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

"""The mask of each RoI's own class, from one channel of a head's last convolution instead of one per class."""

from collections.abc import Callable
from typing import Any, ClassVar

import keras
from keras import ops

from mrcnn.fusion.channel_gradient import attached
from mrcnn.fusion.folding import DepthToSpace, TransposeAsPointwise, depth_to_space, functional
from mrcnn.fusion.shared_weights import SharedWeightsLayer, build_unbuilt
from mrcnn.layers.static_output import StaticOutputLayer, spec
from mrcnn.ops.keras_internals import node_of


def class_masks(mask_head: keras.Model, *, training: bool = False) -> Callable[[Any, Any], Any]:
    """The function (features [R, h, w, C], class_ids [R]) -> masks [R, m, m] float32 of each RoI's own class.

    Nearly every head ends in a 1x1 convolution with a sigmoid: the head is run up to it, and one channel of it is
    computed with its weights. Any other head is run completely, and the channel is selected. With `training`, the
    backward pass of a transposed convolution before it needs less memory.
    """
    mask_head = functional(mask_head)
    last = node_of(mask_head.output)
    if _is_pointwise(last.operation) and mask_head.output_shape[-1] > 1:
        x, pixels = last.input_tensors[0], (1, 1)
        before = node_of(x)
        if isinstance(before.operation, DepthToSpace):  # rearrange one channel instead of all its input channels
            x, pixels = before.input_tensors[0], (before.operation.rows, before.operation.columns)
        channel, above = ClassChannel(last.operation, pixels=pixels, name="masks"), node_of(x)
        if training and isinstance(above.operation, TransposeAsPointwise) and above.operation.is_relu():
            x = above.input_tensors[0]
            channel = UpsampledClassChannel(last.operation, above.operation, pixels=pixels, name="masks")
        trunk = keras.Model(mask_head.input, x, name=f"{mask_head.name}_features")
        return lambda features, class_ids: channel(trunk(features), class_ids)
    pick = PickClass(name="masks")
    return lambda features, class_ids: pick(mask_head(features), class_ids)


def _is_pointwise(layer: Any) -> bool:
    return (
        type(layer) is keras.layers.Conv2D
        and layer.kernel_size == (1, 1)
        and layer.strides == (1, 1)
        and layer.groups == 1
        and layer.data_format == "channels_last"
        and layer.activation is keras.activations.sigmoid
    )


@keras.saving.register_keras_serializable("mrcnn")
class ClassChannel(SharedWeightsLayer, StaticOutputLayer):
    """One output channel per RoI of a 1x1 convolution with a sigmoid, with the weights of that convolution.

    Args:
        convolution: the layer.
        pixels: (rows, columns) of output pixels in a cell of `x`, whose channels are concatenated pixel by pixel.

    call: (x [R, h, w, rows * columns * C], class_ids [R] int) -> [R, rows * h, columns * w] float32 probabilities.
        Products are computed in `x`'s type; sums, bias and sigmoid in float32.
    """

    shared: ClassVar[tuple[str, ...]] = ("convolution",)

    def __init__(self, *layers: keras.layers.Layer, pixels: tuple[int, int] = (1, 1), **kwargs: Any) -> None:
        super().__init__(*layers, **kwargs)
        self.pixels = tuple(pixels)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "pixels": self.pixels}

    def build(self, x_shape: Any, class_ids_shape: Any = None) -> None:
        rows, columns = self.pixels
        build_unbuilt(self.convolution, (*x_shape[:-1], x_shape[-1] // (rows * columns)))

    def static_outputs(self, x: Any, class_ids: Any) -> Any:
        count, height, width = x.shape[:3]
        return spec(count, height * self.pixels[0], width * self.pixels[1])

    def call(self, x: Any, class_ids: Any) -> Any:
        own = self._own(class_ids)
        return self._masks(self._logits(x, self._kernels(own)), own, x.shape[1:3])

    def _own(self, class_ids: Any) -> Any:
        # A product with a one-hot matrix instead of indexing, whose gradient is sparse
        return ops.one_hot(class_ids, self.convolution.filters, dtype="float32")

    def _kernels(self, own: Any) -> Any:
        """[R, C], the kernel of each RoI's channel."""
        kernel = self.convolution.kernel
        return ops.matmul(own, ops.transpose(ops.reshape(kernel, (kernel.shape[2], -1))))

    def _logits(self, x: Any, kernels: Any) -> Any:
        """[R, h * w * rows * columns] in `x`'s type, without bias, cell by cell."""
        height, width = x.shape[1:3]
        many, channels = self.pixels[0] * self.pixels[1], kernels.shape[-1]
        rows = ops.reshape(x, (-1, height * width * many, channels))
        return ops.matmul(rows, ops.cast(kernels, x.dtype)[:, :, None])[..., 0]

    def _masks(self, logits: Any, own: Any, size: tuple[int, int]) -> Any:
        logits = ops.cast(ops.reshape(logits, (-1, *size, self.pixels[0] * self.pixels[1])), "float32")
        if self.convolution.bias is not None:
            logits = logits + ops.matmul(own, self.convolution.bias[:, None])[:, :, None, None]
        return ops.sigmoid(depth_to_space(logits, *self.pixels)[..., 0])


@keras.saving.register_keras_serializable("mrcnn")
class UpsampledClassChannel(ClassChannel):
    """`ClassChannel` after a `TransposeAsPointwise` with ReLU, for 1 RoI or more.

    On TensorFlow, in float32, both have the backward pass of `mrcnn.fusion.channel_gradient`.

    Args:
        convolution, pixels: as in `ClassChannel`.
        pointwise: the layer before it.

    call: (features [R, h, w, C], class_ids [R] int) -> as `ClassChannel`.
    """

    shared = ("convolution", "pointwise")

    def build(self, features_shape: Any, class_ids_shape: Any = None) -> None:
        build_unbuilt(self.pointwise, features_shape)
        super().build((*features_shape[:-1], self.pointwise.kernel_and_bias()[0].shape[1]))
        self.supports_jit = keras.backend.backend() != "tensorflow"

    def call(self, features: Any, class_ids: Any) -> Any:
        x, own = self.pointwise(features), self._own(class_ids)
        kernels = self._kernels(own)
        logits = self._logits(x, kernels)
        if self.pointwise.transpose.compute_dtype == "float32" and keras.backend.backend() == "tensorflow":
            kernel, bias = self.pointwise.kernel_and_bias()
            # Those of a network in bfloat16, whose last layers a head keeps in float32
            features = ops.cast(features, "float32")
            logits = attached(logits, x, features, kernel, bias, kernels)
        return self._masks(logits, own, x.shape[1:3])


@keras.saving.register_keras_serializable("mrcnn")
class PickClass(keras.layers.Layer):
    """call: (masks [R, m, m, classes or 1], class_ids [R] int) -> [R, m, m] float32, the mask of each RoI's own class;
    a single channel stands for every class."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})

    def call(self, masks: Any, class_ids: Any) -> Any:
        if masks.shape[-1] == 1:
            return masks[..., 0]
        own = ops.one_hot(class_ids, masks.shape[-1], dtype="float32")
        return ops.sum(masks * own[:, None, None, :], axis=-1)

"""The mask of each RoI's own class, from one channel of a head's last convolution instead of one per class."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from mrcnn.fusion.folding import DepthToSpace, depth_to_space, functional
from mrcnn.fusion.shared_weights import SharedWeightsLayer, build_unbuilt
from mrcnn.ops.keras_internals import node_of


def class_masks(mask_head: keras.Model) -> Callable[[Any, Any], Any]:
    """The function (features [R, h, w, C], class_ids [R]) -> masks [R, m, m] float32 of each RoI's own class.

    Nearly every head ends in a 1x1 convolution with a sigmoid: the head is run up to it, and one channel of it is
    computed with its weights. Any other head is run completely, and the channel is selected.
    """
    mask_head = functional(mask_head)
    last = node_of(mask_head.output)
    if _is_pointwise(last.operation) and mask_head.output_shape[-1] > 1:
        x, pixels = last.input_tensors[0], (1, 1)
        before = node_of(x)
        if isinstance(before.operation, DepthToSpace):  # rearrange one channel instead of all its input channels
            x, pixels = before.input_tensors[0], (before.operation.rows, before.operation.columns)
        trunk = keras.Model(mask_head.input, x, name=f"{mask_head.name}_features")
        channel = ClassChannel(last.operation, pixels, name="masks")
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
class ClassChannel(SharedWeightsLayer):
    """One output channel per RoI of a 1x1 convolution with a sigmoid, with the weights of that convolution.

    Args:
        convolution: the layer.
        pixels: (rows, columns) of output pixels in a cell of `x`, whose channels are concatenated pixel by pixel.

    call: (x [R, h, w, rows * columns * C], class_ids [R] int) -> [R, rows * h, columns * w] float32 probabilities.
        Products are computed in `x`'s type; sums, bias and sigmoid in float32.
    """

    shared = ("convolution",)

    def __init__(self, convolution: keras.layers.Conv2D, pixels: tuple[int, int] = (1, 1), **kwargs: Any) -> None:
        super().__init__(convolution, **kwargs)
        self.pixels = tuple(pixels)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "pixels": self.pixels}

    def build(self, x_shape: Any, class_ids_shape: Any = None) -> None:
        rows, columns = self.pixels
        build_unbuilt(self.convolution, (*x_shape[:-1], x_shape[-1] // (rows * columns)))

    def call(self, x: Any, class_ids: Any) -> Any:
        height, width = x.shape[1:3]
        channels, many = self.convolution.kernel.shape[2], self.pixels[0] * self.pixels[1]
        # A product with a one-hot matrix instead of indexing, whose gradient is sparse
        own = ops.one_hot(class_ids, self.convolution.filters, dtype="float32")
        kernel = ops.matmul(own, ops.transpose(ops.reshape(self.convolution.kernel, (channels, -1))))
        logits = ops.matmul(
            ops.reshape(x, (-1, height * width * many, channels)), ops.cast(kernel, x.dtype)[:, :, None]
        )
        logits = ops.cast(ops.reshape(logits, (-1, height, width, many)), "float32")
        if self.convolution.bias is not None:
            logits = logits + ops.matmul(own, self.convolution.bias[:, None])[:, :, None, None]
        return ops.sigmoid(depth_to_space(logits, *self.pixels)[..., 0])


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

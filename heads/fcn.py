"""The mask head of the Mask R-CNN paper: a small fully convolutional network."""

import math

import keras
from keras import layers

from heads.protocol.check import check_counts
from heads.protocol.head import SoftmaxHead
from heads.protocol.masks import mask_model
from heads.registry import register

NORMALIZATIONS = (None, "batch", "group")


@register("fcn")
def fcn(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    filters: int = 256,
    convolutions: int = 4,
    normalization: str | None = None,
    activation: str = "sigmoid",
    class_agnostic: bool = False,
) -> keras.Model | SoftmaxHead:
    """Four 3x3 convolutions, one transposed convolution that doubles the size, one 1x1 convolution, sigmoid.

    He et al. 2017, figure 4 (right) and section 3.1; its hidden layers are initialized as in Detectron2's head.

    Cost at 80 classes: 2.6 million parameters, 0.53 G multiply-adds per RoI. The one to begin with: every other head is
    compared with it, and weights of all programs fit it.

    Args:
        input_shape: (h, w, C) of one RoI's features.
        num_classes: mask channels, background included.
        filters: channels of every hidden convolution.
        convolutions: how many 3x3 convolutions stand before the transposed one.
        normalization: None, "batch" or "group", between each 3x3 convolution and its ReLU.
        activation, class_agnostic: of the masks; see `heads.protocol.masks.mask_model`.

    Returns:
        Model [R, h, w, C] -> [R, 2h, 2w, num_classes] float32 probabilities; of one channel if class-agnostic.

    Raises:
        ValueError: for another normalization or activation, or impossible numbers.
    """
    if normalization not in NORMALIZATIONS:
        raise ValueError(f"normalization of the fcn head is one of {NORMALIZATIONS}, received {normalization!r}")
    check_counts("fcn", filters=(filters, 1), convolutions=(convolutions, 0))
    features = x = keras.Input(input_shape, name="features")
    for i in range(1, convolutions + 1):
        x = layers.Conv2D(
            filters, 3, padding="same", use_bias=normalization is None, kernel_initializer="he_normal", name=f"conv{i}"
        )(x)
        if normalization is not None:
            x = _normalization(normalization, filters, f"norm{i}")(x)
        x = layers.ReLU(name=f"relu{i}")(x)
    x = layers.Conv2DTranspose(filters, 2, strides=2, activation="relu", kernel_initializer="he_normal", name="deconv")(
        x
    )
    return mask_model(features, x, num_classes, activation=activation, class_agnostic=class_agnostic)


def _normalization(kind: str, filters: int, name: str) -> layers.Layer:
    if kind == "batch":
        return layers.BatchNormalization(momentum=0.9, name=name)
    # 32 groups as in Wu & He 2018, fewer where 32 does not divide the channels.
    return layers.GroupNormalization(groups=math.gcd(32, filters), epsilon=1e-5, name=name)

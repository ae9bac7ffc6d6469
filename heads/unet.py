"""A modified shallow U-Net as a mask head: it also sees the RoI at half its size, and has no transposed convolution."""

from typing import Any

import keras
from keras import layers

from heads.registry import register


@register("unet")
def unet(input_shape: tuple[int, int, int], num_classes: int, *, filters: int = 256) -> keras.Model:
    """An encoder, a bottom at half the size, and two decoders, the first with a skip connection.

    Upsampling by repetition and a convolution, rather than a transposed convolution, leaves no checkerboard artefacts
    (Odena et al. 2016). Every 3x3 convolution is followed by ReLU and then BatchNorm, as in the U-Net that it varies
    (Ronneberger et al. 2015, without BatchNorm). 6,521,041 parameters for (14, 14, 256) and 81 classes.

    Args:
        input_shape: (h, w, C) of one RoI's features, h and w even.
        num_classes: mask channels, background included.
        filters: channels of most convolutions; the widest has twice, the narrowest half as many.

    Returns:
        Model [R, h, w, C] -> [R, 2h, 2w, num_classes] float32 probabilities.

    Raises:
        ValueError: if h or w is odd: the skip would not fit what is upsampled.
    """
    if input_shape[0] % 2 or input_shape[1] % 2:
        raise ValueError(f"the unet head halves its features: their sides must be even, received {input_shape!r}")
    features = keras.Input(input_shape, name="features")
    x = _block(features, filters, "encoder_1")
    skip = _block(x, filters, "encoder_2")

    x = layers.MaxPooling2D(2, name="pool")(skip)
    x = _block(x, filters, "bottom_1")
    x = _block(x, 2 * filters, "bottom_2")
    x = _block(x, filters, "bottom_3")

    x = layers.UpSampling2D(2, name="up_1")(x)
    x = layers.Concatenate(name="skip")([x, skip])
    x = _block(x, filters, "decoder_1")
    x = _block(x, filters // 2, "decoder_2")

    x = layers.UpSampling2D(2, name="up_2")(x)
    x = _block(x, filters, "decoder_3")
    x = _block(x, filters, "decoder_4")
    # float32 whatever the policy. Keras's own initial values: Detectron2's deviation of 0.001 costs a short training
    # its first epochs.
    masks = layers.Conv2D(num_classes, 1, activation="sigmoid", dtype="float32", name="masks")(x)
    return keras.Model(features, masks, name="mask_head")


def _block(x: Any, filters: int, name: str) -> Any:
    x = layers.Conv2D(
        filters, 3, padding="same", activation="relu", kernel_initializer="he_normal", name=f"{name}_conv"
    )(x)
    return layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(x)

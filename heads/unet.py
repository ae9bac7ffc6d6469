"""A modified shallow U-Net as a mask head: it also sees the RoI at half its size, and has no transposed convolution."""

from typing import Any

import keras
from keras import layers

from heads.protocol.check import check_counts
from heads.protocol.head import SoftmaxHead
from heads.protocol.masks import mask_model
from heads.registry import register


@register("unet")
def unet(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    filters: int = 256,
    levels: int = 1,
    activation: str = "sigmoid",
    class_agnostic: bool = False,
) -> keras.Model | SoftmaxHead:
    """An encoder, a bottom at half the size, and two decoders, the first with a skip connection.

    Upsampling by repetition and a convolution, rather than a transposed convolution, leaves no checkerboard artifacts
    (Odena et al. 2016). Every 3x3 convolution is followed by ReLU and then BatchNorm, as in the U-Net that it varies
    (Ronneberger et al. 2015, without BatchNorm).

    Cost at 80 classes: 6.5 million parameters (6,521,041 for (14, 14, 256) and 81 channels), 1.4 G multiply-adds per
    RoI, against 0.53 G of `fcn`. Use it where shapes are large and simple, as its bottom sees the RoI at half its size.
    With `levels=2` it halves twice and suits features of 28x28 (MASK_POOL_SIZE = 28), for masks of 56x56; that has 8.9
    million parameters and costs 5.4 G.

    Args:
        input_shape: (h, w, C) of one RoI's features, h and w even; multiples of 4 for two levels.
        num_classes: mask channels, background included.
        filters: channels of most convolutions; the widest has twice, the narrowest half as many.
        levels: how often the features are halved; each level has two convolutions before and two after the bottom.
        activation, class_agnostic: of the masks; see `heads.protocol.masks.mask_model`.

    Returns:
        Model [R, h, w, C] -> [R, 2h, 2w, num_classes] float32 probabilities; of one channel if class-agnostic.

    Raises:
        ValueError: if h or w cannot be halved so often: the skip would not fit what is upsampled.
    """
    check_counts("unet", filters=(filters, 2), levels=(levels, 1))
    if input_shape[0] % 2**levels or input_shape[1] % 2**levels:
        raise ValueError(
            f"the unet head halves its features {levels} times (levels): their sides must be "
            f"{'even' if levels == 1 else f'multiples of {2**levels}'}, received {input_shape!r}"
        )
    features = x = keras.Input(input_shape, name="features")
    endings = ["", *(f"_level_{level}" for level in range(2, levels + 1))]
    skips = []
    for ending in endings:
        x = _block(x, filters, f"encoder_1{ending}")
        skips.append(_block(x, filters, f"encoder_2{ending}"))
        x = layers.MaxPooling2D(2, name=f"pool{ending}")(skips[-1])
    x = _block(x, filters, "bottom_1")
    x = _block(x, 2 * filters, "bottom_2")
    x = _block(x, filters, "bottom_3")
    for ending in reversed(endings):
        x = layers.UpSampling2D(2, name=f"up_1{ending}")(x)
        x = layers.Concatenate(name=f"skip{ending}")([x, skips.pop()])
        x = _block(x, filters, f"decoder_1{ending}")
        x = _block(x, filters // 2, f"decoder_2{ending}")
    x = layers.UpSampling2D(2, name="up_2")(x)
    x = _block(x, filters, "decoder_3")
    x = _block(x, filters, "decoder_4")
    return mask_model(features, x, num_classes, activation=activation, class_agnostic=class_agnostic)


def _block(x: Any, filters: int, name: str) -> Any:
    x = layers.Conv2D(
        filters, 3, padding="same", activation="relu", kernel_initializer="he_normal", name=f"{name}_conv"
    )(x)
    return layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(x)

"""ResNet trunks (He et al. 2016) under the layer names of Caffe's and the old package's weights."""

import re

import keras
from keras import layers

# Blocks in stages 2 to 5.
BLOCKS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3)}
STEM_PADDINGS = ("torch", "same")

# torchvision's and Detectron2's; importers shift the moving variance of weights made with another.
EPSILON = 1e-5
# kaiming_normal(mode="fan_out"), as torchvision.
INITIALIZER = {
    "class_name": "VarianceScaling",
    "config": {"scale": 2.0, "mode": "fan_out", "distribution": "untruncated_normal"},
}


def resnet(
    name: str,
    *,
    channels: int = 3,
    stride_in_1x1: bool = False,
    stem_padding: str = "torch",
    width: int = 64,
    groups: int = 1,
    group_width: int = 64,
) -> keras.Model:
    """Builds a ResNet without its classifier.

    Args:
        name: one of "resnet50", "resnet101", "resnet152".
        channels: of the input.
        stride_in_1x1: a stage's first block halves the size in its first 1x1 convolution (matterport, Detectron2's
            R50 and R101) instead of its 3x3 (torchvision).
        stem_padding: of the stem's 3x3 max-pool of stride 2: "torch" pads by one on both sides, "same" (matterport)
            below and right only, for even sizes.
        width: channels of the stem; 64 in the paper. Smaller ones make small trunks for tests and trials.
        groups, group_width: of the 3x3 convolutions, whose channels are groups * group_width * width / 64 in stage 2.
            32 and 8 make ResNeXt 32x8d (Xie et al. 2017).

    Returns:
        Model [B, H, W, channels] -> [C2, C3, C4, C5], each [B, H / s, W / s, c] at strides s = 4, 8, 16, 32, with
        4, 8, 16, 32 times `width` channels. H and W are multiples of 32.

    Raises:
        ValueError: for another name or stem padding.
    """
    if name not in BLOCKS:
        raise ValueError(f"unknown ResNet {name!r}; the known ones are {sorted(BLOCKS)}")
    if stem_padding not in STEM_PADDINGS:
        raise ValueError(f"stem_padding is one of {STEM_PADDINGS}, received {stem_padding!r}")
    image = keras.Input((None, None, channels), name="image")
    x = _stem(image, width, stem_padding)
    taps = []
    for stage, blocks in enumerate(BLOCKS[name], start=2):
        filters, inner = width * 2 ** (stage - 2), groups * group_width * width // 64 * 2 ** (stage - 2)
        for block in range(blocks):
            stride = 2 if block == 0 and stage > 2 else 1
            x = _bottleneck(
                x,
                inner,
                4 * filters,
                f"{stage}{block_letters(block)}",
                stride=stride,
                shortcut=block == 0,
                stride_in_1x1=stride_in_1x1,
                groups=groups,
            )
        taps.append(x)
    return keras.Model(image, taps, name=name)


def block_letters(block: int) -> str:
    """Name of a stage's block, counted from 0: a, b, ..., z, aa, ab, ... (ResNet-152 has 36 blocks in stage 4)."""
    letters = chr(ord("a") + block % 26)
    return letters if block < 26 else block_letters(block // 26 - 1) + letters


def stage_of(layer_name: str) -> int:
    """Stage (1 to 5) of a layer of a ResNet by its name."""
    match = re.match(r"(?:res|bn)(\d)", layer_name)
    return int(match[1]) if match else 1


def _stem(x, width: int, padding: str):
    x = layers.ZeroPadding2D(3, name="conv1_pad")(x)
    x = _convolution(x, width, 7, "conv1", stride=2)
    x = _batch_norm(x, "bn_conv1")
    x = layers.ReLU(name="conv1_relu")(x)
    if padding == "same":
        return layers.MaxPooling2D(3, strides=2, padding="same", name="res2_pool")(x)
    # Zeros are as good as minus infinity after a ReLU.
    x = layers.ZeroPadding2D(1, name="res2_pool_pad")(x)
    return layers.MaxPooling2D(3, strides=2, name="res2_pool")(x)


def _bottleneck(
    x, inner: int, filters: int, block: str, *, stride: int, shortcut: bool, stride_in_1x1: bool, groups: int
):
    first, second = (stride, 1) if stride_in_1x1 else (1, stride)
    y = _convolution(x, inner, 1, f"res{block}_branch2a", stride=first)
    y = layers.ReLU(name=f"res{block}_branch2a_relu")(_batch_norm(y, f"bn{block}_branch2a"))
    y = _padded_3x3(y, inner, f"res{block}_branch2b", stride=second, groups=groups)
    y = layers.ReLU(name=f"res{block}_branch2b_relu")(_batch_norm(y, f"bn{block}_branch2b"))
    y = _convolution(y, filters, 1, f"res{block}_branch2c")
    y = _batch_norm(y, f"bn{block}_branch2c")
    if shortcut:
        x = _convolution(x, filters, 1, f"res{block}_branch1", stride=stride)
        x = _batch_norm(x, f"bn{block}_branch1")
    y = layers.Add(name=f"res{block}_sum")([y, x])
    return layers.ReLU(name=f"res{block}_out")(y)


def _padded_3x3(x, filters: int, name: str, *, stride: int, groups: int):
    """3x3 with one row of padding on every side: at stride 2, "same" would pad below and right only."""
    if stride == 1:
        return _convolution(x, filters, 3, name, padding="same", groups=groups)
    x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
    return _convolution(x, filters, 3, name, stride=stride, groups=groups)


def _convolution(x, filters: int, size: int, name: str, *, stride: int = 1, padding: str = "valid", groups: int = 1):
    return layers.Conv2D(
        filters,
        size,
        strides=stride,
        padding=padding,
        use_bias=False,
        groups=groups,
        kernel_initializer=INITIALIZER,
        name=name,
    )(x)


def _batch_norm(x, name: str):
    return layers.BatchNormalization(epsilon=EPSILON, name=name)(x)

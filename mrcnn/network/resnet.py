"""ResNet and ResNeXt backbones (He et al. 2016, Xie et al. 2017), with the layer names of Caffe's and the old package's
weights."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers

# Blocks in stages 2 to 5.
DEPTHS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3)}
# ResNeXts: the ResNet with the same blocks, and the groups and their width.
RESNEXTS = {
    "resnext50_32x4d": ("resnet50", 32, 4),
    "resnext101_32x8d": ("resnet101", 32, 8),
    "resnext101_64x4d": ("resnet101", 64, 4),
}
BLOCKS = DEPTHS | {name: DEPTHS[base] for name, (base, *_) in RESNEXTS.items()}
STEM_PADDINGS = ("torch", "same")
LAST = 5  # number of the last stage

# torchvision's and Detectron2's; importers adjust the moving variance of weights made with another epsilon.
EPSILON = 1e-5
# kaiming_normal(mode="fan_out"), as torchvision.
INITIALIZER = {
    "class_name": "VarianceScaling",
    "config": {"scale": 2.0, "mode": "fan_out", "distribution": "untruncated_normal"},
}


@dataclass(frozen=True)
class Blocks:
    """The residual blocks of one network.

    Args:
        stride_in_1x1: a stage's first block halves the size in its first 1x1 convolution (matterport, Detectron2's R50
            and R101) instead of its 3x3 convolution (torchvision).
        width: channels of the stem; 64 in the paper. Smaller values give small trunks for tests and experiments.
        groups, group_width: of the 3x3 convolutions, whose channels are groups * group_width * width / 64 in stage 2.
        norm: the BatchNorm class.
    """

    stride_in_1x1: bool = False
    width: int = 64
    groups: int = 1
    group_width: int = 64
    norm: type[layers.BatchNormalization] = layers.BatchNormalization

    def channels(self, stage: int) -> int:
        """Output channels of a stage, 2 to 5."""
        return 4 * self.width * 2 ** (stage - 2)

    def inner(self, stage: int) -> int:
        """Channels of the 3x3 convolutions of a stage, 2 to 5."""
        return self.groups * self.group_width * self.width // 64 * 2 ** (stage - 2)

    def stage(self, x: Any, stage: int, count: int, *, stride: int, dilation: int = 1) -> Any:
        """A stage of `count` blocks; the first has the stride."""
        inner = self.inner(stage)
        for i in range(count):
            name = f"{stage}{block_letters(i)}"
            x = self._bottleneck(x, inner, self.channels(stage), name, stride=1 if i else stride, dilation=dilation)
        return x

    def _bottleneck(self, x: Any, inner: int, filters: int, block: str, *, stride: int, dilation: int) -> Any:
        first, second = (stride, 1) if self.stride_in_1x1 else (1, stride)
        y = _convolution(x, inner, 1, f"res{block}_branch2a", strides=first)
        y = layers.ReLU(name=f"res{block}_branch2a_relu")(self._norm(y, f"bn{block}_branch2a"))
        y = self._padded_3x3(y, inner, f"res{block}_branch2b", stride=second, dilation=dilation)
        y = layers.ReLU(name=f"res{block}_branch2b_relu")(self._norm(y, f"bn{block}_branch2b"))
        y = self._norm(_convolution(y, filters, 1, f"res{block}_branch2c"), f"bn{block}_branch2c")
        if block.endswith("a") and len(block) == 2:
            x = _convolution(x, filters, 1, f"res{block}_branch1", strides=stride)
            x = self._norm(x, f"bn{block}_branch1")
        return layers.ReLU(name=f"res{block}_out")(layers.Add(name=f"res{block}_sum")([y, x]))

    def _padded_3x3(self, x: Any, filters: int, name: str, *, stride: int, dilation: int) -> Any:
        """3x3 convolution with equal padding on every side: at stride 2, "same" would pad only bottom and right."""
        if stride == 1:
            return _convolution(
                x, filters, 3, name, padding="same", groups=self.groups, dilation_rate=(dilation, dilation)
            )
        x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
        return _convolution(x, filters, 3, name, strides=stride, groups=self.groups)

    def _norm(self, x: Any, name: str) -> Any:
        return self.norm(epsilon=EPSILON, name=name)(x)


def resnet(
    name: str,
    *,
    channels: int = 3,
    stem_padding: str = "torch",
    stages: int = LAST,
    dilated: bool = False,
    **blocks: Any,
) -> keras.Model:
    """Builds a ResNet or ResNeXt without its classifier.

    Args:
        name: one of `BLOCKS`.
        channels: of the input.
        stem_padding: of the stem's 3x3 max-pool of stride 2: "torch" pads by one on both sides, "same" (matterport)
            only bottom and right, for even sizes.
        stages: number of the last stage; 4 omits stage 5.
        dilated: stage 5 keeps stride 16, and its 3x3 convolutions have dilation 2 (Detectron2's DC5).
        blocks: see `Blocks`.

    Returns:
        Model [B, H, W, channels] -> [C2, C3, C4, C5], each [B, H / s, W / s, c] at strides s = 4, 8, 16, 32, with
        4, 8, 16, 32 times `width` channels. H and W are multiples of the last stride.

    Raises:
        ValueError: for another name or stem padding.
    """
    if stem_padding not in STEM_PADDINGS:
        raise ValueError(f"stem_padding must be one of {STEM_PADDINGS}, received {stem_padding!r}")
    build, counts = blocks_of(name, **blocks), BLOCKS[name]
    image = keras.Input((None, None, channels), name="image")
    x = _stem(image, build, stem_padding)
    taps = []
    for stage, count in enumerate(counts[: stages - 1], start=2):
        in_place = dilated and stage == LAST
        stride = 1 if stage == 2 or in_place else 2
        x = build.stage(x, stage, count, stride=stride, dilation=2 if in_place else 1)
        taps.append(x)
    return keras.Model(image, taps, name=name)


def last_stage(name: str, side: int, **blocks: Any) -> keras.Model:
    """Stage 5 alone: Model of RoI features [R, side, side, C4] -> [R, side / 2, side / 2, C5]."""
    build = blocks_of(name, **blocks)
    features = keras.Input((side, side, build.channels(LAST - 1)), name="roi_features")
    return keras.Model(features, build.stage(features, LAST, BLOCKS[name][-1], stride=2), name="last_stage")


def blocks_of(name: str, **blocks: Any) -> Blocks:
    """The blocks of a named network. Raises ValueError for an unknown name or impossible sizes."""
    if name not in BLOCKS:
        raise ValueError(f"unknown ResNet {name!r}; use one of {sorted(BLOCKS)}")
    base, options = plain_resnet(name, {})
    build = Blocks(**{**options, **blocks})
    sizes = {option: getattr(build, option) for option in ("width", "groups", "group_width")}
    for option, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"{option} of {name} must be an integer of 1 or more, got {size!r}")
    inner = build.inner(2)
    if inner == 0 or inner % build.groups:
        raise ValueError(
            f"{name} with {sizes} has 3x3 convolutions of {inner} channels in stage 2 (groups * group_width * width / "
            f"64), which must be a multiple of groups; use a larger width"
        )
    return build


def plain_resnet(name: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A network of `BLOCKS` as a ResNet and its options: "resnext50_32x4d" is resnet50 with 32 groups of width 4."""
    base, groups, group_width = RESNEXTS.get(name, (name, 1, 64))
    return base, {"width": 64, "groups": groups, "group_width": group_width, **options}


def block_letters(block: int) -> str:
    """Name of a stage's block, counted from 0: a, b, ..., z, aa, ab, ... (ResNet-152 has 36 blocks in stage 4)."""
    letters = chr(ord("a") + block % 26)
    return letters if block < 26 else block_letters(block // 26 - 1) + letters


def stage_of(layer_name: str) -> int:
    """Stage (1 to 5) of a ResNet layer, from its name."""
    match = re.match(r"(?:res|bn)(\d)", layer_name)
    return int(match[1]) if match else 1


def _stem(x: Any, build: Blocks, padding: str) -> Any:
    x = layers.ZeroPadding2D(3, name="conv1_pad")(x)
    x = _convolution(x, build.width, 7, "conv1", strides=2)
    x = build.norm(epsilon=EPSILON, name="bn_conv1")(x)
    x = layers.ReLU(name="conv1_relu")(x)
    if padding == "same":
        return layers.MaxPooling2D(3, strides=2, padding="same", name="res2_pool")(x)
    # After a ReLU, zero padding gives the same maximum as padding with minus infinity.
    x = layers.ZeroPadding2D(1, name="res2_pool_pad")(x)
    return layers.MaxPooling2D(3, strides=2, name="res2_pool")(x)


def _convolution(x: Any, filters: int, size: int, name: str, **options: Any) -> Any:
    return layers.Conv2D(filters, size, use_bias=False, kernel_initializer=INITIALIZER, name=name, **options)(x)

"""Weights of the old package, matterport's Mask_RCNN (3deaec5), and of ResNets with the same layer names.

Its h5 files have biases before BatchNorm, BatchNorm inside the heads, a two-way softmax in the RPN and convolutions as
fully connected layers (mrcnn/model.py:95-245, 830-1010 there). All of this is linear and is folded into the weights.
"""

from collections.abc import Callable

import numpy as np

from mrcnn.network.resnet import BLOCKS, block_letters
from mrcnn.presets import Matterport, settings_of
from mrcnn.weights.importers import normalize
from mrcnn.weights.importers.keras_h5 import Layers
from mrcnn.weights.source import Lazy, Source, fcn_head, left_over

EPSILON = 1e-3  # Keras's own
NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def is_matterport(layers: Layers) -> bool:
    """Whether a file has the layers of the old package's model."""
    return "res2a_branch2a" in layers and any(name.startswith("mrcnn_") for name in layers)


def matterport_source(layers: Layers, path: str) -> Source:
    """The contents of the old package's h5 file, for this network.

    Raises:
        ValueError: a trunk other than ResNet-50 or ResNet-101, or a missing layer.
    """
    reader = _Layers(layers, path)
    backbone = resnet_name(layers, path)
    found = reader.trunk(backbone, EPSILON)
    for level in (2, 3, 4, 5):
        found |= reader.plain(f"trunk/fpn_c{level}p{level}", f"fpn_c{level}p{level}")
        found |= reader.plain(f"trunk/fpn_p{level}", f"fpn_p{level}")
    found |= reader.plain("rpn/rpn_conv_shared", "rpn_conv_shared")
    found |= reader.plain("rpn/rpn_class_raw", "rpn_class_raw", normalize.sigmoid_of_softmax)
    found |= reader.plain("rpn/rpn_bbox_pred", "rpn_bbox_pred")
    for i in (1, 2):
        found |= reader.folded(f"box_head/mrcnn_fc{i}", f"mrcnn_class_conv{i}", f"mrcnn_class_bn{i}", _as_dense)
    for name in ("mrcnn_class_logits", "mrcnn_bbox_fc"):
        found |= reader.plain(f"box_head/{name}", name)
    for i in (1, 2, 3, 4):
        found |= reader.folded(f"mask_head/conv{i}", f"mrcnn_mask_conv{i}", f"mrcnn_mask_bn{i}")
    found |= reader.plain("mask_head/deconv", "mrcnn_mask_deconv") | reader.plain("mask_head/masks", "mrcnn_mask")
    width = reader.shape("conv1", "kernel")[3]
    settings = settings_of(Matterport) | {
        "BACKBONE": backbone,
        "BACKBONE_OPTIONS": {} if width == 64 else {"width": width},
        "MASK_HEAD": fcn_head(reader.shape("mrcnn_mask_conv1", "kernel")[3], 4),
        "NUM_CLASSES": reader.shape("mrcnn_class_logits", "kernel")[1],
        "IMAGE_CHANNEL_COUNT": reader.shape("conv1", "kernel")[2],
        "RPN_CHANNELS": reader.shape("rpn_conv_shared", "kernel")[3],
        "TOP_DOWN_PYRAMID_SIZE": reader.shape("fpn_p2", "kernel")[3],
        "FPN_CLASSIF_FC_LAYERS_SIZE": reader.shape("mrcnn_class_conv2", "kernel")[3],
    }
    tensors = {f"{name}/{weight}": tensor for name, weights in layers.items() for weight, tensor in weights.items()}
    return Source("matterport's Mask_RCNN", found, settings, unused=left_over(tensors, reader.used))


def resnet_name(layers: Layers, path: str) -> str:
    """The name of the ResNet with a file's blocks. Raises ValueError if there is none."""
    counts = tuple(sum(f"res{stage}{block_letters(i)}_branch2a" in layers for i in range(40)) for stage in (2, 3, 4, 5))
    for name, blocks in BLOCKS.items():
        if blocks == counts:
            return name
    raise ValueError(f"{path} has a trunk of {counts} blocks; supported are {BLOCKS}")


def resnet_trunk(layers: Layers, path: str, epsilon: float) -> dict[str, Lazy]:
    """The trunk, without pyramid, in a file with the old package's layer names."""
    return _Layers(layers, path).trunk(resnet_name(layers, path), epsilon)


def _as_dense(kernel: np.ndarray) -> np.ndarray:
    """The dense layer that a convolution over its whole input is equivalent to."""
    return kernel.reshape(-1, kernel.shape[-1])


class _Layers:
    """The file's layers as tensors of this network."""

    def __init__(self, layers: Layers, path: str) -> None:
        self.layers, self.path = layers, path
        self.used: set[str] = set()  # "layer/weight" of the tensors used

    def lazy(self, layer: str, weight: str) -> Lazy:
        self.used.add(f"{layer}/{weight}")
        try:
            return self.layers[layer][weight]
        except KeyError:
            raise ValueError(f"{self.path} lacks {layer}/{weight}; is it truncated, or of another model?") from None

    def shape(self, layer: str, weight: str) -> tuple[int, ...]:
        return self.lazy(layer, weight).shape

    def read(self, layer: str, weight: str) -> np.ndarray:
        return self.lazy(layer, weight).read().astype(np.float32, copy=False)

    def use(self, *layers: str) -> None:
        """Marks weights as used that are looked up only when read."""
        self.used |= {f"{layer}/{weight}" for layer in layers for weight in ("bias", *NORM)}

    def norm(self, layer: str) -> normalize.Norm:
        return tuple(self.read(layer, weight) for weight in NORM)

    def bias(self, layer: str) -> np.ndarray | None:
        return self.read(layer, "bias") if "bias" in self.layers.get(layer, ()) else None

    def plain(self, key: str, layer: str, change: Callable | None = None) -> dict[str, Lazy]:
        """A layer's kernel and bias. change: applied to their last axis."""
        change = change or (lambda values: values)

        def part(weight: str) -> Lazy:
            *front, last = self.shape(layer, weight)
            last = change(np.zeros(last, np.float32)).shape[-1]  # one row is enough, and needs little memory
            return Lazy((*front, last), lambda: change(self.read(layer, weight)))

        return {f"{key}/{weight}": part(weight) for weight in ("kernel", "bias")}

    def folded(self, key: str, layer: str, norm: str, layout: Callable | None = None) -> dict[str, Lazy]:
        """Kernel and bias of a layer combined with the norm after it."""
        layout = layout or (lambda kernel: kernel)
        shape = self.shape(layer, "kernel")
        self.use(layer, norm)

        def both() -> tuple[np.ndarray, np.ndarray]:
            return normalize.fold(self.read(layer, "kernel"), self.norm(norm), EPSILON, self.bias(layer))

        flat = layout(np.broadcast_to(np.float32(0), shape)).shape
        return {
            f"{key}/kernel": Lazy(flat, lambda: layout(both()[0])),
            f"{key}/bias": Lazy(shape[-1:], lambda: both()[1]),
        }

    def trunk(self, backbone: str, epsilon: float) -> dict[str, Lazy]:
        names = [("conv1", "bn_conv1")]
        for stage, blocks in enumerate(BLOCKS[backbone], start=2):
            for block in range(blocks):
                branches = ("1", "2a", "2b", "2c") if block == 0 else ("2a", "2b", "2c")
                stem = f"{stage}{block_letters(block)}_branch"
                names += [(f"res{stem}{branch}", f"bn{stem}{branch}") for branch in branches]
        found: dict[str, Lazy] = {}
        for convolution, norm in names:
            found |= self._convolution_and_norm(convolution, norm, epsilon)
        return found

    def _convolution_and_norm(self, convolution: str, norm: str, epsilon: float) -> dict[str, Lazy]:
        def part(i: int) -> Callable[[], np.ndarray]:
            return lambda: normalize.batch_norm(self.norm(norm), epsilon, self.bias(convolution))[i]

        self.use(convolution, norm)
        kernel = Lazy(self.shape(convolution, "kernel"), lambda: self.read(convolution, "kernel"))
        weights = {f"trunk/{norm}/{weight}": Lazy(self.shape(norm, weight), part(i)) for i, weight in enumerate(NORM)}
        return {f"trunk/{convolution}/kernel": kernel} | weights

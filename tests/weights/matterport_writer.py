"""Small weights under the names of matterport's Mask_RCNN, and its h5 files, without its program."""

import h5py
import numpy as np

from mrcnn.network.resnet import BLOCKS, block_letters

NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def shapes(depth="resnet50", classes=4, width=8, pyramid=16, hidden=12, rpn=20, channels=3):
    """Layer -> weight -> shape, all layers of the model (mrcnn/model.py of 3deaec5); classes with background."""
    convolutions = {"conv1": ("bn_conv1", (7, 7, channels, width))}
    inputs = width
    for stage, blocks in enumerate(BLOCKS[depth], start=2):
        middle = width * 2 ** (stage - 2)
        for block in range(blocks):
            parts = {"2a": (1, 1, inputs, middle), "2b": (3, 3, middle, middle), "2c": (1, 1, middle, 4 * middle)}
            parts |= {"1": (1, 1, inputs, 4 * middle)} if block == 0 else {}
            stem = f"{stage}{block_letters(block)}_branch"
            convolutions |= {f"res{stem}{part}": (f"bn{stem}{part}", shape) for part, shape in parts.items()}
            inputs = 4 * middle
    convolutions["mrcnn_class_conv1"] = ("mrcnn_class_bn1", (7, 7, pyramid, hidden))
    convolutions["mrcnn_class_conv2"] = ("mrcnn_class_bn2", (1, 1, hidden, hidden))
    for i in (1, 2, 3, 4):
        convolutions[f"mrcnn_mask_conv{i}"] = (f"mrcnn_mask_bn{i}", (3, 3, pyramid, pyramid))
    found = {}
    for name, (norm, shape) in convolutions.items():
        found |= {name: {"kernel": shape, "bias": shape[-1:]}, norm: dict.fromkeys(NORM, shape[-1:])}
    plain = {
        "rpn_conv_shared": (3, 3, pyramid, rpn),
        "rpn_class_raw": (1, 1, rpn, 6),
        "rpn_bbox_pred": (1, 1, rpn, 12),
        "mrcnn_class_logits": (hidden, classes),
        "mrcnn_bbox_fc": (hidden, 4 * classes),
        "mrcnn_mask": (1, 1, pyramid, classes),
    }
    for level, inputs in zip((2, 3, 4, 5), (4, 8, 16, 32), strict=True):
        plain |= {f"fpn_c{level}p{level}": (1, 1, inputs * width, pyramid), f"fpn_p{level}": (3, 3, pyramid, pyramid)}
    found |= {name: {"kernel": shape, "bias": shape[-1:]} for name, shape in plain.items()}
    return found | {"mrcnn_mask_deconv": {"kernel": (2, 2, pyramid, pyramid), "bias": (pyramid,)}}


def values_of(layers, seed=0):
    """Sane random weights."""
    rng = np.random.default_rng(seed)

    def value(weight, shape):
        if weight in ("gamma", "moving_variance"):
            return rng.uniform(0.4, 0.9, shape) if weight == "gamma" else rng.uniform(0.5, 1.5, shape)
        return rng.standard_normal(shape) * (np.sqrt(1.5 / np.prod(shape[:-1])) if weight == "kernel" else 0.2)

    return {
        layer: {weight: value(weight, shape).astype(np.float32) for weight, shape in weights.items()}
        for layer, weights in layers.items()
    }


def save(path, layers, model=""):
    """Keras 2's layout. model: the nested model that all layers lie in."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in layers]
        for layer, weights in layers.items():
            for weight, value in weights.items():
                file[f"{model or layer}/{layer}/{weight}:0"] = value

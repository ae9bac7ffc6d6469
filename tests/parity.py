"""What tests of importers share: small state dicts under the names of the original programs, and those programs'
arithmetic written anew on their own names and layouts, so that an importer is not compared with itself."""

import re
from pathlib import Path

import keras
import numpy as np

from tests import oracles

ROOT = Path(__file__).resolve().parents[1]

BLOCKS = (3, 4, 6, 3)
WIDTH, PYRAMID, HIDDEN, CLASSES, RATIOS = 8, 16, 12, 5, 3  # CLASSES with background


def oracle_folder():
    """Of the stored oracles; skips the test where they are not."""
    oracles.path("seeded.py")
    return oracles.FOLDER


def failed(rows, more_than=10):
    """Rows that do not keep their bars, as text; and that there were more than so many bars to keep."""
    rows = list(rows)
    assert sum(row.bar is not None for row in rows) > more_than
    return [f"{row.source}, {row.stage}: {row.figure} over {row.bar}" for row in rows if not row.passed]


# Weights


def values_of(shapes, seed=0):
    """Sane random weights by name; names with "norm", "bn" or of shape (n,) beside a running mean are norms."""
    rng, values = np.random.default_rng(seed), {}
    for name, shape in shapes.items():
        stem, _, kind = name.rpartition(".")
        norm = f"{stem}.running_var" in shapes
        if kind == "num_batches_tracked":
            value = np.array(7, np.int64)
        elif kind == "running_var":
            value = rng.uniform(0.5, 1.5, shape)
        elif kind == "weight" and norm:
            value = rng.uniform(0.4, 0.9, shape)
        elif kind in ("bias", "running_mean"):
            value = rng.normal(size=shape) * 0.2
        else:
            value = rng.normal(size=shape) * np.sqrt(1.5 / np.prod(shape[1:]))
        values[name] = value if value.dtype == np.int64 else value.astype(np.float32)
    return values


def norm_shapes(name, channels, tracked=False):
    """Of a torch BatchNorm."""
    shapes = {f"{name}.{kind}": (channels,) for kind in ("weight", "bias", "running_mean", "running_var")}
    return shapes | ({f"{name}.num_batches_tracked": ()} if tracked else {})


def trunk_shapes(names, *, tracked=False, groups=1, inner=None, blocks=BLOCKS):
    """Of a ResNet. names: functions from our numbers to the program's names, see `TORCHVISION` and `DETECTRON2`."""
    convolution, norm = names["convolution"], names["norm"]
    shapes = {f"{convolution(1)}.weight": (WIDTH, 3, 7, 7)} | norm_shapes(norm(1), WIDTH, tracked)
    inputs = WIDTH
    for stage, count in enumerate(blocks, start=2):
        middle, outputs = (inner or WIDTH) * 2 ** (stage - 2), 4 * WIDTH * 2 ** (stage - 2)
        for block in range(count):
            parts = {1: (middle, inputs, 1, 1), 2: (middle, middle // groups, 3, 3), 3: (outputs, middle, 1, 1)}
            if block == 0:
                parts[0] = (outputs, inputs, 1, 1)
            for part, shape in parts.items():
                shapes[f"{convolution(stage, block, part)}.weight"] = shape
                shapes |= norm_shapes(norm(stage, block, part), shape[0], tracked)
            inputs = outputs
    return shapes


def layer_shapes(name, *shape):
    """Of a layer with bias."""
    return {f"{name}.weight": shape, f"{name}.bias": (shape[0],)}


def torchvision_convolution(stage, block=None, part=None):
    if stage == 1:
        return "backbone.body.conv1"
    return f"backbone.body.layer{stage - 1}.{block}." + (f"conv{part}" if part else "downsample.0")


def torchvision_norm(stage, block=None, part=None):
    return re.sub(r"conv(\d)$", r"bn\1", torchvision_convolution(stage, block, part)).replace("ple.0", "ple.1")


def detectron2_convolution(stage, block=None, part=None):
    if stage == 1:
        return "backbone.bottom_up.stem.conv1"
    return f"backbone.bottom_up.res{stage}.{block}." + (f"conv{part}" if part else "shortcut")


TORCHVISION = {"convolution": torchvision_convolution, "norm": torchvision_norm}
DETECTRON2 = {
    "convolution": detectron2_convolution,
    "norm": lambda *numbers: f"{detectron2_convolution(*numbers)}.norm",
}


# Arithmetic of torch, on arrays [B, H, W, C]


class Torch:
    """Layers of a state dict, run by their names there.

    Args:
        state: name to array.
        epsilon: of the trunk's BatchNorm.
    """

    def __init__(self, state, epsilon=1e-5):
        self.state, self.epsilon = state, epsilon

    def convolution(self, x, name, stride=1, groups=1):
        weight = self.state[f"{name}.weight"]
        pad = weight.shape[2] // 2
        x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        each, outputs = x.shape[-1] // groups, weight.shape[0] // groups
        parts = [
            keras.ops.conv(
                x[..., g * each : (g + 1) * each],
                weight[g * outputs : (g + 1) * outputs].transpose(2, 3, 1, 0),
                strides=stride,
            )
            for g in range(groups)
        ]
        return np.concatenate(parts, axis=-1) + self.state.get(f"{name}.bias", 0)

    def norm(self, x, name, epsilon=None):
        gamma, beta, mean, variance = (
            self.state[f"{name}.{kind}"].astype(np.float64)
            for kind in ("weight", "bias", "running_mean", "running_var")
        )
        epsilon = self.epsilon if epsilon is None else epsilon
        return ((x - mean) / np.sqrt(variance + epsilon) * gamma + beta).astype(np.float32)

    def dense(self, x, name):
        return x @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]

    def doubled(self, x, name):
        """A transposed convolution of 2 x 2 with stride 2."""
        weight = self.state[f"{name}.weight"]  # in, out, h, w
        y = np.einsum("bhwi,ioyx->bhywxo", x, weight, optimize=True)
        batch, height, _, width, _, channels = y.shape
        return y.reshape(batch, 2 * height, 2 * width, channels) + self.state[f"{name}.bias"]

    def resnet(self, x, names, *, stride_in_1x1=False, groups=1, blocks=BLOCKS):
        """[C2, C3, C4, C5]."""
        convolution, norm = names["convolution"], names["norm"]
        x = relu(self.norm(self.convolution(x, convolution(1), stride=2), norm(1)))
        x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        x = np.max(
            [x[:, i : x.shape[1] - 1 + i - 1 : 2, j : x.shape[2] - 1 + j - 1 : 2] for i in range(3) for j in range(3)],
            axis=0,
        )
        levels = []
        for stage, count in enumerate(blocks, start=2):
            for block in range(count):
                stride = 2 if block == 0 and stage > 2 else 1
                first, second = (stride, 1) if stride_in_1x1 else (1, stride)
                y = x
                for part, step, group in ((1, first, 1), (2, second, groups), (3, 1, 1)):
                    y = self.convolution(y, convolution(stage, block, part), step, group)
                    y = self.norm(y, norm(stage, block, part))
                    y = relu(y) if part < 3 else y
                if block == 0:
                    x = self.norm(self.convolution(x, convolution(stage, block, 0), stride), norm(stage, block, 0))
                x = relu(x + y)
            levels.append(x)
        return levels

    def pyramid(self, levels, lateral, output):
        """[P2..P6]; lateral, output: functions from (features, level 2..5) to features."""
        merged = [lateral(levels[3], 5)]
        for level in (4, 3, 2):
            merged.insert(0, lateral(levels[level - 2], level) + merged[0].repeat(2, axis=1).repeat(2, axis=2))
        levels = [output(x, level) for level, x in enumerate(merged, start=2)]
        return [*levels, levels[-1][:, ::2, ::2]]


def relu(x):
    return np.maximum(x, 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def flattened(x):
    """[N, H, W, C] as torch flattens it."""
    return x.transpose(0, 3, 1, 2).reshape(len(x), -1)


def deltas(values):
    """(dx, dy, dw, dh) of every box of the last axis as [..., boxes, (dy, dx, dh, dw)]."""
    return values.reshape(*values.shape[:-1], -1, 4)[..., [1, 0, 3, 2]]


# Models of this package


def build(source, **settings):
    """A small model with a source's weights."""
    from parity_stages import build as build_of_source  # in benchmarks/, which only pytest puts on the path

    small = {"IMAGE_MIN_DIM": 64, "IMAGE_MAX_DIM": 64, "POST_NMS_ROIS_INFERENCE": 10, "PRE_NMS_LIMIT": 50}
    return build_of_source(source, **{**small, **settings})


def features_of(model, image):
    """[C2..C5, P2..P6] of normalized pixels [1, H, W, 3]."""
    trunk = model.network.trunk
    return [
        np.asarray(x)
        for x in keras.Model(trunk.inputs, [*model.network.backbone.model.outputs, *trunk.outputs])([image])
    ]


def assert_close(found, expected, tolerance=2e-5):
    """Equal but for rounding, by the standard deviation of what is expected."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * max(expected.std(), 1e-3))


def pixels(height=64, width=64, seed=3):
    """Normalized pixels [1, H, W, 3]."""
    return np.random.default_rng(seed).normal(size=(1, height, width, 3)).astype(np.float32)


def pooled(size, count=4, seed=4):
    """Features of RoIs [count, size, size, PYRAMID]."""
    return np.random.default_rng(seed).normal(size=(count, size, size, PYRAMID)).astype(np.float32)

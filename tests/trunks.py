"""Seeded weights of the original programs for a ResNet-FPN trunk of this package."""

import importlib.util
import re
from functools import cache

import keras

from mrcnn.network.resnet import EPSILON
from tests import oracles

CONVOLUTIONS = {"branch2a": "1", "branch2b": "2", "branch2c": "3"}


@cache
def seeded():
    """The module that makes an oracle's weights from their names."""
    spec = importlib.util.spec_from_file_location("seeded", oracles.path("seeded.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def assign(trunk: keras.Model, program: str) -> None:
    """Gives every layer of `trunk` the weights of "torchvision", "detectron2" or "matterport"."""
    convolution, norm = {
        "torchvision": (torch_conv, torch_norm),
        "detectron2": (torch_conv, torch_norm),
        "matterport": (matterport_conv, matterport_norm),
    }[program]
    for layer in trunk.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights(norm(layer, program))
        elif layer.weights:
            layer.set_weights(convolution(layer, program))


def torch_conv(layer, program):
    key = torch_key(layer.name, program)
    height, width, inputs, outputs = layer.kernel.shape
    kernel = seeded().torch_like(f"{key}.weight", (outputs, inputs, height, width), program).transpose(2, 3, 1, 0)
    return [kernel, *([seeded().torch_like(f"{key}.bias", (outputs,), program)] if layer.use_bias else [])]


def torch_norm(layer, program):
    key = torch_key(layer.name, program)
    epsilon = 0 if program == "torchvision" else 1e-5
    gamma, beta, mean, variance = (
        seeded().torch_like(f"{key}.{kind}", layer.gamma.shape, program)
        for kind in ("weight", "bias", "running_mean", "running_var")
    )
    return [gamma, beta, mean, variance + epsilon - EPSILON]


def torch_key(name, program):
    """Name of a layer in a state dict without ".weight": res3a_branch2b is backbone.body.layer2.0.conv2."""
    names = tv_key if program == "torchvision" else d2_key
    if fpn := re.fullmatch(r"fpn_(?:c\dp|p)(\d)", name):
        return names(int(fpn[1]), "lateral" if "c" in name else "output")
    if name.endswith("conv1"):
        return names(1, "norm" if name.startswith("bn") else "conv")
    kind, stage, block, branch = re.fullmatch(r"(res|bn)(\d)([a-z]+)_(branch\w+)", name).groups()
    return names(int(stage), kind, ord(block) - ord("a"), CONVOLUTIONS.get(branch))


def tv_key(stage, kind, block=None, number=None):
    if kind in ("lateral", "output"):
        return f"backbone.fpn.{ {'lateral': 'inner', 'output': 'layer'}[kind] }_blocks.{stage - 2}.0"
    if stage == 1:
        return f"backbone.body.{'bn' if kind == 'norm' else 'conv'}1"
    own = f"{'bn' if kind == 'bn' else 'conv'}{number}" if number else f"downsample.{int(kind == 'bn')}"
    return f"backbone.body.layer{stage - 1}.{block}.{own}"


def d2_key(stage, kind, block=None, number=None):
    if kind in ("lateral", "output"):
        return f"backbone.fpn_{kind}{stage}"
    layer = "stem.conv1" if stage == 1 else f"res{stage}.{block}.{f'conv{number}' if number else 'shortcut'}"
    return f"backbone.bottom_up.{layer}" + (".norm" if kind in ("bn", "norm") else "")


def matterport_conv(layer, program):
    kernel = seeded().matterport(layer.name, "kernel", layer.kernel.shape)
    return [kernel, *([seeded().matterport(layer.name, "bias", layer.bias.shape)] if layer.use_bias else [])]


def matterport_norm(layer, program):
    """The old package's convolutions have a bias, which goes into the mean, and its epsilon is 1e-3."""
    gamma, beta, mean, variance = (
        seeded().matterport(layer.name, kind, layer.gamma.shape)
        for kind in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    convolution = "conv1" if layer.name == "bn_conv1" else layer.name.replace("bn", "res")
    bias = seeded().matterport(convolution, "bias", mean.shape)
    return [gamma, beta, mean - bias, variance + 1e-3 - EPSILON]

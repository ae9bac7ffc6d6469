"""ImageNet weights of keras.applications' ResNets in this package's own ResNet."""

import h5py
import keras
import numpy as np
import pytest

from mrcnn.data.molding import normalize
from mrcnn.network.backbone import build_backbone
from mrcnn.network.resnet import BLOCKS, DEPTHS, resnet
from mrcnn.weights.assign import assign
from mrcnn.weights.importers.keras_resnet import is_keras_resnet, keras_resnet_source, read_keras
from mrcnn.weights.recognize import read_source

# keras.applications.resnet50.ResNet50 of Keras 3: the names of the four branches, and the order of its layers
BLOCK_ORDER = {True: "1203", False: "123"}
NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def keras_names(depth):
    """Stems of a ResNet's layers in keras.applications' order."""
    yield "conv1"
    for stage, blocks in enumerate(BLOCKS[depth], start=2):
        for block in range(1, blocks + 1):
            yield from (f"conv{stage}_block{block}_{branch}" for branch in BLOCK_ORDER[block == 1])


@pytest.fixture(scope="module")
def original():
    """keras.applications' own ResNet50, random weights, and what its stages give for an image."""
    model = keras.applications.ResNet50(weights=None, include_top=False, input_shape=(None, None, 3))
    rng = np.random.default_rng(0)

    def random(name, weight):
        if name == "gamma":
            low, high = (0.2, 0.5) if "_3_bn" in weight.path else (0.6, 1.4)
            return rng.uniform(low, high, weight.shape)
        if name == "moving_variance":
            return rng.uniform(0.5, 1.5, weight.shape) * (4000 if "conv1_bn" in weight.path else 1)
        scale = np.sqrt(2 / np.prod(weight.shape[:-1])) if name == "kernel" else 0.2
        return rng.standard_normal(weight.shape) * scale

    model.set_weights([random(weight.name, weight).astype(np.float32) for weight in model.weights])
    taps = [
        model.get_layer(f"conv{stage}_block{blocks}_out").output
        for stage, blocks in enumerate(BLOCKS["resnet50"], start=2)
    ]
    image = rng.integers(0, 256, (64, 96, 3)).astype(np.uint8)
    pixels = keras.applications.resnet.preprocess_input(image.astype(np.float32)[None])
    return model, image, keras.Model(model.inputs, taps).predict_on_batch(pixels)


@pytest.fixture(scope="module")
def file(original, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "r50.weights.h5"
    original[0].save_weights(path)
    return path


@pytest.mark.slow
def test_every_stage_equals_keras_own(original, file):
    source = read_source(file)
    assert (source.program, source.parts) == ("keras.applications", ("backbone",))
    settings = source.settings
    assert settings["BACKBONE"] == "resnet50" and settings["BACKBONE_STRIDE_IN_1X1"]
    backbone = build_backbone("resnet50", stride_in_1x1=True, stem_padding=settings["BACKBONE_STEM_PADDING"])
    report = assign(
        file, {f"trunk/{layer.name}": layer for layer in backbone.model.layers if layer.weights}, source.tensors
    )
    assert len(report.loaded) == 53 * 5 and not report.missing + report.unexpected + report.skipped
    _, image, expected = original
    pixels = normalize(image, settings["MEAN_PIXEL"], settings["PIXEL_STD"], settings["CHANNEL_ORDER"] == "bgr")
    for mine, theirs in zip(backbone.model.predict_on_batch(pixels[None]), expected, strict=True):
        assert mine.shape == theirs.shape
        assert np.abs(mine - theirs).max() < 1e-4 * theirs.std()


def test_a_file_of_an_early_keras_3_has_no_names_and_is_read_by_position(file, tmp_path):
    path = tmp_path / "nameless.weights.h5"
    path.write_bytes(file.read_bytes())
    with h5py.File(path, "r+") as h5:
        for layer in h5["layers"].values():
            layer["vars"].attrs.pop("name", None)
    named, nameless = read_keras(file), read_keras(path)
    names = {f"{stem}_{kind}" for stem in keras_names("resnet50") for kind in ("conv", "bn")}
    assert names == set(named) == set(nameless)
    for name in names:
        assert named[name].keys() == nameless[name].keys()
        weight = "bias" if "bias" in named[name] else "moving_mean"
        np.testing.assert_array_equal(named[name][weight].read(), nameless[name][weight].read())


def caffe(stem):
    """Name that the paper's authors gave the convolution of a block, after `res`."""
    if stem == "conv1":
        return "conv1", "bn_conv1"
    stage, block, branch = stem[4], int(stem.split("block")[1].split("_")[0]), stem[-1]
    block = chr(ord("a") + block - 1) if block < 27 else "a" + chr(ord("a") + block - 27)
    name = f"{stage}{block}_branch{dict(zip('0123', ('1', '2a', '2b', '2c'), strict=True))[branch]}"
    return f"res{name}", f"bn{name}"


def write(path, depth, old_names):
    """A file in the layout of Keras 2, all kernels of shape (1, 1, 2, 3): only names, biases and norms matter."""
    with h5py.File(path, "w") as h5:
        for stem in keras_names(depth):
            conv, norm = caffe(stem) if old_names else (f"{stem}_conv", f"{stem}_bn")
            for layer, weight, shape, value in [
                (conv, "kernel", (1, 1, 2, 3), 1),
                (conv, "bias", (3,), 2),
                *((norm, weight, (3,), value) for weight, value in zip(NORM, (1, 0, 5, 1), strict=True)),
            ]:
                h5.create_dataset(f"{layer}/{layer}/{weight}:0", data=np.full(shape, value, np.float32))


@pytest.mark.slow
@pytest.mark.parametrize("old_names, epsilon", [(False, 1.001e-5), (True, 1e-3)])
@pytest.mark.parametrize("depth", DEPTHS)
def test_every_depth_under_new_and_old_names(tmp_path, depth, old_names, epsilon):
    path = tmp_path / "weights.h5"
    write(path, depth, old_names)
    layers = read_keras(path)
    assert is_keras_resnet(layers)
    source = keras_resnet_source(layers, str(path))
    assert source.settings["BACKBONE"] == depth and source.settings["IMAGE_CHANNEL_COUNT"] == 2
    names = {name for stem in keras_names(depth) for name in caffe(stem)}
    assert {name.split("/")[1] for name in source.tensors} == names
    some = "bn4w_branch2b" if depth == "resnet101" else "bn5c_branch2c"
    assert source.tensors[f"trunk/{some}/moving_mean"].read().tolist() == [3, 3, 3], "the bias has gone into it"
    variance = source.tensors[f"trunk/{some}/moving_variance"].read()
    np.testing.assert_allclose(variance, 1 + epsilon - 1e-5, rtol=1e-7)
    assert "trunk/conv1/bias" not in source.tensors


@pytest.mark.slow
def test_the_names_of_the_layers_are_those_of_our_resnet():
    """Blocks beyond z: stage 4 of ResNet-152 ends with 4aj."""
    ours = {layer.name for layer in resnet("resnet152", width=2).layers if layer.weights}
    assert ours == {name for stem in keras_names("resnet152") for name in caffe(stem)}
    assert "res4aj_branch2c" in ours


def test_a_resnet_v2_is_no_resnet():
    """It has the same names, but no third norm in a block."""
    assert not is_keras_resnet({"conv2_block1_1_conv": {}, "conv2_block1_1_bn": {}, "conv2_block1_preact_bn": {}})

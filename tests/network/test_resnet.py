"""ResNets: sizes and names by hand, and the whole trunk against the three original programs."""

import json

import keras
import numpy as np
import pytest

from mrcnn.network.backbone import RESNET_MEAN, RESNET_STD
from mrcnn.network.fpn import feature_pyramid
from mrcnn.network.frozen_batch_norm import freeze_batch_norm
from mrcnn.network.resnet import block_letters, resnet, stage_of
from tests import oracles, trunks

PROGRAMS = {
    "torchvision": ("torchvision/tv_oracle_a_compact.npz", {}),
    "detectron2": ("detectron2/d2_oracle_R_50_a.npz", {"stride_in_1x1": True}),
    "matterport": ("matterport/model_r50_a_compact.npz", {"stride_in_1x1": True, "stem_padding": "same"}),
}


def program_input(program, arrays):
    """The network's input of an oracle, [1, H, W, 3]."""
    if program == "torchvision":
        image = arrays["input"].transpose(1, 2, 0)[None]
        return (255 * image - np.array(RESNET_MEAN, "float32")) / np.array(RESNET_STD, "float32")
    if program == "detectron2":
        return (arrays["resized_bgr"].astype("float32") - np.array([103.53, 116.28, 123.675], "float32"))[None]
    return (arrays["image"].astype("float32") - np.array([123.7, 116.8, 103.9], "float32"))[None]


@pytest.fixture(scope="module", params=PROGRAMS)
def trunk(request):
    """(features of this package, arrays of the program), both by name."""
    file, options = PROGRAMS[request.param]
    arrays = oracles.load(file)
    backbone = resnet("resnet50", **options)
    model = keras.Model(backbone.inputs[0], [*backbone.outputs, *feature_pyramid(backbone.outputs)])
    trunks.assign(model, request.param)
    features = [keras.ops.convert_to_numpy(x) for x in freeze_batch_norm(model)(program_input(request.param, arrays))]
    names = ["C2", "C3", "C4", "C5", "P2", "P3", "P4", "P5", "P6"]
    return request.param, dict(zip(names, features, strict=True)), arrays


@pytest.mark.slow
@pytest.mark.parametrize("name", ["C2", "C3", "C4", "C5", "P2", "P3", "P4", "P5", "P6"])
def test_equals_the_original(trunk, name):
    program, features, arrays = trunk
    ours, expected = features[name], arrays[name]
    every, channel = max(1, ours.shape[1] // 8), max(1, ours.shape[3] // 32)
    sampled = ours[:, ::every, ::every, ::channel]
    if program != "matterport":
        expected = expected.transpose(0, 2, 3, 1)
    np.testing.assert_allclose(sampled, expected, rtol=0, atol=1e-4 * ours.std())
    moments = [ours.mean(), ours.std(), np.abs(ours).max(), np.square(ours, dtype="float64").sum()]
    mean, deviation, largest, squares = arrays[f"{name}_moments"]
    np.testing.assert_allclose(moments[0], mean, rtol=0, atol=1e-4 * deviation)
    np.testing.assert_allclose(moments[1:], [deviation, largest, squares], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "file"), [("resnet50", "layers_r50.json"), ("resnet101", "layers_r101.json")])
def test_names_and_kernels_are_those_of_the_old_package(name, file):
    """Its convolutions also have a bias, which importers move into the BatchNorm."""
    theirs = json.loads(oracles.path(f"matterport/{file}").read_text())
    expected = {layer: weights for layer, weights in theirs.items() if layer.startswith(("res", "bn", "conv1"))}
    ours = {layer.name: layer for layer in resnet(name, width=8).layers if layer.weights}
    assert set(ours) == set(expected)
    for layer_name, weights in expected.items():
        if "kernel" in weights:
            height, width, inputs, outputs = weights["kernel"]
            scaled = (height, width, 3 if layer_name == "conv1" else inputs // 8, outputs // 8)
            assert tuple(ours[layer_name].kernel.shape) == scaled, layer_name
            assert len(ours[layer_name].weights) == 1


@pytest.mark.slow
def test_parameters_and_first_weights_are_those_of_torchvision():
    model = resnet("resnet50")
    trained = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert trained == 25_557_032 - 2_049_000  # without its classifier
    assert model.count_params() - trained == 53_120  # BatchNorm's statistics
    kernel = keras.ops.convert_to_numpy(model.get_layer("res2b_branch2b").kernel)
    assert kernel.std() == pytest.approx(np.sqrt(2 / (9 * 64)), rel=0.02)


@pytest.mark.slow
def test_resnet152_has_36_blocks_in_stage_4():
    names = [layer.name for layer in resnet("resnet152", width=1).layers]
    assert [
        sum(name.startswith(f"res{stage}") and name.endswith("_out") for name in names) for stage in (2, 3, 4, 5)
    ] == [3, 8, 36, 3]
    assert "res4aj_out" in names


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"stride_in_1x1": True}, {"stem_padding": "same"}, {"channels": 5}])
def test_shapes(options):
    model = resnet("resnet50", width=4, **options)
    outputs = model(np.zeros((2, 64, 96, options.get("channels", 3)), "float32"))
    assert [tuple(x.shape) for x in outputs] == [(2, 16, 24, 16), (2, 8, 12, 32), (2, 4, 6, 64), (2, 2, 3, 128)]


@pytest.mark.slow
@pytest.mark.parametrize(("stride_in_1x1", "strides"), [(False, [(1, 1), (2, 2)]), (True, [(2, 2), (1, 1)])])
def test_where_the_stride_is(stride_in_1x1, strides):
    model = resnet("resnet50", width=2, stride_in_1x1=stride_in_1x1)
    assert [model.get_layer(f"res3a_branch{n}").strides for n in ("2a", "2b")] == strides
    assert model.get_layer("res3a_branch1").strides == (2, 2)
    assert [model.get_layer(f"res2a_branch{n}").strides for n in ("2a", "2b", "1")] == [(1, 1)] * 3


@pytest.mark.slow
@pytest.mark.parametrize(("padding", "last"), [("torch", [1, 3, 5, 7]), ("same", [2, 4, 6, 7])])
def test_where_the_pool_looks(padding, last):
    """Over rising columns, each cell of the pool tells the last column of its window."""
    model = resnet("resnet50", width=1, channels=1, stem_padding=padding)
    pool = keras.Model(model.get_layer("conv1_relu").output, model.get_layer("res2_pool").output)
    rising = np.broadcast_to(np.arange(8, dtype="float32")[None, None, :, None], (1, 8, 8, 1))
    np.testing.assert_array_equal(pool(rising)[0, 0, :, 0], last)


def test_groups_see_their_own_channels_only():
    """ResNeXt: 4 groups of 32 * 8 / 64 channels, doubled with each stage."""
    model = resnet("resnet50", width=8, groups=4, group_width=32)
    kernels = [tuple(model.get_layer(f"res{stage}a_branch2b").kernel.shape) for stage in (2, 3, 4, 5)]
    assert kernels == [(3, 3, 4, 16), (3, 3, 8, 32), (3, 3, 16, 64), (3, 3, 32, 128)]
    assert tuple(model.get_layer("res2a_branch2c").kernel.shape) == (1, 1, 16, 32), "the block's own width stays"
    layer = model.get_layer("res2a_branch2b")
    features = np.random.default_rng(0).normal(size=(1, 6, 6, 16)).astype("float32")
    others = features.copy()
    others[..., 4:] += 1
    np.testing.assert_array_equal(layer(features)[..., :4], layer(others)[..., :4])
    expected = keras.ops.conv(features[..., 4:8], layer.kernel[..., 4:8], padding="same")
    np.testing.assert_allclose(layer(features)[..., 4:8], expected, atol=1e-5)


@pytest.mark.slow
def test_one_group_is_the_plain_network():
    assert (
        resnet("resnet50", width=8).count_params()
        == resnet("resnet50", width=8, groups=1, group_width=64).count_params()
    )
    whole = resnet("resnet101", groups=32, group_width=8)  # X101-32x8d
    assert tuple(whole.get_layer("res2a_branch2b").kernel.shape) == (3, 3, 8, 256)
    assert tuple(whole.get_layer("res5c_branch2b").kernel.shape) == (3, 3, 64, 2048)


def test_block_letters_go_on_after_z():
    assert [block_letters(i) for i in (0, 1, 25, 26, 35)] == ["a", "b", "z", "aa", "aj"]


@pytest.mark.parametrize(
    ("layer", "stage"),
    [
        ("conv1", 1),
        ("bn_conv1", 1),
        ("res2a_branch1", 2),
        ("bn3d_branch2c", 3),
        ("res4aj_branch2a", 4),
        ("res5c_out", 5),
        ("image", 1),
    ],
)
def test_stage_of(layer, stage):
    assert stage_of(layer) == stage


def test_errors_name_the_value_and_the_choice():
    with pytest.raises(ValueError, match=r"unknown ResNet 'resnet18'; .*'resnet101', 'resnet152', 'resnet50'"):
        resnet("resnet18")
    with pytest.raises(ValueError, match=r"stem_padding must be one of \('torch', 'same'\), received 'valid'"):
        resnet("resnet50", stem_padding="valid")

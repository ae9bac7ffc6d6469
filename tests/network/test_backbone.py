"""Backbones by name and by function: taps, stages, frozen BatchNorm, real weights, errors."""

import keras
import numpy as np
import pytest

from mrcnn.network.backbone import RESNET_MEAN, RESNET_STD, build_backbone
from mrcnn.network.pixels import PixelScaling
from tests import oracles

WEIGHTS = oracles.FOLDER.parent / "data" / "weights" / "mobilenet_v1_0.75_224_imagenet_notop.weights.h5"


def tap_names(backbone):
    return [tensor._keras_history.operation.name for tensor in backbone.model.outputs]


def shapes(backbone, size=(64, 96), channels=3):
    maps = backbone.model(np.zeros((1, *size, channels), "float32"))
    return [tuple(x.shape[1:]) for x in maps]


def four_maps(image, width=4, last=2):
    """A function as a user would write it."""
    maps, x = [], image
    for stride in (4, 2, 2, last):
        x = keras.layers.Conv2D(width, 3, strides=stride, padding="same", activation="relu")(x)
        x = keras.layers.BatchNormalization()(x)
        maps.append(x)
    return maps


@pytest.mark.slow
def test_a_resnet_by_name():
    backbone = build_backbone("ResNet50", options={"width": 4})
    assert tap_names(backbone) == ["res2c_out", "res3d_out", "res4f_out", "res5c_out"]
    assert shapes(backbone) == [(16, 24, 16), (8, 12, 32), (4, 6, 64), (2, 3, 128)]
    assert backbone.scaling == PixelScaling(RESNET_MEAN, RESNET_STD, False)
    assert backbone.source is None
    stages = {
        name: backbone.stages[name]
        for name in ("conv1", "bn_conv1", "res2a_branch1", "res3a_branch2a", "bn4f_branch2c", "res5c_branch2b")
    }
    assert list(stages.values()) == [1, 1, 2, 3, 4, 5]


def test_a_resnet_takes_where_the_stride_and_the_padding_are():
    backbone = build_backbone("resnet50", options={"width": 4}, stride_in_1x1=True, stem_padding="same")
    assert backbone.model.get_layer("res3a_branch2a").strides == (2, 2)
    assert backbone.model.get_layer("res2_pool").padding == "same"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "taps", "channels"),
    [
        (
            "mobilenet",
            {"alpha": 0.75},
            ["conv_pw_3_relu", "conv_pw_5_relu", "conv_pw_11_relu", "conv_pw_13_relu"],
            (96, 192, 384, 768),
        ),
        (
            "MobileNetV2",
            {"alpha": 0.35},
            ["block_3_expand_relu", "block_6_expand_relu", "block_13_expand_relu", "out_relu"],
            (48, 96, 192, 1280),
        ),
        (
            "resnet50v2",
            {},
            ["conv2_block2_out", "conv3_block3_out", "conv4_block5_out", "post_relu"],
            (256, 512, 1024, 2048),
        ),
        (
            "efficientnetb0",
            {},
            ["block3a_expand_activation", "block4a_expand_activation", "block6a_expand_activation", "top_activation"],
            (144, 240, 672, 1280),
        ),
        ("vgg16", {}, ["block3_conv3", "block4_conv3", "block5_conv3", "block5_pool"], (256, 512, 512, 512)),
        ("xception", {}, ["c2_pad", "add_1", "add_10", "block14_sepconv2_act"], (128, 256, 728, 2048)),
    ],
)
def test_taps_of_keras_applications(name, options, taps, channels):
    backbone = build_backbone(name, options=options)
    assert tap_names(backbone) == taps
    assert shapes(backbone) == [(64 // s, 96 // s, c) for s, c in zip((4, 8, 16, 32), channels, strict=True)]
    weighted = {layer.name for layer in backbone.model.layers if layer.weights}
    assert weighted <= set(backbone.stages)
    assert {backbone.stages[layer] for layer in weighted} >= {1, 2, 3, 4}  # and 5, but for VGG16


def test_stages_of_mobilenet():
    stages = build_backbone("mobilenet", options={"alpha": 0.25}).stages
    names = (
        "conv1",
        "conv_pw_1",
        "conv_dw_2",
        "conv_pw_3",
        "conv_dw_4",
        "conv_dw_6",
        "conv_pw_11",
        "conv_dw_12",
        "conv_pw_13",
    )
    assert [stages[name] for name in names] == [1, 1, 2, 2, 3, 4, 4, 5, 5]


@pytest.mark.slow
def test_names_do_not_depend_on_what_was_built_before():
    """ConvNeXt leaves its last normalization unnamed."""
    assert keras.layers.LayerNormalization().name.startswith("layer_normalization")  # one name less for Keras to give
    backbone = build_backbone("convnext_tiny")
    assert tap_names(backbone)[-1] == "layer_normalization"
    assert shapes(backbone) == [(16, 24, 96), (8, 12, 192), (4, 6, 384), (2, 3, 768)]


def test_names_of_a_function_s_layers():
    first, second = (build_backbone(four_maps) for _ in range(2))
    assert [layer.name for layer in first.model.layers] == [layer.name for layer in second.model.layers]
    assert "conv2d_3" in second.stages and "batch_normalization" in second.stages


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("name", ["resnet50", "mobilenet"])
def test_other_channels(name, channels):
    backbone = build_backbone(name, channels=channels, options={"width": 2} if name == "resnet50" else {"alpha": 0.25})
    assert backbone.model.input_shape == (None, None, None, channels)
    assert len(backbone.scaling.mean) == len(backbone.scaling.std) == channels
    assert shapes(backbone, channels=channels)[3][:2] == (2, 3)


@pytest.mark.slow
def test_computes_in_bfloat16_under_its_policy():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        for name, options in (("resnet50", {"width": 4}), ("mobilenet", {"alpha": 0.25})):
            backbone = build_backbone(name, options=options)
            maps = backbone.model(np.zeros((1, 64, 64, 3), "float32"))
            assert {keras.backend.standardize_dtype(x.dtype) for x in maps} == {"bfloat16"}
            assert {weight.dtype for weight in backbone.model.weights} == {"float32"}
    finally:
        keras.config.set_dtype_policy(before)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "options"), [("resnet50", {"width": 2}), ("mobilenet", {"alpha": 0.25}), (four_maps, {})]
)
@pytest.mark.parametrize("train_bn", [False, True])
def test_batch_norm_learns_only_when_asked(backbone, options, train_bn):
    model = build_backbone(backbone, options=options, train_bn=train_bn).model
    model.trainable = True
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    before = [layer.get_weights() for layer in norms]
    model(np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype("float32"), training=True)
    moved = [
        any(np.abs(a - b).max() > 0 for a, b in zip(layer.get_weights(), old, strict=True))
        for layer, old in zip(norms, before, strict=True)
    ]
    assert norms and set(moved) == {train_bn}
    assert {bool(layer.trainable_variables) for layer in norms} == {train_bn}


@pytest.mark.slow
def test_imagenet_weights_load_and_compute_what_keras_computes():
    if not WEIGHTS.is_file():
        pytest.skip("needs the ImageNet weights of mobilenet beside the checkout")
    backbone = build_backbone("mobilenet", options={"alpha": 0.75})
    backbone.source.load_weights(WEIGHTS)
    original = keras.applications.MobileNet(alpha=0.75, include_top=False, weights=None, input_shape=(128, 160, 3))
    original.load_weights(WEIGHTS)
    image = np.random.default_rng(0).uniform(-1, 1, (1, 128, 160, 3)).astype("float32")
    expected = keras.Model(original.input, [original.get_layer(name).output for name in tap_names(backbone)])(image)
    for ours, theirs in zip(backbone.model(image, training=True), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
        assert np.mean(theirs) > 0.05


def test_a_function_with_options():
    backbone = build_backbone(four_maps, options={"width": 6})
    assert shapes(backbone) == [(16, 24, 6), (8, 12, 6), (4, 6, 6), (2, 3, 6)]
    assert backbone.scaling == PixelScaling((127.5,) * 3, (127.5,) * 3, False)
    assert backbone.source is None
    assert backbone.stages["conv2d"] == 2 and backbone.stages["conv2d_3"] == 5


def test_a_function_may_return_a_model_of_its_own():
    def own(image):
        inner = keras.Input((None, None, 3))
        return keras.Model(inner, four_maps(inner))

    assert shapes(build_backbone(own)) == [(16, 24, 4), (8, 12, 4), (4, 6, 4), (2, 3, 4)]


@pytest.mark.parametrize(
    ("backbone", "error", "message"),
    [
        ("mobilenetv22", ValueError, "unknown backbone 'mobilenetv22'; did you mean 'MobileNetV2' or"),
        ("resnet51", ValueError, r"unknown backbone 'resnet51'; did you mean .*'resnet101', 'resnet152', 'resnet50'"),
        (50, TypeError, "a name or a function, received 50"),
        (lambda image: None, TypeError, r"must return \[C2, C3, C4, C5\] or a keras.Model, but it returned None"),
        (lambda image: four_maps(image)[1:], ValueError, r"four feature maps \[C2, C3, C4, C5\], but it returns 3"),
        (
            lambda image: four_maps(image)[::-1],
            ValueError,
            r"output 0 of backbone .* must be at stride 4: \[B, 64, 64, "
            r"channels\] for a 256x256 image; it is \(1, 8, 8, 4\)",
        ),
        (lambda image: four_maps(image, last=1), ValueError, "output 3 of backbone .* must be at stride 32"),
        (
            lambda image: keras.Model(x := keras.Input((64, 64, 3)), four_maps(x)),
            ValueError,
            r"images of any size, \(None, None, None, 3\); its input is \(None, 64, 64, 3\)",
        ),
    ],
)
def test_errors_name_what_was_given(backbone, error, message):
    with pytest.raises(error, match=message):
        build_backbone(backbone)


def test_a_resnet_has_one_option():
    with pytest.raises(ValueError, match=r"resnet50 takes \['width', 'groups', 'group_width'\], received \['alpha'\]"):
        build_backbone("resnet50", options={"alpha": 0.75})

"""The old package's weights: a small copy of its network, built of Keras's layers, against the import of its weights,
and the whole program's stored numbers."""

import re

import keras
import numpy as np
import pytest
from keras import layers

from mrcnn.weights.importers.matterport import is_matterport, matterport_source
from mrcnn.weights.source import Lazy
from tests import parity
from tests.parity import CLASSES, HIDDEN, PYRAMID, RATIOS, WIDTH, assert_close

pytestmark = pytest.mark.slow


def convolution(x, name, filters, size=1, **options):
    """With bias, as all of its convolutions; a norm after it where one is named."""
    return layers.Conv2D(filters, size, name=name, **options)(x)


def normed(x, name, relu=True):
    x = layers.BatchNormalization(epsilon=1e-3, name=name)(x)
    return layers.ReLU()(x) if relu else x


def block(x, name, filters, strides, shortcut):
    y = normed(convolution(x, f"res{name}_branch2a", filters, strides=strides), f"bn{name}_branch2a")
    y = normed(convolution(y, f"res{name}_branch2b", filters, 3, padding="same"), f"bn{name}_branch2b")
    y = normed(convolution(y, f"res{name}_branch2c", 4 * filters), f"bn{name}_branch2c", relu=False)
    if shortcut:
        x = normed(convolution(x, f"res{name}_branch1", 4 * filters, strides=strides), f"bn{name}_branch1", relu=False)
    return layers.ReLU()(layers.Add()([x, y]))


def trunk():
    image = x = keras.Input((64, 64, 3))
    x = normed(convolution(layers.ZeroPadding2D(3)(x), "conv1", WIDTH, 7, strides=2), "bn_conv1")
    x, taps = layers.MaxPooling2D(3, strides=2, padding="same")(x), []
    for stage, count in enumerate(parity.BLOCKS, start=2):
        for i in range(count):
            x = block(
                x, f"{stage}{chr(ord('a') + i)}", WIDTH * 2 ** (stage - 2), 2 if i == 0 and stage > 2 else 1, i == 0
            )
        taps.append(x)
    merged = [convolution(taps[3], "fpn_c5p5", PYRAMID)]
    for level in (4, 3, 2):
        lateral = convolution(taps[level - 2], f"fpn_c{level}p{level}", PYRAMID)
        merged.insert(0, layers.Add()([layers.UpSampling2D(2)(merged[0]), lateral]))
    levels = [convolution(x, f"fpn_p{level}", PYRAMID, 3, padding="same") for level, x in enumerate(merged, start=2)]
    levels.append(layers.MaxPooling2D(1, strides=2)(levels[-1]))
    return keras.Model(image, [*taps, *levels])


def rpn():
    feature = keras.Input((8, 8, PYRAMID))
    shared = layers.ReLU()(convolution(feature, "rpn_conv_shared", 20, 3, padding="same"))
    logits = layers.Reshape((-1, 2))(convolution(shared, "rpn_class_raw", 2 * RATIOS))
    return keras.Model(
        feature, [layers.Softmax()(logits), layers.Reshape((-1, 4))(convolution(shared, "rpn_bbox_pred", 4 * RATIOS))]
    )


def box_head(classes):
    x = features = keras.Input((7, 7, PYRAMID))
    x = normed(convolution(x, "mrcnn_class_conv1", HIDDEN, 7), "mrcnn_class_bn1")
    x = layers.Flatten()(normed(convolution(x, "mrcnn_class_conv2", HIDDEN), "mrcnn_class_bn2"))
    deltas = layers.Dense(4 * classes, name="mrcnn_bbox_fc")(x)
    return keras.Model(
        features, [layers.Dense(classes, name="mrcnn_class_logits")(x), layers.Reshape((classes, 4))(deltas)]
    )


def mask_head(classes):
    x = features = keras.Input((14, 14, PYRAMID))
    for i in (1, 2, 3, 4):
        x = normed(convolution(x, f"mrcnn_mask_conv{i}", PYRAMID, 3, padding="same"), f"mrcnn_mask_bn{i}")
    x = layers.Conv2DTranspose(PYRAMID, 2, strides=2, activation="relu", name="mrcnn_mask_deconv")(x)
    return keras.Model(features, convolution(x, "mrcnn_mask", classes, activation="sigmoid"))


def original(classes=CLASSES):
    """The four parts, with sane random weights."""
    keras.utils.set_random_seed(0)
    parts = [trunk(), rpn(), box_head(classes), mask_head(classes)]
    rng = np.random.default_rng(0)
    for layer in (layer for part in parts for layer in part.layers if layer.weights):
        for weight in layer.weights:
            if weight.name == "gamma":
                weight.assign(rng.uniform(0.4, 0.9, weight.shape))
            elif weight.name == "moving_variance":
                weight.assign(rng.uniform(0.5, 1.5, weight.shape))
            elif weight.name != "kernel":
                weight.assign(rng.normal(size=weight.shape) * 0.2)
    return parts


def layers_of(parts):
    """Arrays by layer and weight."""
    return {
        layer.name: {weight.name: np.asarray(weight) for weight in layer.weights}
        for part in parts
        for layer in part.layers
        if layer.weights
    }


@pytest.fixture(scope="module")
def made():
    """Arrays of one original by layer and weight, not to be changed."""
    return layers_of(original())


@pytest.fixture
def arrays(made):
    """The same for a test to change."""
    return {layer: dict(weights) for layer, weights in made.items()}


def source_of(arrays, path="a.h5"):
    return matterport_source(
        {
            layer: {name: Lazy(value.shape, lambda v=value: v) for name, value in weights.items()}
            for layer, weights in arrays.items()
        },
        path,
    )


@pytest.mark.parametrize("classes", [2, CLASSES])
def test_every_part_computes_what_the_old_package_computes(classes):
    parts = original(classes)
    source = source_of(layers_of(parts))
    model = parity.build(source)
    trunk, rpn, box_head, mask_head = parts
    image = parity.pixels()
    for ours, theirs in zip(parity.features_of(model, image), trunk(image), strict=True):
        assert_close(ours, theirs)
    level = parity.pooled(8, count=1)
    (logits, deltas), (probabilities, their_deltas) = model.network.rpn(level), rpn(level)
    assert_close(parity.sigmoid(np.asarray(logits)), probabilities[..., 1])
    assert_close(deltas, their_deltas)
    features = parity.pooled(7)
    for ours, theirs in zip(model.network.box_head(features), box_head(features), strict=True):
        assert_close(ours, theirs)
    features = parity.pooled(14)
    assert_close(model.network.mask_head(features), mask_head(features))


def test_settings(arrays):
    source = source_of(arrays)
    assert {
        name: source.settings[name]
        for name in (
            "BACKBONE",
            "BACKBONE_OPTIONS",
            "NUM_CLASSES",
            "RPN_CHANNELS",
            "TOP_DOWN_PYRAMID_SIZE",
            "MASK_HEAD",
            "FPN_CLASSIF_FC_LAYERS_SIZE",
            "IMAGE_CHANNEL_COUNT",
            "RPN_BBOX_STD_DEV",
        )
    } == {
        "BACKBONE": "resnet50",
        "BACKBONE_OPTIONS": {"width": 8},
        "NUM_CLASSES": 5,
        "RPN_CHANNELS": 20,
        "TOP_DOWN_PYRAMID_SIZE": 16,
        "MASK_HEAD": {"name": "fcn", "filters": 16, "convolutions": 4},
        "FPN_CLASSIF_FC_LAYERS_SIZE": 12,
        "IMAGE_CHANNEL_COUNT": 3,
        "RPN_BBOX_STD_DEV": [0.1, 0.1, 0.2, 0.2],
    }


def test_resnet101_by_its_layers(arrays):
    for i in range(6, 23):
        for kind in ("res", "bn"):
            for branch in ("2a", "2b", "2c"):
                arrays[f"{kind}4{chr(ord('a') + i)}_branch{branch}"] = arrays[f"{kind}4b_branch{branch}"]
    assert source_of(arrays).settings["BACKBONE"] == "resnet101"
    del arrays["res4w_branch2a"]
    with pytest.raises(ValueError, match=r"a.h5 has a trunk of \(3, 4, 22, 3\) blocks; supported are"):
        source_of(arrays)


@pytest.mark.parametrize(
    "layer, weight",
    [
        ("res3b_branch2b", "kernel"),
        ("bn3b_branch2b", "moving_mean"),
        ("fpn_p4", "bias"),
        ("rpn_class_raw", "kernel"),
        ("mrcnn_mask_deconv", "kernel"),
        ("mrcnn_class_conv1", "kernel"),
    ],
)
def test_a_missing_weight_is_named(arrays, layer, weight):
    del arrays[layer][weight]
    with pytest.raises(ValueError, match=re.escape(f"a.h5 lacks {layer}/{weight}")):
        source_of(arrays)


def test_layers_that_the_old_package_has_not_are_listed(arrays):
    assert not source_of(arrays).unused
    arrays |= {"my_attention": {"kernel": np.ones((3, 2)), "bias": np.ones(2)}, "anchors": {"kernel": np.ones((5, 4))}}
    assert dict(source_of(arrays).unused) == {"my_attention/kernel": (3, 2), "my_attention/bias": (2,)}


def test_what_is_matterports():
    assert is_matterport({"res2a_branch2a": {}, "mrcnn_mask": {}})
    assert not is_matterport({"res2a_branch2a": {}, "fc1000": {}}) and not is_matterport({"mrcnn_mask": {}})


def test_matterport_itself():
    """Every stage of the old package on an image that is resized and padded."""
    folder = parity.oracle_folder()
    import parity_oracles

    assert parity.failed(parity_oracles.matterport(folder, ["b"])) == []

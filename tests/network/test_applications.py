"""The models of keras.applications by name, and the pixels that they expect."""

import sys

import keras
import numpy as np
import pytest

from mrcnn.network.applications import (
    application_names,
    build_application,
    find_application,
    for_channels,
    pixel_scaling,
)
from mrcnn.network.pixels import PixelScaling


def test_names_are_keras_own():
    names = application_names()
    assert {"MobileNet", "ResNet50V2", "EfficientNetB0", "ConvNeXtTiny", "VGG16"} <= set(names)
    assert not {"mobilenet", "vgg16"} & set(names)  # the modules


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("mobilenet", "MobileNet"),
        ("MOBILENETV2", "MobileNetV2"),
        ("convnext_tiny", "ConvNeXtTiny"),
        ("efficientnet-b0", "EfficientNetB0"),
    ],
)
def test_case_and_underscores_do_not_matter(written, name):
    assert find_application(written) is getattr(keras.applications, name)


def test_an_unknown_name_finds_nothing():
    assert find_application("mobilenetv9") is None


@pytest.mark.parametrize("name", application_names())
def test_scaling_is_what_the_model_s_own_preprocessing_does(name):
    function = find_application(name)
    image = np.random.default_rng(0).uniform(0, 255, (5, 7, 3)).astype("float32")
    expected = sys.modules[function.__module__].preprocess_input(image.copy(), data_format="channels_last")
    mean, std, bgr = pixel_scaling(function)
    ours = (image - np.array(mean, "float32")) / np.array(std, "float32")
    np.testing.assert_allclose(ours[..., ::-1] if bgr else ours, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("name", "scaling"),
    [
        ("MobileNet", PixelScaling((127.5,) * 3, (127.5,) * 3, False)),
        ("DenseNet121", PixelScaling((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), False)),
        ("VGG16", PixelScaling((123.68, 116.779, 103.939), (1.0, 1.0, 1.0), True)),
        ("EfficientNetB0", PixelScaling((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), False)),
    ],
)
def test_scaling_of_each_convention(name, scaling):
    assert pixel_scaling(find_application(name)) == scaling


def test_other_channels_get_the_mean_over_the_three():
    one = pixel_scaling(find_application("VGG16"), channels=1)
    assert one == PixelScaling((pytest.approx((123.68 + 116.779 + 103.939) / 3),), (1.0,), False)
    assert for_channels(PixelScaling((1.0, 2.0, 6.0), (2.0, 2.0, 2.0)), 2) == PixelScaling((3.0, 3.0), (2.0, 2.0))


def test_builds_for_any_size_and_channels_with_its_options():
    model = build_application(keras.applications.MobileNet, 5, {"alpha": 0.25})
    assert model.input_shape == (None, None, None, 5)
    assert model.output_shape == (None, None, None, 256)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("alfa", r"BACKBONE_OPTIONS: MobileNet takes \['alpha', .*received 'alfa'; did you mean 'alpha'\?"),
        ("weights", "received 'weights'"),
        ("include_top", "received 'include_top'"),
    ],
)
def test_options_that_are_not_the_model_s(option, message):
    with pytest.raises(ValueError, match=message):
        build_application(keras.applications.MobileNet, 3, {option: 1})

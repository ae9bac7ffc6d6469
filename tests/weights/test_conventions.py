"""Which settings come with weights, and which stay the user's."""

import pytest

from mrcnn.config import Config, setting_names
from mrcnn.presets import Detectron2, Matterport, Torchvision, settings_of
from mrcnn.weights.conventions import BOUND, STRUCTURAL, bound_settings, changes, check_backbone, pretrained_settings
from mrcnn.weights.source import OWN, PARTS, Source

DEFAULTS = {name: getattr(Config, name) for name in setting_names()}


def source_of(preset, parts=PARTS, program="somebody's", **settings):
    return Source(program, {}, settings_of(preset) | settings, [], parts)


def test_every_name_is_a_setting():
    names = {name for group in BOUND.values() for name in group}
    assert names <= set(DEFAULTS) and STRUCTURAL < names


@pytest.mark.parametrize("preset", [Matterport, Torchvision, Detectron2])
def test_a_preset_s_own_weights_change_nothing(preset):
    config = preset(BACKBONE="resnet50")
    source = source_of(preset, BACKBONE="resnet50")
    assert changes(config, bound_settings(source, PARTS, 3, DEFAULTS)) == {}


def test_what_matterport_s_weights_change_in_the_default_configuration():
    config = Config(NUM_CLASSES=2)
    changed = changes(config, bound_settings(source_of(Matterport, BACKBONE="resnet101"), PARTS, 3, DEFAULTS))
    assert changed == {
        "BACKBONE_STRIDE_IN_1X1": True,
        "BACKBONE_STEM_PADDING": "same",
        "MEAN_PIXEL": (123.7, 116.8, 103.9),
        "PIXEL_STD": (1.0, 1.0, 1.0),
        "IMAGE_ANTIALIAS": False,
        "IMAGE_RESIZER": "skimage",
        "IMAGE_PAD_PIXEL": (0, 0, 0),
        "RPN_ANCHOR_RATIO_MEANING": "width/height",
        "RPN_CHANNELS": 512,
        "RPN_BBOX_STD_DEV": [0.1, 0.1, 0.2, 0.2],
        "RPN_CLIP_TO_PHOTOGRAPH": False,
        "RPN_MIN_SIZE": 0,
        "BOXES_INCLUSIVE": True,
        "ROI_GEOMETRY": "crop",
        "ROI_LEVEL_ROUNDING": "round",
        "DETECTION_MIN_SIZE": 0,
        "DETECTION_ROUND_BOXES": True,
    }


def test_what_another_program_set_is_taken_back():
    """A preset says only what differs from the defaults; the rest is the default, not what stood there before."""
    changed = changes(Matterport(), bound_settings(source_of(Torchvision), PARTS, 3, DEFAULTS))
    assert changed["BACKBONE_STEM_PADDING"] == "torch" and changed["MEAN_PIXEL"] is None
    assert changed["RPN_CHANNELS"] == 256 and changed["ROI_ALIGNED"] is False
    assert not {"NUM_CLASSES", "IMAGE_RESIZE_MODE", "DETECTION_NMS_THRESHOLD", "RPN_ANCHOR_SCALES"} & set(changed)


def test_only_the_parts_that_are_loaded_bring_settings():
    source = source_of(Matterport)
    for parts, there, gone in (
        (["backbone"], "MEAN_PIXEL", "IMAGE_RESIZER"),
        (["trunk"], "IMAGE_RESIZER", "ROI_"),
        (["rpn"], "RPN_CHANNELS", "ROI_"),
        (["mask_head"], "MASK_POOL_SIZE", "RPN_"),
    ):
        names = set(bound_settings(source, parts, 3, DEFAULTS))
        assert there in names and not any(name.startswith(gone) for name in names)
    assert bound_settings(source, [], 3, DEFAULTS) == {}
    assert bound_settings(Source(OWN, {}), PARTS, 3, DEFAULTS) == {}, "a checkpoint without settings says nothing"


def test_the_same_pixels_said_otherwise_are_no_change():
    """None stands for what the backbone expects; lists and tuples are alike."""
    config = Config(MEAN_PIXEL=[123.675, 116.28, 103.53], CHANNEL_ORDER="rgb", BBOX_STD_DEV=(0.1, 0.1, 0.2, 0.2))
    assert changes(config, bound_settings(Source("x", {}, {"BACKBONE": "resnet101"}), PARTS, 3, DEFAULTS)) == {}
    assert changes(config, {"MEAN_PIXEL": [0, 0, 0]}) == {"MEAN_PIXEL": [0, 0, 0]}


@pytest.mark.parametrize("channels, mean", [(1, (114.8,)), (2, (114.8,) * 2), (4, (123.7, 116.8, 103.9, 114.8))])
def test_pixels_of_more_or_fewer_channels(channels, mean):
    source = source_of(Matterport)
    bound = bound_settings(source, PARTS, channels, DEFAULTS)
    assert bound["MEAN_PIXEL"] == pytest.approx(mean) and bound["PIXEL_STD"] == (1.0,) * channels
    assert bound["IMAGE_PAD_PIXEL"] == (0,) * channels
    bound = bound_settings(source_of(Torchvision), PARTS, 4, DEFAULTS)  # which says None
    assert bound["MEAN_PIXEL"] == pytest.approx((123.675, 116.28, 103.53, 114.495)) and "IMAGE_PAD_PIXEL" in bound
    assert bound["IMAGE_PAD_PIXEL"] is None


# The backbone


@pytest.mark.parametrize(
    "theirs, their_options, ours, options",
    [
        ("resnet50", {}, "resnet50", {"width": 64}),
        ("resnet50", {"width": 8}, "ResNet50", {"groups": 1, "width": 8}),
        ("mobilenet", {"alpha": 0.5}, "MobileNet", {"alpha": 0.5}),
        ("resnet50v2", {}, "resnet50_v2", {}),
    ],
)
def test_backbones_that_are_the_same(theirs, their_options, ours, options):
    source = Source("x", {}, {"BACKBONE": theirs, "BACKBONE_OPTIONS": their_options})
    assert check_backbone(source, "a.h5", ours, options) is None, "it raises for others, as below"


@pytest.mark.parametrize(
    "ours, options, said",
    [
        ("resnet101", {}, "'resnet101'; nothing"),
        ("resnet50", {"width": 8}, "'resnet50' with {'width': 8}; nothing"),
        ("resnet50v2", {}, "'resnet50v2'"),
        (lambda image: image, {}, "the function <lambda>"),
    ],
)
def test_backbones_that_are_not(ours, options, said):
    source = Source("x", {}, {"BACKBONE": "resnet50"})
    with pytest.raises(ValueError, match=f"holds a trunk 'resnet50', but the model's BACKBONE is {said}") as raised:
        check_backbone(source, "a.h5", ours, options)
    assert "MaskRCNN.from_pretrained" in str(raised.value) and "BACKBONE_OPTIONS = {}" in str(raised.value)


def test_a_function_is_told_by_its_layers_alone():
    assert check_backbone(Source(OWN, {}, {"BACKBONE": "tiny"}), "a.h5", lambda image: image, {}) is None
    assert check_backbone(Source(OWN, {}), "a.h5", "resnet50", {}) is None


# The settings of a model that is built for a file


class Mine(Config):
    """What a user set."""

    NAME = "mine"
    NUM_CLASSES = 3
    DETECTION_MIN_CONFIDENCE = 0.6
    ROI_ALIGNED = True
    RPN_CHANNELS = 64


def test_a_file_s_settings_then_the_user_s_then_overrides():
    source = source_of(Torchvision, BACKBONE="resnet50", RPN_CHANNELS=256)
    alone = Config(**pretrained_settings(source, "a.pth", None, DEFAULTS, {}))
    assert (alone.NUM_CLASSES, alone.BACKBONE, alone.ROI_ALIGNED) == (91, "resnet50", False)
    settings = pretrained_settings(source, "a.pth", Mine(), DEFAULTS, {"IMAGE_MAX_DIM": 900})
    assert {
        name: settings[name]
        for name in ("NAME", "NUM_CLASSES", "ROI_ALIGNED", "RPN_CHANNELS", "IMAGE_MAX_DIM", "DETECTION_MIN_CONFIDENCE")
    } == {
        "NAME": "mine",
        "NUM_CLASSES": 3,
        "ROI_ALIGNED": False,
        "RPN_CHANNELS": 256,
        "IMAGE_MAX_DIM": 900,
        "DETECTION_MIN_CONFIDENCE": 0.6,
    }
    assert pretrained_settings(source, "a.pth", Mine(), DEFAULTS, {"ROI_ALIGNED": True})["ROI_ALIGNED"] is True


def test_a_trunk_alone_leaves_the_rest_as_it_is_by_default():
    source = source_of(Detectron2, ("backbone",), BACKBONE="resnet101", RPN_CHANNELS=99, IMAGE_CHANNEL_COUNT=3)
    settings = pretrained_settings(source, "a.pkl", None, DEFAULTS, {"NUM_CLASSES": 2})
    assert set(settings) == {*BOUND["backbone"], "BACKBONE", "IMAGE_CHANNEL_COUNT", "NUM_CLASSES"}


def test_a_function_as_backbone_must_be_brought():
    source = Source(OWN, {}, {"BACKBONE": "tiny"})
    with pytest.raises(ValueError, match="a.h5 was saved with the function 'tiny' as BACKBONE.*pass the class"):
        pretrained_settings(source, "a.h5", None, DEFAULTS, {})

    def tiny(image):
        return image

    class Tiny(Config):
        BACKBONE = tiny

    assert Tiny(**pretrained_settings(source, "a.h5", Tiny(), DEFAULTS, {})).BACKBONE is tiny
    assert pretrained_settings(source, "a.h5", None, DEFAULTS, {"BACKBONE": tiny})["BACKBONE"] is tiny

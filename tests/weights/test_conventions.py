"""Which settings come with weights, and which stay the user's."""

import dataclasses

import numpy as np
import pytest

from mrcnn.config import Config, setting_names
from mrcnn.presets import Detectron2, Matterport, Torchvision, settings_of
from mrcnn.weights.conventions import (
    BOUND,
    CONTRADICTIONS,
    STRUCTURAL,
    agreed,
    bound_settings,
    changes,
    check_backbone,
    pretrained_config,
)
from mrcnn.weights.source import OWN, PARTS, Source, read

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
    with pytest.raises(ValueError, match=f"contains a trunk 'resnet50', but the model's BACKBONE is {said}") as raised:
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
    MEAN_PIXEL = [43.53, 39.56, 48.22]


def test_a_file_s_settings_then_the_user_s_then_overrides():
    source = source_of(Torchvision, BACKBONE="resnet50", RPN_CHANNELS=256)
    alone = pretrained_config(source, "a.pth", None, DEFAULTS, {})
    assert (alone.NUM_CLASSES, alone.BACKBONE, alone.ROI_ALIGNED) == (91, "resnet50", False)
    assert not alone.explicit()
    for mine in (Mine, Mine()):
        config = pretrained_config(source, "a.pth", mine, DEFAULTS, {"IMAGE_MAX_DIM": 900})
        assert type(config) is Mine and (config.NAME, config.NUM_CLASSES, config.IMAGE_MAX_DIM) == ("mine", 3, 900)
        assert config.ROI_ALIGNED is True and config.MEAN_PIXEL == Mine.MEAN_PIXEL, "explicit, and so it stays"
        assert config.RPN_ANCHOR_ROUNDED is True and config.RPN_CHANNELS == 256, "the file's"
        assert config.explicit() == {*(name for name in vars(Mine) if name.isupper()), "IMAGE_MAX_DIM"}
    overridden = pretrained_config(source, "a.pth", Mine(), DEFAULTS, {"ROI_ALIGNED": False, "SEED": 3})
    assert overridden.ROI_ALIGNED is False and overridden.SEED == 3


def test_a_trunk_alone_leaves_the_rest_as_it_is_by_default():
    source = source_of(Detectron2, ("backbone",), BACKBONE="resnet101", RPN_CHANNELS=99, IMAGE_CHANNEL_COUNT=3)
    config = pretrained_config(source, "a.pkl", None, DEFAULTS, {"NUM_CLASSES": 2})
    assert config.explicit() == {"NUM_CLASSES"} and config.RPN_CHANNELS == 256 and config.CHANNEL_ORDER == "bgr"
    assert config.IMAGE_RESIZER == Config.IMAGE_RESIZER


def test_a_function_as_backbone_must_be_brought():
    source = Source(OWN, {}, {"BACKBONE": "tiny"})
    with pytest.raises(
        ValueError, match="a.h5 was saved with the function 'tiny' as BACKBONE.*pass its configuration class"
    ):
        pretrained_config(source, "a.h5", None, DEFAULTS, {})

    def tiny(image):
        return image

    class Tiny(Config):
        BACKBONE = tiny

    assert pretrained_config(source, "a.h5", Tiny(), DEFAULTS, {}).BACKBONE is tiny
    assert pretrained_config(source, "a.h5", None, DEFAULTS, {"BACKBONE": tiny}).BACKBONE is tiny


# Where a configuration and a file disagree


def agree(config, source, parts=PARTS):
    return agreed(config, source, parts, DEFAULTS, "a.h5")


def test_settings_that_nobody_set_follow_the_file():
    config = Config(NUM_CLASSES=2)
    found = agree(config, source_of(Matterport, BACKBONE="resnet101"))
    assert found.config is not config and config.RPN_CHANNELS == 256, "the user's own object stays as it was"
    assert found.config.RPN_CHANNELS == 512 and found.config.MEAN_PIXEL == (123.7, 116.8, 103.9)
    assert found.config.explicit() == {"NUM_CLASSES"} and not found.kept
    assert found.text.startswith("sets ") and "RPN_CHANNELS 256 -> 512" in found.text
    again = agree(found.config, source_of(Torchvision, BACKBONE="resnet101"))
    assert again.config.RPN_CHANNELS == 256, "what a file brought is no choice of the user's"
    same = agree(again.config, source_of(Torchvision, BACKBONE="resnet101"))
    assert same.config is again.config and not same.text


class Set(Config):
    """A base class for those below, as in old programs."""

    NUM_CLASSES = 2
    BACKBONE = "resnet101"


def by_class(**settings):
    return type("Class", (Set,), settings)()


def by_keyword(**settings):
    return Set(**settings)


def by_assignment(**settings):
    config = Set()
    for name, value in settings.items():
        setattr(config, name, value)
    return config


def in_place(**settings):
    config = Set()
    for name, value in settings.items():
        if isinstance(getattr(config, name), list):
            getattr(config, name)[:] = value
        else:
            setattr(config, name, value)
    return config


# Every setting that a file brings, with a value that no program has.
OTHERWISE = {
    "BACKBONE_STEM_PADDING": "torch",
    "MEAN_PIXEL": [43.53, 39.56, 48.22],
    "PIXEL_STD": [3.0, 4.0, 5.0],
    "CHANNEL_ORDER": "bgr",
    "IMAGE_ANTIALIAS": True,
    "IMAGE_RESIZER": "opencv",
    "IMAGE_PAD_PIXEL": (9, 9, 9),
    "RPN_ANCHOR_SCALES": (8, 16, 32, 64, 128),
    "RPN_ANCHOR_RATIOS": [0.3, 1, 3],
    "RPN_ANCHOR_ROUNDED": True,
    "RPN_ANCHOR_STRIDE": 2,
    "RPN_ANCHOR_STEP_FROM_SIZE": True,
    "RPN_CHANNELS": 99,
    "RPN_CONVOLUTIONS": 3,
    "RPN_BBOX_STD_DEV": [0.2, 0.2, 0.4, 0.4],
    "RPN_CLIP_TO_PHOTOGRAPH": True,
    "RPN_MIN_SIZE": 0.5,
    "BOXES_INCLUSIVE": False,
    "ROI_POOLING": "pool",
    "ROI_REDUCTION": "max",
    "ROI_SAMPLING_RATIO": 3,
    "ROI_ALIGNED": False,
    "ROI_GEOMETRY": "aligned",
    "ROI_LEVEL_ROUNDING": "floor",
    "POOL_SIZE": 5,
    "KEYPOINT_POOL_SIZE": 7,
    "BOX_HEAD_CONVOLUTIONS": 2,
    "BOX_HEAD_FC_LAYERS": 3,
    "FPN_CLASSIF_FC_LAYERS_SIZE": 77,
    "BBOX_STD_DEV": [0.3, 0.3, 0.3, 0.3],
    "DETECTION_MIN_SIZE": 0.5,
    "DETECTION_ROUND_BOXES": False,
    "MASK_POOL_SIZE": 10,
}


@pytest.mark.parametrize("way", [by_class, by_keyword, by_assignment, in_place])
@pytest.mark.parametrize("name", OTHERWISE)
def test_what_somebody_set_stays(name, way):
    parts = (*PARTS, "keypoint_head")
    value, source = OTHERWISE[name], source_of(Matterport, parts, BACKBONE="resnet101")
    found = agree(way(**{name: value}), source, parts)
    assert getattr(found.config, name) == value and name in found.config.explicit()
    assert name not in found.taken and f"keeps your Config's values: {name} {value!r} (the file: " in found.text
    assert found.config.RPN_ANCHOR_RATIO_MEANING == "width/height", "all else follows the file"


@pytest.mark.slow
def test_every_setting_that_a_file_brings_is_tried_above():
    named = {name for group in BOUND.values() for name in group}
    assert named == OTHERWISE.keys() | CONTRADICTIONS.keys()


@pytest.mark.parametrize("way", [by_class, by_keyword, by_assignment])
@pytest.mark.parametrize(
    "name, ours, theirs",
    [("BACKBONE_STRIDE_IN_1X1", False, True), ("RPN_ANCHOR_RATIO_MEANING", "height/width", "width/height")],
)
def test_what_would_make_nonsense_of_the_weights_raises_and_names_both(name, ours, theirs, way):
    with pytest.raises(ValueError, match=f"a.h5 .*was made with {name} = {theirs!r}, but your .* sets {ours!r}: the"):
        agree(way(**{name: ours}), source_of(Matterport, BACKBONE="resnet101"))
    assert agree(way(**{name: theirs}), source_of(Matterport, BACKBONE="resnet101")).config is not None


def test_what_is_not_loaded_contradicts_nothing():
    config = Config(RPN_ANCHOR_RATIO_MEANING="height/width", BACKBONE="resnet101")
    source = source_of(Matterport, BACKBONE="resnet101")
    assert agree(config, source, ["trunk", "box_head"]).config.RPN_ANCHOR_RATIO_MEANING == "height/width"


def test_the_same_anchors_said_otherwise_are_no_contradiction():
    source = source_of(Matterport, BACKBONE="resnet101", RPN_ANCHOR_RATIOS=[1])
    one = Set(RPN_ANCHOR_RATIOS=[1], RPN_ANCHOR_RATIO_MEANING="height/width")
    assert agree(one, source).config.RPN_ANCHOR_RATIO_MEANING == "height/width"
    turned = Set(RPN_ANCHOR_RATIOS=[2, 1, 0.5], RPN_ANCHOR_RATIO_MEANING="height/width")
    assert "RPN_ANCHOR" not in agree(turned, source_of(Matterport, BACKBONE="resnet101")).text


def test_a_convention_that_the_file_does_not_show_is_the_user_s_to_know():
    """A Detectron2 training may have begun with torchvision's trunk; its file does not say so."""
    source = dataclasses.replace(source_of(Detectron2, BACKBONE="resnet101"), assumed=("BACKBONE_STRIDE_IN_1X1",))
    found = agree(Set(BACKBONE_STRIDE_IN_1X1=False), source)
    assert found.config.BACKBONE_STRIDE_IN_1X1 is False and "BACKBONE_STRIDE" not in found.text


def test_none_for_pixels_is_nobody_s_choice():
    found = agree(Set(MEAN_PIXEL=None), source_of(Matterport, BACKBONE="resnet101"))
    assert found.config.MEAN_PIXEL == (123.7, 116.8, 103.9) and not found.kept


def tensors():
    rng = np.random.default_rng(0)
    shapes = {
        "trunk/conv1/kernel": (7, 7, 3, 4),
        "rpn/rpn_bbox_pred/kernel": (1, 1, 5, 12),
        "rpn/rpn_bbox_pred/bias": (12,),
        "box_head/mrcnn_bbox_fc/kernel": (5, 8),
        "box_head/mrcnn_bbox_fc/bias": (8,),
    }
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def test_weights_follow_the_scale_of_deltas_that_stays():
    """Deltas times the deviation are the same offsets as before."""
    source = dataclasses.replace(source_of(Matterport, BACKBONE="resnet101"), tensors=tensors())
    ours = np.float32([0.2, 0.4, 1.0, 2.0])
    found = agree(Set(RPN_BBOX_STD_DEV=list(ours), BBOX_STD_DEV=list(ours)), source).source.tensors
    for name, theirs in source.tensors.items():
        before, after = read(theirs), read(found[name])
        if name.startswith("trunk"):
            np.testing.assert_array_equal(after, before)
            continue
        expected = (before.reshape(-1, 4) * np.float32([0.1, 0.1, 0.2, 0.2])).reshape(before.shape)
        np.testing.assert_allclose((after.reshape(-1, 4) * ours).reshape(after.shape), expected, rtol=1e-6)


@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("their_order", ["rgb", "bgr"])
def test_weights_follow_the_pixels_that_stay(order, their_order):
    """What the first layer computes of an image less the mean is the same."""
    source = source_of(Matterport, BACKBONE="resnet101", CHANNEL_ORDER=their_order, PIXEL_STD=(1.0, 2.0, 4.0))
    source = dataclasses.replace(source, tensors=tensors())
    config = agree(Set(CHANNEL_ORDER=order, PIXEL_STD=(57.0, 58.0, 59.0)), source)
    pixels = np.random.default_rng(1).normal(size=3).astype(np.float32)  # RGB

    def features(kernel, std, order):
        return (pixels / std)[:: -1 if order == "bgr" else 1] @ read(kernel)[3, 3]

    name = "trunk/conv1/kernel"
    np.testing.assert_allclose(
        features(config.source.tensors[name], np.float32([57, 58, 59]), order),
        features(source.tensors[name], np.float32([1, 2, 4]), their_order),
        rtol=1e-5,
    )


def test_settings_that_keep_shapes_from_fitting_are_in_the_message():
    found = agree(Set(RPN_CHANNELS=99, ROI_ALIGNED=False), source_of(Matterport, BACKBONE="resnet101"))
    assert found.mismatch == "Your Config sets RPN_CHANNELS = 99; the file has 512.\n"

"""Config: computed values, what it refuses and with which words, and its way through json."""

import functools
import json
import math
import re
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrcnn.config import COMPUTED, LOSS_NAMES, REMOVED, Config, setting_names
from mrcnn.config_checks import COUNTS, COUNTS_OR_ZERO, SHARES


def some_backbone(image):
    return image


class FruitConfig(Config):
    NAME = "fruit"
    NUM_CLASSES = 4
    BACKBONE = some_backbone
    IMAGE_MIN_DIM = 320
    IMAGE_MAX_DIM = 500
    MEAN_PIXEL = np.array([123.7, 116.8, 103.9])


def test_computed_values_follow_the_settings():
    config = Config(GPU_COUNT=2, IMAGES_PER_GPU=3, IMAGE_MIN_DIM=320, IMAGE_MAX_DIM=500)
    assert config.BATCH_SIZE == 6
    assert config.IMAGE_SHAPE == (512, 512, 3)  # padded to a multiple of 32
    config.IMAGES_PER_GPU, config.IMAGE_MAX_DIM, config.IMAGE_CHANNEL_COUNT = 1, 512, 4
    assert config.BATCH_SIZE == 2
    assert config.IMAGE_SHAPE == (512, 512, 4)


def test_crop_mode_trains_on_squares_of_the_shorter_side():
    assert Config(IMAGE_RESIZE_MODE="crop", IMAGE_MIN_DIM=256, IMAGE_MAX_DIM=1024).IMAGE_SHAPE == (256, 256, 3)


def test_an_unset_size_is_none_rather_than_a_guess():
    assert Config(IMAGE_RESIZE_MODE="none", IMAGE_MIN_DIM=None, IMAGE_MAX_DIM=None).IMAGE_SHAPE == (None, None, 3)


def test_keyword_arguments_win_over_the_class_and_leave_it_alone():
    assert FruitConfig(NUM_CLASSES=7).NUM_CLASSES == 7
    assert FruitConfig().NUM_CLASSES == 4
    assert Config().NUM_CLASSES == 1


def test_lists_and_dicts_of_one_object_are_its_own():
    first, second = Config(), Config()
    first.LOSS_WEIGHTS["mrcnn_mask_loss"] = 2.0
    first.RPN_ANCHOR_RATIOS.append(3)
    assert second.LOSS_WEIGHTS["mrcnn_mask_loss"] == 1.0
    assert Config().RPN_ANCHOR_RATIOS == [0.5, 1, 2]


def test_a_misspelled_setting_names_its_neighbor_wherever_it_stands():
    with pytest.raises(ValueError, match=r"class Wrong: there is no setting 'NUM_CLASES'. Did you mean NUM_CLASSES"):

        class Wrong(Config):
            NUM_CLASES = 3

    with pytest.raises(ValueError, match=r"FruitConfig\(\.\.\.\).*'LERNING_RATE'.*LEARNING_RATE"):
        FruitConfig(LERNING_RATE=0.1)
    config = Config()
    with pytest.raises(ValueError, match="'IMAGE_MAXDIM'.*IMAGE_MAX_DIM"):
        config.IMAGE_MAXDIM = 3
    with pytest.raises(ValueError, match="'QWXZJ'. Config in mrcnn/config.py lists them all"):
        Config(QWXZJ=1)


def test_new_names_that_resemble_no_setting_are_the_users_own_constants(capsys):
    class Old(FruitConfig):
        EPOCHS = 30
        TILES = (2, 3)

        def __init__(self, count):
            self.N = count
            self.NUM_CLASSES = count  # before super().__init__(), as some programs have it
            super().__init__()
            self.output_folder = "out"

    config = Old(5)
    assert [config.EPOCHS, config.TILES, config.N, config.NUM_CLASSES, config.output_folder] == [
        30,
        (2, 3),
        5,
        5,
        "out",
    ]
    assert "EPOCHS" not in config.to_dict()
    config.display()
    assert "EPOCHS                         30" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["num_clases", "learning_rate", "IMAGE_MAX_DIMS", "BATCH_SIZ", "NUM_CLASS"])
def test_names_on_instances_that_resemble_a_setting_raise(name):
    with pytest.raises(ValueError, match=f"there is no setting '{name}'. Did you mean"):
        setattr(Config(), name, 3)


@pytest.mark.parametrize("name", ["EPOCHS", "TILES", "N", "STEPS", "NUM_EPOCHS", "IMAGE_HEIGHT", "TILE_SIZE", "epochs"])
def test_names_that_programs_of_the_old_package_use_resemble_no_setting(name):
    config = Config()
    setattr(config, name, 3)
    assert getattr(config, name) == 3


def test_a_batch_size_in_a_class_body_has_no_effect_and_says_so_where_it_contradicts():
    class Same(Config):
        BATCH_SIZE = 2

    class Other(Config):
        BATCH_SIZE = 8
        IMAGE_SHAPE = np.array([1344, 1344, 3])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Same().BATCH_SIZE == 2
    with pytest.warns(UserWarning, match="Other.BATCH_SIZE = 8 has no effect.* BATCH_SIZE is 2; it is IMAGES_PER_GPU"):
        assert Other().BATCH_SIZE == 2
    config = Same(IMAGES_PER_GPU=4, GPU_COUNT=2)
    config.BATCH_SIZE = config.IMAGES_PER_GPU * config.GPU_COUNT
    assert config.BATCH_SIZE == 8


def test_explicit_settings_are_those_of_class_bodies_keywords_and_assignments():
    class Apples(FruitConfig):
        LEARNING_RATE = Config.LEARNING_RATE  # explicit, although it is the default

    config = Apples(WEIGHT_DECAY=0.5)
    fruit = {"NAME", "NUM_CLASSES", "BACKBONE", "IMAGE_MIN_DIM", "IMAGE_MAX_DIM", "MEAN_PIXEL"}
    assert config.explicit() == {*fruit, "LEARNING_RATE", "WEIGHT_DECAY"}
    config.SEED = 3
    config.LOSS_WEIGHTS["mrcnn_mask_loss"] = 2.0
    assert config.explicit() == {*fruit, "LEARNING_RATE", "WEIGHT_DECAY", "SEED", "LOSS_WEIGHTS"}
    assert Config().explicit() == set()
    assert Config(IMAGE_RESIZE_MODE="square", IMAGE_MIN_DIM=300).explicit() == {"IMAGE_RESIZE_MODE", "IMAGE_MIN_DIM"}


def test_adopted_settings_are_in_the_copy_alone_and_not_explicit():
    config = FruitConfig()
    adopted = config.adopt({"RPN_BBOX_STD_DEV": [0.1, 0.1, 0.2, 0.2], "NUM_CLASSES": 7})
    assert [adopted.NUM_CLASSES, config.NUM_CLASSES] == [7, 4]
    assert config.RPN_BBOX_STD_DEV == Config.RPN_BBOX_STD_DEV
    assert adopted.explicit() == config.explicit()
    adopted.ROI_ALIGNED = False
    assert adopted.explicit() - config.explicit() == {"ROI_ALIGNED"}
    with pytest.raises(ValueError, match="there is no setting 'NUM_CLASES'"):
        config.adopt({"NUM_CLASES": 2})


def test_a_stored_configuration_is_explicit_where_it_differs_from_its_class():
    assert Config.from_dict(Config(NUM_CLASSES=3).to_dict()).explicit() == {"NUM_CLASSES"}


@pytest.mark.parametrize(
    "mode, name, size, rounded",
    [
        ("square", "IMAGE_MAX_DIM", 1333, 1344),
        ("crop", "IMAGE_MIN_DIM", 250, 256),
        ("square", "IMAGE_MAX_DIM", 1024, 1024),
    ],
)
def test_sizes_are_rounded_up_to_a_multiple_of_32_and_say_so(capsys, mode, name, size, rounded):
    config = Config(IMAGE_RESIZE_MODE=mode, **{name: size})
    assert getattr(config, name) == rounded
    said = "" if size == rounded else f"{name} = {size} is rounded up to {rounded}, the next multiple of 32.\n"
    assert capsys.readouterr().out == said


def test_methods_and_lower_case_names_are_no_settings():
    class Helpful(Config):
        note = "free text"

        def area(self):
            return self.IMAGE_MAX_DIM**2

    assert Helpful(IMAGE_MAX_DIM=1024).area() == 1024**2


@pytest.mark.parametrize("name", REMOVED)
def test_settings_of_the_old_package_that_are_gone_say_why_and_what_to_do(name):
    with pytest.raises(ValueError, match=f"{name} of the old package is gone: .*; drop it"):
        type("Old", (Config,), {name: None})
    with pytest.raises(ValueError, match=f"{name} of the old package is gone"):
        Config(**{name: None})


@pytest.mark.parametrize("name", COMPUTED)
def test_computed_settings_cannot_be_set_and_name_those_that_can(name):
    for attempt in (lambda: Config(**{name: 3}), lambda: setattr(Config(), name, 3)):
        with pytest.raises(ValueError, match=f"{name} cannot be set: it .*; set those"):
            attempt()


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [0, -1, 1.5, "2", None, True])
def test_counts_are_whole_numbers_from_one(name, value):
    with pytest.raises(ValueError, match=re.escape(f"{name} must be an integer of 1 or more, got {value!r}")):
        Config(**{name: value})


@pytest.mark.parametrize("name", COUNTS_OR_ZERO)
@pytest.mark.parametrize("value", [-1, 1.5, "2", None, True, False])
def test_counts_that_may_be_zero(name, value):
    assert [getattr(Config(**{name: good}), name) for good in (0, 1, 5)] == [0, 1, 5]
    with pytest.raises(ValueError, match=re.escape(f"{name} must be an integer of 0 or more, got {value!r}")):
        Config(**{name: value})


@pytest.mark.parametrize("name", SHARES)
@pytest.mark.parametrize("value", [-0.1, 1.1, "half", None, float("nan"), 10**400, {}, []])
def test_shares_lie_between_0_and_1(name, value):
    with pytest.raises(ValueError, match=re.escape(f"{name} must be between 0 and 1, got {value!r}")):
        Config(**{name: value})


@pytest.mark.parametrize("name", setting_names())
def test_values_of_any_type_are_accepted_or_refused(name):
    """A weight file may hold any json as a setting."""
    for value in (None, True, 0, -1, 2**40, 10**400, 0.5, math.inf, "", "x", [], [1], [[1]], [None], {}, {"name": {}}):
        try:
            Config(**{name: value})
        except ValueError as error:
            assert name in str(error)


@pytest.mark.parametrize("name", [name for name in setting_names() if isinstance(getattr(Config, name), bool)])
@pytest.mark.parametrize("value", [None, 1, "yes"])
def test_switches_are_true_or_false(name, value):
    """None trained the BatchNorm in the old package; here it must not freeze it in silence."""
    with pytest.raises(ValueError, match=f"{name} must be True or False, got {value!r}"):
        Config(**{name: value})
    assert getattr(Config(**{name: np.bool_(True)}), name)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"STEPS_PER_EPOCH": 0}, "STEPS_PER_EPOCH must be an integer of 1 or more, or None, got 0"),
        ({"IMAGE_MAX_DIM": "512"}, "IMAGE_MAX_DIM must be an integer .* got '512'"),
        ({"IMAGE_MAX_DIM": 0}, "IMAGE_MAX_DIM must be an integer .* got 0"),
        ({"LEARNING_RATE": -1}, "LEARNING_RATE must be a number of 0 or more, got -1"),
        ({"LEARNING_RATE": "1e-3"}, "LEARNING_RATE must be a number of 0 or more, got '1e-3'"),
        ({"GRADIENT_CLIP_NORM": 0}, "GRADIENT_CLIP_NORM must be a number above 0, or None for no clipping, got 0"),
        ({"PRECISION": "float16"}, r"PRECISION must be one of \('float32', 'bfloat16', 'auto'\), got 'float16'"),
        ({"LR_SCHEDULE": "linear"}, "LR_SCHEDULE must be one of .* got 'linear'"),
        ({"LR_STEPS": (40, 120)}, r"LR_STEPS must be fractions of training between 0 and 1 .* got \(40, 120\)"),
        ({"LR_STEPS": 0.75}, "LR_STEPS must be fractions .* got 0.75"),
        ({"IMAGE_RESIZE_MODE": "squre"}, "IMAGE_RESIZE_MODE must be one of .* got 'squre'"),
        ({"CHANNEL_ORDER": "BGR"}, "CHANNEL_ORDER must be one of .* got 'BGR'"),
        ({"RPN_ANCHOR_SCALES": (32, 64, 128)}, r"RPN_ANCHOR_SCALES must be 5 sizes, one for each of P2..P6, got \(32,"),
        (
            {"RPN_ANCHOR_RATIOS": []},
            r"RPN_ANCHOR_RATIOS must be one or more positive numbers, height / width, got \[\]",
        ),
        ({"BACKBONE_STRIDES": [4, 8, 16, 32]}, r"BACKBONE_STRIDES must be \[4, 8, 16, 32, 64\]"),
        ({"BBOX_STD_DEV": [0.1, 0.1, 0.2]}, "BBOX_STD_DEV must be 4 positive numbers"),
        ({"RPN_BBOX_STD_DEV": [0.1, 0.1, 0.2, 0]}, "RPN_BBOX_STD_DEV must be 4 positive numbers"),
        ({"MINI_MASK_SHAPE": 56}, r"MINI_MASK_SHAPE must be \(height, width\), two integers of 1 or more, got 56"),
        (
            {"SCALE_JITTER": (2.0, 0.1)},
            r"SCALE_JITTER must be None, or the smallest and the largest factor.* got \(2.0",
        ),
        ({"LOSS_WEIGHTS": {"mask": 1}}, "LOSS_WEIGHTS must be a dict with keys .*mrcnn_mask_loss.* got {'mask': 1}"),
        ({"IMAGE_RESIZER": "pil"}, r"IMAGE_RESIZER must be one of \('opencv', 'skimage', 'pillow'\), got 'pil'"),
        ({"RPN_MIN_SIZE": -1}, "RPN_MIN_SIZE must be a number of 0 or more, got -1"),
        ({"DETECTION_MIN_SIZE": None}, "DETECTION_MIN_SIZE must be a number of 0 or more, got None"),
        (
            {"IMAGE_PAD_PIXEL": (0, 0)},
            r"IMAGE_PAD_PIXEL must be None, or a number for each .* = 3 channels, got \(0, 0\)",
        ),
        ({"IMAGE_PAD_PIXEL": 0}, "IMAGE_PAD_PIXEL must be None, or a number for each .* got 0"),
        ({"SIZE_DIVISOR": 48}, "SIZE_DIVISOR must be a multiple of 32, the stride of C5, got 48"),
    ],
)
def test_an_impossible_setting_names_itself_its_value_and_the_way_out(wrong, message):
    with pytest.raises(ValueError, match=message):
        Config(**wrong)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"RPN_NEGATIVE_OVERLAP": 0.8}, r"RPN_NEGATIVE_OVERLAP must be at most RPN_POSITIVE_OVERLAP \(0.7\), got 0.8"),
        ({"IMAGE_MIN_DIM": 900, "IMAGE_MAX_DIM": 512}, r"IMAGE_MIN_DIM must be at most IMAGE_MAX_DIM \(512\), got 900"),
        ({"IMAGE_MAX_DIM": None}, 'IMAGE_MAX_DIM must be a number when IMAGE_RESIZE_MODE is "fit", got None'),
        (
            {"IMAGE_CHANNEL_COUNT": 4, "MEAN_PIXEL": (1, 2, 3)},
            r"MEAN_PIXEL must be None, or a number for each of the IMAGE_CHANNEL_COUNT = 4 channels, got \(1, 2, 3\)",
        ),
        ({"PIXEL_STD": (1, 0, 1)}, "PIXEL_STD must be None, or a number for each"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Config(**wrong)


def test_a_class_is_checked_when_it_is_made_into_an_object():
    class Impossible(Config):
        NUM_CLASSES = 0

    with pytest.raises(ValueError, match="NUM_CLASSES must be an integer of 1 or more, got 0"):
        Impossible()


def test_numbers_of_numpy_are_numbers():
    config = Config(NUM_CLASSES=np.int64(3), LEARNING_RATE=np.float32(0.5), RPN_ANCHOR_SCALES=np.arange(1, 6))
    assert json.loads(json.dumps(config.to_dict()))["NUM_CLASSES"] == 3
    assert config.to_dict()["RPN_ANCHOR_SCALES"] == [1, 2, 3, 4, 5]


def plain(values):
    """As json gives it back: tuples are lists."""
    return json.loads(json.dumps(values))


def test_json_round_trip(tmp_path):
    path = tmp_path / "config.json"
    config = FruitConfig(LR_STEPS=(0.5, 0.75), MASK_HEAD={"name": "unet", "depth": 2}, SCALE_JITTER=(0.5, 2.0))
    config.save(path)
    loaded = Config.load(path)
    assert loaded.to_dict() == plain(config.to_dict())
    assert loaded.BACKBONE == "some_backbone"
    assert set(loaded.to_dict()) == set(setting_names())
    assert [loaded.BATCH_SIZE, loaded.IMAGE_SHAPE] == [config.BATCH_SIZE, config.IMAGE_SHAPE]
    assert path.read_text().count("\n") > len(setting_names()), "one setting a line, for people"


@pytest.mark.slow
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "NUM_CLASSES": st.integers(1, 100),
            "LEARNING_RATE": st.floats(0, 1),
            "IMAGES_PER_GPU": st.integers(1, 16),
            "RPN_ANCHOR_SCALES": st.tuples(*[st.floats(1, 512)] * 5),
            "HORIZONTAL_FLIP": st.floats(0, 1),
            "LOSS_WEIGHTS": st.fixed_dictionaries({name: st.floats(0, 9) for name in LOSS_NAMES}),
            "MASK_HEAD": st.sampled_from(["fcn", {"name": "unet"}]),
            "SCALE_JITTER": st.none() | st.just((0.1, 2.0)),
        },
    )
)
def test_any_valid_settings_survive_json_and_validate_again(overrides):
    config = Config(**overrides)
    again = Config.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again.to_dict() == plain(config.to_dict())


def test_a_stored_configuration_finds_the_callable_backbone_of_its_class():
    stored = plain(FruitConfig().to_dict())
    assert FruitConfig(**stored).BACKBONE is some_backbone
    assert FruitConfig(**{**stored, "BACKBONE": "resnet50"}).BACKBONE == "resnet50"


def test_a_callable_without_a_name_is_stored_by_its_type():
    assert Config(BACKBONE=functools.partial(some_backbone, 1)).to_dict()["BACKBONE"] == "partial"


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "is not a json file of settings"),
        ("[1, 2]", "must contain a json object of settings, got a list"),
        ('{"NUM_CLASES": 2}', "there is no setting 'NUM_CLASES'. Did you mean NUM_CLASSES"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, text, message):
    path = tmp_path / "settings.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        Config.load(path)


def test_a_binary_file_is_no_configuration(tmp_path):
    path = tmp_path / "weights.h5"
    path.write_bytes(b"\x89HDF\xff\xfe")
    with pytest.raises(ValueError, match="weights.h5 is not a json file of settings"):
        Config.load(path)


def test_display_prints_every_setting(capsys):
    FruitConfig().display()
    printed = capsys.readouterr().out
    lines = dict(line.split(None, 1) for line in printed.splitlines() if " " in line)
    assert set(lines) == {*setting_names(), *COMPUTED}
    assert lines["NUM_CLASSES"] == "4"
    assert lines["BATCH_SIZE"] == "2"


@pytest.mark.parametrize(
    "setting, message",
    [
        ({"RPN_ANCHOR_RATIO_MEANING": "h/w"}, "RPN_ANCHOR_RATIO_MEANING must be one of .*got 'h/w'"),
        ({"SEED": -1}, "SEED must be an integer of 0 or more, got -1"),
        ({"SEED": None}, "SEED must be an integer of 0 or more, got None"),
        ({"LOSS_WEIGHTS": dict.fromkeys(LOSS_NAMES, "x")}, "LOSS_WEIGHTS must be a dict with keys"),
        ({"IMAGE_MIN_SCALE": -1}, "IMAGE_MIN_SCALE must be a number of 0 or more"),
        ({"BACKBONE_OPTIONS": [1]}, "BACKBONE_OPTIONS must be a dict"),
        ({"PHOTOMETRIC_DISTORTION": True, "IMAGE_CHANNEL_COUNT": 4}, "PHOTOMETRIC_DISTORTION must be False with"),
    ],
)
def test_what_would_fail_later_fails_at_once(setting, message):
    with pytest.raises(ValueError, match=message):
        Config(**setting)


def test_a_setting_assigned_later_is_checked_when_asked():
    config = Config()
    config.ROI_POSITIVE_RATIO = 2
    with pytest.raises(ValueError, match="ROI_POSITIVE_RATIO must be between 0 and 1, got 2"):
        config.validate()


def test_numpy_numbers_anywhere_are_saved(tmp_path):
    config = Config(LOSS_WEIGHTS={name: np.float32(2) for name in LOSS_NAMES}, MINI_MASK_SHAPE=(np.int64(28), 28))
    config.save(tmp_path / "config.json")
    assert Config.load(tmp_path / "config.json").to_dict() == config.to_dict()


def test_a_function_in_a_mixin_is_a_setting_too():
    class Small:
        def BACKBONE(image):
            return [image]

    class Cats(Small, Config):
        NAME = "cats"

    class More(Cats):
        NUM_CLASSES = 2

    assert Cats().BACKBONE(1) == More().BACKBONE(1) == [1] and "BACKBONE" in More().explicit()

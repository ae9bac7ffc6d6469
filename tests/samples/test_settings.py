"""What the shared flags mean for a configuration."""

import argparse

import keras
import pytest

from mrcnn.config import Config
from mrcnn.weights.source import Source
from samples import weights
from samples.settings import add_settings, configure, mask_head
from samples.weights import coco_weights, stored_settings


class SampleConfig(Config):
    BACKBONE = "mobilenet"
    BACKBONE_OPTIONS = {"alpha": 0.75}
    MASK_HEAD = {"name": "fcn", "filters": 64}


def settings(*flags, sample=SampleConfig):
    parser = argparse.ArgumentParser()
    add_settings(parser)
    return configure(sample, parser.parse_args(flags))


@pytest.mark.parametrize(
    "flags, backbone, options",
    [
        ([], "mobilenet", {"alpha": 0.75}),
        (["--backbone-option", "alpha=0.5"], "mobilenet", {"alpha": 0.5}),
        (["--backbone", "resnet50"], "resnet50", {}),
        (["--backbone", "mobilenet"], "mobilenet", {}),
        (["--backbone", "mobilenetv2", "--backbone-option", "alpha=0.35"], "mobilenetv2", {"alpha": 0.35}),
    ],
)
def test_options_of_the_sample_s_backbone_do_not_reach_another(flags, backbone, options):
    config = settings(*flags)
    assert (config.BACKBONE, config.BACKBONE_OPTIONS) == (backbone, options)
    assert SampleConfig.BACKBONE_OPTIONS == {"alpha": 0.75}


@pytest.mark.parametrize(
    "flags, head",
    [
        ([], {"name": "fcn", "filters": 64}),
        (["--head-option", "filters=8"], {"name": "fcn", "filters": 8}),
        (["--head-option", "convolutions=2"], {"name": "fcn", "filters": 64, "convolutions": 2}),
        (["--head", "unet"], {"name": "unet"}),
        (["--head", "unet", "--head-option", "filters=8"], {"name": "unet", "filters": 8}),
    ],
)
def test_head_options_alone_change_the_head_there_is(flags, head):
    assert settings(*flags).MASK_HEAD == head
    assert SampleConfig.MASK_HEAD == {"name": "fcn", "filters": 64}


def test_head_options_join_a_head_given_by_name_alone():
    assert settings("--head-option", "filters=8", sample=Config).MASK_HEAD == {"name": Config.MASK_HEAD, "filters": 8}


def test_flags_override_the_settings_of_an_earlier_run(tmp_path):
    SampleConfig(MASK_HEAD={"name": "unet", "filters": 16}, SEED=4, LEARNING_RATE=0.5).save(tmp_path / "config.json")
    config = settings("--config", str(tmp_path / "config.json"), "--head-option", "filters=8", "--seed", "5")
    assert config.MASK_HEAD == {"name": "unet", "filters": 8}
    assert (config.SEED, config.LEARNING_RATE, config.BACKBONE_OPTIONS) == (5, 0.5, {"alpha": 0.75})


@pytest.mark.parametrize(
    "text, head",
    [
        ("unet", {"name": "unet"}),
        ("unet:filters=8", {"name": "unet", "filters": 8}),
        ("fcn:normalization=group,filters=8", {"name": "fcn", "normalization": "group", "filters": 8}),
        ("fcn:sizes=(1, 2),filters=8", {"name": "fcn", "sizes": (1, 2), "filters": 8}),
    ],
)
def test_a_head_may_bring_its_options(text, head):
    assert mask_head(text) == head
    assert settings("--head", text, "--head-option", "more=1").MASK_HEAD == {**head, "more": 1}


@pytest.mark.parametrize(
    "text, message",
    [("fnc", "invalid choice: 'fnc' .choose from .*fcn, .*unet"), ("unet:8", "expected NAME=VALUE, got '8'")],
)
def test_a_wrong_head_is_named(text, message):
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        mask_head(text)


def test_several_heads_where_the_command_takes_them():
    parser = argparse.ArgumentParser()
    add_settings(parser, several_heads=True)
    parsed = parser.parse_args(["--head", "fcn", "--head", "unet:filters=8"])
    assert parsed.head == [{"name": "fcn"}, {"name": "unet", "filters": 8}]


def test_settings_that_are_given_go_between_those_of_the_sample_and_the_flags():
    parser = argparse.ArgumentParser()
    add_settings(parser)
    config = configure(SampleConfig, parser.parse_args(["--seed", "5"]), {"SEED": 4, "LEARNING_RATE": 0.5})
    assert (config.SEED, config.LEARNING_RATE, config.BACKBONE) == (5, 0.5, "mobilenet")


def test_the_old_package_s_weights_are_found_or_it_is_said_where_to_get_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="no mask_rcnn_coco.h5 in .*Download https://github.com/matterport"):
        coco_weights([tmp_path])
    (tmp_path / "mask_rcnn_coco.h5").touch()
    assert coco_weights([tmp_path / "a", tmp_path]) == tmp_path / "mask_rcnn_coco.h5"


def test_settings_beside_weights_go_before_those_inside(tmp_path):
    from mrcnn.weights.checkpoint import save_checkpoint

    path = tmp_path / "x.h5"
    layer = keras.layers.Dense(1)
    layer.build((None, 1))
    save_checkpoint(path, {"a/b": layer}, {"config": {"SEED": 7}})
    assert stored_settings(path, tmp_path, "x") == {"SEED": 7}
    Config(SEED=8).save(tmp_path / "config.json")
    assert stored_settings(path, tmp_path, "x")["SEED"] == 8
    assert stored_settings(tmp_path / "no" / "gone.h5", tmp_path, "x") == {} == stored_settings("none", tmp_path, "x")


def test_another_program_s_weights_bring_its_settings_but_not_its_score_threshold(tmp_path, monkeypatch):
    asked = []

    def read_source(path):
        asked.append(path)
        return Source("another program", {}, {"SIZE_DIVISOR": 64, "DETECTION_MIN_CONFIDENCE": 0.7})

    monkeypatch.setattr(weights, "read_source", read_source)
    monkeypatch.setattr(weights, "coco_weights", lambda: tmp_path / "mask_rcnn_coco.h5")
    assert stored_settings("coco", tmp_path, "x") == {"SIZE_DIVISOR": 64}
    assert stored_settings(tmp_path / "theirs.pth", tmp_path, "x") == {"SIZE_DIVISOR": 64}
    assert asked == [tmp_path / "mask_rcnn_coco.h5", tmp_path / "theirs.pth"]

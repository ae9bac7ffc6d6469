"""What the shared flags mean for a configuration."""

import argparse

import pytest

from mrcnn.config import Config
from samples.settings import add_settings, configure


class SampleConfig(Config):
    BACKBONE = "mobilenet"
    BACKBONE_OPTIONS = {"alpha": 0.75}
    MASK_HEAD = {"name": "fcn", "filters": 64}


def settings(*flags, sample=SampleConfig):
    parser = argparse.ArgumentParser()
    add_settings(parser)
    return configure(sample, parser.parse_args(flags))


@pytest.mark.parametrize("flags, backbone, options", [
    ([], "mobilenet", {"alpha": 0.75}),
    (["--backbone-option", "alpha=0.5"], "mobilenet", {"alpha": 0.5}),
    (["--backbone", "resnet50"], "resnet50", {}),
    (["--backbone", "mobilenet"], "mobilenet", {}),
    (["--backbone", "mobilenetv2", "--backbone-option", "alpha=0.35"], "mobilenetv2", {"alpha": 0.35}),
])
def test_options_of_the_sample_s_backbone_do_not_reach_another(flags, backbone, options):
    config = settings(*flags)
    assert (config.BACKBONE, config.BACKBONE_OPTIONS) == (backbone, options)
    assert SampleConfig.BACKBONE_OPTIONS == {"alpha": 0.75}


@pytest.mark.parametrize("flags, head", [
    ([], {"name": "fcn", "filters": 64}),
    (["--head-option", "filters=8"], {"name": "fcn", "filters": 8}),
    (["--head-option", "convolutions=2"], {"name": "fcn", "filters": 64, "convolutions": 2}),
    (["--head", "unet"], {"name": "unet"}),
    (["--head", "unet", "--head-option", "filters=8"], {"name": "unet", "filters": 8}),
])
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

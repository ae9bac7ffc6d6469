"""The notice for a program of the old package that sets nothing, and the defaults it gets."""

import pytest

from mrcnn import presets
from mrcnn.config import Config
from mrcnn.legacy import defaults
from mrcnn.legacy.defaults import mention_defaults


@pytest.fixture(autouse=True)
def anew():
    defaults._say_once.cache_clear()
    yield
    defaults._say_once.cache_clear()


class Plain(Config):
    NAME = "plain"
    NUM_CLASSES = 2
    STEPS_PER_EPOCH = 100


def test_a_program_that_sets_nothing_gets_one_line_once(capsys):
    mention_defaults(Plain())
    mention_defaults(Plain())
    (line,) = capsys.readouterr().out.splitlines()
    assert "mrcnn.presets.Matterport" in line and "docs/coming_from_matterport.md" in line


@pytest.mark.parametrize("name", sorted(defaults.CHANGED))
def test_a_program_that_sets_one_of_them_gets_none(capsys, name):
    mention_defaults(Plain(**{name: getattr(Config, name)}))
    mention_defaults(type("Own", (Plain,), {name: getattr(Config, name)})())
    assert capsys.readouterr().out == ""


def test_those_who_use_no_class_or_a_preset_get_none(capsys):
    mention_defaults(Config(NUM_CLASSES=2))
    mention_defaults(type("Own", (presets.Matterport,), {"NUM_CLASSES": 2})())
    mention_defaults(presets.Matterport())
    assert capsys.readouterr().out == ""


def test_the_line_names_what_changed():
    """Each named setting differs between the defaults and the old package's preset, except the shorter side."""
    old = {name: getattr(presets.Matterport, name) for name in defaults.CHANGED}
    new = {name: getattr(Config, name) for name in defaults.CHANGED}
    assert {name for name in old if old[name] == new[name]} == {"IMAGE_MIN_DIM"}

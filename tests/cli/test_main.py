"""Help on one screen, exit codes, one-line errors, and JSON alone on standard output."""

import argparse
import importlib
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from mrcnn.cli import main as cli
from mrcnn.cli.console import Interrupted, Outcome, one_line

ROOT = Path(__file__).resolve().parents[2]
SCREEN = 80, 40  # columns, lines


@pytest.mark.parametrize("command", [None, *cli.COMMANDS])
def test_help_fits_on_a_screen_and_has_examples(run, capsys, command):
    with pytest.raises(SystemExit) as exit_code:
        run(*([command] if command else []), "--help")
    lines = capsys.readouterr().out.splitlines()
    assert exit_code.value.code == 0
    assert len(lines) <= SCREEN[1] and max(map(len, lines)) <= SCREEN[0]
    assert (
        (f"  mrcnn {command}" in "\n".join(lines))
        if command
        else all(name in "\n".join(lines) for name in cli.COMMANDS)
    )


def test_without_arguments_it_says_what_there_is(run, capsys):
    with pytest.raises(SystemExit):
        run()
    assert "commands:" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("detekt",), "unknown command 'detekt'; choose one of detect, "),
        (("detect",), "the following arguments are required: IMAGE, --weights"),
        (("detect", "a.jpg", "--weights", "w", "--min-score", "2"), "expected a number from 0 to 1, got '2'"),
        (("detect", "a.jpg", "--weights", "w", "--write", "maps"), "expected some of pictures,cutouts,json,csv"),
        (("detect", "a.jpg", "--weights", "w", "--batch", "0"), "expected an integer >= 1, got '0'"),
        (("detect", "a.jpg", "--weights", "w", "--tile", "5"), "expected pixels of a tile's side, 32 or more, got '5'"),
        (("detect", "a.jpg", "--weights", "w", "--classes", " ,"), "expected names, such as cat,dog, got ' ,'"),
        (("detect", "a.jpg", "--weights", "w", "--write", ","), "expected some of pictures,cutouts,json,csv, got ','"),
        (("compare", "data", "--heads", ","), "expected mask heads such as fcn,unet, got ','"),
        (("compare", "data", "--seeds", ","), "expected integers such as 0,1,2, got ','"),
        (("detect", "a.jpg", "--weights", "w", "--set", "NAME"), "expected NAME=VALUE, got 'NAME'"),
    ],
)
def test_wrong_usage_is_exit_code_2(run, capsys, arguments, message):
    with pytest.raises(SystemExit) as exit_code:
        run(*arguments)
    assert exit_code.value.code == 2 and message in capsys.readouterr().err


class Command:
    """A module of a command whose `run` does what a test wants."""

    USAGE = "mrcnn fake"
    __doc__ = "Does something.\n\nexamples:\n  mrcnn fake"

    def __init__(self, call):
        self.run = lambda arguments: call()

    def add_arguments(self, parser):
        pass


@pytest.fixture
def fake(monkeypatch, run):
    def command(call, *arguments):
        monkeypatch.setitem(cli.COMMANDS, "fake", "does something")
        monkeypatch.setitem(sys.modules, "mrcnn.cli.fake", Command(call))
        return run("fake", *arguments)

    return command


def raising(error):
    def call():
        raise error

    return call


@pytest.mark.parametrize(
    "error, line",
    [
        (ValueError("two\n   lines\n"), "mrcnn fake: error: two lines"),
        (FileNotFoundError("no such file"), "mrcnn fake: error: no such file"),
        (KeyError("rois"), "mrcnn fake: error: KeyError('rois')"),
        (
            ImportError("pip install 'mask-rcnn-keras[video]'"),
            "mrcnn fake: error: pip install 'mask-rcnn-keras[video]'",
        ),
        (ValueError(), "mrcnn fake: error: ValueError"),
        (NotImplementedError("not with tiles"), "mrcnn fake: error: not with tiles"),
        (argparse.ArgumentTypeError("invalid choice"), "mrcnn fake: error: invalid choice"),
        (FileNotFoundError(2, "No such file", "a.json"), "mrcnn fake: error: No such file: 'a.json'"),
    ],
)
def test_an_error_is_one_line_and_exit_code_1(fake, error, line):
    code, out, err = fake(raising(error))
    assert (code, out, err.splitlines()) == (1, "", [line])
    code, out, err = fake(raising(error), "--json")
    assert code == 1 and json.loads(out) == {"error": str(error), "kind": type(error).__name__}
    with pytest.raises(type(error)):
        fake(raising(error), "--debug")


def test_with_json_everything_else_goes_to_standard_error(fake):
    def call():
        print("for people")
        return {"images": 3}

    assert fake(call, "--json")[1:] == ('{\n  "images": 3\n}\n', "for people\n")
    assert fake(call)[1] == "for people\n"


def test_warnings_are_one_line(fake):
    _, _, err = fake(lambda: warnings.warn("look\nhere", stacklevel=1))
    assert err == "mrcnn fake: look here\n"


def test_an_interruption_says_how_to_continue(fake):
    code, _, err = fake(raising(Interrupted("2 of 3 are saved; run the same command to continue")))
    assert code == 130 and err.strip() == "mrcnn fake: interrupted: 2 of 3 are saved; run the same command to continue"
    assert fake(raising(KeyboardInterrupt()))[0] == 130


def test_a_command_may_choose_its_exit_code(fake):
    assert fake(lambda: Outcome({"unreadable": 1}, 3), "--json")[:2] == (3, '{\n  "unreadable": 1\n}\n')


def test_long_messages_are_cut():
    assert one_line("a" * 10_000).endswith(" ...") and len(one_line("a" * 10_000)) < 3000


def test_every_command_is_a_module_with_the_same_parts():
    for name in cli.COMMANDS:
        module = importlib.import_module(f"mrcnn.cli.{name}")
        assert callable(module.run) and callable(module.add_arguments) and "examples:\n" in module.__doc__


def test_python_m_mrcnn_starts_quickly_and_says_nothing_of_tensorflow():
    code = "import sys; from mrcnn.cli.main import main\ntry: main(['--version'])\nfinally: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    loaded = done.stdout.split()
    assert loaded[0] == "mrcnn" and not {"tensorflow", "keras", "numpy", "cv2"} & set(loaded)
    done = subprocess.run(
        [sys.executable, "-m", "mrcnn", "--version"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
    )
    assert done.stdout.startswith("mrcnn ") and done.stderr == ""

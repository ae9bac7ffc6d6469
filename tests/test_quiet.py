"""TensorFlow's startup lines stay off the terminal; everything else is printed."""

import os
import subprocess
import sys

import pytest

from mrcnn.quiet import LOG_LINE, without_log_lines

NOISE = b"I0000 00:00:1795992073.551713   15164 port.cc:153] oneDNN custom operations are on.\n"


def test_only_log_lines_are_held_back(capfd):
    with without_log_lines():
        os.write(2, NOISE + b"E0000 00:00:1.5 1 a.cc:1] an error\nmine\n")
        os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "E0000 00:00:1.5 1 a.cc:1] an error\nmine\nafter\n"


def test_lines_are_printed_when_the_import_fails(capfd):
    with pytest.raises(ImportError), without_log_lines():
        os.write(2, NOISE + b"why it failed\n")
        raise ImportError
    assert capfd.readouterr().err == "why it failed\n"


@pytest.mark.parametrize("line", [b"Traceback (most recent call last):\n", b"I think so\n", b"W0000\n", b"\n"])
def test_other_lines_are_no_log_lines(line):
    assert LOG_LINE.match(NOISE) and not LOG_LINE.match(line)


def run(code, **environment):
    known = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        [sys.executable, "-c", code], env={**known, **environment}, capture_output=True, text=True, check=True
    )


@pytest.mark.slow
def test_a_program_prints_what_it_says_itself():
    code = "import mrcnn.model, tensorflow; print(type(tensorflow.__spec__.loader).__name__); tensorflow.zeros(1) + 1"
    result = run(code)
    assert (result.stdout, result.stderr) == ("SourceFileLoader\n", "")


def test_level_0_shows_everything():
    code = "import os, sys, mrcnn; print(os.environ['TF_CPP_MIN_LOG_LEVEL'], type(sys.meta_path[0]).__name__)"
    level, first = run(code, TF_CPP_MIN_LOG_LEVEL="0").stdout.split()
    assert level == "0" and first != "_QuietImport"

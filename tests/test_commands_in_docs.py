"""Every shell command of the READMEs and the user guide runs as written, or is listed here with what stands for it.

Commands run in a folder where everything that they name exists: tiny data, and weights from files instead of downloads.
Backbones are small, an epoch of training has no steps, and detection finds one box; each sample's tests do all of it.
"""

import argparse
import importlib.util
import json
import os
import re
import runpy
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest

from mrcnn import model
from mrcnn.config import Config
from mrcnn.experiments import costs
from mrcnn.network import backbone
from mrcnn.training.model import TrainingModel
from mrcnn.weights.importers import imagenet
from tests import commands
from tests.commands import PAGES, ROOT, Command
from tests.inference.test_detector import Answering
from tests.samples import test_balloon, test_imaterialist, test_nucleus
from tests.samples.tiny_coco import SETTINGS, write_coco, write_split

SMALL = {
    name: SETTINGS[name]
    for name in (
        "TOP_DOWN_PYRAMID_SIZE",
        "RPN_CHANNELS",
        "FPN_CLASSIF_FC_LAYERS_SIZE",
        "IMAGE_MIN_DIM",
        "IMAGE_MAX_DIM",
        "MASK_HEAD",
        "POST_NMS_ROIS_INFERENCE",
        "PRE_NMS_LIMIT",
        "DETECTION_MAX_INSTANCES",
        "WARMUP_STEPS",
        "LOADER_WORKERS",
    )
}
ALL = [command for page in PAGES for command in commands.commands(page)]


# What runs


def run_sample(words: tuple[str, ...]) -> None:
    """`python samples/NAME/NAME.py ...`. The pages say which file W is."""
    module = importlib.import_module(words[1].removesuffix(".py").replace("/", "."))
    module.main([str(download()) if word == "W" else word for word in words[2:]])


def run_module(words: tuple[str, ...]) -> None:
    """`python -m NAME ...`"""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [words[2], *words[3:]])
        try:
            runpy.run_module(words[2], run_name="__main__")
        except SystemExit as end:
            assert not end.code, f"{' '.join(words)} ends with status {end.code}"


def run_code(words: tuple[str, ...]) -> None:
    """`python -c CODE`"""
    exec(compile(words[2], " ".join(words), "exec"), {})


def run_mrcnn(words: tuple[str, ...]) -> None:
    """`mrcnn ...`"""
    from mrcnn.cli.main import main

    assert main(list(words[1:])) == 0


RUN: list[tuple[str, Callable[[tuple[str, ...]], None]]] = [
    (r"python samples/(balloon|coco|imaterialist|nucleus)/\1\.py ", run_sample),
    (r"python -m mrcnn\.data\.check ", run_module),
    (r"python -c ", run_code),
    (r"mrcnn (heads|weights) $", run_mrcnn),
    (r"mrcnn (check|compare|evaluate|train) \S", run_mrcnn),
]

# What does not run, and what is checked instead


class Accepted(Exception):
    """The command line is understood."""


def outside_pytest(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Imports as in a process of its own that begins in the folder: without pytest's paths, and what they loaded."""
    own = (str(ROOT / "benchmarks"), str(ROOT / "tests"))
    patch.setattr(sys, "path", [str(folder), *(path for path in sys.path if not path.startswith(own))])
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(own) and name != __name__:
            patch.delitem(sys.modules, name)


def accepts(words: tuple[str, ...]) -> None:
    """The script's parser takes the arguments."""
    words = words[[word.startswith("python") for word in words].index(True) + 1 :]
    module = words[0] == "-m"
    script = words[1].replace(".", "/") + ".py" if module else words[0]
    parse = argparse.ArgumentParser.parse_args

    def parse_only(self, *arguments, **options):
        parse(self, *arguments, **options)
        raise Accepted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
        patch.setattr(sys, "argv", [script, *words[2 if module else 1 :]])
        outside_pytest(patch, ROOT if module else (ROOT / script).parent)
        with pytest.raises(Accepted):
            runpy.run_path(str(ROOT / script), run_name="__main__")


def is_subcommand(words: tuple[str, ...]) -> None:
    """`mrcnn` takes the arguments, or has a command of that name."""
    from mrcnn.cli import main

    name = words[1]
    assert name in main.COMMANDS
    if len(words) > 2:
        main._parser(name, importlib.import_module(f"mrcnn.cli.{name}")).parse_args(list(words[2:]))


def names_heads(words: tuple[str, ...]) -> None:
    import heads

    assert set(words[3:]) <= set(heads.names())


def is_ablation(words: tuple[str, ...]) -> None:
    from mrcnn.experiments.ablation import parser

    if len(words) > 3:  # else it names the module
        parser().parse_args(list(words[3:]))


def is_target(words: tuple[str, ...]) -> None:
    for word in words[1:]:
        name, given, _ = word.partition("=")
        assert re.search(rf"^{name}( \?=|:)" if given else rf"^{name}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def is_extra(words: tuple[str, ...]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extra in re.findall(r"\.\[(.*)\]", " ".join(words)):
        assert extra in project["optional-dependencies"]


def has_hooks(words: tuple[str, ...]) -> None:
    assert (ROOT / ".pre-commit-config.yaml").is_file()


def names_notebooks(words: tuple[str, ...]) -> None:
    """The notebooks exist and have the parameters."""
    from notebooks import execute

    names = [word for word in words[2:] if "=" not in word]
    parameters = dict(word.split("=") for word in words[2:] if "=" in word)
    for name in names:
        execute.with_parameters(execute.load(name), parameters)


def is_script(words: tuple[str, ...]) -> None:
    assert os.access(ROOT / words[0], os.X_OK)


def is_request(words: tuple[str, ...]) -> None:
    json.loads(" ".join(words[words.index("-d") + 1 :]))  # with $(...) in the place of its output


def is_cluster(words: tuple[str, ...]) -> None:
    cluster = json.loads(words[0].partition("=")[2])
    assert set(cluster) == {"cluster", "task"} and cluster["task"]["index"] < len(cluster["cluster"]["worker"])


NOT_RUN: list[tuple[str, str, Callable[[tuple[str, ...]], None]]] = [
    (
        r"(\w+=\w+ )*python3? (-m )?(benchmarks|tests\.fuzz)[./]",
        "takes minutes to hours, with other programs or large data",
        accepts,
    ),
    (r"python notebooks/execute\.py", "trains; tests/test_notebooks.py executes each notebook", names_notebooks),
    (r"python -m heads\b", "trains each head, as tests/heads does", names_heads),
    (r"python -m mrcnn\.experiments\.ablation", "trains for hours; tests/experiments runs it small", is_ablation),
    (r"mrcnn \w+$", "names a command", is_subcommand),
    (r"mrcnn (app|detect|video|weights|export) ", "needs large weights, or a browser; see tests/cli", is_subcommand),
    (r"python -m mrcnn$", "is the program without a command", lambda words: importlib.util.find_spec("mrcnn.__main__")),
    (r"make( |$)", "builds an environment, or runs these tests; CI calls it", is_target),
    (r"benchmarks/\w+\.sh ", "downloads packages for a machine without a network", is_script),
    (r"curl ", "needs a server", is_request),
    (r"(python3 -m )?pip install( |$)", "changes the environment and needs a network", is_extra),
    (r"\.venv/bin/pre-commit ", "changes the repository's hooks", has_hooks),
    (r"TF_CONFIG=", "needs several machines; tests/distribution trains with two processes", is_cluster),
]


def runs(command: Command) -> Callable[[tuple[str, ...]], None] | None:
    line = " ".join(command.words) + " "
    return next((run for pattern, run in RUN if re.match(pattern, line)), None)


def stands_for(command: Command) -> Callable[[tuple[str, ...]], None] | None:
    """The check of a command that is not run."""
    line = " ".join(command.words)
    return next((check for pattern, _, check in NOT_RUN if re.match(pattern, line)), None)


def test_commands_are_found():
    assert len(ALL) > 40 and {"README.md", "samples/coco/README.md"} <= {command.page for command in ALL}
    text = 'S="--a 1 --b"  # set\n$ python x.py $S \\\n   "c d"\n# nothing\n'
    assert commands.split(text) == [("python", "x.py", "--a", "1", "--b", "c d")]


@pytest.mark.slow
@pytest.mark.parametrize("command", ALL, ids=str)
def test_every_command_runs_or_says_why_not(command):
    assert runs(command) or stands_for(command), (
        f"{command}: add it to RUN, or to NOT_RUN with the reason; if it is no command, name the language of its block"
    )


@pytest.mark.parametrize("command", [each for each in ALL if not runs(each)], ids=str)
def test_what_is_not_run_is_understood(command):
    check = stands_for(command)
    assert check is not None
    check(command.words)


def fit(self, x=None, *, initial_epoch=0, epochs=1, callbacks=None, verbose=0, **_):
    """The first and the last epoch, of no steps."""
    if not isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = keras.callbacks.CallbackList(
            callbacks, add_history=True, model=self, epochs=epochs, steps=1, verbose=0
        )
    callbacks.on_train_begin()
    for epoch in sorted({initial_epoch, epochs - 1}):
        callbacks.on_epoch_begin(epoch)
        callbacks.on_epoch_end(epoch, {"loss": 1.0, "val_loss": 1.0})
    callbacks.on_train_end()
    return self.history


def small_application(function, channels, options):
    """Stands for any network of `keras.applications`."""
    image = x = keras.Input((None, None, channels))
    for i in range(5):
        x = keras.layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", name=f"conv{i}")(x)
    return keras.Model(image, x, name=function.__name__)


def download(*_) -> Path:
    """A file of weights, as the download would be."""
    path = Path("imagenet.weights.h5").resolve()
    small_application(download, 3, {}).save_weights(path)
    return path


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder in which everything exists that the commands of the samples name, but for DIR."""
    from samples import competition
    from samples.balloon import balloon
    from samples.coco import coco, flags, recipes
    from samples.imaterialist.imaterialist import FashionConfig
    from samples.nucleus.nucleus import NucleusConfig

    monkeypatch.setattr(Config, "BACKBONE", "mobilenet")
    for module in (balloon, competition, flags):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    for config in (Config, balloon.BalloonConfig, FashionConfig, NucleusConfig, *recipes.CONFIGS.values()):
        for name, value in SMALL.items():
            monkeypatch.setattr(config, name, value)
    monkeypatch.setattr(TrainingModel, "fit", fit)
    monkeypatch.setattr(coco, "download", lambda folder, *_: write_coco(Path(folder)))
    for config in recipes.CONFIGS.values():
        monkeypatch.setattr(config, "BACKBONE", "mobilenet")
    monkeypatch.setattr(backbone, "build_application", small_application)
    monkeypatch.setattr(imagenet, "download", download)
    monkeypatch.setattr(model, "compiled", lambda *_: Answering((8, 8, 40, 40)))
    monkeypatch.setattr(costs, "flops", lambda head: 1)
    monkeypatch.setattr(costs, "milliseconds", lambda heads: dict.fromkeys(heads, 1.0))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8)
    (tmp_path / "folder_of_photographs").mkdir()
    for name in ("photograph.jpg", "folder_of_photographs/a.png"):
        cv2.imwrite(name, image)
    for name in ("pets", "data"):
        (tmp_path / name / "annotations").mkdir(parents=True)
        for subset, ids in (("train", [1, 2]), ("val", [3, 4])):
            write_split(tmp_path / name, subset, subset, ids, np.random.default_rng(ids[0]))
    return tmp_path


def write_nuclei(folder: Path) -> None:
    for part, ids in (("train", ("aa", "bbb")), ("val", ("d",)), ("stage1_test", ("x",))):
        for image_id in ids:
            test_nucleus.write_image(folder / part, image_id, masks=part != "stage1_test")


def write_fashion(folder: Path) -> None:
    folder.mkdir()
    for part in ("train", "val", "test"):
        test_imaterialist.write_part(folder, part, 2)


DATA = {"balloon": test_balloon.write_balloons, "nucleus": write_nuclei, "imaterialist": write_fashion}


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted({command.page for command in ALL if runs(command)}))
def test_the_commands_of_a_page_run(page, place):
    """One after the other, as a reader would run them."""
    sample = Path(page).parent.name
    if sample in DATA:
        DATA[sample](place / "DIR")
    elif page.startswith("docs/"):
        write_coco(place / "DIR")
    done = 0
    for command in ALL:
        run = runs(command)
        if command.page == page and run is not None:
            print(f"\n== {command}")
            prepare(command, place)
            run(command.words)
            done += 1
    assert done, "a command that fails raises; but there must be some"


def prepare(command: Command, place: Path) -> None:
    """Makes the weights that the reader has: a checkpoint of the first run, or one of COCO's network."""
    for path in (place / word for word in command.words if word.endswith(".h5")):
        path.parent.mkdir(parents=True, exist_ok=True)
        made = sorted(place.glob(f"logs/*/{path.name}"))
        if made:
            path.write_bytes(made[0].read_bytes())
        elif not path.exists():
            coco = model.MaskRCNN("inference", Config(NAME="coco", NUM_CLASSES=3))
            coco.class_names = ["BG", "disc", "box"]
            coco.save_weights(path)

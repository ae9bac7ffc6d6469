"""Runs: their folders in `model_dir`, their checkpoints, and their position in training."""

import dataclasses
import datetime
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PosixPath, WindowsPath
from typing import Any

CHECKPOINT = re.compile(r"mask_rcnn_.*?_(\d{4,})(?:_step(\d+))?\.h5")


class RunPath(WindowsPath if os.name == "nt" else PosixPath):  # type: ignore[misc]
    """A path that also works as a string, or as the pair that the old package's `find_last` returned.

    `model.log_dir + "/x"` and `"loading " + model.find_last()` are strings. `model.find_last()[1]` and
    `folder, path = model.find_last()` are the folder of the run and the checkpoint.
    """

    __slots__ = ()

    def __add__(self, text: str) -> str:
        return str(self) + text

    def __radd__(self, text: str) -> str:
        return text + str(self)

    def __iter__(self) -> Iterator[Path]:
        return iter((self.parent, self))

    def __getitem__(self, index: int) -> Path:
        return (self.parent, self)[index]


@dataclasses.dataclass
class Run:
    """A run's position in training.

    Attributes:
        folder: folder for checkpoints and logs; None until it is needed.
        epoch: number of finished epochs.
        step: number of steps done in the next epoch.
        state: training state besides the weights, by the names of `mrcnn.training.state`: variables of this process,
            or arrays from a checkpoint.
        saved: checkpoint whose state must be read before training continues.
    """

    folder: RunPath | None = None
    epoch: int = 0
    step: int = 0
    state: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    saved: Path | None = None

    def open(self, model_dir: Path, name: str | None) -> RunPath:
        """The folder, created if needed. Raises ValueError without a name."""
        if self.folder is None:
            if not name:
                raise ValueError("Config.NAME is None. Set a name for the folder of logs and checkpoints.")
            self.folder = new_run_folder(model_dir, name)
        return self.folder


def new_run_folder(model_dir: Path, name: str) -> RunPath:
    """Creates `model_dir/<name><time>`.

    The time is always later than that of the newest run with this name: if the clock was set back, or two runs begin in
    the same second, it is the newest run's plus one second. Sorted by name, runs are thus in the order of their start.
    """
    began = datetime.datetime.now().replace(microsecond=0)
    for run in runs(model_dir, name):
        began = max(began, _time(run, name) + datetime.timedelta(seconds=1))
    while True:  # another process may create the same folder meanwhile
        folder = RunPath(model_dir / f"{name.lower()}{began:%Y%m%dT%H%M%S}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            began += datetime.timedelta(seconds=1)


def runs(model_dir: Path, name: str | None) -> list[RunPath]:
    """The folders of the runs with a name, oldest first."""
    folders = model_dir.iterdir() if model_dir.is_dir() else ()
    found = [RunPath(folder) for folder in folders if _time(folder, name)]
    return sorted(found, key=lambda run: (_time(run, name), run))


def _time(folder: Path, name: str | None) -> Any:
    """The time in the name of a run's folder, with or without seconds; None for any other folder."""
    match = re.fullmatch(re.escape(str(name or "").lower()) + r"(\d{8}T\d{4})(\d{2})?", folder.name)
    try:
        return match and datetime.datetime.strptime(match[1] + (match[2] or "00"), "%Y%m%dT%H%M%S")
    except ValueError:
        return None


def checkpoint_name(name: str, epoch: int, step: int = 0) -> str:
    """File name of the checkpoint after `epoch` epochs and `step` steps of the next."""
    return f"mask_rcnn_{name.lower()}_{epoch:04d}" + (f"_step{step:06d}" if step else "") + ".h5"


def checkpoints(run: Path) -> list[RunPath]:
    """The checkpoints in a run's folder, oldest first."""
    found = [RunPath(path) for path in run.iterdir() if CHECKPOINT.fullmatch(path.name)]
    return sorted(found, key=position)


def position(checkpoint: Path) -> tuple[int, int]:
    """(epochs, steps of the next epoch) of a checkpoint, from its file name."""
    match = CHECKPOINT.fullmatch(checkpoint.name)
    if match is None:
        raise ValueError(f"{checkpoint} is not named like a checkpoint, mask_rcnn_<name>_0001.h5")
    return int(match[1]), int(match[2] or 0)


def find_last(model_dir: Path, name: str | None) -> RunPath:
    """The newest checkpoint of the newest run with this name that has any. Raises FileNotFoundError if none has."""
    found = runs(model_dir, name)
    for run in reversed(found):
        if saved := checkpoints(run):
            return saved[-1]
    raise FileNotFoundError(
        f"No checkpoint of a run named {name!r} in {model_dir.resolve()}; "
        f"runs: {[run.name for run in reversed(found)]}. Check NAME and model_dir, or train first."
    )


def resumed(path: Path, checkpoint: Mapping[str, Any], model_dir: Path, name: str | None) -> Run:
    """The run that a checkpoint continues if it is a numbered one with this NAME in `model_dir`; else a new run.

    checkpoint: metadata of the file; empty if it is not a checkpoint. Only the newest one continues in its own folder.
    """
    folder = path.resolve().parent
    same_name = str(checkpoint.get("config", {}).get("NAME")).lower() == str(name).lower()
    if not checkpoint or not same_name or folder.parent != model_dir.resolve() or not CHECKPOINT.fullmatch(path.name):
        return Run()
    newest = path.name == checkpoints(folder)[-1].name
    place = RunPath(path.parent) if newest else None
    return Run(place, epoch=int(checkpoint.get("epoch", 0)), step=int(checkpoint.get("step", 0)), saved=path)

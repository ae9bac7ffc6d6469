"""Folders of runs: where the checkpoints of a training lie, and which of them is the newest."""

import datetime
import re
from pathlib import Path


def new_run_folder(model_dir: Path, name: str) -> Path:
    """Makes `model_dir/<name><now>`, another second's where a run began in this one."""
    began = datetime.datetime.now()
    while True:  # made at once, so that runs that begin in the same second do not write into one folder
        folder = model_dir / f"{name.lower()}{began.strftime('%Y%m%dT%H%M%S')}"
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            began += datetime.timedelta(seconds=1)


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints in a run's folder, oldest first."""
    return sorted(path for path in run.iterdir() if re.fullmatch(r"mask_rcnn_.*_\d{4,}\.h5", path.name))


def find_last(model_dir: Path, name: str | None) -> Path:
    """The newest checkpoint of the newest run of a name. Raises FileNotFoundError when there is none."""
    stem = re.escape(str(name or "").lower())
    folders = model_dir.iterdir() if model_dir.is_dir() else ()
    runs = sorted((run for run in folders if re.fullmatch(rf"{stem}\d{{8}}T\d{{4,6}}", run.name)), reverse=True)
    for run in runs:
        if checkpoints(run):
            return checkpoints(run)[-1]
    raise FileNotFoundError(
        f"No checkpoint of a run named {name!r} in {model_dir.resolve()}; "
        f"runs: {[run.name for run in runs]}. Check NAME and model_dir, or train first."
    )

"""A training as it is planned, written down beside its checkpoints, and carried out or taken up again."""

import hashlib
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mrcnn.config import Config
from mrcnn.data.dataset import Dataset
from mrcnn.evaluation.callback import AveragePrecision
from mrcnn.files import write_atomically
from mrcnn.model import MaskRCNN
from mrcnn.training import run_folder
from mrcnn.weights.importers.imagenet import is_keras_weights

FILE = "run.json"
# They change neither what is learnt nor in which order.
INDIFFERENT = ("KEEP_CHECKPOINTS", "LOADER_WORKERS", "VALIDATION_STEPS")


class Stage(NamedTuple):
    """Training up to the epoch `until`, counted from the run's first, of the layers that `MaskRCNN.train` knows so."""

    until: int
    layers: str
    learning_rate: float


def reference(epochs: int, layers: str, learning_rate: float) -> list[Stage]:
    """One stage; the rate's own schedule is the configuration's."""
    return [Stage(epochs, layers, learning_rate)]


def matterport(epochs: int, learning_rate: float) -> list[Stage]:
    """The old package's three stages: heads to epoch 40 of 160, 4+ to 120, all layers to the end at a tenth."""
    stages = [
        Stage(round(epochs * 40 / 160), "heads", learning_rate),
        Stage(round(epochs * 120 / 160), "4+", learning_rate),
        Stage(epochs, "all", learning_rate / 10),
    ]
    return [
        stage for before, stage in zip([0, *(s.until for s in stages)], stages, strict=False) if stage.until > before
    ]


class Run(NamedTuple):
    """What makes a training what it is.

    stages: what learns when. start: the weights at its beginning, "none" or a hash of their file, with what was left
    out. data: fingerprint of the training images. preset: whose conventions. key: the same for trainings that learn
    the same.
    """

    stages: list[Stage]
    start: str
    data: str
    preset: str
    key: str

    def save(self, folder: Path) -> None:
        """Writes run.json into the folder of a run."""
        write_atomically(folder / FILE, json.dumps(self._asdict(), indent=2))

    @classmethod
    def load(cls, folder: Path) -> "Run | None":
        """What `save` wrote; None where there is no such file."""
        if not (folder / FILE).is_file():
            return None
        values = json.loads((folder / FILE).read_text())
        return cls(**values | {"stages": [Stage(*stage) for stage in values["stages"]]})


def settings(config: Config) -> dict[str, Any]:
    """The settings that decide what is learnt."""
    values = {name: value for name, value in config.to_dict().items() if name not in INDIFFERENT}
    if isinstance(config.MASK_HEAD, str):
        values["MASK_HEAD"] = {"name": config.MASK_HEAD}
    return values


def key(config: Config, stages: Sequence[Stage], start: str, data: str, after: str | None = None) -> str:
    """`Run.key` of the settings that are asked for, before any that weights bring along.

    Args:
        after: key of the training that came before in the same run, where that was another.
    """
    content = [settings(config), stages, start, data, *([] if after is None else [after])]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def start_of(path: Path | None, exclude: Sequence[str] = ()) -> str:
    """`Run.start` of a file of weights, by its content; only a checkpoint has layers to leave out.

    Raises FileNotFoundError when there is no such file.
    """
    if path is None:
        return "none"
    if not path.is_file():
        raise FileNotFoundError(f'no weights at {path}; --model is a file, "last", "coco", "imagenet" or "none".')
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return " ".join([digest, *(f"-{name}" for name in sorted(exclude) if not is_keras_weights(path))])


def find(logs: str | Path, key: str) -> Path | None:
    """The folder of the newest run in `logs` with this key that saved a checkpoint."""
    for file in sorted(Path(logs).glob(f"*/{FILE}"), reverse=True):
        if json.loads(file.read_text())["key"] == key and run_folder.checkpoints(file.parent):
            return file.parent
    return None


def carry_out(
    model: MaskRCNN,
    run: Run,
    training: Dataset,
    validation: Dataset | None = None,
    *,
    judge: AveragePrecision | None = None,
    **options: Any,
) -> None:
    """Trains what is not trained yet.

    Args:
        validation: for the val_ losses.
        judge: takes the AP at the end of epochs, and may end the training.
        options: further ones of `MaskRCNN.train`.

    Raises ValueError when the model is past the last epoch: a longer training is not the one that was asked for.
    """
    last = run.stages[-1].until
    if model.epoch > last:
        raise ValueError(
            f"--epochs {last}: the run goes on from a checkpoint of epoch {model.epoch}, so ask for at "
            f"least {model.epoch}; for {last} in all, begin with a checkpoint of an earlier epoch."
        )
    if model.epoch < last:  # a finished run stays what it is, whatever was asked for
        run.save(model.log_dir)
    for stage in run.stages:
        if judge is not None and judge.exhausted():
            print(
                f"Stopped early at epoch {model.epoch}: {judge.patience} evaluations brought no better "
                f"{judge.metric}. A larger --patience goes on."
            )
            break
        if model.epoch >= stage.until and stage is not run.stages[-1]:
            continue
        with warnings.catch_warnings():
            if stage is not run.stages[0]:  # the momentum of other layers is of no use to the next stage
                warnings.filterwarnings("ignore", ".*state of an optimizer over other variables")
            model.train(
                training,
                validation,
                stage.learning_rate,
                stage.until,
                stage.layers,
                custom_callbacks=[judge] if judge is not None else None,
                **options,
            )

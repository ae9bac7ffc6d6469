"""Plans of training runs: schedule, initial weights and data, saved next to the checkpoints; executed or resumed."""

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
from mrcnn.network.precision import chosen
from mrcnn.training import run_folder
from mrcnn.weights.importers.imagenet import is_keras_weights

FILE = "run.json"
# Settings that affect neither what is learned nor the order.
INDIFFERENT = ("CHECKPOINT_STEPS", "KEEP_CHECKPOINTS", "LOADER_WORKERS", "VALIDATION_STEPS")


class Stage(NamedTuple):
    """Training of some layers, named as in `MaskRCNN.train`, until the end of epoch `until` of the run."""

    until: int
    layers: str
    learning_rate: float


def reference(epochs: int, layers: str, learning_rate: float) -> list[Stage]:
    """A single stage; the learning rate follows the schedule in the configuration."""
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
    """Everything that identifies a training run.

    stages: its schedule. start: the initial weights, "none" or a hash of their file and the excluded layers. data:
    fingerprint of the training images. preset: name of the conventions. key: equal for runs that learn the same.
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
        """Reads what `save` wrote; None if there is no such file."""
        if not (folder / FILE).is_file():
            return None
        values = json.loads((folder / FILE).read_text())
        return cls(**values | {"stages": [Stage(*stage) for stage in values["stages"]]})


def settings(config: Config) -> dict[str, Any]:
    """The settings that affect what is learned."""
    values = {name: value for name, value in config.to_dict().items() if name not in INDIFFERENT}
    values["PRECISION"] = chosen(config.PRECISION)
    if isinstance(config.MASK_HEAD, str):
        values["MASK_HEAD"] = {"name": config.MASK_HEAD}
    return values


def key(config: Config, stages: Sequence[Stage], start: str, data: str, after: str | None = None) -> str:
    """`Run.key` for these settings, before loading weights changes them.

    Args:
        after: key of the same run's previous training, if it was a different one.
    """
    content = [settings(config), stages, start, data, *([] if after is None else [after])]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def start_of(path: Path | None, exclude: Sequence[str] = ()) -> str:
    """`Run.start` of a weight file, from its content; only checkpoints have layers to exclude.

    Raises FileNotFoundError if there is no such file.
    """
    if path is None:
        return "none"
    if not path.is_file():
        raise FileNotFoundError(f'no weights at {path}; --model must be a file, "last", "coco", "imagenet" or "none".')
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return " ".join([digest, *(f"-{name}" for name in sorted(exclude) if not is_keras_weights(path))])


def begun(logs: str | Path, key: str) -> bool:
    """Whether a run in `logs` has this key, with or without a checkpoint."""
    return any(json.loads(file.read_text())["key"] == key for file in Path(logs).glob(f"*/{FILE}"))


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
    callbacks: Sequence[Any] = (),
    **options: Any,
) -> None:
    """Trains the remaining epochs of a run.

    Args:
        validation: dataset for the val_ losses.
        judge: measures the AP after epochs, and may stop training.
        callbacks: further Keras callbacks.
        options: further options of `MaskRCNN.train`.

    Raises ValueError if the model is past the last epoch of the run.
    """
    last = run.stages[-1].until
    if model.epoch > last:
        raise ValueError(
            f"--epochs {last}: the run continues from a checkpoint of epoch {model.epoch}, so pass at "
            f"least {model.epoch}; for {last} in total, start with a checkpoint of an earlier epoch."
        )
    if model.epoch < last:  # the record of a finished run is not changed
        run.save(model.log_dir)
    for stage in run.stages:
        if judge is not None and judge.exhausted():
            print(
                f"Stopped early at epoch {model.epoch}: {judge.patience} evaluations did not improve "
                f"{judge.metric}. To continue, pass a larger --patience."
            )
            break
        if model.epoch >= stage.until and stage is not run.stages[-1]:
            continue
        with warnings.catch_warnings():
            if stage is not run.stages[0]:  # the next stage does not use the momentum of other layers
                warnings.filterwarnings("ignore", ".*state of an optimizer over other variables")
            model.train(
                training,
                validation,
                stage.learning_rate,
                stage.until,
                stage.layers,
                custom_callbacks=[*callbacks, *([judge] if judge is not None else [])] or None,
                **options,
            )

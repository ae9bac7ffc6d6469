"""compare: mask heads trained from the same start on the same batches, in one table.

For a seed, every head gets the same initial trunk, RPN and box head, the same order of images, the same flips and
samples, and the same schedule: only the head differs. With `Config.DETERMINISTIC`, the same training gives the same
result bit for bit; without it, rounding differs between runs, and the difference grows with every step. A run is
identified by a hash of its settings, schedule, start and data. A finished run in `logs` is not repeated, an interrupted
one is resumed, and so are evaluations.
"""

import copy
import gc
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mrcnn.config import Config
from mrcnn.data.dataset import Dataset
from mrcnn.evaluation.coco_evaluation import evaluate
from mrcnn.experiments import costs, plan, report
from mrcnn.experiments.fingerprint import fingerprint
from mrcnn.files import write_atomically
from mrcnn.model import MaskRCNN
from mrcnn.network.graph import build_mask_head
from mrcnn.network.precision import chosen
from mrcnn.training import run_folder
from mrcnn.weights.importers.imagenet import is_keras_weights

Head = str | Mapping[str, Any]
NOT_REPRODUCIBLE = (
    "DETERMINISTIC is off, so the same training with the same seed would not give exactly the same numbers again. For "
    "reproducible numbers, pass --set DETERMINISTIC=True, or Config(DETERMINISTIC=True)."
)
AP_KEYS = tuple(name for name, *_ in report.APS)


@dataclass(frozen=True)
class Task:
    """A dataset on which heads are compared, and how they train on it.

    training, validation: prepared datasets. config: settings; their MASK_HEAD, SEED and NUM_CLASSES do not count.
    stages: the schedule. preset: name of the conventions, for the record. fingerprints: of the training and the
    validation data; None computes them.
    """

    training: Dataset
    validation: Dataset
    config: Config
    stages: Sequence[plan.Stage]
    preset: str = "reference"
    fingerprints: tuple[str, str] | None = None

    def hashes(self) -> tuple[str, str]:
        """Fingerprints of the training and the validation data."""
        return self.fingerprints or (fingerprint(self.training), fingerprint(self.validation))


@dataclass(frozen=True)
class Job:
    """One training run of a comparison: a head with a seed on the dataset of a task."""

    dataset: str
    task: Task
    label: str
    config: Config
    hashes: tuple[str, str]


def compare(
    datasets: Mapping[str, Task | tuple[Dataset, Dataset]],
    heads: Sequence[Head],
    config: Config | type[Config] | None = None,
    *,
    seeds: Sequence[int] | None = None,
    epochs: int = 12,
    layers: str | None = None,
    weights: str | Path | None = None,
    exclude: Sequence[str] = (),
    logs: str | Path = "logs",
    output: str | Path | None = None,
    verbose: int | str = 1,
) -> list[report.Row]:
    """Trains and evaluates every head with every seed on every dataset, and writes the table after each run::

        mrcnn.experiments.compare({"balloon": (train, val)}, ["fcn", {"name": "unet", "filters": 128}], BalloonConfig)

    Args:
        datasets: a name to a (training, validation) pair of prepared datasets, or to a `Task` with its own settings and
            schedule.
        heads: what MASK_HEAD takes: names, or dicts of a name and options.
        config: the settings of datasets given as pairs.
        seeds: of initial weights, order, augmentation and sampling; None for the one of `config`.
        epochs, layers: the schedule of datasets given as pairs; `layers` is "all" without `weights`, else "3+".
        weights: file of the initial weights; a mask head in it is not used. None begins with random ones.
        exclude: layers of a checkpoint to leave out, besides the mask head.
        logs: folder of the runs.
        output: folder of the table; None for `logs`/comparison.
        verbose: as in `MaskRCNN.train`.

    Returns:
        A row per dataset and head: dataset, head, seeds, a list with a value per seed for each AP and ms_per_image, and
        parameters, flops and ms_per_batch of the head.

    Raises ValueError for heads or seeds that repeat, unknown heads or options, and a dataset without settings, before
    anything is trained.
    """
    tasks = _tasks(datasets, config, epochs, layers or ("3+" if weights else "all"))
    start = None if weights is None else Path(weights)
    jobs = plan_jobs(tasks, heads, seeds)
    built = {name: build_heads([job for job in jobs if job.dataset == name]) for name in tasks}
    output = Path(output or Path(logs) / "comparison")
    rows: dict[tuple[str, str], report.Row] = {}
    about: dict[str, Any] = {"model": str(weights or "none"), "rois_per_batch": costs.ROIS, "datasets": {}}
    for job in jobs:
        print(f"\n== {job.dataset}, {job.label}, seed {job.config.SEED}", flush=True)
        model, run = trained(job, start, exclude, logs, verbose)
        numbers = evaluated(model, run, job)
        head = built[job.dataset][job.label]
        row = rows.setdefault((job.dataset, job.label), _row(job, head))
        row["seeds"].append(job.config.SEED)
        for name, value in numbers.items():
            row.setdefault(name, []).append(value)
        about["datasets"][job.dataset] = _about(model.config, run, job.task)
        print(report.write(list(rows.values()), output, about), flush=True)
        del model
        gc.collect()
    for name, heads_of_dataset in built.items():
        plain = {label: head.model for label, head in heads_of_dataset.items() if head.is_plain}
        for label, value in costs.milliseconds(plain).items():
            rows[name, label]["ms_per_batch"] = value
    text = report.write(list(rows.values()), output, about)
    if not all(job.config.DETERMINISTIC for job in jobs):
        print(f"\n{NOT_REPRODUCIBLE}")
    print(f"\n{text}\n\nWritten to {output}/comparison.txt, .md, .json and .png")
    return list(rows.values())


def _tasks(
    datasets: Mapping[str, Task | tuple[Dataset, Dataset]],
    config: Config | type[Config] | None,
    epochs: int,
    layers: str,
) -> dict[str, Task]:
    """Every dataset as a `Task`. Raises ValueError for a pair without settings, and for no dataset at all."""
    if not datasets:
        raise ValueError('no dataset to compare on; give some, as {"balloon": (training, validation)}.')
    if isinstance(config, type):
        config = config()
    tasks = {}
    for name, value in datasets.items():
        if not isinstance(value, Task):
            if config is None:
                raise ValueError(f"dataset {name!r} has no settings: pass `config`, or give it as a Task.")
            own = copy.deepcopy(config)
            own.NUM_CLASSES = value[0].num_classes
            value = Task(*value, own, plan.reference(epochs, layers, own.LEARNING_RATE))
        tasks[name] = value
    return tasks


def plan_jobs(tasks: Mapping[str, Task], heads: Sequence[Head], seeds: Sequence[int] | None) -> list[Job]:
    """Every run, seed by seed, so that all heads appear early. Raises ValueError for heads or seeds that repeat."""
    chosen = [{"name": head} if isinstance(head, str) else dict(head) for head in heads]
    labels = [_label(head) for head in chosen]
    for what, values in (("heads", labels), ("seeds", list(seeds or ()))):
        if len(set(values)) < len(values):
            raise ValueError(f"the {what} {values} repeat; give each once.")
    if not chosen:
        raise ValueError('no heads to compare; give at least one, as ["fcn", "unet"].')
    chosen_seeds: Sequence[int | None] = seeds or [None]
    hashes = {name: task.hashes() for name, task in tasks.items()}
    return [
        Job(name, task, label, _config(task, head, task.config.SEED if seed is None else seed), hashes[name])
        for seed in chosen_seeds
        for name, task in tasks.items()
        for head, label in zip(chosen, labels, strict=True)
    ]


def _config(task: Task, head: dict[str, Any], seed: int) -> Config:
    config = copy.deepcopy(task.config)
    config.MASK_HEAD, config.SEED = head, seed
    config.validate()
    return config


def _label(head: dict[str, Any]) -> str:
    options = ",".join(f"{name}={value}" for name, value in head.items() if name != "name")
    return head["name"] + (f":{options}" if options else "")


def build_heads(jobs: Sequence[Job]) -> dict[str, Any]:
    """Each head by its label, as the network builds it. Raises ValueError for an option that a head does not have."""
    return {label: build_mask_head(job.config) for label, job in {job.label: job for job in jobs}.items()}


def _row(job: Job, head: Any) -> report.Row:
    """A row without numbers of training. FLOPs and time are taken of heads from features to masks alone."""
    cost = {"parameters": head.model.count_params()} | ({"flops": costs.flops(head.model)} if head.is_plain else {})
    return {"dataset": job.dataset, "head": job.label, "seeds": [], **cost}


def trained(
    job: Job, start: Path | None, exclude: Sequence[str], logs: str | Path, verbose: int | str
) -> tuple[MaskRCNN, plan.Run]:
    """The trained model of a job: loaded from `logs` if it is there, finished if it was interrupted, else trained."""
    model = MaskRCNN("training", job.config, logs)
    left_out = [*exclude, "mask_head"]  # no head takes anything from the start
    begin, stages = plan.start_of(start, left_out), list(job.task.stages)
    key = plan.key(job.config, stages, begin, job.hashes[0])
    run = plan.Run(stages, begin, job.hashes[0], job.task.preset, key)
    folder = plan.find(logs, key)
    if folder is not None:
        print(f"{folder} holds this training run")
        model.load_weights(run_folder.checkpoints(folder)[-1])
    elif start is not None:
        # A file of keras.applications has no mask head, and is loaded whole.
        report_ = model.load_weights(start, exclude=list(exclude) if is_keras_weights(start) else left_out)
        if not report_.notes:  # else it has been printed
            print(report_)
    plan.carry_out(model, run, job.task.training, verbose=verbose)
    return model, run


def evaluated(model: MaskRCNN, run: plan.Run, job: Job) -> dict[str, float]:
    """The APs and the milliseconds per image, from the file beside the weights if they were measured before."""
    key = [run.key, job.hashes[1]]
    file = model.log_dir / "evaluation.json"
    stored = json.loads(file.read_text()) if file.is_file() else {}
    if stored.get("key") != key:
        results = evaluate(model, job.task.validation, boundary=True)
        values = (
            results.box["AP"],
            results.mask["AP"],
            results.mask["AP50"],
            results.mask["AP75"],
            (results.boundary or {})["AP"],
        )
        stored = {
            "key": key,
            "numbers": dict(zip(AP_KEYS, values, strict=True)) | {"ms_per_image": results.ms_per_image},
        }
        write_atomically(file, json.dumps(stored, indent=2))
    return stored["numbers"]


def _about(config: Config, run: plan.Run, task: Task) -> dict[str, Any]:
    """How the numbers of a dataset were made."""
    settings = config.to_dict()
    return {
        "backbone": settings["BACKBONE"],
        "backbone_options": settings["BACKBONE_OPTIONS"],
        "stages": [stage._asdict() for stage in run.stages],
        "batch": config.BATCH_SIZE,
        "image_min_dim": config.IMAGE_MIN_DIM,
        "image_max_dim": config.IMAGE_MAX_DIM,
        "precision": chosen(config.PRECISION),
        "deterministic": config.DETERMINISTIC,
        "training_images": len(task.training.image_ids),
        "validation_images": len(task.validation.image_ids),
    }

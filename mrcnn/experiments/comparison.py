"""compare: mask heads trained from the same initial weights on the same batches, in one table.

For each seed, every head gets the same initial trunk, RPN and box head, the same order of images, the same flips and
samples, and the same schedule: only the head differs. With `Config.DETERMINISTIC`, equal runs give bit-identical
results; without it, rounding differs between runs, and the difference grows with every step. A run is identified by a
hash of its settings, schedule, initial weights and data. A finished run in `logs` is not repeated and an interrupted
one is resumed; so are evaluations.
"""

import copy
import gc
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mrcnn.config import Config
from mrcnn.data.dataset import Dataset
from mrcnn.evaluation.coco_evaluation import evaluate
from mrcnn.evaluation.coco_metrics import ABSENT
from mrcnn.experiments import costs, plan, records, report
from mrcnn.experiments.fingerprint import fingerprint
from mrcnn.experiments.step_times import StepTimes
from mrcnn.files import FolderInUseError, locked, write_atomically
from mrcnn.model import MaskRCNN
from mrcnn.network.graph import build_mask_head
from mrcnn.network.precision import chosen
from mrcnn.training import run_folder
from mrcnn.training.interruption import TrainingInterrupted
from mrcnn.weights.importers.imagenet import is_keras_weights

Head = str | Mapping[str, Any]
NOT_REPRODUCIBLE = (
    "DETERMINISTIC is off, so repeating a run with the same seed would not give exactly the same numbers. For "
    "reproducible numbers, pass --set DETERMINISTIC=True, or Config(DETERMINISTIC=True)."
)
POLL = 5.0  # seconds between checks for jobs of other processes


@dataclass(frozen=True)
class Task:
    """A dataset for comparing heads, and how to train on it.

    training, validation: prepared datasets. config: settings; their MASK_HEAD, SEED and NUM_CLASSES are ignored.
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
    """One training run of a comparison: a head with a seed on the dataset of a task.

    run: the schedule, start and data that identify it. validation: fingerprint of the validation data.
    """

    dataset: str
    task: Task
    label: str
    config: Config
    run: plan.Run
    validation: str

    def __str__(self) -> str:
        return f"{self.dataset}, {self.label}, seed {self.config.SEED}"

    @property
    def record(self) -> str:
        """The name of the job's record; see `mrcnn.experiments.records`."""
        return records.name_of(self.run.key, self.validation)


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

    It can be killed at any moment and restarted, and several processes can share the work in the same folders: finished
    runs are not repeated, interrupted ones are resumed, and runs of other processes are waited for. The table's JSON
    file also records runs, so a comparison can continue on another machine with only that file.

    Args:
        datasets: name -> a (training, validation) pair of prepared datasets, or a `Task` with its own settings and
            schedule.
        heads: values of MASK_HEAD: names, or dicts of a name and options. The others are compared with the first.
        config: the settings for datasets given as pairs.
        seeds: for initial weights, image order, augmentation and sampling; None for the seed of `config`.
        epochs, layers: the schedule for datasets given as pairs; default `layers`: "all" without `weights`, else "3+".
        weights: file of the initial weights; its mask head is not used. None for random initial weights.
        exclude: layers of a checkpoint to skip, in addition to the mask head.
        logs: folder of the runs.
        output: folder of the table; None for `logs`/comparison.
        verbose: as in `MaskRCNN.train`.

    Returns:
        A row per dataset and head: dataset, head, seeds, a list with a value per seed of each number of
        `mrcnn.experiments.report.MEASURED` (None if there was nothing to measure), and the head's parameters,
        multiply_adds per RoI and ms_per_batch.

    Raises ValueError, before any training, for repeated heads or seeds, unknown heads or options, a dataset without
    settings, and an output folder with another comparison.json; TrainingInterrupted on Ctrl-C.
    """
    tasks = _tasks(datasets, config, epochs, layers or ("3+" if weights else "all"))
    start = None if weights is None else Path(weights)
    jobs = plan_jobs(tasks, heads, seeds, start, exclude)
    output = Path(output or Path(logs) / "comparison")
    about = {"model": start.name if start else "none", "rois_per_batch": costs.ROIS}
    table = carried_out(jobs, start, exclude, logs, output, verbose, about)
    text = table.timed()
    if not all(job.config.DETERMINISTIC for job in jobs):
        print(f"\n{NOT_REPRODUCIBLE}")
    print(f"\n{text}\n\nWritten to {output}/comparison.txt, .md, .json and .png")
    return table.rows()


def carried_out(
    jobs: Sequence[Job],
    start: Path | None,
    exclude: Sequence[str],
    logs: str | Path,
    output: Path,
    verbose: int | str,
    about: dict[str, Any],
    *,
    costs: bool = True,
    each: Callable[["Table"], str] | None = None,
) -> "Table":
    """Trains and evaluates all jobs, except those that are known, and writes their table after each.

    Args:
        costs: see `Table`.
        each: called with the table after each job; what it returns is printed instead of the table.
    """
    table = Table(jobs, output, about, costs=costs)
    for job in in_turn(jobs, Path(logs)):
        print(f"\n== {job}", flush=True)
        numbers = table.known(job)
        if numbers is None or plan.begun(logs, job.run.key):
            try:
                numbers = measured(job, start, exclude, logs, verbose)
            except KeyboardInterrupt as error:
                raise _interruption(error, job, len(table.done), len(jobs)) from None
        else:
            print(f"known from {output / records.FILE}")
        text = table.add(job, numbers)
        print(text if each is None else each(table), flush=True)
        gc.collect()
    return table


def _interruption(error: KeyboardInterrupt, job: Job, done: int, total: int) -> TrainingInterrupted:
    state = f"with {done} of {total} runs finished, in that of {job}"
    state += f", {error.state}" if isinstance(error, TrainingInterrupted) else ". Its checkpoints are kept."
    return TrainingInterrupted(state, "To continue, compare again: finished runs are not repeated.")


def in_turn(jobs: Sequence[Job], logs: Path) -> Iterator[Job]:
    """The jobs, each locked against other processes; jobs in progress elsewhere come last, when they have ended."""
    waiting = list(jobs)
    while waiting:
        busy: list[Job] = []
        for job in waiting:
            folder = logs / ".comparison" / job.record
            with ExitStack() as stack:
                try:
                    stack.enter_context(locked(folder))
                except FolderInUseError as error:
                    if len(busy) + 1 == len(waiting):
                        print(f"waiting for {job}: {error}", flush=True)
                    busy.append(job)
                    continue
                yield job
        if len(busy) == len(waiting):
            time.sleep(POLL)
        waiting = busy


class Table:
    """The rows and files of a comparison.

    Args:
        jobs: of the comparison, in the order of the rows.
        folder: of the files.
        about: how all numbers were obtained.
        costs: also the heads' parameters and arithmetic.

    Raises ValueError for an unknown option of a head, and for a folder with another comparison.json.
    """

    def __init__(self, jobs: Sequence[Job], folder: Path, about: dict[str, Any], *, costs: bool = True) -> None:
        self.jobs, self.folder = jobs, folder
        self.about: dict[str, Any] = {**about, "datasets": {}}
        self.stored = records.read(folder)
        self.done: dict[str, dict[str, Any]] = {}
        each = {(job.dataset, job.label): job for job in jobs if costs}
        built = {key: build_mask_head(job.config) for key, job in each.items()}
        self.heads = {key: head for key, head in built.items() if head is not None}
        self.times: dict[tuple[str, str], float] = {}

    def known(self, job: Job) -> dict[str, Any] | None:
        """The numbers of a job in the folder's file; None if it has none."""
        numbers = self.stored.get(job.record, {}).get("numbers", {})
        return numbers if set(numbers) >= set(report.MEASURED) else None

    def add(self, job: Job, numbers: dict[str, Any]) -> str:
        """Writes the files with the numbers of a job; returns the table."""
        record = {"dataset": job.dataset, "head": job.label, "seed": job.config.SEED, "numbers": numbers}
        self.done[job.record] = record
        self.about["datasets"][job.dataset] = _about(job.config, job.run, job.task)
        return self.write()

    def timed(self) -> str:
        """Measures the time of each head on a batch of RoIs, and writes the files."""
        for dataset in dict.fromkeys(job.dataset for job in self.jobs):
            heads = {label: head for (name, label), head in self.heads.items() if name == dataset}
            self.times |= {(dataset, label): value for label, value in costs.milliseconds(heads).items()}
        return self.write()

    def write(self) -> str:
        return records.write(
            self.folder, self.done, lambda runs: report.write(self.rows(), self.folder, self.about, runs)
        )

    def rows(self) -> list[report.Row]:
        """A row per dataset and head with at least one finished run, with its seeds in order."""
        rows: dict[tuple[str, str], report.Row] = {}
        for job in self.jobs:
            if job.record in self.done:
                key = job.dataset, job.label
                row = rows.setdefault(key, self._row(key))
                row["seeds"].append(job.config.SEED)
                for name, value in self.done[job.record]["numbers"].items():
                    row.setdefault(name, []).append(value)
        order = {(job.dataset, job.label): place for place, job in enumerate(self.jobs)}
        return [rows[key] for key in sorted(rows, key=lambda key: order[key])]

    def _row(self, key: tuple[str, str]) -> report.Row:
        """A row without training results."""
        (dataset, label), head = key, self.heads.get(key)
        cost = {"parameters": head.model.count_params(), "multiply_adds": head.multiply_adds} if head else {}
        timed = {"ms_per_batch": self.times[key]} if key in self.times else {}
        return {"dataset": dataset, "head": label, "seeds": [], **cost, **timed}


def _tasks(
    datasets: Mapping[str, Task | tuple[Dataset, Dataset]],
    config: Config | type[Config] | None,
    epochs: int,
    layers: str,
) -> dict[str, Task]:
    """Every dataset as a `Task`. Raises ValueError for a pair without settings, or no dataset."""
    if not datasets:
        raise ValueError('no dataset to compare on; pass some, such as {"balloon": (training, validation)}.')
    if isinstance(config, type):
        config = config()
    tasks = {}
    for name, value in datasets.items():
        if not isinstance(value, Task):
            if config is None:
                raise ValueError(f"dataset {name!r} has no settings: pass `config`, or use a Task.")
            own = copy.deepcopy(config)
            own.NUM_CLASSES = value[0].num_classes
            value = Task(*value, own, plan.reference(epochs, layers, own.LEARNING_RATE))
        tasks[name] = value
    return tasks


def plan_jobs(
    tasks: Mapping[str, Task],
    heads: Sequence[Head],
    seeds: Sequence[int] | None,
    start: Path | None = None,
    exclude: Sequence[str] = (),
) -> list[Job]:
    """Every run, ordered by seed, so that all heads appear early. Raises ValueError for repeated heads or seeds."""
    chosen = [{"name": head} if isinstance(head, str) else dict(head) for head in heads]
    labels = [_label(head) for head in chosen]
    for what, values in (("heads", labels), ("seeds", list(seeds or ()))):
        if len(set(values)) < len(values):
            raise ValueError(f"the {what} {values} repeat; pass each once.")
    if not chosen:
        raise ValueError('no heads to compare; pass at least one, such as ["fcn", "unet"].')
    begin = plan.start_of(start, _left_out(exclude))
    hashes = {name: task.hashes() for name, task in tasks.items()}
    jobs = []
    several: Sequence[int | None] = seeds or [None]
    for seed in several:
        for name, task in tasks.items():
            data, validation = hashes[name]
            for head, label in zip(chosen, labels, strict=True):
                config = _config(task, head, task.config.SEED if seed is None else seed)
                key = plan.key(config, list(task.stages), begin, data)
                run = plan.Run(list(task.stages), begin, data, task.preset, key)
                jobs.append(Job(name, task, label, config, run, validation))
    return jobs


def _left_out(exclude: Sequence[str]) -> list[str]:
    return [*exclude, "mask_head"]  # no head uses initial weights


def _config(task: Task, head: dict[str, Any], seed: int) -> Config:
    config = copy.deepcopy(task.config)
    config.MASK_HEAD, config.SEED = head, seed
    config.validate()
    return config


def _label(head: dict[str, Any]) -> str:
    options = ",".join(f"{name}={value}" for name, value in head.items() if name != "name")
    return head["name"] + (f":{options}" if options else "")


def measured(
    job: Job, start: Path | None, exclude: Sequence[str], logs: str | Path, verbose: int | str
) -> dict[str, Any]:
    """The numbers of a job: from a run in `logs` if it exists, resumed if it was interrupted, else newly trained."""
    model = MaskRCNN("training", job.config, logs)
    folder = plan.find(logs, job.run.key)
    if folder is not None:
        print(f"{folder} already contains this training run")
        model.load_weights(run_folder.checkpoints(folder)[-1])
    elif start is not None:
        # A file of keras.applications has no mask head, and is loaded completely.
        report_ = model.load_weights(start, exclude=list(exclude) if is_keras_weights(start) else _left_out(exclude))
        if not report_.notes:  # else it has been printed
            print(report_)
    times = StepTimes(model)
    plan.carry_out(model, job.run, job.task.training, callbacks=[times], verbose=verbose)
    return evaluated(model, job) | {"training_seconds": times.total()}


def evaluated(model: MaskRCNN, job: Job) -> dict[str, Any]:
    """The APs and milliseconds per image, from the file next to the weights if they were measured before."""
    key = [job.run.key, job.validation]
    file = model.log_dir / "evaluation.json"
    stored = json.loads(file.read_text()) if file.is_file() else {}
    if stored.get("key") != key or not set(report.MEASURED) - {"training_seconds"} <= set(stored["numbers"]):
        results = evaluate(model, job.task.validation, boundary=model.config.MASK_HEAD is not None)
        kinds: dict[str, Mapping[str, float]] = {
            "box": results.box,
            "mask": results.mask or {},
            "boundary": results.boundary or {},
        }
        numbers = {name: _present(kinds[kind].get(metric, ABSENT)) for name, (kind, metric) in report.AP_OF.items()}
        if keypoints := getattr(results, "keypoints", None):
            numbers["keypoint_ap"] = _present(keypoints["AP"])
        stored = {"key": key, "numbers": numbers | {"ms_per_image": results.ms_per_image}}
        write_atomically(file, json.dumps(stored, indent=2))
    return stored["numbers"]


def _present(value: float) -> float | None:
    """COCO's number; None if the data has nothing to measure."""
    return None if value == ABSENT else value


def _about(config: Config, run: plan.Run, task: Task) -> dict[str, Any]:
    """How the numbers of a dataset were obtained."""
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

"""An ablation of the paper from one command: every row trained alike, in one table beside the paper's figures.

    python -m mrcnn.experiments.ablation --table 2c --dataset DIR --backbone mobilenet --weights imagenet --seeds 0,1,2

The rows are in `mrcnn.experiments.tables`. For each seed all of them get the same initial weights (where they have the
same layers) and the same order of images, flips and samples; see `mrcnn.experiments.comparison`, which trains them.
Rows that are trained already are not trained again, and rows that differ in detection alone share one training. Tables
with RoIPool and RoIAlign also get a picture of the masks of both.
"""

import argparse
import copy
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mrcnn.config import Config, key_value
from mrcnn.data.dataset import Dataset
from mrcnn.experiments import ablation_report, comparison, plan, tables
from mrcnn.model import MaskRCNN
from mrcnn.training import run_folder
from mrcnn.training.interruption import TrainingInterrupted

PICTURES = 3  # validation images in the picture of masks


def ablate(
    table: str,
    training: Dataset,
    validation: Dataset,
    config: Config | None = None,
    *,
    backbone: Any = None,
    seeds: Sequence[int] = (0,),
    epochs: int = 12,
    layers: str | None = None,
    weights: str | Path | None = None,
    logs: str | Path = "logs",
    output: str | Path | None = None,
    verbose: int | str = 1,
) -> list[dict[str, Any]]:
    """Trains and evaluates every row of a table with every seed, and writes ablation.md and .json after each::

        mrcnn.experiments.ablation.ablate("2c", train, val, Config(NAME="balloon"), backbone="mobilenet")

    Args:
        table: a key of `mrcnn.experiments.tables.TABLES`.
        training, validation: prepared datasets.
        config: the settings of all rows; None for the defaults.
        backbone: BACKBONE in place of the paper's.
        seeds: of initial weights, order, augmentation and sampling.
        epochs, layers: the schedule; `layers` is "all" without `weights`, else "3+".
        weights: file of the initial weights of all rows; a mask head in it is not used. None begins with random ones.
        logs: folder of the runs.
        output: folder of the table; None for `logs`/ablation_`table`.
        verbose: as in `MaskRCNN.train`.

    Returns:
        A dict per row, see `mrcnn.experiments.ablation_report.summaries`.

    Raises ValueError for an unknown table, a row whose head is not registered, and impossible settings, before anything
    is trained.
    """
    base = copy.deepcopy(config or Config(NAME="ablation"))
    base.NUM_CLASSES = training.num_classes
    rows = tables.rows_of(table, base, backbone)
    start = None if weights is None else Path(weights)
    jobs = planned(
        table, rows, base, training, validation, seeds, epochs, layers or ("3+" if weights else "all"), start
    )
    output = Path(output or Path(logs) / f"ablation_{table}")
    about = {"table": table, "model": start.name if start else "none"}

    def written(done: comparison.Table) -> str:
        return ablation_report.write(table, rows, done.rows(), output, about)

    done = comparison.carried_out(jobs, start, (), logs, output, verbose, about, costs=False, each=written)
    if any("ROI_POOLING" in row.settings for row in rows):
        try:
            path = side_by_side(jobs, validation, logs, output)
            print(f"Masks of RoIPool and RoIAlign: {path}" if path else "No masks to show side by side.")
        except FileNotFoundError as error:  # the numbers were recorded elsewhere
            print(f"No masks to show side by side: {error}")
    print(f"Written to {output}/ablation.md and .json")
    return ablation_report.summaries(rows, done.rows())


def planned(
    table: str,
    rows: Sequence[tables.Row],
    base: Config,
    training: Dataset,
    validation: Dataset,
    seeds: Sequence[int],
    epochs: int,
    layers: str,
    start: Path | None,
) -> list[comparison.Job]:
    """Every run, seed by seed. Raises ValueError for seeds that repeat, and impossible settings."""
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"the seeds {list(seeds)} repeat; give each once.")
    begin = plan.start_of(start, ["mask_head"])
    data, judged = (comparison.fingerprint(dataset) for dataset in (training, validation))
    jobs = []
    for seed in seeds:
        for row in rows:
            config = config_of(row, base, seed)
            rate = config.LEARNING_RATE
            stages = (
                plan.matterport(epochs, rate) if row.stages == "matterport" else plan.reference(epochs, layers, rate)
            )
            learned, detection = _divided(config, base)
            run = plan.Run(stages, begin, data, "reference", plan.key(learned, stages, begin, data))
            task = comparison.Task(training, validation, config, stages, fingerprints=(data, judged))
            jobs.append(comparison.Job(f"table {table}", task, row.label, config, run, _with(judged, detection)))
    return jobs


def config_of(row: tables.Row, base: Config, seed: int) -> Config:
    """The settings of a row: its own, before the user's, before its recipe's. Raises ValueError for impossible ones."""
    config, said = copy.deepcopy(base), base.explicit()
    values = {name: value for name, value in row.recipe.items() if name not in said} | dict(row.settings)
    for name, value in (values | {"SEED": seed}).items():
        setattr(config, name, copy.deepcopy(value))
    try:
        config.validate()
    except ValueError as error:
        raise ValueError(f"row {row.label!r}: {error}") from error
    return config


def _divided(config: Config, base: Config) -> tuple[Config, dict[str, Any]]:
    """The settings that a training depends on, and those of detection alone in which they differ from the user's."""
    learned = copy.deepcopy(config)
    detection = {
        name: getattr(config, name)
        for name in config.to_dict()
        if name.startswith("DETECTION_") and getattr(config, name) != getattr(base, name)
    }
    for name in detection:
        setattr(learned, name, getattr(base, name))
    return learned, detection


def _with(fingerprint: str, detection: Mapping[str, Any]) -> str:
    """Names an evaluation by its data, and by settings of detection where there are any."""
    if not detection:
        return fingerprint
    return hashlib.sha256(json.dumps([fingerprint, detection], sort_keys=True).encode()).hexdigest()


def side_by_side(
    jobs: Sequence[comparison.Job], validation: Dataset, logs: str | Path, output: Path, count: int = PICTURES
) -> Path | None:
    """Draws the masks of the first seed's RoIPool and RoIAlign on some images; None where one of both has none.

    RoIAlign's are those of averages, where there are such.
    """
    from mrcnn.pictures.comparison import save_comparison

    seed = jobs[0].config.SEED
    own = [job for job in jobs if job.config.SEED == seed and job.config.MASK_HEAD is not None]
    chosen = {
        pooling: next((job for job in reversed(own) if job.config.ROI_POOLING == pooling), None)
        for pooling in ("pool", "align")
    }
    if None in chosen.values():
        return None
    images = [validation.load_image(int(i)) for i in validation.image_ids[:count]]
    found = [_detected(job, logs, images) for job in chosen.values() if job is not None]
    path = output / "roi_pool_beside_roi_align.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_comparison(images, found[0], found[1], validation.class_names, path, titles=("RoIPool", "RoIAlign"))
    return path


def _detected(job: comparison.Job, logs: str | Path, images: Sequence[Any]) -> list[Any]:
    folder = plan.find(logs, job.run.key)
    if folder is None:
        raise FileNotFoundError(f"the run of {job.label!r} is not in {logs}; train it there, for its picture")
    model = MaskRCNN("inference", job.config, logs)
    model.load_weights(run_folder.checkpoints(folder)[-1])
    return model.detect(images)


# The command


def parser() -> argparse.ArgumentParser:
    """Flags of the command."""
    flags = argparse.ArgumentParser(
        "python -m mrcnn.experiments.ablation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = flags.add_argument
    add("--table", required=True, choices=tables.TABLES, help="of the paper; matterport: the old package's causes")
    add("--dataset", required=True, metavar="DIR", help="annotations: a file or a folder")
    add("--subset", default="train", metavar="NAME", help="part to train on (train)")
    add("--val", metavar="DATA", help="validation data, where they lie elsewhere")
    add("--val-subset", default="val", metavar="NAME", help="part to validate on (val)")
    add("--format", metavar="NAME", help="of the annotations, if not recognized")
    add("--backbone", metavar="NAME", help="in place of the paper's, such as mobilenet")
    add("--weights", default="none", metavar="W", help='file, "imagenet" (with --backbone), or "none" (none)')
    add("--seeds", type=_seeds, default=(0,), metavar="SEEDS", help="as 0,1,2 (0)")
    add("--epochs", type=int, default=12, metavar="N", help="of each training (12)")
    add("--layers", metavar="L", help="what is trained (all; 3+ with --weights)")
    add("--logs", default="logs", metavar="DIR", help="folder of the runs (logs)")
    add("--output", metavar="DIR", help="folder of the table (ablation_TABLE in --logs)")
    add("--verbose", type=int, default=2, help="0: silent, 1: a bar, 2: a line an epoch (2)")
    add("--set", type=key_value, action="append", default=[], metavar="NAME=V", help="any setting; repeatable")
    return flags


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected whole numbers as 0,1,2, got {text!r}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; 2 where it cannot begin, 130 after Ctrl-C."""
    from mrcnn.data.formats import load_dataset

    given = parser().parse_args(arguments)
    try:
        training = load_dataset(given.dataset, given.subset, format=given.format)
        names = training.class_names[1:]
        validation = load_dataset(given.val or given.dataset, given.val_subset, format=given.format, class_names=names)
        settings = {"NAME": "ablation", "STEPS_PER_EPOCH": None, "VALIDATION_STEPS": None} | dict(given.set)
        if given.backbone:
            settings["BACKBONE"] = given.backbone
        config = Config(**settings, NUM_CLASSES=training.num_classes)
        ablate(
            given.table,
            training,
            validation,
            config,
            backbone=given.backbone,
            seeds=given.seeds,
            epochs=given.epochs,
            layers=given.layers,
            weights=_start(given.weights, config, given.backbone),
            logs=given.logs,
            output=given.output,
            verbose=given.verbose,
        )
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        state = error.state if isinstance(error, TrainingInterrupted) else "early; finished runs are saved."
        print(f"\nInterrupted {state} Run the same command to continue.", file=sys.stderr)
        return 130
    return 0


def _start(weights: str, config: Config, backbone: str | None) -> str | None:
    """The file that --weights means; None for random weights."""
    if weights != "imagenet":
        return None if weights == "none" else weights
    from mrcnn.weights.importers import imagenet

    if backbone is None:
        raise ValueError("--weights imagenet is one file for all rows; name its network by --backbone")
    return str(imagenet.download(config.BACKBONE, config.BACKBONE_OPTIONS))


if __name__ == "__main__":
    sys.exit(main())

"""The command `compare`: calls `mrcnn.experiments.compare` with the command-line settings."""

import argparse
from pathlib import Path
from typing import Any

import heads
from mrcnn import experiments
from mrcnn.data.formats.coco import CocoDataset
from samples.coco.layout import fingerprint
from samples.coco.recipes import stages_of, training_config
from samples.weights import path_of


def compare_heads(
    arguments: argparse.Namespace, training: CocoDataset, validation: CocoDataset
) -> list[dict[str, Any]]:
    """Trains and evaluates every head with every seed, and writes the table."""
    config = training_config(
        argparse.Namespace(**vars(arguments) | {"head": None, "head_option": []}), training.num_classes
    )
    chosen = arguments.head or [{"name": name} for name in heads.names("mask")]
    hashes = [
        fingerprint(arguments.dataset, arguments.year, split, dataset)
        for split, dataset in (("train", training), ("val", validation))
    ]
    task = experiments.Task(
        training,
        validation,
        config,
        stages_of(arguments, config.LEARNING_RATE),
        preset=arguments.preset or "reference",
        fingerprints=tuple(hashes),
    )
    return experiments.compare(
        {Path(arguments.dataset).resolve().name: task},
        [head | dict(arguments.head_option) for head in chosen],
        seeds=arguments.seeds,
        weights=None if arguments.model == "none" else path_of(arguments.model, config, arguments.logs),
        exclude=arguments.exclude,
        logs=arguments.logs,
        output=arguments.output,
        verbose=arguments.verbose,
    )
